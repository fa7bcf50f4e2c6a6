// SPDX-License-Identifier: GPL-2.0

//! A target's row of the heatmap: which layers wrote the data that is read through the target, and
//! which page caches serve it.
//!
//! One [table of layers](crate::layers::layer_counters) counts reads by owner, another counts
//! sectors served by donor.

use core::fmt::{self, Write};

use kernel::prelude::*;

use crate::{
    layers::id::LayerId,
    layers::layer_counters::{LayerCounters, Row},
};

/// Layers that a table tells apart: an image and all that it was built from, many times over. A
/// row takes a cache line for each CPU.
const ROWS: usize = 128;

/// Counters of a target's I/O by layer, see the [module](self).
pub(crate) struct Heatmap {
    /// By owner: reads and sectors from the disk, reads and sectors served.
    owners: LayerCounters<4>,
    /// By donor: sectors served.
    donors: LayerCounters<1>,
    /// Writes and their sectors.
    writes: Row<2>,
}

impl Heatmap {
    /// Creates counters that are all zero. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            owners: LayerCounters::new(ROWS)?,
            donors: LayerCounters::new(ROWS)?,
            writes: Row::ready()?,
        })
    }

    /// Counts a read of a block of `owner` that went to the disk.
    pub(crate) fn not_served(&self, owner: Option<LayerId>, sectors: u32) {
        self.owners.of(owner).add(0, &[1, sectors.into()]);
    }

    /// Counts a read of a block of `owner` that was served.
    pub(crate) fn served(&self, owner: Option<LayerId>, sectors: u32) {
        self.owners.of(owner).add(2, &[1, sectors.into()]);
    }

    /// Counts sectors of a served read that came from a page cache of the layer `donor`.
    pub(crate) fn donated(&self, donor: Option<LayerId>, sectors: u64) {
        self.donors.of(donor).add(0, &[sectors]);
    }

    /// Counts a write, a discard or a write of zeroes.
    pub(crate) fn written(&self, sectors: u32) {
        self.writes.add(0, &[1, sectors.into()]);
    }

    /// Returns reads and sectors from the disk, and reads and sectors served, of all owners
    /// together.
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

    /// Prints the counters, one line each, in the format of `include/uapi/linux/dm-drr.h`.
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

    /// Prints, for the status line, the sectors that each donor has served, by thin id.
    pub(crate) fn print_from(&self, out: &mut dyn Write) -> fmt::Result {
        let mut separator = " from=";
        for row in self.donors.all() {
            let [sectors] = row.counts();
            if sectors == 0 {
                continue;
            }
            match row.who() {
                None => write!(out, "{separator}others:{sectors}")?,
                Some(who) => write!(out, "{separator}{}:{sectors}", who.thin_id)?,
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
    use dm::target::status_buffer::printed;

    fn who(serial: u32) -> Option<LayerId> {
        Some(LayerId {
            serial,
            thin_id: serial + 1000,
        })
    }

    #[test]
    fn counts_by_owner_and_donor() -> Result {
        let mut buffer = [0; 512];
        let heat = Heatmap::new()?;
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
}
