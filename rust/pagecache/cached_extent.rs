// SPDX-License-Identifier: GPL-2.0

//! The extents that the [directory](crate::pagecache::directory) consists of, and how its readers
//! see them.

use kernel::sync::rcu;

use crate::{
    pagecache::content::{Content, Digest, Name},
    pagecache::folio::{FolioRef, MappingId},
    pagecache::page_bitmap::{self, PageBitmap},
    sync::index::{hash_near, Chain, Entry, Keyed},
    sync::rcu_arc::RcuPtr,
};

/// Consecutive pages of a page cache that were read from consecutive pages of a content.
///
/// # Invariants
///
/// The reference in `content` is counted until the extent is removed from the index.
pub struct CachedExtent<N, H> {
    pub(super) content: RcuPtr<Content<N>>,
    pub(super) mapping: MappingId,
    /// File index of the page that holds, or would hold, the first page of the content. Wraps.
    pub(super) base: u64,
    pub(super) bits: PageBitmap,
    pub(super) holder: H,
    pub(super) hash: u32,
}

impl<N: Name, H: Copy + Send + Sync> Keyed for CachedExtent<N, H> {
    /// Returns the hash of the name, restored from 32 bits, which are enough for an index of any
    /// size.
    fn forward(&self) -> u64 {
        widen(self.hash)
    }

    /// Returns the hash of the page cache and the window. Adjacent windows have adjacent buckets,
    /// as files are read and dropped in order.
    fn reverse(&self) -> u64 {
        hash_near(self.mapping.hash_key(), page_bitmap::window(self.base))
    }
}

/// Reduces the hash of a name to the bits that choose a bucket: the upper ones and the lowest
/// three.
pub(super) fn half(hash: u64) -> u32 {
    // CAST: Truncates on purpose.
    (hash >> u32::BITS) as u32 & !7 | hash as u32 & 7
}

/// Returns a hash that chooses the same bucket as the one that was passed to [`half`].
fn widen(half: u32) -> u64 {
    // RANGE: Shifts 32 bits within 64.
    u64::from(half) << u32::BITS | u64::from(half & 7)
}

/// An extent as readers of the directory see it.
///
/// # Examples
///
/// Finds what is to be copied from a donor, and the digest that the copy must have.
///
/// ```ignore
/// let digest = donor.digest(page)?;
/// let folio = donor.folio(page)?;
/// let at = folio.page_at(donor.index(page))?;
/// let copied = folio.copy_page(at, words);
/// ```
pub struct Donor<'g, N, H> {
    pub(super) extent: &'g Entry<CachedExtent<N, H>>,
    pub(super) guard: &'g rcu::Guard,
}

impl<N, H> Clone for Donor<'_, N, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N, H> Copy for Donor<'_, N, H> {}

impl<'g, N: Name, H: Copy + Send + Sync> Donor<'g, N, H> {
    pub(super) fn content(&self) -> &'g Content<N> {
        content_of(self.extent, self.guard)
    }

    /// Returns the name of the content.
    pub fn name(&self) -> &'g N {
        self.content().name()
    }

    /// Returns the owner of the page cache.
    pub fn holder(&self) -> H {
        self.extent.holder
    }

    /// Returns the page cache.
    pub fn mapping(&self) -> MappingId {
        self.extent.mapping
    }

    /// Returns the file index of page `page` of the content.
    pub fn index(&self, page: u32) -> u64 {
        self.extent.base.wrapping_add(u64::from(page))
    }

    /// Returns the number of consecutive pages from `page` on that are in the directory right now.
    #[inline]
    pub fn pages_from(&self, page: u32) -> u32 {
        self.pages()
            .checked_shr(page)
            .map_or(0, |pages| pages.trailing_ones())
    }

    /// Returns the pages that are in the directory right now, bit *n* for page *n*.
    #[inline]
    pub fn pages(&self) -> u32 {
        self.extent.bits.pages()
    }

    /// Returns the pages of the extent that are between two file indexes, bit *n* for page *n*.
    pub fn pages_between(&self, first: u64, last: u64) -> u32 {
        page_bitmap::overlap(self.extent.base, first, last)
    }

    /// Returns the digest that a copy of page `page` must have.
    #[inline]
    pub fn digest(&self, page: u32) -> Option<Digest> {
        self.content().digest(page)
    }

    /// Returns a reference to the folio that holds page `page` of the content, or `None` if the
    /// page isn't in the directory or in the page cache any more.
    #[inline]
    pub fn folio(&self, page: u32) -> Option<FolioRef> {
        if self.pages_from(page) == 0 {
            return None;
        }
        // SAFETY: The page was in the directory just now, so after the guard was taken. It leaves
        // the page cache only after it was removed from the directory, so it was in the page cache,
        // and the mapping was alive. The memory of the mapping stays valid while the guard is held.
        unsafe { FolioRef::find(self.guard, self.extent.mapping, self.index(page)) }
    }
}

/// Returns the content of an extent that was found under `guard`.
#[inline]
pub(super) fn content_of<'g, N: Name, H: Copy + Send + Sync>(
    extent: &'g CachedExtent<N, H>,
    guard: &'g rcu::Guard,
) -> &'g Content<N> {
    // SAFETY: The index has found the extent, so it was linked at some moment after the guard was
    // taken, and its reference was not released before.
    unsafe { extent.content.get(guard) }
}

/// All extents of one name.
pub struct Holders<'g, N, H> {
    pub(super) chain: Chain<'g, CachedExtent<N, H>>,
    pub(super) name: &'g N,
    pub(super) guard: &'g rcu::Guard,
}

impl<'g, N: Name, H: Copy + Send + Sync> Holders<'g, N, H> {
    /// Returns the name.
    pub fn name(&self) -> &'g N {
        self.name
    }

    /// Iterates over the extents, the newest first.
    pub fn donors(&self) -> impl Iterator<Item = Donor<'g, N, H>> + use<'_, 'g, N, H> {
        let (guard, name) = (self.guard, self.name);
        let extents = self.chain.clone();
        extents
            .map(move |extent| Donor { extent, guard })
            .filter(move |donor| donor.name() == name)
    }
}
