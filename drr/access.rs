// SPDX-License-Identifier: GPL-2.0

//! The access table: which page-cache pages hold which data blocks.
//!
//! A data block is cut into stretches of a run's length ([`dm::bits::PAGES`]); a stretch is what
//! a key of the [`Directory`] stands for. Two layers that map the same data block share it by
//! definition, so neither layers nor virtual blocks are part of what is looked up.
//!
//! Only blocks that dm-thin calls shared are in the table. Such a block is never written in
//! place; its content changes only after it has been freed and allocated again. So a write or
//! discard to a layer ends no record by itself: what the layer's pages hold is what the block
//! holds, even if the layer has moved on to another block. What does end records is that their
//! page goes or changes (the directory's business), and the events of the pool, here.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu, Arc,
    },
};

use dm::{
    bits,
    directory::{Directory, Donor, End, Key, ReadRange},
    event::Event,
    folio::ReadPages,
    guard::Guard,
    index::{hash, hash_near},
    sched, trace,
    truncation::{TruncatedPages, TruncationEvents},
};

use crate::{
    epoch::Epochs,
    giver::Givers,
    layer::{Layer, Who},
    mappings::Mappings,
    unshared::Unshared,
};

/// A stretch of a data block, and whose page cache it was read into.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    /// Number of the stretch in the pool.
    number: u64,
    pool: u32,
    /// The target that it passed.
    pub(crate) device: u32,
    /// The layer that it was read from.
    pub(crate) layer: Who,
}

impl Stretch {
    /// The pool.
    pub(crate) fn pool(&self) -> u32 {
        self.pool
    }

    /// The block's number in the pool, and the stretch's first page in the block.
    pub(crate) fn place(&self) -> (u64, u32) {
        // CAST: Thirteen bits.
        let stretch = (self.number & ((1 << STRETCHES_BITS) - 1)) as u32;
        (self.number >> STRETCHES_BITS, stretch * bits::PAGES)
    }

    /// Some of its pages, or so many from its first on, for the tracepoints.
    pub(crate) fn traced(&self, dev: u32, pages: u32) -> trace::Pages {
        let (block, page) = self.place();
        trace::Pages {
            dev,
            thin_id: self.layer.thin_id,
            pool: self.pool.into(),
            block,
            page,
            pages,
        }
    }
}

impl Key for Stretch {
    type Ledger = Arc<Givers>;

    fn ended(&self, givers: &Arc<Givers>, why: End, pages: u32) {
        givers.ended(self, why, pages);
    }

    fn same(&self, other: &Self) -> bool {
        self.number == other.number && self.pool == other.pool
    }

    /// Consecutive blocks of a pool are often consecutive parts of a file.
    fn hash(&self) -> u64 {
        let (block, first) = self.place();
        hash_near(pooled(self.pool, first.into()), block)
    }
}

/// Something that has a number in its pool, for hashing.
fn pooled(pool: u32, number: u64) -> u64 {
    number ^ (u64::from(pool) << 44)
}

/// log2 of the most stretches that a block can have: dm-thin's blocks are at most 1 GiB.
const STRETCHES_BITS: u32 = 13;

/// A data block of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Block {
    pool: u32,
    number: u64,
}

impl Block {
    /// Data block `number` of `pool`. Nothing if the numbers are beyond what the table can tell
    /// apart, which no pool gets to: dm-thin's block numbers have 40 bits.
    pub(crate) fn new(pool: u64, number: u64) -> Option<Self> {
        (number < 1 << (u64::BITS - STRETCHES_BITS)).then_some(Self {
            pool: u32::try_from(pool).ok()?,
            number,
        })
    }

    /// What stands for its content.
    pub(crate) fn content(&self) -> (u64, u64) {
        (self.pool.into(), self.number)
    }

    /// The pool.
    pub(crate) fn pool(&self) -> u64 {
        self.pool.into()
    }

