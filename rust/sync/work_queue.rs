// SPDX-License-Identifier: GPL-2.0

//! Queues for work that can't be done where it comes up.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::NonNull;

use kernel::{
    bindings::{work_struct, workqueue_struct},
    prelude::*,
};

use crate::bindings;

/// A workqueue.
///
/// # Invariants
///
/// The queue is there until the value is dropped.
pub struct WorkQueue(NonNull<workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed by any task.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a queue whose work is done in softirq context, on the same CPU. Process context; fails with `ENOMEM`.
    pub fn in_softirq(name: &'static CStr) -> Result<Self> {
        Self::new(name, bindings::DM_RUST_WQ_SOFTIRQ)
    }

    /// Makes a queue whose work is done by a kernel thread on the same CPU, for which reclaim may wait. Process
    /// context; fails with `ENOMEM`.
    pub(crate) fn in_task(name: &'static CStr) -> Result<Self> {
        Self::new(name, bindings::DM_RUST_WQ_TASK)
    }

    /// Makes a queue whose work is done by any number of kernel threads, each of which may wait, and for which reclaim
    /// may wait. Process context; fails with `ENOMEM`.
    pub fn in_threads(name: &'static CStr) -> Result<Self> {
        Self::new(name, bindings::DM_RUST_WQ_THREADS)
    }

    fn new(name: &'static CStr, flags: u32) -> Result<Self> {
        // SAFETY: A C string, and flags that go together.
        let queue = unsafe { bindings::dm_rust_queue_new(name.as_char_ptr(), flags) };
        // INVARIANT: Just made.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Has `run` called with `work`.
    ///
    /// # Safety
    ///
    /// `work` is in no queue, and valid until `run` is called, to which it belongs from then on.
    pub(crate) unsafe fn queue(
        &self,
        work: *mut work_struct,
        run: unsafe extern "C" fn(*mut work_struct),
    ) {
        // SAFETY: By the safety requirements, and the type invariant.
        unsafe { bindings::dm_rust_queue_work(self.0.as_ptr(), work, Some(run)) };
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; waits for work that is about to end.
        unsafe { bindings::dm_rust_queue_free(self.0.as_ptr()) };
    }
}
