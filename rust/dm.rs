// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions for device-mapper targets that look at the page cache.
//!
//! Nothing here but [`drr`] knows of a particular target. All `unsafe` code of the module is in this crate:
//!
//! - [`target`]: a device-mapper target, and dm-thin's interface for targets that are stacked on it,
//! - [`block`]: bios and block devices,
//! - [`io`]: what else a target may do with a bio than send it down,
//! - [`pagecache`]: folios, and a directory of cached pages by their content,
//! - [`sync`]: data that several CPUs use at once,
//! - [`random`], [`sched`]: numbers that nobody can guess, and what the scheduler knows,
//! - [`mod@drr`]: tracepoints and test builds of the target `drr`.

#![warn(missing_docs)]

#[allow(unused)]
const __LOG_PREFIX: &[u8] = b"dm_drr\0";

mod bindings;
pub mod block;
pub mod drr;
pub mod io;
pub mod pagecache;
pub mod random;
pub mod sched;
pub mod sync;
pub mod target;
