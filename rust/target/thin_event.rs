// SPDX-License-Identifier: GPL-2.0

//! Results of dm-thin's lookups, and the events of its pools.
//!
//! C header: [`include/linux/dm-thin.h`](srctree/include/linux/dm-thin.h)

/// The mapping of a sector (`struct dm_thin_mapping`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mapping {
    /// Number of the pool, which is never reused.
    pub pool: u64,
    /// Number of the data block in the pool.
    pub block: u64,
    /// Number of the activation of the table that answered.
    pub binding: u64,
    /// The thin device's id within the pool.
    pub thin_id: u32,
    /// The pool's time when the block was mapped. Together with `pool` and `block` it names the
    /// content of the block, for all devices that see the block as shared.
    pub time: u32,
    /// Size of a data block in sectors.
    pub block_sectors: u32,
    /// Whether other thin devices may map the block. If so, the block is never written in place.
    pub shared: bool,
    /// Whether a change of some mapping of the pool was under way.
    pub changing: bool,
}

/// A change of mappings. Changes of one pool do not overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingChange {
    /// Number of the pool.
    pub pool: u64,
    /// The thin device's id.
    pub thin_id: u32,
    /// First virtual block.
    pub begin: u64,
    /// One past the last virtual block.
    pub end: u64,
}

/// An event of a pool (`enum dm_thin_event`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A thin device was created.
    Created {
        /// Number of the pool.
        pool: u64,
        /// Id of the thin device.
        thin_id: u32,
        /// The device of which this one is a snapshot, if it is a snapshot.
        origin: Option<u32>,
        /// The pool's time.
        time: u32,
    },
    /// A thin device was deleted.
    Deleted {
        /// Number of the pool.
        pool: u64,
        /// Id of the thin device.
        thin_id: u32,
    },
    /// Virtual blocks are about to be mapped elsewhere or unmapped.
    MappingChanges(MappingChange),
    /// Virtual blocks were mapped elsewhere or unmapped, or that has failed. Bios that wait for the
    /// change have not been completed yet.
    MappingChanged(MappingChange),
    /// The metadata is about to be rolled back, or names have stopped being unique for another
    /// reason. Nothing known about the pool holds any more, and lookups fail already.
    Aborted {
        /// Number of the pool.
        pool: u64,
    },
    /// The pool is not active any more.
    Gone {
        /// Number of the pool.
        pool: u64,
    },
}

/// A receiver of events.
///
/// # Examples
///
/// A receiver that counts the changes of one pool's mappings when they begin.
///
/// ```ignore
/// struct Watch {
///     pool: u64,
///     changes: Atomic<u64>,
/// }
///
/// impl Events for Watch {
///     fn event(&self, event: Event) {
///         if matches!(event, Event::MappingChanges(change) if change.pool == self.pool) {
///             self.changes.fetch_add(1, Full);
///         }
///     }
/// }
/// ```
pub trait Events: Send + Sync {
    /// Handles `event`. Process context. May sleep, but must not wait for I/O to the pool.
    fn event(&self, event: Event);

    /// Returns whether the device-mapper device with UUID `uuid` is about to close the thin device
    /// `thin_id` of `pool`. Called when the latter can't be deleted because the former has it open.
    /// If the result is true, the deletion is tried again, for a second. Process context.
    fn closes_soon(&self, _pool: u64, _thin_id: u32, _uuid: &[u8]) -> bool {
        false
    }
}
