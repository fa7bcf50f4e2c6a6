// SPDX-License-Identifier: GPL-2.0

//! A directory of page-cache pages by the name of their content.
//!
//! The directory says which pages of which page caches have held a content, and the digest that
//! the content's pages had when they came from the disk. It holds no reference on pages or inodes:
//!
//! > A page is in the directory only while it is in the page cache that it is in the directory for.
//!
//! Pages are entered under their folio's lock while they are in the page cache, and taken out when
//! they leave it, under that lock and `i_pages`' ([`crate::pagecache::removal::FolioEvents`]). So a page cache that is named by
//! a record has a page, and its inode lives.
//!
//! Nothing is promised of what a page holds *now*: a copy of it has to be compared with the digest.
//!
//! Pages are kept in runs: [`page_bitmap::PAGES`] consecutive pages of a file that were read from consecutive
//! pages of the content. Adding, finding and ending take no lock unless a run is made or dies; then it
//! is the [index](crate::sync::index)'s two. All runs of a name share its digests, as far as they can: two
//! that are made at the same moment may have digests of their own, which are compared then.

use core::{marker::PhantomData, ops::RangeInclusive, ptr};

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu,
    },
};

use crate::{
    drr::rule::Rule,
    pagecache::content::{Content, ContentRef, Digest, Learned},
    pagecache::folio::{EventFolio, FolioRef, LockedBuffer, MappingId, ReadPages},
    pagecache::page_bitmap::{self, PageBitmap},
    pagecache::page_store::StoredPage,
    sync::cells::cells,
    sync::index::{hash, hash_near, Chain, Entry, Index, Keyed},
    sync::rcu_arc::RcuPtr,
};

/// Why pages left the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum End {
    /// They left the page cache.
    Removed,
    /// They were read anew, from elsewhere.
    Read,
    /// A copy of them didn't have the digest.
    Changed,
    /// The target that entered them is gone.
    Gone,
    /// Their content, read again, had another digest.
    Differed,
    /// Enough others hold the same, and one that came later is known in their place.
    Replaced,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Removed,
        Self::Read,
        Self::Changed,
        Self::Gone,
        Self::Differed,
        Self::Replaced,
    ];
}

/// What names a content of [`page_bitmap::PAGES`] pages.
pub trait Name: Copy + PartialEq + Send + Sync {
    /// Hash of the name.
    fn hash(&self) -> u64;
}

/// Where it is noted down that pages have left the directory.
pub trait Ledger<N>: Send + Sync {
    /// Says whose page cache it is.
    type Holder: Copy + PartialEq + Send + Sync;

    /// Pages of this name, in this holder's page cache, have left the directory, bit *n* for page *n*.
    /// Any context but NMI.
    fn ended(&self, name: &N, holder: &Self::Holder, why: End, pages: u32);
}

/// Consecutive pages of a page cache, in one folio or several.
///
/// # Invariants
///
/// For `'a`, all of them are in the page cache and their folios are locked. The page cache is one whose pages
/// don't leave it without an event.
pub struct CachedPages<'a> {
    mapping: MappingId,
    first: u64,
    count: u32,
    locked: PhantomData<&'a ()>,
}

impl<'a> CachedPages<'a> {
    /// Pages that a read has filled, whose folio the reader has locked.
    pub fn read(pages: &ReadPages<'a>) -> Self {
        // INVARIANT: By that of `ReadPages`.
        Self {
            mapping: pages.mapping(),
            first: pages.first(),
            count: pages.count(),
            locked: PhantomData,
        }
    }

    /// A page of a block device's, whose folio we have locked.
    pub fn buffer(page: &'a LockedBuffer) -> Self {
        // INVARIANT: The folio is locked, and in the page cache.
        Self {
            mapping: page.mapping(),
            first: page.index(),
            count: 1,
            locked: PhantomData,
        }
    }

