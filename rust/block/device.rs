// SPDX-License-Identifier: GPL-2.0

//! Block devices, and the device below a target.
//!
//! C headers: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h),
//! [`include/linux/blk_types.h`](srctree/include/linux/blk_types.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{bindings::block_device, prelude::*};

use crate::bindings;

/// A reference to a block device that lives for `'a`.
///
/// # Invariants
///
/// The pointer is valid for `'a`.
#[derive(Clone, Copy)]
pub struct BlockDevice<'a>(NonNull<block_device>, PhantomData<&'a ()>);

// SAFETY: Like a shared reference to a kernel object whose fields are read atomically.
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

    /// Returns the major and minor number as a `dev_t`. Returns 0 for a mapped device whose first
    /// table is being loaded.
    pub fn dev_t(self) -> u32 {
        // SAFETY: Valid by the type invariant; the number is set before the device can do I/O.
        unsafe { (*self.0.as_ptr()).bd_dev }
    }

    /// Returns the size in sectors.
    pub fn sectors(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::dm_rust_bdev_sectors(self.0.as_ptr()) }
    }
}

/// A device below a target, which keeps the device open (`struct dm_dev`).
///
/// # Invariants
///
/// `dev` was returned for `ti` by `dm_get_device()`. `ti` outlives the value, as a target's private
/// data is dropped by its destructor at the latest.
pub struct Device {
    ti: NonNull<bindings::dm_target>,
    dev: NonNull<bindings::dm_dev>,
}

// SAFETY: `dm_put_device()` may be called from any task, and shared references only read.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

impl Device {
    /// # Safety
    ///
    /// `ti` and `dev` meet the type invariant.
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

    /// Returns the block device.
    pub fn bdev(&self) -> BlockDevice<'_> {
        // SAFETY: `dev` is valid by the type invariant, and keeps its block device open.
        unsafe { BlockDevice(NonNull::new_unchecked(self.dev.as_ref().bdev), PhantomData) }
    }

    /// Returns the device number as tables show it, `major:minor`.
    pub fn name(&self) -> &str {
        // SAFETY: A C string that device-mapper does not change while the device is open.
        let name = unsafe { CStr::from_char_ptr(self.dev.as_ref().name.as_ptr()) };
        // Digits and a colon, so always valid UTF-8.
        name.to_str().unwrap_or_default()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Called once, as the value is being dropped.
        unsafe { bindings::dm_put_device(self.ti.as_ptr(), self.dev.as_ptr()) };
    }
}
