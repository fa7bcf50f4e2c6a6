// SPDX-License-Identifier: GPL-2.0

//! Scheduling points, execution contexts, the size of memory, and a rate limit for warnings.

use crate::bindings;

/// Yields the CPU if a reschedule is due. Process context only.
///
/// C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)
pub fn cond_resched() {
    // SAFETY: May be called from any process context; callers hold no locks here.
    unsafe { bindings::dm_rust_cond_resched() }
}

/// Returns the number of memory pages that the kernel manages.
///
/// C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)
pub fn total_ram_pages() -> usize {
    // SAFETY: Reads a global counter.
    unsafe { bindings::dm_rust_total_ram_pages() }
}

/// Returns whether a warning that I/O can provoke may be logged now. Any context.
///
/// All callers share one limit of ten warnings in five seconds. The log says how many were
/// suppressed.
///
/// C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)
pub fn may_warn() -> bool {
    // SAFETY: May be called from any context.
    unsafe { bindings::dm_rust_may_warn() }
}

/// Returns whether the caller runs in a hardware interrupt.
///
/// C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)
pub fn in_hardirq() -> bool {
    // SAFETY: May be called from any context.
    unsafe { bindings::dm_rust_in_hardirq() }
}
