// SPDX-License-Identifier: GPL-2.0

//! Whether a mapping of a pool's has been left alone for a while.
//!
//! Where a read comes from is looked up before the read is sent. What has come from the disk is the content
//! of the block that was found only if the mapping wasn't changed meanwhile: a change may have freed the
//! block, or the read may have passed dm-thin when it had the new mapping already.
//!
//! dm-thin tells of each change twice: before and after. Cells stand for virtual blocks, many blocks for a
//! cell, and each counts the changes that have *begun* and those that have *ended*:
//!
//! - a cell is *quiet* if both counts are the same: no change is under way;
//! - it is *unchanged* if no more changes have begun.
//!
//! A read takes a [`Epoch`] before the lookup, if the cell is quiet, and looks when it has ended whether the
//! cell is unchanged. If the read went to where a new mapping leads, dm-thin had inserted that, under a
//! lock that the read has passed since (its `root_lock`), and had told that it begins to before. So the count
//! is seen.
//!
//! A lookup that is kept for later reads ([`crate::access::mappings`]) stands for one that is made when a read comes,
//! if the cell is quiet and unchanged *then*. A change is complete when dm-thin completes the bio or the
//! message that asked for it. It tells of the change before that, so a read that comes afterwards sees the count.
//!
//! Writes that pass the target need no count of their own. One that changes no mapping changes no shared
//! block, and one that changes a mapping is told of.

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

use dm::{drr::rule::Rule, sync::cells::cells, sync::index::hash};

const CELLS: usize = 4096;

struct Cell {
    begun: Atomic<u64>,
    ended: Atomic<u64>,
}

/// A moment at which no change of a mapping was under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Epoch {
    cell: u32,
    /// Doesn't wrap: lookups are kept for as long as it stays the same.
    begun: u64,
    /// Which counters these are.
    counters: u64,
}

impl Epoch {
    /// What is the same for two stamps of a cell only if no change has begun between them.
    pub(crate) fn moment(self) -> [u64; 2] {
        [self.counters, self.begun]
    }
}

/// Numbers of [`Epochs`]: a pool whose targets have all gone starts to count anew with the next.
#[cfg(not(loom))]
static COUNTERS: Atomic<u64> = Atomic::new(0);
// What stands for it in models (tools/host), which know no static atomics.
#[cfg(loom)]
use crate::COUNTERS;

/// The changes of a pool's mappings.
pub(crate) struct Epochs {
    cells: KVVec<Cell>,
    /// A number that is never used again.
    number: u64,
}

