// SPDX-License-Identifier: GPL-2.0

//! Stand-in: a page cache of pages that hold a number each.
//!
//! Its rules are those that the directory rests on: a page is read into, removed, changed and
//! copied from under its lock, and its events are told before it is gone or changed.

use core::{marker::PhantomData, ptr};

use kernel::sync::{
    atomic::{Acquire, Atomic, Relaxed, Release},
    rcu,
};

use crate::tracepoint::FolioEvents;

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;

/// What a page holds that is in no state to be copied.
pub const GARBAGE: u64 = u64::MAX;

/// A page, and the folio that it is.
struct Page {
    locked: Atomic<bool>,
    cached: Atomic<bool>,
    uptodate: Atomic<bool>,
    dirty: Atomic<bool>,
    content: Atomic<u64>,
}

/// A file's page cache (`struct address_space`).
pub struct PageCache {
    number: u64,
    pages: Vec<Page>,
}

impl PageCache {
    /// An empty one of file number `number`, which has `pages` pages; never freed, as its name
    /// may stay.
    pub fn new(number: u64, pages: usize) -> MappingId {
        let page = || Page {
            locked: Atomic::new(false),
            cached: Atomic::new(false),
            uptodate: Atomic::new(false),
            dirty: Atomic::new(false),
            content: Atomic::new(GARBAGE),
        };
        let cache = Box::leak(Box::new(Self {
            number,
            pages: (0..pages).map(|_| page()).collect(),
        }));
        MappingId {
            cache,
            number: cache.number,
        }
    }

    /// Tells of the event that comes before a page leaves, and has it leave.
    fn drop_page(&self, locked: &LockedFolio, events: &impl FolioEvents) {
        events.removed(EventFolio::of(locked));
        let page = locked.page();
        page.cached.store(false, Relaxed);
        page.uptodate.store(false, Relaxed);
        page.dirty.store(false, Relaxed);
        page.content.store(GARBAGE, Relaxed);
    }
}

/// Names a page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MappingId {
    cache: *const PageCache,
    number: u64,
}

// SAFETY: Only a name.
unsafe impl Send for MappingId {}
// SAFETY: As above.
unsafe impl Sync for MappingId {}

impl MappingId {
    /// A number for hashing.
    pub fn number(self) -> u64 {
        self.number
    }

    /// A name of nothing, for what is never looked into.
    pub fn made_up(number: u64) -> Self {
        Self {
            cache: ptr::null(),
            number,
        }
    }

    fn cache(self) -> &'static PageCache {
        // SAFETY: Null, or a page cache that is never freed.
        unsafe { self.cache.as_ref() }.expect("a page cache, not a made-up name")
    }
}

/// Consecutive pages that a read has filled or is about to, and their folio.
#[derive(Clone, Copy)]
pub struct ReadPages<'a> {
    mapping: MappingId,
    folio: (u64, u64),
    first: u64,
    count: u32,
    offset: u32,
    _alive: PhantomData<&'a ()>,
}

impl ReadPages<'_> {
    /// `count` pages from `first` on, which are a folio and come `offset` pages into the read.
    pub fn new(mapping: MappingId, first: u64, count: u32, offset: u32) -> Self {
        Self {
            mapping,
            folio: (first, first + u64::from(count) - 1),
            first,
            count,
            offset,
            _alive: PhantomData,
        }
    }

    /// The page cache that they are in.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// File index of the first page.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of pages.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// First and last file index of the whole folio.
    pub fn folio_range(&self) -> (u64, u64) {
        self.folio
    }

    /// They are all pages of the folio.
    pub fn is_whole_folio(&self) -> bool {
        u64::from(self.count) == self.folio.1 - self.folio.0 + 1
    }

    /// Pages of the read before the first of these.
    pub fn offset(&self) -> u32 {
        self.offset
    }
}

/// A folio in the hands of a page-cache event.
pub struct EventFolio<'a> {
    mapping: MappingId,
    range: (u64, u64),
    _alive: PhantomData<&'a ()>,
}

