// SPDX-License-Identifier: GPL-2.0

//! Switches for single guards of the record invariant.
//!
//! In a normal build [`Guard::on`] is the constant `true` and costs nothing. A build with
//! `MUTANTS=1` can switch guards off one by one, to show that a test notices.

/// Something that keeps the record invariant, or keeps a wrong page from being copied.
///
/// The number is the guard's bit in the `guards_off` module parameter of a test build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Guard {
    /// Records end when their page leaves the page cache.
    RemovalHook = 0,
    /// Records end when their page is dirtied.
    DirtyHook = 1,
    /// Only what readahead reads is recorded; another read ends what is known of its folio.
    Readahead = 2,
    /// A record is looked at again under the donor's locks.
    Recheck = 3,
    /// File systems with blocks smaller than a page don't donate.
    BlockSize = 4,
    /// Only file systems of the allow-list donate.
    FileSystem = 5,
    /// Encrypted inodes don't donate.
    Encrypted = 6,
    /// A claimed block device's own pages don't donate.
    ClaimedDevice = 7,
    /// Only what is mounted directly from the target's device donates.
    DirectlyMounted = 8,
    /// A change of the reader's own mapping voids the read's copy and record.
    Epoch = 9,
    /// A change of the thin device's table voids the read's record.
    Binding = 10,
    /// Records end when their data block is allocated anew.
    Reallocation = 11,
    /// Records of a device end with its target.
    Teardown = 12,
    /// A failed read ends what is known of its pages, and records nothing.
    ReadError = 13,
    /// Only blocks that dm-thin calls shared are recorded and served.
    Shared = 14,
    /// Records of a pool end when its metadata is rolled back.
    Rollback = 15,
    /// Records end when a part of their page is zeroed that then stays clean.
    Truncation = 16,
    /// What is being read while it is zeroed in part isn't recorded.
    Withhold = 17,
    /// What is read for one is given to others only if it comes from where it was looked up.
    Lend = 18,
    /// A write becomes one of a whole block only if no other to the block is in flight.
    AloneBefore = 19,
    /// Other writes to the block wait for one that has become one of the whole block.
    AloneAfter = 20,
    /// A lookup that was kept is used only in the epoch that it was made in.
    Kept = 21,
    /// A folio is dropped only if it is clean, and nobody else uses it.
    Unused = 22,
}

#[cfg(DRR_MUTANTS)]
static OFF: kernel::sync::atomic::Atomic<u64> = kernel::sync::atomic::Atomic::new(0);

impl Guard {
    /// Whether the guard is to be kept.
    #[inline(always)]
    pub fn on(self) -> bool {
        #[cfg(DRR_MUTANTS)]
        return OFF.load(kernel::sync::atomic::Relaxed) & (1 << self as u32) == 0;
        #[cfg(not(DRR_MUTANTS))]
        true
    }
}

/// Switches guards off; bit *n* is the guard with the number *n*.
#[cfg(DRR_MUTANTS)]
pub fn switch_off(mask: u64) {
    OFF.store(mask, kernel::sync::atomic::Relaxed);
}
