// SPDX-License-Identifier: GPL-2.0

//! A few words that are read together without a lock.
//!
//! Works like a sequence lock on which neither side waits: a reader that meets a writer gets
//! nothing, and a writer that meets another writer writes nothing. So it suits data that may be
//! lost, in any context.
//!
//! The writer makes the sequence odd with a full barrier, and even again with a release store. A
//! reader that has seen a word of the writer finds the sequence changed when it reads the sequence
//! after its read barrier. A reader whose first load sees the new even sequence sees all words of
//! the writer.
//!
//! C header: [`include/linux/seqlock.h`](srctree/include/linux/seqlock.h)

use kernel::{
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed, Release},
};

use crate::compat::read_barrier;

/// `N` words and their sequence, in a cache line of their own if `N` is at most seven.
///
/// # Examples
///
/// A cache of lookups of blocks, which may be lost. Cells that were never written hold block 0, so
/// blocks count from 1.
///
/// ```ignore
/// let count = by_memory(256, 256, 1 << 16);
/// let cache = cells(count, SeqCell::<3>::new)?;
///
/// let cell = &cache[block as usize % count];
/// let known = cell.read().filter(|[its_block, ..]| *its_block == block);
/// if known.is_none() {
///     let (data_block, time) = look_up(block)?;
///     cell.write(&[block, data_block, time]);
/// }
/// ```
#[repr(align(64))]
pub struct SeqCell<const N: usize> {
    sequence: Atomic<u64>,
    words: [Atomic<u64>; N],
}

impl<const N: usize> SeqCell<N> {
    /// Creates words that are zero.
    pub fn new() -> Self {
        Self {
            sequence: Atomic::new(0),
            words: core::array::from_fn(|_| Atomic::new(0)),
        }
    }

    /// Returns the words of one write, or `None` if a write was under way during the call. Any
    /// context.
    #[inline]
    pub fn read(&self) -> Option<[u64; N]> {
        let sequence = self.sequence.load(Acquire);
        let words = core::array::from_fn(|at| self.words[at].load(Relaxed));
        read_barrier();
        let whole = sequence % 2 == 0 && self.sequence.load(Relaxed) == sequence;
        whole.then_some(words)
    }

    /// Writes the words unless another write is under way. Returns whether they were written. Any
    /// context.
    pub fn write(&self, words: &[u64; N]) -> bool {
        let sequence = self.sequence.load(Relaxed);
        let writing = sequence.wrapping_add(1);
        if sequence % 2 != 0 || self.sequence.cmpxchg(sequence, writing, Full).is_err() {
            return false;
        }
        for (word, value) in self.words.iter().zip(words) {
            word.store(*value, Relaxed);
        }
        self.sequence.store(writing.wrapping_add(1), Release);
        true
    }
}

impl<const N: usize> Default for SeqCell<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[kunit_tests(dm_seqcell)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_written() {
        let cell = SeqCell::new();
        assert_eq!(cell.read(), Some([0; 3]));
        assert!(cell.write(&[1, 2, 3]));
        assert_eq!(cell.read(), Some([1, 2, 3]));
        assert!(cell.write(&[4, 5, u64::MAX]));
        assert_eq!(cell.read(), Some([4, 5, u64::MAX]));
    }

    #[test]
    fn gives_nothing_while_it_is_written() {
        let cell = SeqCell::new();
        assert!(cell.write(&[1]));
        cell.sequence.add(1, Relaxed);
        assert_eq!(cell.read(), None);
        assert!(!cell.write(&[2]));
        cell.sequence.add(1, Relaxed);
        assert_eq!(cell.read(), Some([1]));
    }

    #[test]
    fn is_a_cache_line() {
        assert_eq!(size_of::<SeqCell<7>>(), 64);
        assert_eq!(align_of::<SeqCell<1>>(), 64);
    }
}
