// SPDX-License-Identifier: GPL-2.0

//! What all targets share, and a target's handle on it.
//!
//! Lock order: `subscription`, in constructors only, or the lock of the [pools](crate::pool), then
//! dm-thin's chain of notifiers, then the lock of the [tree](crate::layers::tree).

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
    pagecache::cached_extent::CachedExtent,
    pagecache::directory::End,
    pagecache::page_store::PrivateMount,
    sync::index::Index,
    sync::scratch::ScratchPages,
    sync::work_queue::WorkQueue,
    target::thin::{Info, Subscription},
};

use crate::{
    access::digest::Key,
    access::donor_target::TargetRegistry,
    access::mappings::MappingCache,
    access::name::{BlockExtent, Holder},
    access::table::AccessTable,
    access::unshared::UnsharedBlocks,
    args::Features,
    events::PoolEvents,
    io::copy::Engine,
    layers::block_stats::BlockStats,
    layers::id::ThinId,
    layers::tree::Tree,
    pool::{Pool, Pools},
    target::Drr,
};

// Each read walks a chain of these entries, most of which aren't in the CPU's cache: what it reads
// of an entry is in one cache line.
const _: () = assert!(Index::<CachedExtent<BlockExtent, Holder>>::LOOK_UP_BYTES <= 64);
// Many cached pages have an entry: it fits into kmalloc's size of 96 bytes.
const _: () = assert!(Index::<CachedExtent<BlockExtent, Holder>>::ENTRY_BYTES <= 96);

/// Cells of the block locks; usually more than there are writes in flight.
const LOCKS: usize = 4096;

/// The state that all targets share.
#[pin_data]
pub(crate) struct Core {
    /// The access table of all pools.
    table: Arc<AccessTable>,
    /// All targets, as donors.
    targets: Arc<TargetRegistry>,
    /// Lookups of shared blocks that are kept for other reads.
    mappings: MappingCache,
    /// Blocks that were found not to be shared.
    unshared: Arc<UnsharedBlocks>,
    /// The layers of all pools.
    pub(crate) tree: Arc<Tree>,
    /// How often the blocks of all pools are read.
    pub(crate) blocks: BlockStats,
    /// The key of all digests; set once it can be drawn.
    key: SetOnce<Key>,
    /// Pages in which copies are proven.
    scratch: ScratchPages,
    /// The pools that have targets.
    #[pin]
    pools: Pools,
    /// Reads that others may follow.
    in_flight: KBox<InFlight<Drr>>,
    /// The workqueue that records what a read has filled, if this takes too long for a hard
    /// interrupt.
    softirq: WorkQueue,
    /// The locks of blocks that writes in flight change, and the writes that wait for these locks.
    locks: BlockLocks<LOCKS>,
    next_target_id: Atomic<u32>,
    /// The subscription to the events of all pools: made when the module is loaded, or with the
    /// first target if dm-thin-pool isn't loaded by then. Kept without targets, so that the tree
    /// misses nothing.
    #[pin]
    subscription: Mutex<Option<Subscription<PoolEvents>>>,
}

