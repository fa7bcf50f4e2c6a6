// SPDX-License-Identifier: GPL-2.0

//! A directory of page-cache pages by the name of their content.
//!
//! The directory records which pages of which page caches have held a content, and the digests that
//! the pages of the content had when they came from the disk. It holds no references on pages or
//! inodes:
//!
//! > A page is in the directory only while it is in the page cache that the directory names for it.
//!
//! Pages are entered under their folio's lock while they are in the page cache, and removed when
//! they leave it, under the folio's lock and `i_pages`' lock
//! ([`crate::pagecache::removal::FolioEvents`]). So a page cache that a record names has a page,
//! and its inode is alive.
//!
//! The directory does not tell what a page holds *now*: a copy has to be compared with the digest.
//!
//! Pages are kept in extents: up to [`page_bitmap::PAGES`] consecutive pages of a file that were
//! read from consecutive pages of a content. Adding, finding and ending pages takes no lock, unless
//! an extent is created or dies: then it takes the two locks of the [index](crate::sync::index).
//! All extents of a name share its digests as far as possible. Two that are created at the same
//! moment may have separate digests, which are compared then.

use core::{ops::RangeInclusive, ptr};

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
    pagecache::cached_extent::{content_of, half, CachedExtent, Donor, Holders},
    pagecache::cached_pages::CachedPages,
    pagecache::content::{Content, ContentRef, Digest, Learned, Name},
    pagecache::crowd::{Crowd, Draws, MOST_ALIKE, MOST_EXTENTS},
    pagecache::folio::{EventFolio, MappingId},
    pagecache::page_bitmap::{self, PageBitmap},
    sync::cells::cells,
    sync::index::{hash, hash_near, slot, Entry, Index},
};

/// Why pages have left the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum End {
    /// The pages have left the page cache.
    Removed,
    /// The pages were read again, from elsewhere.
    Read,
    /// A copy of the pages did not have the digest.
    Changed,
    /// The target that entered the pages is gone.
    Gone,
    /// The content of the pages was read again and had another digest.
    Differed,
    /// Enough other page caches hold the same pages, and a later one is recorded instead.
    Replaced,
}

impl End {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Removed,
        Self::Read,
        Self::Changed,
        Self::Gone,
        Self::Differed,
        Self::Replaced,
    ];
}

/// A receiver of the pages that have left the directory.
///
/// # Examples
///
/// A ledger that counts pages by reason.
///
/// ```ignore
/// struct Reasons([Atomic<u64>; End::ALL.len()]);
///
/// impl Ledger<BlockName> for Reasons {
///     type Holder = u32;
///
///     fn ended(&self, _name: &BlockName, _holder: &u32, why: End, pages: u32) {
///         self.0[why as usize].add(pages.count_ones().into(), Relaxed);
///     }
/// }
/// ```
pub trait Ledger<N>: Send + Sync {
    /// Identifies the owner of a page cache.
    type Holder: Copy + PartialEq + Send + Sync;

    /// Called when pages of the content `name` in the page cache of `holder` have left the
    /// directory, bit *n* for page *n*. Any context but NMI.
    fn ended(&self, name: &N, holder: &Self::Holder, why: End, pages: u32);
}

/// Counters of extents by hashed page cache, 16 KiB. Unless thousands of files have extents, most
/// other page caches have a counter of zero.
const INTEREST: usize = 4096;

/// Reads a counter. It is negative for a moment if one CPU ends an object before another CPU has
/// counted it.
fn count(counter: &Atomic<u64>) -> u64 {
    // CAST: The sign matters.
    (counter.load(Relaxed) as i64).max(0) as u64
}

/// What became of pages that were to be entered, bit *n* for page *n* of the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entered {
    /// Pages that are in the directory now.
    pub pages: u32,
    /// Pages whose digest was known and was compared.
    pub compared: u32,
    /// Pages whose digest differed. Nothing is recorded for these pages of the content any more.
    pub differed: u32,
}

/// A directory of page-cache pages; see the [module](self).
///
/// # Examples
///
/// Enters the pages that a read has filled, from page `page` of the content `name` on, and serves
/// another read of that page. `copy` returns whether its copy had the digest, or `None` if it
/// couldn't copy the page.
///
/// ```ignore
/// self.directory.enter(name, holder, page, &CachedPages::read(&pages), &digests);
///
/// let guard = rcu::read_lock();
/// for donor in self.directory.donors(&guard, name) {
///     match self.copy(&donor, page) {
///         Some(true) => break,
///         Some(false) => self.directory.end_changed(&donor, page),
///         None => {}
///     }
/// }
/// ```
pub struct Directory<N: Name, L: Ledger<N>> {
    index: Index<CachedExtent<N, L::Holder>>,
    /// Number of extents by hash of the mapping. Page caches without extents are skipped at the
    /// cost of a load.
    interest: KVVec<Atomic<u32>>,
    extents: Atomic<u64>,
    contents: Atomic<u64>,
    pages: Atomic<u64>,
    draws: Draws,
    /// Most bytes that extents and contents may take.
    most_bytes: u64,
    ledger: L,
}

