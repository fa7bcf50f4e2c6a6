// SPDX-License-Identifier: GPL-2.0

//! Pages of a page cache that are about to be recorded in the
//! [directory](crate::pagecache::directory).

use core::marker::PhantomData;

use crate::{
    pagecache::folio::{LockedBuffer, MappingId, ReadPages},
    pagecache::page_store::StoredPage,
};

/// Consecutive pages of a page cache, in one folio or several.
///
/// # Invariants
///
/// For `'a`, all pages are in the page cache and their folios are locked. Pages do not leave this
/// page cache without an event.
pub struct CachedPages<'a> {
    pub(super) mapping: MappingId,
    /// File index of the first page.
    pub(super) first: u64,
    pub(super) count: u32,
    locked: PhantomData<&'a ()>,
}

impl<'a> CachedPages<'a> {
    /// Returns the pages that a read has filled, whose folio the reader has locked.
    pub fn read(pages: &ReadPages<'a>) -> Self {
        // INVARIANT: By the type invariant of `ReadPages`.
        Self {
            mapping: pages.mapping(),
            first: pages.first(),
            count: pages.count(),
            locked: PhantomData,
        }
    }

    /// Returns a page of a block device whose folio we have locked.
    pub fn buffer(page: &'a LockedBuffer) -> Self {
        // INVARIANT: The folio is locked, and in the page cache.
        Self {
            mapping: page.mapping(),
            first: page.index(),
            count: 1,
            locked: PhantomData,
        }
    }

    /// Returns a page that was just stored.
    pub fn stored(page: &'a StoredPage<'_>) -> Self {
        // INVARIANT: The folio is locked, and in the page cache.
        Self {
            mapping: page.mapping(),
            first: page.index(),
            count: 1,
            locked: PhantomData,
        }
    }

    /// Adds `next` if it follows in the page cache. Returns whether it does.
    pub fn extend(&mut self, next: &Self) -> bool {
        // RANGE: File indexes have 52 bits.
        let follows =
            next.mapping == self.mapping && next.first == self.first + u64::from(self.count);
        if follows {
            // INVARIANT: Holds for both.
            // RANGE: Both have pages of one read.
            self.count += next.count;
        }
        follows
    }

    /// Returns the number of pages.
    pub fn count(&self) -> u32 {
        self.count
    }
}
