// SPDX-License-Identifier: GPL-2.0

//! Whose data is read through a target, and from where: the target's row of the heatmap.
//!
//! A table of fixed size for the owners of what was read, and one for the donors of what was
//! served. Who comes when a table is full is not told apart from others.

use core::fmt::{self, Write};

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        SetOnce,
    },
};

use dm::{counters::Counters, index::hash};

use crate::layer::Who;

/// `N` counters of a layer.
pub(crate) struct Row<const N: usize> {
    /// [`Who::number`]; 0 is free. Set once.
    who: Atomic<u64>,
    /// From soon after that on; memory is taken only for layers that are counted.
    counters: SetOnce<Counters<N>>,
    /// What was counted before that, or if there was no memory.
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

    /// One that needs no layer. Fails with `ENOMEM`.
    fn ready() -> Result<Self> {
        let row = Self::new();
        row.counters.populate(Counters::new()?);
        Ok(row)
    }

    /// Takes a free row; returns whose it is now.
    fn claim(&self, who: u64) -> u64 {
        match self.who.cmpxchg(0, who, Relaxed) {
            Ok(_) => {
                if let Ok(counters) = Counters::new_atomic() {
                    self.counters.populate(counters);
                }
                who
            }
            // Another was first; it may be the same layer.
            Err(now) => now,
        }
    }

    fn add(&self, first: usize, counts: &[u64]) {
        if let Some(counters) = self.counters.as_ref() {
            for (at, count) in counts.iter().enumerate() {
                counters.add(first + at, *count);
            }
            return;
        }
        for (counter, count) in self.shared.iter().skip(first).zip(counts) {
            counter.add(*count, Relaxed);
        }
    }

    fn reset(&self) {
        if let Some(counters) = self.counters.as_ref() {
            counters.reset();
        }
        for counter in &self.shared {
            counter.store(0, Relaxed);
        }
    }

    fn counts(&self) -> [u64; N] {
        let sums = self.counters.as_ref().map_or([0; N], Counters::sums);
        core::array::from_fn(|at| sums[at].wrapping_add(self.shared[at].load(Relaxed)))
    }

    /// Serial number and thin id, and the counters, if one of them isn't zero.
    fn print(&self, kind: &str, out: &mut dyn Write) -> fmt::Result {
        let counts = self.counts();
        if counts == [0; N] {
            return Ok(());
        }
        match self.who.load(Relaxed) {
            0 => write!(out, "{kind} - -")?,
            // CAST: The halves.
            who => write!(out, "{kind} {} {}", who >> 32, who as u32)?,
        }
        for count in counts {
            write!(out, " {count}")?;
        }
        writeln!(out)
    }
}

/// Layers that a table tells apart; a power of two.
const ROWS: usize = 128;
/// Places that are looked at for a layer.
const PROBES: usize = 16;

/// A table of layers with `N` counters each.
struct Rows<const N: usize> {
    rows: KVVec<Row<N>>,
    others: Row<N>,
}

impl<const N: usize> Rows<N> {
    fn new() -> Result<Self> {
        let mut rows = KVVec::with_capacity(ROWS, GFP_KERNEL)?;
        for _ in 0..ROWS {
            rows.push(Row::new(), GFP_KERNEL)?;
        }
        Ok(Self {
            rows,
            others: Row::ready()?,
        })
    }

    /// The row of a layer; that of others for nobody, and if there is no room.
    fn of(&self, who: Option<Who>) -> &Row<N> {
        let Some(who) = who.and_then(Who::known).map(Who::number) else {
            return &self.others;
        };
        // CAST: Seven bits.
        let start = (hash(who) >> (u64::BITS - ROWS.trailing_zeros())) as usize;
        for step in 0..PROBES {
            let row = &self.rows[(start + step) % ROWS];
            let owner = match row.who.load(Relaxed) {
                0 => row.claim(who),
                owner => owner,
            };
            if owner == who {
                return row;
            }
        }
        &self.others
    }

    fn all(&self) -> impl Iterator<Item = &Row<N>> {
        Iterator::chain(self.rows.iter(), [&self.others])
    }
}

/// See the [module](self).
pub(crate) struct Heat {
    /// Reads and sectors from the disk, reads and sectors served.
    owners: Rows<4>,
    /// Sectors served.
    donors: Rows<1>,
    /// Writes and sectors.
    writes: Row<2>,
}

