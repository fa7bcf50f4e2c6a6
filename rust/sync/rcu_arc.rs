// SPDX-License-Identifier: GPL-2.0

//! Reference-counted values that RCU readers may look at without a reference.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{cell::UnsafeCell, ops::Deref, ptr::NonNull};

use kernel::{
    alloc::Flags,
    bindings::kvfree_rcu_head,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu,
    },
};

use crate::bindings;

#[repr(C)]
struct Inner<T> {
    refs: Atomic<u32>,
    value: T,
    rcu: UnsafeCell<kvfree_rcu_head>,
}

/// A reference to a value whose memory is freed a grace period after the last reference is gone.
///
/// The value itself isn't dropped, so it must be of a type that needs no drop.
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
    /// Bytes of memory that a value takes; kmalloc's sizes above 128 are 192 and powers of two.
    pub const BYTES: usize = {
        let bytes = size_of::<Inner<T>>();
        if bytes > 128 && bytes <= 192 {
            192
        } else {
            bytes.next_power_of_two()
        }
    };

    /// Makes a value, and the first reference to it. Fails with `ENOMEM`.
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
        // INVARIANT: Just made, with one reference counted.
        // SAFETY: A box's pointer is not null.
        Ok(Self(unsafe {
            NonNull::new_unchecked(KBox::into_raw(inner))
        }))
    }

    /// A pointer to the value, for something that RCU readers look at. The reference in it isn't counted:
    /// leave it ours, with [`core::mem::forget`].
    pub fn ptr(&self) -> RcuPtr<T> {
        RcuPtr(self.0)
    }

    /// Drops the reference; returns whether it was the last.
    pub fn put(self) -> bool {
        let inner = self.0;
        core::mem::forget(self);
        // SAFETY: Valid by the type invariant; the reference isn't used any more.
        unsafe { put(inner) }
    }
}

/// # Safety
///
/// `inner` is that of a reference which isn't used any more.
unsafe fn put<T>(inner: NonNull<Inner<T>>) -> bool {
    // SAFETY: Valid by the invariant of the reference.
    let this = unsafe { inner.as_ref() };
    let last = this.refs.fetch_add(1u32.wrapping_neg(), Full) == 1;
    if last {
        // SAFETY: Allocated by `KBox::new`, and the last reference is gone; whoever looks at it
        // without one is an RCU reader.
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
        // SAFETY: It isn't used any more.
        unsafe { put(self.0) };
    }
}

/// A counted reference inside something that RCU readers look at, and that is freed without being dropped.
pub struct RcuPtr<T>(NonNull<Inner<T>>);

// SAFETY: As for `RcuArc`.
unsafe impl<T: Send + Sync> Send for RcuPtr<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for RcuPtr<T> {}

impl<T> RcuPtr<T> {
    /// Returns the value, whose memory stays for as long as the guard is held.
    ///
    /// # Safety
    ///
    /// The reference was not yet released at some moment after the guard was taken.
    #[inline]
    pub unsafe fn get<'g>(&self, _guard: &'g rcu::Guard) -> &'g T {
        // SAFETY: By the safety requirements the last reference went after the guard was taken, if it did.
        unsafe { &self.0.as_ref().value }
    }

    /// Takes another reference, unless the last one is gone.
    ///
    /// # Safety
    ///
    /// As for [`Self::get`].
    pub unsafe fn try_ref(&self, _guard: &rcu::Guard) -> Option<RcuArc<T>> {
        // SAFETY: By the safety requirements its memory is there.
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

    /// Takes the reference back.
    ///
    /// # Safety
    ///
    /// The reference that it was made of was left to it, and this is called once.
    pub unsafe fn release(&self) -> RcuArc<T> {
        // INVARIANT: Counted, by the safety requirements, and given back to nobody else.
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
        // SAFETY: The reference in `pointer` isn't released yet.
        let second = unsafe { pointer.try_ref(&guard) }.ok_or(ENOENT)?;
        // SAFETY: It was left to the pointer.
        assert!(!unsafe { pointer.release() }.put());
        assert_eq!(*second, 7);
        // SAFETY: It was released after the guard was taken.
        assert!(unsafe { pointer.try_ref(&guard) }.is_some());
        assert!(second.put());
        // SAFETY: As above.
        assert!(unsafe { pointer.try_ref(&guard) }.is_none());
        // SAFETY: As above.
        assert_eq!(*unsafe { pointer.get(&guard) }, 7);
        Ok(())
    }
}
