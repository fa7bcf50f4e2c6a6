// SPDX-License-Identifier: GPL-2.0

//! Something that is done every so often, in a worker, for as long as there is need.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{ffi::c_void, ptr::NonNull};

use kernel::{error::from_err_ptr, prelude::*};

use crate::bindings;

/// What is done.
pub trait Periodic: Send + Sync {
    /// Does some of it, in process context; calls don't overlap. Returns whether there is more to do.
    fn tick(&self) -> bool;
}

/// Has a `T` tick when it is told to, until that says that nothing is left to do.
///
/// # Invariants
///
/// `raw` is a ticker that calls [`Self::tick`] with the content of `target`, until it is freed.
pub struct PeriodicWork<T: Periodic> {
    raw: NonNull<bindings::dm_rust_ticker>,
    target: KBox<T>,
}

// SAFETY: `raw` may be used in any context and by any number at once; `T` is `Send` and `Sync`.
unsafe impl<T: Periodic> Send for PeriodicWork<T> {}
// SAFETY: As above.
unsafe impl<T: Periodic> Sync for PeriodicWork<T> {}

impl<T: Periodic> PeriodicWork<T> {
    /// Does nothing yet. `name` is that of the workqueue, and there are `every_ms` milliseconds
    /// between ticks. Fails with `ENOMEM`.
    pub fn new(name: &'static CStr, every_ms: u32, target: T) -> Result<Self> {
        let target = KBox::new(target, GFP_KERNEL)?;
        let data = core::ptr::from_ref::<T>(&target)
            .cast_mut()
            .cast::<c_void>();
        // SAFETY: The box doesn't move its content, and is dropped after the ticker was freed.
        let raw = from_err_ptr(unsafe {
            bindings::dm_rust_ticker_new(
                name.as_char_ptr(),
                // Nobody waits for a tick, reclaim least of all.
                false,
                every_ms,
                Some(Self::tick),
                data,
            )
        })?;
        // INVARIANT: Just made so.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            target,
        })
    }

    /// There is something to do. Any context; costs next to nothing while it is known.
    pub fn start(&self) {
        // SAFETY: Not freed yet, by the type invariant.
        unsafe { bindings::dm_rust_ticker_tick(self.raw.as_ptr(), false) };
    }

    /// # Safety
    ///
    /// Called by the ticker with the data of [`Self::new`].
    unsafe extern "C" fn tick(data: *mut c_void) -> bool {
        // SAFETY: By the safety requirements.
        unsafe { &*data.cast::<T>() }.tick()
    }
}

impl<T: Periodic> core::ops::Deref for PeriodicWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.target
    }
}

impl<T: Periodic> Drop for PeriodicWork<T> {
    fn drop(&mut self) {
        // SAFETY: Not freed yet, by the type invariant; it waits for a tick that is under way.
        unsafe { bindings::dm_rust_ticker_free(self.raw.as_ptr()) };
    }
}
