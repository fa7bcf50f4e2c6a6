// SPDX-License-Identifier: GPL-2.0

//! A directory of page-cache pages by their content.
//!
//! The directory says which pages of which page caches hold the content that a key stands for.
//! It is exact, and it holds no reference on pages or inodes:
//!
//! > A page is in the directory only while it is the same page-cache page that the content was
//! > read into, and has not been modified since.
//!
//! Pages are entered while the read that fills them has them locked, so that nothing can happen
//! to them yet. The events that end their time in the directory ([`FolioEvents`]) come under a
//! lock that is taken after the reader unlocked the folio:
//!
//! - removal from the page cache, under the folio lock and `i_pages`' lock,
//! - clean to dirty, under the folio lock; or without it when a page table entry is torn down,
//!   but then after `page_mkwrite`, which took the folio lock and made the folio dirty.
//!
//! A page that is zeroed in part and left clean is taken out before that ([`crate::truncation`]).
//!
//! So the entering happens before the event, and the event finds it.
//!
//! Pages are kept in runs: [`bits::PAGES`] consecutive pages of a file that hold consecutive
//! parts of the content. Adding, finding and ending take no lock unless a run is made or dies;
//! then it is the [index](crate::index)'s two.

use core::{marker::PhantomData, ops::RangeInclusive};

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu,
    },
};

use crate::{
    bits::{self, PageBits},
    cells::cells,
    folio::{EventFolio, FolioRef, MappingId, ReadPages},
    guard::Guard,
    index::{hash, hash_near, Chain, Entry, Index, Keyed},
    tracepoint::FolioEvents,
};

/// Why pages left the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum End {
    /// They left the page cache.
    Removed,
    /// They were modified.
    Dirtied,
    /// They are being read anew, or a read of them went wrong.
    Read,
    /// Their content is another's from now on.
    Content,
    /// Who entered them is gone.
    Gone,
    /// The device that they were read from is claimed.
    Claimed,
    /// What their key stands for is as it was before.
    RolledBack,
    /// A part of them is zeroed.
    Zeroed,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Removed,
        Self::Dirtied,
        Self::Read,
        Self::Content,
        Self::Gone,
        Self::Claimed,
        Self::RolledBack,
        Self::Zeroed,
    ];
}

/// What stands for the content of a run, and says whose it is.
pub trait Key: Copy + Send + Sync {
    /// Where the ends of pages are noted down.
    type Ledger: Send + Sync;

    /// Pages of this key have left the directory, bit *n* for page *n*. Any context but NMI.
    fn ended(&self, ledger: &Self::Ledger, why: End, pages: u32);
    /// Two keys stand for the same content.
    fn same(&self, other: &Self) -> bool;
    /// Hash of the content that it stands for.
    fn hash(&self) -> u64;
}

/// Consecutive pages of a page cache that a read has filled, in one folio or several.
///
/// # Invariants
///
/// Each of them is one of some [`ReadPages`] that live for `'a`.
pub struct ReadRange<'a> {
    mapping: MappingId,
    first: u64,
    count: u32,
    offset: u32,
    filled: PhantomData<&'a ()>,
}

impl<'a> ReadRange<'a> {
    /// These pages.
    pub fn new(pages: &ReadPages<'a>) -> Self {
        Self {
            mapping: pages.mapping(),
            first: pages.first(),
            count: pages.count(),
            offset: pages.offset(),
            filled: PhantomData,
        }
    }

    /// Takes in `pages` too if they follow in the page cache and in the read; returns whether so.
    pub fn extend(&mut self, pages: &ReadPages<'a>) -> bool {
        let follows = pages.mapping() == self.mapping
            && pages.first() == self.first + u64::from(self.count)
            && pages.offset() == self.offset + self.count;
        if follows {
            self.count += pages.count();
        }
        follows
    }

    /// Pages of the read before the first of these.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Number of pages.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The first `count` of the pages, and the rest if there is one.
    pub fn split(self, count: u32) -> (Self, Option<Self>) {
        let count = count.min(self.count);
        let rest = (count < self.count).then(|| Self {
            first: self.first + u64::from(count),
            count: self.count - count,
            offset: self.offset + count,
            ..self
        });
        (Self { count, ..self }, rest)
    }
}

/// Consecutive pages of a page cache that hold the content of `key`.
pub struct Run<K> {
    key: K,
    mapping: MappingId,
    /// File index of the page that holds, or would hold, the key's first page; wraps.
    base: u64,
    bits: PageBits,
}

impl<K: Key> Keyed for Run<K> {
    fn forward(&self) -> u64 {
        self.key.hash()
    }

    /// Files are read and dropped in order, as a rule.
    fn reverse(&self) -> u64 {
        hash_near(self.mapping.number(), bits::window(self.base))
    }
}

