// SPDX-License-Identifier: GPL-2.0

//! The pure sources of the module's `dm` crate, and stand-ins for what they border on.

/// The sources that the module is built from.
#[path = "../../../../rust/bits.rs"]
pub mod bits;
#[path = "../../../../rust/blocklock.rs"]
pub mod blocklock;
#[path = "../../../../rust/cells.rs"]
pub mod cells;
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
#[path = "../../../../rust/printer.rs"]
pub mod printer;
#[path = "../../../../rust/sched.rs"]
pub mod sched;
#[path = "../../../../rust/seqcell.rs"]
pub mod seqcell;
#[path = "../../../../rust/spread.rs"]
pub mod spread;

mod bindings;
pub mod device;
pub mod folio;
pub mod trace;
pub mod tracepoint;
pub mod truncation;

/// Where the module has them.
pub mod target {
    pub use crate::printer::Printer;
}

/// Where the module has them.
pub mod thin {
    pub use crate::event::{Event, Events};
}

#[cfg(all(test, loom))]
mod models;

/// Tables made from now on are for a machine with so many pages of memory.
pub fn set_ram_pages(pages: usize) {
    bindings::RAM_PAGES.store(pages, std::sync::atomic::Ordering::Relaxed);
}
