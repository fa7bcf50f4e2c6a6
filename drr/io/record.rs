// SPDX-License-Identifier: GPL-2.0

//! Makes records of the pages that a read has filled, with their digests.
//!
//! Pages from the disk are hashed, and compared with the digests that are known of the same
//! content. Pages that were served have the digests that proved them.

use kernel::prelude::*;

use dm::{
    block::bio::EndedBio,
    block::private_read::PrivateReads,
    drr::rule::Rule,
    drr::trace,
    pagecache::cached_pages::CachedPages,
    pagecache::content::Digest,
    pagecache::folio::{BufferPage, FilledPages, ReadPages},
    pagecache::page_bitmap,
    pagecache::page_store::{PageStore, StorablePage},
    sched::may_warn,
    trace,
};

use crate::{
    access::digest::Key,
    access::name::{Holder, OURS},
    access::table::Counted,
    io::read::{MappedRange, PerBioData},
    target::Drr,
};

/// Most pages of a read that are hashed and recorded, except that no part of an extent is cut:
/// hashing 1 MiB takes a fifth of a millisecond.
const MOST_RECORDED: u32 = 256;

/// Pages that follow each other in an extent of a block, and in a page cache.
struct Batch<'a> {
    /// The first page's number in the block.
    page: u32,
    pages: CachedPages<'a>,
}

impl<'a> Batch<'a> {
    /// Adds `next`, the pages of an extent from page `page` of the block on, to `batch`; if they
    /// don't follow it, starts another batch with them. Returns the batch that is complete, if any.
    fn join(batch: &mut Option<Self>, page: u32, next: CachedPages<'a>) -> Option<Self> {
        let extend = |batch: &mut Self| {
            // RANGE: Pages of one block.
            page == batch.page + batch.pages.count()
                && page % page_bitmap::PAGES != 0
                && batch.pages.extend(&next)
        };
        if batch.as_mut().is_some_and(extend) {
            return None;
        }
        batch.replace(Self { page, pages: next })
    }
}

/// The digests of pages of an extent.
struct Digests([Digest; page_bitmap::PAGES as usize]);

impl Digests {
    fn new() -> Self {
        Self([Digest::from_bits(0); page_bitmap::PAGES as usize])
    }

    /// Hashes the pages of `part`, the first of which is page `page` of the block.
    fn hash(&mut self, part: &ReadPages<'_>, page: u32, key: &Key) {
        // CAST: Less than `PAGES`.
        let at = (page % page_bitmap::PAGES) as usize;
        let words = (0..).map_while(|at| part.words(at));
        for (words, digest) in words.zip(self.0.iter_mut().skip(at)) {
            *digest = key.digest(words);
        }
    }

    /// Returns the digests of the pages of `batch`, which were hashed since the batch was started.
    fn of(&self, batch: &Batch<'_>) -> &[Digest] {
        // CAST: Less than `PAGES`.
        let known = self.0.get((batch.page % page_bitmap::PAGES) as usize..);
        // CAST: At most `PAGES`.
        let known = known.and_then(|known| known.get(..batch.pages.count() as usize));
        known.unwrap_or_default()
    }
}

