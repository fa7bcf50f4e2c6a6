// SPDX-License-Identifier: GPL-2.0

//! Bios that wait for something, and go on in workers when it has come.
//!
//! No task waits: a bio that is parked holds nothing but its own memory.
//!
//! Lock order: the list's lock is taken with interrupts off, and is a leaf.

use core::{ptr, ptr::NonNull};

use kernel::{prelude::*, static_lock_class, sync::SpinLockIrq};

use crate::{
    bio::{Bio, Mapped},
    inflight::{Head, InFlight, Leg, Part},
    target::Target,
};

static PARKED: &CStr = c"dm_parked";

/// The bios that wait. They keep their targets alive, as device-mapper destroys none with I/O in flight.
pub struct Parking(Pin<KBox<SpinLockIrq<Head>>>);

impl Parking {
    /// Nobody waits. Fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        let list = SpinLockIrq::new(Head(ptr::null_mut()), PARKED, static_lock_class!());
        Ok(Self(KBox::pin_init(list, GFP_KERNEL)?))
    }

    /// Parks `bio` until the next [`Self::change`], if `waits` says so with the list locked, as changes
    /// are made; else gives it back. So none comes between the two. It goes on by [`Target::landed`].
    pub fn park<'a, T: Target>(
        &self,
        bio: Bio<'a, T>,
        target: &'a T,
        flights: &InFlight<T>,
        waits: impl FnOnce() -> bool,
    ) -> core::result::Result<Mapped, Bio<'a, T>> {
        let mut head = self.0.lock();
        if !waits() {
            drop(head);
            return Err(bio);
        }
        // SAFETY: The bio is ours, and nobody knows of its leg.
        let leg = unsafe { Leg::begin(&bio, target, Part::NONE, flights) };
        leg.next = head.0;
        head.0 = leg;
        Ok(Mapped::submitted())
    }

    /// Does what others wait for, and has them go on. Any context.
    pub fn change<T: Target>(&self, flights: &InFlight<T>, change: impl FnOnce()) {
        let mut head = self.0.lock();
        change();
        let mut next = core::mem::replace(&mut head.0, ptr::null_mut());
        drop(head);
        while let Some(leg) = NonNull::new(next) {
            // SAFETY: Taken from the list, so it is ours; once it goes on it may be gone.
            unsafe {
                next = leg.as_ref().next;
                flights.go_on(leg);
            }
        }
    }
}
