// SPDX-License-Identifier: GPL-2.0

//! Targets as donors: which pages they withhold, and what became of those that they gave.

use core::fmt::{self, Write};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        rcu,
    },
};

use dm::{
    bits,
    directory::{window_hash, End},
    index::{hash, Entry, Index, Keyed},
    spread::Spread,
    trace,
};

use crate::access::Stretch;

/// Words of 64 bits.
const WITHHELD: usize = 64;

/// Reads that nobody waits for when others have waited for one in vain: its container may be
/// throttled, and they must not be with it.
const RESTRAINT: u32 = 256;

/// A target that may donate.
pub(crate) struct Giver {
    device: u32,
    /// Number of that device; 0 until it has one.
    number: Atomic<u32>,
    /// [`BlockDevice::id`](dm::device::BlockDevice::id) of the device that the target is a part of.
    bdev: u64,
    /// Marks of windows of page caches whose pages aren't to be recorded.
    withheld: [Atomic<u64>; WITHHELD],
    /// So many of its next reads nobody is to wait for.
    restraint: Atomic<u32>,
    /// Its pages aren't dropped because others have them.
    pub(crate) keeps: bool,
    /// Pages that were.
    pub(crate) thinned: Atomic<u64>,
    /// Sectors that it has donated.
    pub(crate) donated: Spread,
    /// Pages that it no longer donates, by the reason.
    ended: [Atomic<u64>; End::ALL.len()],
}

impl Keyed for Giver {
    fn forward(&self) -> u64 {
        hash(self.device.into())
    }

    fn reverse(&self) -> u64 {
        hash(self.bdev)
    }
}

/// log2 of the buckets for [`Giver`]s: good for hundreds of targets, and fair for thousands.
const GIVERS_BITS: u32 = 8;

/// All targets.
pub(crate) struct Givers {
    index: Index<Giver>,
    /// Some page was withheld, ever.
    withholding: Atomic<u32>,
}

impl Givers {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            index: Index::new(GIVERS_BITS)?,
            withholding: Atomic::new(0),
        })
    }

    /// Has a new target of the block device that [`BlockDevice::id`](dm::device::BlockDevice::id)
    /// calls `bdev`, which may donate; it `keeps` its page cache. Fails with `ENOMEM`.
    pub(crate) fn add(&self, device: u32, bdev: u64, keeps: bool) -> Result {
        let giver = Giver {
            device,
            number: Atomic::new(0),
            bdev,
            withheld: core::array::from_fn(|_| Atomic::new(0)),
            restraint: Atomic::new(0),
            keeps,
            thinned: Atomic::new(0),
            donated: Spread::default(),
            ended: core::array::from_fn(|_| Atomic::new(0)),
        };
        self.index.insert_unless(giver, GFP_KERNEL, |_| false)?;
        // A read may go through a target of the device's next table that was submitted before.
        let guard = rcu::read_lock();
        for new in self.giver(&guard, device) {
            for old in self.parts_of(&guard, bdev) {
                for (new, old) in new.withheld.iter().zip(&old.withheld) {
                    bits::merge(new, old.load(Relaxed));
                }
            }
        }
        Ok(())
    }

    /// A target goes.
    pub(crate) fn remove(&self, device: u32) {
        let guard = rcu::read_lock();
        for giver in self.giver(&guard, device) {
            self.index.remove(giver);
        }
    }

    /// The target, unless it is gone.
    fn giver<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        device: u32,
    ) -> impl Iterator<Item = &'g Entry<Giver>> {
        self.index
            .by_forward(guard, hash(device.into()))
            .filter(move |giver| giver.device == device)
    }

    /// What `visit` says of a target, unless that is gone.
    pub(crate) fn with<R>(&self, device: u32, visit: impl FnOnce(&Giver) -> R) -> Option<R> {
        let guard = rcu::read_lock();
        let giver = self.giver(&guard, device).next()?;
        Some(visit(giver))
    }

    /// Somebody has waited too long for a read of a target.
    pub(crate) fn in_vain(&self, device: u32) {
        self.with(device, |giver| giver.restraint.store(RESTRAINT, Relaxed));
    }

    /// Whether to wait for a read of a target.
    pub(crate) fn worth_waiting(&self, device: u32) -> bool {
        self.with(device, |giver| {
            let left = giver.restraint.load(Relaxed);
            if left != 0 {
                // Two at once may count as one, which is as well.
                giver.restraint.store(left - 1, Relaxed);
            }
            left == 0
        })
        .unwrap_or(false)
    }

    /// Pages of a target's stretch donate no longer, bit *n* for page *n*.
    pub(crate) fn ended(&self, stretch: &Stretch, why: End, pages: u32) {
        self.with(stretch.device, |giver| {
            giver.ended[why as usize].add(pages.count_ones().into(), Relaxed);
            trace!(
                record_end,
                stretch.traced(giver.number(), pages),
                reason(why)
            );
        });
    }

    /// The targets that the block device `bdev` is made up of.
    fn parts_of<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        bdev: u64,
    ) -> impl Iterator<Item = &'g Entry<Giver>> {
        self.index
            .by_reverse(guard, hash(bdev))
            .filter(move |giver| giver.bdev == bdev)
    }

    /// Pages `first..=last` of the page cache that
    /// [`MappingId::number`](dm::folio::MappingId::number) calls `mapping`, which are read from the
    /// block device `bdev`, are not to be recorded any more. Fully ordered before what follows.
    pub(crate) fn withhold(&self, bdev: u64, mapping: u64, first: u64, last: u64) {
        self.withholding.fetch_add(1, Full);
        let guard = rcu::read_lock();
        // Twice: `add` takes over from a giver what was there when it has the new one found.
        for _ in 0..2 {
            for giver in self.parts_of(&guard, bdev) {
                for window in bits::window(first)..=bits::window(last) {
                    bits::mark(&giver.withheld, window_hash(mapping, window));
                }
            }
        }
    }

    /// Some page is withheld by some target. To be asked when pages are on record, after a full
    /// barrier.
    #[inline]
    pub(crate) fn any_withheld(&self) -> bool {
        self.withholding.load(Relaxed) != 0
    }

    /// Some of the pages are withheld by the target `device`. To be asked as above.
    #[inline]
    pub(crate) fn withholds(&self, device: u32, mapping: u64, first: u64, last: u64) -> bool {
        if !self.any_withheld() {
            return false;
        }
        self.with(device, |giver| {
            (bits::window(first)..=bits::window(last))
                .any(|window| bits::marked(&giver.withheld, window_hash(mapping, window)))
        })
        .unwrap_or(true)
    }
}