impl EventFolio<'_> {
    fn of(locked: &LockedFolio) -> Self {
        Self {
            mapping: locked.mapping,
            range: (locked.index, locked.index),
            _alive: PhantomData,
        }
    }

    /// A folio of a page cache that is only a name.
    pub fn made_up(mapping: MappingId, range: (u64, u64)) -> Self {
        Self {
            mapping,
            range,
            _alive: PhantomData,
        }
    }

    /// The page cache that it is in.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// First and last file index.
    pub fn range(&self) -> (u64, u64) {
        self.range
    }
}

/// State of a folio at one moment.
pub struct State {
    locked: bool,
    uptodate: bool,
}

impl State {
    /// A read that fills it is under way, as a rule.
    pub fn being_read(self) -> bool {
        self.locked && !self.uptodate
    }
}

/// A folio that may be in the page cache.
pub struct FolioRef {
    mapping: MappingId,
    index: u64,
}

impl FolioRef {
    /// The folio that holds `index` of `mapping`.
    ///
    /// # Safety
    ///
    /// The page cache is there.
    pub unsafe fn find(_guard: &rcu::Guard, mapping: MappingId, index: u64) -> Option<Self> {
        let page = mapping.cache().pages.get(usize::try_from(index).ok()?)?;
        page.cached.load(Relaxed).then_some(Self { mapping, index })
    }

    /// The folio's state.
    pub fn state(&self) -> State {
        let page = &self.mapping.cache().pages[self.index as usize];
        State {
            locked: page.locked.load(Relaxed),
            uptodate: page.uptodate.load(Acquire),
        }
    }

    /// Locks the folio if it isn't locked and is still there.
    pub fn try_lock(self, mapping: MappingId) -> Option<LockedFolio> {
        let locked = LockedFolio::try_new(mapping, self.index)?;
        locked.page().cached.load(Relaxed).then_some(locked)
    }
}

/// A locked folio, in the page cache or about to be.
pub struct LockedFolio {
    mapping: MappingId,
    index: u64,
}

impl LockedFolio {
    /// Locks a page if it isn't locked.
    pub fn try_new(mapping: MappingId, index: u64) -> Option<Self> {
        let page = &mapping.cache().pages[index as usize];
        page.locked
            .cmpxchg(false, true, Acquire)
            .is_ok()
            .then(|| Self { mapping, index })
    }

    fn page(&self) -> &Page {
        &self.mapping.cache().pages[self.index as usize]
    }

    /// It is in the page cache.
    pub fn cached(&self) -> bool {
        self.page().cached.load(Relaxed)
    }

    /// It holds what it should, and what the disk has.
    pub fn clean(&self) -> bool {
        self.page().uptodate.load(Relaxed) && !self.page().dirty.load(Relaxed)
    }

    /// What it holds.
    pub fn content(&self) -> u64 {
        self.page().content.load(Relaxed)
    }

    /// Adds a page that isn't in the page cache to it, to be read.
    pub fn add(&self) {
        self.page().cached.store(true, Relaxed);
    }

    /// Whether a page is in the page cache, and has been read; without its lock.
    pub(crate) fn peek(mapping: MappingId, index: u64) -> (bool, bool) {
        let page = &mapping.cache().pages[index as usize];
        (page.cached.load(Relaxed), page.uptodate.load(Acquire))
    }

    /// Zeroes a part of the page, without an event: other content, and clean.
    pub fn zero_part(&self, content: u64) {
        self.page().content.store(content, Relaxed);
    }

    /// A read: fills a page that isn't in the page cache, or has just been added, has `end_io` see it locked and not up to
    /// date, and lets it be used.
    pub fn read(self, content: u64, end_io: impl FnOnce(ReadPages<'_>)) {
        let page = self.page();
        page.cached.store(true, Relaxed);
        page.content.store(content, Relaxed);
        end_io(ReadPages::new(self.mapping, self.index, 1, 0));
        page.uptodate.store(true, Release);
    }

    /// Reclaim.
    pub fn remove(self, events: &impl FolioEvents) {
        self.mapping.cache().drop_page(&self, events);
    }

    /// A write to it, and writeback: other content, and clean again.
    pub fn change(self, content: u64, events: &impl FolioEvents) {
        let page = self.page();
        page.dirty.store(true, Relaxed);
        events.dirtied(EventFolio::of(&self));
        page.content.store(content, Relaxed);
        page.dirty.store(false, Relaxed);
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        self.page().locked.store(false, Release);
    }
}
