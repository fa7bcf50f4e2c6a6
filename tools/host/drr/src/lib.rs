// SPDX-License-Identifier: GPL-2.0

//! The pure sources of the module's `drr` crate, and what tries them in user space.

#![forbid(unsafe_code)]

/// The sources that the module is built from; here not all of them is used.
#[allow(dead_code)]
#[path = "../../../../drr/access.rs"]
mod access;
#[allow(dead_code)]
#[path = "../../../../drr/args.rs"]
mod args;
#[cfg(not(loom))]
#[allow(dead_code)]
#[path = "../../../../drr/blocks.rs"]
mod blocks;
#[allow(dead_code)]
#[path = "../../../../drr/changes.rs"]
mod changes;
#[allow(dead_code)]
#[path = "../../../../drr/copy.rs"]
mod copy;
#[allow(dead_code)]
#[path = "../../../../drr/digest.rs"]
mod digest;
#[cfg(not(loom))]
#[allow(dead_code)]
#[path = "../../../../drr/duplicates.rs"]
mod duplicates;
#[allow(dead_code)]
#[path = "../../../../drr/giver.rs"]
mod giver;
#[cfg(not(loom))]
#[allow(dead_code)]
#[path = "../../../../drr/heat.rs"]
mod heat;
#[allow(dead_code)]
#[path = "../../../../drr/layer.rs"]
mod layer;
#[allow(dead_code)]
#[path = "../../../../drr/mappings.rs"]
mod mappings;
#[allow(dead_code)]
#[path = "../../../../drr/message.rs"]
mod message;
#[allow(dead_code)]
#[path = "../../../../drr/patience.rs"]
mod patience;
#[allow(dead_code)]
#[path = "../../../../drr/pool.rs"]
mod pool;
#[cfg(not(loom))]
#[allow(dead_code)]
#[path = "../../../../drr/rows.rs"]
mod rows;
#[cfg(not(loom))]
#[allow(dead_code)]
#[path = "../../../../drr/stats.rs"]
mod stats;
#[allow(dead_code)]
#[path = "../../../../drr/unshared.rs"]
mod unshared;

#[cfg(not(loom))]
pub mod copying;
#[cfg(not(loom))]
pub mod fuzz;
#[cfg(all(test, loom))]
mod models;
pub mod random;
#[cfg(not(loom))]
pub mod scale;
#[cfg(not(loom))]
pub mod stress;

/// In the place of a static atomic, which loom doesn't have: a number each time.
#[cfg(loom)]
struct Numbers(std::sync::atomic::AtomicU64);

#[cfg(loom)]
static COUNTERS: Numbers = Numbers(std::sync::atomic::AtomicU64::new(0));

#[cfg(loom)]
impl Numbers {
    fn fetch_add(&self, by: u64, _: kernel::sync::atomic::Relaxed) -> u64 {
        self.0.fetch_add(by, std::sync::atomic::Ordering::Relaxed)
    }
}