impl<N: Name, L: Ledger<N>> Directory<N, L> {
    const RUN_BYTES: u64 = Index::<CachedExtent<N, L::Holder>>::ENTRY_BYTES as u64;
    const CONTENT_BYTES: u64 = ContentRef::<N>::BYTES;

    /// Creates a directory with 2^`bits` buckets, whose extents and contents take at most about
    /// `most_bytes` bytes. Process context. Fails with `ENOMEM`.
    ///
    /// # Panics
    ///
    /// As [`Index::new`].
    pub fn new(bits: u32, most_bytes: u64, ledger: L) -> Result<Self> {
        Ok(Self {
            ledger,
            index: Index::new(bits)?,
            interest: cells(INTEREST, || Atomic::new(0))?,
            extents: Atomic::new(0),
            contents: Atomic::new(0),
            pages: Atomic::new(0),
            draws: Draws::new(),
            most_bytes,
        })
    }

    /// Returns the number of extents in the directory.
    pub fn extents(&self) -> u64 {
        count(&self.extents)
    }

    /// Returns the number of pages in the directory.
    pub fn pages(&self) -> u64 {
        count(&self.pages)
    }

    /// Returns the bytes of memory that the extents and their contents take.
    fn record_bytes(&self) -> u64 {
        // RANGE: A size in memory.
        self.extents() * Self::RUN_BYTES + count(&self.contents) * Self::CONTENT_BYTES
    }

    /// Returns the bytes of memory that the directory takes.
    // RANGE: Sizes in memory.
    pub fn bytes(&self) -> u64 {
        let fixed = self.index.table_bytes() + INTEREST * size_of::<Atomic<u32>>();
        fixed as u64 + self.record_bytes()
    }

    fn interest(&self, mapping: MappingId) -> &Atomic<u32> {
        &self.interest[slot(hash(mapping.hash_key()), INTEREST)]
    }

    /// Enters pages that came from the disk. The first of `pages` holds page `page` of the content
    /// `name`, and `digests` has the digest of each.
    ///
    /// Ends what is known about the same pages of the page cache under other names, and compares
    /// the digests with those of the name. Leaves out pages beyond the end of an extent. Enters no
    /// pages if there is no memory, or if enough page caches are known to have them. Any context.
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

    /// Enters pages that were copied from pages of the directory and proven, so their digests are
    /// those of the name.
    ///
    /// Returns the pages that are in the directory now. Otherwise as [`Self::enter`].
    pub fn inherit(&self, name: N, holder: L::Holder, page: u32, pages: &CachedPages<'_>) -> u32 {
        let guard = rcu::read_lock();
        let content = self.find_content(&guard, name);
        let mask = page_bitmap::mask(page, pages.count) & content.get().map_or(0, Content::known);
        let (known, _) = self.insert(&guard, content, holder, page, pages, mask);
        known
    }

    /// Compares the digests of pages from `page` on, which came from the disk, with those of the
    /// name, and enters nothing. Any context.
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

    /// Returns whether pages can be entered. If not, digests can still be compared.
    pub fn has_room(&self) -> bool {
        self.record_bytes() < self.most_bytes
    }

