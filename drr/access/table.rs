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
    pagecache::{
        cached_extent::Donor,
        cached_pages::CachedPages,
        content::Digest,
        directory::{Directory, End, Entered},
        page_bitmap,
    },
    sched,
};

use crate::access::{
    donor_target::TargetRegistry,
    name::{Block, BlockExtent, Holder, OURS},
};

/// A cached extent that can donate pages.
pub(crate) type PageDonor<'g> = Donor<'g, BlockExtent, Holder>;

/// The access table of all pools.
pub(crate) struct AccessTable {
    directory: Directory<BlockExtent, Arc<TargetRegistry>>,
}

/// The part of the machine's memory that records may take, as a divisor: 64 bytes for each page, so
/// all of the memory can be on record unless most pages are the only ones of their extents.
///
/// A page's records take 288 bytes if the page is the only one of its extent, and 18 bytes if all
/// pages of the extent are recorded.
const MOST_MEMORY: u64 = 64;

impl AccessTable {
    /// Creates an empty table, with a bucket for each 32 to 64 pages of memory. `targets` counts
    /// why pages no longer donate. Process context; fails with `ENOMEM`.
    pub(crate) fn new(targets: Arc<TargetRegistry>) -> Result<Self> {
        let pages = sched::total_ram_pages();
        let bits = (pages / 32).max(1).ilog2().clamp(8, 26);
        // RANGE: A fraction of the memory, in bytes.
        let most_bytes = (pages as u64 / MOST_MEMORY) << dm::pagecache::folio::PAGE_SHIFT;
        Ok(Self {
            directory: Directory::new(bits, most_bytes, targets)?,
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
        let (extent, at) = block.extent(page);
        let entered = self.directory.enter(extent, holder, at, pages, digests);
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
        let (extent, at) = block.extent(page);
        let recorded = self.directory.inherit(extent, holder, at, pages);
        recorded.count_ones()
    }

    /// Compares the digests of pages of an extent that came from the disk with those on record, and
    /// records nothing. Any context.
    pub(crate) fn compare(&self, block: &Block, page: u32, digests: &[Digest]) -> Counted {
        let (extent, at) = block.extent(page);
        self.directory.compare(extent, at, digests).into()
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
        let (extent, at) = block.extent(page);
        self.directory
            .donors(guard, extent)
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
        let mut extents = page / page_bitmap::PAGES..(page + count).div_ceil(page_bitmap::PAGES);
        extents.any(|number| {
            // RANGE: As above.
            let (extent, _) = block.extent(number * page_bitmap::PAGES);
            self.directory.pages_of(&guard, extent) != 0
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
        let mut last: Option<(BlockExtent, u32)> = None;
        // RANGE: Pages of one block; `at` in its extent is less than a mask's bits.
        page_bitmap::before_run(count, worth, |at| {
            let (extent, at) = block.extent(first + at);
            let pages = match last {
                Some((known, pages)) if known == extent => pages,
                _ => self.directory.pages_of(guard, extent),
            };
            last = Some((extent, pages));
            pages >> at & 1 != 0
        })
    }

    /// Returns the numbers of cached extents and of recorded pages, and the bytes that the table
    /// takes.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let directory = &self.directory;
        (directory.extents(), directory.pages(), directory.bytes())
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
