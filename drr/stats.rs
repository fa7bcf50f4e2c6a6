// SPDX-License-Identifier: GPL-2.0

//! Figures of a target.

use core::fmt::{self, Write};

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use dm::folio::PAGE_SECTORS;

use crate::copy::Sources;

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

/// Layers that are told apart as donors.
const DONORS: usize = 64;

/// Sectors that came from one layer.
struct From {
    /// The thin id plus one; 0 is free. Set once.
    layer: Atomic<u32>,
    sectors: Atomic<u64>,
}

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
    from: [From; DONORS],
    from_others: Atomic<u64>,
}

/// Sectors in so many pages.
pub(crate) fn sectors_of(pages: u32) -> u64 {
    u64::from(pages) * u64::from(PAGE_SECTORS)
}

fn bump(counter: &Atomic<u64>, by: u64) {
    counter.add(by, Relaxed);
}

impl Stats {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self {
            reads: Atomic::new(0),
            read_sectors: Atomic::new(0),
            hits: Atomic::new(0),
            hit_sectors: Atomic::new(0),
            misses: [const { Atomic::new(0) }; MISSES.len()],
            recorded_sectors: Atomic::new(0),
            verified: Atomic::new(0),
            mismatches: Atomic::new(0),
            from: [const {
                From {
                    layer: Atomic::new(0),
                    sectors: Atomic::new(0),
                }
            }; DONORS],
            from_others: Atomic::new(0),
        }
    }

    /// A read came.
    pub(crate) fn read(&self, sectors: u32) {
        bump(&self.reads, 1);
        bump(&self.read_sectors, sectors.into());
    }

    /// A read went to the disk.
    pub(crate) fn miss(&self, miss: Miss) {
        bump(&self.misses[miss as usize], 1);
    }

    /// A read was served.
    pub(crate) fn hit(&self, sectors: u32, sources: &Sources) {
        bump(&self.hits, 1);
        bump(&self.hit_sectors, sectors.into());
        for source in sources.known() {
            let counter = self.from(source.thin_id).unwrap_or(&self.from_others);
            bump(counter, sectors_of(source.pages));
        }
        bump(&self.from_others, sectors_of(sources.others()));
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

    /// The counter of a layer, or nothing if there are too many.
    fn from(&self, thin_id: u32) -> Option<&Atomic<u64>> {
        let name = thin_id + 1;
        for from in &self.from {
            let layer = from.layer.load(Relaxed);
            // A free place is taken by whoever is first; the other may be the same layer.
            let owner = if layer == 0 {
                from.layer
                    .cmpxchg(0, name, Relaxed)
                    .map_or_else(|now| now, |_| name)
            } else {
                layer
            };
            if owner == name {
                return Some(&from.sectors);
            }
        }
        None
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
            &self.from_others,
        ] {
            counter.store(0, Relaxed);
        }
        for counter in &self.misses {
            counter.store(0, Relaxed);
        }
        for from in &self.from {
            from.sectors.store(0, Relaxed);
        }
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

    /// Prints the layers that served, and how many sectors.
    pub(crate) fn print_from(&self, out: &mut dyn Write) -> fmt::Result {
        let mut separator = "";
        write!(out, " from=")?;
        for from in &self.from {
            let (layer, sectors) = (from.layer.load(Relaxed), from.sectors.load(Relaxed));
            if layer != 0 && sectors != 0 {
                write!(out, "{separator}{}:{sectors}", layer - 1)?;
                separator = ",";
            }
        }
        let others = self.from_others.load(Relaxed);
        if others != 0 {
            write!(out, "{separator}others:{others}")?;
            separator = ",";
        }
        if separator.is_empty() {
            write!(out, "-")?;
        }
        Ok(())
    }
}

#[kunit_tests(drr_stats)]
mod tests {
    use super::*;
    use dm::printer::Printer;

    fn text(buffer: &mut [u8], print: impl Fn(&mut dyn Write) -> fmt::Result) -> Result<&[u8]> {
        print(&mut Printer::new(buffer)).map_err(|_| EINVAL)?;
        Ok(CStr::from_bytes_until_nul(buffer)
            .map_err(|_| EINVAL)?
            .to_bytes())
    }

    #[test]
    fn prints_and_resets() -> Result {
        let mut buffer = [0; 256];
        let stats = Stats::new();
        stats.read(8);
        stats.read(128);
        stats.miss(Miss::Busy);
        stats.hit(128, &Sources::default());
        stats.recorded(3);
        assert_eq!(
            text(&mut buffer, |out| stats.print_reads(out))?,
            &b" reads=2 read_sectors=136 hits=1 hit_sectors=128 miss_unshared=0 \
               miss_metadata=0 miss_norecord=0 miss_busy=1 miss_changed=0 miss_layout=0 \
               recorded_sectors=24"[..]
        );
        stats.verified(true);
        stats.verified(false);
        assert_eq!(
            text(&mut buffer, |out| stats.print_verified(out))?,
            &b" verified=2 mismatches=1"[..]
        );
        stats.reset();
        assert_eq!(
            text(&mut buffer, |out| stats.print_verified(out))?,
            &b" verified=0 mismatches=0"[..]
        );
        Ok(())
    }

    #[test]
    fn donors_beyond_the_table_are_others() -> Result {
        let mut buffer = [0; 2048];
        let stats = KBox::new(Stats::new(), GFP_KERNEL)?;
        assert_eq!(
            text(&mut buffer, |out| stats.print_from(out))?,
            &b" from=-"[..]
        );
        bump(stats.from(0).ok_or(ENOENT)?, 8);
        bump(stats.from(0xff_ffff).ok_or(ENOENT)?, 16);
        bump(stats.from(0).ok_or(ENOENT)?, 8);
        assert_eq!(
            text(&mut buffer, |out| stats.print_from(out))?,
            &b" from=0:16,16777215:16"[..]
        );
        // CAST: A small number.
        for thin_id in 0..DONORS as u32 - 1 {
            assert!(stats.from(thin_id).is_some());
        }
        assert!(stats.from(1000).is_none());
        bump(&stats.from_others, 24);
        assert_eq!(
            text(&mut buffer, |out| stats.print_from(out))?,
            &b" from=0:16,16777215:16,others:24"[..]
        );
        Ok(())
    }
}
