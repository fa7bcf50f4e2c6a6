// SPDX-License-Identifier: GPL-2.0

//! The copy engine: serves a read from donors.
//!
//! For each page, in this order:
//!
//! 1. Under RCU, find a record of the page's name, and take a reference to the folio that the
//!    record names. From here on only the folio is touched.
//! 2. Copy the page to a page of our own, without any lock: whatever the page holds now, torn or
//!    not.
//! 3. Compare the digest of the copy with the digest on record. If they differ, the page no longer
//!    holds what was read: the record ends, and the next one is tried, four at most.
//! 4. Copy the page of our own to the reader.
//!
//! So only the page of our own ever holds unproven bytes. A process that watches the reader's
//! memory meanwhile sees either the old bytes or the content of the block.

use core::ops::Range;

use kernel::{prelude::*, sync::rcu};

use dm::{
    block::bio::{Writer, SECTOR_SHIFT},
    drr::hold_point::HoldPoint,
    drr::rule::Rule,
    pagecache::folio::{bytes, FolioRef, PageWords, PAGE_SHIFT},
    pagecache::page_bitmap,
    sync::scratch::ScratchPages,
};

use crate::{
    access::digest::Key,
    access::name::{Block, Holder},
    access::table::{AccessTable, PageDonor},
    layers::id::LayerId,
};

/// Donors that are tried for a page, besides the donor of the page before. A donor that fails is
/// rare, and each costs a copy and a digest, so a few bound the time of a read.
const MOST_TRIED: usize = 4;

/// Donor targets of a single read that are counted separately. They are on the stack, and
/// one or two are usual.
const SOURCES: usize = 8;

/// A part of a read that came from one donor target.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// The target whose page cache the part came from.
    pub(crate) target_id: u32,
    /// The layer that the target was on.
    pub(crate) layer: LayerId,
    /// Length of the part; pages may be served in part.
    pub(crate) sectors: u32,
}

/// The donors of a read.
#[derive(Default)]
pub(crate) struct Sources {
    known: [Source; SOURCES],
    others: u32,
}

impl Sources {
    // RANGE: Sectors of one block.
    fn add(&mut self, donor: Holder, sectors: u32) {
        let fits =
            |source: &&mut Source| source.sectors == 0 || source.target_id == donor.target_id;
        match self.known.iter_mut().find(fits) {
            Some(source) => {
                *source = Source {
                    target_id: donor.target_id,
                    layer: donor.layer,
                    sectors: source.sectors + sectors,
                }
            }
            None => self.others += sectors,
        }
    }

    /// Returns the parts whose donors are counted separately.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Source> {
        self.known.iter().filter(|source| source.sectors != 0)
    }

    /// Returns the number of sectors from all other donors.
    pub(crate) fn others(&self) -> u32 {
        self.others
    }
}

/// The result of serving a read.
#[derive(Default)]
pub(crate) struct Served {
    /// Where the pages came from.
    pub(crate) sources: Sources,
    /// Pages that were served, from the read's first on.
    pub(crate) pages: u32,
    /// Copies that failed the proof.
    pub(crate) unproven: u32,
}

/// A part of a block, in bytes; not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ByteRange {
    /// First byte in the block.
    pub(crate) at: u32,
    /// Number of bytes.
    pub(crate) len: u32,
}

impl ByteRange {
    fn end(self) -> u32 {
        // RANGE: In a block, which has 1 GiB at most.
        self.at + self.len
    }

    /// Returns the first page of the block that the range overlaps, and the number of pages that it
    /// overlaps.
    pub(crate) fn pages(self) -> (u32, u32) {
        let first = self.at >> PAGE_SHIFT;
        // RANGE: The end isn't before the page in which the range begins.
        (first, self.end().div_ceil(1 << PAGE_SHIFT) - first)
    }

    /// Returns whether the range consists of whole pages.
    pub(crate) fn is_whole(self) -> bool {
        (self.at | self.len) % (1 << PAGE_SHIFT) == 0
    }

    /// Returns how many bytes of the range are in its first `pages` pages.
    pub(crate) fn up_to(self, pages: u32) -> u32 {
        // RANGE: The range has at least `pages` pages.
        let end = (self.pages().0 + pages) << PAGE_SHIFT;
        end.min(self.end()).saturating_sub(self.at)
    }

    /// Returns which bytes of page `page` of the block belong to the range, as offsets in the page.
    fn in_page(self, page: u32) -> Range<usize> {
        // RANGE: `page` is a page of the block.
        let start = page << PAGE_SHIFT;
        // CAST: At most the size of a page.
        let within = |at: u32| at.saturating_sub(start).min(1 << PAGE_SHIFT) as usize;
        within(self.at)..within(self.end())
    }
}

/// The copy engine: the table, the key and the scratch pages that serve a read.
pub(crate) struct Engine<'a> {
    pub(crate) table: &'a AccessTable,
    pub(crate) key: &'a Key,
    pub(crate) scratch: &'a ScratchPages,
}

/// The folio in which the last page was found, which may hold the next one, too, and the hash key
/// of its page cache.
type LastFolio = Option<(FolioRef, u64)>;

