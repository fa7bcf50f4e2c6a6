// SPDX-License-Identifier: GPL-2.0

//! Reads that are done again from the device below, to compare.
//!
//! Nothing here waits for memory: below a file system that could wait for ever.

use core::ptr::NonNull;

use kernel::{
    alloc::{flags::*, KVec},
    bindings::{bio, bio_vec, bvec_iter, page},
    ffi::{c_int, c_void},
    prelude::*,
};

use crate::{
    bindings,
    bio::{advance, per_bio_data, piece, Bio, Mapped},
    device::BlockDevice,
    folio::PAGE_SHIFT,
    target::Target,
};

const PAGE_SIZE: u32 = 1 << PAGE_SHIFT;

extern "C" {
    fn memcmp(left: *const c_void, right: *const c_void, len: usize) -> c_int;
}

/// A page of our own.
///
/// # Invariants
///
/// The page is allocated and nobody else's.
struct OwnPage(NonNull<page>);

impl OwnPage {
    fn new() -> Option<Self> {
        // SAFETY: Allocates a page.
        // INVARIANT: Nobody else knows it.
        NonNull::new(unsafe { bindings::dm_rust_alloc_page_nowait() }).map(Self)
    }

    fn address(&self) -> *const u8 {
        // SAFETY: The page is ours.
        unsafe { bindings::dm_rust_page_address(self.0.as_ptr()) }.cast()
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_rust_free_page(self.0.as_ptr()) };
    }
}

/// A second read of what a bio's data has been filled with.
///
/// # Invariants
///
/// `bio` is owned, and completed by [`Second::finish`]. `target` outlives it, as device-mapper
/// destroys no target with I/O in flight.
pub struct Second<T: Target> {
    bio: NonNull<bio>,
    target: NonNull<T>,
    pages: KVec<OwnPage>,
    extent: bvec_iter,
}

/// What the second read showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Both have the same bytes.
    Same,
    /// They differ; the number is the first different byte's, counted from the read's start.
    Different(u32),
    /// The second read failed; nothing is known.
    Failed,
}

/// Reads `device` from `sector` on into memory of our own, compares it with the data that `bio`
/// already has, calls [`Target::verified`], and completes `bio` with what the disk has.
///
/// Gives the bio back if there is no memory; else calls `before` when it can't fail any more, and
/// when this has returned the target may be gone, unless something else keeps it.
pub fn read_again<'a, T: Target>(
    bio: Bio<'a, T>,
    target: &'a T,
    device: BlockDevice<'_>,
    sector: u64,
    before: impl FnOnce(),
) -> core::result::Result<Mapped, Bio<'a, T>> {
    let extent = bio.iter();
    let size = extent.bi_size;
    let count = size.div_ceil(PAGE_SIZE);

    let mut pages = KVec::new();
    for _ in 0..count {
        let pushed = OwnPage::new().map(|page| pages.push(page, GFP_NOWAIT | __GFP_NOWARN));
        if !matches!(pushed, Some(Ok(()))) {
            return Err(bio);
        }
    }
    // SAFETY: The device is open.
    let read = unsafe { bindings::dm_rust_bio_alloc_nowait(device.as_ptr(), count) };
    if read.is_null() {
        return Err(bio);
    }
    let mut left = size;
    for page in &pages {
        let len = left.min(PAGE_SIZE);
        // SAFETY: The bio has room for `count` pages.
        unsafe { kernel::bindings::__bio_add_page(read, page.0.as_ptr(), len, 0) };
        left -= len;
    }
    let second = Second::<T> {
        // SAFETY: A bio's pointer is not null.
        bio: unsafe { NonNull::new_unchecked(bio.as_ptr()) },
        target: NonNull::from(target),
        pages,
        extent,
    };
    let Ok(second) = KBox::new(second, GFP_NOWAIT | __GFP_NOWARN) else {
        // SAFETY: The read was not submitted.
        unsafe { kernel::bindings::bio_put(read) };
        return Err(bio);
    };
    before();
    // SAFETY: The read is ours and complete; `ended` gets the box back.
    unsafe {
        (*read).bi_iter.bi_sector = sector;
        (*read).bi_private = KBox::into_raw(second).cast();
        (*read).bi_end_io = Some(ended::<T>);
        kernel::bindings::submit_bio_noacct(read);
    }
    Ok(Mapped::submitted())
}

