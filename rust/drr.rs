// SPDX-License-Identifier: GPL-2.0

//! Parts of the target `drr` that need `unsafe` code: its tracepoints, and the switches of its test
//! builds.

pub mod hold_point;
pub mod rule;
#[cfg(not(DM_SAMPLES))]
pub mod trace;
