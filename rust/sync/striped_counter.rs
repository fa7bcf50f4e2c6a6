// SPDX-License-Identifier: GPL-2.0

//! A counter that several CPUs increment, for objects that are freed without running a destructor,
//! and so can't own a per-CPU allocation.

use kernel::{
    cpu::CpuId,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// Number of CPUs that can count without contending for a cache line; there is one counter for each
/// target, so memory counts, too.
const LINES: usize = 8;

/// As long as a cache line of most CPUs, so that no two counters share one.
#[repr(C)]
struct Line(Atomic<u64>, [u64; 7]);

/// A counter that is spread over several cache lines. Needs neither an allocation nor a destructor.
///
/// # Examples
///
/// A counter in an entry of an [`Index`](crate::sync::index::Index), which is freed without being
/// dropped.
///
/// ```ignore
/// struct Donor {
///     number: u32,
///     donated: StripedCounter,
/// }
///
/// let donor = Donor { number: 7, donated: StripedCounter::default() };
/// donor.donated.add(8);
/// assert_eq!(donor.donated.sum(), 8);
/// ```
pub struct StripedCounter {
    lines: [Line; LINES],
}

impl Default for StripedCounter {
    fn default() -> Self {
        Self {
            lines: core::array::from_fn(|_| Line(Atomic::new(0), [0; 7])),
        }
    }
}

impl StripedCounter {
    /// Adds `by` to the counter. Any context.
    pub fn add(&self, by: u64) {
        // CAST: A small number. No count is lost if the thread moves to another CPU meanwhile.
        let line = CpuId::current().as_u32() as usize % LINES;
        self.lines[line].0.add(by, Relaxed);
    }

    /// Returns the sum of all additions since the last reset.
    pub fn sum(&self) -> u64 {
        let add = |sum: u64, line: &Line| sum.wrapping_add(line.0.load(Relaxed));
        self.lines.iter().fold(0, add)
    }

    /// Resets the counter to zero. A concurrent addition may be kept or lost.
    pub fn reset(&self) {
        for line in &self.lines {
            line.0.store(0, Relaxed);
        }
    }
}

#[kunit_tests(dm_spread)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_and_resets() {
        let spread = StripedCounter::default();
        assert_eq!(spread.sum(), 0);
        spread.add(5);
        spread.add(7);
        // Simulates an addition by another CPU.
        spread.lines[LINES - 1].0.add(30, Relaxed);
        assert_eq!(spread.sum(), 42);
        spread.reset();
        assert_eq!(spread.sum(), 0);
    }
}
