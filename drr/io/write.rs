// SPDX-License-Identifier: GPL-2.0

//! Writes, and other bios that change sectors.
//!
//! dm-thin answers a write to a part of a shared block with a copy: it reads the whole block from
//! the disk, writes it elsewhere, and then writes the part. For a write of the whole block dm-thin
//! only writes elsewhere. So if donors have the rest of the block, the target writes the whole
//! block instead.
//!
//! Bytes that were copied from donors must not overwrite what another write has put there
//! meanwhile:
//!
//! - a write that arrived earlier, and may not have ended, shares the block's lock
//!   ([`dm::io::block_lock`]), which then can't be made exclusive: no whole block is written;
//! - a write that arrives later finds the lock taken, and is parked until the whole block has been
//!   written;
//! - a write that has ended before has changed the mapping: dm-thin breaks sharing before it
//!   completes a write. The mapping is looked up with the lock held, and the block isn't shared any
//!   more;
//! - a write through another target on the same thin device takes the same lock;
//! - a write through no target changes the mapping as well, which is noticed until the whole block
//!   is sent, and not afterwards. A write to the thin device below an active target loses data in
//!   other ways, too: the page cache above the target doesn't see the write either.
//!
//! If the whole-block write fails, the mapping stays as it was, and so does all that the block
//! held.

use core::ops::Range;

use kernel::sync::rcu;

use dm::{
    block::bio::{Bio, Mapped},
    drr::hold_point::HoldPoint,
    io::block_lock::BlockRange,
    io::full_block::{most_sectors, FullBlockWrite},
    jiffies::Since,
    pagecache::folio::{PAGE_SECTORS, PAGE_SHIFT},
    trace,
};

use crate::{io::copy::ByteRange, io::patience::Advice, io::read::PerBioData, target::Drr};

