// SPDX-License-Identifier: GPL-2.0

//! Page-cache folios, as the owner of a read and as a copier see them.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{bindings::address_space, prelude::*, sync::rcu};

use crate::{bindings, drr::rule::Rule};

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = kernel::page::PAGE_SHIFT as u32;
/// log2 of the sectors in a page.
pub const PAGE_SECTORS_SHIFT: u32 = PAGE_SHIFT - 9;
/// Sectors in a page.
pub const PAGE_SECTORS: u32 = 1 << PAGE_SECTORS_SHIFT;
/// Words of 64 bits in a page.
pub const PAGE_WORDS: usize = 1 << (PAGE_SHIFT - 3);

/// The content of a page.
pub type PageWords = [u64; PAGE_WORDS];

/// The bytes of a page's content.
pub fn bytes(words: &PageWords) -> &[u8] {
    // SAFETY: As long as the words are, and all bit patterns are bytes.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// Names a page cache (`struct address_space`); no promise that it still exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MappingId(NonNull<address_space>);

// SAFETY: Only a name; whoever dereferences it has to show that it is alive.
unsafe impl Send for MappingId {}
// SAFETY: As above.
unsafe impl Sync for MappingId {}

impl MappingId {
    /// A number for hashing.
    #[inline]
    pub fn hash_key(self) -> u64 {
        // CAST: Addresses fit.
        self.0.as_ptr().addr() as u64
    }

    /// The flags that share the pointer in an anonymous or movable page make it no mapping.
    pub(crate) fn new(mapping: *mut address_space) -> Option<Self> {
        if mapping.addr() & 3 != 0 {
            return None;
        }
        NonNull::new(mapping).map(Self)
    }

    /// The page cache has `folio` at file index `index`.
    ///
    /// # Safety
    ///
    /// It was alive at some moment after `_guard` was taken.
    unsafe fn holds(
        self,
        _guard: &rcu::Guard,
        folio: NonNull<bindings::folio>,
        index: u64,
    ) -> bool {
        // SAFETY: By the safety requirements its memory is there, as inodes are freed by RCU.
        // CAST: File indexes are `unsigned long`.
        unsafe { bindings::dm_rust_mapping_holds(self.0.as_ptr(), folio.as_ptr(), index as usize) }
    }
}

/// State of a folio at one moment.
#[derive(Clone, Copy)]
pub struct State(u32);

impl State {
    fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// It is in a state in which a page of it may be what was read into it, for all that its flags tell.
    pub fn unchanged(self) -> bool {
        self.any(bindings::DM_RUST_FOLIO_UPTODATE)
            && !self.any(bindings::DM_RUST_FOLIO_DIRTY | bindings::DM_RUST_FOLIO_WRITEBACK)
    }

    /// A read fills it, and nobody else can write to it: its reader has it locked, it isn't up to date, so
    /// nobody has mapped it, and nobody has its pages for direct I/O.
    ///
    /// Anonymous and swapped memory, slabs, huge pages of hugetlbfs and device memory are no such folios.
    fn being_read(self) -> bool {
        let reading = bindings::DM_RUST_FOLIO_LOCKED | bindings::DM_RUST_FOLIO_FILE;
        let shared = bindings::DM_RUST_FOLIO_UPTODATE
            | bindings::DM_RUST_FOLIO_MAPPED
            | bindings::DM_RUST_FOLIO_PINNED;
        self.0 & (reading | shared) == reading
    }
}

/// A folio that is known to be in the page cache of a live inode.
///
/// # Invariants
///
/// For `'a`, the folio is locked or otherwise kept from leaving its mapping, and `mapping` is its
/// mapping.
#[derive(Clone, Copy)]
struct Cached<'a> {
    folio: NonNull<bindings::folio>,
    mapping: MappingId,
    _alive: PhantomData<&'a ()>,
}

impl<'a> Cached<'a> {
    fn index(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        // CAST: An `unsigned long` fits.
        unsafe { bindings::dm_rust_folio_index(self.folio.as_ptr()) as u64 }
    }

    fn pages(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        // CAST: An `unsigned long` fits.
        unsafe { bindings::dm_rust_folio_nr_pages(self.folio.as_ptr()) as u64 }
    }
}

