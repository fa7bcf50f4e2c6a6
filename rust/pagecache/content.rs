// SPDX-License-Identifier: GPL-2.0

//! What the [directory](crate::pagecache::directory) knows of a content: its name and its pages' digests.

use core::num::NonZeroU64;

use kernel::{
    alloc::flags::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

use crate::{
    pagecache::page_bitmap,
    sync::rcu_arc::{RcuArc, RcuPtr},
};

/// The digest of a page's content; how it is made is the caller's business.
///
/// Digests are secret: they can't be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(NonZeroU64);

/// Stands for the digest of a page that had two: nothing is recorded for it any more.
const DISCORD: u64 = u64::MAX;

impl Digest {
    /// The digest with these bits; 1 for the two values that stand for something else.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        match NonZeroU64::new(bits) {
            Some(digest) if bits != DISCORD => Self(digest),
            _ => Self(NonZeroU64::MIN),
        }
    }
}

/// What was known of a page's digest when another was learned.
pub(crate) enum Learned {
    /// Nothing.
    First,
    /// The same.
    Same,
    /// Another; the page has two digests now.
    Other,
    /// That it had two already.
    Spoilt,
}

/// What is known of a content: its name, and the digests of its pages.
pub(crate) struct Content<N> {
    name: N,
    /// [`Digest`]s, 0 for none yet, or [`DISCORD`].
    digests: [Atomic<u64>; page_bitmap::PAGES as usize],
}

impl<N> Content<N> {
    /// The content's name.
    pub(crate) fn name(&self) -> &N {
        &self.name
    }

    /// The digest of page `page`, if it is known and the page has just one.
    pub(crate) fn digest(&self, page: u32) -> Option<Digest> {
        // CAST: A `u32` fits.
        let bits = self.digests.get(page as usize)?.load(Relaxed);
        NonZeroU64::new(bits)
            .filter(|bits| bits.get() != DISCORD)
            .map(Digest)
    }

    /// The pages whose digest is known.
    pub(crate) fn known(&self) -> u32 {
        // RANGE: Less than a mask's bits.
        (0..page_bitmap::PAGES)
            .filter(|at| self.digest(*at).is_some())
            .fold(0, |known, at| known | 1 << at)
    }

    /// Takes note of the digest of page `at`, which there is. Fully ordered.
    pub(crate) fn learn(&self, at: u32, digest: Digest) -> Learned {
        match self.note(at, digest.0.get()) {
            0 => Learned::First,
            DISCORD => Learned::Spoilt,
            known if known == digest.0.get() => Learned::Same,
            _ => Learned::Other,
        }
    }

    /// Tells `other`, a content of the same name, what is known of the digests of these pages; returns the pages
    /// of which the two know different things. Fully ordered.
    pub(crate) fn tell(&self, other: &Self, pages: u32) -> u32 {
        // RANGE: Less than a mask's bits.
        pages_of(pages)
            .filter(|at| {
                let own = self.digests[*at as usize].load(Relaxed);
                let known = other.note(*at, own);
                known != 0 && known != own
            })
            .fold(0, |differ, at| differ | 1 << at)
    }

    /// These pages have two digests. Fully ordered.
    pub(crate) fn spoil(&self, pages: u32) {
        // CAST: A `u32` fits.
        for digest in pages_of(pages).map(|at| &self.digests[at as usize]) {
            let mut old = digest.load(Relaxed);
            while let Err(now) = digest.cmpxchg(old, DISCORD, Full) {
                old = now;
            }
        }
    }

    /// Of these pages, those that have two digests. Fully ordered.
    pub(crate) fn spoilt(&self, pages: u32) -> u32 {
        // RANGE: Less than a mask's bits.
        pages_of(pages)
            .filter(|at| self.digests[*at as usize].fetch_add(0, Full) == DISCORD)
            .fold(0, |spoilt, at| spoilt | 1 << at)
    }

    /// Stores the digest of page `at` if none is known; returns what was known, 0 for nothing.
    fn note(&self, at: u32, digest: u64) -> u64 {
        // CAST: A `u32` fits.
        let known = self.digests[at as usize].cmpxchg(0, digest, Full);
        known.map_or_else(|known| known, |_| 0)
    }
}

/// The numbers of the pages of `mask`, as far as they are a content's.
fn pages_of(mask: u32) -> impl Iterator<Item = u32> {
    // RANGE: Less than a mask's bits.
    (0..page_bitmap::PAGES).filter(move |at| mask >> at & 1 != 0)
}

/// A reference to a content, if there was one to be had. Dropped as the last one, it counts the contents down.
pub(crate) struct ContentRef<'d, N> {
    content: Option<RcuArc<Content<N>>>,
    contents: &'d Atomic<u64>,
}

impl<'d, N> ContentRef<'d, N> {
    /// Bytes of memory that a content takes.
    pub(crate) const BYTES: u64 = RcuArc::<Content<N>>::BYTES as u64;

    /// A reference to one of the contents that `contents` counts.
    pub(crate) fn new(content: Option<RcuArc<Content<N>>>, contents: &'d Atomic<u64>) -> Self {
        Self { content, contents }
    }

    /// Makes a content of which no digest is known, and counts it; refers to none if there is no memory. Any context.
    pub(crate) fn make(name: N, contents: &'d Atomic<u64>) -> Self {
        let content = Content {
            name,
            digests: core::array::from_fn(|_| Atomic::new(0)),
        };
        let content = RcuArc::new(content, GFP_ATOMIC | __GFP_NOWARN).ok();
        contents.add(u64::from(content.is_some()), Relaxed);
        Self { content, contents }
    }

    /// The content.
    pub(crate) fn get(&self) -> Option<&Content<N>> {
        self.content.as_deref()
    }

    /// A pointer to the content, to be kept for RCU readers once the reference is [handed over](Self::hand_over).
    pub(crate) fn ptr(&self) -> Option<RcuPtr<Content<N>>> {
        self.content.as_ref().map(RcuArc::ptr)
    }

    /// Leaves the reference to the pointer that [`Self::ptr`] made.
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
