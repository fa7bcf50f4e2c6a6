// SPDX-License-Identifier: GPL-2.0

//! Page-cache folios, as the owner of a read and as a copier see them.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{bindings::address_space, prelude::*, sync::rcu};

use crate::{bindings, device::BlockDevice, guard::Guard};

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = kernel::page::PAGE_SHIFT as u32;
/// log2 of the sectors in a page.
pub const PAGE_SECTORS_SHIFT: u32 = PAGE_SHIFT - 9;
/// Sectors in a page.
pub const PAGE_SECTORS: u32 = 1 << PAGE_SECTORS_SHIFT;

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
    pub fn number(self) -> u64 {
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

    /// Somebody holds the `invalidate_lock` exclusively, or waits for it.
    ///
    /// # Safety
    ///
    /// The page cache is alive.
    pub(crate) unsafe fn invalidating(self) -> bool {
        // SAFETY: By the safety requirements.
        let shared = unsafe { bindings::dm_rust_invalidate_trylock_shared(self.0.as_ptr()) };
        if shared {
            // SAFETY: Just taken.
            unsafe { bindings::dm_rust_invalidate_unlock_shared(self.0.as_ptr()) };
        }
        !shared
    }
}

/// State of a folio at one moment.
#[derive(Clone, Copy)]
pub struct State(u32);

impl State {
    fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// All of its pages hold valid data.
    pub fn uptodate(self) -> bool {
        self.any(bindings::DM_RUST_FOLIO_UPTODATE)
    }

    /// A read that fills it is under way, as a rule.
    pub fn being_read(self) -> bool {
        self.any(bindings::DM_RUST_FOLIO_LOCKED) && !self.uptodate()
    }

    /// It is dirty, or its data is on the way to the disk.
    pub fn dirty_or_writeback(self) -> bool {
        self.any(bindings::DM_RUST_FOLIO_DIRTY | bindings::DM_RUST_FOLIO_WRITEBACK)
    }

    /// The hardware reported one of its pages broken.
    pub fn poisoned(self) -> bool {
        self.any(bindings::DM_RUST_FOLIO_POISONED)
    }
}

/// What matters of the inode behind a page cache (`struct inode`).
pub struct Inode<'a> {
    raw: bindings::dm_rust_inode,
    _alive: PhantomData<&'a ()>,
}

impl Inode<'_> {
    /// # Safety
    ///
    /// The page cache `mapping` is an inode's that lives for `'a`.
    pub(crate) unsafe fn of(mapping: MappingId) -> Self {
        let mut raw = bindings::dm_rust_inode::default();
        // SAFETY: By the safety requirements.
        unsafe { bindings::dm_rust_mapping_inode(mapping.0.as_ptr(), &mut raw) };
        Self {
            raw,
            _alive: PhantomData,
        }
    }

    /// Name of the file system's type, as in `/proc/filesystems`.
    pub fn fs_name(&self) -> &CStr {
        // SAFETY: A file system's type outlives its inodes, and the inode is alive.
        unsafe { CStr::from_char_ptr(self.raw.fs_name.cast()) }
    }

    /// log2 of the block size (`i_blkbits`).
    pub fn block_bits(&self) -> u32 {
        self.raw.blkbits
    }

    /// It is a block device's own inode.
    pub fn is_block_device(&self) -> bool {
        self.raw.is_bdev
    }

    /// Its pages are decrypted after they are read.
    pub fn encrypted(&self) -> bool {
        self.raw.encrypted
    }

    /// The block device that the file system is mounted from, or that the inode is.
    pub fn device(&self) -> Option<BlockDevice<'_>> {
        let bdev = NonNull::new(self.raw.bdev)?;
        // SAFETY: A live inode keeps its super block's device, and its own.
        Some(unsafe { BlockDevice::from_raw(bdev) })
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
        unsafe { bindings::dm_rust_folio_index(self.folio.as_ptr()) as u64 }
    }

    fn pages(self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::dm_rust_folio_nr_pages(self.folio.as_ptr()) as u64 }
    }

    fn state(self) -> State {
        // SAFETY: Valid by the type invariant.
        State(unsafe { bindings::dm_rust_folio_state(self.folio.as_ptr()) })
    }

    fn inode(self) -> Inode<'a> {
        // SAFETY: By the type invariant the folio stays in the mapping, whose inode therefore
        // stays alive.
        unsafe { Inode::of(self.mapping) }
    }
}