    /// A page that has just been stored.
    pub fn stored(page: &'a StoredPage<'_>) -> Self {
        // INVARIANT: The folio is locked, and in the page cache.
        Self {
            mapping: page.mapping(),
            first: page.index(),
            count: 1,
            locked: PhantomData,
        }
    }

    /// Takes in `next` too if it follows in the page cache; returns whether so.
    pub fn extend(&mut self, next: &Self) -> bool {
        // RANGE: File indexes have 52 bits.
        let follows =
            next.mapping == self.mapping && next.first == self.first + u64::from(self.count);
        if follows {
            // INVARIANT: Holds for both.
            // RANGE: Pages of one read.
            self.count += next.count;
        }
        follows
    }

    /// Number of pages.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Consecutive pages of a page cache that were read from consecutive pages of a content.
///
/// # Invariants
///
/// The reference in `content` is counted until the run is removed from the index.
pub struct CachedExtent<N, H> {
    content: RcuPtr<Content<N>>,
    mapping: MappingId,
    /// File index of the page that holds, or would hold, the content's first page; wraps.
    base: u64,
    bits: PageBitmap,
    holder: H,
    hash: u32,
}

impl<N: Name, H: Copy + Send + Sync> Keyed for CachedExtent<N, H> {
    /// The index is large where memory is, but a hash of half the bits does for it.
    fn forward(&self) -> u64 {
        widen(self.hash)
    }

    /// Files are read and dropped in order.
    fn reverse(&self) -> u64 {
        hash_near(self.mapping.hash_key(), page_bitmap::window(self.base))
    }
}

/// Half of a name's hash: what chooses a bucket is the upper bits, and the lowest three.
fn half(hash: u64) -> u32 {
    // CAST: Cut off on purpose.
    (hash >> u32::BITS) as u32 & !7 | hash as u32 & 7
}

/// A hash that chooses the same bucket as the one that [`half`] was made of.
fn widen(half: u32) -> u64 {
    // RANGE: The shift is of 32 bits in 64.
    u64::from(half) << u32::BITS | u64::from(half & 7)
}

/// A run as a reader of the directory sees it.
pub struct Donor<'g, N, H> {
    run: &'g Entry<CachedExtent<N, H>>,
    guard: &'g rcu::Guard,
}

impl<N, H> Clone for Donor<'_, N, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N, H> Copy for Donor<'_, N, H> {}

impl<'g, N: Name, H: Copy + Send + Sync> Donor<'g, N, H> {
    fn content(&self) -> &'g Content<N> {
        content_of(self.run, self.guard)
    }

    /// The name of the content.
    pub fn name(&self) -> &'g N {
        self.content().name()
    }

    /// Whose page cache it is.
    pub fn holder(&self) -> H {
        self.run.holder
    }

    /// The page cache that holds it.
    pub fn mapping(&self) -> MappingId {
        self.run.mapping
    }

    /// File index of the content's page `page`.
    pub fn index(&self, page: u32) -> u64 {
        self.run.base.wrapping_add(u64::from(page))
    }

    /// How many pages from `page` on are in the directory right now.
    #[inline]
    pub fn pages_from(&self, page: u32) -> u32 {
        self.pages()
            .checked_shr(page)
            .map_or(0, |pages| pages.trailing_ones())
    }

    /// The pages that are in the directory right now, bit *n* for page *n*.
    #[inline]
    pub fn pages(&self) -> u32 {
        self.run.bits.pages()
    }

    /// Those of the run's pages, bit *n* for page *n*, that are between two file indexes.
    pub fn pages_between(&self, first: u64, last: u64) -> u32 {
        page_bitmap::overlap(self.run.base, first, last)
    }

    /// The digest that a copy of page `page` must have.
    #[inline]
    pub fn digest(&self, page: u32) -> Option<Digest> {
        self.content().digest(page)
    }

    /// Takes a reference to the folio that holds page `page`.
    #[inline]
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

