// SPDX-License-Identifier: GPL-2.0

//! Page-cache folios, as seen by a read and by code that copies them.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{bindings::address_space, prelude::*, sync::rcu};

use crate::{bindings, drr::rule::Rule};

/// Binary logarithm of the page size in bytes.
pub const PAGE_SHIFT: u32 = kernel::page::PAGE_SHIFT as u32;
/// Binary logarithm of the number of sectors in a page.
pub const PAGE_SECTORS_SHIFT: u32 = PAGE_SHIFT - 9;
/// Number of sectors in a page.
pub const PAGE_SECTORS: u32 = 1 << PAGE_SECTORS_SHIFT;
/// Number of 64-bit words in a page.
pub const PAGE_WORDS: usize = 1 << (PAGE_SHIFT - 3);

/// The content of a page.
pub type PageWords = [u64; PAGE_WORDS];

/// Returns the bytes of a page's content.
pub fn bytes(words: &PageWords) -> &[u8] {
    // SAFETY: The bytes have the size and the lifetime of the words, and all bit patterns are
    // valid.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// The address of a page cache (`struct address_space`), which may not exist any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MappingId(NonNull<address_space>);

// SAFETY: Only an address; code that dereferences it has to show that the page cache is alive.
unsafe impl Send for MappingId {}
// SAFETY: As above.
unsafe impl Sync for MappingId {}

impl MappingId {
    /// Returns a number for hashing.
    #[inline]
    pub fn hash_key(self) -> u64 {
        // CAST: An address fits.
        self.0.as_ptr().addr() as u64
    }

    /// Returns `None` if the low bits of the pointer mark an anonymous or movable page, whose
    /// pointer is no mapping.
    pub(crate) fn new(mapping: *mut address_space) -> Option<Self> {
        if mapping.addr() & 3 != 0 {
            return None;
        }
        NonNull::new(mapping).map(Self)
    }

    /// Returns whether the page cache has `folio` at file index `index`.
    ///
    /// # Safety
    ///
    /// The page cache was alive at some moment after `_guard` was taken.
    unsafe fn holds(
        self,
        _guard: &rcu::Guard,
        folio: NonNull<bindings::folio>,
        index: u64,
    ) -> bool {
        // SAFETY: By the safety requirements the memory of the page cache is valid, as inodes are
        // freed by RCU.
        // CAST: File indexes are `unsigned long`.
        unsafe { bindings::dm_rust_mapping_holds(self.0.as_ptr(), folio.as_ptr(), index as usize) }
    }
}

/// The state of a folio at one moment.
#[derive(Clone, Copy)]
pub struct State(u32);

impl State {
    fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Returns whether the folio may still hold what was read into it, judging by its flags: it is
    /// up to date, clean and not under writeback.
    pub fn unchanged(self) -> bool {
        self.any(bindings::DM_RUST_FOLIO_UPTODATE)
            && !self.any(bindings::DM_RUST_FOLIO_DIRTY | bindings::DM_RUST_FOLIO_WRITEBACK)
    }

    /// Returns whether a read is filling the folio and nothing else can write to it: its reader has
    /// locked it; it is not up to date, so it is not mapped; and it is not pinned for direct I/O.
    ///
    /// Returns false for anonymous and swapped memory, slabs, huge pages of hugetlbfs and device
    /// memory.
    fn being_read(self) -> bool {
        let reading = bindings::DM_RUST_FOLIO_LOCKED | bindings::DM_RUST_FOLIO_FILE;
        let shared = bindings::DM_RUST_FOLIO_UPTODATE
            | bindings::DM_RUST_FOLIO_MAPPED
            | bindings::DM_RUST_FOLIO_PINNED;
        self.0 & (reading | shared) == reading
    }
}

/// A folio that is in the page cache of a live inode.
///
/// # Invariants
///
/// For `'a`, the folio is locked or otherwise kept from leaving its mapping, which is `mapping`.
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
    /// Pages that only the read can write to.
    Alone(ReadPages<'a>),
    /// A page of a block device's page cache that has buffers. It is read under the lock of a
    /// buffer. Other code may write to other parts of the page, or without that lock to the same
    /// part.
    Buffers(BufferPage<'a>),
}

impl<'a> FilledPages<'a> {
    /// Examines `page` and the pages that follow it in a bio, up to `max` pages, which are `offset`
    /// pages into the read.
    ///
    /// Returns the number of pages that were examined, and the pages if they are of one of the two
    /// kinds. The number is that of the pages in the same folio, 1 for a page with buffers, or 0 if
    /// the memory is not page cache.
    ///
    /// Pages are [`Self::Alone`] if the folio is [being read](State::being_read); it is in the page
    /// cache that it names; the file system of that page cache reads folios, and so under their
    /// lock (`read_folio`, which is missing where pages are read in another way: metadata of btrfs,
    /// f2fs and nilfs2, shared memory, swap, DAX); and it has no buffers of a block device.
    ///
    /// # Safety
    ///
    /// `page` and the `max - 1` pages after it belong to a bio that does not complete during `'a`.
    pub(crate) unsafe fn new(
        page: *mut bindings::page,
        max: u32,
        offset: u32,
    ) -> (u32, Option<Self>) {
        // SAFETY: The bio holds the page.
        let folio = unsafe { bindings::dm_rust_page_folio(page) };
        // SAFETY: As above; the folio of a page that is held does not change.
        let (at, pages) = unsafe {
            (
                bindings::dm_rust_folio_page_idx(folio, page),
                bindings::dm_rust_folio_nr_pages(folio),
            )
        };
        // RANGE: `page` is in the folio, so `at` is less than `pages`; the count is at most `max`.
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
        // SAFETY: The folio was in that page cache after the guard was taken, so its inode, which
        // is freed by RCU, was alive.
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
        // INVARIANT: Checked above; the reader unlocks the folio only after the read has completed.
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

/// Consecutive pages of a page-cache folio that a read has filled or is about to fill.
///
/// # Invariants
///
/// For `'a`, the folio is in the page cache, locked by the reader and not yet up to date. Nothing
/// else writes to the pages. There is at least one, and the first is `page`.
pub struct ReadPages<'a> {
    page: *mut bindings::page,
    mapping: MappingId,
    first: u64,
    count: u32,
    offset: u32,
    _alive: PhantomData<&'a ()>,
}

impl<'a> ReadPages<'a> {
    /// Returns the page cache of the pages.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// Returns the file index of the first page.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number of pages.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the number of pages of the read before these.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Splits the pages into parts that end at multiples of `every` pages, if the first page of the
    /// read has the number `first`.
    ///
    /// # Panics
    ///
    /// The iterator panics if `every` is 0.
    // RANGE: Pages of one read. `next` is at least the first and at most the end.
    pub fn parts(self, first: u32, every: u32) -> impl Iterator<Item = Self> + use<'a> {
        let (end, mut next) = (self.offset + self.count, self.offset);
        core::iter::from_fn(move || {
            let (at, count) = (next - self.offset, every - (first + next) % every);
            next = (next + count).min(end);
            // INVARIANT: Holds for each part that is not empty, as for the whole.
            (at < self.count).then(|| Self {
                page: self.page.wrapping_add(at as usize),
                first: self.first + u64::from(at),
                count: count.min(self.count - at),
                offset: self.offset + at,
                ..self
            })
        })
    }

    /// Returns the content of page `at` of these, after the read has ended.
    pub fn words(&self, at: u32) -> Option<&'a PageWords> {
        // SAFETY: The pages are consecutive in a folio, and by the type invariant nothing writes to
        // them any more before the read completes.
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
/// For `'a`, `page` is held by a bio that does not complete.
pub struct BufferPage<'a> {
    page: *mut bindings::page,
    offset: u32,
    _alive: PhantomData<&'a ()>,
}

impl BufferPage<'_> {
    /// Returns the number of pages of the read before this page.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Locks the folio of the page. Returns `None` if the folio is locked already, or is not in a
    /// block device's page cache, or has no buffers. Any context.
    pub fn try_lock(&self) -> Option<LockedBuffer> {
        // SAFETY: The bio holds the page, and so does the reference that is taken here.
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
        // SAFETY: The folio is locked and in that page cache, so the inode is alive.
        if !unsafe {
            bindings::dm_rust_folio_has_buffers(mapping.0.as_ptr(), folio.folio.folio.as_ptr())
        } {
            return None;
        }
        // INVARIANT: Has buffers, as just checked.
        Some(LockedBuffer {
            // RANGE: The index of a page of the folio.
            index: folio.folio.range().0 + at as u64,
            folio,
        })
    }
}

/// A page of a locked folio of a block device's page cache, which reports removed pages.
///
/// # Invariants
///
/// The folio has buffers and is in the page cache of a block device, at `index`.
pub struct LockedBuffer {
    folio: LockedFolio,
    index: u64,
}

impl LockedBuffer {
    /// Returns the page cache of the page.
    pub fn mapping(&self) -> MappingId {
        self.folio.mapping
    }

    /// Returns the file index of the page.
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// The memory control group to which a folio is charged, which may not exist any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Group(usize);

impl Group {
    /// Returns a number for hashing.
    pub fn hash_key(self) -> u64 {
        // CAST: An address fits.
        self.0 as u64
    }
}

/// A folio that a page-cache event is about.
pub struct EventFolio<'a>(Cached<'a>);

impl EventFolio<'_> {
    /// # Safety
    ///
    /// For `'a`, `folio` is valid and in the page cache that it names.
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

    /// Returns the page cache of the folio.
    pub fn mapping(&self) -> MappingId {
        self.0.mapping
    }

    /// Returns the control group of the folio if reclaim is removing it.
    pub fn reclaimed_from(&self) -> Option<Group> {
        // SAFETY: Valid by the type invariant of `Cached`.
        match unsafe { bindings::dm_rust_folio_reclaimed_from(self.0.folio.as_ptr()) } {
            0 => None,
            group => Some(Group(group)),
        }
    }

    /// Returns the first and last file index.
    pub fn range(&self) -> (u64, u64) {
        let index = self.0.index();
        // RANGE: A folio has at least one page, and file indexes have 52 bits.
        (index, index + self.0.pages() - 1)
    }
}