/// Consecutive pages of a page-cache folio that a read has filled or is about to.
///
/// # Invariants
///
/// The folio is in the page cache, locked by the reader and not yet up to date, and stays so
/// until the read completes, which it doesn't during `'a`.
pub struct ReadPages<'a> {
    cached: Cached<'a>,
    first: u64,
    count: u32,
    offset: u32,
}

impl<'a> ReadPages<'a> {
    /// Looks at `page` and those that follow in a bio, up to `max` pages, `offset` pages into the
    /// read. Returns how many there are in the same folio, and the pages if they are the page
    /// cache's and being read into it.
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
        // CAST: Not more than `max`.
        let count = (pages - at).min(max as usize) as u32;

        // SAFETY: As above.
        let state = unsafe { bindings::dm_rust_folio_state(folio) };
        // A page-cache page that isn't up to date can't be mapped or written by anybody; locked,
        // it can't leave the page cache either. What a direct read goes to is either no page of
        // the page cache at all, or one that is mapped and therefore up to date.
        let reading = bindings::DM_RUST_FOLIO_LOCKED | bindings::DM_RUST_FOLIO_FILE;
        if state & (reading | bindings::DM_RUST_FOLIO_UPTODATE) != reading {
            return (count, None);
        }
        // SAFETY: As above.
        let mapping = MappingId::new(unsafe { bindings::dm_rust_folio_mapping(folio) });
        let pages = mapping.zip(NonNull::new(folio)).map(|(mapping, folio)| {
            // INVARIANT: Checked above; the reader unlocks the folio when the read completes.
            let cached = Cached {
                folio,
                mapping,
                _alive: PhantomData,
            };
            Self {
                first: cached.index() + at as u64,
                cached,
                count,
                offset,
            }
        });
        (count, pages)
    }

    /// The page cache that they are in.
    pub fn mapping(&self) -> MappingId {
        self.cached.mapping
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

    /// The folio's state.
    pub fn state(&self) -> State {
        self.cached.state()
    }

    /// The inode that the page cache belongs to.
    pub fn inode(&self) -> Inode<'a> {
        self.cached.inode()
    }

    /// First and last file index of the whole folio.
    pub fn folio_range(&self) -> (u64, u64) {
        let index = self.cached.index();
        (index, index + self.cached.pages() - 1)
    }

    /// They are all pages of the folio.
    pub fn is_whole_folio(&self) -> bool {
        u64::from(self.count) == self.cached.pages()
    }
}

/// Names the control group whose memory a folio takes; no promise that it still exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Group(usize);

impl Group {
    /// A number for hashing.
    pub fn number(self) -> u64 {
        // CAST: Addresses fit.
        self.0 as u64
    }
}

/// A folio in the hands of a page-cache event.
pub struct EventFolio<'a>(Cached<'a>);

impl EventFolio<'_> {
    /// # Safety
    ///
    /// `folio` is valid and in the page cache `mapping` for `'a`.
    pub(crate) unsafe fn new(
        folio: *mut bindings::folio,
        mapping: *mut address_space,
    ) -> Option<Self> {
        // INVARIANT: By the safety requirements.
        Some(Self(Cached {
            folio: NonNull::new(folio)?,
            mapping: MappingId::new(mapping)?,
            _alive: PhantomData,
        }))
    }

    /// # Safety
    ///
    /// As for [`Self::new`], with the folio's own mapping.
    pub(crate) unsafe fn in_own_mapping(folio: *mut bindings::folio) -> Option<Self> {
        // SAFETY: By the safety requirements.
        unsafe { Self::new(folio, bindings::dm_rust_folio_mapping(folio)) }
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
        (index, index + self.0.pages() - 1)
    }
}

/// A reference to a folio that may be in the page cache.
///
/// # Invariants
///
/// Owns a reference count of the folio.
pub struct FolioRef(NonNull<bindings::folio>);

