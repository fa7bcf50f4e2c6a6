// SPDX-License-Identifier: GPL-2.0

//! Reads that are done again from the device below, to compare.

use kernel::{
    bindings::bio_vec,
    ffi::{c_int, c_void},
};

use crate::{
    bindings,
    bio::{advance, per_bio_data, piece, Bio, Mapped},
    device::BlockDevice,
    own::{Errand, OwnBio, PAGE_SIZE},
    target::Target,
};

extern "C" {
    fn memcmp(left: *const c_void, right: *const c_void, len: usize) -> c_int;
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
    let size = bio.iter().bi_size;
    let Some(own) = OwnBio::new(&bio, device, bindings::DM_RUST_OP_READ, size) else {
        return Err(bio);
    };
    own.send_for(bio, target, sector, compared::<T>, before)
}

/// Tells the target what the second read showed, and leaves the disk's data in the bio.
fn compared<T: Target>(second: &Errand<T>, ok: bool) {
    let verdict = if ok { compare(second) } else { Verdict::Failed };
    if let Verdict::Different(_) = verdict {
        take_disk(second);
    }
    // SAFETY: The bio has been through `map`, and isn't completed yet.
    let data = unsafe { &mut *per_bio_data::<T>(second.bio().0.as_ptr()) };
    second.target().verified(data, verdict);
}

/// Calls `visit` with each stretch of the bio's data and the same stretch of the second read, until
/// it returns false.
fn stretches<T: Target>(
    second: &Errand<T>,
    mut visit: impl FnMut(u32, *mut u8, *const u8, usize) -> bool,
) {
    let (bio, mut iter) = second.bio();
    // SAFETY: The bio is ours until the errand is done.
    let vecs: *const bio_vec = unsafe { bio.as_ref() }.bi_io_vec;
    let mut done = 0u32;
    while iter.bi_size != 0 {
        // SAFETY: The extent is the bio's.
        let (vec, len) = unsafe { piece(vecs, &iter) };
        let len = len.min(PAGE_SIZE - done % PAGE_SIZE);
        // SAFETY: Within the bio_vec.
        let ours = unsafe {
            bindings::dm_rust_page_address(vec.bv_page)
                .cast::<u8>()
                .add((vec.bv_offset + iter.bi_offset) as usize)
        };
        if !visit(done, ours, second.own().address(done), len as usize) {
            return;
        }
        done += len;
        advance(&vec, &mut iter, len);
    }
}

fn compare<T: Target>(second: &Errand<T>) -> Verdict {
    let mut verdict = Verdict::Same;
    stretches(second, |done, ours, disk, len| {
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

fn take_disk<T: Target>(second: &Errand<T>) {
    stretches(second, |_, ours, disk, len| {
        // SAFETY: As in `compare`; they don't overlap.
        unsafe { core::ptr::copy_nonoverlapping(disk, ours, len) };
        true
    });
}