impl Heat {
    /// All zero. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            owners: Rows::new()?,
            donors: Rows::new()?,
            writes: Row::ready()?,
        })
    }

    /// A read of a block of `owner` went to the disk.
    pub(crate) fn not_served(&self, owner: Option<Who>, sectors: u32) {
        self.owners.of(owner).add(0, &[1, sectors.into()]);
    }

    /// A read of a block of `owner` was served.
    pub(crate) fn served(&self, owner: Option<Who>, sectors: u32) {
        self.owners.of(owner).add(2, &[1, sectors.into()]);
    }

    /// Some of it came from a page cache on the layer `donor`.
    pub(crate) fn donated(&self, donor: Option<Who>, sectors: u64) {
        self.donors.of(donor).add(0, &[sectors]);
    }

    /// A write.
    pub(crate) fn written(&self, sectors: u32) {
        self.writes.add(0, &[1, sectors.into()]);
    }

    /// Reads and sectors from the disk, reads and sectors served; whosever the blocks.
    pub(crate) fn reads(&self) -> [u64; 4] {
        let mut sums = [0u64; 4];
        for row in self.owners.all() {
            for (sum, count) in sums.iter_mut().zip(row.counts()) {
                *sum = sum.wrapping_add(count);
            }
        }
        sums
    }

    /// Zeroes all counters.
    pub(crate) fn reset(&self) {
        self.owners.all().for_each(Row::reset);
        self.donors.all().for_each(Row::reset);
        self.writes.reset();
    }

    /// Prints the counters, a line each, as `include/uapi/linux/dm-drr.h` says.
    pub(crate) fn print(&self, out: &mut dyn Write) -> fmt::Result {
        for row in self.owners.all() {
            row.print("read", out)?;
        }
        let [writes, sectors] = self.writes.counts();
        writeln!(out, "write {writes} {sectors}")?;
        for row in self.donors.all() {
            row.print("donor", out)?;
        }
        Ok(())
    }

    /// Prints whose page caches served, by thin id, for the status line.
    pub(crate) fn print_from(&self, out: &mut dyn Write) -> fmt::Result {
        let mut separator = " from=";
        for row in self.donors.all() {
            let ([sectors], who) = (row.counts(), row.who.load(Relaxed));
            if sectors == 0 {
                continue;
            }
            match who {
                0 => write!(out, "{separator}others:{sectors}")?,
                // CAST: The lower half.
                who => write!(out, "{separator}{}:{sectors}", who as u32)?,
            }
            separator = ",";
        }
        match separator {
            "," => Ok(()),
            none => write!(out, "{none}-"),
        }
    }
}

#[kunit_tests(drr_heat)]
mod tests {
    use super::*;
    use dm::printer::printed;

    fn who(serial: u32) -> Option<Who> {
        Some(Who {
            serial,
            thin_id: serial + 1000,
        })
    }

    #[test]
    fn counts_by_owner_and_donor() -> Result {
        let mut buffer = [0; 512];
        let heat = Heat::new()?;
        assert_eq!(
            printed(&mut buffer, |out| heat.print(out))?,
            &b"write 0 0\n"[..]
        );
        assert_eq!(
            printed(&mut buffer, |out| heat.print_from(out))?,
            &b" from=-"[..]
        );
        heat.not_served(who(5), 8);
        heat.not_served(who(5), 128);
        heat.served(who(5), 16);
        heat.not_served(None, 24);
        heat.written(32);
        heat.donated(who(7), 16);
        assert_eq!(heat.reads(), [3, 160, 1, 16]);
        assert_eq!(
            printed(&mut buffer, |out| heat.print(out))?,
            &b"read 5 1005 2 136 1 16\nread - - 1 24 0 0\nwrite 1 32\ndonor 7 1007 16\n"[..]
        );
        assert_eq!(
            printed(&mut buffer, |out| heat.print_from(out))?,
            &b" from=1007:16"[..]
        );
        heat.reset();
        assert_eq!(
            printed(&mut buffer, |out| heat.print(out))?,
            &b"write 0 0\n"[..]
        );
        Ok(())
    }

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
        let heat = Heat::new()?;
        // Twice as many as there is room for.
        // CAST: A small number.
        for serial in 1..=2 * ROWS as u32 {
            heat.served(who(serial), 8);
            heat.served(who(serial), 8);
        }
        let (mut named, mut sum) = (0, 0);
        for row in heat.owners.all() {
            let [_, _, ios, sectors] = row.counts();
            assert_eq!(sectors, ios * 8);
            named += u64::from(row.who.load(Relaxed) != 0);
            sum += ios;
        }
        // CAST: A small number.
        assert!(named > ROWS as u64 / 2 && named <= ROWS as u64);
        assert_eq!(sum, 4 * ROWS as u64);
        assert_eq!(
            heat.owners.others.counts()[2],
            2 * (2 * ROWS as u64 - named)
        );
        Ok(())
    }
}
