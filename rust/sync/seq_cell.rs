// SPDX-License-Identifier: GPL-2.0

//! A few words that are read without a lock: all of them of the same write, or not at all.
//!
//! A sequence lock on which nobody waits: who meets a writer gets nothing, and who would write
//! leaves it. So it is good for what may as well be forgotten, in any context.
//!
//! The sequence is odd while somebody writes. He makes it so with a full barrier, and then even again
//! with a release: whoever has seen one of his words, and then asks for the sequence behind a read
//! barrier, finds it changed; and whoever sees it even sees all of his words.
//!
//! C header: [`include/linux/seqlock.h`](srctree/include/linux/seqlock.h)

use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        barrier::{smp_mb, Read},
    },
};

/// `N` words, in a cache line of their own if they are no more than seven.
#[repr(align(64))]
pub struct SeqCell<const N: usize> {
    sequence: Atomic<u64>,
    words: [Atomic<u64>; N],
}

impl<const N: usize> SeqCell<N> {
    /// All zero.
    pub fn new() -> Self {
        Self {
            sequence: Atomic::new(0),
            words: core::array::from_fn(|_| Atomic::new(0)),
        }
    }

    /// The words of one write, or nothing if one is under way.
    #[inline]
    pub fn read(&self) -> Option<[u64; N]> {
        let sequence = self.sequence.load(Acquire);
        let words = core::array::from_fn(|at| self.words[at].load(Relaxed));
        smp_mb(Read);
        let whole = sequence % 2 == 0 && self.sequence.load(Relaxed) == sequence;
        whole.then_some(words)
    }

    /// Writes the words, unless somebody else is writing; returns whether it did.
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
