// SPDX-License-Identifier: GPL-2.0

//! The pure sources of the module's `dm` crate, and stand-ins for what they border on.

/// What the module is built from, and stand-ins: `trace`.
#[path = "../../../../rust/drr"]
pub mod drr {
    pub mod hold_point;
    pub mod rule;
    #[path = "../../tools/host/dm/src/drr/trace.rs"]
    pub mod trace;
}

/// Stand-ins.
pub mod block {
    #[cfg_attr(not(all(test, loom)), allow(dead_code))]
    pub mod bio;
}

/// What the module is built from.
#[path = "../../../../rust/io"]
pub mod io {
    #[cfg_attr(not(all(test, loom)), allow(dead_code))]
    pub mod block_lock;
    #[allow(dead_code)]
    pub mod end_later;
    #[cfg_attr(not(all(test, loom)), allow(dead_code))]
    pub mod in_flight;
    #[cfg_attr(not(all(test, loom)), allow(dead_code))]
    pub mod parked;
}

/// What the module is built from, and stand-ins: `folio` and `page_store`.
#[path = "../../../../rust/pagecache"]
pub mod pagecache {
    pub mod cached_extent;
    pub mod cached_pages;
    pub mod content;
    mod crowd;
    pub mod directory;
    #[path = "../../tools/host/dm/src/pagecache/folio.rs"]
    pub mod folio;
    pub mod page_bitmap;
    #[path = "../../tools/host/dm/src/pagecache/page_store.rs"]
    pub mod page_store;
}

/// What the module is built from, and stand-ins: `irq_lock`, and `cells` in models.
#[path = "../../../../rust/sync"]
pub mod sync {
    #[cfg_attr(loom, path = "../../tools/host/dm/src/sync/cells.rs")]
    pub mod cells;
    #[cfg(not(loom))]
    pub mod counters;
    pub mod index;
    #[path = "../../tools/host/dm/src/sync/irq_lock.rs"]
    pub mod irq_lock;
    pub mod rcu_arc;
    pub mod scratch;
    pub mod seq_cell;
    pub mod striped_counter;
    #[allow(dead_code)]
    pub mod work_queue;
}

#[path = "../../../../rust/jiffies.rs"]
#[cfg_attr(not(all(test, loom)), allow(dead_code))]
pub mod jiffies;
#[path = "../../../../rust/random.rs"]
pub mod random;
#[path = "../../../../rust/sched.rs"]
pub mod sched;

/// Stand-in.
pub mod compat;

/// Stand-ins. Some are for the models only, others for all but these.
#[allow(dead_code)]
pub mod bindings;
#[cfg_attr(not(all(test, loom)), allow(dead_code))]
pub mod target;

#[cfg(all(test, loom))]
mod models;

/// Tables made from now on are for a machine with so many pages of memory.
pub fn set_ram_pages(pages: usize) {
    bindings::RAM_PAGES.store(pages, std::sync::atomic::Ordering::Relaxed);
}