    /// For tables of blocks.
    pub(crate) fn hash(&self) -> u64 {
        hash(pooled(self.pool, self.number))
    }

    /// The stretch that holds page `page` of the block, for a page read by `device` from
    /// `layer`, and the page's number in it.
    fn stretch(&self, page: u32, device: u32, layer: Who) -> (Stretch, u32) {
        let stretch = Stretch {
            number: self.number << STRETCHES_BITS | u64::from(page / bits::PAGES),
            pool: self.pool,
            device,
            layer,
        };
        (stretch, page % bits::PAGES)
    }
}

/// The access table of all pools.
pub(crate) struct AccessTable {
    directory: Directory<Stretch>,
    pub(crate) givers: Arc<Givers>,
    /// Changes of mappings.
    pub(crate) epochs: Epochs,
    /// Mappings that were looked up.
    pub(crate) mappings: Mappings,
    /// Blocks that were found not to be shared.
    pub(crate) unshared: Unshared,
    /// No block has more pages than this.
    most_pages: Atomic<u32>,
}

impl AccessTable {
    /// Makes an empty table, with a bucket for each 32 pages of memory. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let bits = (sched::total_ram_pages() / 32).max(1).ilog2().clamp(8, 26);
        let givers = Arc::new(Givers::new()?, GFP_KERNEL)?;
        Ok(Self {
            directory: Directory::new(bits, givers.clone())?,
            givers,
            epochs: Epochs::new()?,
            mappings: Mappings::new()?,
            unshared: Unshared::new()?,
            most_pages: Atomic::new(0),
        })
    }

    /// The directory below it.
    pub(crate) fn directory(&self) -> &Directory<Stretch> {
        &self.directory
    }

    /// Records `pages` as holding the block's pages from `page` on; returns how many were.
    pub(crate) fn record(
        &self,
        block: &Block,
        mut page: u32,
        pages: ReadRange<'_>,
        device: u32,
        layer: Who,
    ) -> u32 {
        let mut recorded = 0;
        let mut rest = Some(pages);
        while let Some(pages) = rest {
            let (stretch, at) = block.stretch(page, device, layer);
            let (now, later) = pages.split(bits::PAGES - at);
            recorded += self.directory.enter(stretch, at, &now);
            page += now.count();
            rest = later;
        }
        recorded
    }

    /// Prepares for blocks of `pages` pages; before the first of them is recorded.
    pub(crate) fn expect_blocks_of(&self, pages: u32) {
        let mut most = self.most_pages.load(Relaxed);
        while let Err(now) = self.most_pages.cmpxchg(most, most.max(pages), Full) {
            most = now;
        }
    }

    /// Ends all records of `block`, whose content is about to change.
    fn forget_block(&self, block: &Block) {
        let pages = self.most_pages.load(Relaxed);
        for page in (0..pages).step_by(bits::PAGES as usize) {
            self.directory
                .end_content(&block.stretch(page, 0, Who::default()).0);
        }
    }

    /// Ends what is known of the folio that `pages` are in.
    pub(crate) fn forget_folio(&self, pages: &ReadPages<'_>) {
        let (first, last) = pages.folio_range();
        self.directory
            .end_range(pages.mapping(), first..=last, End::Read);
    }

    /// Ends all records of a target.
    pub(crate) fn forget_device(&self, device: u32, why: End) {
        self.directory
            .end_where(why, |stretch| stretch.device == device);
    }

    /// Donors of page `page` of `block`, the newest first, and the page's number in their runs.
    pub(crate) fn donors<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        block: &Block,
        page: u32,
    ) -> (impl Iterator<Item = Donor<'g, Stretch>>, u32) {
        let (stretch, at) = block.stretch(page, 0, Who::default());
        (self.directory.donors(guard, stretch), at)
    }

    /// Of `count` pages from page `first` of `block` on, how many come before the first `worth` in a
    /// row that have donors, or before fewer that are the last; `count` if there are no such.
    pub(crate) fn before_donors(
        &self,
        guard: &rcu::Guard,
        block: &Block,
        first: u32,
        count: u32,
        worth: u32,
    ) -> u32 {
        let mut last = (u64::MAX, 0);
        bits::before_run(count, worth, |at| {
            let (stretch, at) = block.stretch(first + at, 0, Who::default());
            if last.0 != stretch.number {
                last = (stretch.number, self.directory.known(guard, stretch));
            }
            last.1 >> at & 1 != 0
        })
    }

    /// Records, recorded pages, and bytes that the table takes, kept look-ups included.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let directory = &self.directory;
        let bytes = directory.bytes() + self.mappings.bytes() + self.unshared.bytes();
        (directory.runs(), directory.pages(), bytes)
    }
}

