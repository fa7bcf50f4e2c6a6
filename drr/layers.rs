// SPDX-License-Identifier: GPL-2.0

//! Layers: which layer wrote the data that is read, which layer reads whose data, and how often.

pub(crate) mod block_stats;
pub(crate) mod duplicates;
pub(crate) mod heatmap;
pub(crate) mod id;
pub(crate) mod layer_counters;
pub(crate) mod tree;
