// SPDX-License-Identifier: GPL-2.0

//! Targets as donors: whether their device's own pages may donate, and what became of their pages.

use core::{
    fmt::{self, Write},
    ops::Range,
};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu,
    },
};

use dm::{
    device::BlockDevice,
    directory::End,
    folio::PAGE_SHIFT,
    guard::Guard,
    index::{hash, Entry, Index, Keyed},
    spread::Spread,
    truncation::TruncationEvents,
};

/// A target that may donate.
pub(crate) struct Giver {
    device: u32,
    /// [`BlockDevice::id`] of the device that the target is a part of.
    bdev: u64,
    /// The device's own page cache may hold pages that were zeroed in part. Never reset: a page
    /// that is on its way to be recorded may become one of them.
    zeroed_in_part: Atomic<bool>,
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
    /// Truncations of block devices' page caches come to our notice.
    truncations_seen: Atomic<bool>,
}

impl Givers {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            index: Index::new(GIVERS_BITS)?,
            truncations_seen: Atomic::new(false),
        })
    }

    /// Truncations are watched: block devices' own pages may donate from now on.
    pub(crate) fn sees_truncations(&self) {
        self.truncations_seen.store(true, Relaxed);
    }

    /// Has a new target of the block device that [`BlockDevice::id`] calls `bdev`, which may donate.
    /// Fails with `ENOMEM`.
    pub(crate) fn add(&self, device: u32, bdev: u64) -> Result {
        let giver = Giver {
            device,
            bdev,
            zeroed_in_part: Atomic::new(false),
            donated: Spread::default(),
            ended: core::array::from_fn(|_| Atomic::new(0)),
        };
        self.index.insert_unless(giver, GFP_KERNEL, |_| false)?;
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

    /// Pages of a target donate no longer.
    pub(crate) fn ended(&self, device: u32, why: End, pages: u32) {
        self.with(device, |giver| {
            giver.ended[why as usize].add(pages.into(), Relaxed)
        });
    }

    /// The block device that a target is a part of may donate its own pages.
    ///
    /// For a copy, to be asked with the device's `invalidate_lock` held: whoever has zeroed a page
    /// in part did so under the lock, after [`TruncationEvents::truncates`].
    pub(crate) fn raw_donates(&self, guard: &rcu::Guard, device: u32) -> bool {
        self.truncations_seen.load(Relaxed)
            && self
                .giver(guard, device)
                .any(|giver| !giver.zeroed_in_part.load(Relaxed))
    }

    /// `bytes` of the page cache of a block device are zeroed.
    fn truncated(&self, bdev: u64, bytes: Range<u64>) {
        if (bytes.start | bytes.end) % (1 << PAGE_SHIFT) == 0 {
            return;
        }
        let guard = rcu::read_lock();
        self.index
            .by_reverse(&guard, hash(bdev))
            .filter(|giver| giver.bdev == bdev)
            .for_each(|giver| giver.zeroed_in_part.store(true, Relaxed));
    }
}

impl TruncationEvents for Givers {
    fn truncates(&self, device: BlockDevice<'_>, bytes: Range<u64>) {
        if Guard::PartOfPage.on() {
            self.truncated(device.id(), bytes);
        }
    }
}

impl Giver {
    /// Starts its figures anew.
    pub(crate) fn reset(&self) {
        self.donated.reset();
        for ended in &self.ended {
            ended.store(0, Relaxed);
        }
    }

    /// Prints its figures.
    pub(crate) fn print(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, " donated_sectors={}", self.donated.sum())?;
        for why in End::ALL {
            let name = match why {
                End::Removed => "removed",
                End::Dirtied => "dirtied",
                End::Read => "read",
                End::Content => "reallocated",
                End::Key => "dropped",
            };
            let pages = self.ended[why as usize].load(Relaxed);
            write!(out, " ended_{name}={pages}")?;
        }
        Ok(())
    }
}

#[kunit_tests(drr_giver)]
mod tests {
    use super::*;

    #[test]
    fn pages_zeroed_in_part_do_not_donate() -> Result {
        let givers = Givers::new()?;
        let donates = |device| givers.raw_donates(&rcu::read_lock(), device);
        // Two targets of a block device, and one of another.
        for (device, bdev) in [(1, 10), (2, 10), (3, 30)] {
            givers.add(device, bdev)?;
        }
        assert!(!donates(1));
        givers.sees_truncations();
        assert!(donates(1) && donates(2) && donates(3) && !donates(4));
        givers.truncated(10, 4096..1 << 40);
        givers.truncated(40, 1..2);
        assert!(donates(1) && donates(2) && donates(3));
        givers.truncated(10, 4096..8191);
        assert!(!donates(1) && !donates(2) && donates(3));
        givers.truncated(30, 512..8192);
        assert!(!donates(3));
        givers.remove(3);
        givers.add(4, 30)?;
        assert!(!donates(3) && donates(4));
        Ok(())
    }
}
