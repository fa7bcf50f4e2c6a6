// SPDX-License-Identifier: GPL-2.0

//! The `drr` device-mapper target (Data Relationship & Reference).
//!
//! Sits between a file system and a dm-thin device. When a read misses the reader's own page cache
//! and dm-thin says that the block is shared, the data is copied from the page cache of a sibling
//! that has read it. A copy goes to the reader only if it has the digest that the data had when
//! they came from the disk. The module keeps which cached page was read from which block, and
//! digests; and, for a while, metadata that file systems have read.
//!
//! - [`target`], [`io`]: the path of a bio; start here,
//! - [`args`], [`message`], [`refusal`], [`stats`]: parse the table line and messages, log why they
//!   were refused, and count and print the status,
//! - [`access`]: the access table, and caches of mappings,
//! - [`layers`]: layers, the heatmap and other figures,
//! - [`mod@reclaim`]: drops extra copies where memory is short,
//! - [`events`]: receives the events of the page cache and of pools,
//! - [`pool`], [`core`]: what the targets of a pool share, and what all targets share.
//!
//! Documentation/design.rst proves that no wrong byte is ever served.

#![forbid(unsafe_code)]
// A constant that the kernel crate of some series lacks is a variable in a pattern.
#![deny(non_snake_case)]

mod access;
mod args;
mod core;
mod events;
mod io;
mod layers;
mod message;
mod pool;
mod reclaim;
mod refusal;
mod stats;
mod target;

use kernel::{prelude::*, sync::Arc};

use crate::{
    access::{donor_target::TargetRegistry, table::AccessTable},
    events::PageCacheEvents,
    target::Drr,
};

use dm::{
    block::slab::BioSlabs,
    pagecache::removal::Hooks,
    target::{per_bio_bytes, Registration},
};

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
        rules_off: u64 {
            default: 0,
            description: "Test builds only: rules that are switched off, a bit each",
        },
    },
}

/// The module. Fields are dropped in this order.
struct Module {
    _target: Registration<Drr>,
    _slabs: BioSlabs,
    _events: Hooks<PageCacheEvents>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        #[cfg(DRR_MUTANTS)]
        dm::drr::rule::switch_off(dm::compat::parameter(&module_parameters::rules_off));

        let targets = Arc::new(TargetRegistry::new()?, GFP_KERNEL)?;
        let table = Arc::new(AccessTable::new(targets.clone())?, GFP_KERNEL)?;
        let events = PageCacheEvents::new(table.clone(), targets.clone())?;
        let events = Hooks::new(Arc::new(events, GFP_KERNEL)?)?;
        let core = core::Core::new(table, targets)?;
        let slabs = BioSlabs::new(per_bio_bytes::<Drr>())?;
        Ok(Self {
            // Last of what can fail: from then on there may be targets.
            _target: Registration::new(module, core)?,
            _slabs: slabs,
            _events: events,
        })
    }
}
