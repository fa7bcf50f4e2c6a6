// SPDX-License-Identifier: GPL-2.0

//! The access table: which page-cache pages were read from which data blocks.
//!
//! The pool's activation, a data block and the time at which it was mapped name one content for ever, among
//! those that see the block as shared: what is mapped to the block later has a later time. (Why, and what
//! the exceptions are, is in Documentation/design.rst.) So neither layers nor virtual blocks are part of what
//! is looked up, and no event has to say that a block was freed or filled anew: its next content has another
//! name.
//!
//! A content is cut into stretches of a run's length ([`dm::pagecache::page_bitmap::PAGES`]); a stretch is what a name in the
//! [`Directory`] stands for.

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

/// The name of a stretch of a data block's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockExtent {
    /// Number of the stretch in the pool.
    number: u64,
    pool: u32,
    time: u32,
}

/// Whose page cache a stretch was read into.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Holder {
    /// The target that it passed; [`OURS`] if the page cache is the pool's own store.
    pub(crate) target_id: u32,
    /// The layer that it was read from.
    pub(crate) layer: LayerId,
}

/// Stands for the target of pages that are in a store of ours: they stay when the target that read them goes. No
/// target has that number, unless four billion came before it; then the pages' records go with it.
pub(crate) const OURS: u32 = 0;

impl BlockExtent {
    /// The pool.
    pub(crate) fn pool(&self) -> u32 {
        self.pool
    }

    /// The block's number in the pool, and the stretch's first page in the block.
    pub(crate) fn place(&self) -> (u64, u32) {
        // CAST: Fourteen bits.
        let stretch = (self.number & ((1 << EXTENTS_BITS) - 1)) as u32;
        // RANGE: Fourteen bits times `PAGES`.
        (self.number >> EXTENTS_BITS, stretch * page_bitmap::PAGES)
    }

    /// Some of its pages, or so many from its first on, for the tracepoints.
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
    /// Consecutive blocks of a pool are often consecutive parts of a file.
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

/// Something that has a number in its pool, for hashing.
fn pooled(pool: u32, number: u64) -> u64 {
    // RANGE: The shift may lose bits; two hashes may then be equal, which is harmless.
    number ^ (u64::from(pool) << 44)
}

/// log2 of the most stretches that a block can have: dm-thin's blocks are at most 1 GiB.
const EXTENTS_BITS: u32 = 14;

/// The name of a data block's content, among those that see the block as shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Block {
    pool: u32,
    time: u32,
    number: u64,
}

impl Block {
    /// Data block `number` of `pool`, mapped at `time`. Nothing if the numbers are beyond what the table can tell
    /// apart, which no pool gets to: dm-thin's block numbers have 40 bits.
    pub(crate) fn new(pool: u64, number: u64, time: u32) -> Option<Self> {
        (number < 1 << (u64::BITS - EXTENTS_BITS)).then_some(Self {
            pool: u32::try_from(pool).ok()?,
            time: if Rule::Time.on() { time } else { 0 },
            number,
        })
    }

    /// The name of what `mapping` maps.
    pub(crate) fn of(mapping: &Mapping) -> Option<Self> {
        Self::new(mapping.pool, mapping.block, mapping.time)
    }

    /// What stands for its content.
    pub(crate) fn content(&self) -> (u64, u64) {
        (
            // RANGE: Both halves are `u32`s.
            u64::from(self.pool) << 32 | u64::from(self.time),
            self.number,
        )
    }

    /// The pool.
    pub(crate) fn pool(&self) -> u64 {
        self.pool.into()
    }

    /// The block's number in the pool.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// For tables of blocks, whatever their content.
    pub(crate) fn hash(&self) -> u64 {
        hash(pooled(self.pool, self.number))
    }

    /// The block, whatever its content.
    pub(crate) fn at_any_time(self) -> Self {
        Self { time: 0, ..self }
    }

    /// The stretch that holds page `page` of the block, and the page's number in it.
    fn stretch(&self, page: u32) -> (BlockExtent, u32) {
        let stretch = BlockExtent {
            // RANGE: `Block::new` sees that the number has room for these bits; a block has fewer stretches.
            number: self.number << EXTENTS_BITS | u64::from(page / page_bitmap::PAGES),
            pool: self.pool,
            time: self.time,
        };
        (stretch, page % page_bitmap::PAGES)
    }
}

/// A donor of pages.
pub(crate) type PageDonor<'g> = Donor<'g, BlockExtent, Holder>;

/// The access table of all pools.
pub(crate) struct AccessTable {
    directory: Directory<BlockExtent, Arc<TargetRegistry>>,
    pub(crate) targets: Arc<TargetRegistry>,
    /// Lookups that are kept for other reads.
    pub(crate) mappings: MappingCache,
    /// Blocks that were found not to be shared.
    pub(crate) unshared: UnsharedBlocks,
}

/// Records take no more than this part of the machine's memory: a page has 288 bytes of them if it is
/// the only one of its stretch, and 18 if all are there.
const MOST_MEMORY: u64 = 64;

impl AccessTable {
    /// Makes an empty table, with a bucket for each 32 pages of memory. Fails with `ENOMEM`.
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

    /// The directory below it.
    pub(crate) fn directory(&self) -> &Directory<BlockExtent, Arc<TargetRegistry>> {
        &self.directory
    }

    /// Records pages of a stretch that came from the disk as the block's from page `page` on; `digests` has that
    /// of each. Returns how many were, and how many were compared and differed.
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

    /// Records pages of a stretch whose content was copied from donors, and proven. Returns how many were.
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

    /// Compares digests of pages of a stretch that came from the disk with those that are known, and records nothing.
    pub(crate) fn compare(&self, block: &Block, page: u32, digests: &[Digest]) -> Counted {
        let (stretch, at) = block.stretch(page);
        self.directory.compare(stretch, at, digests).into()
    }

    /// Ends all records of a target.
    pub(crate) fn forget_target(&self, target_id: u32, why: End) {
        self.directory
            .end_where(why, |holder| holder.target_id == target_id);
    }

    /// Donors of page `page` of `block`, the newest first; it is page `page % page_bitmap::PAGES` in their runs.
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

    /// Page `page` of `block` is on record in a store of ours.
    pub(crate) fn is_stored(&self, block: &Block, page: u32) -> bool {
        let guard = rcu::read_lock();
        let mut donors = self.donors(&guard, block, page);
        donors.any(|donor| donor.holder().target_id == OURS)
    }

    /// Something is known of a content that `count` pages from page `page` of `block` on are a part of.
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
        // RANGE: Pages of one block; `at` in its stretch is less than a mask's bits.
        page_bitmap::before_run(count, worth, |at| {
            let (stretch, at) = block.stretch(first + at);
            if last.0 != stretch.number {
                last = (stretch.number, self.directory.pages_of(guard, stretch));
            }
            last.1 >> at & 1 != 0
        })
    }

    /// Records, recorded pages, and bytes that the table takes, kept look-ups included.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let directory = &self.directory;
        // RANGE: A size in memory.
        let bytes = directory.bytes() + self.mappings.bytes() + self.unshared.bytes();
        (directory.runs(), directory.pages(), bytes)
    }

    /// Something happened in a pool. If a snapshot was taken, blocks are shared now that weren't; if the metadata
    /// was rolled back, older mappings are there again.
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

/// What became of pages that came from the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counted {
    /// They are on record now.
    pub(crate) recorded: u32,
    /// Their name had a digest already, and they were compared.
    pub(crate) compared: u32,
    /// They differed.
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
