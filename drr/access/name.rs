// SPDX-License-Identifier: GPL-2.0

//! Names of contents: what the access table is asked for, and whose page caches it knows.

use kernel::prelude::*;

use dm::{
    drr::{rule::Rule, trace},
    pagecache::{content::Name, page_bitmap},
    sync::index::{hash, hash_near},
    target::thin_event::Mapping,
};

use crate::layers::id::LayerId;

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
        let extent = (self.number & ((1 << EXTENTS_BITS) - 1)) as u32;
        // RANGE: Fourteen bits times `PAGES`.
        (self.number >> EXTENTS_BITS, extent * page_bitmap::PAGES)
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
    pub(crate) fn extent(&self, page: u32) -> (BlockExtent, u32) {
        let extent = BlockExtent {
            // RANGE: `Block::new` checks that the number has room for these bits; a block has fewer
            // extents.
            number: self.number << EXTENTS_BITS | u64::from(page / page_bitmap::PAGES),
            pool: self.pool,
            time: self.time,
        };
        (extent, page % page_bitmap::PAGES)
    }
}

#[kunit_tests(drr_name)]
mod tests {
    use super::*;

    fn same(left: (Block, u32), right: (Block, u32)) -> bool {
        left.0.extent(left.1) == right.0.extent(right.1)
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
