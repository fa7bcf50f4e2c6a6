// SPDX-License-Identifier: GPL-2.0

//! Stand-in: bios, which have no data here, and memory that a read fills.

use core::{marker::PhantomData, ptr::NonNull};
use std::sync::atomic::Ordering::Relaxed;

use kernel::bindings::bio;

use crate::target::{per_bio, Target};

/// log2 of the bytes in a sector.
pub const SECTOR_SHIFT: u32 = 9;

/// What became of a bio.
pub struct Mapped {
    remapped: bool,
}

impl Mapped {
    pub(crate) fn submitted() -> Self {
        Self { remapped: false }
    }

    pub(crate) fn is_remapped(&self) -> bool {
        self.remapped
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
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>, begin: u64) -> Self {
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
        let raw = unsafe { self.bio.as_ref() };
        raw.completed.fetch_add(1, Relaxed);
        Mapped::submitted()
    }

    /// Sends it down.
    pub fn remap(self) -> Mapped {
        Mapped { remapped: true }
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
