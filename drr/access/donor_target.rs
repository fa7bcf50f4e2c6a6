// SPDX-License-Identifier: GPL-2.0

//! Targets as donors: what they have given, and why their pages donate no longer.

use core::fmt::{self, Write};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu,
    },
};

use dm::{
    pagecache::directory::End,
    sync::index::{hash, Entry, Index, Keyed},
    sync::striped_counter::StripedCounter,
    trace,
};

use crate::{
    access::table::{BlockExtent, Holder},
    io::patience::{Lag, WAITS},
};

/// A target that may donate.
pub(crate) struct DonorTarget {
    target_id: u32,
    /// `dev_t` of its mapped device; 0 until that has one.
    dev_t: Atomic<u32>,
    /// How long others wait for its reads.
    pub(crate) lag: Lag,
    /// Its pages aren't dropped because others have them.
    pub(crate) keeps: bool,
    /// Pages that were.
    pub(crate) thinned: Atomic<u64>,
    /// Sectors that it has donated.
    pub(crate) donated: StripedCounter,
    /// Pages that it no longer donates, by the reason.
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

/// log2 of the buckets for [`DonorTarget`]s: good for hundreds of targets, and fair for thousands.
const TARGETS_BITS: u32 = 8;

/// All targets.
pub(crate) struct TargetRegistry {
    index: Index<DonorTarget>,
}

impl TargetRegistry {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            index: Index::new(TARGETS_BITS)?,
        })
    }

    /// Has a new target, which may donate; it `keeps` its page cache. Fails with `ENOMEM`.
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

    /// A target goes.
    pub(crate) fn remove(&self, target_id: u32) {
        let guard = rcu::read_lock();
        for target in self.target(&guard, target_id) {
            self.index.remove(target);
        }
    }

    /// The target, unless it is gone.
    fn target<'g>(
        &'g self,
        guard: &'g rcu::Guard,
        target_id: u32,
    ) -> impl Iterator<Item = &'g Entry<DonorTarget>> {
        self.index
            .by_forward(guard, hash(target_id.into()))
            .filter(move |target| target.target_id == target_id)
    }

    /// What `visit` says of a target, unless that is gone.
    pub(crate) fn with<R>(
        &self,
        target_id: u32,
        visit: impl FnOnce(&DonorTarget) -> R,
    ) -> Option<R> {
        let guard = rcu::read_lock();
        let target = self.target(&guard, target_id).next()?;
        Some(visit(target))
    }

    /// Pages of a target's stretch donate no longer, bit *n* for page *n*.
    pub(crate) fn ended(&self, stretch: &BlockExtent, holder: &Holder, why: End, pages: u32) {
        self.with(holder.target_id, |target| {
            // CAST: The place in `End::ALL`.
            target.ended[why as usize].add(pages.count_ones().into(), Relaxed);
            trace!(
                record_end,
                stretch.traced(target.dev_t(), holder.layer.thin_id, pages),
                reason(why)
            );
        });
    }
}

/// The word for it in traces, and in the status.
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
    /// The `dev_t` of its mapped device, once that has one.
    pub(crate) fn dev_t(&self) -> u32 {
        self.dev_t.load(Relaxed)
    }

    /// Notes the `dev_t` of its mapped device, which has none yet when its first target is made.
    pub(crate) fn set_dev_t(&self, dev_t: u32) {
        self.dev_t.store(dev_t, Relaxed);
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
        for why in End::ALL {
            // CAST: Its place in there.
            let pages = self.ended[why as usize].load(Relaxed);
            write!(out, " ended_{}={pages}", reason(why))?;
        }
        write!(out, " thinned_pages={}", self.thinned.load(Relaxed))
    }
}
