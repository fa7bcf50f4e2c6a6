// SPDX-License-Identifier: GPL-2.0

//! The access table: which page-cache pages were read from which data blocks.
//!
//! The pool's activation, a data block and the time at which the block was mapped name one content
//! for ever, among the devices that see the block as shared: the next content of the block has a
//! later time. (Documentation/design.rst has the proof and the exceptions.) So neither layers nor
//! virtual blocks are part of the key, and no event is needed when a block is freed or allocated
//! again: its next content has another name.
//!
//! A content is divided into extents of [`dm::pagecache::page_bitmap::PAGES`] pages; a name in the
//! [`Directory`] stands for one extent.

use kernel::{
    prelude::*,
    sync::{rcu, Arc},
};

use dm::{
    drr::rule::Rule,
    drr::trace,
    pagecache::content::Digest,
    pagecache::directory::{CachedPages, Directory, Donor, End, Entered, Ledger, Name},
    pagecache::page_bitmap,
    sched,
    sync::index::{hash, hash_near},
    target::thin_event::{Event, Mapping},
};

use crate::{
    access::donor_target::TargetRegistry, access::mappings::MappingCache,
    access::unshared::UnsharedBlocks, layers::id::LayerId,
};

/// The name of an extent of a data block's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockExtent {
    /// The block's number in the pool, and in the lowest `EXTENTS_BITS` bits the extent's number in
    /// the block.
    number: u64,
    pool: u32,
    time: u32,
}

/// The page cache that an extent was read into.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Holder {
    /// The target that the read passed; [`OURS`] if the page cache is the pool's store.
    pub(crate) target_id: u32,
    /// The layer that the extent was read from.
    pub(crate) layer: LayerId,
}

/// Target id of pages in a pool's store, which stay when the target that read them is removed.
///
/// A target gets this id only after four billion others; the records of stored pages then end with
/// that target.
pub(crate) const OURS: u32 = 0;

impl BlockExtent {
    /// Returns the number of the pool.
    pub(crate) fn pool(&self) -> u32 {
        self.pool
    }

    /// Returns the block's number in the pool, and the number in the block of the extent's first
    /// page.
    pub(crate) fn place(&self) -> (u64, u32) {
        // CAST: Fourteen bits.
        let stretch = (self.number & ((1 << EXTENTS_BITS) - 1)) as u32;
        // RANGE: Fourteen bits times `PAGES`.
        (self.number >> EXTENTS_BITS, stretch * page_bitmap::PAGES)
    }

    /// Describes pages of the extent for tracepoints; `pages` is as in [`trace::Pages::pages`].
    pub(crate) fn traced(&self, dev: u32, thin_id: u32, pages: u32) -> trace::Pages {
        let (block, page) = self.place();
        trace::Pages {
            dev,
            thin_id,
            pool: self.pool.into(),
            block,
            page,
            pages,
        }
    }
}

impl Name for BlockExtent {
    /// Hashes consecutive blocks to neighbouring places, as they are often consecutive parts of a
    /// file.
    fn hash(&self) -> u64 {
        let (block, first) = self.place();
        hash_near(
            // RANGE: Both halves are `u32`s.
            pooled(self.pool, u64::from(first) << 32 | u64::from(self.time)),
            block,
        )
    }
}

impl Ledger<BlockExtent> for Arc<TargetRegistry> {
    type Holder = Holder;

    fn ended(&self, stretch: &BlockExtent, holder: &Holder, why: End, pages: u32) {
        TargetRegistry::ended(self, stretch, holder, why, pages);
    }
}

/// Combines a number in a pool with the pool's number, for hashing.
fn pooled(pool: u32, number: u64) -> u64 {
    // RANGE: The shift may lose bits; two hashes may then be equal, which is harmless.
    number ^ (u64::from(pool) << 44)
}

/// log2 of the maximum number of extents in a block: dm-thin's blocks are at most 1 GiB.
const EXTENTS_BITS: u32 = 14;

/// The name of a data block's content, among the devices that see the block as shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Block {
    pool: u32,
    time: u32,
    number: u64,
}

impl Block {
    /// Returns the name of data block `number` of `pool`, mapped at `time`.
    ///
    /// Returns [`None`] if the numbers exceed what the table can store, which no pool reaches:
    /// dm-thin's block numbers have 40 bits.
    pub(crate) fn new(pool: u64, number: u64, time: u32) -> Option<Self> {
        (number < 1 << (u64::BITS - EXTENTS_BITS)).then_some(Self {
            pool: u32::try_from(pool).ok()?,
            time: if Rule::Time.on() { time } else { 0 },
            number,
        })
    }

