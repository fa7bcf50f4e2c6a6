// SPDX-License-Identifier: GPL-2.0

//! Figures of a target.

use core::fmt::{self, Write};

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use dm::folio::PAGE_SECTORS;

use crate::{copy::Sources, heat::Heat, layer::Who};

/// Why a read went to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Miss {
    /// The block is not shared, or not mapped at all.
    Unshared,
    /// Where the block is mapped can't be told without reading metadata.
    Metadata,
    /// Part of it has no donor.
    NoRecord,
    /// Part of it has donors, but none could be copied at this moment.
    Busy,
    /// Its mapping changed meanwhile.
    Changed,
    /// It doesn't start or end at a page of the block, or its data is encrypted on the way.
    Layout,
}

/// The reasons, by their numbers, as status names them.
const MISSES: [&str; 6] = [
    "miss_unshared",
    "miss_metadata",
    "miss_norecord",
    "miss_busy",
    "miss_changed",
    "miss_layout",
];

/// Counters of a target, in bios and sectors since it was made or reset.
pub(crate) struct Stats {
    reads: Atomic<u64>,
    read_sectors: Atomic<u64>,
    hits: Atomic<u64>,
    hit_sectors: Atomic<u64>,
    misses: [Atomic<u64>; MISSES.len()],
    recorded_sectors: Atomic<u64>,
    /// Second reads of paranoid mode that gave a verdict, and those that gave a bad one.
    verified: Atomic<u64>,
    mismatches: Atomic<u64>,
    /// Of whose blocks.
    pub(crate) heat: Heat,
}

/// Sectors in so many pages.
pub(crate) fn sectors_of(pages: u32) -> u64 {
    u64::from(pages) * u64::from(PAGE_SECTORS)
}

fn bump(counter: &Atomic<u64>, by: u64) {
    counter.add(by, Relaxed);
}

impl Stats {
    /// All zero. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            reads: Atomic::new(0),
            read_sectors: Atomic::new(0),
            hits: Atomic::new(0),
            hit_sectors: Atomic::new(0),
            misses: [const { Atomic::new(0) }; MISSES.len()],
            recorded_sectors: Atomic::new(0),
            verified: Atomic::new(0),
            mismatches: Atomic::new(0),
            heat: Heat::new()?,
        })
    }

    /// A read came.
    pub(crate) fn read(&self, sectors: u32) {
        bump(&self.reads, 1);
        bump(&self.read_sectors, sectors.into());
    }

    /// A read of a block of `owner` went to the disk.
    pub(crate) fn miss(&self, miss: Miss, owner: Option<Who>, sectors: u32) {
        bump(&self.misses[miss as usize], 1);
        self.heat.not_served(owner, sectors);
    }

    /// A read of a block of `owner` was served.
    pub(crate) fn hit(&self, owner: Option<Who>, sectors: u32, sources: &Sources) {
        bump(&self.hits, 1);
        bump(&self.hit_sectors, sectors.into());
        self.heat.served(owner, sectors);
        for source in sources.known() {
            self.heat
                .donated(Some(source.layer), sectors_of(source.pages));
        }
        if sources.others() != 0 {
            self.heat.donated(None, sectors_of(sources.others()));
        }
    }

    /// Pages of a read can donate now.
    pub(crate) fn recorded(&self, pages: u32) {
        bump(&self.recorded_sectors, sectors_of(pages));
    }

    /// A hit was compared with the disk.
    pub(crate) fn verified(&self, same: bool) {
        bump(&self.verified, 1);
        if !same {
            bump(&self.mismatches, 1);
        }
    }

    /// Zeroes all counters.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.reads,
            &self.read_sectors,
            &self.hits,
            &self.hit_sectors,
            &self.recorded_sectors,
            &self.verified,
            &self.mismatches,
        ] {
            counter.store(0, Relaxed);
        }
        for counter in &self.misses {
            counter.store(0, Relaxed);
        }
        self.heat.reset();
    }

    /// Prints the counters of reads.
    pub(crate) fn print_reads(&self, out: &mut dyn Write) -> fmt::Result {
        let (reads, sectors) = (self.reads.load(Relaxed), self.read_sectors.load(Relaxed));
        write!(out, " reads={reads} read_sectors={sectors}")?;
        let (hits, sectors) = (self.hits.load(Relaxed), self.hit_sectors.load(Relaxed));
        write!(out, " hits={hits} hit_sectors={sectors}")?;
        for (name, counter) in MISSES.iter().zip(&self.misses) {
            write!(out, " {name}={}", counter.load(Relaxed))?;
        }
        write!(
            out,
            " recorded_sectors={}",
            self.recorded_sectors.load(Relaxed)
        )
    }

    /// Prints what paranoid mode found.
    pub(crate) fn print_verified(&self, out: &mut dyn Write) -> fmt::Result {
        let verified = self.verified.load(Relaxed);
        let mismatches = self.mismatches.load(Relaxed);
        write!(out, " verified={verified} mismatches={mismatches}")
    }
}

#[kunit_tests(drr_stats)]
mod tests {
    use super::*;
    use dm::printer::printed;

    #[test]
    fn prints_and_resets() -> Result {
        let mut buffer = [0; 256];
        let stats = Stats::new()?;
        stats.read(8);
        stats.read(128);
        stats.miss(Miss::Busy, None, 8);
        stats.hit(None, 128, &Sources::default());
        stats.recorded(3);
        assert_eq!(
            printed(&mut buffer, |out| stats.print_reads(out))?,
            &b" reads=2 read_sectors=136 hits=1 hit_sectors=128 miss_unshared=0 \
               miss_metadata=0 miss_norecord=0 miss_busy=1 miss_changed=0 miss_layout=0 \
               recorded_sectors=24"[..]
        );
        stats.verified(true);
        stats.verified(false);
        assert_eq!(
            printed(&mut buffer, |out| stats.print_verified(out))?,
            &b" verified=2 mismatches=1"[..]
        );
        stats.reset();
        assert_eq!(
            printed(&mut buffer, |out| stats.print_verified(out))?,
            &b" verified=0 mismatches=0"[..]
        );
        Ok(())
    }
}
