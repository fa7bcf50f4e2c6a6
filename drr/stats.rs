// SPDX-License-Identifier: GPL-2.0

//! Figures of a target.

use core::fmt::{self, Write};

use kernel::prelude::*;

use dm::{pagecache::folio::PAGE_SECTORS, sync::counters::Counters};

use crate::{
    access::table::Counted, io::copy::Sources, layers::heatmap::Heatmap, layers::id::LayerId,
};

/// Why a read went to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Miss {
    /// The block is not shared, or not mapped at all.
    Unshared,
    /// Where the block is mapped can't be told without reading metadata.
    Metadata,
    /// It has no donors, or not enough in a row.
    NoRecord,
    /// The thin device below has another table.
    Changed,
    /// The pool's metadata was rolled back, so that nothing known of it holds.
    Stale,
    /// It spans blocks, or its data is encrypted on the way.
    Layout,
    /// It followed a read of the same that failed, or took too long, or was told not to wait.
    Left,
}

/// The reasons, by their numbers, as status and traces name them.
const MISSES: [&str; 7] = [
    "unshared", "metadata", "norecord", "changed", "stale", "layout", "left",
];

impl Miss {
    /// The word for it.
    pub(crate) fn reason(self) -> &'static str {
        // CAST: Its place in there.
        MISSES[self as usize]
    }
}

/// What is counted here, in bios and sectors; the reasons for misses come after these.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Count {
    FollowedSectors,
    RecordedSectors,
    /// Of reads for a file system's metadata: all, and those that were served.
    MetaReadSectors,
    MetaHitSectors,
    /// Copies of donors' pages that didn't have the digest.
    UnprovenPages,
    /// Pages from the disk that were compared with what is known of the same content, and that differed.
    ComparedPages,
    DifferedPages,
    /// Writes in whose place a whole block was written, and those that waited for one of the same block.
    FullBlockWrites,
    ParkedWrites,
    /// Second reads of paranoid mode that gave a verdict, and those that gave a bad one.
    Verified,
    Mismatches,
}

const FIRST_MISS: usize = Count::Mismatches as usize + 1;

/// Counters of a target since it was made or reset.
pub(crate) struct Stats {
    counters: Counters<{ FIRST_MISS + MISSES.len() }>,
    /// Reads that were served and that were not, of whose blocks.
    pub(crate) heat: Heatmap,
}

/// Sectors in so many pages.
fn sectors_of(pages: u32) -> u64 {
    // RANGE: A product of two `u32`s.
    u64::from(pages) * u64::from(PAGE_SECTORS)
}

