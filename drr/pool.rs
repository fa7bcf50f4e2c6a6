// SPDX-License-Identifier: GPL-2.0

//! What the targets of one pool share. Nothing here is shared between pools, so that no pool delays
//! another.
//!
//! Lock order: the list's lock, then, in constructors only, dm-thin's chain of notifiers.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        Arc, Mutex,
    },
};

use dm::{
    drr::rule::Rule,
    pagecache::page_store::{PageStore, PrivateMount},
    sched::total_ram_pages,
    sync::work_queue::WorkQueue,
    target::thin::Subscription,
    target::thin_event::{Event, Events, Mapping, MappingChange},
};

use crate::access::epoch::Epochs;

/// The receiver of the events of one pool's mappings.
struct Watch {
    pool: u64,
    epochs: Arc<Epochs>,
}

impl Events for Watch {
    fn event(&self, event: Event) {
        let ours = |change: &MappingChange| change.pool == self.pool;
        match event {
            Event::MappingChanges(change) if ours(&change) => {
                self.epochs.begin(change.thin_id, change.begin, change.end);
            }
            Event::MappingChanged(change) if ours(&change) => {
                self.epochs.end(change.thin_id, change.begin, change.end);
            }
            Event::Aborted { pool } if pool == self.pool && Rule::Rollback.on() => {
                self.epochs.change_all();
            }
            _ => {}
        }
    }
}

/// The part of the machine's memory that a pool's metadata may take, as a divisor: 2 MiB of 2 GiB,
/// which are enough for an image.
const METADATA_SHARE: u64 = 1024;

/// A pool that has targets.
pub(crate) struct Pool {
    /// Number of the pool's activation; never used again.
    pub(crate) id: u64,
    /// Counters of the changes of the pool's mappings.
    pub(crate) epochs: Arc<Epochs>,
    /// The workqueue in which parked bios of the pool's targets go on.
    pub(crate) queue: WorkQueue,
    /// The store of file system metadata that has been read from the pool.
    pub(crate) metadata: PageStore,
    /// Reports all changes that begin after the subscription.
    _subscription: Subscription<Watch>,
    /// Whether all changes that began before the subscription have ended.
    settled: Atomic<bool>,
}

impl Pool {
    fn new(id: u64, mount: Arc<PrivateMount>) -> Result<Arc<Self>> {
        let epochs = Arc::new(Epochs::new()?, GFP_KERNEL)?;
        let watch = Watch {
            pool: id,
            epochs: epochs.clone(),
        };
        let pool = Self {
            id,
            epochs,
            queue: WorkQueue::in_threads(c"drr")?,
            // CAST: A `usize` fits.
            metadata: PageStore::new(mount, total_ram_pages() as u64 / METADATA_SHARE)?,
            _subscription: Subscription::new(Arc::new(watch, GFP_KERNEL)?)?,
            settled: Atomic::new(false),
        };
        Ok(Arc::new(pool, GFP_KERNEL)?)
    }

    /// Returns whether an epoch that was taken before the lookup of `mapping` covers all changes.
    ///
    /// If a change was under way when the pool's first target was made, only its end is reported.
    /// Changes of a pool don't overlap, so once a lookup has found none under way, all later
    /// changes are reported from begin to end.
    pub(crate) fn settles(&self, mapping: &Mapping) -> bool {
        if !mapping.changing && !self.settled.load(Acquire) {
            // The end of an earlier change was reported before the lookup.
            self.settled.store(true, Release);
        }
        self.settled.load(Acquire)
    }
}

/// A pool, and how many targets it has.
struct Member {
    pool: Arc<Pool>,
    targets: usize,
}

/// The pools that have targets.
#[pin_data]
pub(crate) struct Pools {
    #[pin]
    list: Mutex<KVec<Member>>,
    /// The file system that holds the pools' stores.
    mount: Arc<PrivateMount>,
}

impl Pools {
    /// Creates an empty list.
    pub(crate) fn new(mount: Arc<PrivateMount>) -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "drr_pools"),
            mount,
        })
    }

    /// Adds a target to the pool `id`, and returns the pool. Process context; fails with `ENOMEM`,
    /// or `ENOENT` without a provider of dm-thin's interface.
    pub(crate) fn join(&self, id: u64) -> Result<Arc<Pool>> {
        let mut list = self.list.lock();
        if let Some(member) = list.iter_mut().find(|member| member.pool.id == id) {
            // RANGE: Targets in memory.
            member.targets += 1;
            return Ok(member.pool.clone());
        }
        list.reserve(1, GFP_KERNEL)?;
        let pool = Pool::new(id, self.mount.clone())?;
        let member = Member {
            pool: pool.clone(),
            targets: 1,
        };
        list.push(member, GFP_KERNEL)?;
        Ok(pool)
    }

    /// Removes a target from the pool `id`. Process context.
    pub(crate) fn leave(&self, id: u64) {
        let mut list = self.list.lock();
        if let Some(at) = list.iter().position(|member| member.pool.id == id) {
            // RANGE: The target has joined.
            list[at].targets -= 1;
            if list[at].targets == 0 {
                // RANGE: One is at `at`.
                let last = list.len() - 1;
                list.swap(at, last);
                let gone = list.pop();
                drop(list);
                drop(gone);
            }
        }
    }

    /// Returns the bytes of memory that the pools take. Process context.
    pub(crate) fn bytes(&self) -> u64 {
        self.list
            .lock()
            .iter()
            .map(|member| member.pool.epochs.bytes())
            .sum()
    }
}
