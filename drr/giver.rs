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
    directory::End,
    index::{hash, Entry, Index, Keyed},
    spread::Spread,
    trace,
};

use crate::{
    access::{Holder, Stretch},
    patience::{Lag, WAITS},
};

/// A target that may donate.
pub(crate) struct Giver {
    device: u32,
    /// Number of that device; 0 until it has one.
    number: Atomic<u32>,
    /// How long others wait for its reads.
    pub(crate) lag: Lag,
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
        self.forward()
    }
}

/// log2 of the buckets for [`Giver`]s: good for hundreds of targets, and fair for thousands.
const GIVERS_BITS: u32 = 8;

/// All targets.
pub(crate) struct Givers {
    index: Index<Giver>,
}

impl Givers {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            index: Index::new(GIVERS_BITS)?,
        })
    }

    /// Has a new target, which may donate; it `keeps` its page cache. Fails with `ENOMEM`.
    pub(crate) fn add(&self, device: u32, keeps: bool) -> Result {
        let giver = Giver {
            device,
            number: Atomic::new(0),
            lag: Lag::new(WAITS),
            keeps,
            thinned: Atomic::new(0),
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

    /// Pages of a target's stretch donate no longer, bit *n* for page *n*.
    pub(crate) fn ended(&self, stretch: &Stretch, holder: &Holder, why: End, pages: u32) {
        self.with(holder.device, |giver| {
            // CAST: The place in `End::ALL`.
            giver.ended[why as usize].add(pages.count_ones().into(), Relaxed);
            trace!(
                record_end,
                stretch.traced(giver.number(), holder.layer.thin_id, pages),
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
        for why in End::ALL {
            // CAST: Its place in there.
            let pages = self.ended[why as usize].load(Relaxed);
            write!(out, " ended_{}={pages}", reason(why))?;
        }
        write!(out, " thinned_pages={}", self.thinned.load(Relaxed))
    }
}