/// A part of the data of a read, in one folio.
pub enum FilledPages<'a> {
    /// Pages whose memory is nobody's but the read's.
    Alone(ReadPages<'a>),
    /// A page of a block device's page cache that has buffers: it is read under the lock of a buffer, and
    /// others may write to other parts of it, or to the same without that lock.
    Buffers(BufferPage<'a>),
}

impl<'a> FilledPages<'a> {
    /// Looks at `page` and those that follow in a bio, up to `max` pages, `offset` pages into the
    /// read. Returns how many there are in the same folio, or 0 if it isn't one of a page cache, and the
    /// pages if they are either of the two.
    ///
    /// The rule for the first has four parts: the folio is one that [is being read](State::being_read);
    /// it is in the page cache that it says it is in; that page cache's file system reads folios, and so
    /// under the folio's lock (`read_folio`, which those lack whose pages are read in another way:
    /// metadata of btrfs, f2fs and nilfs2, shared memory, swap, DAX); and it isn't the second.
    ///
    /// # Safety
    ///
    /// `page` and the `max - 1` pages after it belong to a bio that doesn't complete during `'a`.
    pub(crate) unsafe fn new(
        page: *mut bindings::page,
        max: u32,
        offset: u32,
    ) -> (u32, Option<Self>) {
        // SAFETY: The bio holds the page.
        let folio = unsafe { bindings::dm_rust_page_folio(page) };
        // SAFETY: As above; and what is the folio of a page that is held doesn't change.
        let (at, pages) = unsafe {
            (
                bindings::dm_rust_folio_page_idx(folio, page),
                bindings::dm_rust_folio_nr_pages(folio),
            )
        };
        // RANGE: `page` is in the folio, so `at` is less than `pages`; the count isn't more than `max`.
        let count = (pages - at).min(max as usize) as u32;
        let guard = rcu::read_lock();
        // SAFETY: As above.
        let (state, mapping) = unsafe {
            (
                State(bindings::dm_rust_folio_state(folio)),
                MappingId::new(bindings::dm_rust_folio_mapping(folio)),
            )
        };
        let (Some(folio), Some(mapping)) = (NonNull::new(folio), mapping) else {
            return (0, None);
        };
        if !state.any(bindings::DM_RUST_FOLIO_FILE) {
            return (0, None);
        }
        // SAFETY: The folio was in that page cache since the guard was taken, so its inode was alive,
        // which is freed by RCU.
        if unsafe { bindings::dm_rust_folio_has_buffers(mapping.0.as_ptr(), folio.as_ptr()) } {
            let page = BufferPage {
                page,
                offset,
                _alive: PhantomData,
            };
            return (1, Some(Self::Buffers(page)));
        }
        if !state.being_read() && Rule::Alone.on() {
            return (count, None);
        }
        // SAFETY: As above, and the bio holds the page.
        let (first, reads_folios) = unsafe {
            (
                // CAST: An `unsigned long` fits.
                bindings::dm_rust_folio_index(folio.as_ptr()) as u64,
                bindings::dm_rust_mapping_reads_folios(mapping.0.as_ptr()),
            )
        };
        // SAFETY: As above.
        let there = unsafe { mapping.holds(&guard, folio, first) };
        if !there || !reads_folios {
            return (count, None);
        }
        // INVARIANT: Checked above; the reader unlocks the folio when the read completes.
        let pages = ReadPages {
            page,
            mapping,
            // RANGE: File indexes have 52 bits.
            first: first + at as u64,
            count,
            offset,
            _alive: PhantomData,
        };
        (count, Some(Self::Alone(pages)))
    }
}

/// Consecutive pages of a page-cache folio that a read has filled or is about to.
///
/// # Invariants
///
/// For `'a`, the folio is in the page cache, locked by the reader and not yet up to date; nobody else
/// writes to the pages, which start with `page` and are at least one.
pub struct ReadPages<'a> {
    page: *mut bindings::page,
    mapping: MappingId,
    first: u64,
    count: u32,
    offset: u32,
    _alive: PhantomData<&'a ()>,
}

impl<'a> ReadPages<'a> {
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

    /// The pages in parts, each of which ends before a page that is a multiple of `every`, if page `first` is the
    /// read's first.
    // RANGE: Pages of one read; `next` is between the first and the end, where it stays.
    pub fn parts(self, first: u32, every: u32) -> impl Iterator<Item = Self> + use<'a> {
        let (end, mut next) = (self.offset + self.count, self.offset);
        core::iter::from_fn(move || {
            let (at, count) = (next - self.offset, every - (first + next) % every);
            next = (next + count).min(end);
            // INVARIANT: Holds for all parts that aren't empty, as for the whole.
            (at < self.count).then(|| Self {
                page: self.page.wrapping_add(at as usize),
                first: self.first + u64::from(at),
                count: count.min(self.count - at),
                offset: self.offset + at,
                ..self
            })
        })
    }

    /// What the read has put into page `at` of these, once it has ended.
    pub fn words(&self, at: u32) -> Option<&'a PageWords> {
        // SAFETY: Consecutive pages of a folio, whose memory nobody writes any more before the read
        // completes, by the type invariant.
        (at < self.count).then(|| unsafe {
            // CAST: A `u32` fits.
            &*bindings::dm_rust_page_address(self.page.wrapping_add(at as usize)).cast()
        })
    }
}

