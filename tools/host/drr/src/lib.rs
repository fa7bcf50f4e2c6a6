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
#[allow(dead_code)]
#[path = "../../../../drr/epoch.rs"]
mod epoch;
#[allow(dead_code)]
#[path = "../../../../drr/giver.rs"]
mod giver;
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
#[path = "../../../../drr/unshared.rs"]
mod unshared;

pub mod fuzz;
#[cfg(all(test, loom))]
mod models;
pub mod random;
#[cfg(not(loom))]
pub mod scale;
#[cfg(not(loom))]
pub mod stress;
