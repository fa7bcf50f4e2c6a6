// SPDX-License-Identifier: GPL-2.0

//! Switches for single guards: rules without which wrong bytes are served, or memory is used that was freed.
//!
//! In a normal build [`Rule::on`] is the constant `true` and costs nothing. A build with
//! `MUTANTS=1` can switch guards off one by one, to show that a test notices.

/// A rule.
///
/// The number is the guard's bit in the `guards_off` module parameter of a test build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Rule {
    /// A copy is given away only if it has the digest.
    Proof = 0,
    /// A copy is proven before it is in the reader's memory.
    ProofFirst = 1,
    /// What is hashed is in memory that nobody else can write to.
    Alone = 2,
    /// Only pages that a bio has read as a whole are recorded.
    WholePages = 3,
    /// A change of the mapping since it was looked up voids the read's record.
    Begun = 4,
    /// So does one that was under way then.
    Quiet = 5,
    /// So does a change of the thin device's table.
    Binding = 6,
    /// The time of a mapping is a part of the content's name.
    Time = 7,
    /// Only blocks that dm-thin calls shared have names.
    Shared = 8,
    /// A lookup that was kept is used only if no mapping has changed since.
    Kept = 9,
    /// Lookups that were kept end when a pool's metadata is rolled back.
    Rollback = 10,
    /// Records end when their page leaves the page cache.
    RemovalHook = 11,
    /// Records of a device end with its target.
    Teardown = 12,
    /// A write becomes one of a whole block only if no other to the block is in flight.
    AloneBefore = 13,
    /// Other writes to the block wait for one that has become one of the whole block.
    AloneAfter = 14,
    /// A folio is dropped only if it is clean, and nobody else uses it.
    Unused = 15,
}

#[cfg(DRR_MUTANTS)]
static OFF: kernel::sync::atomic::Atomic<u64> = kernel::sync::atomic::Atomic::new(0);

impl Rule {
    /// Whether the guard is to be kept.
    #[inline(always)]
    pub fn on(self) -> bool {
        #[cfg(DRR_MUTANTS)]
        // RANGE: There are fewer guards than bits.
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
