// SPDX-License-Identifier: GPL-2.0

//! Reads that are done again from the device below, to compare.

use kernel::ffi::{c_int, c_void};

use crate::{
    bindings,
    block::bio::{per_bio_data, Bio, Mapped},
    block::device::BlockDevice,
    block::private_bio::{pieces, Done, PrivateBio, PrivateIo},
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

/// A target some of whose reads are verified.
pub trait Verify: Target {
    /// Learns what the second read showed. Any context.
    fn verified(&self, data: &mut Self::PerBio, verdict: Verdict);
}

/// Has `device` read from sector `sector` on into a private bio, compares that with the data that `bio`
/// already has, calls [`Verify::verified`], and completes `bio` with what the disk has.
///
/// Gives the bio back if there is no memory.
pub fn read_again<'a, T: Verify>(
    bio: Bio<'a, T>,
    target: &'a T,
    device: BlockDevice<'_>,
    sector: u64,
) -> core::result::Result<Mapped, Bio<'a, T>> {
    let size = bio.iter().bi_size;
    let Some(own) = PrivateBio::new(&bio, device, bindings::DM_RUST_OP_READ, size) else {
        return Err(bio);
    };
    own.send_for(bio, target, sector, Done::at_once(compared::<T>))
}

/// Tells the target what the second read showed, and leaves the disk's data in the bio.
fn compared<T: Verify>(second: &mut PrivateIo<T>, ok: bool) {
    let verdict = if ok { compare(second) } else { Verdict::Failed };
    if let Verdict::Different(_) = verdict {
        take_disk(second);
    }
    // SAFETY: The bio has been through `map`, and isn't completed yet.
    let data = unsafe { &mut *per_bio_data::<T>(second.bio().0.as_ptr()) };
    second.target().verified(data, verdict);
}

fn compare<T: Target>(second: &PrivateIo<T>) -> Verdict {
    let mut verdict = Verdict::Same;
    pieces(second, |done, ours, disk, len| {
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
        // RANGE: Less than a page, in the bio's data.
        verdict = Verdict::Different(done + at as u32);
        false
    });
    verdict
}

fn take_disk<T: Target>(second: &PrivateIo<T>) {
    pieces(second, |_, ours, disk, len| {
        // SAFETY: As in `compare`; they don't overlap.
        unsafe { core::ptr::copy_nonoverlapping(disk, ours, len) };
        true
    });
}
