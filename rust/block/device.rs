// SPDX-License-Identifier: GPL-2.0

//! Block devices, and the device below a target.
//!
//! C headers: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h),
//! [`include/linux/blk_types.h`](srctree/include/linux/blk_types.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{bindings::block_device, prelude::*};

use crate::bindings;

/// A block device that outlives `'a`.
///
/// # Invariants
///
/// The pointer is valid for `'a`.
#[derive(Clone, Copy)]
pub struct BlockDevice<'a>(NonNull<block_device>, PhantomData<&'a ()>);

// SAFETY: A shared reference to a kernel object whose fields are read atomically.
unsafe impl Send for BlockDevice<'_> {}
// SAFETY: As above.
unsafe impl Sync for BlockDevice<'_> {}

impl PartialEq for BlockDevice<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<'a> BlockDevice<'a> {
    /// # Safety
    ///
    /// `bdev` is valid for `'a`.
    pub(crate) unsafe fn from_raw(bdev: NonNull<block_device>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(bdev, PhantomData)
    }

    pub(crate) fn as_ptr(self) -> *mut block_device {
        self.0.as_ptr()
    }

    /// Its major and minor number, as the kernel puts them together (`dev_t`); 0 for a mapped device
    /// whose first table is being made.
    pub fn dev_t(self) -> u32 {
        // SAFETY: Valid by the type invariant; it is set before the device can do I/O.
        unsafe { (*self.0.as_ptr()).bd_dev }
    }

    /// Size in sectors.
    pub fn sectors(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::dm_rust_bdev_sectors(self.0.as_ptr()) }
    }
}

/// A device below a target, held open by it (`struct dm_dev`).
///
/// # Invariants
///
/// `dev` was got for `ti` by `dm_get_device()`; `ti` outlives the value, as a target's private
/// data is dropped by its destructor at the latest.
pub struct Device {
    ti: NonNull<bindings::dm_target>,
    dev: NonNull<bindings::dm_dev>,
}

// SAFETY: `dm_put_device()` may be called from any task, and reading is shared.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

impl Device {
    /// # Safety
    ///
    /// As the type invariant says.
    pub(crate) unsafe fn from_raw(
        ti: NonNull<bindings::dm_target>,
        dev: NonNull<bindings::dm_dev>,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self { ti, dev }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::dm_dev {
        self.dev.as_ptr()
    }

    /// The block device.
    pub fn bdev(&self) -> BlockDevice<'_> {
        // SAFETY: `dev` is valid by the type invariant, and keeps its block device open.
        unsafe { BlockDevice(NonNull::new_unchecked(self.dev.as_ref().bdev), PhantomData) }
    }

    /// Returns its number as tables show it, `major:minor` (`struct dm_dev`).
    pub fn name(&self) -> &str {
        // SAFETY: A string that device-mapper doesn't change while the device is open.
        let name = unsafe { CStr::from_char_ptr(self.dev.as_ref().name.as_ptr()) };
        // Digits and a colon.
        name.to_str().unwrap_or_default()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; only done once.
        unsafe { bindings::dm_put_device(self.ti.as_ptr(), self.dev.as_ptr()) };
    }
}