impl Engine<'_> {
    /// Fills `writer` with `extent` of `block` from donors, up to the first page for which no
    /// donor's copy is proven.
    // RANGE: Pages and bytes of `extent`, of which no more are served than there are.
    pub(crate) fn serve(
        &self,
        block: &Block,
        extent: ByteRange,
        writer: &mut Writer<'_>,
    ) -> Served {
        let mut served = Served::default();
        let (first, count) = extent.pages();
        let guard = rcu::read_lock();
        let mut folio = None;
        while served.pages < count {
            let page = first + served.pages;
            let mut from = None;
            // The run before may have ended as its donor's copy of this page failed the proof. Then
            // these donors are tried besides that one.
            for donor in self.table.donors(&guard, block, page).take(MOST_TRIED) {
                let (pages, unproven) = self.copy_run(&donor, extent, page, &mut folio, writer);
                served.unproven += u32::from(unproven);
                if pages != 0 {
                    from = Some((donor.holder(), pages));
                    break;
                }
            }
            let Some((donor, pages)) = from else { break };
            let before = extent.up_to(served.pages);
            served.pages += pages;
            let bytes = extent.up_to(served.pages) - before;
            served.sources.add(donor, bytes >> SECTOR_SHIFT);
        }
        served
    }

    /// Copies what is in `extent` from page `page` of the block on, as far as a donor has it; page
    /// 0 of the donor is the first page of the extent that holds page `page`. Returns how many
    /// pages were proven, and whether the copy of the next page failed the proof.
    // RANGE: `page` is one of `extent`'s, and the donor has no pages beyond its cached extent.
    #[inline]
    fn copy_run(
        &self,
        donor: &PageDonor<'_>,
        extent: ByteRange,
        page: u32,
        folio: &mut LastFolio,
        writer: &mut Writer<'_>,
    ) -> (u32, bool) {
        let (first, count) = extent.pages();
        let at = page % page_bitmap::PAGES;
        let most = donor.pages_from(at).min(first + count - page);
        for done in 0..most {
            let part = extent.in_page(page + done);
            match self.copy_page(donor, at + done, part, folio, writer) {
                Copied::Proven => {}
                Copied::Nothing => return (done, false),
                Copied::Unproven => {
                    self.table.directory().end_changed(donor, at + done);
                    return (done, true);
                }
            }
        }
        (most, false)
    }

    /// Copies `part` of page `at` of the donor's cached extent to the reader, if the page is
    /// proven.
    #[inline]
    fn copy_page(
        &self,
        donor: &PageDonor<'_>,
        at: u32,
        part: Range<usize>,
        last: &mut LastFolio,
        writer: &mut Writer<'_>,
    ) -> Copied {
        let Some(digest) = donor.digest(at) else {
            return Copied::Nothing;
        };
        // A large folio holds the next page, too; its reference is taken once.
        let (mapping, index) = (donor.mapping().hash_key(), donor.index(at));
        if !matches!(last, Some((folio, its)) if *its == mapping && folio.page_at(index).is_some())
        {
            *last = donor.folio(at).map(|folio| (folio, mapping));
        }
        let range = last
            .as_ref()
            .and_then(|(folio, _)| Some((folio, folio.page_at(index)?)));
        let Some((folio, range)) = range else {
            return Copied::Nothing;
        };
        HoldPoint::RecordFound.pass();
        let prove = |words: &mut PageWords| {
            if !folio.copy_page(range, words) {
                return Copied::Nothing;
            }
            if !Rule::ProofFirst.on() {
                let mut here = *writer;
                here.write(bytes(words).get(part.clone()).unwrap_or_default());
                HoldPoint::Unproven.pass();
            }
            if self.key.digest(words) != digest && Rule::Proof.on() {
                return Copied::Unproven;
            }
            writer.write(bytes(words).get(part).unwrap_or_default());
            Copied::Proven
        };
        self.scratch.with(prove).unwrap_or(Copied::Nothing)
    }
}

/// The result of copying a donor's page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// The copy was proven, and the reader has it.
    Proven,
    /// The copy failed the proof.
    Unproven,
    /// The page isn't cached any more, or can't be copied now.
    Nothing,
}

#[kunit_tests(drr_copy)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_blocks() {
        const PAGE: u32 = 1 << PAGE_SHIFT;
        for (at, len, pages, whole) in [
            (0, PAGE, (0, 1), true),
            (0, 512, (0, 1), false),
            (PAGE - 512, 1024, (0, 2), false),
            (PAGE, 2 * PAGE, (1, 2), true),
            (3 * PAGE + 512, PAGE, (3, 2), false),
        ] {
            let extent = ByteRange { at, len };
            assert_eq!(extent.pages(), pages);
            assert_eq!(extent.is_whole(), whole);
            assert_eq!(extent.up_to(pages.1), len);
            assert_eq!(extent.up_to(0), 0);
            let bytes = (pages.0..pages.0 + pages.1).map(|page| extent.in_page(page).len());
            assert_eq!(bytes.sum::<usize>(), len as usize);
        }
        let extent = ByteRange {
            at: PAGE - 512,
            len: PAGE,
        };
        assert_eq!(extent.up_to(1), 512);
        assert_eq!(extent.in_page(1), 0..PAGE as usize - 512);
    }
}