/// Hash of a window of a page cache, or of a folio; the page cache as [`MappingId::number`] has it.
pub fn window_hash(mapping: u64, window: u64) -> u64 {
    hash(mapping ^ hash(window))
}

/// A run as a reader of the directory sees it.
#[derive(Clone, Copy)]
pub struct Donor<'g, K> {
    run: &'g Run<K>,
    guard: &'g rcu::Guard,
}

impl<'g, K: Key> Donor<'g, K> {
    /// The key that the run was entered with.
    pub fn key(&self) -> &'g K {
        &self.run.key
    }

    /// The page cache that holds it.
    pub fn mapping(&self) -> MappingId {
        self.run.mapping
    }

    /// File index of the key's page `page`.
    pub fn index(&self, page: u32) -> u64 {
        self.run.base.wrapping_add(u64::from(page))
    }

    /// How many pages from `page` on are in the directory right now.
    #[inline]
    pub fn pages_from(&self, page: u32) -> u32 {
        self.run
            .bits
            .pages()
            .checked_shr(page)
            .map_or(0, |pages| pages.trailing_ones())
    }

    /// The pages that are in the directory right now, bit *n* for page *n*.
    pub fn pages(&self) -> u32 {
        self.run.bits.pages()
    }

    /// Those of the run's pages, bit *n* for page *n*, that are between two file indexes.
    pub fn pages_between(&self, first: u64, last: u64) -> u32 {
        bits::overlap(self.run.base, first, last)
    }

    /// Takes a reference to the folio that holds page `page`.
    pub fn folio(&self, page: u32) -> Option<FolioRef> {
        if self.pages_from(page) == 0 {
            return None;
        }
        // SAFETY: The page was in the directory just now, that is since the guard was taken. So
        // it was in the page cache, which it leaves only after it was taken out of the
        // directory, and the mapping was alive. Its memory stays for as long as the guard does.
        unsafe { FolioRef::find(self.guard, self.run.mapping, self.index(page)) }
    }
}

/// All runs of one key.
pub struct Holders<'g, K> {
    chain: Chain<'g, Run<K>>,
    key: &'g K,
    guard: &'g rcu::Guard,
}

impl<'g, K: Key> Holders<'g, K> {
    /// The key, as the newest has it.
    pub fn key(&self) -> &'g K {
        self.key
    }

    /// The runs, the newest first.
    pub fn donors(&self) -> impl Iterator<Item = Donor<'g, K>> + use<'_, 'g, K> {
        let same = |run: &&'g Entry<Run<K>>| run.key.same(self.key);
        let guard = self.guard;
        let runs = self.chain.clone().filter(same);
        runs.map(move |run| Donor { run, guard })
    }
}

const INTEREST: usize = 4096;

/// Words of 64 bits.
const FAILED: usize = 2048;

/// Runs of one key that are known at the same time, about.
const MOST_RUNS: u32 = 256;
/// Of these, runs with the same pages.
const MOST_ALIKE: u32 = 16;

/// Reads a counter that is below zero for a moment when something is ended by one CPU before
/// another has counted it.
fn count(counter: &Atomic<u64>) -> u64 {
    // CAST: The sign is what matters.
    (counter.load(Relaxed) as i64).max(0) as u64
}

/// See the [module](self).
pub struct Directory<K: Key> {
    index: Index<Run<K>>,
    /// Runs by hashed mapping: page caches that have none are passed over at the cost of a load.
    interest: KVVec<Atomic<u32>>,
    /// Marks of folios of which a part couldn't be read.
    failed: KVVec<Atomic<u64>>,
    runs: Atomic<u64>,
    pages: Atomic<u64>,
    ledger: K::Ledger,
}

impl<K: Key> Directory<K> {
    /// Makes a directory with 2^`bits` buckets for runs. Fails with `ENOMEM`.
    pub fn new(bits: u32, ledger: K::Ledger) -> Result<Self> {
        Ok(Self {
            ledger,
            index: Index::new(bits)?,
            interest: cells(INTEREST, || Atomic::new(0))?,
            failed: cells(FAILED, || Atomic::new(0))?,
            runs: Atomic::new(0),
            pages: Atomic::new(0),
        })
    }

    /// Runs in the directory.
    pub fn runs(&self) -> u64 {
        count(&self.runs)
    }

    /// Pages in the directory.
    pub fn pages(&self) -> u64 {
        count(&self.pages)
    }

    /// Bytes of memory that the directory takes.
    pub fn bytes(&self) -> u64 {
        // CAST: Sizes fit.
        let fixed = self.index.table_bytes()
            + INTEREST * size_of::<Atomic<u32>>()
            + FAILED * size_of::<Atomic<u64>>();
        fixed as u64 + self.runs() * Index::<Run<K>>::ENTRY_BYTES as u64
    }