impl Drr {
    /// Maps a bio that changes sectors, when it arrives and again after it was parked. May sleep.
    pub(crate) fn change<'a>(&'a self, mut bio: Bio<'a, Self>) -> Mapped {
        let Range { start, end } = self.blocks_of(&bio);
        let locks = self.handle.locks();
        let device = self.thin.device().bdev().dev_t();
        let blocks = BlockRange::new([device.into(), self.layer().to_bits()], start..end);
        bio.data().locked = match locks.share(blocks) {
            Ok(locked) => locked,
            Err(taken) => {
                self.stats.parked_write();
                return taken.park(bio, self);
            }
        };
        self.stats.heat.written(bio.sectors());
        if !self.may_complete(&bio, start) || !locks.make_exclusive(&mut bio.data().locked) {
            return self.forward(bio);
        }
        let written = match self.whole(&mut bio, start) {
            Some(whole) if self.is_worth_it(&mut bio) => {
                let traced = self.traced(bio.sector(), bio.sectors());
                let written = whole.write_for(bio, self, self.sector_of(start));
                if written.is_ok() {
                    trace!(whole_write, traced);
                }
                written
            }
            _ => Err(bio),
        };
        written.unwrap_or_else(|mut bio| {
            locks.make_shared(&mut bio.data().locked);
            self.forward(bio)
        })
    }

    /// Learns from the time that a bio of [`Self::change`] took, if `ok`, and unlocks its blocks.
    /// Any context.
    pub(crate) fn changed(&self, data: &PerBioData, ok: bool) {
        let whole = data.locked.is_exclusive();
        if whole {
            self.stats.whole_write();
        }
        if let Some(since) = data.since.filter(|_| ok) {
            let now = Since::now();
            let time = since.elapsed(now);
            if data.probes {
                self.whole_writes.judge(time, now.jiffies());
            } else if whole {
                self.whole_writes.took(time, now.jiffies());
            }
        }
        self.handle.locks().unlock(data.locked);
    }

    fn sector_of(&self, block: u64) -> u64 {
        // RANGE: `block` is the target's, or the next; device-mapper has no device of 2^54 sectors
        // or more.
        block * u64::from(self.block_sectors)
    }

    /// Returns the blocks that `bio` changes.
    fn blocks_of(&self, bio: &Bio<'_, Self>) -> Range<u64> {
        let block_sectors = u64::from(self.block_sectors);
        // RANGE: A sector of the target, or its end.
        let end = bio.sector() + u64::from(bio.sectors());
        bio.sector() / block_sectors..end.div_ceil(block_sectors)
    }

    /// Returns whether the disk takes a block in one request. If the block were split, dm-thin
    /// would read it from the disk for the first request.
    pub(crate) fn can_write_whole(&self) -> bool {
        self.block_sectors <= most_sectors(self.thin.device().bdev())
    }

    /// Returns whether it may pay to write all of `block` instead of `bio`, as far as can be told
    /// without a lookup.
    fn may_complete(&self, bio: &Bio<'_, Self>, block: u64) -> bool {
        let part = bio.sectors() != 0 && bio.sectors() < self.block_sectors;
        // Nothing compares a whole-block write with the disk.
        let wanted = !self.features.no_receive && !self.features.paranoid;
        part && wanted
            && bio.writes_plainly()
            && self.can_write_whole()
            // RANGE: As in `sector_of`.
            && self.sector_of(block + 1) <= self.sectors
            && !self.memory_of(self.layer(), block).unshared()
            && !self.whole_writes.is_restrained(Since::now().jiffies())
            && self.thin.thin().is_writable()
    }

    /// Returns whether the whole block, which has been put together, is to be written instead of
    /// `bio`.
    fn is_worth_it(&self, bio: &mut Bio<'_, Self>) -> bool {
        let now = Since::now();
        let advice = self.whole_writes.advice(now.jiffies());
        let data = bio.data();
        data.since = Some(now);
        data.probes = advice == Advice::Probe;
        advice == Advice::Follow
    }

    /// Returns all of `block` as it is to be when `bio` has been written. The block's lock must be
    /// exclusive.
    ///
    /// Returns [`None`] if the block isn't shared, donors lack a page, the mapping has changed, or
    /// there is no memory.
    // RANGE: `bio` begins in `block`, and a block has 1 GiB at most.
    fn whole(&self, bio: &mut Bio<'_, Self>, block: u64) -> Option<FullBlockWrite> {
        let located = self.locate(self.sector_of(block), self.block_sectors);
        let range = located.range.ok()?;
        let engine = self.handle.engine()?;
        let at = u32::try_from(bio.sector() - self.sector_of(block)).ok()?;
        // Device-mapper splits bios at the borders of blocks; a longer one would reach beyond the
        // block that is locked.
        let end = at.checked_add(bio.sectors())?;
        if end > self.block_sectors {
            return None;
        }
        // The pages before and after those that `bio` writes as a whole.
        let (head, tail) = (at.div_ceil(PAGE_SECTORS), end / PAGE_SECTORS);
        let (_, all) = range.extent.pages();
        let parts = if head < tail {
            [(0, head), (tail, all - tail)]
        } else {
            [(0, all), (0, 0)]
        };
        let table = self.handle.table();
        {
            let guard = rcu::read_lock();
            let missing = |&(first, count): &(u32, u32)| {
                count != 0 && table.before_donors(&guard, &range.block, first, count, count) != 0
            };
            if parts.iter().any(missing) {
                return None;
            }
        }
        let disk = self.thin.device().bdev();
        let mut whole = FullBlockWrite::new(bio, disk, self.block_sectors)?;
        for (first, count) in parts {
            let extent = ByteRange {
                at: first << PAGE_SHIFT,
                len: count << PAGE_SHIFT,
            };
            let served = engine.serve(&range.block, extent, &mut whole.writer(first));
            self.stats.unproven(served.unproven);
            if served.pages != count {
                return None;
            }
        }
        whole.overlay(bio, at);
        let there = self.still_there(&range);
        HoldPoint::BlockFilled.pass();
        there.then_some(whole)
    }
}