/// A reference to a folio that may be in a page cache.
///
/// # Invariants
///
/// Owns a reference to the folio. The folio can't be split while it is referenced, so it has
/// `pages` pages. `first` was the file index of the first page when the reference was taken.
pub struct FolioRef {
    folio: NonNull<bindings::folio>,
    first: u64,
    pages: u64,
}

impl FolioRef {
    /// # Safety
    ///
    /// The caller holds a reference, which is passed to the new value.
    unsafe fn new(folio: NonNull<bindings::folio>) -> Self {
        // SAFETY: The caller holds a reference.
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
        // SAFETY: The memory of the mapping is valid while the guard is held.
        // CAST: File indexes are `unsigned long`.
        let folio = unsafe { bindings::dm_rust_folio_get(mapping.0.as_ptr(), index as usize) };
        // SAFETY: `dm_rust_folio_get()` has taken the reference.
        NonNull::new(folio).map(|folio| unsafe { Self::new(folio) })
    }

    /// Returns the first and last file index at the moment when the reference was taken.
    pub fn range(&self) -> (u64, u64) {
        // RANGE: As in `EventFolio::range`.
        (self.first, self.first + self.pages - 1)
    }

    /// Returns the number within the folio of the page at file index `index`, if the folio holds
    /// it.
    #[inline]
    pub fn page_at(&self, index: u64) -> Option<u64> {
        Some(index.wrapping_sub(self.first)).filter(|at| *at < self.pages)
    }

