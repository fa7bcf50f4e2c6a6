// SPDX-License-Identifier: GPL-2.0

//! Stand-in: targets, as far as bios are parked for them.

#[path = "../../../../rust/target/status_buffer.rs"]
pub mod status_buffer;
pub mod thin;
#[path = "../../../../rust/target/thin_event.rs"]
pub mod thin_event;

use crate::sync::work_queue::PendingWork;
use kernel::bindings::bio;

/// A device-mapper target.
pub trait Target: Sized + Send + Sync + 'static {
    /// Data that travels with each bio.
    type PerBio: Default + Send;
    /// What else does.
    type InFlight: PerBioExtension;
}

mod sealed {
    /// As in the module.
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// Memory that travels with each bio and that this crate looks after.
pub trait PerBioExtension: Default + Sealed {
    /// As in the module.
    const SENDS_LATER: bool;

    /// As in the module.
    fn has_ended(&self) -> bool;
}

/// What has become of a bio that has ended.
pub struct Ended;

impl Ended {
    pub(crate) fn later(_work: PendingWork) -> Self {
        Self
    }
}

/// What travels with each bio of a `T`.
pub(crate) struct PerBio<T: Target> {
    pub(crate) in_flight: T::InFlight,
    pub(crate) data: T::PerBio,
}

impl<T: Target> Default for PerBio<T> {
    fn default() -> Self {
        Self {
            in_flight: T::InFlight::default(),
            data: T::PerBio::default(),
        }
    }
}

/// What travels with a bio.
pub(crate) fn per_bio<T: Target>(bio: *mut bio) -> *mut PerBio<T> {
    // SAFETY: Only called with bios that are there.
    unsafe { (*bio).per_bio }.cast()
}
