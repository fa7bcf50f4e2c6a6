// SPDX-License-Identifier: GPL-2.0

//! A page cache of its own for private pages.
//!
//! It is that of an inode without a name, in a file system that is not accessible otherwise. So the
//! kernel reclaims the pages like any others when memory is short, and the
//! [directory](crate::pagecache::directory) is told when they are removed.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/mount.h`](srctree/include/linux/mount.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{
    bindings::{inode, vfsmount},
    error::from_err_ptr,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

use crate::{
    bindings,
    block::private_bio::OwnPage,
    pagecache::folio::{MappingId, PageWords},
    sync::work_queue::WorkQueue,
};

/// The mount of a private file system, which has the inodes of stores.
///
/// # Invariants
///
/// The mount is ours.
pub struct PrivateMount(NonNull<vfsmount>);

// SAFETY: A mount may be used and dropped by any task.
unsafe impl Send for PrivateMount {}
// SAFETY: As above.
unsafe impl Sync for PrivateMount {}

impl PrivateMount {
    /// Mounts the file system. Process context. Fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        // SAFETY: May be called at any time in process context.
        let mount = from_err_ptr(unsafe { bindings::dm_rust_mount_new() })?;
        // INVARIANT: Just created.
        NonNull::new(mount).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the stores that use the mount are gone.
        unsafe { bindings::dm_rust_mount_free(self.0.as_ptr()) };
    }
}

/// A page cache for private pages.
///
/// # Invariants
///
/// The inode is ours, and its page cache has only pages that [`Self::keep`] has added.
///
/// # Examples
///
/// A store, and a function that keeps page `at` of a private read in it and makes the page known.
///
/// ```ignore
/// let mount = Arc::new(PrivateMount::new()?, GFP_KERNEL)?;
/// let store = PageStore::new(mount, MOST_PAGES)?;
///
/// fn keep_page(&self, data: &ReadData, at: u32, page: StorablePage) {
///     let digest = [self.digest_of(page.words())];
///     if let Some(stored) = self.store.keep(page) {
///         let pages = CachedPages::stored(&stored);
///         self.directory.enter(data.name, HOLDER, at, &pages, &digest);
///     }
/// }
/// ```
pub struct PageStore {
    inode: NonNull<inode>,
    /// File index of the next page.
    next: Atomic<u64>,
    most_pages: u64,
    /// The workqueue in which pages are added.
    pub(crate) queue: WorkQueue,
    // Dropped last.
    _mount: Arc<PrivateMount>,
}

// SAFETY: An inode may be used and put by any task.
unsafe impl Send for PageStore {}
// SAFETY: Page caches have locks of their own.
unsafe impl Sync for PageStore {}

impl PageStore {
    /// Creates a store that keeps about the newest `most_pages` pages. Process context. Fails with
    /// `ENOMEM`.
    pub fn new(mount: Arc<PrivateMount>, most_pages: u64) -> Result<Self> {
        let queue = WorkQueue::in_task(c"drr_meta")?;
        // SAFETY: The mount is valid.
        let inode = from_err_ptr(unsafe { bindings::dm_rust_store_new(mount.0.as_ptr()) })?;
        // INVARIANT: Just created.
        Ok(Self {
            inode: NonNull::new(inode).ok_or(ENOMEM)?,
            next: Atomic::new(0),
            most_pages,
            queue,
            _mount: mount,
        })
    }

    /// Returns the number of pages in the store right now.
    pub fn pages(&self) -> u64 {
        // SAFETY: The inode is valid.
        // CAST: An `unsigned long` fits.
        unsafe { bindings::dm_rust_store_pages(self.inode.as_ptr()) as u64 }
    }

    /// Adds a page, and drops pages that are too old. Pages in use, for example by a copy, are
    /// dropped by the next call. Returns `None` if there is no memory. Process context; does not
    /// wait for memory.
    pub fn keep(&self, page: StorablePage) -> Option<StoredPage<'_>> {
        let index = self.next.fetch_add(1, Relaxed);
        let inode = self.inode.as_ptr();
        if let Some(old) = index.checked_sub(self.most_pages) {
            // SAFETY: The inode is valid.
            // CAST: File indexes are `unsigned long`.
            unsafe { bindings::dm_rust_store_drop(inode, old as usize) };
        }
        // SAFETY: The page is ours and in no page cache.
        // CAST: File indexes are `unsigned long`.
        if !unsafe { bindings::dm_rust_store_add(inode, page.0.as_ptr(), index as usize) } {
            return None;
        }
        // SAFETY: The inode is valid.
        let mapping = MappingId::new(unsafe { bindings::dm_rust_store_mapping(inode) })?;
        // INVARIANT: The folio was locked when it was added.
        Some(StoredPage {
            page,
            mapping,
            index,
            store: PhantomData,
        })
    }
}

impl Drop for PageStore {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; this empties the page cache. The work of the queue is done
        // except for its last steps, which add no page: a store goes with the last target, after
        // all bios have ended.
        unsafe { bindings::dm_rust_store_free(self.inode.as_ptr()) };
    }
}

/// A private page that was filled from the disk.
///
/// # Invariants
///
/// Nothing writes to the page.
pub struct StorablePage(OwnPage);

impl StorablePage {
    /// # Safety
    ///
    /// The whole page was filled, and nothing writes to it any more.
    pub(crate) unsafe fn new(page: OwnPage) -> Self {
        // INVARIANT: By the safety requirements.
        Self(page)
    }

    /// Returns the content that the disk had.
    pub fn words(&self) -> &PageWords {
        // SAFETY: The page is valid and nothing writes to it, by the type invariant.
        unsafe { &*bindings::dm_rust_page_address(self.0.as_ptr()).cast() }
    }
}

/// A page that was just added to a store.
///
/// # Invariants
///
/// The folio of the page is locked by us, and in the store's page cache at `index`.
pub struct StoredPage<'a> {
    page: StorablePage,
    mapping: MappingId,
    index: u64,
    store: PhantomData<&'a PageStore>,
}

impl StoredPage<'_> {
    /// Returns the store's page cache.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// Returns the file index of the page.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl Drop for StoredPage<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; our reference is dropped afterwards.
        unsafe { bindings::dm_rust_store_unlock(self.page.0.as_ptr()) };
    }
}
