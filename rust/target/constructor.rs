// SPDX-License-Identifier: GPL-2.0

//! Targets under construction.

use core::{marker::PhantomData, ptr::NonNull};

use kernel::prelude::*;

use crate::{bindings, block::device::Device, target::MappedDevice};

/// A target under construction.
///
/// # Invariants
///
/// `ti` is valid for `'a`, and its constructor runs.
pub struct Constructor<'a> {
    ti: NonNull<bindings::dm_target>,
    live: PhantomData<&'a ()>,
}

impl Constructor<'_> {
    /// # Safety
    ///
    /// `ti` is valid for the lifetime of the value, and its constructor runs.
    pub(super) unsafe fn from_raw(ti: NonNull<bindings::dm_target>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            ti,
            live: PhantomData,
        }
    }

    fn raw(&self) -> &bindings::dm_target {
        // SAFETY: Valid by the type invariant.
        unsafe { self.ti.as_ref() }
    }

    /// Sets the message that device-mapper logs for a failed constructor, and returns `error`.
    pub fn fail(&self, text: &'static CStr, error: Error) -> Error {
        // SAFETY: Valid by the type invariant; the text is static and only read.
        unsafe { (*self.ti.as_ptr()).error = text.as_char_ptr().cast_mut() };
        error
    }

    /// Returns the length of the target in sectors.
    pub fn sectors(&self) -> u64 {
        self.raw().len
    }

    /// Opens a device by path or number, with the mode of the table. Fails as `dm_get_device()`
    /// does.
    ///
    /// A target may open several devices, and one device several times.
    pub fn open(&self, path: &CStr) -> Result<Device> {
        let mut dev = core::ptr::null_mut();
        // SAFETY: `dm_get_device()` may be called in the constructor, where we are.
        kernel::error::to_result(unsafe {
            bindings::dm_get_device(
                self.ti.as_ptr(),
                path.as_char_ptr(),
                bindings::dm_table_get_mode(self.raw().table),
                &mut dev,
            )
        })
        .map_err(|error| self.fail(c"Cannot open device", error))?;
        let dev = NonNull::new(dev).ok_or(ENODEV)?;
        // SAFETY: The device was just opened for this target, which drops its private data in its
        // destructor.
        Ok(unsafe { Device::from_raw(self.ti, dev) })
    }

    /// Has I/O split at multiples of `sectors` from the start of the target.
    pub fn split_at(&self, sectors: u32) -> Result {
        // SAFETY: Valid by the type invariant.
        kernel::error::to_result(unsafe {
            bindings::dm_set_target_max_io_len(self.ti.as_ptr(), u64::from(sectors))
        })
    }

    /// Has each flush sent to the target `count` times, for example once for each device below.
    /// Without this call, the target gets no flushes.
    pub fn set_flush_bios(&self, count: u32) {
        // SAFETY: Valid by the type invariant, and not shared yet in the constructor.
        unsafe { (*self.ti.as_ptr()).num_flush_bios = count };
    }

    /// Has each discard sent to the target `count` times. Without this call, the target gets none.
    pub fn set_discard_bios(&self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.ti.as_ptr()).num_discard_bios = count };
    }

    /// Has each write of zeroes sent to the target `count` times. Without this call, zeroes are
    /// written as data.
    pub fn set_write_zeroes_bios(&self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.ti.as_ptr()).num_write_zeroes_bios = count };
    }

    /// Returns the mapped device that the target's table is for.
    pub fn mapped_device(&self) -> MappedDevice {
        // SAFETY: The table belongs to a mapped device, which outlives it.
        unsafe { MappedDevice::from_raw(bindings::dm_table_get_md(self.raw().table)) }
    }
}
