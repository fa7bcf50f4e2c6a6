// SPDX-License-Identifier: GPL-2.0

//! The `drr` device-mapper target (Data Relationship & Reference).
//!
//! Sits between a file system and a dm-thin device. When a read misses the reader's own page
//! cache and dm-thin says that the block is shared, the data is copied from the page cache of a
//! sibling that read it. What is copied is given away only if it has the digest that the data had when they
//! came from the disk. What is kept is which cached page was read from which block, and digests; and, for a
//! while, what was read of file systems' metadata.
//!
//! - [`target`], [`read`], [`record`], [`write`](mod@write): the walk of a bio; start here,
//! - [`args`], [`stats`]: what goes in by the table and comes out by status,
//! - [`access`], [`digest`]: the access table, and what proves that a page is still what it was,
//! - [`copy`], [`giver`]: serving a read, and the targets as donors,
//! - [`duplicates`], [`thinning`]: what the table says is cached more than once, and who has too much
//!   of it,
//! - [`pool`], [`changes`], [`mappings`], [`unshared`]: what targets of a pool share: noticing that a mapping
//!   changed, and keeping those that didn't,
//! - [`tree`], [`heat`], [`rows`], [`blocks`]: which layer wrote what is read, who reads whose data,
//!   and how often,
//! - [`core`]: what all targets share.
//!
//! Documentation/design.rst has the whole argument why no wrong byte is ever served.

#![forbid(unsafe_code)]

mod access;
mod args;
mod blocks;
mod changes;
mod copy;
mod core;
mod digest;
mod duplicates;
mod giver;
mod heat;
mod layer;
mod leaving;
mod mappings;
mod message;
mod patience;
mod pool;
mod read;
mod record;
mod rows;
mod stats;
mod target;
mod thinning;
mod tree;
mod unshared;
mod write;

use kernel::{prelude::*, sync::Arc};

use dm::{target::Registration, tracepoint::Hooks};

#[cfg(not(DRR_MUTANTS))]
module! {
    type: Module,
    name: "dm_drr",
    authors: ["DRR developers"],
    description: "device-mapper target that serves shared thin blocks from a sibling's page cache",
    license: "GPL v2",
    alias: ["dm-drr"],
}

#[cfg(DRR_MUTANTS)]
module! {
    type: Module,
    name: "dm_drr",
    authors: ["DRR developers"],
    description: "device-mapper target that serves shared thin blocks from a sibling's page cache",
    license: "GPL v2",
    alias: ["dm-drr"],
    params: {
        guards_off: u64 {
            default: 0,
            description: "Test builds only: guards that are switched off, a bit each",
        },
    },
}

/// The module. Fields are dropped in this order.
struct Module {
    _target: Registration<target::Drr>,
    _events: Hooks<thinning::Watcher>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        #[cfg(DRR_MUTANTS)]
        dm::guard::switch_off(*module_parameters::guards_off.value_ref());

        let table = Arc::new(access::AccessTable::new()?, GFP_KERNEL)?;
        let watcher = thinning::Watcher::new(table.clone())?;
        let events = Hooks::new(Arc::new(watcher, GFP_KERNEL)?)?;
        let core = core::Core::new(table)?;
        Ok(Self {
            _target: Registration::new(module, core)?,
            _events: events,
        })
    }
}
