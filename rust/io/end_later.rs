// SPDX-License-Identifier: GPL-2.0

//! Bios whose completion is deferred to a workqueue.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::NonNull;

use kernel::{
    bindings::{bio, work_struct},
    ffi::c_void,
    types::Opaque,
};

use crate::{
    block::bio::EndedBio,
    io::in_flight::InFlightBio,
    sync::work_queue::WorkQueue,
    target::{per_bio, Ended, Target},
};

/// A target that may defer the completion of its bios.
///
/// # Examples
///
/// An `end_io` that does its work at once, or in a softirq if the bio has ended in a hard
/// interrupt.
///
/// ```ignore
/// fn end_io(&self, mut bio: EndedBio<'_, Self>) -> Ended {
///     if in_hardirq() {
///         return bio.end_later(self, &self.softirq);
///     }
///     self.end_io_later(&mut bio);
///     bio.done()
/// }
/// ```
pub trait EndIoLater: Target<InFlight = InFlightBio> {
    /// Does what [`Target::end_io`] has deferred. The bio completes when this function has
    /// returned. Called in the context of the queue.
    fn end_io_later(&self, bio: &mut EndedBio<'_, Self>);
}

/// The work that completes a bio later.
#[repr(C)]
pub(super) struct EndWork {
    // First, so that the address of this field is that of the structure.
    work: Opaque<work_struct>,
    bio: NonNull<bio>,
    target: NonNull<c_void>,
    ok: bool,
}

impl<T: EndIoLater> EndedBio<'_, T> {
    /// Defers the completion of the bio. Once [`Target::end_io`] has returned this function's
    /// result, `queue` calls [`EndIoLater::end_io_later`] and then completes the bio; the target
    /// may be destroyed soon afterwards.
    pub fn end_later(self, target: &T, queue: &WorkQueue) -> Ended {
        // SAFETY: We own the private data, which is valid until the bio completes. The pointer of a
        // bio is not null.
        let work = unsafe {
            let bio = NonNull::new_unchecked(self.as_ptr());
            let end = Opaque::cast_into(&raw const (*per_bio::<T>(bio.as_ptr())).in_flight.end);
            (&raw mut (*end).bio).write(bio);
            (&raw mut (*end).target).write(NonNull::from(target).cast());
            (&raw mut (*end).ok).write(self.ok());
            Opaque::cast_into(&raw const (*end).work)
        };
        Ended::later(queue.prepare(work, end_later::<T>))
    }
}

/// # Safety
///
/// Called by a workqueue, with work that [`EndedBio::end_later`] has prepared.
unsafe extern "C" fn end_later<T: EndIoLater>(work: *mut work_struct) {
    let end = work.cast::<EndWork>();
    // SAFETY: `EndedBio::end_later` has initialised the fields. The bio is ours until it completes,
    // and keeps its target alive.
    unsafe {
        let bio = (*end).bio;
        let mut ended = EndedBio::from_raw(bio, (*end).ok);
        (*end).target.cast::<T>().as_ref().end_io_later(&mut ended);
        (*per_bio::<T>(bio.as_ptr())).in_flight.has_ended = true;
        kernel::bindings::bio_endio(bio.as_ptr());
    }
}
