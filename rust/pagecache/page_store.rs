// SPDX-License-Identifier: GPL-2.0

//! Pages of our own that are kept for a while, in a page cache of their own.
//!
//! The page cache is that of an inode without a name, in a file system that nobody else can reach. So the
//! pages are like any others to the kernel, which takes them back when memory is short, and to the
//! [directory](crate::pagecache::directory), which is told when they leave.
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

/// A file system of our own, in which stores have their inodes.
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
    /// Mounts it. Process context; fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        // SAFETY: May always be called, in process context.
        let mount = from_err_ptr(unsafe { bindings::dm_rust_mount_new() })?;
        // INVARIANT: Just made.
        NonNull::new(mount).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the stores that have it are gone.
        unsafe { bindings::dm_rust_mount_free(self.0.as_ptr()) };
    }
}

/// A page cache for pages of our own.
///
/// # Invariants
///
/// The inode is ours, and its page cache has only pages that were kept.
pub struct PageStore {
    inode: NonNull<inode>,
    /// File index of the next page.
    next: Atomic<u64>,
    most_pages: u64,
    /// In which pages are kept.
    pub(crate) queue: WorkQueue,
    // Dropped last.
    _mount: Arc<PrivateMount>,
}

// SAFETY: An inode may be used and put by any task.
unsafe impl Send for PageStore {}
// SAFETY: Page caches have locks of their own.
unsafe impl Sync for PageStore {}

impl PageStore {
    /// Makes a store that keeps about the newest `most_pages` pages. Process context; fails with `ENOMEM`.
    pub fn new(mount: Arc<PrivateMount>, most_pages: u64) -> Result<Self> {
        let queue = WorkQueue::in_task(c"drr_meta")?;
        // SAFETY: The mount is there.
        let inode = from_err_ptr(unsafe { bindings::dm_rust_store_new(mount.0.as_ptr()) })?;
        // INVARIANT: Just made.
        Ok(Self {
            inode: NonNull::new(inode).ok_or(ENOMEM)?,
            next: Atomic::new(0),
            most_pages,
            queue,
            _mount: mount,
        })
    }

    /// Pages that are kept right now.
    pub fn pages(&self) -> u64 {
        // SAFETY: The inode is there.
        // CAST: An `unsigned long` fits.
        unsafe { bindings::dm_rust_store_pages(self.inode.as_ptr()) as u64 }
    }

    /// Keeps a page, and drops those that are too old, except pages that a sibling is copying from: these go with the
    /// next call. Returns nothing if there is no memory. Process context; doesn't wait for memory.
    pub fn keep(&self, page: StorablePage) -> Option<StoredPage<'_>> {
        let index = self.next.fetch_add(1, Relaxed);
        let inode = self.inode.as_ptr();
        if let Some(old) = index.checked_sub(self.most_pages) {
            // SAFETY: The inode is there.
            // CAST: File indexes are `unsigned long`.
            unsafe { bindings::dm_rust_store_drop(inode, old as usize) };
        }
        // SAFETY: The page is ours, and in no page cache.
        // CAST: File indexes are `unsigned long`.
        if !unsafe { bindings::dm_rust_store_add(inode, page.0.as_ptr(), index as usize) } {
            return None;
        }
        // SAFETY: The inode is there.
        let mapping = MappingId::new(unsafe { bindings::dm_rust_store_mapping(inode) })?;
        // INVARIANT: It was locked when it was added.
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
        // SAFETY: By the type invariant; the page cache is emptied by that. The queue's work is done but for its
        // last steps, which keep nothing: a store goes with the last target, after all bios have ended.
        unsafe { bindings::dm_rust_store_free(self.inode.as_ptr()) };
    }
}

/// A page of our own that was filled from the disk.
///
/// # Invariants
///
/// Nobody writes to the page.
pub struct StorablePage(OwnPage);

impl StorablePage {
    /// # Safety
    ///
    /// The page has been filled as a whole, and nobody writes to it any more.
    pub(crate) unsafe fn new(page: OwnPage) -> Self {
        // INVARIANT: By the safety requirements.
        Self(page)
    }

    /// What the disk had.
    pub fn words(&self) -> &PageWords {
        // SAFETY: The page is there, and nobody writes to it, by the type invariant.
        unsafe { &*bindings::dm_rust_page_address(self.0.as_ptr()).cast() }
    }
}

/// A page that was just added to a store.
///
/// # Invariants
///
/// The page's folio is locked by us, and in the store's page cache at `index`.
pub struct StoredPage<'a> {
    page: StorablePage,
    mapping: MappingId,
    index: u64,
    store: PhantomData<&'a PageStore>,
}

impl StoredPage<'_> {
    /// The store's page cache.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// The page's file index.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl Drop for StoredPage<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; our reference is dropped after this.
        unsafe { bindings::dm_rust_store_unlock(self.page.0.as_ptr()) };
    }
}
