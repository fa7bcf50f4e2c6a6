// SPDX-License-Identifier: GPL-2.0

//! Data that tells whose it is.
//!
//! All files consist of units of 64 bytes. A unit's first word is its key: who wrote it, into
//! which file, in which write, and where in the file; the other words follow from the key. So
//! a unit that is read anywhere can be recognised, and a wrong one names its owner.

use std::fmt;

/// Bytes in a unit.
pub const UNIT: usize = 64;
/// 64-bit words in a unit.
pub const WORDS: usize = UNIT / 8;
/// Bytes of a page, which is what the totals count.
pub const PAGE: usize = 4096;

const AUTHOR_BITS: u32 = 12;
const FILE_BITS: u32 = 10;
const VERSION_BITS: u32 = 22;
const UNIT_BITS: u32 = 20;

/// One more than the highest author.
pub const AUTHORS: usize = 1 << AUTHOR_BITS;

/// Says what a unit contains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub u64);

impl Key {
    /// A unit of zeroes: a hole.
    pub const ZERO: Key = Key(0);
    /// After an error: zeroes, or anything that an ancestor of the reader wrote.
    pub const ANY: Key = Key(u64::MAX);

    /// The key of one unit. Authors count from 1, so no key is [`Key::ZERO`], and end before
    /// [`AUTHORS`] - 1, so none is [`Key::ANY`].
    pub fn new(author: u16, file: u16, version: u32, unit: usize) -> Key {
        debug_assert!(author > 0 && usize::from(author) < AUTHORS - 1);
        debug_assert!(u32::from(file) < 1 << FILE_BITS && unit < 1 << UNIT_BITS);
        let version = u64::from(version) & ((1 << VERSION_BITS) - 1);
        let mut key = u64::from(author);
        key = (key << FILE_BITS) | u64::from(file);
        key = (key << VERSION_BITS) | version;
        key = (key << UNIT_BITS) | unit as u64;
        Key(key)
    }

    /// Who wrote it.
    pub fn author(self) -> usize {
        (self.0 >> (FILE_BITS + VERSION_BITS + UNIT_BITS)) as usize
    }

    /// The file it was written to.
    pub fn file(self) -> u64 {
        (self.0 >> (VERSION_BITS + UNIT_BITS)) & ((1 << FILE_BITS) - 1)
    }

    /// Which of the author's writes to that file.
    pub fn version(self) -> u64 {
        (self.0 >> UNIT_BITS) & ((1 << VERSION_BITS) - 1)
    }

    /// The unit of the file that it was written to.
    pub fn unit(self) -> u64 {
        self.0 & ((1 << UNIT_BITS) - 1)
    }

    /// The content.
    pub fn words(self) -> [u64; WORDS] {
        if self == Key::ZERO {
            return [0; WORDS];
        }
        let mut words = [self.0; WORDS];
        for (word, factor) in words.iter_mut().zip(FACTORS).skip(1) {
            *word = self.0.wrapping_mul(factor);
        }
        words
    }

    /// The key of a unit as read, if it is the whole content of one.
    pub fn of(words: &[u64]) -> Option<Key> {
        let key = Key(words[0]);
        (key != Key::ANY && words == key.words()).then_some(key)
    }
}

/// Odd, so that each word tells the key.
const FACTORS: [u64; WORDS] = [
    1,
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Key::ZERO => write!(f, "zeroes"),
            Key::ANY => write!(f, "anything of its own"),
            key => write!(
                f,
                "author {} file {} write {} offset {:#x}",
                key.author(),
                key.file(),
                key.version(),
                key.unit() as usize * UNIT
            ),
        }
    }
}

/// Fills a buffer with the content of the keys.
pub fn fill(words: &mut [u64], keys: &[Key]) {
    for (unit, key) in words.chunks_exact_mut(WORDS).zip(keys) {
        unit.copy_from_slice(&key.words());
    }
}

/// The first unit from `start` on whose content isn't that of its key.
pub fn first_wrong(words: &[u64], keys: &[Key], start: usize) -> Option<usize> {
    let units = words.chunks_exact(WORDS).zip(keys).enumerate();
    units
        .skip(start)
        .find(|(_, (unit, key))| **unit != key.words())
        .map(|(index, _)| index)
}

/// Whether each byte of a unit is that of some candidate: what a read may see that races with
/// writes.
pub fn is_mixture(words: &[u64], candidates: &[Key]) -> bool {
    let candidates: Vec<[u64; WORDS]> = candidates.iter().map(|key| key.words()).collect();
    (0..UNIT).all(|byte| {
        let at = |words: &[u64]| words[byte / 8].to_ne_bytes()[byte % 8];
        candidates.iter().any(|words_| at(words_) == at(words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_tells_its_parts() {
        let key = Key::new(4000, 1000, 4_000_000, 1_000_000);
        assert_eq!((key.author(), key.file()), (4000, 1000));
        assert_eq!((key.version(), key.unit()), (4_000_000, 1_000_000));
        assert!(Key::of(&key.words()) == Some(key));
        assert!(Key::of(&[0; WORDS]) == Some(Key::ZERO));
    }

    #[test]
    fn foreign_byte_is_wrong() {
        let keys = [Key::new(1, 2, 3, 4), Key::ZERO, Key::new(1, 2, 3, 6)];
        let mut words = [0; 3 * WORDS];
        fill(&mut words, &keys);
        assert_eq!(first_wrong(&words, &keys, 0), None);
        words[2 * WORDS + 7] ^= 1 << 63;
        assert_eq!(first_wrong(&words, &keys, 0), Some(2));
        assert!(Key::of(&words[2 * WORDS..]).is_none());
    }

    #[test]
    fn mixture_is_of_candidates_only() {
        let (old, new, other) = (
            Key::new(1, 1, 1, 1),
            Key::new(1, 1, 2, 1),
            Key::new(2, 1, 1, 1),
        );
        let mut words = old.words();
        words[3..].copy_from_slice(&new.words()[3..]);
        assert!(is_mixture(&words, &[old, new]));
        words[5] = other.words()[5];
        assert!(!is_mixture(&words, &[old, new]));
    }
}