/// Returns the pages if only the read can write to their memory.
fn alone(pages: FilledPages<'_>) -> Option<ReadPages<'_>> {
    match pages {
        FilledPages::Alone(pages) => Some(pages),
        FilledPages::Buffers(_) => None,
    }
}

impl PrivateReads for Drr {
    fn store(&self) -> &PageStore {
        &self.handle.pool.metadata
    }

    /// Records the buffer's page, if there is one, and the private page, which is kept for when the
    /// file system modifies the buffer. Whatever happens to either page, the digest is that of the
    /// bytes from the disk.
    fn page_read(
        &self,
        data: &PerBioData,
        at: u32,
        page: StorablePage,
        buffer: Option<BufferPage<'_>>,
    ) {
        let (Some(range), Some(key)) = (&data.range, self.handle.key()) else {
            return;
        };
        if !self.still_there(range) {
            return;
        }
        // RANGE: A page of the read.
        let at = range.extent.pages().0 + at;
        let digest = [key.digest(page.words())];
        let locked = buffer.as_ref().and_then(BufferPage::try_lock);
        let pages = locked.as_ref().map(CachedPages::buffer);
        self.record_pages(range, at, pages, &digest);
        // The store may have the page already, although the read wasn't served. Two concurrent
        // reads may each add the page.
        let is_stored = || self.handle.table().is_stored(&range.block, at);
        if !self.features.no_meta_cache && self.has_room() && !is_stored() {
            self.keep(range, at, page, &digest);
        }
    }
}

impl Drr {
    /// Returns the owner of records that are made for this target.
    fn holder(&self, range: &MappedRange) -> Holder {
        Holder {
            target_id: self.handle.target_id,
            layer: range.layer,
        }
    }

    /// Records what a read has filled from the disk, with the digests of its pages.
    ///
    /// The pages hold the content that `range` names if the mapping has been left alone since
    /// before it was looked up. Any context.
    pub(crate) fn record(&self, bio: &EndedBio<'_, Self>, range: &MappedRange, key: &Key) {
        if self.may_record(range) && (self.has_room() || self.may_compare(range)) {
            self.record_filled(bio, range, key);
        }
    }

    /// Returns whether pages of `range` that came from the disk are of the content that it names.
    fn may_record(&self, range: &MappedRange) -> bool {
        (range.extent.is_whole() || !Rule::WholePages.on()) && self.still_there(range)
    }

    /// Returns whether records can be made.
    fn has_room(&self) -> bool {
        !self.features.no_donate && self.handle.table().directory().has_room()
    }

    /// Returns whether the digest of any page of `range` is known, so that the page can be compared
    /// even if it can't be recorded.
    fn may_compare(&self, range: &MappedRange) -> bool {
        let (first, count) = range.extent.pages();
        self.handle.table().knows(&range.block, first, count)
    }

    /// Hashes the pages that a read has filled, and records them in batches.
    fn record_filled(&self, bio: &EndedBio<'_, Self>, range: &MappedRange, key: &Key) {
        let (first, _) = range.extent.pages();
        let (mut batch, mut digests) = (None, Digests::new());
        let record = |batch: Batch<'_>, digests: &Digests| {
            let known = digests.of(&batch);
            self.record_pages(range, batch.page, Some(batch.pages), known);
        };
        let pages = bio.data().filled.pages(bio).filter_map(alone);
        let parts = pages.flat_map(|pages| pages.parts(first, page_bitmap::PAGES));
        for part in parts.take_while(|part| part.offset() < MOST_RECORDED) {
            // RANGE: A page of the read.
            let page = first + part.offset();
            if let Some(full) = Batch::join(&mut batch, page, CachedPages::read(&part)) {
                record(full, &digests);
            }
            digests.hash(&part, page, key);
        }
        if let Some(last) = batch {
            record(last, &digests);
        }
    }

    /// Stores page `at` of a block, which came from the disk and has this digest, and records it.
    fn keep(&self, range: &MappedRange, at: u32, page: StorablePage, digest: &[Digest; 1]) {
        if let Some(stored) = self.store().keep(page) {
            let holder = Holder {
                target_id: OURS,
                layer: range.layer,
            };
            let pages = CachedPages::stored(&stored);
            let table = self.handle.table();
            table.record(&range.block, at, &pages, digest, holder);
        }
    }

    /// Records pages of an extent from page `page` of the block on, which have these digests. Only
    /// compares the digests if `pages` is [`None`], or the target doesn't donate.
    fn record_pages(
        &self,
        range: &MappedRange,
        page: u32,
        pages: Option<CachedPages<'_>>,
        digests: &[Digest],
    ) {
        let (table, block) = (self.handle.table(), &range.block);
        let counted = match pages {
            Some(pages) if !self.features.no_donate => {
                table.record(block, page, &pages, digests, self.holder(range))
            }
            _ => table.compare(block, page, digests),
        };
        self.count(range, page, counted);
    }

    /// Counts recorded and compared pages, and logs an error if some differed.
    fn count(&self, range: &MappedRange, page: u32, counted: Counted) {
        self.stats.read(counted);
        trace!(record, self.traced_pages(range, page, counted.recorded));
        if counted.differed != 0 && may_warn() {
            pr_err!(
                "{}: {} pages from page {page} on of {:?} differ from what was read from the same block before: \
                 the disk, or the machine's memory, isn't sound\n",
                self.md.name(),
                counted.differed,
                range.block
            );
        }
        #[cfg(DRR_MUTANTS)]
        if counted.differed != 0 {
            kernel::warn_on!(true);
        }
    }

    /// Records the pages of a read that was served, with the digests that proved them. Any context.
    pub(crate) fn inherit(&self, bio: &EndedBio<'_, Self>, range: &MappedRange) {
        if self.features.no_donate || !range.extent.is_whole() {
            return;
        }
        let mut batch = None;
        for pages in bio.data().filled.pages(bio) {
            match pages {
                FilledPages::Alone(pages) => self.inherit_parts(range, &mut batch, pages),
                FilledPages::Buffers(buffer) => self.inherit_buffer(range, &buffer),
            }
        }
        if let Some(last) = batch {
            self.inherit_pages(range, &last);
        }
    }

    /// Adds `pages` to `batch`, and records the batches that are complete.
    fn inherit_parts<'a>(
        &self,
        range: &MappedRange,
        batch: &mut Option<Batch<'a>>,
        pages: ReadPages<'a>,
    ) {
        let (first, _) = range.extent.pages();
        for part in pages.parts(first, page_bitmap::PAGES) {
            // RANGE: A page of the read.
            let page = first + part.offset();
            if let Some(full) = Batch::join(batch, page, CachedPages::read(&part)) {
                self.inherit_pages(range, &full);
            }
        }
    }

    /// Records a buffer's page if its folio can be locked.
    fn inherit_buffer(&self, range: &MappedRange, buffer: &BufferPage<'_>) {
        if let Some(locked) = buffer.try_lock() {
            // RANGE: A page of the read.
            let page = range.extent.pages().0 + buffer.offset();
            let pages = CachedPages::buffer(&locked);
            self.inherit_pages(range, &Batch { page, pages });
        }
    }

    /// Records the pages of `batch`, with the digests that proved them.
    fn inherit_pages(&self, range: &MappedRange, batch: &Batch<'_>) {
        let (table, holder) = (self.handle.table(), self.holder(range));
        let recorded = table.inherit(&range.block, batch.page, &batch.pages, holder);
        self.stats.recorded(recorded);
        trace!(record, self.traced_pages(range, batch.page, recorded));
    }

    /// Describes `pages` pages from page `page` of a block on, which are on record now, for
    /// tracepoints.
    fn traced_pages(&self, range: &MappedRange, page: u32, pages: u32) -> trace::Pages {
        trace::Pages {
            dev: self.md.bdev().dev_t(),
            thin_id: range.layer.thin_id,
            pool: range.block.pool(),
            block: range.block.number(),
            page,
            pages,
        }
    }
}
