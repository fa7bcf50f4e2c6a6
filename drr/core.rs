// SPDX-License-Identifier: GPL-2.0

//! What all targets share.
//!
//! Lock order: `subscription`, in constructors only, or that of the [pools](crate::pool), then dm-thin's
//! chain of notifiers, then the [tree](crate::layers::tree)'s.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SetOnce,
    },
};

use dm::{
    io::block_lock::BlockLocks,
    io::in_flight::InFlight,
    pagecache::directory::{CachedExtent, End},
    pagecache::page_store::PrivateMount,
    sync::index::Index,
    sync::scratch::ScratchPages,
    sync::work_queue::WorkQueue,
    target::thin::{Info, Subscription},
};

use crate::{
    access::digest::Key,
    access::table::{AccessTable, BlockExtent, Holder},
    args::Features,
    events::PoolEvents,
    io::copy::Engine,
    layers::block_stats::BlockStats,
    layers::id::ThinId,
    layers::tree::Tree,
    leaving::Leaving,
    pool::{Pool, Pools},
    target::Drr,
};

// Each read walks a chain of these, and most aren't in the CPU's cache.
const _: () = assert!(Index::<CachedExtent<BlockExtent, Holder>>::LOOK_UP_BYTES <= 64);
// And many pages have one.
const _: () = assert!(Index::<CachedExtent<BlockExtent, Holder>>::ENTRY_BYTES <= 96);

/// Cells of the block locks; usually more than there are writes in flight.
const LOCKS: usize = 4096;

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
    pub(crate) blocks: BlockStats,
    /// What all digests are made with; there once it can be drawn.
    key: SetOnce<Key>,
    /// Where copies are looked at.
    scratch: ScratchPages,
    /// The pools that have targets.
    #[pin]
    pools: Pools,
    /// Reads that others may follow.
    in_flight: KBox<InFlight<Drr>>,
    /// Records what a read has filled, if that takes too long for an interrupt.
    softirq: WorkQueue,
    /// Writes in flight, and those that wait for one of them.
    locks: BlockLocks<LOCKS>,
    next_target_id: Atomic<u32>,
    /// From when dm-thin-pool is there on; so the tree misses nothing while there are no targets.
    #[pin]
    subscription: Mutex<Option<Subscription<PoolEvents>>>,
}

impl Core {
    /// For an empty `table`.
    pub(crate) fn new(table: Arc<AccessTable>) -> Result<Arc<Self>> {
        let tree = Arc::pin_init(Tree::new(), GFP_KERNEL)?;
        let leaving = Arc::pin_init(Leaving::new(), GFP_KERNEL)?;
        let blocks = BlockStats::new()?;
        let scratch = ScratchPages::new()?;
        let in_flight = InFlight::new(c"drr")?;
        let softirq = WorkQueue::in_softirq(c"drr_softirq")?;
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
                in_flight,
                softirq,
                locks,
                next_target_id: Atomic::new(1),
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
            let events = PoolEvents {
                table: self.table.clone(),
                tree: self.tree.clone(),
                leaving: self.leaving.clone(),
            };
            *subscription = Some(Subscription::new(Arc::new(events, GFP_KERNEL)?)?);
        }
        Ok(())
    }

    /// Makes a target on the thin device that `info` tells of, with `features`, a handle.
    /// Fails with `ENOMEM`, or `ENOENT` without a patched dm-thin-pool.
    pub(crate) fn join(self: &Arc<Self>, info: &Info, features: &Features) -> Result<TargetHandle> {
        self.subscribe()?;
        let pool = self.pools.join(info.pool)?;
        let handle = TargetHandle {
            pool,
            leaves: Leaves {
                leaving: self.leaving.clone(),
                layer: Atomic::new(0),
            },
            core: self.clone(),
            // Wraps after four billion targets; the number only has to differ from those of
            // targets that have records.
            target_id: self.next_target_id.fetch_add(1, Relaxed),
            layer: Atomic::new(0),
        };
        // If this fails, the membership goes again.
        self.table
            .targets
            .add(handle.target_id, features.keep_copies)?;
        handle.moves_to(info);
        Ok(handle)
    }
}

/// A target's membership; its records end with it.
pub(crate) struct TargetHandle {
    /// The pool. Dropped first: it may take a while, and its end waits for callbacks.
    pub(crate) pool: Arc<Pool>,
    /// Dropped after that, when the thin device is about to be let go.
    leaves: Leaves,
    core: Arc<Core>,
    /// Number of the target.
    pub(crate) target_id: u32,
    /// Serial number of the layer that counts it as a target of its own.
    layer: Atomic<u32>,
}

/// Tells that a target has left its layer, when it is dropped.
struct Leaves {
    leaving: Arc<Leaving>,
    /// [`ThinId::to_bits`]; 0 as long as it hasn't, or if others are there.
    layer: Atomic<u64>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        match self.layer.load(Relaxed) {
            0 => {}
            layer => self.leaving.left(ThinId::from_bits(layer)),
        }
    }
}

impl TargetHandle {
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
    pub(crate) fn blocks(&self) -> &BlockStats {
        &self.core.blocks
    }

    /// Reads in flight.
    pub(crate) fn in_flight(&self) -> &InFlight<Drr> {
        &self.core.in_flight
    }

    /// Where the end of a bio is put off to, out of an interrupt.
    pub(crate) fn softirq(&self) -> &WorkQueue {
        &self.core.softirq
    }

    /// Locks of the blocks that writes in flight are for.
    pub(crate) fn locks(&self) -> &BlockLocks<LOCKS> {
        &self.core.locks
    }

    /// The target is on the thin device that `info` tells of. Process context; calls don't overlap.
    pub(crate) fn moves_to(&self, info: &Info) {
        let layer = ThinId::new(info.pool, info.thin_id);
        let old = self.layer.load(Relaxed);
        self.layer
            .store(self.tree().open(layer, info.created), Relaxed);
        self.tree().close(old);
        self.core.leaving.closed(layer);
    }
}

impl Drop for TargetHandle {
    fn drop(&mut self) {
        if dm::drr::rule::Rule::Teardown.on() {
            self.table().forget_target(self.target_id, End::Gone);
        }
        self.table().targets.remove(self.target_id);
        self.core.pools.leave(self.pool.id);
        if let Some(layer) = self.tree().close(self.layer.load(Relaxed)) {
            self.leaves.layer.store(layer.to_bits(), Relaxed);
        }
    }
}