/// The word for it in traces, and in the status, which counts some together.
fn reason(why: End) -> &'static str {
    match why {
        End::Removed => "removed",
        End::Dirtied => "dirtied",
        End::Read => "read",
        End::Content => "reallocated",
        End::Gone => "gone",
        End::Claimed => "claimed",
        End::RolledBack => "rolled_back",
        End::Zeroed => "zeroed",
    }
}

impl Giver {
    /// The number of its device, once it has one.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// The device has its number, which it doesn't when the first of its targets is made.
    pub(crate) fn numbered(&self, number: u32) {
        self.number.store(number, Relaxed);
    }

    /// Starts its figures anew.
    pub(crate) fn reset(&self) {
        self.donated.reset();
        self.thinned.store(0, Relaxed);
        for ended in &self.ended {
            ended.store(0, Relaxed);
        }
    }

    /// Prints its figures.
    pub(crate) fn print(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, " donated_sectors={}", self.donated.sum())?;
        let pages = |why: End| self.ended[why as usize].load(Relaxed);
        for why in [End::Removed, End::Dirtied, End::Read, End::Content] {
            write!(out, " ended_{}={}", reason(why), pages(why))?;
        }
        let dropped = [End::Gone, End::Claimed, End::RolledBack];
        write!(
            out,
            " ended_dropped={}",
            dropped.map(pages).iter().sum::<u64>()
        )?;
        write!(out, " ended_zeroed={}", pages(End::Zeroed))?;
        write!(out, " thinned_pages={}", self.thinned.load(Relaxed))
    }
}

#[kunit_tests(drr_giver)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_withheld_by_device() -> Result {
        let givers = Givers::new()?;
        let (file, other) = (4096, 8192);
        let withholds = |device, mapping, page| givers.withholds(device, mapping, page, page);
        // Two targets of a block device, and one of another.
        for (device, bdev) in [(1, 10), (2, 10), (3, 30)] {
            givers.add(device, bdev, false)?;
        }
        assert!(!withholds(1, file, 100));
        givers.withhold(40, file, 0, 1000);
        assert!(!withholds(1, file, 100) && !withholds(3, file, 100));
        givers.withhold(10, file, 100, 132);
        assert!(withholds(1, file, 100) && withholds(2, file, 100) && withholds(1, file, 132));
        assert!(!withholds(1, file, 95) && !withholds(1, file, 160));
        assert!(!withholds(3, file, 100) && !withholds(1, other, 100));
        assert!(givers.withholds(1, file, 0, 200) && !givers.withholds(1, file, 0, 95));
        // The next table's target of the same device.
        givers.add(4, 10, false)?;
        givers.remove(1);
        assert!(withholds(4, file, 100) && !withholds(4, other, 100));
        Ok(())
    }
}
