// SPDX-License-Identifier: GPL-2.0
/* The module's tracepoints, and the functions by which Rust gets to them. */

#include <linux/types.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/drr.h>
