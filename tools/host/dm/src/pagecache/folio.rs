// SPDX-License-Identifier: GPL-2.0

//! Stand-in: a page cache of pages that hold a number each, as two words, so that a copy can be torn.
//!
//! Its rules are those that the directory rests on: a page is read into, added and removed under its
//! lock, and its removal is told before it is gone. It is modified at any time, and nobody is told. The memory of a
//! page that was removed is used again at once, whoever may hold a reference; the kernel is kinder.

use core::{array, cell::UnsafeCell, marker::PhantomData, ptr};

use kernel::{
    bindings::{kvfree_call_rcu, kvfree_rcu_head},
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        rcu,
    },
};

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Sectors in a page.
pub const PAGE_SECTORS: u32 = 1 << (PAGE_SHIFT - 9);
/// Words of 64 bits in a page.
pub const PAGE_WORDS: usize = 1 << (PAGE_SHIFT - 3);

/// The content of a page.
pub type PageWords = [u64; PAGE_WORDS];

/// The bytes of a page's content.
pub fn bytes(words: &PageWords) -> &[u8] {
    // SAFETY: As long as the words are, and all bit patterns are bytes.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// What a page holds that isn't in use.
pub const GARBAGE: u64 = u64::MAX;

/// Words of a page that aren't zero.
const WORDS: usize = 2;

/// The words of a page that holds this number.
pub fn words_of(content: u64) -> [u64; WORDS] {
    [content, !content]
}

/// The number that a page holds, unless its words are of two.
pub fn number_in(words: &PageWords) -> Option<u64> {
    (words[..WORDS] == words_of(words[0])).then_some(words[0])
}

/// A page, and the folio that it is.
struct Page {
    locked: Atomic<bool>,
    cached: Atomic<bool>,
    words: [Atomic<u64>; WORDS],
}

impl Page {
    fn new() -> Self {
        Self {
            locked: Atomic::new(false),
            cached: Atomic::new(false),
            words: words_of(GARBAGE).map(Atomic::new),
        }
    }

    fn fill(&self, content: u64) {
        for (word, value) in self.words.iter().zip(words_of(content)) {
            word.store(value, Relaxed);
        }
    }

    fn words(&self) -> [u64; WORDS] {
        array::from_fn(|at| self.words[at].load(Relaxed))
    }
}

/// A file's page cache (`struct address_space`), in its inode.
pub struct PageCache {
    number: u64,
    /// Never freed.
    pages: &'static [Page],
    rcu: UnsafeCell<kvfree_rcu_head>,
}

impl PageCache {
    /// An empty one of file number `number`, which has `pages` pages.
    pub fn new(number: u64, pages: usize) -> MappingId {
        let pages = (0..pages).map(|_| Page::new()).collect::<Vec<_>>();
        let cache = Self {
            number,
            pages: pages.leak(),
            rcu: UnsafeCell::default(),
        };
        let raw = KBox::into_raw(KBox::new(cache, GFP_KERNEL).expect("memory"));
        MappingId(raw.expose_provenance())
    }
}

/// Names a page cache: as large as the module's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MappingId(usize);

impl MappingId {
    /// A number for hashing: the address, but in models, which have to do the same each time.
    pub fn hash_key(self) -> u64 {
        #[cfg(loom)]
        return self.cache().number;
        #[cfg(not(loom))]
        return self.0 as u64;
    }

    /// A name of nothing, for what is never looked into.
    #[cfg(not(loom))]
    pub fn made_up(number: u64) -> Self {
        Self(number as usize)
    }

    fn cache(&self) -> &PageCache {
        // SAFETY: A page cache that is there, or that a model keeps until the end of its run.
        unsafe { &*core::ptr::with_exposed_provenance(self.0) }
    }

    /// The inode goes, all of whose pages have left; its memory, when nobody holds RCU any more who does now.
    ///
    /// # Safety
    ///
    /// Called once, and whoever uses the page cache from now on holds RCU since before.
    pub unsafe fn evict(self) {
        let cache = self.cache();
        // SAFETY: Allocated by `KBox::new`, and given away once, by the safety requirements.
        unsafe { kvfree_call_rcu(cache.rcu.get(), ptr::from_ref(cache).cast_mut().cast()) };
    }

    fn page(self, index: u64) -> Option<&'static Page> {
        #[cfg(loom)]
        assert!(!rcu::gone(self.cache()), "an inode is used that is gone");
        debug_assert_ne!(self.cache().number, 0);
        self.cache().pages.get(usize::try_from(index).ok()?)
    }
}

