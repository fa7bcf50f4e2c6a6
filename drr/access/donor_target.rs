// SPDX-License-Identifier: GPL-2.0

//! Targets as donors: how much they have donated, and why their pages no longer donate.

use core::fmt::{self, Write};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu, Arc,
    },
};

use dm::{
    pagecache::directory::{End, Ledger},
    sync::index::{hash, Entry, Index, Keyed},
    sync::striped_counter::StripedCounter,
    trace,
};

use crate::{
    access::name::{BlockExtent, Holder},
    io::patience::{Lag, WAITS},
};

/// A target that may donate.
pub(crate) struct DonorTarget {
    target_id: u32,
    /// `dev_t` of the target's mapped device; 0 until the device has one.
    dev_t: Atomic<u32>,
    /// The time that other targets' reads wait for reads of this target.
    pub(crate) lag: Lag,
    /// Whether pages of its page cache are kept even if other page caches have copies
    /// (`keep_copies`).
    pub(crate) keeps: bool,
    /// Pages that were dropped from its page cache because other page caches had copies.
    pub(crate) thinned: Atomic<u64>,
    /// Sectors that it has donated.
    pub(crate) donated: StripedCounter,
    /// Pages that it no longer donates, by reason.
    ended: [Atomic<u64>; End::ALL.len()],
}

impl Keyed for DonorTarget {
    fn forward(&self) -> u64 {
        hash(self.target_id.into())
    }

    fn reverse(&self) -> u64 {
        self.forward()
    }
}

/// log2 of the number of buckets for [`DonorTarget`]s: short chains with hundreds of targets, and
/// acceptable ones with thousands.
const TARGETS_BITS: u32 = 8;

/// All targets that may donate.
pub(crate) struct TargetRegistry {
    index: Index<DonorTarget>,
}

impl TargetRegistry {
    /// Creates an empty registry. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            index: Index::new(TARGETS_BITS)?,
        })
    }

    /// Adds a target; `keeps` says whether it was asked for `keep_copies`. Fails with `ENOMEM`.
    pub(crate) fn add(&self, target_id: u32, keeps: bool) -> Result {
        let target = DonorTarget {
            target_id,
            dev_t: Atomic::new(0),
            lag: Lag::new(WAITS),
            keeps,
            thinned: Atomic::new(0),
            donated: StripedCounter::default(),
            ended: core::array::from_fn(|_| Atomic::new(0)),
        };
        self.index.insert_unless(target, GFP_KERNEL, |_| false)?;
        Ok(())
    }

    /// Removes a target.
    pub(crate) fn remove(&self, target_id: u32) {
        let guard = rcu::read_lock();
        for target in self.target(&guard, target_id) {
            self.index.remove(target);
        }
    }

    /// Returns an iterator over the target with the id `target_id`, which is empty if that target
    /// has been removed.
    fn target<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        target_id: u32,
    ) -> impl Iterator<Item = &'g Entry<DonorTarget>> {
        self.index
            .by_forward(guard, hash(target_id.into()))
            .filter(move |target| target.target_id == target_id)
    }

    /// Returns what `visit` returns for a target, or [`None`] if the target has been removed.
    pub(crate) fn with<R>(
        &self,
        target_id: u32,
        visit: impl FnOnce(&DonorTarget) -> R,
    ) -> Option<R> {
        let guard = rcu::read_lock();
        let target = self.target(&guard, target_id).next()?;
        Some(visit(target))
    }

    /// Counts and traces pages of an extent that a target no longer donates, bit *n* for page *n*.
    pub(crate) fn ended(&self, stretch: &BlockExtent, holder: &Holder, why: End, pages: u32) {
        self.with(holder.target_id, |target| {
            // CAST: The index in `End::ALL`.
            target.ended[why as usize].add(pages.count_ones().into(), Relaxed);
            trace!(
                record_end,
                stretch.traced(target.dev_t(), holder.layer.thin_id, pages),
                reason(why)
            );
        });
    }
}

impl Ledger<BlockExtent> for Arc<TargetRegistry> {
    type Holder = Holder;

    fn ended(&self, stretch: &BlockExtent, holder: &Holder, why: End, pages: u32) {
        TargetRegistry::ended(self, stretch, holder, why, pages);
    }
}

/// Returns the name of a reason in traces and in the status line.
fn reason(why: End) -> &'static str {
    match why {
        End::Removed => "removed",
        End::Read => "read",
        End::Changed => "changed",
        End::Gone => "dropped",
        End::Differed => "differed",
        End::Replaced => "replaced",
    }
}

impl DonorTarget {
    /// Returns the `dev_t` of the target's mapped device, or 0 if the device has none yet.
    pub(crate) fn dev_t(&self) -> u32 {
        self.dev_t.load(Relaxed)
    }

    /// Sets the `dev_t` of the target's mapped device, which has none yet when its first target is
    /// made.
    pub(crate) fn set_dev_t(&self, dev_t: u32) {
        self.dev_t.store(dev_t, Relaxed);
    }

    /// Zeroes the target's counters.
    pub(crate) fn reset(&self) {
        self.donated.reset();
        self.thinned.store(0, Relaxed);
        for ended in &self.ended {
            ended.store(0, Relaxed);
        }
    }

    /// Prints the target's counters.
    pub(crate) fn print(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, " donated_sectors={}", self.donated.sum())?;
        for why in End::ALL {
            // CAST: The index in `End::ALL`.
            let pages = self.ended[why as usize].load(Relaxed);
            write!(out, " ended_{}={pages}", reason(why))?;
        }
        write!(out, " thinned_pages={}", self.thinned.load(Relaxed))
    }
}