    /// Returns the name of the content that `mapping` maps, or [`None`] as [`Self::new`] does.
    pub(crate) fn of(mapping: &Mapping) -> Option<Self> {
        Self::new(mapping.pool, mapping.block, mapping.time)
    }

    /// Returns a pair of numbers that identifies the content.
    pub(crate) fn content(&self) -> (u64, u64) {
        (
            // RANGE: Both halves are `u32`s.
            u64::from(self.pool) << 32 | u64::from(self.time),
            self.number,
        )
    }

    /// Returns the number of the pool.
    pub(crate) fn pool(&self) -> u64 {
        self.pool.into()
    }

    /// Returns the block's number in the pool.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns a hash of the block that doesn't depend on its content.
    pub(crate) fn hash(&self) -> u64 {
        hash(pooled(self.pool, self.number))
    }

    /// Returns a name of the block that doesn't depend on its content.
    pub(crate) fn at_any_time(self) -> Self {
        Self { time: 0, ..self }
    }

    /// Returns the extent that holds page `page` of the block, and the page's number in the extent.
    fn stretch(&self, page: u32) -> (BlockExtent, u32) {
        let stretch = BlockExtent {
            // RANGE: `Block::new` checks that the number has room for these bits; a block has fewer
            // extents.
            number: self.number << EXTENTS_BITS | u64::from(page / page_bitmap::PAGES),
            pool: self.pool,
            time: self.time,
        };
        (stretch, page % page_bitmap::PAGES)
    }
}

/// A cached extent that can donate pages.
pub(crate) type PageDonor<'g> = Donor<'g, BlockExtent, Holder>;

/// The access table of all pools.
pub(crate) struct AccessTable {
    directory: Directory<BlockExtent, Arc<TargetRegistry>>,
    pub(crate) targets: Arc<TargetRegistry>,
    /// Cached lookups of shared blocks.
    pub(crate) mappings: MappingCache,
    /// Blocks that were found not to be shared.
    pub(crate) unshared: UnsharedBlocks,
}

/// The part of the machine's memory that records may take, as a divisor.
///
/// A page's records take 288 bytes if the page is the only one of its extent, and 18 bytes if all
/// pages of the extent are recorded.
const MOST_MEMORY: u64 = 64;

