// SPDX-License-Identifier: GPL-2.0
/* What only C can say of the module: its tracepoints, and what is loaded first. */

#include <linux/module.h>
#include <linux/types.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/drr.h>

/*
 * Its symbols are only looked up (rust/target/thin.rs), so depmod sees no need of
 * it; but the layer tree misses what happens in a pool before it is there.
 */
MODULE_SOFTDEP("pre: dm-thin-pool");
