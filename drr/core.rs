// SPDX-License-Identifier: GPL-2.0

//! What all targets share.
//!
//! Lock order: `subscription`, in constructors only, or that of the [pools](crate::pool), then dm-thin's
//! chain of notifiers, then the [tree](crate::tree)'s.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SetOnce,
    },
};

use dm::{
    blocklock::BlockLocks,
    directory::{End, Run},
    event::{Event, Events},
    hold,
    index::Index,
    inflight::InFlight,
    page_store::PrivateMount,
    scratch::ScratchPages,
    thin::{Info, Subscription},
};

use crate::{
    access::{AccessTable, Holder, Stretch},
    args::Features,
    blocks::Blocks,
    copy::Engine,
    digest::Key,
    layer::Layer,
    leaving::Leaving,
    pool::{Pool, Pools},
    target::Drr,
    tree::Tree,
};

// Each read walks a chain of these, and most aren't in the CPU's cache.
const _: () = assert!(Index::<Run<Stretch, Holder>>::LOOK_UP_BYTES <= 64);
// And many pages have one.
const _: () = assert!(Index::<Run<Stretch, Holder>>::ENTRY_BYTES <= 96);

/// Cells of the block locks; usually more than there are writes in flight.
const LOCKS: usize = 4096;

/// What the pools' events go to.
struct Watch {
    table: Arc<AccessTable>,
    tree: Arc<Tree>,
    leaving: Arc<Leaving>,
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
            Event::Deletes { pool, thin_id } => self.leaving.wait_for(Layer::new(pool, thin_id)),
            Event::Closed { pool, thin_id } => self.leaving.closed(Layer::new(pool, thin_id)),
            Event::Deleted { pool, thin_id } => self.tree.deleted(Layer::new(pool, thin_id)),
            Event::Aborted { pool } | Event::Gone { pool } => self.tree.forget_pool(pool),
            Event::MappingChanges(_) | Event::MappingChanged(_) => {}
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
    /// Those whose target has just gone.
    leaving: Arc<Leaving>,
    /// How often their blocks are read.
    pub(crate) blocks: Blocks,
    /// What all digests are made with; there once it can be drawn.
    key: SetOnce<Key>,
    /// Where copies are looked at.
    scratch: ScratchPages,
    /// The pools that have targets.
    #[pin]
    pools: Pools,
    /// Reads that others may follow.
    flights: KBox<InFlight<Drr>>,
    /// Writes in flight, and those that wait for one of them.
    locks: BlockLocks<LOCKS>,
    next_device: Atomic<u32>,
    /// From when dm-thin-pool is there on; so the tree misses nothing while there are no targets.
    #[pin]
    subscription: Mutex<Option<Subscription<Watch>>>,
}

impl Core {
    /// For an empty `table`.
    pub(crate) fn new(table: Arc<AccessTable>) -> Result<Arc<Self>> {
        let tree = Arc::pin_init(Tree::new(), GFP_KERNEL)?;
        let leaving = Arc::pin_init(Leaving::new(), GFP_KERNEL)?;
        let blocks = Blocks::new()?;
        let scratch = ScratchPages::new()?;
        let flights = InFlight::new(c"drr")?;
        let locks = BlockLocks::new()?;
        let mount = Arc::new(PrivateMount::new()?, GFP_KERNEL)?;
        let core = Arc::pin_init(
            pin_init!(Self {
                table,
                tree,
                leaving,
                blocks,
                key: SetOnce::new(),
                scratch,
                pools <- Pools::new(mount),
                flights,
                locks,
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
                leaving: self.leaving.clone(),
            };
            *subscription = Some(Subscription::new(Arc::new(watch, GFP_KERNEL)?)?);
        }
        Ok(())
    }

    /// Makes a target on the thin device that `info` tells of, with `features`, a member.
    /// Fails with `ENOMEM`, or `ENOENT` without a patched dm-thin-pool.
    pub(crate) fn join(self: &Arc<Self>, info: &Info, features: &Features) -> Result<Membership> {
        self.subscribe()?;
        let pool = self.pools.join(info.pool)?;
        let member = Membership {
            pool,
            leaves: Leaves {
                leaving: self.leaving.clone(),
                layer: Atomic::new(0),
            },
            core: self.clone(),
            // Wraps after four billion targets; the number only has to differ from those of
            // targets that have records.
            device: self.next_device.fetch_add(1, Relaxed),
            layer: Atomic::new(0),
        };
        // If this fails, the membership goes again.
        self.table.givers.add(member.device, features.keep_copies)?;
        member.moves_to(info);
        Ok(member)
    }
}

/// A target's membership; its records end with it.
pub(crate) struct Membership {
    /// The pool. Dropped first: it may take a while, and its end waits for callbacks.
    pub(crate) pool: Arc<Pool>,
    /// Dropped after that, when the thin device is about to be let go.
    leaves: Leaves,
    core: Arc<Core>,
    /// Number of the target.
    pub(crate) device: u32,
    /// Serial number of the layer that counts it as a target of its own.
    layer: Atomic<u32>,
}

/// Tells that a target has left its layer, when it is dropped.
struct Leaves {
    leaving: Arc<Leaving>,
    /// [`Layer::number`]; 0 as long as it hasn't, or if others are there.
    layer: Atomic<u64>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        match self.layer.load(Relaxed) {
            0 => {}
            layer => self.leaving.left(Layer::from_number(layer)),
        }
    }
}

impl Membership {
    /// The one access table.
    pub(crate) fn table(&self) -> &AccessTable {
        &self.core.table
    }

    /// What all digests are made with; nothing as long as it can't be drawn.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.core.key.as_ref()
    }

    /// Draws the key, if it can be drawn by now.
    pub(crate) fn draw_key(&self) {
        if let Some(key) = Key::draw() {
            // Fails if another CPU has stored a key meanwhile: all use that one.
            self.core.key.populate(key);
        }
    }

    /// What reads are served with; nothing as long as there is no key.
    pub(crate) fn engine(&self) -> Option<Engine<'_>> {
        Some(Engine {
            table: self.table(),
            key: self.key()?,
            scratch: &self.core.scratch,
        })
    }

    /// Records, recorded pages, and bytes that the module's tables take.
    // RANGE: Sizes in memory.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let (records, pages, bytes) = self.table().usage();
        let others = self.core.pools.bytes() + self.tree().bytes();
        (records, pages, bytes + others)
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
    pub(crate) fn locks(&self) -> &BlockLocks<LOCKS> {
        &self.core.locks
    }

    /// The target is on the thin device that `info` tells of. Process context; calls don't overlap.
    pub(crate) fn moves_to(&self, info: &Info) {
        let layer = Layer::new(info.pool, info.thin_id);
        let old = self.layer.load(Relaxed);
        self.layer
            .store(self.tree().open(layer, info.created), Relaxed);
        self.tree().close(old);
        self.core.leaving.closed(layer);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if dm::guard::Guard::Teardown.on() {
            self.table().forget_device(self.device, End::Gone);
        }
        self.table().givers.remove(self.device);
        self.core.pools.leave(self.pool.id);
        if let Some(layer) = self.tree().close(self.layer.load(Relaxed)) {
            self.leaves.layer.store(layer.number(), Relaxed);
        }
    }
}
