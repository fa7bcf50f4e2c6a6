// SPDX-License-Identifier: GPL-2.0

//! Spinlocks that are taken with interrupts off.
//!
//! The kernel crate has such locks in some series and not in others. These are the same in all of
//! them, and cost one call into C for each side.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use kernel::{
    ffi::{c_char, c_ulong},
    prelude::*,
    sync::lock::{Backend, Guard, Lock},
};

use crate::bindings;

/// A spinlock that any context but NMI may take.
///
/// Interrupts are off on this CPU while a guard exists, and then as they were before. So guards
/// that one context has at the same time must be dropped in the reverse order of their creation:
/// otherwise interrupts come back on under a lock, which can deadlock, and which lockdep reports.
///
/// # Examples
///
/// A number of events, which are counted where they end.
///
/// ```ignore
/// #[pin_data]
/// struct Events {
///     #[pin]
///     ended: IrqLock<u64>,
/// }
///
/// impl Events {
///     fn new() -> impl PinInit<Self, Error> {
///         try_pin_init!(Self {
///             ended <- IrqLock::new(0, c"events_ended", static_lock_class!()),
///         })
///     }
///
///     fn end_io(&self) {
///         let mut ended = self.ended.lock();
///         *ended = ended.saturating_add(1);
///     }
/// }
/// ```
pub type IrqLock<T> = Lock<T, IrqBackend>;

/// A locked [`IrqLock`].
pub type IrqGuard<'a, T> = Guard<'a, T, IrqBackend>;

/// The functions of an [`IrqLock`].
pub struct IrqBackend;

// SAFETY: A `spinlock_t` has one owner at a time. `relock` is the trait's own, which calls `lock`.
unsafe impl Backend for IrqBackend {
    type State = bindings::spinlock_t;
    /// The state of interrupts before the lock was taken.
    type GuardState = c_ulong;

    /// # Safety
    ///
    /// Those of [`Backend::init`].
    #[inline]
    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the safety requirements `ptr` is valid for writes, and `name` and `key` stay
        // valid.
        unsafe { bindings::__spin_lock_init(ptr, name, key) };
    }

    /// # Safety
    ///
    /// Those of [`Backend::lock`].
    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the safety requirements the lock is initialised.
        unsafe { bindings::dm_rust_irq_lock(ptr) }
    }

    /// # Safety
    ///
    /// Those of [`Backend::try_lock`].
    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: By the safety requirements the lock is initialised; `flags` is ours.
        unsafe { bindings::dm_rust_irq_trylock(ptr, &mut flags) }.then_some(flags)
    }

    /// # Safety
    ///
    /// Those of [`Backend::unlock`].
    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: By the safety requirements the caller owns the lock, so `flags` is what taking it
        // returned.
        unsafe { bindings::dm_rust_irq_unlock(ptr, *flags) };
    }

    /// # Safety
    ///
    /// Those of [`Backend::assert_is_held`].
    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // Each guard is checked when it is made. Without lockdep that would be a call for nothing.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the safety requirements the lock is initialised.
            unsafe { bindings::spin_assert_is_held(ptr) };
        }
    }
}

#[kunit_tests(dm_irq_lock)]
mod tests {
    use super::*;

    use kernel::{static_lock_class, sync::Arc};

    fn lock(value: u32) -> Result<Arc<IrqLock<u32>>> {
        Arc::pin_init(
            IrqLock::new(value, c"dm_irq_lock_test", static_lock_class!()),
            GFP_KERNEL,
        )
    }

    fn interrupts() -> bool {
        // SAFETY: Callable in any context.
        !unsafe { bindings::dm_rust_irqs_disabled() }
    }

    #[test]
    fn interrupts_are_off_while_it_is_locked() -> Result {
        let (outer, inner) = (lock(1)?, lock(2)?);
        assert!(interrupts());
        let mut guard = outer.lock();
        assert!(!interrupts());
        *guard += 1;
        // Not back on when the inner one of two is unlocked.
        let other = inner.try_lock().ok_or(EBUSY)?;
        assert_eq!((*guard, *other), (2, 2));
        drop(other);
        assert!(!interrupts());
        drop(guard);
        assert!(interrupts());
        assert_eq!(*outer.lock(), 2);
        assert!(interrupts());
        Ok(())
    }

    #[test]
    fn has_one_owner() -> Result {
        let lock = lock(0)?;
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        // What failed has not turned them on.
        assert!(!interrupts());
        drop(guard);
        assert!(lock.try_lock().is_some());
        assert!(interrupts());
        Ok(())
    }
}
