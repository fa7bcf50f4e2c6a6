// SPDX-License-Identifier: GPL-2.0

//! Counters of many layers: a table of fixed size.

use core::fmt::{self, Write};

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        SetOnce,
    },
};

use dm::{
    sync::cells::cells,
    sync::counters::Counters,
    sync::index::{hash, slot},
};

use crate::layers::id::LayerId;

/// `N` counters of a layer.
pub(crate) struct Row<const N: usize> {
    /// [`LayerId::to_bits`] of the layer; 0 if the row is free. Set once.
    who: Atomic<u64>,
    /// Counters for each CPU, set soon after `who`; so only layers that are counted take memory for
    /// them.
    counters: SetOnce<Counters<N>>,
    /// Counts from before `counters` was set, or without memory for it.
    shared: [Atomic<u64>; N],
}

impl<const N: usize> Row<N> {
    fn new() -> Self {
        Self {
            who: Atomic::new(0),
            counters: SetOnce::new(),
            shared: [const { Atomic::new(0) }; N],
        }
    }

    /// Creates a row with counters for each CPU, and without a layer. Fails with `ENOMEM`.
    pub(crate) fn ready() -> Result<Self> {
        let row = Self::new();
        row.counters.populate(Counters::new()?);
        Ok(row)
    }

    /// Claims the row for `who` if the row is free. Returns the layer that has the row now.
    fn claim(&self, who: u64, each_cpu: bool) -> u64 {
        match self.who.cmpxchg(0, who, Relaxed) {
            Ok(_) => {
                if let (true, Ok(counters)) = (each_cpu, Counters::new_atomic()) {
                    self.counters.populate(counters);
                }
                who
            }
            // Another CPU was first, perhaps for the same layer.
            Err(now) => now,
        }
    }

    /// Adds `counts` to the counters from number `first` on.
    pub(crate) fn add(&self, first: usize, counts: &[u64]) {
        if let Some(counters) = self.counters.as_ref() {
            for (at, count) in counts.iter().enumerate() {
                // RANGE: A counter's number, less than `N`.
                counters.add(first + at, *count);
            }
            return;
        }
        for (counter, count) in self.shared.iter().skip(first).zip(counts) {
            counter.add(*count, Relaxed);
        }
    }

    /// Zeroes the counters; the row keeps its layer.
    pub(crate) fn reset(&self) {
        if let Some(counters) = self.counters.as_ref() {
            counters.reset();
        }
        for counter in &self.shared {
            counter.store(0, Relaxed);
        }
    }

    /// Returns the row's layer, or [`None`] if the row is free, or counts all other layers.
    pub(crate) fn who(&self) -> Option<LayerId> {
        LayerId::from_bits(self.who.load(Relaxed)).known()
    }

    /// Returns the values of the counters.
    pub(crate) fn counts(&self) -> [u64; N] {
        let sums = self.counters.as_ref().map_or([0; N], Counters::sums);
        core::array::from_fn(|at| sums[at].wrapping_add(self.shared[at].load(Relaxed)))
    }

    /// Prints a line with serial number, thin id and counters, unless all counters are zero.
    pub(crate) fn print(&self, kind: &str, out: &mut dyn Write) -> fmt::Result {
        let counts = self.counts();
        if counts == [0; N] {
            return Ok(());
        }
        match self.who() {
            None => write!(out, "{kind} - -")?,
            Some(who) => write!(out, "{kind} {} {}", who.serial, who.thin_id)?,
        }
        for count in counts {
            write!(out, " {count}")?;
        }
        writeln!(out)
    }
}

/// Rows that are probed for a layer: a bound for the time that a read takes to be counted.
const PROBES: usize = 16;

/// A table of layers with `N` counters each. Layers that don't find a row are counted together.
pub(crate) struct LayerCounters<const N: usize> {
    /// The rows; their number is a power of two.
    rows: KVVec<Row<N>>,
    others: Row<N>,
    each_cpu: bool,
}

impl<const N: usize> LayerCounters<N> {
    /// Creates a table of `rows` rows, a power of two from 2 on, for counters that many CPUs use
    /// all the time. Process context; fails with `ENOMEM`.
    pub(crate) fn new(rows: usize) -> Result<Self> {
        Self::with(rows, Row::ready()?, true)
    }

    /// Creates a table that one task fills once: rows have no counters for each CPU. Otherwise as
    /// [`Self::new`].
    pub(crate) fn for_once(rows: usize) -> Result<Self> {
        Self::with(rows, Row::new(), false)
    }

    fn with(size: usize, others: Row<N>, each_cpu: bool) -> Result<Self> {
        Ok(Self {
            rows: cells(size, Row::new)?,
            others,
            each_cpu,
        })
    }

    /// Returns the row of a layer; the common row if `who` isn't known, or if there is no room.
    ///
    /// # Panics
    ///
    /// If the table has no rows, or, with `CONFIG_RUST_OVERFLOW_CHECKS`, if it has one.
    pub(crate) fn of(&self, who: Option<LayerId>) -> &Row<N> {
        let Some(who) = who.and_then(LayerId::known).map(LayerId::to_bits) else {
            return &self.others;
        };
        let size = self.rows.len();
        let start = slot(hash(who), size);
        for step in 0..PROBES {
            // RANGE: `start` is less than the number of rows, and `step` less than `PROBES`.
            let row = &self.rows[(start + step) % size];
            let owner = match row.who.load(Relaxed) {
                0 => row.claim(who, self.each_cpu),
                owner => owner,
            };
            if owner == who {
                return row;
            }
        }
        &self.others
    }

    /// Returns all rows, the common row last.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Row<N>> {
        Iterator::chain(self.rows.iter(), [&self.others])
    }
}

#[kunit_tests(drr_rows)]
mod tests {
    use super::*;

    #[test]
    fn counts_before_there_is_memory() -> Result {
        let row = Row::<2>::new();
        row.add(0, &[1, 8]);
        row.add(1, &[16]);
        assert_eq!(row.counts(), [1, 24]);
        row.counters.populate(Counters::new()?);
        row.add(0, &[1, 8]);
        assert_eq!(row.counts(), [2, 32]);
        row.reset();
        assert_eq!(row.counts(), [0, 0]);
        Ok(())
    }

    #[test]
    fn who_finds_no_room_is_one_of_others() -> Result {
        const ROWS: u32 = 128;
        // CAST: A small number.
        let size = ROWS as usize;
        for table in [
            LayerCounters::<2>::new(size)?,
            LayerCounters::for_once(size)?,
        ] {
            // Twice as many layers as there are rows, and serial number 0, which is no known layer.
            for serial in 0..=2 * ROWS {
                let who = Some(LayerId { serial, thin_id: 7 });
                table.of(who).add(0, &[1, 8]);
                table.of(who).add(0, &[1, 8]);
            }
            let (mut named, mut sum) = (0, 0);
            for row in table.all() {
                let [ios, sectors] = row.counts();
                assert_eq!(sectors, ios * 8);
                named += u64::from(row.who().is_some());
                sum += ios;
            }
            assert!(named > u64::from(ROWS / 2) && named <= u64::from(ROWS));
            assert_eq!(sum, 2 * (2 * u64::from(ROWS) + 1));
            assert_eq!(table.others.counts()[0], sum - 2 * named);
        }
        Ok(())
    }
}
