// SPDX-License-Identifier: GPL-2.0
/* The parts of the module that need C: its tracepoints, and its load order. */

#include <linux/module.h>
#include <linux/types.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/drr.h>

/*
 * The module looks dm-thin-pool's symbols up at run time (rust/target/thin.rs),
 * so depmod sees no dependency; but the layer tree must not miss what happens
 * in a pool before the module is loaded.
 */
MODULE_SOFTDEP("pre: dm-thin-pool dm-thin-hooks");
