// SPDX-License-Identifier: GPL-2.0

//! Moments, in jiffies.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use crate::bindings;

/// A moment, in jiffies.
#[derive(Clone, Copy)]
pub struct Since(u64);

impl Since {
    /// Returns the current moment.
    pub fn now() -> Self {
        // SAFETY: Only reads the jiffies.
        Self(unsafe { bindings::dm_rust_jiffies() })
    }

    /// Returns the jiffies from this moment to `now`; 0 if `now` is earlier.
    pub fn elapsed(self, now: Self) -> u64 {
        now.0.saturating_sub(self.0)
    }

    /// Returns whether `now` is more than `ms` milliseconds later than this moment.
    pub fn over(self, now: Self, ms: u32) -> bool {
        // CAST: An `unsigned long` fits.
        self.elapsed(now) > kernel::time::msecs_to_jiffies(ms) as u64
    }

    /// Returns the jiffies since boot (`get_jiffies_64()`).
    pub fn jiffies(self) -> u64 {
        self.0
    }
}