/// A page of a block device's page cache that a read fills under the lock of a buffer.
///
/// # Invariants
///
/// For `'a`, `page` is held by a bio that doesn't complete.
pub struct BufferPage<'a> {
    page: *mut bindings::page,
    offset: u32,
    _alive: PhantomData<&'a ()>,
}

impl BufferPage<'_> {
    /// Pages of the read before this.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Locks its folio, if that isn't locked, and is in a block device's page cache with its buffers. Any
    /// context.
    pub fn try_lock(&self) -> Option<LockedBuffer> {
        // SAFETY: The bio holds the page, and so does the reference that is taken.
        let (folio, at) = unsafe {
            let folio = bindings::dm_rust_page_folio(self.page);
            bindings::dm_rust_folio_ref(folio);
            (folio, bindings::dm_rust_folio_page_idx(folio, self.page))
        };
        // SAFETY: The reference was taken above.
        let folio = unsafe { FolioRef::new(NonNull::new(folio)?) };
        // SAFETY: A reference is held.
        let mapping = unsafe { bindings::dm_rust_folio_mapping(folio.folio.as_ptr()) };
        let mapping = MappingId::new(mapping)?;
        let folio = folio.try_lock(mapping)?;
        // SAFETY: The folio is locked and in that page cache, so its inode lives.
        if !unsafe {
            bindings::dm_rust_folio_has_buffers(mapping.0.as_ptr(), folio.folio.folio.as_ptr())
        } {
            return None;
        }
        // INVARIANT: It has buffers, as just seen.
        Some(LockedBuffer {
            // RANGE: A page of the folio.
            index: folio.folio.range().0 + at as u64,
            folio,
        })
    }
}

/// A page of a locked folio of a block device's page cache, which tells of pages that leave it.
///
/// # Invariants
///
/// The folio has buffers and is in the page cache of a block device, at `index`.
pub struct LockedBuffer {
    folio: LockedFolio,
    index: u64,
}

impl LockedBuffer {
    /// The page cache that it is in.
    pub fn mapping(&self) -> MappingId {
        self.folio.mapping
    }

    /// The page's file index.
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// Names the control group whose memory a folio takes; no promise that it still exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Group(usize);

impl Group {
    /// A number for hashing.
    pub fn hash_key(self) -> u64 {
        // CAST: Addresses fit.
        self.0 as u64
    }
}

/// A folio in the hands of a page-cache event.
pub struct EventFolio<'a>(Cached<'a>);

impl EventFolio<'_> {
    /// # Safety
    ///
    /// `folio` is valid and in the page cache that it names for `'a`.
    pub(crate) unsafe fn in_own_mapping(folio: *mut bindings::folio) -> Option<Self> {
        // SAFETY: By the safety requirements.
        let mapping = MappingId::new(unsafe { bindings::dm_rust_folio_mapping(folio) })?;
        // INVARIANT: By the safety requirements.
        Some(Self(Cached {
            folio: NonNull::new(folio)?,
            mapping,
            _alive: PhantomData,
        }))
    }

    /// The page cache that it is in.
    pub fn mapping(&self) -> MappingId {
        self.0.mapping
    }

    /// If it goes since memory is short: in which group.
    pub fn reclaimed_from(&self) -> Option<Group> {
        // SAFETY: Valid by the type invariant of `Cached`.
        match unsafe { bindings::dm_rust_folio_reclaimed_from(self.0.folio.as_ptr()) } {
            0 => None,
            group => Some(Group(group)),
        }
    }

    /// First and last file index.
    pub fn range(&self) -> (u64, u64) {
        let index = self.0.index();
        // RANGE: A folio has a page at least, and file indexes have 52 bits.
        (index, index + self.0.pages() - 1)
    }
}

/// A reference to a folio that may be in the page cache.
///
/// # Invariants
///
/// Owns a reference count of the folio, which isn't split before it is dropped; so the folio has `pages` pages.
/// `first` was the first one's file index when the reference was taken.
pub struct FolioRef {
    folio: NonNull<bindings::folio>,
    first: u64,
    pages: u64,
}

impl FolioRef {
    /// # Safety
    ///
    /// A reference is held, which goes to the new value.
    unsafe fn new(folio: NonNull<bindings::folio>) -> Self {
        // SAFETY: A reference is held.
        let (first, pages) = unsafe {
            (
                // CAST: An `unsigned long` fits.
                bindings::dm_rust_folio_index(folio.as_ptr()) as u64,
                bindings::dm_rust_folio_nr_pages(folio.as_ptr()) as u64,
            )
        };
        // INVARIANT: By the safety requirements.
        Self {
            folio,
            first,
            pages,
        }
    }