    fn interest(&self, mapping: MappingId) -> &Atomic<u32> {
        // CAST: Twelve bits.
        &self.interest[(hash(mapping.number()) >> (u64::BITS - INTEREST.trailing_zeros())) as usize]
    }

    /// The folio of `pages` couldn't be read as a whole: what is known of it ends, and of folios
    /// like it only those that are read in one piece are entered from now on.
    pub fn read_failed(&self, pages: &ReadPages<'_>) {
        // Before the end: whoever enters other pages of the folio and is too late for it sees
        // this.
        let (first, last) = pages.folio_range();
        bits::mark(&self.failed, window_hash(pages.mapping().number(), first));
        self.end_range(pages.mapping(), first..=last, End::Read);
    }

    /// Other pages of the folio of `pages` may have failed to be read.
    pub fn may_be_incomplete(&self, pages: &ReadPages<'_>) -> bool {
        !pages.is_whole_folio() && {
            let folio = window_hash(pages.mapping().number(), pages.folio_range().0);
            bits::marked(&self.failed, folio)
        }
    }

    /// Enters `pages`, the first of which holds page `page` of what `key` stands for.
    ///
    /// What was known of the same pages under another key ends. Any context. Pages beyond the end
    /// of a run are left out, and all of them if there is no memory: a directory may always know
    /// less. Returns how many pages it knows now.
    pub fn enter(&self, key: K, page: u32, pages: &ReadRange<'_>) -> u32 {
        let mask = bits::mask(page, pages.count);
        if mask == 0 {
            return 0;
        }
        let mapping = pages.mapping;
        let base = pages.first.wrapping_sub(u64::from(page));
        let is_it = |run: &Run<K>| run.mapping == mapping && run.base == base && run.key.same(&key);
        let mut known = false;

        let guard = rcu::read_lock();
        let last = pages.first + u64::from(pages.count) - 1;
        for run in self.runs_of(&guard, mapping, pages.first..=last) {
            if is_it(run) {
                known = known || self.set(run, mask);
            } else {
                // Read again, from elsewhere: it was thrown away without having left the cache.
                self.end(run, pages.first..=last, End::Read);
            }
        }
        if known {
            return mask.count_ones();
        }
        if self.has_enough(&guard, &key, mask) {
            return 0;
        }

        // Counted before it can be found, so that an event can't miss it: the folio is locked.
        self.interest(mapping).add(1, Relaxed);
        let run = Run {
            key,
            mapping,
            base,
            bits: PageBits::new(mask),
        };
        let inserted = self
            .index
            .insert_unless(run, GFP_ATOMIC | __GFP_NOWARN, |run| {
                is_it(run) && self.set(run, mask)
            });
        match inserted {
            Ok(true) => {
                self.runs.add(1, Relaxed);
                self.pages.add(u64::from(mask.count_ones()), Relaxed);
            }
            Ok(false) | Err(_) => self.interest(mapping).add(1u32.wrapping_neg(), Relaxed),
        }
        inserted.map_or(0, |_| mask.count_ones())
    }

    /// There are runs enough with the pages of `mask`, or for the key at all.
    ///
    /// One content can be in any number of pages: thousands of page caches, or of files that
    /// share their blocks. Whoever looks for it walks them all.
    fn has_enough(&self, guard: &rcu::Guard, key: &K, mask: u32) -> bool {
        let (mut runs, mut alike) = (0, 0);
        self.index
            .by_forward(guard, key.hash())
            .filter(|run| run.key.same(key))
            .any(|run| {
                runs += 1;
                alike += u32::from(run.bits.pages() & mask == mask);
                runs == MOST_RUNS || alike == MOST_ALIKE
            })
    }

    /// Adds pages to a run; false if it is dead.
    fn set(&self, run: &Run<K>, mask: u32) -> bool {
        let new = run.bits.set(mask);
        if let Some(new) = new {
            self.pages.add(u64::from(new.count_ones()), Relaxed);
        }
        new.is_some()
    }

