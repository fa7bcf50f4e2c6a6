// SPDX-License-Identifier: GPL-2.0

//! Epochs: whether a pool's mapping has been left alone for a while.
//!
//! The block that a read comes from is looked up before the read is sent. The bytes from the disk
//! are the content of that block only if the mapping wasn't changed meanwhile: a change may have
//! freed the block, or the read may have reached dm-thin when the new mapping was in place already.
//!
//! dm-thin sends an event before each change and another after it. Each virtual block has a cell,
//! which many blocks share, and a cell counts the changes that have *begun* and those that have
//! *ended*:
//!
//! - a cell is *quiet* if both counts are the same: no change is under way;
//! - an epoch is *unchanged* if no change of its cell has begun since.
//!
//! A read takes an [`Epoch`] before the lookup, if the cell is quiet, and checks at its end whether
//! the epoch is unchanged. If the read went through a new mapping, dm-thin had inserted this
//! mapping under its `root_lock`, which the read has taken later, and had announced the beginning
//! of the change before that. So the read sees the new count.
//!
//! A cached lookup ([`crate::access::mappings`]) is as good as one that is made when a read
//! arrives, if the cell is quiet and unchanged *then*. A change is complete when dm-thin completes
//! the bio or the message that asked for it. dm-thin sends both events before that, so a read that
//! arrives afterwards sees the counts.
//!
//! Writes through the target need no count of their own. A write that changes no mapping changes no
//! shared block, and dm-thin announces a write that changes a mapping.

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

use dm::{drr::rule::Rule, sync::cells::cells, sync::index::hash};

/// Cells of a pool: 64 KiB of memory. A change also costs records of blocks that share its cell.
const CELLS: usize = 4096;

struct Cell {
    begun: Atomic<u64>,
    ended: Atomic<u64>,
}

/// A moment at which no change was under way in a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Epoch {
    cell: u32,
    /// Value of the cell's `begun`. Doesn't wrap: lookups are cached for as long as it stays the
    /// same.
    begun: u64,
    /// [`Epochs::number`] of the counters that `begun` was read from.
    counters: u64,
}

impl Epoch {
    /// Returns numbers that are equal for two epochs of a cell only if no change has begun between
    /// them.
    pub(crate) fn moment(self) -> [u64; 2] {
        [self.counters, self.begun]
    }
}

/// The number for the next [`Epochs`]: when all targets of a pool have gone, its next target begins
/// with new counters.
#[cfg(not(loom))]
static COUNTERS: Atomic<u64> = Atomic::new(0);
// Stands in for the static in models (tools/host), as loom has no static atomics.
#[cfg(loom)]
use crate::COUNTERS;

/// Counters of the changes of a pool's mappings.
pub(crate) struct Epochs {
    cells: KVVec<Cell>,
    /// A number that is never used again.
    number: u64,
}

impl Epochs {
    /// Creates counters that are all zero. Process context; fails with `ENOMEM`.
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

    /// Returns the bytes of memory that the counters take.
    pub(crate) fn bytes(&self) -> u64 {
        // RANGE: A size in memory.
        (self.cells.len() * size_of::<Cell>()) as u64
    }

    /// Returns the index of a block's cell. Consecutive blocks have consecutive cells.
    fn cell(thin_id: u32, block: u64) -> usize {
        // CAST: The remainder is less than `CELLS`.
        (hash(thin_id.into()).wrapping_add(block) % CELLS as u64) as usize
    }

    /// Returns the current epoch of virtual block `block` of thin device `thin_id`, or [`None`]
    /// while a change is under way.
    #[inline]
    pub(crate) fn current(&self, thin_id: u32, block: u64) -> Option<Epoch> {
        let number = Self::cell(thin_id, block);
        let cell = &self.cells[number];
        // `ended` is read first: if both counts are the same, all changes that had begun by then
        // had ended. Acquire: the lookup that follows must not be made before the counts are read.
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

    /// Returns whether no change has begun in the cell of `epoch` since `epoch` was taken.
    #[inline]
    pub(crate) fn unchanged(&self, epoch: Epoch) -> bool {
        // CAST: A `u32` fits.
        !Rule::Begun.on() || self.cells[epoch.cell as usize].begun.load(Acquire) == epoch.begun
    }

    fn each(&self, thin_id: u32, begin: u64, end: u64, visit: impl Fn(&Cell)) {
        let count = end.saturating_sub(begin).min(CELLS as u64);
        for step in 0..count {
            visit(&self.cells[Self::cell(thin_id, begin.wrapping_add(step))]);
        }
    }

    /// Counts the beginning of a change of the mappings of virtual blocks `begin..end` of a thin
    /// device.
    pub(crate) fn begin(&self, thin_id: u32, begin: u64, end: u64) {
        self.each(thin_id, begin, end, |cell| {
            cell.begun.fetch_add(1, Full);
        });
    }

    /// Counts the end of a change of the mappings of virtual blocks `begin..end` of a thin device.
    pub(crate) fn end(&self, thin_id: u32, begin: u64, end: u64) {
        self.each(thin_id, begin, end, |cell| {
            // A pool's first target may subscribe between the two events, and then gets only the
            // second: count the beginning here. Acquire: if the end of a concurrent change (a
            // rollback, for example) is visible here, so is its beginning.
            if cell.ended.load(Acquire) == cell.begun.load(Relaxed) {
                cell.begun.fetch_add(1, Full);
            }
            cell.ended.fetch_add(1, Full);
        });
    }

    /// Counts a change of all mappings.
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
            let epoch = changes.current(7, block).ok_or(EINVAL)?;
            changes.begin(7, begin, end);
            assert_eq!(!changes.unchanged(epoch), noticed);
            assert_eq!(changes.current(7, block).is_none(), noticed);
            changes.end(7, begin, end);
            assert_eq!(!changes.unchanged(epoch), noticed);
            let changed = changes.current(7, block) != Some(epoch);
            assert_eq!(changed, noticed);
        }
        let epoch = changes.current(7, 5).ok_or(EINVAL)?;
        assert!(changes.unchanged(epoch));
        changes.change_all();
        assert!(!changes.unchanged(epoch) && changes.current(7, 5).is_some());
        Ok(())
    }

    #[test]
    fn who_counts_anew_isn_t_taken_for_another() -> Result {
        let (before, after) = (Epochs::new()?, Epochs::new()?);
        let moment = |changes: &Epochs| changes.current(7, 5).map(Epoch::moment);
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
        assert!(changes.current(7, 10).is_none());
        changes.end(7, 10, 11);
        assert!(changes.current(7, 10).is_some());
        Ok(())
    }

    #[test]
    fn who_joins_in_the_middle_of_a_change() -> Result {
        let changes = Epochs::new()?;
        let epoch = changes.current(7, 10).ok_or(EINVAL)?;
        changes.end(7, 10, 11);
        assert!(!changes.unchanged(epoch) && changes.current(7, 10).is_some());
        Ok(())
    }
}