    /// Returns the current state of the folio.
    pub fn state(&self) -> State {
        // SAFETY: A reference is held.
        State(unsafe { bindings::dm_rust_folio_state(self.folio.as_ptr()) })
    }

    /// Copies page `at` of the folio. The page may be written to meanwhile, or belong to another
    /// file by now, so the copy must be proven before it is used.
    ///
    /// Returns false if the folio has no such page, or the memory is broken.
    #[inline]
    pub fn copy_page(&self, at: u64, to: &mut PageWords) -> bool {
        if at >= self.pages {
            return false;
        }
        let to = to.as_mut_ptr().cast();
        // SAFETY: A reference is held, and the folio has the page; `to` is a page that is
        // exclusively ours.
        // CAST: Less than the number of pages of the folio.
        unsafe { bindings::dm_rust_copy_page(to, self.folio.as_ptr(), at as usize) }
    }

    /// Returns whether the folio has not been used lately, as far as reclaim knows.
    pub fn idle(&self) -> bool {
        // SAFETY: A reference is held.
        unsafe { bindings::dm_rust_folio_idle(self.folio.as_ptr()) }
    }

    /// Returns the control group to which the folio is charged.
    pub fn group(&self) -> Group {
        // SAFETY: A reference is held.
        Group(unsafe { bindings::dm_rust_folio_group(self.folio.as_ptr()) })
    }

    /// Locks the folio. Returns `None` if it is locked already or is not in `mapping`.
    pub fn try_lock(self, mapping: MappingId) -> Option<LockedFolio> {
        // SAFETY: A reference is held.
        if !unsafe { bindings::dm_rust_folio_trylock(self.folio.as_ptr()) } {
            return None;
        }
        // INVARIANT: Just locked; not returned if it is not in the mapping.
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
        // SAFETY: The folio is locked and still in that page cache, so the inode is alive.
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
/// The folio is locked by us. Outside of [`FolioRef::try_lock`], it is in `mapping`, whose inode
/// can't be freed before the folio is unlocked.
pub struct LockedFolio {
    folio: FolioRef,
    mapping: MappingId,
}

impl LockedFolio {
    fn first(&self) -> u64 {
        self.folio.range().0
    }

    /// Removes the folio from the page cache as reclaim does, if it is clean and otherwise unused.
    /// Returns whether it was removed. Process context, without locks.
    pub fn drop_from_cache(self) -> bool {
        let unused = Rule::Unused.on();
        // SAFETY: The folio is locked by us and in the mapping, and we hold one reference.
        unsafe {
            bindings::dm_rust_folio_drop(self.mapping.0.as_ptr(), self.folio.folio.as_ptr(), unused)
        }
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the reference is dropped afterwards.
        unsafe { bindings::dm_rust_folio_unlock(self.folio.folio.as_ptr()) };
    }
}
