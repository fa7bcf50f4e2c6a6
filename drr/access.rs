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

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu, Arc,
    },
};

use dm::{
    bits,
    device::BlockDevice,
    directory::{Directory, Donor, Key},
    event::Event,
    folio::{ReadPages, PAGE_SHIFT},
    guard::Guard,
    index::{hash, Entry, Index, Keyed},
    sched,
    truncation::TruncationEvents,
};

use crate::{
    epoch::Epochs,
    layer::{Layer, Who},
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

impl Key for Stretch {
    fn same(&self, other: &Self) -> bool {
        self.number == other.number && self.pool == other.pool
    }

    fn hash(&self) -> u64 {
        hash(self.number ^ (u64::from(self.pool) << 44))
    }
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

    /// The pool.
    pub(crate) fn pool(&self) -> u64 {
        self.pool.into()
    }

    /// For tables of blocks.
    pub(crate) fn hash(&self) -> u64 {
        hash(self.number ^ (u64::from(self.pool) << 44))
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

/// A target that may donate, and how much it has.
pub(crate) struct Giver {
    device: u32,
    /// [`BlockDevice::id`] of the device that the target is a part of.
    bdev: u64,
    /// The device's own page cache may hold pages that were zeroed in part. Never reset: a page
    /// that is on its way to be recorded may become one of them.
    zeroed_in_part: Atomic<bool>,
    sectors: Atomic<u64>,
}

impl Keyed for Giver {
    fn forward(&self) -> u64 {
        hash(self.device.into())
    }

    fn reverse(&self) -> u64 {
        hash(self.bdev)
    }
}

/// log2 of the buckets for [`Giver`]s: good for hundreds of targets, and fair for thousands.
const GIVERS_BITS: u32 = 8;

/// The access table of all pools.
pub(crate) struct AccessTable {
    directory: Arc<Directory<Stretch>>,
    givers: Index<Giver>,
    /// Truncations of block devices' page caches come to our notice.
    truncations_seen: Atomic<bool>,
    /// Changes of mappings.
    pub(crate) epochs: Epochs,
    /// No block has more pages than this.
    most_pages: Atomic<u32>,
}

impl AccessTable {
    /// Makes an empty table, with a bucket for each 32 pages of memory. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let bits = (sched::total_ram_pages() / 32).max(1).ilog2().clamp(8, 26);
        Ok(Self {
            directory: Arc::new(Directory::new(bits)?, GFP_KERNEL)?,
            givers: Index::new(GIVERS_BITS)?,
            truncations_seen: Atomic::new(false),
            epochs: Epochs::new()?,
            most_pages: Atomic::new(0),
        })
    }

    /// Where page-cache events go.
    pub(crate) fn directory(&self) -> &Arc<Directory<Stretch>> {
        &self.directory
    }

    /// Records `pages` as holding the block's pages from `page` on; returns how many were.
    pub(crate) fn record(
        &self,
        block: &Block,
        mut page: u32,
        pages: ReadPages<'_>,
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
        self.directory.end_range(pages.mapping(), first..=last);
    }

    /// Ends all records of a target.
    pub(crate) fn forget_device(&self, device: u32) {
        self.directory.end_where(|stretch| stretch.device == device);
    }

    /// Truncations are watched: block devices' own pages may donate from now on.
    pub(crate) fn sees_truncations(&self) {
        self.truncations_seen.store(true, Relaxed);
    }

    /// Has a new target of the block device that [`BlockDevice::id`] calls `bdev`, which may donate.
    /// Fails with `ENOMEM`.
    pub(crate) fn add_giver(&self, device: u32, bdev: u64) -> Result {
        let giver = Giver {
            device,
            bdev,
            zeroed_in_part: Atomic::new(false),
            sectors: Atomic::new(0),
        };
        self.givers.insert_unless(giver, GFP_KERNEL, |_| false)?;
        Ok(())
    }

    /// A target goes.
    pub(crate) fn remove_giver(&self, device: u32) {
        let guard = rcu::read_lock();
        for giver in self.giver(&guard, device) {
            self.givers.remove(giver);
        }
    }

    /// The target, unless it is gone.
    fn giver<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        device: u32,
    ) -> impl Iterator<Item = &'g Entry<Giver>> {
        self.givers
            .by_forward(guard, hash(device.into()))
            .filter(move |giver| giver.device == device)
    }

    /// Calls `visit` with the sectors that a target has donated, unless it is gone.
    pub(crate) fn with_donated(&self, device: u32, visit: impl Fn(&Atomic<u64>)) {
        let guard = rcu::read_lock();
        self.giver(&guard, device)
            .for_each(|giver| visit(&giver.sectors));
    }

    /// The block device that a target is a part of may donate its own pages.
    ///
    /// For a copy, to be asked with the device's `invalidate_lock` held: whoever has zeroed a page
    /// in part did so under the lock, after [`TruncationEvents::truncates`].
    pub(crate) fn raw_donates(&self, guard: &rcu::Guard, device: u32) -> bool {
        self.truncations_seen.load(Relaxed)
            && self
                .giver(guard, device)
                .any(|giver| !giver.zeroed_in_part.load(Relaxed))
    }

    fn truncated(&self, bdev: u64, bytes: Range<u64>) {
        if (bytes.start | bytes.end) % (1 << PAGE_SHIFT) == 0 {
            return;
        }
        let guard = rcu::read_lock();
        self.givers
            .by_reverse(&guard, hash(bdev))
            .filter(|giver| giver.bdev == bdev)
            .for_each(|giver| giver.zeroed_in_part.store(true, Relaxed));
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

    /// Records, recorded pages, and bytes that the table takes.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let directory = &self.directory;
        (directory.runs(), directory.pages(), directory.bytes())
    }
}

impl AccessTable {
    /// Something happened in a pool. Only these three matter:
    ///
    /// - a mapping changed: whoever reads through it at this moment must notice;
    /// - a block was allocated: it is going to get new content;
    /// - the metadata was rolled back: blocks may be unshared, or free, that were shared.
    pub(crate) fn event(&self, event: Event) {
        match event {
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
                self.epochs.change_all();
                self.directory
                    .end_where(|stretch| u64::from(stretch.pool) == pool);
            }
            _ => {}
        }
    }
}

impl TruncationEvents for AccessTable {
    fn truncates(&self, device: BlockDevice<'_>, bytes: Range<u64>) {
        if Guard::PartOfPage.on() {
            self.truncated(device.id(), bytes);
        }
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

    #[test]
    fn pages_zeroed_in_part_do_not_donate() -> Result {
        let table = AccessTable::new()?;
        let donates = |device| table.raw_donates(&rcu::read_lock(), device);
        // Two targets of a block device, and one of another.
        for (device, bdev) in [(1, 10), (2, 10), (3, 30)] {
            table.add_giver(device, bdev)?;
        }
        assert!(!donates(1));
        table.sees_truncations();
        assert!(donates(1) && donates(2) && donates(3) && !donates(4));
        table.truncated(10, 4096..1 << 40);
        table.truncated(40, 1..2);
        assert!(donates(1) && donates(2) && donates(3));
        table.truncated(10, 4096..8191);
        assert!(!donates(1) && !donates(2) && donates(3));
        table.truncated(30, 512..8192);
        assert!(!donates(3));
        table.remove_giver(3);
        table.add_giver(4, 30)?;
        assert!(!donates(3) && donates(4));
        Ok(())
    }
}
