// SPDX-License-Identifier: GPL-2.0

//! A counter for many CPUs, where there can be none for each.

use kernel::{
    cpu::CpuId,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// So many CPUs count without getting in each other's way.
const LINES: usize = 8;

/// As long as a cache line of most CPUs, so that no two counters are in the same one.
#[repr(C)]
struct Line(Atomic<u64>, [u64; 7]);

/// A counter that needs no memory but its own, and no call when it goes.
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
    /// Adds to it; any context.
    pub fn add(&self, by: u64) {
        // CAST: A small number. If the thread moves to another CPU meanwhile, no count is lost.
        let line = CpuId::current().as_u32() as usize % LINES;
        self.lines[line].0.add(by, Relaxed);
    }

    /// What was added, since the last reset.
    pub fn sum(&self) -> u64 {
        let add = |sum: u64, line: &Line| sum.wrapping_add(line.0.load(Relaxed));
        self.lines.iter().fold(0, add)
    }

    /// Makes it zero.
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
        // As if another CPU had.
        spread.lines[LINES - 1].0.add(30, Relaxed);
        assert_eq!(spread.sum(), 42);
        spread.reset();
        assert_eq!(spread.sum(), 0);
    }
}
