// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions for device-mapper targets that look at the page cache.
//!
//! Nothing here but [`mod@trace`] knows of a particular target. All `unsafe` code of the module is
//! in this crate:
//!
//! - [`target`], [`device`], [`bio`], [`printer`]: a device-mapper target and the I/O that
//!   passes it,
//! - [`thin`], [`event`]: where a thin device is mapped, and what happens to its mappings,
//! - [`folio`], [`tracepoint`]: page-cache pages, and the event that ends what is known of them,
//! - [`bits`], [`index`], [`rcu_arc`], [`content`], [`directory`]: an RCU-read directory of page-cache pages by
//!   what they were read from,
//! - [`scratch`], [`random`]: a page of our own for each CPU, and numbers that nobody can guess,
//! - [`seqcell`]: words that are read together without a lock,
//! - [`inflight`], [`work`]: reads of the same data at the same time, and workers in which bios that wait go on,
//! - [`private_read`], [`page_store`]: reads into pages of our own, and a page cache in which these stay,
//! - [`verify`]: reads that are compared with the disk,
//! - [`whole`], [`blocklock`]: whole-block writes instead of smaller ones, and locks of blocks,
//! - [`cells`]: tables of a fixed size,
//! - [`counters`], [`spread`]: figures that CPUs count without getting in each other's way,
//! - [`mod@trace`]: the module's own tracepoints,
//! - [`guard`], [`hold`]: switches for single guards, and places to hold a read up, in test
//!   builds only.

#![warn(missing_docs)]

#[allow(unused)]
const __LOG_PREFIX: &[u8] = b"dm_drr\0";

mod bindings;
pub mod bio;
pub mod bits;
pub mod blocklock;
pub mod cells;
pub mod content;
pub mod counters;
pub mod device;
pub mod directory;
pub mod event;
pub mod folio;
pub mod guard;
pub mod hold;
pub mod index;
pub mod inflight;
mod own;
pub mod page_store;
pub mod printer;
pub mod private_read;
pub mod random;
pub mod rcu_arc;
pub mod sched;
pub mod scratch;
pub mod seqcell;
mod slab;
pub mod spread;
pub mod target;
pub mod thin;
pub mod ticker;
pub mod trace;
pub mod tracepoint;
pub mod verify;
pub mod whole;
pub mod work;
