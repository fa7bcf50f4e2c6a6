// SPDX-License-Identifier: GPL-2.0

//! Truncation of block devices' own page caches, by way of a kprobe.
//!
//! An ioctl or `fallocate()` that discards or zeroes a range of a block device truncates the
//! range in the page cache first. Where the range begins or ends inside a page, that page stays,
//! zeroed in part, clean, and without an event that a tracepoint would show; and if the caller is
//! killed then, or the request refused, no I/O follows either. `truncate_bdev_range()` is the one
//! place that all of them pass, and they hold `invalidate_lock` there.
//!
//! C sources: [`block/bdev.c`](srctree/block/bdev.c), [`block/ioctl.c`](srctree/block/ioctl.c),
//! [`include/linux/kprobes.h`](srctree/include/linux/kprobes.h)

use core::{ops::Range, ptr::NonNull};

use kernel::{
    bindings::{block_device, loff_t},
    error::from_err_ptr,
    ffi::c_void,
    prelude::*,
    sync::Arc,
};

use crate::{bindings, device::BlockDevice};

/// Is told of truncations.
pub trait TruncationEvents: Send + Sync {
    /// The page cache of `device` is going to be truncated in `bytes`; its `invalidate_lock` is
    /// held until after that.
    ///
    /// May be called in a breakpoint's handler, which is like an NMI: takes no lock and allocates
    /// nothing.
    fn truncates(&self, device: BlockDevice<'_>, bytes: Range<u64>);
}

/// Sends the truncations of all block devices to a `T` for as long as it lives.
///
/// # Invariants
///
/// The watch is on, and its data is the `T`.
pub struct Truncations<T: TruncationEvents> {
    watch: NonNull<bindings::dm_rust_truncations>,
    _target: Arc<T>,
}

// SAFETY: The watch may be ended by any task, and `T` can be sent and shared.
unsafe impl<T: TruncationEvents> Send for Truncations<T> {}
// SAFETY: As above.
unsafe impl<T: TruncationEvents> Sync for Truncations<T> {}

impl<T: TruncationEvents> Truncations<T> {
    /// Starts sending events to `target`. Process context.
    ///
    /// Fails with `EOPNOTSUPP` without `CONFIG_KPROBES`, with `ENOENT` if the kernel has no such
    /// function, with `ENOMEM`, and with what else `register_kprobe()` finds.
    pub fn new(target: Arc<T>) -> Result<Self> {
        let data = core::ptr::from_ref::<T>(&target).cast_mut().cast();
        // SAFETY: `target` is kept alive until the watch has ended in `drop`.
        let watch = from_err_ptr(unsafe {
            bindings::dm_rust_watch_truncations(Some(Self::truncates), data)
        })?;
        // INVARIANT: Just started.
        Ok(Self {
            watch: NonNull::new(watch).ok_or(ENOMEM)?,
            _target: target,
        })
    }

    /// # Safety
    ///
    /// Called with the data of [`Self::new`] and what `truncate_bdev_range()` was called with.
    unsafe extern "C" fn truncates(
        data: *mut c_void,
        device: *mut block_device,
        first: loff_t,
        last: loff_t,
    ) {
        // SAFETY: `data` is a `T`, by the safety requirements.
        let target = unsafe { &*data.cast::<T>() };
        if let Some(device) = NonNull::new(device) {
            // SAFETY: The caller has the device open.
            let device = unsafe { BlockDevice::from_raw(device) };
            // CAST: Offsets, which aren't negative.
            target.truncates(device, first as u64..(last as u64).wrapping_add(1));
        }
    }
}

impl<T: TruncationEvents> Drop for Truncations<T> {
    fn drop(&mut self) {
        // SAFETY: On, by the type invariant; it waits for handlers that run.
        unsafe { bindings::dm_rust_unwatch_truncations(self.watch.as_ptr()) };
    }
}