/// The content of a run that was found under `guard`.
#[inline]
fn content_of<'g, N: Name, H: Copy + Send + Sync>(
    run: &'g CachedExtent<N, H>,
    guard: &'g rcu::Guard,
) -> &'g Content<N> {
    // SAFETY: The run was found by the index, so it was linked at some time since the guard was taken, and
    // its reference wasn't released before.
    unsafe { run.content.get(guard) }
}

/// All runs of one name.
pub struct Holders<'g, N, H> {
    chain: Chain<'g, CachedExtent<N, H>>,
    name: &'g N,
    guard: &'g rcu::Guard,
}

impl<'g, N: Name, H: Copy + Send + Sync> Holders<'g, N, H> {
    /// The name.
    pub fn name(&self) -> &'g N {
        self.name
    }

    /// The runs, the newest first.
    pub fn donors(&self) -> impl Iterator<Item = Donor<'g, N, H>> + use<'_, 'g, N, H> {
        let (guard, name) = (self.guard, self.name);
        let runs = self.chain.clone();
        runs.map(move |run| Donor { run, guard })
            .filter(move |donor| donor.name() == name)
    }
}

const INTEREST: usize = 4096;

/// Runs of one name that are known at the same time, about.
const MOST_EXTENTS: u32 = 256;
/// Of these, runs with the same pages.
///
/// Thousands may hold the same pages, and nothing is known of most of them. So that some holder is known whoever lets
/// go, half of the runs that are known are those that came first, and half are of those that came last, of which
/// [one in a few](LATER_ONE_IN) is taken: those that stay long are among the first, those that go soon have come last.
const MOST_ALIKE: u32 = 16;
/// When there are enough, a later one in so many takes the place of another.
const LATER_ONE_IN: u64 = 8;
/// And with the same pages of one holder: a file system may have any number of files that share their blocks, and
/// must not take the room of others.
const MOST_OF_A_HOLDER: u32 = 4;

/// Runs of a name: all, those with the same pages, and those of one holder among these.
#[derive(Default)]
struct Crowd {
    runs: u32,
    alike: u32,
    own: u32,
}

impl Crowd {
    /// No further run is to be made.
    fn is_enough(&self) -> bool {
        self.runs == MOST_EXTENTS || self.alike == MOST_ALIKE || self.own == MOST_OF_A_HOLDER
    }

    /// Unless it takes the place of another.
    fn may_change(&self) -> bool {
        self.alike == MOST_ALIKE && self.own < MOST_OF_A_HOLDER
    }
}

/// Whether a run of that page cache is the one in [`LATER_ONE_IN`].
fn is_drawn(mapping: MappingId, base: u64) -> bool {
    hash(mapping.hash_key() ^ hash(base)) % LATER_ONE_IN == 0
}

/// Reads a counter that is below zero for a moment when something is ended by one CPU before
/// another has counted it.
fn count(counter: &Atomic<u64>) -> u64 {
    // CAST: The sign is what matters.
    (counter.load(Relaxed) as i64).max(0) as u64
}

/// What became of pages that were to be entered, bit *n* for page *n* of the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entered {
    /// They are in the directory now.
    pub pages: u32,
    /// Their digest was known, and compared.
    pub compared: u32,
    /// And was another: nothing is recorded for these pages of the content any more.
    pub differed: u32,
}

/// See the [module](self).
pub struct Directory<N: Name, L: Ledger<N>> {
    index: Index<CachedExtent<N, L::Holder>>,
    /// Runs by hashed mapping: page caches that have none are passed over at the cost of a load.
    interest: KVVec<Atomic<u32>>,
    runs: Atomic<u64>,
    contents: Atomic<u64>,
    pages: Atomic<u64>,
    /// Bytes that runs and contents may take.
    most_bytes: u64,
    ledger: L,
}

impl<N: Name, L: Ledger<N>> Directory<N, L> {
    const RUN_BYTES: u64 = Index::<CachedExtent<N, L::Holder>>::ENTRY_BYTES as u64;
    const CONTENT_BYTES: u64 = ContentRef::<N>::BYTES;