impl Core {
    /// Creates the shared state with an empty `table`, whose ledger `targets` is. Process context;
    /// fails with `ENOMEM`.
    pub(crate) fn new(table: Arc<AccessTable>, targets: Arc<TargetRegistry>) -> Result<Arc<Self>> {
        let mappings = MappingCache::new()?;
        let unshared = Arc::new(UnsharedBlocks::new()?, GFP_KERNEL)?;
        let tree = Arc::pin_init(Tree::new(), GFP_KERNEL)?;
        let blocks = BlockStats::new()?;
        let scratch = ScratchPages::new()?;
        let in_flight = InFlight::new(c"drr")?;
        let softirq = WorkQueue::in_softirq(c"drr_softirq")?;
        let locks = BlockLocks::new()?;
        let mount = Arc::new(PrivateMount::new()?, GFP_KERNEL)?;
        let core = Arc::pin_init(
            pin_init!(Self {
                table,
                targets,
                mappings,
                unshared,
                tree,
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
        // If dm-thin-pool isn't loaded yet, the first target subscribes.
        let _ = core.subscribe();
        Ok(core)
    }

    fn subscribe(&self) -> Result {
        let mut subscription = self.subscription.lock();
        if subscription.is_none() {
            let events = PoolEvents {
                unshared: self.unshared.clone(),
                tree: self.tree.clone(),
            };
            *subscription = Some(Subscription::new(Arc::new(events, GFP_KERNEL)?)?);
        }
        Ok(())
    }

    /// Returns a handle for a new target with `features` on the thin device that `info` describes.
    /// Process context; fails with `ENOMEM`, or `ENOENT` without a provider of dm-thin's interface.
    pub(crate) fn join(self: &Arc<Self>, info: &Info, features: &Features) -> Result<TargetHandle> {
        self.subscribe()?;
        let pool = self.pools.join(info.pool)?;
        let handle = TargetHandle {
            pool,
            core: self.clone(),
            // Wraps after four billion targets; the number only has to differ from those of targets
            // that have records.
            target_id: self.next_target_id.fetch_add(1, Relaxed),
            layer: Atomic::new(0),
        };
        // If this fails, dropping the handle undoes the join.
        self.targets.add(handle.target_id, features.keep_copies)?;
        handle.moves_to(info);
        Ok(handle)
    }
}

/// A target's handle on what all targets share; the target's records end with it.
pub(crate) struct TargetHandle {
    /// The pool. Dropped first: its destructor may take a while, and waits for callbacks.
    pub(crate) pool: Arc<Pool>,
    core: Arc<Core>,
    /// Number of the target.
    pub(crate) target_id: u32,
    /// Serial number of the layer that counts the target as one of its own.
    layer: Atomic<u32>,
}

impl TargetHandle {
    /// Returns the access table of all pools.
    pub(crate) fn table(&self) -> &AccessTable {
        &self.core.table
    }

    /// Returns all targets, as donors.
    pub(crate) fn targets(&self) -> &TargetRegistry {
        &self.core.targets
    }

    /// Returns the cached lookups of shared blocks.
    pub(crate) fn mappings(&self) -> &MappingCache {
        &self.core.mappings
    }

    /// Returns the blocks that were found not to be shared.
    pub(crate) fn unshared(&self) -> &UnsharedBlocks {
        &self.core.unshared
    }

    /// Returns the key of all digests, or [`None`] as long as it can't be drawn.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.core.key.as_ref()
    }

    /// Draws the key, if this is possible by now.
    pub(crate) fn draw_key(&self) {
        if let Some(key) = Key::draw() {
            // Fails if another CPU has stored a key meanwhile: all use that key.
            self.core.key.populate(key);
        }
    }

    /// Returns the engine that serves reads, or [`None`] as long as there is no key.
    pub(crate) fn engine(&self) -> Option<Engine<'_>> {
        Some(Engine {
            table: self.table(),
            key: self.key()?,
            scratch: &self.core.scratch,
        })
    }

    /// Returns the numbers of cached extents and of recorded pages, and the bytes that the module's
    /// tables take.
    // RANGE: Sizes in memory.
    pub(crate) fn usage(&self) -> (u64, u64, u64) {
        let (records, pages, bytes) = self.table().usage();
        let cached = self.mappings().bytes() + self.unshared().bytes();
        let others = self.core.pools.bytes() + self.tree().bytes();
        (records, pages, bytes + cached + others)
    }

    /// Returns the layers of all pools.
    pub(crate) fn tree(&self) -> &Tree {
        &self.core.tree
    }

    /// Returns the counters of how often the pools' blocks are read.
    pub(crate) fn blocks(&self) -> &BlockStats {
        &self.core.blocks
    }

    /// Returns the reads in flight.
    pub(crate) fn in_flight(&self) -> &InFlight<Drr> {
        &self.core.in_flight
    }

    /// Returns the workqueue to which the end of a bio is deferred from a hard interrupt.
    pub(crate) fn softirq(&self) -> &WorkQueue {
        &self.core.softirq
    }

    /// Returns the locks of the blocks that writes in flight change.
    pub(crate) fn locks(&self) -> &BlockLocks<LOCKS> {
        &self.core.locks
    }

    /// Moves the target to the thin device that `info` describes. Process context; calls must not
    /// overlap.
    pub(crate) fn moves_to(&self, info: &Info) {
        let layer = ThinId::new(info.pool, info.thin_id);
        let old = self.layer.load(Relaxed);
        self.layer
            .store(self.tree().open(layer, info.created), Relaxed);
        self.tree().close(old);
    }
}

impl Drop for TargetHandle {
    fn drop(&mut self) {
        if dm::drr::rule::Rule::Teardown.on() {
            self.table().forget_target(self.target_id, End::Gone);
        }
        self.targets().remove(self.target_id);
        self.core.pools.leave(self.pool.id);
        self.tree().close(self.layer.load(Relaxed));
    }
}