    /// Returns the content of some extent of the name.
    fn find_content(&self, guard: &rcu::Guard, name: N) -> ContentRef<'_, N> {
        let content = self
            .donors(guard, name)
            // SAFETY: As in `content_of`.
            .find_map(|donor| unsafe { donor.extent.content.try_ref(guard) });
        ContentRef::new(content, &self.contents)
    }

    /// Compares digests from page `page` on with the known ones, or adds them. Ends all that is
    /// known about pages whose digests differ.
    fn learn(
        &self,
        guard: &rcu::Guard,
        content: &Content<N>,
        page: u32,
        digests: &[Digest],
    ) -> Entered {
        let mut entered = Entered::default();
        for (at, digest) in (page..page_bitmap::PAGES).zip(digests) {
            // RANGE: Less than the bits of a mask.
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

    /// Ends all that is known about pages that have two digests.
    fn disagree(&self, guard: &rcu::Guard, content: &Content<N>, pages: u32) {
        if pages == 0 {
            return;
        }
        content.spoil(pages);
        for donor in self.donors(guard, *content.name()) {
            donor.content().spoil(pages);
            self.clear(donor.extent, guard, pages, End::Differed);
        }
    }

    /// Makes the contents of one name agree after pages were entered with `content`. Returns the
    /// pages on which they differ, about which nothing is known any more.
    ///
    /// Two CPUs that enter a name at the same time may each have created a content. Then the one
    /// whose extent is linked later finds the other content here. If a page is found to differ
    /// meanwhile, either its mark is seen here, or the CPU that marks the page finds the extent.
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

    /// Enters the pages of `mask`, and ends what is known about `pages` under other names. Returns
    /// the pages that are in the directory now, and those whose digests differ.
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
        // RANGE: There is at least one page, and file indexes have 52 bits.
        let last = pages.first + u64::from(pages.count) - 1;
        let name = content.get().map(|content| *content.name());
        let is_it = |extent: &CachedExtent<N, L::Holder>| {
            extent.mapping == mapping
                && extent.base == base
                && Some(*content_of(extent, guard).name()) == name
        };
        let mut known = 0;
        for extent in self.extents_of(guard, mapping, pages.first..=last) {
            if is_it(extent) {
                known |= self.add(extent, guard, holder, mask);
            } else {
                // Read again, from elsewhere: the page was discarded without having left the page
                // cache.
                self.end(extent, guard, pages.first..=last, End::Read);
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
        if crowd.is_enough() {
            let may_replace = crowd.may_change() && self.draws.is_drawn(mapping, base);
            if !may_replace || !self.replace(guard, name, mask) {
                return (0, 0);
            }
        }
        // SAFETY: The reference is ours until the extent is in the index.
        let shared = unsafe { pointer.get(guard) };

        // Counted before it can be found, so that no event misses the extent: the folio is locked.
        self.interest(mapping).add(1, Relaxed);
        let extent = CachedExtent {
            content: pointer,
            mapping,
            base,
            bits: PageBitmap::new(mask),
            holder,
            hash: half(name.hash()),
        };
        let inserted = self
            .index
            .insert_unless(extent, GFP_ATOMIC | __GFP_NOWARN, |extent| {
                is_it(extent) && self.set(extent, mask)
            });
        match inserted {
            Ok(true) => {
                // INVARIANT: The extent holds the reference now.
                content.hand_over();
                self.extents.add(1, Relaxed);
                self.pages.add(u64::from(mask.count_ones()), Relaxed);
            }
            Ok(false) | Err(_) => self.interest(mapping).add(1u32.wrapping_neg(), Relaxed),
        }
        inserted.map_or((0, 0), |_| settle(shared, mask))
    }

    /// Counts the extents of a name, and those with the pages of `mask`, until there are enough.
    ///
    /// A content may be in any number of page caches, or of files that share their blocks. A search
    /// walks all extents of its name.
    // RANGE: No counter exceeds `MOST_EXTENTS`.
    fn crowd(&self, guard: &rcu::Guard, name: N, holder: L::Holder, mask: u32) -> Crowd {
        let mut crowd = Crowd::default();
        for donor in self.donors(guard, name) {
            let same = u32::from(donor.pages() & mask == mask);
            crowd.extents += 1;
            crowd.alike += same;
            crowd.own += same * u32::from(donor.holder() == holder);
            if crowd.is_enough() {
                break;
            }
        }
        crowd
    }

    /// Ends the pages of `mask` in one of the extents that have all of them: the oldest of the
    /// newer half. Returns whether another extent may be created: the one that loses pages may keep
    /// others, so not if the name has [`MOST_EXTENTS`].
    fn replace(&self, guard: &rcu::Guard, name: N, mask: u32) -> bool {
        // CAST: A small number.
        // RANGE: At least 1.
        if self
            .donors(guard, name)
            .nth(MOST_EXTENTS as usize - 1)
            .is_some()
        {
            return false;
        }
        let mut alike = self
            .donors(guard, name)
            .filter(|donor| donor.pages() & mask == mask);
        // CAST: A small number.
        // RANGE: Half of it is at least 1.
        if let Some(donor) = alike.nth(MOST_ALIKE as usize / 2 - 1) {
            self.clear(donor.extent, guard, mask, End::Replaced);
        }
        true
    }

    /// Adds pages to an extent, unless enough extents have those that it lacks. Returns the pages
    /// of `mask` that it has now.
    fn add(
        &self,
        extent: &CachedExtent<N, L::Holder>,
        guard: &rcu::Guard,
        holder: L::Holder,
        mask: u32,
    ) -> u32 {
        let new = mask & !extent.bits.pages();
        let name = *content_of(extent, guard).name();
        if new == 0 || self.crowd(guard, name, holder, new).is_enough() {
            return mask & extent.bits.pages();
        }
        match self.set(extent, mask) {
            true => mask,
            false => 0,
        }
    }

    /// Adds pages to an extent. Returns false if it is dead.
    fn set(&self, extent: &CachedExtent<N, L::Holder>, mask: u32) -> bool {
        let new = extent.bits.set(mask);
        if let Some(new) = new {
            self.pages.add(u64::from(new.count_ones()), Relaxed);
        }
        new.is_some()
    }

    /// Iterates over extents of `mapping`: all that may hold pages in `range`, and some that do
    /// not.
    fn extents_of<'g>(
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
            .filter(move |extent| extent.mapping == mapping)
    }

    /// Ends the pages of an extent that are in `range`. Returns their number.
    fn end(
        &self,
        extent: &Entry<CachedExtent<N, L::Holder>>,
        guard: &rcu::Guard,
        range: RangeInclusive<u64>,
        why: End,
    ) -> u32 {
        match page_bitmap::overlap(extent.base, *range.start(), *range.end()) {
            0 => 0,
            mask => self.clear(extent, guard, mask, why),
        }
    }

    fn clear(
        &self,
        extent: &Entry<CachedExtent<N, L::Holder>>,
        guard: &rcu::Guard,
        mask: u32,
        why: End,
    ) -> u32 {
        let cleared = extent.bits.clear(mask);
        let gone = cleared.pages.count_ones();
        if gone != 0 {
            self.pages.add(u64::from(gone).wrapping_neg(), Relaxed);
            let name = content_of(extent, guard).name();
            self.ledger.ended(name, &extent.holder, why, cleared.pages);
        }
        if cleared.died && self.index.remove(extent) {
            self.interest(extent.mapping)
                .add(1u32.wrapping_neg(), Relaxed);
            self.extents.add(1u64.wrapping_neg(), Relaxed);
            // SAFETY: The extent was just removed from the index, which succeeds once.
            let content = unsafe { extent.content.release() };
            drop(ContentRef::new(Some(content), &self.contents));
        }
        gone
    }

    /// Ends what is known about the pages of `mapping` with file indexes in `range`. Returns the
    /// number of pages that were known. Any context.
    pub fn end_range(&self, mapping: MappingId, range: RangeInclusive<u64>, why: End) -> u32 {
        if self.interest(mapping).load(Relaxed) == 0 {
            return 0;
        }
        let guard = rcu::read_lock();
        self.extents_of(&guard, mapping, range.clone())
            .map(|extent| self.end(extent, &guard, range.clone(), why))
            .sum()
    }

    /// Ends what is known about the pages of `folio`, which leaves the page cache. Returns the
    /// number of pages that were known. Any context.
    pub fn folio_removed(&self, folio: &EventFolio<'_>) -> u32 {
        if !Rule::RemovalHook.on() {
            return 0;
        }
        let (first, last) = folio.range();
        self.end_range(folio.mapping(), first..=last, End::Removed)
    }

    /// Ends what is known about page `page` of a donor, as a copy of it did not have the digest.
    /// Any context.
    pub fn end_changed(&self, donor: &Donor<'_, N, L::Holder>, page: u32) {
        self.clear(
            donor.extent,
            donor.guard,
            page_bitmap::mask(page, 1),
            End::Changed,
        );
    }

    /// Ends every extent whose holder `ends` accepts, if the extent exists during the whole walk
    /// over the directory. Process context.
    pub fn end_where(&self, why: End, ends: impl Fn(&L::Holder) -> bool) {
        if self.extents() == 0 {
            return;
        }
        self.index.each_chain(0, usize::MAX, |guard, chain| {
            for extent in chain {
                if ends(&extent.holder) {
                    self.clear(extent, guard, u32::MAX, why);
                }
            }
            true
        });
    }

    /// Calls `visit` for each name that has extents, in `places` buckets from number `from` on,
    /// until `visit` returns false. Process context.
    ///
    /// Returns the number of the next bucket, or `None` after the last bucket. Extents that are
    /// added or removed meanwhile may be missed.
    pub fn each_name(
        &self,
        from: usize,
        places: usize,
        mut visit: impl FnMut(Holders<'_, N, L::Holder>) -> bool,
    ) -> Option<usize> {
        self.index.each_chain(from, places, |guard, chain| {
            let mut more = true;
            for (at, extent) in chain.clone().enumerate() {
                let name = content_of(extent, guard).name();
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

    /// Returns the pages of a content that are in any page cache, bit *n* for page *n*.
    pub fn pages_of(&self, guard: &rcu::Guard, name: N) -> u32 {
        self.donors(guard, name)
            .fold(0, |pages, donor| pages | donor.pages())
    }

    /// Iterates over the extents of the content `name`, the newest first.
    #[inline]
    pub fn donors<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        name: N,
    ) -> impl Iterator<Item = Donor<'g, N, L::Holder>> {
        let hash = name.hash();
        self.index
            .by_forward(guard, hash)
            .filter(move |extent| extent.hash == half(hash))
            .map(move |extent| Donor { extent, guard })
            .filter(move |donor| *donor.name() == name)
    }
}

impl<N: Name, L: Ledger<N>> Drop for Directory<N, L> {
    fn drop(&mut self) {
        self.end_where(End::Gone, |_| true);
    }
}