impl FolioRef {
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
        let folio = unsafe { bindings::dm_rust_folio_get(mapping.0.as_ptr(), index as usize) };
        // INVARIANT: `dm_rust_folio_get()` took the reference.
        NonNull::new(folio).map(Self)
    }

    /// The same, where it matters that there is none: waits for who splits or migrates the folio.
    ///
    /// # Safety
    ///
    /// The mapping is alive for as long as `_guard` is held.
    pub(crate) unsafe fn find_surely(
        _guard: &rcu::Guard,
        mapping: MappingId,
        index: u64,
    ) -> Option<FolioRef> {
        // SAFETY: By the safety requirements.
        let folio =
            unsafe { bindings::dm_rust_folio_get_surely(mapping.0.as_ptr(), index as usize) };
        // INVARIANT: `dm_rust_folio_get_surely()` took the reference.
        NonNull::new(folio).map(Self)
    }

    /// First and last file index; they don't change while there is a reference.
    pub fn range(&self) -> (u64, u64) {
        // SAFETY: A reference is held, so the folio isn't split either.
        unsafe {
            let first = bindings::dm_rust_folio_index(self.0.as_ptr()) as u64;
            let pages = bindings::dm_rust_folio_nr_pages(self.0.as_ptr()) as u64;
            (first, first + pages - 1)
        }
    }

    /// The folio's state.
    pub fn state(&self) -> State {
        // SAFETY: A reference is held.
        State(unsafe { bindings::dm_rust_folio_state(self.0.as_ptr()) })
    }

    /// Nobody has used it lately, as far as reclaim knows.
    pub fn idle(&self) -> bool {
        // SAFETY: A reference is held.
        unsafe { bindings::dm_rust_folio_idle(self.0.as_ptr()) }
    }

    /// Whose memory it takes.
    pub fn group(&self) -> Group {
        // SAFETY: A reference is held.
        Group(unsafe { bindings::dm_rust_folio_group(self.0.as_ptr()) })
    }

    /// Locks the folio if it isn't locked and is in `mapping`.
    pub fn try_lock(self, mapping: MappingId) -> Option<LockedFolio> {
        // SAFETY: A reference is held.
        if !unsafe { bindings::dm_rust_folio_trylock(self.0.as_ptr()) } {
            return None;
        }
        // INVARIANT: Just locked; dropped below if it isn't in the mapping.
        let locked = LockedFolio {
            folio: self,
            mapping,
        };
        // SAFETY: A reference is held.
        let now = unsafe { bindings::dm_rust_folio_mapping(locked.folio.0.as_ptr()) };
        (now == mapping.0.as_ptr()).then_some(locked)
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_rust_folio_put(self.0.as_ptr()) };
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
    fn cached(&self) -> Cached<'_> {
        // INVARIANT: Locked and in the mapping.
        Cached {
            folio: self.folio.0,
            mapping: self.mapping,
            _alive: PhantomData,
        }
    }

    /// The folio's state.
    pub fn state(&self) -> State {
        self.cached().state()
    }

    /// The inode that the page cache belongs to.
    pub fn inode(&self) -> Inode<'_> {
        self.cached().inode()
    }

    /// Pages from file index `index` to the folio's end; 0 if it doesn't hold the index.
    pub fn pages_from(&self, index: u64) -> u64 {
        let first = self.cached().index();
        let end = first + self.cached().pages();
        if (first..end).contains(&index) {
            end - index
        } else {
            0
        }
    }

    /// Takes the folio out of the page cache, as reclaim would: if it is clean and nobody else uses
    /// it. Process context, without locks.
    pub fn drop_from_cache(self) -> bool {
        let unused = Guard::Unused.on();
        // SAFETY: Locked by us and in the mapping, and the only reference that we know of is ours.
        unsafe {
            bindings::dm_rust_folio_drop(self.mapping.0.as_ptr(), self.folio.0.as_ptr(), unused)
        }
    }

    /// The data of `count` pages from file index `index` on; nothing if the folio doesn't hold
    /// all of them.
    pub fn data(&self, index: u64, count: u32) -> Option<PageData<'_>> {
        if self.pages_from(index) < u64::from(count) {
            return None;
        }
        // SAFETY: The folio is valid and holds the pages.
        let base = unsafe { bindings::dm_rust_folio_address(self.folio.0.as_ptr()) };
        let offset = ((index - self.cached().index()) as usize) << PAGE_SHIFT;
        Some(PageData {
            data: base.cast::<u8>().wrapping_add(offset),
            len: (count as usize) << PAGE_SHIFT,
            _locked: PhantomData,
        })
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the reference is dropped after this.
        unsafe { bindings::dm_rust_folio_unlock(self.folio.0.as_ptr()) };
    }
}

/// Data of consecutive pages, to be copied.
///
/// Not a slice: user space may be reading it, or writing to it where the caller hasn't made sure
/// that it doesn't.
///
/// # Invariants
///
/// `data` is valid for reads of `len` bytes for `'a`.
pub struct PageData<'a> {
    data: *const u8,
    len: usize,
    _locked: PhantomData<&'a ()>,
}

impl PageData<'_> {
    /// # Safety
    ///
    /// As the type invariant says.
    pub(crate) unsafe fn new(data: *const u8, len: usize) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            data,
            len,
            _locked: PhantomData,
        }
    }

    /// Where the data is.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.data
    }

    /// Bytes of data.
    pub fn len_bytes(&self) -> usize {
        self.len
    }
}
