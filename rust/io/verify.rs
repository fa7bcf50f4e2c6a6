// SPDX-License-Identifier: GPL-2.0

//! Reads that are repeated from the device below, to compare the data.

use kernel::ffi::{c_int, c_void};

use crate::{
    bindings,
    block::bio::{fill, per_bio_data, Bio, Mapped},
    block::device::BlockDevice,
    block::private_bio::{pieces, Done, PrivateBio, PrivateIo},
    target::Target,
};

extern "C" {
    fn memcmp(left: *const c_void, right: *const c_void, len: usize) -> c_int;
}

/// The result of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Both reads have the same bytes.
    Same,
    /// The reads differ, first at this byte from the start of the read.
    Different(u32),
    /// The second read failed, so nothing is known.
    Failed,
}

/// A target that verifies some reads.
///
/// # Examples
///
/// A target that compares a read with the disk before it completes, and counts differences.
///
/// ```ignore
/// impl Verify for MyTarget {
///     fn verified(&self, _data: &mut Self::PerBio, verdict: Verdict) {
///         if matches!(verdict, Verdict::Different(_)) {
///             self.differed.add(1);
///         }
///     }
/// }
///
/// // In `map`, instead of `bio.complete()`:
/// let (sector, disk) = (bio.sector(), self.disk.bdev());
/// read_again(bio, self, disk, sector).unwrap_or_else(|bio| bio.remap(disk, sector))
/// ```
pub trait Verify: Target {
    /// Called with the result of the comparison before the bio completes. Any context.
    fn verified(&self, data: &mut Self::PerBio, verdict: Verdict);
}

/// Reads the data of `bio` again, from sector `sector` of `device` into a private bio, compares the
/// two, calls [`Verify::verified`], and completes `bio` with the data and the status of the second
/// read.
///
/// Gives `bio` back if there is no memory.
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

/// Compares the data, copies that of the disk to the bio if they differ, and calls
/// [`Verify::verified`].
fn compared<T: Verify>(second: &mut PrivateIo<T>, ok: bool) {
    let verdict = if ok { compare(second) } else { Verdict::Failed };
    if let Verdict::Different(_) = verdict {
        take_disk(second);
    }
    // SAFETY: The bio has been through `map`, and is not completed yet.
    let data = unsafe { &mut *per_bio_data::<T>(second.bio().0.as_ptr()) };
    second.target().verified(data, verdict);
}

fn compare<T: Target>(second: &PrivateIo<T>) -> Verdict {
    let mut verdict = Verdict::Same;
    pieces(second, |done, ours, disk, len| {
        // Byte by byte and volatile, as a direct reader may write to its buffer meanwhile.
        let same = |at: usize| {
            // SAFETY: Both are valid for `len` bytes.
            unsafe { ours.add(at).read_volatile() == disk.add(at).read_volatile() }
        };
        // SAFETY: As above.
        if unsafe { memcmp(ours.cast(), disk.cast(), len) } == 0 {
            return true;
        }
        let at = (0..len).take_while(|&at| same(at)).count();
        // RANGE: Less than a page, within the data of the bio.
        verdict = Verdict::Different(done + at as u32);
        false
    });
    verdict
}

fn take_disk<T: Target>(second: &PrivateIo<T>) {
    pieces(second, |_, ours, disk, len| {
        // SAFETY: As in `compare`; the two do not overlap.
        unsafe { fill(ours, disk, len) };
        true
    });
}
