// SPDX-License-Identifier: GPL-2.0

//! Work that a worker repeats at a fixed interval for as long as there is something to do.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{ffi::c_void, ptr::NonNull};

use kernel::{error::from_err_ptr, prelude::*};

use crate::bindings;

/// Work that is repeated.
pub trait Periodic: Send + Sync {
    /// Does a part of the work, and returns whether more is left. Process context. Calls don't
    /// overlap.
    fn tick(&self) -> bool;
}

/// Calls [`Periodic::tick`] of a `T` at a fixed interval after [`Self::start`], until it returns
/// false.
///
/// # Invariants
///
/// `raw` is a ticker that calls [`Self::tick`] with the content of `target`, until it is freed.
///
/// # Examples
///
/// Work that drops pages every 20 ms, as long as there are pages to drop.
///
/// ```ignore
/// impl Periodic for Reclaim {
///     fn tick(&self) -> bool {
///         self.drop_some();
///         self.due.load(Relaxed) != 0
///     }
/// }
///
/// let reclaim = PeriodicWork::new(c"my_reclaim", 20, Reclaim { due: Atomic::new(0) })?;
/// // The work dereferences to its `Reclaim`.
/// reclaim.due.store(64, Relaxed);
/// reclaim.start();
/// ```
pub struct PeriodicWork<T: Periodic> {
    raw: NonNull<bindings::dm_rust_ticker>,
    target: KBox<T>,
}

// SAFETY: `raw` may be used in any context and concurrently; `T` is `Send` and `Sync`.
unsafe impl<T: Periodic> Send for PeriodicWork<T> {}
// SAFETY: As above.
unsafe impl<T: Periodic> Sync for PeriodicWork<T> {}

impl<T: Periodic> PeriodicWork<T> {
    /// Creates the work without starting it. `name` is that of the workqueue, and `every_ms` the
    /// interval in milliseconds. Process context. Fails with `ENOMEM`.
    pub fn new(name: &'static CStr, every_ms: u32, target: T) -> Result<Self> {
        let target = KBox::new(target, GFP_KERNEL)?;
        let data = core::ptr::from_ref::<T>(&target)
            .cast_mut()
            .cast::<c_void>();
        // SAFETY: The box does not move its content, and is dropped after the ticker was freed.
        let raw = from_err_ptr(unsafe {
            bindings::dm_rust_ticker_new(
                name.as_char_ptr(),
                // Nothing waits for this work, so it needs no rescuer.
                false,
                every_ms,
                Some(Self::tick),
                data,
            )
        })?;
        // INVARIANT: Just created with these arguments.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            target,
        })
    }

    /// Schedules the work unless it is already scheduled. Any context; cheap if it is scheduled.
    pub fn start(&self) {
        // SAFETY: By the type invariant the ticker has not been freed.
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
        // SAFETY: By the type invariant the ticker has not been freed. Freeing it waits for a
        // running tick.
        unsafe { bindings::dm_rust_ticker_free(self.raw.as_ptr()) };
    }
}
