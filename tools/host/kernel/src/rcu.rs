// SPDX-License-Identifier: GPL-2.0

//! RCU.
//!
//! Without loom it is crossbeam's epochs. With loom it is a list of readers under a lock: what is
//! given to [`kvfree_call_rcu`] is gone when all readers that were there have left, which is the
//! earliest moment that RCU allows. Memory that is gone is kept until the model's run ends, and
//! [`gone`] tells.

use core::ffi::c_void;

/// Room that the kernel wants in what it is to free.
#[allow(non_camel_case_types)]
#[derive(Default)]
pub struct kvfree_rcu_head(#[allow(dead_code)] [usize; 2]);

#[cfg(not(loom))]
mod imp {
    use super::c_void;

    /// A read-side critical section.
    pub struct Guard(#[allow(dead_code)] crossbeam_epoch::Guard);

    /// Begins one.
    #[inline]
    pub fn read_lock() -> Guard {
        Guard(crossbeam_epoch::pin())
    }

    /// What is freed is overwritten with this first.
    const POISON: i32 = 0x6b;

    pub(super) unsafe fn free_later(what: *mut c_void) {
        let what = what.addr();
        let guard = crossbeam_epoch::pin();
        // SAFETY: By the caller's promise nobody comes by it any more but readers that are there.
        unsafe {
            guard.defer_unchecked(move || {
                let what = core::ptr::with_exposed_provenance_mut::<c_void>(what);
                libc::memset(what, POISON, libc::malloc_usable_size(what));
                libc::free(what);
            })
        };
    }
}

#[cfg(loom)]
mod imp {
    use super::c_void;
    use loom::{lazy_static, sync::Mutex};

    #[derive(Default)]
    struct State {
        next: u64,
        readers: Vec<u64>,
        /// What is to be freed, and the readers that are waited for.
        waiting: Vec<(usize, Vec<u64>)>,
        gone: Vec<usize>,
    }

    impl State {
        fn expire(&mut self) {
            let readers = &self.readers;
            let gone = &mut self.gone;
            self.waiting.retain_mut(|(what, whom)| {
                whom.retain(|reader| readers.contains(reader));
                if whom.is_empty() {
                    gone.push(*what);
                }
                !whom.is_empty()
            });
        }
    }

    impl Drop for State {
        // At the end of a run of the model.
        fn drop(&mut self) {
            let waiting = self.waiting.iter().map(|(what, _)| *what);
            for what in self.gone.iter().copied().chain(waiting) {
                // SAFETY: Given away by `kvfree_call_rcu`, once.
                unsafe { libc::free(core::ptr::with_exposed_provenance_mut(what)) };
            }
        }
    }

    lazy_static! {
        static ref STATE: Mutex<State> = Mutex::new(State::default());
    }

    /// A read-side critical section.
    pub struct Guard(u64);

    /// Begins one.
    pub fn read_lock() -> Guard {
        let mut state = STATE.lock().expect("no holder panicked");
        let reader = state.next;
        state.next += 1;
        state.readers.push(reader);
        Guard(reader)
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let mut state = STATE.lock().expect("no holder panicked");
            state.readers.retain(|reader| *reader != self.0);
            state.expire();
        }
    }

    pub(super) unsafe fn free_later(what: *mut c_void) {
        let mut state = STATE.lock().expect("no holder panicked");
        let readers = state.readers.clone();
        let what = what.expose_provenance();
        let twice = state.gone.contains(&what) || state.waiting.iter().any(|(it, _)| *it == what);
        assert!(!twice, "freed twice");
        state.waiting.push((what, readers));
        state.expire();
    }

    /// Whether what is at this address, or holds it, has been freed.
    pub fn gone<T>(what: *const T) -> bool {
        let state = STATE.lock().expect("no holder panicked");
        state.gone.iter().any(|it| {
            // SAFETY: Allocated by `KBox`; not given back before the end of the run.
            let size =
                unsafe { libc::malloc_usable_size(core::ptr::with_exposed_provenance_mut(*it)) };
            (*it..*it + size).contains(&what.addr())
        })
    }

    /// How many allocations have been given away to be freed, or are freed.
    pub fn given_away() -> usize {
        let state = STATE.lock().expect("no holder panicked");
        state.gone.len() + state.waiting.len()
    }
}

pub use imp::*;

/// Frees `what` when all readers that are there have left.
///
/// # Safety
///
/// It was allocated by [`crate::alloc::KBox`], and is given away once.
pub unsafe fn kvfree_call_rcu(_head: *mut kvfree_rcu_head, what: *mut c_void) {
    // SAFETY: By the safety requirements.
    unsafe { imp::free_later(what) };
}
