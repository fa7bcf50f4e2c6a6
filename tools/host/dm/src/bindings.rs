// SPDX-License-Identifier: GPL-2.0

//! Stand-ins for C functions.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) use kernel::bindings::kvfree_call_rcu;

/// Nobody waits for the CPU.
pub(crate) unsafe fn dm_rust_cond_resched() {}

/// Pages of memory that the machine seems to have: 2 GiB at first.
pub(crate) static RAM_PAGES: AtomicUsize = AtomicUsize::new(1 << 19);

pub(crate) unsafe fn dm_rust_total_ram_pages() -> usize {
    RAM_PAGES.load(Relaxed)
}

pub(crate) unsafe fn dm_rust_may_warn() -> bool {
    true
}
