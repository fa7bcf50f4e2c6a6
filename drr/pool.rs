// SPDX-License-Identifier: GPL-2.0

//! What the targets of one pool share, so that no pool is in another's way.
//!
//! Lock order: the list's lock, in constructors and destructors only, then dm-thin's chain of notifiers.

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

/// Learns of the changes of one pool's mappings.
struct Watch {
    pool: u64,
    changes: Arc<Epochs>,
}

impl Events for Watch {
    fn event(&self, event: Event) {
        let ours = |change: &MappingChange| change.pool == self.pool;
        match event {
            Event::MappingChanges(change) if ours(&change) => {
                self.changes.begin(change.thin_id, change.begin, change.end);
            }
            Event::MappingChanged(change) if ours(&change) => {
                self.changes.end(change.thin_id, change.begin, change.end);
            }
            Event::Aborted { pool } if pool == self.pool && Rule::Rollback.on() => {
                self.changes.change_all();
            }
            _ => {}
        }
    }
}

/// The part of the machine's memory that a pool's metadata may take: 2 MiB, which serve an image, in 2 GiB.
const METADATA_SHARE: u64 = 1024;

/// A pool that has targets.
pub(crate) struct Pool {
    /// Number of the pool's activation; never used again.
    pub(crate) id: u64,
    /// Notices changes of its mappings.
    pub(crate) changes: Arc<Epochs>,
    /// What its targets' parked bios go on in.
    pub(crate) queue: WorkQueue,
    /// Metadata of file systems that has been read from it.
    pub(crate) metadata: PageStore,
    /// Told of all changes that begin from now on.
    _subscription: Subscription<Watch>,
    /// No change is under way that began before that.
    settled: Atomic<bool>,
}

impl Pool {
    fn new(id: u64, mount: Arc<PrivateMount>) -> Result<Arc<Self>> {
        let changes = Arc::new(Epochs::new()?, GFP_KERNEL)?;
        let watch = Watch {
            pool: id,
            changes: changes.clone(),
        };
        let pool = Self {
            id,
            changes,
            queue: WorkQueue::in_threads(c"drr")?,
            // CAST: A `usize` fits.
            metadata: PageStore::new(mount, total_ram_pages() as u64 / METADATA_SHARE)?,
            _subscription: Subscription::new(Arc::new(watch, GFP_KERNEL)?)?,
            settled: Atomic::new(false),
        };
        Ok(Arc::new(pool, GFP_KERNEL)?)
    }

    /// Whether a stamp that was taken before the lookup of `mapping` tells of all changes.
    ///
    /// Of a change that was under way when the pool's first target was made, only the end is told. Changes of
    /// a pool don't overlap, so once a lookup has found none under way, all are told of from begin to end.
    pub(crate) fn settles(&self, mapping: &Mapping) -> bool {
        if !mapping.changing && !self.settled.load(Acquire) {
            // The end of an earlier change was told before that.
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
    /// Where their stores are.
    mount: Arc<PrivateMount>,
}

impl Pools {
    /// None yet.
    pub(crate) fn new(mount: Arc<PrivateMount>) -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "drr_pools"),
            mount,
        })
    }

    /// Joins a target to the pool `id`. Process context; fails with `ENOMEM`, or `ENOENT` without a
    /// patched dm-thin-pool.
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

    /// A target leaves its pool. Process context.
    pub(crate) fn leave(&self, id: u64) {
        let mut list = self.list.lock();
        if let Some(at) = list.iter().position(|member| member.pool.id == id) {
            // RANGE: It has joined.
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

    /// Bytes of memory that the pools take.
    pub(crate) fn bytes(&self) -> u64 {
        self.list
            .lock()
            .iter()
            .map(|member| member.pool.changes.bytes())
            .sum()
    }
}