/// # Safety
///
/// Called by the block layer for a bio that [`read_again`] submitted.
unsafe extern "C" fn ended<T: Target>(read: *mut bio) {
    // SAFETY: By the safety requirements.
    let (second, status) = unsafe {
        let private: *mut c_void = (*read).bi_private;
        let status = (*read).bi_status;
        kernel::bindings::bio_put(read);
        (KBox::from_raw(private.cast::<Second<T>>()), status)
    };
    KBox::into_inner(second).finish(status);
}

impl<T: Target> Second<T> {
    /// Calls `visit` with each stretch of the bio's data and the same stretch of the second read,
    /// until it returns false.
    fn stretches(&self, mut visit: impl FnMut(u32, *mut u8, *const u8, usize) -> bool) {
        // SAFETY: The bio is ours, by the type invariant.
        let vecs: *const bio_vec = unsafe { self.bio.as_ref() }.bi_io_vec;
        let mut iter = self.extent;
        let mut done = 0u32;
        while iter.bi_size != 0 {
            // SAFETY: The extent is the bio's.
            let (vec, len) = unsafe { piece(vecs, &iter) };
            let at = done & (PAGE_SIZE - 1);
            let len = len.min(PAGE_SIZE - at);
            // SAFETY: Within the bio_vec, and within the page.
            let (ours, disk) = unsafe {
                (
                    bindings::dm_rust_page_address(vec.bv_page)
                        .cast::<u8>()
                        .add((vec.bv_offset + iter.bi_offset) as usize),
                    self.pages[(done >> PAGE_SHIFT) as usize]
                        .address()
                        .add(at as usize),
                )
            };
            if !visit(done, ours, disk, len as usize) {
                return;
            }
            done += len;
            advance(&vec, &mut iter, len);
        }
    }

    fn compare(&self) -> Verdict {
        let mut verdict = Verdict::Same;
        self.stretches(|done, ours, disk, len| {
            // Byte by byte and volatile, as the reader of a direct read may write to its buffer.
            let same = |at: usize| {
                // SAFETY: Both are good for `len` bytes.
                unsafe { ours.add(at).read_volatile() == disk.add(at).read_volatile() }
            };
            // SAFETY: As above.
            if unsafe { memcmp(ours.cast(), disk.cast(), len) } == 0 {
                return true;
            }
            let at = (0..len).take_while(|&at| same(at)).count();
            // CAST: Less than a page.
            verdict = Verdict::Different(done + at as u32);
            false
        });
        verdict
    }

    fn take_disk(&self) {
        self.stretches(|_, ours, disk, len| {
            // SAFETY: As in `compare`; they don't overlap.
            unsafe { core::ptr::copy_nonoverlapping(disk, ours, len) };
            true
        });
    }

    /// Tells the target and completes the bio, with the disk's data or its failure.
    fn finish(self, status: u8) {
        let verdict = if u32::from(status) == bindings::DM_RUST_STS_OK {
            self.compare()
        } else {
            Verdict::Failed
        };
        if let Verdict::Different(_) = verdict {
            self.take_disk();
        }
        // SAFETY: By the type invariant; the bio has been through `map`.
        unsafe {
            let data = &mut *per_bio_data::<T>(self.bio.as_ptr());
            self.target.as_ref().verified(data, verdict);
        }
        let bio = self.bio.as_ptr();
        // The memory goes first: the bio may be the last that keeps the target from going.
        drop(self);
        // SAFETY: The bio is ours and not used after this.
        unsafe {
            (*bio).bi_status = status;
            kernel::bindings::bio_endio(bio);
        }
    }
}
