// SPDX-License-Identifier: GPL-2.0

//! Which layer wrote what is read, who reads whose data, and how often.

pub(crate) mod block_stats;
pub(crate) mod duplicates;
pub(crate) mod heatmap;
pub(crate) mod id;
pub(crate) mod layer_counters;
pub(crate) mod tree;
