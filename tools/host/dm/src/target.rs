// SPDX-License-Identifier: GPL-2.0

//! Stand-in: targets, as far as bios are parked for them.

#[path = "../../../../rust/target/status_buffer.rs"]
pub mod status_buffer;
pub mod thin;
#[path = "../../../../rust/target/thin_event.rs"]
pub mod thin_event;

use core::{mem::MaybeUninit, ptr::NonNull};

use kernel::bindings::bio;

use crate::io::in_flight::{InFlightBio, Lead};

/// A device-mapper target.
pub trait Target: Sized + Send + Sync + 'static {
    /// Data that travels with each bio.
    type PerBio: Default + Send;
}

/// How far a bio has come.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    /// It is on its way.
    Under,
    /// It is, and others may follow it.
    Leading(Lead),
    /// It has ended, and been looked at.
    Ended,
}

/// What travels with each bio of a `T`.
pub(crate) struct PerBio<T: Target> {
    pub(crate) phase: Phase,
    pub(crate) data: T::PerBio,
    pub(crate) flight: MaybeUninit<InFlightBio>,
}

impl<T: Target> PerBio<T> {
    /// Of a bio that comes in.
    pub(crate) fn new(data: T::PerBio) -> Self {
        Self {
            phase: Phase::Under,
            data,
            flight: MaybeUninit::uninit(),
        }
    }
}

/// What travels with a bio.
pub(crate) fn per_bio<T: Target>(bio: *mut bio) -> *mut PerBio<T> {
    // SAFETY: Only called with bios that are there.
    unsafe { (*bio).per_bio }.cast()
}

/// A bio of a `T` ends, in the order of the module's `Callbacks::finish`.
///
/// # Safety
///
/// It went through `map`, and hasn't ended before.
pub(crate) unsafe fn finish<T: Target>(bio: NonNull<bio>, end_io: impl FnOnce(), ok: bool) {
    end_io();
    let slot = per_bio::<T>(bio.as_ptr());
    // SAFETY: The slot is the bio's, which is ours.
    unsafe {
        let phase = core::mem::replace(&mut (*slot).phase, Phase::Ended);
        if let Phase::Leading(lead) = phase {
            lead.land(NonNull::new_unchecked((*slot).flight.as_mut_ptr()), ok);
        }
    }
}