impl Epochs {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let cell = || Cell {
            begun: Atomic::new(0),
            ended: Atomic::new(0),
        };
        Ok(Self {
            cells: cells(CELLS, cell)?,
            number: COUNTERS.fetch_add(1, Relaxed),
        })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        // RANGE: A size in memory.
        (self.cells.len() * size_of::<Cell>()) as u64
    }

    /// Consecutive blocks have consecutive cells.
    fn cell(thin_id: u32, block: u64) -> usize {
        // CAST: The remainder is less than `CELLS`.
        (hash(thin_id.into()).wrapping_add(block) % CELLS as u64) as usize
    }

    /// This moment, for virtual block `block` of thin device `thin_id`; nothing while a change is under way.
    #[inline]
    pub(crate) fn stamp(&self, thin_id: u32, block: u64) -> Option<Epoch> {
        let number = Self::cell(thin_id, block);
        let cell = &self.cells[number];
        // In this order: if they are the same, nothing had begun that hadn't ended when the first was read.
        // Acquire: what is looked up after this is looked up after this.
        let ended = cell.ended.load(Acquire);
        let begun = cell.begun.load(Acquire);
        // CAST: Less than `CELLS`.
        let cell = number as u32;
        (begun == ended || !Rule::Quiet.on()).then_some(Epoch {
            cell,
            begun,
            counters: self.number,
        })
    }

    /// No change of a mapping that `stamp` stands for has begun since.
    #[inline]
    pub(crate) fn unchanged(&self, stamp: Epoch) -> bool {
        // CAST: A `u32` fits.
        !Rule::Begun.on() || self.cells[stamp.cell as usize].begun.load(Acquire) == stamp.begun
    }

    fn each(&self, thin_id: u32, begin: u64, end: u64, visit: impl Fn(&Cell)) {
        let count = end.saturating_sub(begin).min(CELLS as u64);
        for step in 0..count {
            visit(&self.cells[Self::cell(thin_id, begin.wrapping_add(step))]);
        }
    }

    /// The mappings of virtual blocks `begin..end` of a thin device are about to change.
    pub(crate) fn begin(&self, thin_id: u32, begin: u64, end: u64) {
        self.each(thin_id, begin, end, |cell| {
            cell.begun.fetch_add(1, Full);
        });
    }

    /// They have changed.
    pub(crate) fn end(&self, thin_id: u32, begin: u64, end: u64) {
        self.each(thin_id, begin, end, |cell| {
            // A target that joins between the two isn't told of the first. Acquire: of a change that is told at the same
            // time, as a roll-back may be, the beginning is seen if the end is.
            if cell.ended.load(Acquire) == cell.begun.load(Relaxed) {
                cell.begun.fetch_add(1, Full);
            }
            cell.ended.fetch_add(1, Full);
        });
    }

    /// All mappings may have changed.
    pub(crate) fn change_all(&self) {
        self.begin(0, 0, CELLS as u64);
        self.end(0, 0, CELLS as u64);
    }
}

#[kunit_tests(drr_changes)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed() -> Result {
        let changes = Epochs::new()?;
        for (begin, end, block, noticed) in [
            (10, 11, 10, true),
            (10, 11, 11, false),
            (10, 10, 10, false),
            (11, 10, 10, false),
            (0, u64::MAX, 123_456, true),
            (u64::MAX - 1, u64::MAX, u64::MAX - 1, true),
        ] {
            let stamp = changes.stamp(7, block).ok_or(EINVAL)?;
            changes.begin(7, begin, end);
            assert_eq!(!changes.unchanged(stamp), noticed);
            assert_eq!(changes.stamp(7, block).is_none(), noticed);
            changes.end(7, begin, end);
            assert_eq!(!changes.unchanged(stamp), noticed);
            let changed = changes.stamp(7, block) != Some(stamp);
            assert_eq!(changed, noticed);
        }
        let stamp = changes.stamp(7, 5).ok_or(EINVAL)?;
        assert!(changes.unchanged(stamp));
        changes.change_all();
        assert!(!changes.unchanged(stamp) && changes.stamp(7, 5).is_some());
        Ok(())
    }

    #[test]
    fn who_counts_anew_isn_t_taken_for_another() -> Result {
        let (before, after) = (Epochs::new()?, Epochs::new()?);
        let moment = |changes: &Epochs| changes.stamp(7, 5).map(Epoch::moment);
        assert!(moment(&before) == moment(&before));
        assert!(moment(&before) != moment(&after));
        Ok(())
    }

    #[test]
    fn two_changes_at_once() -> Result {
        let changes = Epochs::new()?;
        changes.begin(7, 10, 11);
        changes.begin(7, 10, 11);
        changes.end(7, 10, 11);
        assert!(changes.stamp(7, 10).is_none());
        changes.end(7, 10, 11);
        assert!(changes.stamp(7, 10).is_some());
        Ok(())
    }

    #[test]
    fn who_joins_in_the_middle_of_a_change() -> Result {
        let changes = Epochs::new()?;
        let stamp = changes.stamp(7, 10).ok_or(EINVAL)?;
        changes.end(7, 10, 11);
        assert!(!changes.unchanged(stamp) && changes.stamp(7, 10).is_some());
        Ok(())
    }
}
