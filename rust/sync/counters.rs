// SPDX-License-Identifier: GPL-2.0

//! Per-CPU counters: counting takes no lock and shares no cache line.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use crate::bindings;

/// `N` counters for each CPU.
///
/// # Invariants
///
/// `cpus` is a per-CPU allocation of `N` counters that this value owns.
///
/// # Examples
///
/// Two counters that are named by an enumeration.
///
/// ```ignore
/// enum Count {
///     Hits,
///     Misses,
/// }
///
/// let counters = Counters::<2>::new()?;
/// counters.add(Count::Hits as usize, 1);
/// let [hits, misses] = counters.sums();
/// ```
pub struct Counters<const N: usize> {
    cpus: NonNull<u64>,
    /// The sums at the last reset. The counters are not cleared, as writing to those of another CPU
    /// could lose a concurrent addition.
    zero: [Atomic<u64>; N],
}

// SAFETY: Per-CPU memory may be freed from anywhere.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: Additions are atomic, and the sum reads each counter once.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// Creates counters that are zero. Process context. Fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        Self::allocate(true)
    }

    /// Creates counters that are zero, in any context. Fails with `ENOMEM`, more often than
    /// [`Self::new`].
    pub fn new_atomic() -> Result<Self> {
        Self::allocate(false)
    }

    fn allocate(may_sleep: bool) -> Result<Self> {
        // SAFETY: `may_sleep` is set only in process context.
        let cpus = unsafe { bindings::dm_rust_counters_alloc(N, may_sleep) };
        // INVARIANT: Just allocated.
        Ok(Self {
            cpus: NonNull::new(cpus).ok_or(ENOMEM)?,
            zero: [const { Atomic::new(0) }; N],
        })
    }

    /// Adds `by` to counter `at`, or does nothing if there is no such counter. Any context.
    pub fn add(&self, at: usize, by: u64) {
        if at < N {
            // SAFETY: By the type invariant there are `N` counters.
            unsafe { bindings::dm_rust_counters_add(self.cpus.as_ptr(), at, by) }
        }
    }

    /// Returns the sums since the counters were allocated.
    fn all_sums(&self) -> [u64; N] {
        core::array::from_fn(|at| {
            // SAFETY: By the type invariant there are `N` counters, and `at` is less than `N`.
            unsafe { bindings::dm_rust_counters_sum(self.cpus.as_ptr(), at) }
        })
    }

    /// Returns the sums over all CPUs since the last reset. Concurrent additions may be missing.
    pub fn sums(&self) -> [u64; N] {
        let sums = self.all_sums();
        core::array::from_fn(|at| sums[at].wrapping_sub(self.zero[at].load(Relaxed)))
    }

    /// Resets all sums to zero.
    pub fn reset(&self) {
        for (zero, sum) in self.zero.iter().zip(self.all_sums()) {
            zero.store(sum, Relaxed);
        }
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the counters are ours, and nothing else refers to them.
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
