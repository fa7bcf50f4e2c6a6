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
    /// The pool's time when the block was mapped.
    pub time: u32,
    /// Size of a data block in sectors.
    pub block_sectors: u32,
    /// Other thin devices may map the block; it is never written in place.
    pub shared: bool,
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
    /// A thin device was deleted.
    Deleted {
        /// Its pool.
        pool: u64,
        /// Its id.
        thin_id: u32,
    },
    /// Virtual blocks `begin..end` no longer map the data blocks they did.
    Unmapped {
        /// Its pool.
        pool: u64,
        /// The thin device's id.
        thin_id: u32,
        /// First virtual block.
        begin: u64,
        /// One past the last.
        end: u64,
    },
    /// A data block is about to be filled anew.
    Allocated {
        /// Its pool.
        pool: u64,
        /// The data block.
        block: u64,
    },
    /// The metadata was rolled back: nothing known of the pool holds.
    Aborted {
        /// The pool.
        pool: u64,
    },
}

/// Learns of events; process context, may sleep but not wait for I/O to the pool.
pub trait Events: Send + Sync {
    /// `event` happened.
    fn event(&self, event: Event);
}
