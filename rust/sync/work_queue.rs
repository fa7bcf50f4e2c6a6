// SPDX-License-Identifier: GPL-2.0

//! Workqueues, for work that can't be done in the current context.
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
/// The queue exists until the value is dropped.
///
/// # Examples
///
/// The queues of a target: one for the ends of its bios, and one for its parked bios, which may
/// wait for the device below.
///
/// ```ignore
/// let softirq = WorkQueue::in_softirq(c"my_softirq")?;
/// let parked = WorkQueue::in_threads(c"my_parked")?;
///
/// // In `Target::end_io`:
/// bio.end_later(self, &self.softirq)
/// // In `Follow::queue`:
/// &self.parked
/// ```
pub struct WorkQueue(NonNull<workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed by any task.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Creates a queue that runs its work in softirq context, on the same CPU. Process context.
    /// Fails with `ENOMEM`.
    pub fn in_softirq(name: &'static CStr) -> Result<Self> {
        Self::new(name, bindings::DM_RUST_WQ_SOFTIRQ)
    }

    /// Creates a queue that runs its work in a kernel thread on the same CPU. The queue has a
    /// rescuer, so reclaim may wait for its work. Process context. Fails with `ENOMEM`.
    pub(crate) fn in_task(name: &'static CStr) -> Result<Self> {
        Self::new(name, bindings::DM_RUST_WQ_TASK)
    }

    /// Creates a queue that runs its work in any number of kernel threads, on any CPU; the work may
    /// block. The queue has a rescuer, so reclaim may wait for its work. Process context. Fails
    /// with `ENOMEM`.
    pub fn in_threads(name: &'static CStr) -> Result<Self> {
        Self::new(name, bindings::DM_RUST_WQ_THREADS)
    }

    fn new(name: &'static CStr, flags: u32) -> Result<Self> {
        // SAFETY: The name is a C string, and the flags may be combined.
        let queue = unsafe { bindings::dm_rust_queue_new(name.as_char_ptr(), flags) };
        // INVARIANT: Just created.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Returns `work`, which calls `run`, to be queued by [`PendingWork::queue`].
    pub(crate) fn prepare(
        &self,
        work: *mut work_struct,
        run: unsafe extern "C" fn(*mut work_struct),
    ) -> PendingWork {
        PendingWork {
            queue: self.0,
            work,
            run,
        }
    }
}

/// Work that is about to be queued.
///
/// Borrows neither the queue nor its owner: `run` may destroy both before the function that queues
/// the work has returned. The kernel queues work under RCU, and frees a queue after a grace period.
pub(crate) struct PendingWork {
    queue: NonNull<workqueue_struct>,
    work: *mut work_struct,
    run: unsafe extern "C" fn(*mut work_struct),
}

impl PendingWork {
    /// Queues the work. Any context.
    ///
    /// # Safety
    ///
    /// The queue exists. The work is in no queue, and stays valid until `run` is called, which owns
    /// it from then on.
    pub(crate) unsafe fn queue(self) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::dm_rust_queue_work(self.queue.as_ptr(), self.work, Some(self.run)) };
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Waits for work that is about to end.
        unsafe { bindings::dm_rust_queue_free(self.0.as_ptr()) };
    }
}
