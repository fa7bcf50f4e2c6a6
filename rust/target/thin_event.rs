// SPDX-License-Identifier: GPL-2.0

//! What dm-thin tells of pools: where something is mapped, and what happens.
//!
//! C header: [`include/linux/dm-thin.h`](srctree/include/linux/dm-thin.h)

/// Where a sector is mapped (`struct dm_thin_mapping`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mapping {
    /// The pool; never reused.
    pub pool: u64,
    /// The pool's data block.
    pub block: u64,
    /// The activation of the table that answered.
    pub binding: u64,
    /// The thin device's id within the pool.
    pub thin_id: u32,
    /// The pool's time when the block was mapped: with pool and block, it names the block's content for all
    /// who see it as shared.
    pub time: u32,
    /// Size of a data block in sectors.
    pub block_sectors: u32,
    /// Other thin devices may map the block; it is never written in place.
    pub shared: bool,
    /// A change of some mapping of the pool's was under way.
    pub changing: bool,
}

/// A change of mappings. Changes of one pool don't overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingChange {
    /// The pool.
    pub pool: u64,
    /// The thin device's id.
    pub thin_id: u32,
    /// First virtual block.
    pub begin: u64,
    /// One past the last.
    pub end: u64,
}

/// Something that happened in a pool (`enum dm_thin_event`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A thin device was created.
    Created {
        /// Its pool.
        pool: u64,
        /// Its id.
        thin_id: u32,
        /// What it is a snapshot of, if of anything.
        origin: Option<u32>,
        /// The pool's time.
        time: u32,
    },
    /// A thin device is about to be deleted, which fails if it is open.
    Deletes {
        /// Its pool.
        pool: u64,
        /// Its id.
        thin_id: u32,
    },
    /// A device with this thin id was closed; others may be open still.
    Closed {
        /// Its pool.
        pool: u64,
        /// Its id.
        thin_id: u32,
    },
    /// A thin device was deleted.
    Deleted {
        /// Its pool.
        pool: u64,
        /// Its id.
        thin_id: u32,
    },
    /// Virtual blocks `begin..end` are about to be mapped elsewhere, or nowhere.
    MappingChanges(MappingChange),
    /// They have been, or it failed. Nothing that waits for the change has been completed yet.
    MappingChanged(MappingChange),
    /// The metadata was rolled back, or is half changed: nothing known of the pool holds, and lookups fail from
    /// now on.
    Aborted {
        /// The pool.
        pool: u64,
    },
    /// The pool isn't active any more.
    Gone {
        /// The pool.
        pool: u64,
    },
}

/// Learns of events; process context, may sleep but not wait for I/O to the pool.
pub trait Events: Send + Sync {
    /// `event` happened.
    fn event(&self, event: Event);
}
