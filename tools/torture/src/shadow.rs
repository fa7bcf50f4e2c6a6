// SPDX-License-Identifier: GPL-2.0

//! What a file ought to contain.
//!
//! The shadow has a key for each unit. Reads and writes of one file may overlap in time: a
//! read notes the keys when it begins, and the shadow remembers the writes that were under
//! way since. Such a read may see the old or the new bytes, and nothing else.

use crate::content::Key;
use std::ops::Range;
use std::sync::Arc;

/// A write, from its start until no read overlaps with it.
struct Write {
    units: Range<usize>,
    keys: NewKeys,
    /// When it ended.
    end: Option<u64>,
}

/// What a write leaves in its range.
#[derive(Clone, Copy)]
pub enum NewKeys {
    /// Zeroes.
    Zero,
    /// The author's data; file, version.
    Data(u16, u16, u32),
}

impl NewKeys {
    /// The key for a unit of the file.
    pub fn at(self, unit: usize) -> Key {
        match self {
            NewKeys::Zero => Key::ZERO,
            NewKeys::Data(author, file, version) => Key::new(author, file, version, unit),
        }
    }
}

/// The expected content of one file, and the reads and writes under way.
pub struct Shadow {
    keys: Arc<Vec<Key>>,
    clock: u64,
    writes: Vec<Write>,
    /// Start times of the reads under way.
    reads: Vec<u64>,
    versions: u32,
}

impl Shadow {
    /// A file with this content.
    pub fn new(keys: Arc<Vec<Key>>) -> Self {
        Shadow {
            keys,
            clock: 1,
            writes: Vec::new(),
            reads: Vec::new(),
            versions: 0,
        }
    }

    /// The keys, to be kept unchanged: for a snapshot.
    pub fn keys(&self) -> Arc<Vec<Key>> {
        self.keys.clone()
    }

    /// The file's size in units.
    pub fn units(&self) -> usize {
        self.keys.len()
    }

    /// A number that no earlier write of this file had.
    pub fn next_version(&mut self) -> u32 {
        self.versions += 1;
        self.versions
    }

    /// Changes keys at will, with nothing under way.
    pub fn change(&mut self) -> &mut Vec<Key> {
        Arc::make_mut(&mut self.keys)
    }

    /// A read begins: copies its keys, returns its start time.
    pub fn begin_read(&mut self, units: Range<usize>, keys: &mut Vec<Key>) -> u64 {
        keys.clear();
        keys.extend_from_slice(&self.keys[units]);
        self.reads.push(self.clock);
        self.clock
    }

    /// A read has ended, and its bytes have been judged.
    pub fn end_read(&mut self, start: u64) {
        if let Some(index) = self.reads.iter().position(|&read| read == start) {
            self.reads.swap_remove(index);
        }
        let oldest = self.reads.iter().copied().min().unwrap_or(u64::MAX);
        self.writes
            .retain(|write| write.end.is_none_or(|end| end > oldest));
    }

    /// A write within the file begins. Only one is under way at a time.
    pub fn begin_write(&mut self, units: Range<usize>, keys: NewKeys) {
        self.writes.push(Write {
            units,
            keys,
            end: None,
        });
    }

    /// The write has ended. After an error its range may have any content of its own.
    pub fn end_write(&mut self, succeeded: bool) {
        self.clock += 1;
        let Some(write) = self.writes.iter_mut().find(|write| write.end.is_none()) else {
            return;
        };
        write.end = Some(self.clock);
        let keys = Arc::make_mut(&mut self.keys);
        for unit in write.units.clone() {
            keys[unit] = if succeeded {
                write.keys.at(unit)
            } else {
                Key::ANY
            };
        }
        if self.reads.is_empty() {
            self.writes.clear();
        }
    }

    /// What a read that began at `start` may see in a unit besides what was there then.
    pub fn written_since(&self, start: u64, unit: usize) -> Vec<Key> {
        let overlaps =
            |write: &&Write| write.units.contains(&unit) && write.end.is_none_or(|end| end > start);
        self.writes
            .iter()
            .filter(overlaps)
            .map(|write| write.keys.at(unit))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(units: usize) -> Shadow {
        Shadow::new(Arc::new(
            (0..units).map(|unit| Key::new(1, 1, 0, unit)).collect(),
        ))
    }

    #[test]
    fn read_after_write_sees_only_new() {
        let mut shadow = shadow(8);
        let mut keys = Vec::new();
        shadow.begin_write(2..4, NewKeys::Data(2, 1, 1));
        shadow.end_write(true);
        let start = shadow.begin_read(0..8, &mut keys);
        assert!(keys[2] == Key::new(2, 1, 1, 2) && keys[4] == Key::new(1, 1, 0, 4));
        assert!(shadow.written_since(start, 2).is_empty());
        shadow.end_read(start);
    }

    #[test]
    fn read_during_write_sees_either() {
        let mut shadow = shadow(8);
        let mut keys = Vec::new();
        shadow.begin_write(2..4, NewKeys::Zero);
        let start = shadow.begin_read(0..8, &mut keys);
        assert!(keys[2] == Key::new(1, 1, 0, 2));
        shadow.end_write(true);
        assert!(shadow.written_since(start, 2) == [Key::ZERO]);
        assert!(shadow.written_since(start, 4).is_empty());
        shadow.end_read(start);
        assert!(shadow.writes.is_empty());
    }

    #[test]
    fn failed_write_leaves_anything() {
        let mut shadow = shadow(4);
        shadow.begin_write(0..1, NewKeys::Zero);
        shadow.end_write(false);
        assert!(shadow.keys()[0] == Key::ANY);
    }
}
