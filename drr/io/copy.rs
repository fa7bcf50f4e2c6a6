// SPDX-License-Identifier: GPL-2.0

//! The copy engine: serves a read from donors.
//!
//! For each page, in this order:
//!
//! 1. under RCU, find a record of the page's name, and take a reference to the folio that it names: from
//!    here on only the folio is touched;
//! 2. copy the page to a page of our own, without any lock: whatever it holds now, torn or not;
//! 3. compare the digest of the copy with that of the record. If it is another, the page isn't what was read
//!    any more: the record ends, and the next is tried, four at most;
//! 4. copy it from the page of our own to the reader.
//!
//! So bytes that aren't proven are in the page of our own only. A process that watches the reader's memory
//! meanwhile sees what was there before, or the content of the block.

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
    access::table::{AccessTable, Block, Holder, PageDonor},
    layers::id::LayerId,
};

/// Donors of a page that are tried.
const MOST_TRIED: usize = 4;

/// Distinct donors that a single read tells apart.
const SOURCES: usize = 8;

/// A part of a read that came from one donor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// The target whose page cache it came from.
    pub(crate) target_id: u32,
    /// The target's layer.
    pub(crate) layer: LayerId,
    /// How much; pages may be served in part.
    pub(crate) sectors: u32,
}

/// Where the parts of a read came from.
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

    /// The parts whose donors are told apart.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Source> {
        self.known.iter().filter(|source| source.sectors != 0)
    }

    /// Sectors from all other donors.
    pub(crate) fn others(&self) -> u32 {
        self.others
    }
}

/// What came of a read.
#[derive(Default)]
pub(crate) struct Served {
    /// Whose.
    pub(crate) sources: Sources,
    /// How many of its pages, from the first on.
    pub(crate) pages: u32,
    /// Copies that were not what they should have been.
    pub(crate) unproven: u32,
}

/// A part of a block, in bytes; at least one.
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

    /// The first page of the block that the extent overlaps, and the number of pages that it overlaps.
    pub(crate) fn pages(self) -> (u32, u32) {
        let first = self.at >> PAGE_SHIFT;
        // RANGE: The end isn't before the page in which it begins.
        (first, self.end().div_ceil(1 << PAGE_SHIFT) - first)
    }

    /// It is made up of whole pages.
    pub(crate) fn is_whole(self) -> bool {
        (self.at | self.len) % (1 << PAGE_SHIFT) == 0
    }

    /// How many bytes come before the end of its page number `pages`, counted from its first.
    pub(crate) fn up_to(self, pages: u32) -> u32 {
        // RANGE: The extent has no fewer pages.
        let end = (self.pages().0 + pages) << PAGE_SHIFT;
        end.min(self.end()).saturating_sub(self.at)
    }

    /// Which bytes of page `page` of the block belong to it.
    fn in_page(self, page: u32) -> Range<usize> {
        // RANGE: A page of the block.
        let start = page << PAGE_SHIFT;
        // CAST: No more than a page's.
        let within = |at: u32| at.saturating_sub(start).min(1 << PAGE_SHIFT) as usize;
        within(self.at)..within(self.end())
    }
}

/// What a read is served with.
pub(crate) struct Engine<'a> {
    pub(crate) table: &'a AccessTable,
    pub(crate) key: &'a Key,
    pub(crate) scratch: &'a ScratchPages,
}

/// A folio that was found for one page, for the next, and the number of its page cache.
type LastFolio = Option<(FolioRef, u64)>;

impl Engine<'_> {
    /// Fills `writer` with `extent` of `block`, from donors, as far as it goes.
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

    /// Copies what is in `extent` from page `page` of the block on, as far as a donor has it; the donor's run
    /// begins with the page's stretch. Returns how many pages were proven, and whether the next one wasn't.
    // RANGE: `page` is one of the extent's, and the donor has no pages beyond its stretch.
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

    /// Copies `part` of page `at` of the donor's run.
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
        let place = last
            .as_ref()
            .and_then(|(folio, _)| Some((folio, folio.page_at(index)?)));
        let Some((folio, place)) = place else {
            return Copied::Nothing;
        };
        HoldPoint::RecordFound.pass();
        let prove = |words: &mut PageWords| {
            if !folio.copy_page(place, words) {
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

/// What came of a donor's page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// The reader has it.
    Proven,
    /// It isn't what it was.
    Unproven,
    /// It isn't there any more, or can't be copied now.
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
