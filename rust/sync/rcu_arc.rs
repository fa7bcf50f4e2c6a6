// SPDX-License-Identifier: GPL-2.0

//! Reference-counted values that RCU readers may access without a reference.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{cell::UnsafeCell, ops::Deref, ptr::NonNull};

use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu,
    },
};

use crate::{bindings, compat::kvfree_rcu_head};

#[repr(C)]
struct Inner<T> {
    refs: Atomic<u32>,
    value: T,
    rcu: UnsafeCell<kvfree_rcu_head>,
}

/// A reference to a value that is freed a grace period after the last reference is dropped.
///
/// The value itself is not dropped, so its type must not need to be.
///
/// # Invariants
///
/// The pointer was made by [`RcuArc::new`], and the reference is counted.
pub struct RcuArc<T>(NonNull<Inner<T>>);

// SAFETY: As for `Arc`: the value is shared between threads, and may be freed by any of them.
unsafe impl<T: Send + Sync> Send for RcuArc<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuArc<T> {}

impl<T> RcuArc<T> {
    /// Bytes of memory that a value takes: kmalloc's sizes above 128 are 192 and powers of two.
    pub const BYTES: usize = {
        let bytes = size_of::<Inner<T>>();
        if bytes > 128 && bytes <= 192 {
            192
        } else {
            bytes.next_power_of_two()
        }
    };

    /// Allocates a value, and returns the first reference to it. Fails with `ENOMEM`.
    pub fn new(value: T, flags: Flags) -> Result<Self> {
        const {
            assert!(
                !core::mem::needs_drop::<T>(),
                "values are freed, not dropped"
            );
        }
        let inner = KBox::new(
            Inner {
                refs: Atomic::new(1),
                value,
                rcu: UnsafeCell::new(kvfree_rcu_head::default()),
            },
            flags,
        )?;
        // INVARIANT: Just allocated, with one reference counted.
        // SAFETY: The pointer of a box is not null.
        Ok(Self(unsafe {
            NonNull::new_unchecked(KBox::into_raw(inner))
        }))
    }

    /// Returns a pointer to the value, for an object that RCU readers access. The pointer does not
    /// count a reference: pass on this one by calling [`core::mem::forget`] on it.
    pub fn ptr(&self) -> RcuPtr<T> {
        RcuPtr(self.0)
    }

    /// Drops the reference, and returns whether it was the last.
    pub fn put(self) -> bool {
        let inner = self.0;
        core::mem::forget(self);
        // SAFETY: Valid by the type invariant; the reference is not used any more.
        unsafe { put(inner) }
    }
}

/// Drops a reference, and returns whether it was the last.
///
/// # Safety
///
/// `inner` is that of a counted reference that is not used any more.
unsafe fn put<T>(inner: NonNull<Inner<T>>) -> bool {
    // SAFETY: Valid by the invariant of the reference.
    let this = unsafe { inner.as_ref() };
    let last = this.refs.fetch_add(1u32.wrapping_neg(), Full) == 1;
    if last {
        // SAFETY: Allocated by `KBox::new`, and the last reference is gone. Only RCU readers may
        // still access the value.
        unsafe { bindings::kvfree_call_rcu(this.rcu.get(), inner.as_ptr().cast()) };
    }
    last
}

impl<T> Deref for RcuArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Valid by the type invariant.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Drop for RcuArc<T> {
    fn drop(&mut self) {
        // SAFETY: The reference is not used any more.
        unsafe { put(self.0) };
    }
}

/// A counted reference in an object that RCU readers access and that is freed without being
/// dropped.
pub struct RcuPtr<T>(NonNull<Inner<T>>);

// SAFETY: As for `RcuArc`.
unsafe impl<T: Send + Sync> Send for RcuPtr<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuPtr<T> {}

impl<T> RcuPtr<T> {
    /// Returns the value, which remains valid while the guard is held.
    ///
    /// # Safety
    ///
    /// The reference had not been released at some moment after the guard was taken.
    #[inline]
    pub unsafe fn get<'g>(&self, _guard: &'g rcu::Guard) -> &'g T {
        // SAFETY: By the safety requirements, the last reference was dropped after the guard was
        // taken, if at all.
        unsafe { &self.0.as_ref().value }
    }

    /// Takes another reference. Returns `None` if the last one has been dropped.
    ///
    /// # Safety
    ///
    /// As for [`Self::get`].
    pub unsafe fn try_ref(&self, _guard: &rcu::Guard) -> Option<RcuArc<T>> {
        // SAFETY: By the safety requirements the memory is still valid.
        let refs = unsafe { &self.0.as_ref().refs };
        let mut count = refs.load(Relaxed);
        while count != 0 && count != u32::MAX {
            // RANGE: Not `u32::MAX`.
            match refs.cmpxchg(count, count + 1, Full) {
                // INVARIANT: Just counted.
                Ok(_) => return Some(RcuArc(self.0)),
                Err(now) => count = now,
            }
        }
        None
    }

    /// Returns the reference that this pointer holds.
    ///
    /// # Safety
    ///
    /// The reference was passed on to this pointer, and this function is called once.
    pub unsafe fn release(&self) -> RcuArc<T> {
        // INVARIANT: Counted, by the safety requirements, and returned only once.
        RcuArc(self.0)
    }
}

#[kunit_tests(dm_rcu_arc)]
mod tests {
    use super::*;

    #[test]
    fn none_is_taken_once_the_last_is_gone() -> Result {
        let first = RcuArc::new(7, GFP_KERNEL)?;
        let pointer = first.ptr();
        core::mem::forget(first);
        let guard = rcu::read_lock();
        // SAFETY: The reference in `pointer` has not been released.
        let second = unsafe { pointer.try_ref(&guard) }.ok_or(ENOENT)?;
        // SAFETY: The reference was passed on to the pointer.
        assert!(!unsafe { pointer.release() }.put());
        assert_eq!(*second, 7);
        // SAFETY: The reference was released after the guard was taken.
        assert!(unsafe { pointer.try_ref(&guard) }.is_some());
        assert!(second.put());
        // SAFETY: As above.
        assert!(unsafe { pointer.try_ref(&guard) }.is_none());
        // SAFETY: As above.
        assert_eq!(*unsafe { pointer.get(&guard) }, 7);
        Ok(())
    }
}