    /// Takes a reference to the folio that holds `index` of `mapping`.
    ///
    /// # Safety
    ///
    /// The mapping was alive at some moment after `_guard` was taken, and is freed by RCU, as all
    /// inodes are.
    pub(crate) unsafe fn find(
        _guard: &rcu::Guard,
        mapping: MappingId,
        index: u64,
    ) -> Option<FolioRef> {
        // SAFETY: The mapping's memory is valid as long as the guard is held.
        // CAST: File indexes are `unsigned long`.
        let folio = unsafe { bindings::dm_rust_folio_get(mapping.0.as_ptr(), index as usize) };
        // SAFETY: `dm_rust_folio_get()` took the reference.
        NonNull::new(folio).map(|folio| unsafe { Self::new(folio) })
    }

    /// First and last file index, as of when the reference was taken.
    pub fn range(&self) -> (u64, u64) {
        // RANGE: As in `EventFolio::range`.
        (self.first, self.first + self.pages - 1)
    }

    /// The number in the folio of the page at a file index, if the folio holds it.
    #[inline]
    pub fn page_at(&self, index: u64) -> Option<u64> {
        Some(index.wrapping_sub(self.first)).filter(|at| *at < self.pages)
    }

    /// The folio's state.
    pub fn state(&self) -> State {
        // SAFETY: A reference is held.
        State(unsafe { bindings::dm_rust_folio_state(self.folio.as_ptr()) })
    }

    /// Copies page `at` of the folio, whatever it holds at this moment: a process may be writing to it, or it may be
    /// another file's by now. So the copy is to be trusted only if it is proven.
    ///
    /// Returns false if the folio has fewer pages, or the memory is broken.
    #[inline]
    pub fn copy_page(&self, at: u64, to: &mut PageWords) -> bool {
        if at >= self.pages {
            return false;
        }
        let to = to.as_mut_ptr().cast();
        // SAFETY: A reference is held, and the folio has that page; `to` is a page, and ours.
        // CAST: Less than the folio's pages.
        unsafe { bindings::dm_rust_copy_page(to, self.folio.as_ptr(), at as usize) }
    }

    /// Nobody has used it lately, as far as reclaim knows.
    pub fn idle(&self) -> bool {
        // SAFETY: A reference is held.
        unsafe { bindings::dm_rust_folio_idle(self.folio.as_ptr()) }
    }

    /// Whose memory it takes.
    pub fn group(&self) -> Group {
        // SAFETY: A reference is held.
        Group(unsafe { bindings::dm_rust_folio_group(self.folio.as_ptr()) })
    }

    /// Locks the folio if it isn't locked and is in `mapping`.
    pub fn try_lock(self, mapping: MappingId) -> Option<LockedFolio> {
        // SAFETY: A reference is held.
        if !unsafe { bindings::dm_rust_folio_trylock(self.folio.as_ptr()) } {
            return None;
        }
        // INVARIANT: Just locked; dropped below if it isn't in the mapping.
        let locked = LockedFolio {
            folio: self,
            mapping,
        };
        // SAFETY: A reference is held.
        let now = unsafe { bindings::dm_rust_folio_mapping(locked.folio.folio.as_ptr()) };
        if now != mapping.0.as_ptr() {
            return None;
        }
        let guard = rcu::read_lock();
        // SAFETY: Locked, it is in that page cache still, so the inode lives.
        let there = unsafe { mapping.holds(&guard, locked.folio.folio, locked.first()) };
        there.then_some(locked)
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_rust_folio_put(self.folio.as_ptr()) };
    }
}

/// A locked folio of the page cache `mapping`.
///
/// # Invariants
///
/// The folio is locked by us. Where others can see the value, it is in `mapping`, whose inode
/// can't go away before the folio is unlocked.
pub struct LockedFolio {
    folio: FolioRef,
    mapping: MappingId,
}

impl LockedFolio {
    fn first(&self) -> u64 {
        self.folio.range().0
    }

    /// Takes the folio out of the page cache, as reclaim would: if it is clean and nobody else uses
    /// it. Process context, without locks.
    pub fn drop_from_cache(self) -> bool {
        let unused = Rule::Unused.on();
        // SAFETY: Locked by us and in the mapping, and the only reference that we know of is ours.
        unsafe {
            bindings::dm_rust_folio_drop(self.mapping.0.as_ptr(), self.folio.folio.as_ptr(), unused)
        }
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the reference is dropped after this.
        unsafe { bindings::dm_rust_folio_unlock(self.folio.folio.as_ptr()) };
    }
}
