// SPDX-License-Identifier: GPL-2.0

//! The mapped devices that targets belong to.

use core::ptr::NonNull;

use kernel::prelude::*;

use crate::{bindings, block::device::BlockDevice};

/// The mapped device that a target belongs to.
///
/// # Invariants
///
/// The pointer is valid while the target exists: device-mapper destroys the tables first.
pub struct MappedDevice(*mut bindings::mapped_device);

// SAFETY: Only used for reading.
unsafe impl Send for MappedDevice {}
// SAFETY: As above.
unsafe impl Sync for MappedDevice {}

impl MappedDevice {
    /// # Safety
    ///
    /// `md` is the mapped device of the target that keeps the value.
    pub(super) unsafe fn from_raw(md: *mut bindings::mapped_device) -> Self {
        // INVARIANT: By the safety requirements.
        Self(md)
    }

    /// Returns the block device.
    pub fn bdev(&self) -> BlockDevice<'_> {
        // SAFETY: Valid by the type invariant, and so is its disk.
        unsafe { BlockDevice::from_raw(NonNull::new_unchecked(bindings::dm_rust_md_bdev(self.0))) }
    }

    /// Returns the device number, as `major:minor`.
    pub fn name(&self) -> &CStr {
        // SAFETY: The name lives as long as the device.
        unsafe { CStr::from_char_ptr(bindings::dm_device_name(self.0)) }
    }
}
