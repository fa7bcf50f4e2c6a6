// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions for device-mapper targets that look at the page cache.
//!
//! Only [`mod@drr`] depends on a particular target; in test builds, other parts ask it whether a
//! rule is switched off. This crate has all `unsafe` code of the module:
//!
//! - [`target`]: device-mapper targets, and dm-thin's interface for targets stacked on thin
//!   devices,
//! - [`block`]: bios and block devices,
//! - [`io`]: other ways to handle a bio than sending it down,
//! - [`pagecache`]: folios, and a directory of cached pages by their content,
//! - [`sync`]: data shared by several CPUs, and deferred work,
//! - [`random`], [`sched`], [`jiffies`]: random numbers, the state of the scheduler and of the
//!   machine, and time,
//! - [`compat`]: what kernel series name differently,
//! - [`mod@drr`]: tracepoints and test switches of the target `drr`.

#![warn(missing_docs)]
// A constant that the kernel crate of some series lacks is a variable in a pattern.
#![deny(non_snake_case)]

#[allow(unused)]
const __LOG_PREFIX: &[u8] = b"dm_drr\0";

mod bindings;
pub mod block;
pub mod compat;
pub mod drr;
pub mod io;
pub mod jiffies;
pub mod pagecache;
pub mod random;
pub mod sched;
pub mod sync;
pub mod target;
