// SPDX-License-Identifier: GPL-2.0

//! What only the target `drr` has use for, and is here since it takes `unsafe` code: its tracepoints, and the switches of
//! its test builds.

pub mod hold_point;
pub mod rule;
#[cfg(not(DM_SAMPLES))]
pub mod trace;