impl Stats {
    /// All zero. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            counters: Counters::new()?,
            heat: Heatmap::new()?,
        })
    }

    fn add(&self, count: Count, by: u64) {
        // CAST: A counter's number.
        self.counters.add(count as usize, by);
    }

    /// A read of a block of `owner` went to the disk; for metadata, or for data.
    pub(crate) fn miss(&self, miss: Miss, owner: Option<LayerId>, sectors: u32, metadata: bool) {
        // RANGE: A counter's number.
        self.counters.add(FIRST_MISS + miss as usize, 1);
        self.heat.not_served(owner, sectors);
        if metadata {
            self.add(Count::MetaReadSectors, sectors.into());
        }
    }

    /// A read of a block of `owner` was served; for metadata, or for data.
    pub(crate) fn hit(
        &self,
        owner: Option<LayerId>,
        sectors: u32,
        metadata: bool,
        sources: &Sources,
    ) {
        self.heat.served(owner, sectors);
        if metadata {
            self.add(Count::MetaReadSectors, sectors.into());
            self.add(Count::MetaHitSectors, sectors.into());
        }
        for source in sources.known() {
            self.heat.donated(Some(source.layer), source.sectors.into());
        }
        if sources.others() != 0 {
            self.heat.donated(None, sources.others().into());
        }
    }

    /// A read was served with another, which went to the disk; it is a hit besides.
    pub(crate) fn followed(&self, sectors: u32) {
        self.add(Count::FollowedSectors, sectors.into());
    }

    /// Pages of a read that was served can donate now.
    pub(crate) fn recorded(&self, pages: u32) {
        self.add(Count::RecordedSectors, sectors_of(pages));
    }

    /// Pages of a read that came from the disk can donate now, or were compared.
    pub(crate) fn read(&self, counted: Counted) {
        self.recorded(counted.recorded);
        self.add(Count::ComparedPages, counted.compared.into());
        self.add(Count::DifferedPages, counted.differed.into());
    }

    /// Copies of donors' pages were in vain.
    pub(crate) fn unproven(&self, pages: u32) {
        if pages != 0 {
            self.add(Count::UnprovenPages, pages.into());
        }
    }

    /// A whole block was written in the place of a part of it.
    pub(crate) fn whole_write(&self) {
        self.add(Count::FullBlockWrites, 1);
    }

    /// A write was parked until a whole-block write to its block has ended.
    pub(crate) fn parked_write(&self) {
        self.add(Count::ParkedWrites, 1);
    }

    /// A hit was compared with the disk.
    pub(crate) fn verified(&self, same: bool) {
        self.add(Count::Verified, 1);
        if !same {
            self.add(Count::Mismatches, 1);
        }
    }

    /// Zeroes all counters.
    pub(crate) fn reset(&self) {
        self.counters.reset();
        self.heat.reset();
    }

    /// Prints the counters of reads, and of writes that spared one. They add up at any time: what
    /// isn't known to be a hit or a miss yet isn't counted.
    pub(crate) fn print_reads(&self, out: &mut dyn Write) -> fmt::Result {
        let sums = self.counters.sums();
        // CAST: A counter's number.
        let of = |count: Count| sums[count as usize];
        let misses = &sums[FIRST_MISS..];
        let [_, disk_sectors, hits, hit_sectors] = self.heat.reads();
        let reads = misses
            .iter()
            .fold(hits, |sum, count| sum.wrapping_add(*count));
        let read_sectors = hit_sectors.wrapping_add(disk_sectors);
        write!(out, " reads={reads} read_sectors={read_sectors}")?;
        write!(out, " hits={hits} hit_sectors={hit_sectors}")?;
        for (name, count) in MISSES.iter().zip(misses) {
            write!(out, " miss_{name}={count}")?;
        }
        write!(out, " followed_sectors={}", of(Count::FollowedSectors))?;
        write!(out, " recorded_sectors={}", of(Count::RecordedSectors))?;
        write!(out, " meta_read_sectors={}", of(Count::MetaReadSectors))?;
        write!(out, " meta_hit_sectors={}", of(Count::MetaHitSectors))?;
        write!(out, " unproven_pages={}", of(Count::UnprovenPages))?;
        write!(out, " compared_pages={}", of(Count::ComparedPages))?;
        write!(out, " differed_pages={}", of(Count::DifferedPages))?;
        write!(out, " whole_writes={}", of(Count::FullBlockWrites))?;
        write!(out, " parked_writes={}", of(Count::ParkedWrites))
    }

    /// Prints what paranoid mode found.
    pub(crate) fn print_verified(&self, out: &mut dyn Write) -> fmt::Result {
        let sums = self.counters.sums();
        // CAST: A counter's number.
        let of = |count: Count| sums[count as usize];
        let (verified, mismatches) = (of(Count::Verified), of(Count::Mismatches));
        write!(out, " verified={verified} mismatches={mismatches}")
    }
}

#[kunit_tests(drr_stats)]
mod tests {
    use super::*;
    use dm::target::status_buffer::printed;

    #[test]
    fn prints_and_resets() -> Result {
        let mut buffer = [0; 500];
        let stats = Stats::new()?;
        stats.miss(Miss::Stale, None, 8, true);
        stats.hit(None, 128, false, &Sources::default());
        stats.hit(None, 16, true, &Sources::default());
        stats.recorded(2);
        stats.unproven(5);
        stats.read(Counted {
            recorded: 1,
            compared: 4,
            differed: 2,
        });
        stats.whole_write();
        stats.parked_write();
        assert_eq!(
            printed(&mut buffer, |out| stats.print_reads(out))?,
            &b" reads=3 read_sectors=152 hits=2 hit_sectors=144 miss_unshared=0 \
               miss_metadata=0 miss_norecord=0 miss_changed=0 miss_stale=1 miss_layout=0 \
               miss_left=0 followed_sectors=0 recorded_sectors=24 meta_read_sectors=24 \
               meta_hit_sectors=16 unproven_pages=5 \
               compared_pages=4 differed_pages=2 whole_writes=1 parked_writes=1"[..]
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