impl AccessTable {
    /// Something happened in a pool. Only these matter:
    ///
    /// - a snapshot was taken: its origin's blocks are shared now;
    /// - a mapping changed: whoever reads through it at this moment must notice;
    /// - a block was allocated: it is going to get new content;
    /// - the metadata was rolled back: blocks may be unshared, or free, that were shared.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::Created {
                origin: Some(_), ..
            } => self.unshared.forget(),
            Event::Unmapped {
                pool,
                thin_id,
                begin,
                end,
            } => self.epochs.change(Layer::new(pool, thin_id), begin, end),
            Event::Allocated { pool, block } if Guard::Reallocation.on() => {
                if let Some(block) = Block::new(pool, block) {
                    self.forget_block(&block);
                }
            }
            Event::Aborted { pool } if Guard::Rollback.on() => {
                self.unshared.forget();
                self.epochs.change_all();
                self.directory
                    .end_where(End::RolledBack, |stretch| u64::from(stretch.pool) == pool);
            }
            _ => {}
        }
    }
}

impl TruncationEvents for AccessTable {
    fn truncates(&self, pages: &TruncatedPages<'_>) {
        if !Guard::Truncation.on() {
            return;
        }
        let (mapping, (first, last)) = (pages.mapping(), pages.range());
        // Before the end: whoever records them too late for it sees this.
        if !pages.settled() && Guard::Withhold.on() {
            if let Some(device) = pages.inode().device() {
                self.givers
                    .withhold(device.id(), mapping.number(), first, last);
            }
        }
        self.directory.end_range(mapping, first..=last, End::Zeroed);
    }
}

#[kunit_tests(drr_access)]
mod tests {
    use super::*;

    fn same(left: (Block, u32), right: (Block, u32)) -> bool {
        let who = |serial| Who { serial, thin_id: 0 };
        let (left, right) = (
            left.0.stretch(left.1, 1, who(2)),
            right.0.stretch(right.1, 3, who(4)),
        );
        left.0.same(&right.0) && left.1 == right.1
    }

    #[test]
    fn pages_of_blocks_are_told_apart() -> Result {
        let block = |pool, number| Block::new(pool, number).ok_or(EINVAL);
        let last = (1 << 18) - 1;
        let slots = [
            (block(0, 0)?, 0),
            (block(0, 0)?, 1),
            (block(0, 0)?, 31),
            (block(0, 0)?, 32),
            (block(0, 0)?, last),
            (block(0, 1)?, 0),
            (block(1, 0)?, 0),
            (block(0, (1 << 40) - 1)?, last),
            (block(7, (1 << 40) - 1)?, last),
        ];
        for (i, left) in slots.iter().enumerate() {
            for (j, right) in slots.iter().enumerate() {
                assert_eq!(same(*left, *right), i == j);
            }
        }
        Ok(())
    }

    #[test]
    fn numbers_out_of_range_are_no_block() -> Result {
        assert!(Block::new(u64::from(u32::MAX) + 1, 0).is_none());
        assert!(Block::new(0, u64::MAX).is_none());
        assert!(Block::new(0, 1 << 51).is_none());
        Ok(())
    }
}
