// SPDX-License-Identifier: GPL-2.0

//! Switches for single rules. Without any of them, wrong bytes are served or freed memory is used.
//!
//! In a normal build [`Rule::on`] is the constant `true` and costs nothing. A build with
//! `MUTANTS=1` can switch single rules off, to show that a test fails without them.

/// A rule that keeps what is served correct.
///
/// The number is the rule's bit in the `rules_off` module parameter of a test build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Rule {
    /// A copy is served only if it has the digest of the content.
    Proof = 0,
    /// A copy is proven before it is written to the reader's memory.
    ProofFirst = 1,
    /// Only memory that nothing but the read can write to is hashed.
    Alone = 2,
    /// Only pages that one bio has read as a whole are recorded.
    WholePages = 3,
    /// A change of the mapping that began after the lookup voids the read's record.
    Begun = 4,
    /// A change of the mapping that was under way at the lookup voids the read's record.
    Quiet = 5,
    /// A change of the thin device's table since the lookup voids the read's record.
    Binding = 6,
    /// The time of a mapping is a part of the content's name.
    Time = 7,
    /// Only blocks that dm-thin calls shared have names.
    Shared = 8,
    /// A kept lookup is used only if no mapping has changed since.
    Kept = 9,
    /// Kept lookups end when a pool's metadata is rolled back.
    Rollback = 10,
    /// Records end when their page leaves the page cache.
    RemovalHook = 11,
    /// Records of a device end with its target.
    Teardown = 12,
    /// A write is extended to the whole block only if no other write to the block is in flight.
    AloneBefore = 13,
    /// Other writes to the block wait for one that was extended to the whole block.
    AloneAfter = 14,
    /// A folio is dropped only if it is clean and unused.
    Unused = 15,
}

#[cfg(DRR_MUTANTS)]
static OFF: kernel::sync::atomic::Atomic<u64> = kernel::sync::atomic::Atomic::new(0);

impl Rule {
    /// Returns whether the rule is in force.
    #[inline(always)]
    pub fn on(self) -> bool {
        #[cfg(DRR_MUTANTS)]
        // RANGE: There are fewer rules than bits.
        return OFF.load(kernel::sync::atomic::Relaxed) & (1 << self as u32) == 0;
        #[cfg(not(DRR_MUTANTS))]
        true
    }
}

/// Switches rules off: bit *n* of `mask` stands for the rule with the number *n*.
#[cfg(DRR_MUTANTS)]
pub fn switch_off(mask: u64) {
    OFF.store(mask, kernel::sync::atomic::Relaxed);
}
