// SPDX-License-Identifier: GPL-2.0

//! What all targets share.
//!
//! Lock order: `subscription`, in constructors only, then dm-thin's chain of notifiers, then the
//! [tree](crate::tree)'s.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};

use dm::{
    blocklock::BlockLocks,
    device::BlockDevice,
    directory::{End, Run},
    event::{Event, Events},
    hold,
    index::Index,
    inflight::InFlight,
    parking::Parking,
    thin::{Info, Subscription},
};

use crate::{
    access::{AccessTable, Stretch},
    args::Features,
    blocks::Blocks,
    layer::Layer,
    target::Drr,
    tree::Tree,
};

// Each read walks a chain of these, and most aren't in the CPU's cache.
const _: () = assert!(Index::<Run<Stretch>>::LOOK_UP_BYTES <= 64);

/// Locks of blocks: more than there are writes in flight, as a rule.
const LOCKS: usize = 4096;

/// What the pools' events go to.
struct Watch {
    table: Arc<AccessTable>,
    tree: Arc<Tree>,
}

impl Events for Watch {
    fn event(&self, event: Event) {
        self.table.event(event);
        match event {
            Event::Created {
                pool,
                thin_id,
                origin,
                time,
            } => {
                let origin = origin.map(|origin| Layer::new(pool, origin));
                self.tree.created(Layer::new(pool, thin_id), origin, time);
                hold::Place::LayerCreated.pass();
            }
            Event::Deleted { pool, thin_id } => self.tree.deleted(Layer::new(pool, thin_id)),
            Event::Aborted { pool } => self.tree.forget_pool(pool),
            Event::Unmapped { .. } | Event::Allocated { .. } => {}
        }
    }
}

/// Shared by all targets.
#[pin_data]
pub(crate) struct Core {
    /// The one access table.
    pub(crate) table: Arc<AccessTable>,
    /// The layers of all pools.
    pub(crate) tree: Arc<Tree>,
    /// How often their blocks are read.
    pub(crate) blocks: Blocks,
    /// Reads that others may follow.
    flights: KBox<InFlight<Drr>>,
    /// Writes in flight, and those that wait for one of them.
    locks: BlockLocks,
    parked: Parking,
    next_device: Atomic<u32>,
    /// From when dm-thin-pool is there on; so the tree misses nothing while there are no targets.
    #[pin]
    subscription: Mutex<Option<Subscription<Watch>>>,
}

impl Core {
    /// For an empty `table`.
    pub(crate) fn new(table: Arc<AccessTable>) -> Result<Arc<Self>> {
        let tree = Arc::pin_init(Tree::new(), GFP_KERNEL)?;
        let blocks = Blocks::new()?;
        let flights = InFlight::new()?;
        let locks = BlockLocks::new(LOCKS)?;
        let parked = Parking::new()?;
        let core = Arc::pin_init(
            pin_init!(Self {
                table,
                tree,
                blocks,
                flights,
                locks,
                parked,
                next_device: Atomic::new(1),
                subscription <- new_mutex!(None, "drr_subscription"),
            }),
            GFP_KERNEL,
        )?;
        // If dm-thin-pool isn't loaded yet, the first target does it.
        let _ = core.subscribe();
        Ok(core)
    }

    fn subscribe(&self) -> Result {
        let mut subscription = self.subscription.lock();
        if subscription.is_none() {
            let watch = Watch {
                table: self.table.clone(),
                tree: self.tree.clone(),
            };
            *subscription = Some(Subscription::new(Arc::new(watch, GFP_KERNEL)?)?);
        }
        Ok(())
    }

    /// Makes a target of `bdev`, on the thin device that `info` tells of and with `features`, a member.
    /// Fails with `ENOMEM`, or `ENOENT` without a patched dm-thin-pool.
    pub(crate) fn join(
        self: &Arc<Self>,
        bdev: BlockDevice<'_>,
        info: &Info,
        features: &Features,
    ) -> Result<Membership> {
        self.subscribe()?;
        let member = Membership {
            core: self.clone(),
            // Wraps after four billion targets; the number only has to differ from those of
            // targets that have records.
            device: self.next_device.fetch_add(1, Relaxed),
            layer: Atomic::new(0),
        };
        // If this fails, the membership goes again.
        self.table
            .givers
            .add(member.device, bdev.id(), features.keep_copies)?;
        member.moves_to(info);
        Ok(member)
    }
}

/// A target's membership; its records end with it.
pub(crate) struct Membership {
    core: Arc<Core>,
    /// Number of the target.
    pub(crate) device: u32,
    /// Serial number of the layer that counts it as a target of its own.
    layer: Atomic<u32>,
}

impl Membership {
    /// The one access table.
    pub(crate) fn table(&self) -> &AccessTable {
        &self.core.table
    }

    /// The layers of all pools.
    pub(crate) fn tree(&self) -> &Tree {
        &self.core.tree
    }

    /// How often the pools' blocks are read.
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.core.blocks
    }

    /// Reads in flight.
    pub(crate) fn flights(&self) -> &InFlight<Drr> {
        &self.core.flights
    }

    /// Locks of the blocks that writes in flight are for.
    pub(crate) fn locks(&self) -> &BlockLocks {
        &self.core.locks
    }

    /// Writes that wait for a lock.
    pub(crate) fn parked(&self) -> &Parking {
        &self.core.parked
    }

    /// The target is on the thin device that `info` tells of. Process context; calls don't overlap.
    pub(crate) fn moves_to(&self, info: &Info) {
        let layer = Layer::new(info.pool, info.thin_id);
        let old = self.layer.load(Relaxed);
        self.layer
            .store(self.tree().open(layer, info.created), Relaxed);
        self.tree().close(old);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if dm::guard::Guard::Teardown.on() {
            self.table().forget_device(self.device, End::Gone);
        }
        self.table().givers.remove(self.device);
        self.tree().close(self.layer.load(Relaxed));
    }
}