impl AccessTable {
    /// Creates an empty table, with a bucket for each 32 to 64 pages of memory. Process context;
    /// fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let pages = sched::total_ram_pages();
        let bits = (pages / 32).max(1).ilog2().clamp(8, 26);
        // RANGE: A fraction of the memory, in bytes.
        let most_bytes = (pages as u64 / MOST_MEMORY) << dm::pagecache::folio::PAGE_SHIFT;
        let targets = Arc::new(TargetRegistry::new()?, GFP_KERNEL)?;
        Ok(Self {
            directory: Directory::new(bits, most_bytes, targets.clone())?,
            targets,
            mappings: MappingCache::new()?,
            unshared: UnsharedBlocks::new()?,
        })
    }

    /// Returns the directory below the table.
    pub(crate) fn directory(&self) -> &Directory<BlockExtent, Arc<TargetRegistry>> {
        &self.directory
    }

    /// Records pages of an extent that came from the disk, as the block's pages from `page` on;
    /// `digests` has the digest of each. Returns how many were recorded, how many were compared,
    /// and how many of these differed. Any context.
    pub(crate) fn record(
        &self,
        block: &Block,
        page: u32,
        pages: &CachedPages<'_>,
        digests: &[Digest],
        holder: Holder,
    ) -> Counted {
        let (stretch, at) = block.stretch(page);
        let entered = self.directory.enter(stretch, holder, at, pages, digests);
        entered.into()
    }

    /// Records pages of an extent that were copied from donors and proven. Returns how many were
    /// recorded. Any context.
    pub(crate) fn inherit(
        &self,
        block: &Block,
        page: u32,
        pages: &CachedPages<'_>,
        holder: Holder,
    ) -> u32 {
        let (stretch, at) = block.stretch(page);
        let recorded = self.directory.inherit(stretch, holder, at, pages);
        recorded.count_ones()
    }

    /// Compares the digests of pages of an extent that came from the disk with those on record, and
    /// records nothing. Any context.
    pub(crate) fn compare(&self, block: &Block, page: u32, digests: &[Digest]) -> Counted {
        let (stretch, at) = block.stretch(page);
        self.directory.compare(stretch, at, digests).into()
    }

    /// Ends all records of a target.
    pub(crate) fn forget_target(&self, target_id: u32, why: End) {
        self.directory
            .end_where(why, |holder| holder.target_id == target_id);
    }

    /// Returns the donors of page `page` of `block`, the newest first; it is page
    /// `page % page_bitmap::PAGES` of their cached extents.
    #[inline]
    pub(crate) fn donors<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        block: &Block,
        page: u32,
    ) -> impl Iterator<Item = PageDonor<'g>> {
        let (stretch, at) = block.stretch(page);
        self.directory
            .donors(guard, stretch)
            .filter(move |donor| donor.pages_from(at) != 0)
    }

    /// Returns whether page `page` of `block` is on record in a pool's store.
    pub(crate) fn is_stored(&self, block: &Block, page: u32) -> bool {
        let guard = rcu::read_lock();
        let mut donors = self.donors(&guard, block, page);
        donors.any(|donor| donor.holder().target_id == OURS)
    }

    /// Returns whether any page is on record of the extents that hold `count` pages from page
    /// `page` of `block` on.
    pub(crate) fn knows(&self, block: &Block, page: u32, count: u32) -> bool {
        let guard = rcu::read_lock();
        // RANGE: Pages of one block.
        let mut stretches = page / page_bitmap::PAGES..(page + count).div_ceil(page_bitmap::PAGES);
        stretches.any(|number| {
            // RANGE: As above.
            let (stretch, _) = block.stretch(number * page_bitmap::PAGES);
            self.directory.pages_of(&guard, stretch) != 0
        })
    }

    /// Returns how many of `count` pages from page `first` of `block` on precede the first `worth`
    /// consecutive pages that have donors.
    ///
    /// Fewer consecutive pages are enough at the end of the range. Returns `count` if neither is
    /// found.
    pub(crate) fn before_donors(
        &self,
        guard: &rcu::Guard,
        block: &Block,
        first: u32,
        count: u32,
        worth: u32,
    ) -> u32 {
        let mut last = (u64::MAX, 0);
        // RANGE: Pages of one block; `at` in its extent is less than a mask's bits.
        page_bitmap::before_run(count, worth, |at| {
            let (stretch, at) = block.stretch(first + at);
            if last.0 != stretch.number {
                last = (stretch.number, self.directory.pages_of(guard, stretch));
            }
            last.1 >> at & 1 != 0
        })
    }

    /// Returns the numbers of cached extents and of recorded pages, and the bytes that the table
    /// takes, cached lookups included.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let directory = &self.directory;
        // RANGE: A size in memory.
        let bytes = directory.bytes() + self.mappings.bytes() + self.unshared.bytes();
        (directory.runs(), directory.pages(), bytes)
    }

    /// Handles an event of a pool: a snapshot may have made blocks shared, and a rollback of the
    /// metadata may have restored older mappings.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::Created {
                origin: Some(_), ..
            }
            | Event::Aborted { .. } => self.unshared.forget(),
            _ => {}
        }
    }
}

/// Numbers of pages that came from the disk, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counted {
    /// Pages that are on record now.
    pub(crate) recorded: u32,
    /// Pages that were compared, as their name had a digest already.
    pub(crate) compared: u32,
    /// Pages whose digest differed.
    pub(crate) differed: u32,
}

impl From<Entered> for Counted {
    fn from(entered: Entered) -> Self {
        Self {
            recorded: entered.pages.count_ones(),
            compared: entered.compared.count_ones(),
            differed: entered.differed.count_ones(),
        }
    }
}

#[kunit_tests(drr_access)]
mod tests {
    use super::*;

    fn same(left: (Block, u32), right: (Block, u32)) -> bool {
        left.0.stretch(left.1) == right.0.stretch(right.1)
    }

    #[test]
    fn pages_of_blocks_are_told_apart() -> Result {
        let block = |pool, number, time| Block::new(pool, number, time).ok_or(EINVAL);
        let last = (1 << 18) - 1;
        let slots = [
            (block(0, 0, 0)?, 0),
            (block(0, 0, 0)?, 1),
            (block(0, 0, 0)?, 15),
            (block(0, 0, 0)?, 16),
            (block(0, 0, 0)?, last),
            (block(0, 1, 0)?, 0),
            (block(1, 0, 0)?, 0),
            (block(0, 0, 1)?, 0),
            (block(0, (1 << 40) - 1, 0)?, last),
            (block(7, (1 << 40) - 1, 0)?, last),
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
        assert!(Block::new(u64::from(u32::MAX) + 1, 0, 0).is_none());
        assert!(Block::new(0, u64::MAX, 0).is_none());
        assert!(Block::new(0, 1 << 50, 0).is_none());
        Ok(())
    }
}