/// Consecutive pages that a read has filled or is about to.
#[derive(Clone, Copy)]
pub struct ReadPages<'a> {
    mapping: MappingId,
    first: u64,
    count: u32,
    offset: u32,
    _alive: PhantomData<&'a ()>,
}

impl ReadPages<'_> {
    /// `count` pages from `first` on, which come `offset` pages into the read.
    pub fn new(mapping: MappingId, first: u64, count: u32, offset: u32) -> Self {
        Self {
            mapping,
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

/// A folio that may be in the page cache.
pub struct FolioRef {
    page: &'static Page,
    index: u64,
}

impl FolioRef {
    /// The folio that holds `index` of `mapping`.
    ///
    /// # Safety
    ///
    /// The page cache was there at some moment after `_guard` was taken.
    pub unsafe fn find(_guard: &rcu::Guard, mapping: MappingId, index: u64) -> Option<Self> {
        let page = mapping.page(index)?;
        page.cached.load(Relaxed).then_some(Self { page, index })
    }

    /// The number in the folio of the page at a file index, if the folio holds it.
    pub fn page_at(&self, index: u64) -> Option<u64> {
        (index == self.index).then_some(0)
    }

    /// Copies its page, whatever that holds at this moment, a word after the other.
    pub fn copy_page(&self, at: u64, to: &mut PageWords) -> bool {
        if at != 0 {
            return false;
        }
        let (words, rest) = to.split_at_mut(WORDS);
        words.copy_from_slice(&self.page.words());
        rest.fill(0);
        true
    }
}

/// A locked folio, in the page cache or about to be.
pub struct LockedFolio {
    page: &'static Page,
    mapping: MappingId,
    index: u64,
}

impl LockedFolio {
    /// Locks a page if it isn't locked. Its inode is there.
    pub fn try_new(mapping: MappingId, index: u64) -> Option<Self> {
        let page = mapping.page(index)?;
        page.locked
            .cmpxchg(false, true, Acquire)
            .is_ok()
            .then(|| Self {
                page,
                mapping,
                index,
            })
    }

    /// It is in the page cache.
    pub fn cached(&self) -> bool {
        self.page.cached.load(Relaxed)
    }

    /// A read: fills a page that isn't in the page cache, and has `end_io` see it, locked and in there.
    pub fn read(self, content: u64, end_io: impl FnOnce(ReadPages<'_>)) {
        self.page.cached.store(true, Relaxed);
        self.page.fill(content);
        end_io(ReadPages::new(self.mapping, self.index, 1, 0));
    }

    /// Modifies a page that is in the page cache, without a word to anybody. That it has the lock only keeps a page from being
    /// written to that is being read, which nobody can have mapped.
    pub fn modify(&self, content: u64) {
        self.page.fill(content);
    }

    /// The page leaves the page cache, which is told before; its memory is somebody else's then.
    pub fn remove(self, removed: impl FnOnce(EventFolio<'_>)) {
        removed(EventFolio::made_up(self.mapping, (self.index, self.index)));
        self.page.cached.store(false, Relaxed);
        self.page.fill(GARBAGE);
    }
}

/// A page of a block device's page cache, locked and in there.
pub struct LockedBuffer(LockedFolio);

impl LockedBuffer {
    /// Locks a page that is in the page cache, if it isn't locked.
    pub fn try_new(mapping: MappingId, index: u64) -> Option<Self> {
        LockedFolio::try_new(mapping, index)
            .filter(LockedFolio::cached)
            .map(Self)
    }

    /// The page cache that it is in.
    pub fn mapping(&self) -> MappingId {
        self.0.mapping
    }

    /// The page's file index.
    pub fn index(&self) -> u64 {
        self.0.index
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        self.page.locked.store(false, Release);
    }
}
