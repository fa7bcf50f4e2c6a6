// SPDX-License-Identifier: GPL-2.0

//! Private data for each bio: that of the target, and that of this crate.

use kernel::bindings::bio;

use crate::{bindings, target::Target};

mod sealed {
    /// Restricts [`PerBioExtension`](super::PerBioExtension) to this crate: the kernel links this
    /// memory into its lists, so it must neither move nor be freed meanwhile.
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// Private data of this crate for each bio.
pub trait PerBioExtension: Default + Sealed {
    /// Whether bios may be sent down after [`Target::map`] has returned.
    const SENDS_LATER: bool;

    /// Returns whether [`Target::end_io`] has already run for the bio, and the completion that it
    /// deferred is due.
    fn has_ended(&self) -> bool;
}

impl Sealed for () {}

impl PerBioExtension for () {
    const SENDS_LATER: bool = false;

    fn has_ended(&self) -> bool {
        false
    }
}

/// Private data for each bio of a `T`: that of this crate and that of the target.
pub(crate) struct PerBio<T: Target> {
    pub(crate) in_flight: T::InFlight,
    pub(crate) data: T::PerBio,
}

/// Returns the size of the private data for each bio of a `T`, in bytes.
pub fn per_bio_bytes<T: Target>() -> usize {
    // Device-mapper aligns per-bio data to this.
    const {
        assert!(align_of::<PerBio<T>>() <= align_of::<u64>());
    }
    size_of::<PerBio<T>>()
}

/// Returns the private data of a clone.
pub(crate) fn per_bio<T: Target>(bio: *mut bio) -> *mut PerBio<T> {
    // SAFETY: Only computes an address: device-mapper places per-bio data before the clone.
    unsafe { bindings::dm_per_bio_data(bio, per_bio_bytes::<T>()) }.cast()
}
