// SPDX-License-Identifier: GPL-2.0

//! Counters of a target.

use core::fmt::{self, Write};

use kernel::prelude::*;

use dm::{pagecache::folio::PAGE_SECTORS, sync::counters::Counters};

use crate::{
    access::table::Counted, io::copy::Sources, layers::heatmap::Heatmap, layers::id::LayerId,
};

/// The reason why a read went to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Miss {
    /// The block is not shared, or not mapped at all.
    Unshared,
    /// The lookup would have to read dm-thin's metadata from the disk.
    Metadata,
    /// The block's pages have no donors, or not enough in a row.
    NoRecord,
    /// The thin device below has another table.
    Changed,
    /// The pool's metadata was rolled back, so nothing that is known of it is valid.
    Stale,
    /// The read spans blocks, or its data is encrypted on the way.
    Layout,
    /// The read followed another that failed, took too long, or was released; or donors lacked a
    /// page then.
    Left,
}

/// The reasons in status and traces, by their numbers.
const MISSES: [&str; 7] = [
    "unshared", "metadata", "norecord", "changed", "stale", "layout", "left",
];

impl Miss {
    /// Returns the name of the reason.
    pub(crate) fn reason(self) -> &'static str {
        // CAST: The index in `MISSES`.
        MISSES[self as usize]
    }
}

/// The counters, in bios, sectors or pages; those of misses come after these.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Count {
    FollowedSectors,
    RecordedSectors,
    /// Sectors of reads for a file system's metadata: all, and those that were served.
    MetaReadSectors,
    MetaHitSectors,
    /// Copies of donors' pages that failed the proof.
    UnprovenPages,
    /// Pages from the disk that were compared with a digest of the same content, and those that
    /// differed.
    ComparedPages,
    DifferedPages,
    /// Whole-block writes, and writes that were parked because of one.
    FullBlockWrites,
    ParkedWrites,
    /// Conclusive comparisons with the disk in paranoid mode, and those that found a difference.
    Verified,
    Mismatches,
}

const FIRST_MISS: usize = Count::Mismatches as usize + 1;

/// Counters of a target since it was made or reset.
pub(crate) struct Stats {
    counters: Counters<{ FIRST_MISS + MISSES.len() }>,
    /// Reads that were served and that were not, by the blocks' owners.
    pub(crate) heat: Heatmap,
}

/// Returns the number of sectors in `pages` pages.
fn sectors_of(pages: u32) -> u64 {
    // RANGE: A product of two `u32`s.
    u64::from(pages) * u64::from(PAGE_SECTORS)
}

impl Stats {
    /// Creates counters that are all zero. Fails with `ENOMEM`.
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

    /// Counts a read of a block of `owner` that went to the disk; `metadata` tells whether it was
    /// for metadata.
    pub(crate) fn miss(&self, miss: Miss, owner: Option<LayerId>, sectors: u32, metadata: bool) {
        // RANGE: A counter's number.
        self.counters.add(FIRST_MISS + miss as usize, 1);
        self.heat.not_served(owner, sectors);
        if metadata {
            self.add(Count::MetaReadSectors, sectors.into());
        }
    }

    /// Counts a read of a block of `owner` that was served; `metadata` tells whether it was for
    /// metadata.
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

    /// Counts a read that was served after it followed another, which went to the disk;
    /// [`Self::hit`] counts it, too.
    pub(crate) fn followed(&self, sectors: u32) {
        self.add(Count::FollowedSectors, sectors.into());
    }

    /// Counts pages of a served read that were recorded.
    pub(crate) fn recorded(&self, pages: u32) {
        self.add(Count::RecordedSectors, sectors_of(pages));
    }

    /// Counts pages of a read from the disk that were recorded or compared.
    pub(crate) fn read(&self, counted: Counted) {
        self.recorded(counted.recorded);
        self.add(Count::ComparedPages, counted.compared.into());
        self.add(Count::DifferedPages, counted.differed.into());
    }

    /// Counts copies of donors' pages that failed the proof.
    pub(crate) fn unproven(&self, pages: u32) {
        if pages != 0 {
            self.add(Count::UnprovenPages, pages.into());
        }
    }

    /// Counts a whole-block write.
    pub(crate) fn whole_write(&self) {
        self.add(Count::FullBlockWrites, 1);
    }

    /// Counts a write that was parked until a whole-block write to its block has ended.
    pub(crate) fn parked_write(&self) {
        self.add(Count::ParkedWrites, 1);
    }

    /// Counts a hit that was compared with the disk; `same` tells whether the bytes were equal.
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

    /// Prints the counters of reads, and of whole-block writes. They add up at any time: a read
    /// counts only once it is known to be a hit or a miss.
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

    /// Prints the results of paranoid mode.
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
