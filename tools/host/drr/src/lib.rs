// SPDX-License-Identifier: GPL-2.0

//! The pure sources of the module's `drr` crate, and what tries them in user space.

#![forbid(unsafe_code)]

/// The sources that the module is built from; here not all of them is used.
#[path = "../../../../drr/access"]
mod access {
    #[allow(dead_code)]
    pub(crate) mod digest;
    #[allow(dead_code)]
    pub(crate) mod donor_target;
    #[allow(dead_code)]
    pub(crate) mod epoch;
    #[allow(dead_code)]
    pub(crate) mod mappings;
    #[allow(dead_code)]
    pub(crate) mod name;
    #[allow(dead_code)]
    pub(crate) mod table;
    #[allow(dead_code)]
    pub(crate) mod unshared;
}

/// As above.
#[path = "../../../../drr/io"]
mod io {
    #[allow(dead_code)]
    pub(crate) mod copy;
    #[allow(dead_code)]
    pub(crate) mod patience;
}

/// As above.
#[path = "../../../../drr/layers"]
mod layers {
    #[cfg(not(loom))]
    #[allow(dead_code)]
    pub(crate) mod block_stats;
    #[cfg(not(loom))]
    #[allow(dead_code)]
    pub(crate) mod duplicates;
    #[cfg(not(loom))]
    #[allow(dead_code)]
    pub(crate) mod heatmap;
    #[allow(dead_code)]
    pub(crate) mod id;
    #[cfg(not(loom))]
    #[allow(dead_code)]
    pub(crate) mod layer_counters;
}

#[allow(dead_code)]
#[path = "../../../../drr/args.rs"]
pub(crate) mod args;
#[allow(dead_code)]
#[path = "../../../../drr/message.rs"]
pub(crate) mod message;
#[allow(dead_code)]
#[path = "../../../../drr/pool.rs"]
pub(crate) mod pool;
#[cfg(not(loom))]
#[allow(dead_code)]
#[path = "../../../../drr/stats.rs"]
pub(crate) mod stats;

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
