// SPDX-License-Identifier: GPL-2.0

//! Contents in the [directory](crate::pagecache::directory): their names and the digests of their
//! pages.

use core::num::NonZeroU64;

use kernel::{
    alloc::flags::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

use crate::{
    pagecache::page_bitmap,
    sync::rcu_arc::{RcuArc, RcuPtr},
};

/// The name of a content of [`page_bitmap::PAGES`] pages.
///
/// # Examples
///
/// The name of a block at a time. Consecutive blocks are hashed to neighbouring places.
///
/// ```ignore
/// #[derive(Clone, Copy, PartialEq)]
/// struct BlockName {
///     block: u64,
///     time: u32,
/// }
///
/// impl Name for BlockName {
///     fn hash(&self) -> u64 {
///         hash_near(self.time.into(), self.block)
///     }
/// }
/// ```
pub trait Name: Copy + PartialEq + Send + Sync {
    /// Returns the hash of the name.
    fn hash(&self) -> u64;
}

/// The digest of a page's content. How it is computed is up to the caller.
///
/// Digests are secret, so they can't be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(NonZeroU64);

/// Replaces the digest of a page for which two digests were seen: nothing is recorded for the page
/// any more, as long as the [`Content`] exists. A content exists as long as an extent refers to it.
const DISCORD: u64 = u64::MAX;

impl Digest {
    /// Creates the digest with these bits, or with 1 for the two values that have another meaning.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        match NonZeroU64::new(bits) {
            Some(digest) if bits != DISCORD => Self(digest),
            _ => Self(NonZeroU64::MIN),
        }
    }
}

/// What was known about the digest of a page when another was learned.
pub(crate) enum Learned {
    /// No digest was known.
    First,
    /// The same digest was known.
    Same,
    /// Another digest was known, so the page has two now.
    Other,
    /// The page was known to have two digests.
    Spoilt,
}

/// What is known about a content: its name, and the digests of its pages.
pub(crate) struct Content<N> {
    name: N,
    /// The [`Digest`] of each page, 0 if none is known yet, or [`DISCORD`].
    digests: [Atomic<u64>; page_bitmap::PAGES as usize],
}

impl<N> Content<N> {
    /// Returns the name of the content.
    pub(crate) fn name(&self) -> &N {
        &self.name
    }

    /// Returns the digest of page `page` if exactly one is known.
    pub(crate) fn digest(&self, page: u32) -> Option<Digest> {
        // CAST: A `u32` fits.
        let bits = self.digests.get(page as usize)?.load(Relaxed);
        NonZeroU64::new(bits)
            .filter(|bits| bits.get() != DISCORD)
            .map(Digest)
    }

    /// Returns the pages of which exactly one digest is known, bit *n* for page *n*.
    pub(crate) fn known(&self) -> u32 {
        // RANGE: Less than the bits of a mask.
        (0..page_bitmap::PAGES)
            .filter(|at| self.digest(*at).is_some())
            .fold(0, |known, at| known | 1 << at)
    }

    /// Learns the digest of page `at`, which must be less than [`page_bitmap::PAGES`]. Fully
    /// ordered.
    ///
    /// # Panics
    ///
    /// If `at` is not less than [`page_bitmap::PAGES`].
    pub(crate) fn learn(&self, at: u32, digest: Digest) -> Learned {
        match self.note(at, digest.0.get()) {
            0 => Learned::First,
            DISCORD => Learned::Spoilt,
            known if known == digest.0.get() => Learned::Same,
            _ => Learned::Other,
        }
    }

    /// Passes the digests of `pages` on to `other`, a content of the same name. Returns the pages
    /// for which `other` has another digest. Fully ordered.
    pub(crate) fn tell(&self, other: &Self, pages: u32) -> u32 {
        // RANGE: Less than the bits of a mask.
        pages_of(pages)
            .filter(|at| {
                let own = self.digests[*at as usize].load(Relaxed);
                let known = other.note(*at, own);
                known != 0 && known != own
            })
            .fold(0, |differ, at| differ | 1 << at)
    }

    /// Marks `pages` as having two digests. Fully ordered.
    pub(crate) fn spoil(&self, pages: u32) {
        // CAST: A `u32` fits.
        for digest in pages_of(pages).map(|at| &self.digests[at as usize]) {
            let mut old = digest.load(Relaxed);
            while let Err(now) = digest.cmpxchg(old, DISCORD, Full) {
                old = now;
            }
        }
    }

    /// Returns those of `pages` that have two digests. Fully ordered.
    pub(crate) fn spoilt(&self, pages: u32) -> u32 {
        // RANGE: Less than the bits of a mask.
        pages_of(pages)
            .filter(|at| self.digests[*at as usize].fetch_add(0, Full) == DISCORD)
            .fold(0, |spoilt, at| spoilt | 1 << at)
    }

    /// Stores the digest of page `at` if none is known. Returns what was known, or 0.
    fn note(&self, at: u32, digest: u64) -> u64 {
        // CAST: A `u32` fits.
        let known = self.digests[at as usize].cmpxchg(0, digest, Full);
        known.map_or_else(|known| known, |_| 0)
    }
}

/// Iterates over the numbers of the pages of `mask`, without bits that stand for no page.
fn pages_of(mask: u32) -> impl Iterator<Item = u32> {
    // RANGE: Less than the bits of a mask.
    (0..page_bitmap::PAGES).filter(move |at| mask >> at & 1 != 0)
}

/// A reference to a content, or none. Dropping the last reference to a content decrements
/// `contents`.
pub(crate) struct ContentRef<'d, N> {
    content: Option<RcuArc<Content<N>>>,
    contents: &'d Atomic<u64>,
}

impl<'d, N> ContentRef<'d, N> {
    /// Bytes of memory that a content takes.
    pub(crate) const BYTES: u64 = RcuArc::<Content<N>>::BYTES as u64;

    /// Wraps a reference to one of the contents that `contents` counts.
    pub(crate) fn new(content: Option<RcuArc<Content<N>>>, contents: &'d Atomic<u64>) -> Self {
        Self { content, contents }
    }

    /// Creates a content without digests, and counts it. Refers to none if there is no memory. Any
    /// context.
    pub(crate) fn make(name: N, contents: &'d Atomic<u64>) -> Self {
        let content = Content {
            name,
            digests: core::array::from_fn(|_| Atomic::new(0)),
        };
        let content = RcuArc::new(content, GFP_ATOMIC | __GFP_NOWARN).ok();
        contents.add(u64::from(content.is_some()), Relaxed);
        Self { content, contents }
    }

    /// Returns the content, if there is one.
    pub(crate) fn get(&self) -> Option<&Content<N>> {
        self.content.as_deref()
    }

    /// Returns a pointer to the content, to be stored for RCU readers once the reference is [handed
    /// over](Self::hand_over).
    pub(crate) fn ptr(&self) -> Option<RcuPtr<Content<N>>> {
        self.content.as_ref().map(RcuArc::ptr)
    }

    /// Hands the reference over to the pointer that [`Self::ptr`] has returned.
    pub(crate) fn hand_over(mut self) {
        core::mem::forget(self.content.take());
    }
}

impl<N> Drop for ContentRef<'_, N> {
    fn drop(&mut self) {
        if self.content.take().is_some_and(RcuArc::put) {
            self.contents.add(1u64.wrapping_neg(), Relaxed);
        }
    }
}
