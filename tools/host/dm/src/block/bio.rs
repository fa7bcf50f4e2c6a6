// SPDX-License-Identifier: GPL-2.0

//! Stand-in: bios, which have no data here, and memory that a read fills.

use core::{marker::PhantomData, ptr::NonNull};
use std::sync::atomic::Ordering::Relaxed;

use kernel::bindings::bio;

use crate::target::{per_bio, Target};

/// log2 of the bytes in a sector.
pub const SECTOR_SHIFT: u32 = 9;

/// What becomes of a bio: one that was completed is, already.
#[must_use]
pub struct Mapped {
    sent: Option<NonNull<bio>>,
}

impl Mapped {
    pub(crate) fn parked() -> Self {
        Self { sent: None }
    }

    /// # Safety
    ///
    /// Called once.
    pub(crate) unsafe fn carry_out(self) {
        if let Some(bio) = self.sent {
            // SAFETY: Ours, as the `Bio` was.
            unsafe { bio.as_ref() }.sent.fetch_add(1, Relaxed);
        }
    }
}

/// A bio in the hands of a target.
pub struct Bio<'a, T: Target> {
    bio: NonNull<bio>,
    begin: u64,
    target: PhantomData<&'a T>,
}

impl<T: Target> Bio<'_, T> {
    /// # Safety
    ///
    /// Nobody else uses the bio.
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>, begin: u64, _in_map: bool) -> Self {
        Self {
            bio,
            begin,
            target: PhantomData,
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut bio {
        self.bio.as_ptr()
    }

    pub(crate) fn begin(&self) -> u64 {
        self.begin
    }

    /// Data of the target's own that travels with it.
    pub fn data(&mut self) -> &mut T::PerBio {
        // SAFETY: Ours.
        unsafe { &mut (*per_bio::<T>(self.bio.as_ptr())).data }
    }

    /// Nobody polls here.
    pub(crate) fn stop_polling(&mut self) {}

    /// Completes it.
    pub fn complete(self) -> Mapped {
        // SAFETY: Ours.
        unsafe { kernel::bindings::bio_endio(self.bio.as_ptr()) };
        Mapped { sent: None }
    }

    /// Sends it down.
    pub fn remap(self) -> Mapped {
        Mapped {
            sent: Some(self.bio),
        }
    }
}

/// A bio that has ended.
pub struct EndedBio<'a, T: Target> {
    bio: NonNull<bio>,
    ok: bool,
    target: PhantomData<&'a T>,
}

impl<T: Target> EndedBio<'_, T> {
    /// # Safety
    ///
    /// It went through a target, and isn't completed.
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>, ok: bool) -> Self {
        Self {
            bio,
            ok,
            target: PhantomData,
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut bio {
        self.bio.as_ptr()
    }

    /// As in the module.
    pub fn ok(&self) -> bool {
        self.ok
    }
}

/// Writes into memory, from its first byte on.
///
/// # Invariants
///
/// `to` is good for `room` bytes, and ours for `'a`.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    to: NonNull<u8>,
    room: usize,
    memory: PhantomData<&'a ()>,
}

impl<'a> Writer<'a> {
    /// One that fills `memory`.
    pub fn new(memory: &'a mut [u8]) -> Self {
        // INVARIANT: Borrowed for `'a`.
        Self {
            to: NonNull::from(&mut *memory).cast(),
            room: memory.len(),
            memory: PhantomData,
        }
    }

    /// Copies `data`, as much as there is room for.
    pub fn write(&mut self, data: &[u8]) {
        let len = data.len().min(self.room);
        // SAFETY: There is room for so many bytes, and `data` is elsewhere, as the memory is borrowed.
        unsafe {
            core::ptr::copy_nonoverlapping(data.as_ptr(), self.to.as_ptr(), len);
            self.to = self.to.add(len);
        }
        // INVARIANT: What is left.
        self.room -= len;
    }
}