    /// Runs that may hold pages in `range` of `mapping`, and some that don't.
    fn runs_of<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        mapping: MappingId,
        range: RangeInclusive<u64>,
    ) -> impl Iterator<Item = &'g Entry<Run<K>>> {
        let first = bits::window(*range.start()).wrapping_sub(1);
        let count = bits::window(*range.end()).wrapping_sub(first);
        (0..=count)
            .flat_map(move |step| {
                let window = first.wrapping_add(step);
                let hash = hash_near(mapping.number(), window);
                self.index.by_reverse(guard, hash)
            })
            .filter(move |run| run.mapping == mapping)
    }

    /// Ends what a run knows of the pages in `range`; returns how many it knew.
    fn end(&self, run: &Entry<Run<K>>, range: RangeInclusive<u64>, why: End) -> u32 {
        match bits::overlap(run.base, *range.start(), *range.end()) {
            0 => 0,
            mask => self.clear(run, mask, why),
        }
    }

    fn clear(&self, run: &Entry<Run<K>>, mask: u32, why: End) -> u32 {
        let cleared = run.bits.clear(mask);
        let gone = cleared.pages.count_ones();
        if gone != 0 {
            self.pages.add(u64::from(gone).wrapping_neg(), Relaxed);
            run.key.ended(&self.ledger, why, cleared.pages);
        }
        if cleared.died && self.index.remove(run) {
            self.interest(run.mapping).add(1u32.wrapping_neg(), Relaxed);
            self.runs.add(1u64.wrapping_neg(), Relaxed);
        }
        gone
    }

    /// Ends what is known of the pages in `range` (file indexes) of `mapping`; returns of how many
    /// something was. Any context.
    pub fn end_range(&self, mapping: MappingId, range: RangeInclusive<u64>, why: End) -> u32 {
        if self.interest(mapping).load(Relaxed) == 0 {
            return 0;
        }
        let guard = rcu::read_lock();
        self.runs_of(&guard, mapping, range.clone())
            .map(|run| self.end(run, range.clone(), why))
            .sum()
    }

    /// `folio` leaves the page cache; returns how many of its pages were known. Any context.
    pub fn folio_removed(&self, folio: &EventFolio<'_>) -> u32 {
        if !Guard::RemovalHook.on() {
            return 0;
        }
        let (first, last) = folio.range();
        self.end_range(folio.mapping(), first..=last, End::Removed)
    }

    /// Known pages in `range` (file indexes) of `mapping` are locked by a read, most likely. Any
    /// context.
    pub fn any_being_read(&self, mapping: MappingId, range: RangeInclusive<u64>) -> bool {
        let guard = rcu::read_lock();
        let (first, last) = (*range.start(), *range.end());
        let mut runs = self.runs_of(&guard, mapping, range);
        runs.any(|run| {
            let mask = run.bits.pages() & bits::overlap(run.base, first, last);
            let donor = Donor { run, guard: &guard };
            let being_read = |page| {
                let folio: Option<FolioRef> = donor.folio(page);
                folio.is_some_and(|folio| folio.state().being_read())
            };
            // Reads have many pages: most of a run's are in the same state.
            mask != 0 && (being_read(mask.trailing_zeros()) || being_read(mask.ilog2()))
        })
    }

    /// Ends every run whose key stands for the same content as `key`. Any context.
    pub fn end_content(&self, key: &K) {
        let guard = rcu::read_lock();
        for run in self.index.by_forward(&guard, key.hash()) {
            if run.key.same(key) {
                self.clear(run, u32::MAX, End::Content);
            }
        }
    }

    /// Ends every run that is there all the while and for whose key `ends` is true. Process
    /// context; walks the whole directory.
    pub fn end_where(&self, why: End, ends: impl Fn(&K) -> bool) {
        if self.runs() == 0 {
            return;
        }
        self.index.for_each(|run| {
            if ends(&run.key) {
                self.clear(run, u32::MAX, why);
            }
        });
    }

    /// Calls `visit` for each key that has runs, from place `from` of the directory on and for `places`
    /// of them, until it wants no more; returns the next place, unless that was the last. What comes
    /// and goes meanwhile may be missed. Process context.
    pub fn each_key(
        &self,
        from: usize,
        places: usize,
        mut visit: impl FnMut(Holders<'_, K>) -> bool,
    ) -> Option<usize> {
        self.index.each_chain(from, places, |guard, chain| {
            let mut more = true;
            for (at, run) in chain.clone().enumerate() {
                let mut before = chain.clone().take(at);
                if !before.any(|other| other.key.same(&run.key)) {
                    more &= visit(Holders {
                        chain: chain.clone(),
                        key: &run.key,
                        guard,
                    });
                }
            }
            more
        })
    }

    /// The pages of `key` that somebody has.
    pub fn known(&self, guard: &rcu::Guard, key: K) -> u32 {
        self.donors(guard, key)
            .fold(0, |pages, donor| pages | donor.run.bits.pages())
    }

    /// Runs that hold the content of `key`, the newest first.
    #[inline]
    pub fn donors<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        key: K,
    ) -> impl Iterator<Item = Donor<'g, K>> {
        self.index
            .by_forward(guard, key.hash())
            .filter(move |run| run.key.same(&key))
            .map(move |run| Donor { run, guard })
    }
}

impl<K: Key> FolioEvents for Directory<K> {
    fn removed(&self, folio: EventFolio<'_>) {
        self.folio_removed(&folio);
    }

    fn dirtied(&self, folio: EventFolio<'_>) {
        if Guard::DirtyHook.on() {
            let (first, last) = folio.range();
            self.end_range(folio.mapping(), first..=last, End::Dirtied);
        }
    }
}