    /// Makes a directory with 2^`bits` buckets for runs, which stays below `most_bytes` without these.
    /// Fails with `ENOMEM`.
    pub fn new(bits: u32, most_bytes: u64, ledger: L) -> Result<Self> {
        Ok(Self {
            ledger,
            index: Index::new(bits)?,
            interest: cells(INTEREST, || Atomic::new(0))?,
            runs: Atomic::new(0),
            contents: Atomic::new(0),
            pages: Atomic::new(0),
            most_bytes,
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

    /// Bytes of memory that the runs and their contents take.
    fn record_bytes(&self) -> u64 {
        // RANGE: A size in memory.
        self.runs() * Self::RUN_BYTES + count(&self.contents) * Self::CONTENT_BYTES
    }

    /// Bytes of memory that the directory takes.
    // RANGE: Sizes in memory.
    pub fn bytes(&self) -> u64 {
        let fixed = self.index.table_bytes() + INTEREST * size_of::<Atomic<u32>>();
        fixed as u64 + self.record_bytes()
    }

    fn interest(&self, mapping: MappingId) -> &Atomic<u32> {
        // CAST: Twelve bits.
        &self.interest
            [(hash(mapping.hash_key()) >> (u64::BITS - INTEREST.trailing_zeros())) as usize]
    }

    /// Enters pages that came from the disk: the first of `pages` holds page `page` of what `name` names,
    /// and `digests` has the digest of each.
    ///
    /// What is known of the same pages of the page cache under another name ends. Digests are compared with
    /// those that the name has. Any context. Pages beyond the end of a run are left out. Nor are
    /// pages entered if there is no memory, or if enough page caches are known to have them.
    pub fn enter(
        &self,
        name: N,
        holder: L::Holder,
        page: u32,
        pages: &CachedPages<'_>,
        digests: &[Digest],
    ) -> Entered {
        let mask = page_bitmap::mask(page, pages.count);
        let guard = rcu::read_lock();
        let mut content = self.find_content(&guard, name);
        if content.get().is_none() && self.has_room() {
            content = ContentRef::make(name, &self.contents);
        }
        let mut entered = Entered::default();
        if let Some(content) = content.get() {
            entered = self.learn(&guard, content, page, digests);
        }
        let fresh = mask & !entered.differed & content.get().map_or(0, Content::known);
        let (known, differed) = self.insert(&guard, content, holder, page, pages, fresh);
        entered.pages = known;
        entered.compared |= differed;
        entered.differed |= differed;
        entered
    }

    /// Enters pages whose content was copied from pages of the directory, and proven: the digests are
    /// those that the name has.
    ///
    /// Returns the pages that are known now. Otherwise as [`Self::enter`].
    pub fn inherit(&self, name: N, holder: L::Holder, page: u32, pages: &CachedPages<'_>) -> u32 {
        let guard = rcu::read_lock();
        let content = self.find_content(&guard, name);
        let mask = page_bitmap::mask(page, pages.count) & content.get().map_or(0, Content::known);
        let (known, _) = self.insert(&guard, content, holder, page, pages, mask);
        known
    }

    /// Compares digests of pages from `page` on, which came from the disk, with those that the name has,
    /// and enters nothing. Any context.
    pub fn compare(&self, name: N, page: u32, digests: &[Digest]) -> Entered {
        let guard = rcu::read_lock();
        let content = self.find_content(&guard, name);
        let mut all = Entered::default();
        let Some(content) = content.get() else {
            return all;
        };
        for (at, digest) in (page..).zip(digests) {
            if content.digest(at).is_some() {
                let one = self.learn(&guard, content, at, core::slice::from_ref(digest));
                all.compared |= one.compared;
                all.differed |= one.differed;
            }
        }
        all
    }

    /// Whether anything can be entered; if not, what is known can be compared still.
    pub fn has_room(&self) -> bool {
        self.record_bytes() < self.most_bytes
    }

    /// What a run of that name knows of it.
    fn find_content(&self, guard: &rcu::Guard, name: N) -> ContentRef<'_, N> {
        let content = self
            .donors(guard, name)
            // SAFETY: As in `content_of`.
            .find_map(|donor| unsafe { donor.run.content.try_ref(guard) });
        ContentRef::new(content, &self.contents)
    }

    /// Compares digests, from page `page` on, with what is known, or adds them to it. Pages that differ
    /// lose all that is known of them.
    fn learn(
        &self,
        guard: &rcu::Guard,
        content: &Content<N>,
        page: u32,
        digests: &[Digest],
    ) -> Entered {
        let mut entered = Entered::default();
        for (at, digest) in (page..page_bitmap::PAGES).zip(digests) {
            // RANGE: Less than a mask's bits.
            let page = 1 << at;
            match content.learn(at, *digest) {
                Learned::First => continue,
                Learned::Same => entered.compared |= page,
                Learned::Other => {
                    entered.compared |= page;
                    entered.differed |= page;
                }
                Learned::Spoilt => entered.differed |= page,
            }
        }
        self.disagree(guard, content, entered.differed);
        entered
    }

    /// Ends all that is known of pages that have two digests.
    fn disagree(&self, guard: &rcu::Guard, content: &Content<N>, pages: u32) {
        if pages == 0 {
            return;
        }
        content.spoil(pages);
        for donor in self.donors(guard, *content.name()) {
            donor.content().spoil(pages);
            self.clear(donor.run, guard, pages, End::Differed);
        }
    }

    /// Has the contents of a name agree, when pages have been entered with one of them. Returns the pages on which they
    /// don't, and of which nothing is known any more.
    ///
    /// Of two that enter a name at the same time each may have made a content. Then the one whose run is linked later
    /// finds the other's here. And if a page is found to differ meanwhile, either its mark is seen here, or
    /// the CPU that marks it finds the run.
    fn settle(&self, guard: &rcu::Guard, content: &Content<N>, pages: u32) -> u32 {
        let mut differ = 0;
        for other in self
            .donors(guard, *content.name())
            .map(|donor| donor.content())
        {
            if !ptr::eq(other, content) {
                differ |= content.tell(other, pages);
            }
        }
        differ |= content.spoilt(pages);
        self.disagree(guard, content, differ);
        differ
    }

    /// Enters the pages of `mask`, and returns which of them are known now, and which were found to differ;
    /// ends what is known of `pages` under other names.
    fn insert(
        &self,
        guard: &rcu::Guard,
        content: ContentRef<'_, N>,
        holder: L::Holder,
        page: u32,
        pages: &CachedPages<'_>,
        mask: u32,
    ) -> (u32, u32) {
        let settle = |content: &Content<N>, known: u32| {
            let differed = self.settle(guard, content, known);
            (known & !differed, differed)
        };
        let mapping = pages.mapping;
        let base = pages.first.wrapping_sub(u64::from(page));
        // RANGE: There is a page at least, and file indexes have 52 bits.
        let last = pages.first + u64::from(pages.count) - 1;
        let name = content.get().map(|content| *content.name());
        let is_it = |run: &CachedExtent<N, L::Holder>| {
            run.mapping == mapping
                && run.base == base
                && Some(*content_of(run, guard).name()) == name
        };
        let mut known = 0;
        for run in self.runs_of(guard, mapping, pages.first..=last) {
            if is_it(run) {
                known |= self.add(run, guard, holder, mask);
            } else {
                // Read again, from elsewhere: it was thrown away without having left the cache.
                self.end(run, guard, pages.first..=last, End::Read);
            }
        }
        if let Some(content) = content.get().filter(|_| known != 0) {
            return settle(content, known);
        }
        let Some((pointer, name)) = content.ptr().zip(name) else {
            return (0, 0);
        };
        if mask == 0 || !self.has_room() {
            return (0, 0);
        }
        let crowd = self.crowd(guard, name, holder, mask);
        if crowd.is_enough() && !(crowd.may_change() && is_drawn(mapping, base)) {
            return (0, 0);
        }
        if crowd.is_enough() {
            self.replace(guard, name, mask);
        }
        // SAFETY: The reference is ours until the run is in the index.
        let shared = unsafe { pointer.get(guard) };

        // Counted before it can be found, so that an event can't miss it: the folio is locked.
        self.interest(mapping).add(1, Relaxed);
        let run = CachedExtent {
            content: pointer,
            mapping,
            base,
            bits: PageBitmap::new(mask),
            holder,
            hash: half(name.hash()),
        };
        let inserted = self
            .index
            .insert_unless(run, GFP_ATOMIC | __GFP_NOWARN, |run| {
                is_it(run) && self.set(run, mask)
            });
        match inserted {
            Ok(true) => {
                // INVARIANT: The reference is the run's now.
                content.hand_over();
                self.runs.add(1, Relaxed);
                self.pages.add(u64::from(mask.count_ones()), Relaxed);
            }
            Ok(false) | Err(_) => self.interest(mapping).add(1u32.wrapping_neg(), Relaxed),
        }
        inserted.map_or((0, 0), |_| settle(shared, mask))
    }

    /// Counts the runs of a name, and those with the pages of `mask`, until there are enough.
    ///
    /// One content can be in any number of pages: thousands of page caches, or of files that
    /// share their blocks. A search for it walks them all.
    // RANGE: None of the three gets further than `MOST_EXTENTS`.
    fn crowd(&self, guard: &rcu::Guard, name: N, holder: L::Holder, mask: u32) -> Crowd {
        let mut crowd = Crowd::default();
        for donor in self.donors(guard, name) {
            let same = u32::from(donor.pages() & mask == mask);
            crowd.runs += 1;
            crowd.alike += same;
            crowd.own += same * u32::from(donor.holder() == holder);
            if crowd.is_enough() {
                break;
            }
        }
        crowd
    }

    /// Of the runs with the pages of `mask`, ends one: the oldest of those that came last.
    fn replace(&self, guard: &rcu::Guard, name: N, mask: u32) {
        let mut alike = self
            .donors(guard, name)
            .filter(|donor| donor.pages() & mask == mask);
        // CAST: A small number.
        // RANGE: Half of it is one at least.
        if let Some(donor) = alike.nth(MOST_ALIKE as usize / 2 - 1) {
            self.clear(donor.run, guard, mask, End::Replaced);
        }
    }

    /// Adds pages to a run, unless there are enough with those that it hasn't got; returns which of them it has.
    fn add(
        &self,
        run: &CachedExtent<N, L::Holder>,
        guard: &rcu::Guard,
        holder: L::Holder,
        mask: u32,
    ) -> u32 {
        let new = mask & !run.bits.pages();
        let name = *content_of(run, guard).name();
        if new == 0 || self.crowd(guard, name, holder, new).is_enough() {
            return mask & run.bits.pages();
        }
        match self.set(run, mask) {
            true => mask,
            false => 0,
        }
    }

    /// Adds pages to a run; false if it is dead.
    fn set(&self, run: &CachedExtent<N, L::Holder>, mask: u32) -> bool {
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
    ) -> impl Iterator<Item = &'g Entry<CachedExtent<N, L::Holder>>> {
        let first = page_bitmap::window(*range.start()).wrapping_sub(1);
        let count = page_bitmap::window(*range.end()).wrapping_sub(first);
        (0..=count)
            .flat_map(move |step| {
                let window = first.wrapping_add(step);
                let hash = hash_near(mapping.hash_key(), window);
                self.index.by_reverse(guard, hash)
            })
            .filter(move |run| run.mapping == mapping)
    }

    /// Ends what a run knows of the pages in `range`; returns how many it knew.
    fn end(
        &self,
        run: &Entry<CachedExtent<N, L::Holder>>,
        guard: &rcu::Guard,
        range: RangeInclusive<u64>,
        why: End,
    ) -> u32 {
        match page_bitmap::overlap(run.base, *range.start(), *range.end()) {
            0 => 0,
            mask => self.clear(run, guard, mask, why),
        }
    }

    fn clear(
        &self,
        run: &Entry<CachedExtent<N, L::Holder>>,
        guard: &rcu::Guard,
        mask: u32,
        why: End,
    ) -> u32 {
        let cleared = run.bits.clear(mask);
        let gone = cleared.pages.count_ones();
        if gone != 0 {
            self.pages.add(u64::from(gone).wrapping_neg(), Relaxed);
            let name = content_of(run, guard).name();
            self.ledger.ended(name, &run.holder, why, cleared.pages);
        }
        if cleared.died && self.index.remove(run) {
            self.interest(run.mapping).add(1u32.wrapping_neg(), Relaxed);
            self.runs.add(1u64.wrapping_neg(), Relaxed);
            // SAFETY: The run was removed just now, which is done once.
            let content = unsafe { run.content.release() };
            drop(ContentRef::new(Some(content), &self.contents));
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
            .map(|run| self.end(run, &guard, range.clone(), why))
            .sum()
    }

    /// `folio` leaves the page cache; returns how many of its pages were known. Any context.
    pub fn folio_removed(&self, folio: &EventFolio<'_>) -> u32 {
        if !Rule::RemovalHook.on() {
            return 0;
        }
        let (first, last) = folio.range();
        self.end_range(folio.mapping(), first..=last, End::Removed)
    }

    /// Ends what is known of page `page` of a donor, since a copy of it didn't have the digest. Any context.
    pub fn end_changed(&self, donor: &Donor<'_, N, L::Holder>, page: u32) {
        self.clear(
            donor.run,
            donor.guard,
            page_bitmap::mask(page, 1),
            End::Changed,
        );
    }

    /// Ends every run that is there all the while and of which `ends` is true. Process context; walks the
    /// whole directory.
    pub fn end_where(&self, why: End, ends: impl Fn(&L::Holder) -> bool) {
        if self.runs() == 0 {
            return;
        }
        self.index.each_chain(0, usize::MAX, |guard, chain| {
            for run in chain {
                if ends(&run.holder) {
                    self.clear(run, guard, u32::MAX, why);
                }
            }
            true
        });
    }

    /// Calls `visit` for each name that has runs, from place `from` of the directory on and for `places`
    /// of them, until it wants no more; returns the next place, unless that was the last. What comes
    /// and goes meanwhile may be missed. Process context.
    pub fn each_name(
        &self,
        from: usize,
        places: usize,
        mut visit: impl FnMut(Holders<'_, N, L::Holder>) -> bool,
    ) -> Option<usize> {
        self.index.each_chain(from, places, |guard, chain| {
            let mut more = true;
            for (at, run) in chain.clone().enumerate() {
                let name = content_of(run, guard).name();
                let mut before = chain.clone().take(at);
                if !before.any(|other| content_of(other, guard).name() == name) {
                    more &= visit(Holders {
                        chain: chain.clone(),
                        name,
                        guard,
                    });
                }
            }
            more
        })
    }

    /// The pages of a content that are in any page cache.
    pub fn pages_of(&self, guard: &rcu::Guard, name: N) -> u32 {
        self.donors(guard, name)
            .fold(0, |pages, donor| pages | donor.pages())
    }

    /// Runs that hold the content that `name` names, the newest first.
    #[inline]
    pub fn donors<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        name: N,
    ) -> impl Iterator<Item = Donor<'g, N, L::Holder>> {
        let hash = name.hash();
        self.index
            .by_forward(guard, hash)
            .filter(move |run| run.hash == half(hash))
            .map(move |run| Donor { run, guard })
            .filter(move |donor| *donor.name() == name)
    }
}

impl<N: Name, L: Ledger<N>> Drop for Directory<N, L> {
    fn drop(&mut self) {
        self.end_where(End::Gone, |_| true);
    }
}
