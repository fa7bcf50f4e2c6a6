// SPDX-License-Identifier: GPL-2.0

//! The pure sources of the module's `dm` crate, and stand-ins for what they border on.

/// The sources that the module is built from.
#[path = "../../../../rust/bits.rs"]
pub mod bits;
#[cfg_attr(not(all(test, loom)), allow(dead_code))]
#[path = "../../../../rust/blocklock.rs"]
pub mod blocklock;
#[cfg_attr(not(loom), path = "../../../../rust/cells.rs")]
pub mod cells;
#[path = "../../../../rust/content.rs"]
pub mod content;
#[cfg(not(loom))]
#[path = "../../../../rust/counters.rs"]
pub mod counters;
#[path = "../../../../rust/directory.rs"]
pub mod directory;
#[path = "../../../../rust/event.rs"]
pub mod event;
#[path = "../../../../rust/guard.rs"]
pub mod guard;
#[path = "../../../../rust/hold.rs"]
pub mod hold;
#[path = "../../../../rust/index.rs"]
pub mod index;
#[cfg_attr(not(all(test, loom)), allow(dead_code))]
#[path = "../../../../rust/inflight.rs"]
pub mod inflight;
#[path = "../../../../rust/printer.rs"]
pub mod printer;
#[path = "../../../../rust/random.rs"]
pub mod random;
#[path = "../../../../rust/rcu_arc.rs"]
pub mod rcu_arc;
#[path = "../../../../rust/sched.rs"]
pub mod sched;
#[path = "../../../../rust/scratch.rs"]
pub mod scratch;
#[path = "../../../../rust/seqcell.rs"]
pub mod seqcell;
#[path = "../../../../rust/spread.rs"]
pub mod spread;
#[allow(dead_code)]
#[path = "../../../../rust/work.rs"]
pub mod work;

/// Stand-ins. Some are for the models only, others for all but these.
#[allow(dead_code)]
pub mod bindings;
#[cfg_attr(not(all(test, loom)), allow(dead_code))]
pub mod bio;
pub mod folio;
pub mod page_store;
#[cfg_attr(not(all(test, loom)), allow(dead_code))]
pub mod target;
pub mod thin;
pub mod trace;

#[cfg(all(test, loom))]
mod models;

/// Tables made from now on are for a machine with so many pages of memory.
pub fn set_ram_pages(pages: usize) {
    bindings::RAM_PAGES.store(pages, std::sync::atomic::Ordering::Relaxed);
}
