// SPDX-License-Identifier: GPL-2.0

//! Counters of each CPU: counting locks nothing and shares no cache line.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use crate::bindings;

/// `N` counters, of each CPU.
///
/// # Invariants
///
/// `cpus` is a per-CPU allocation of `N` counters of our own.
pub struct Counters<const N: usize> {
    cpus: NonNull<u64>,
    /// The sums at the last reset: writing to another CPU's counters would lose what it counts.
    zero: [Atomic<u64>; N],
}

// SAFETY: Per-CPU memory may be freed from anywhere.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: Counters are added to by indivisible operations, and the sum reads each once.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// All zero. Process context; fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        Self::allocate(true)
    }

    /// All zero, from any context. Fails with `ENOMEM`, rather more often.
    pub fn new_atomic() -> Result<Self> {
        Self::allocate(false)
    }

    fn allocate(may_sleep: bool) -> Result<Self> {
        // SAFETY: The caller is in process context if it may sleep.
        let cpus = unsafe { bindings::dm_rust_counters_alloc(N, may_sleep) };
        // INVARIANT: Just allocated.
        Ok(Self {
            cpus: NonNull::new(cpus).ok_or(ENOMEM)?,
            zero: [const { Atomic::new(0) }; N],
        })
    }

    /// Adds to a counter; any context. One that isn't there is left alone.
    pub fn add(&self, at: usize, by: u64) {
        if at < N {
            // SAFETY: By the invariant there are `N` counters.
            unsafe { bindings::dm_rust_counters_add(self.cpus.as_ptr(), at, by) }
        }
    }

    /// The sums since they were allocated.
    fn all_sums(&self) -> [u64; N] {
        core::array::from_fn(|at| {
            // SAFETY: By the invariant there are `N` counters, and `at` is below that.
            unsafe { bindings::dm_rust_counters_sum(self.cpus.as_ptr(), at) }
        })
    }

    /// The sums over all CPUs. What is counted meanwhile may be in or not.
    pub fn sums(&self) -> [u64; N] {
        let sums = self.all_sums();
        core::array::from_fn(|at| sums[at].wrapping_sub(self.zero[at].load(Relaxed)))
    }

    /// Makes all sums zero.
    pub fn reset(&self) {
        for (zero, sum) in self.zero.iter().zip(self.all_sums()) {
            zero.store(sum, Relaxed);
        }
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is ours, and nobody else has a reference.
        unsafe { bindings::dm_rust_counters_free(self.cpus.as_ptr()) }
    }
}

#[kunit_tests(dm_counters)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_and_resets() -> Result {
        for counters in [Counters::<3>::new()?, Counters::new_atomic()?] {
            assert_eq!(counters.sums(), [0; 3]);
            counters.add(0, 1);
            counters.add(2, u64::MAX - 1);
            counters.add(2, 1);
            counters.add(3, 1);
            assert_eq!(counters.sums(), [1, 0, u64::MAX]);
            counters.reset();
            assert_eq!(counters.sums(), [0; 3]);
            counters.add(2, 7);
            assert_eq!(counters.sums(), [0, 0, 7]);
        }
        Ok(())
    }
}
