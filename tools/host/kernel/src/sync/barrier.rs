// SPDX-License-Identifier: GPL-2.0

//! Memory barriers between CPUs.

#[cfg(loom)]
use loom::sync::atomic::{fence, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{fence, Ordering};

/// Orders loads.
pub struct Read;

/// Loads before it come before loads after it: in C11's terms an acquire fence.
#[inline]
pub fn smp_mb(_read: Read) {
    fence(Ordering::Acquire);
}
