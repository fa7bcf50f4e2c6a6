// SPDX-License-Identifier: GPL-2.0

//! The `drr` device-mapper target (Data Relationship & Reference).
//!
//! Sits between a file system and a dm-thin device. When a read misses the reader's own page
//! cache and dm-thin says that the block is shared, the data is copied from the page cache of the
//! sibling that read it last. Nothing is kept but metadata that says which cached page holds
//! which block.
//!
//! - [`target`], [`read`], [`write`](mod@write): the walk of a bio; start here,
//! - [`args`], [`stats`]: what goes in by the table and comes out by status,
//! - [`access`]: the access table,
//! - [`copy`], [`donor`], [`giver`]: serving a read, the rules for who may serve, and who does,
//! - [`duplicates`], [`thinning`]: what the table says is cached more than once, and who has too much
//!   of it,
//! - [`epoch`], [`mappings`]: noticing that a mapping changed, and keeping those that didn't,
//! - [`tree`], [`heat`], [`rows`], [`blocks`]: which layer wrote what is read, who reads whose data,
//!   and how often,
//! - [`core`]: what all targets share.
//!
//! Documentation/design.rst has the whole argument why no wrong byte is ever served.

#![forbid(unsafe_code)]

mod access;
mod args;
mod blocks;
mod copy;
mod core;
mod donor;
mod duplicates;
mod epoch;
mod giver;
mod heat;
mod layer;
mod mappings;
mod message;
mod read;
mod rows;
mod stats;
mod target;
mod thinning;
mod tree;
mod unshared;
mod write;

use kernel::{prelude::*, sync::Arc};

use dm::{target::Registration, tracepoint::Hooks, truncation::Truncations};

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
    _truncations: Truncations<access::AccessTable>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        #[cfg(DRR_MUTANTS)]
        dm::guard::switch_off(*module_parameters::guards_off.value_ref());

        let table = Arc::new(access::AccessTable::new()?, GFP_KERNEL)?;
        let watcher = thinning::Watcher::new(table.clone())?;
        let events = Hooks::new(Arc::new(watcher, GFP_KERNEL)?)?;
        let truncations = Truncations::new(table.clone()).inspect_err(|error| {
            let remedy = match *error {
                EOPNOTSUPP => "enable CONFIG_FUNCTION_TRACER, or apply our patch for mm/truncate.c",
                EBUSY => "set sysctl kernel.ftrace_enabled=1",
                _ => "see the error",
            };
            pr_err!("cannot watch truncations of the page cache: {error:?}: {remedy}\n");
        })?;
        let core = core::Core::new(table)?;
        Ok(Self {
            _target: Registration::new(module, core)?,
            _events: events,
            _truncations: truncations,
        })
    }
}
