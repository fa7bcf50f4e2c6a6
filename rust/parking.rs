// SPDX-License-Identifier: GPL-2.0

//! Bios that wait for something, and go on in workers when it has come.
//!
//! No task waits: a bio that is parked holds nothing but its own memory.
//!
//! Lock order: the list's lock is taken with interrupts off, and is a leaf.

use kernel::{prelude::*, static_lock_class, sync::SpinLockIrq};

use crate::{
    bio::{Bio, Mapped},
    inflight::{Flight, FlightList, Follow, InFlight},
};

static PARKED: &CStr = c"dm_parked";

/// The bios that wait. They keep their targets alive, as device-mapper destroys none with I/O in flight.
pub struct Parking(Pin<KBox<SpinLockIrq<FlightList>>>);

impl Parking {
    /// Nobody waits. Fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        let list = SpinLockIrq::new(FlightList::EMPTY, PARKED, static_lock_class!());
        Ok(Self(KBox::pin_init(list, GFP_KERNEL)?))
    }

    /// Parks `bio` until the next [`Self::change`], if `waits` says so with the list locked, as changes
    /// are made; else gives it back. So none comes between the two. It goes on by [`Follow::resume_bio`].
    pub fn park<'a, T: Follow>(
        &self,
        bio: Bio<'a, T>,
        target: &'a T,
        waits: impl FnOnce() -> bool,
    ) -> core::result::Result<Mapped, Bio<'a, T>> {
        let mut list = self.0.lock();
        if !waits() {
            drop(list);
            return Err(bio);
        }
        // SAFETY: The bio is ours, and nobody knows of its flight.
        unsafe { list.push(Flight::deferred(&bio, target)) };
        Ok(Mapped::submitted())
    }

    /// Does what others wait for, and has them go on. Any context.
    pub fn change<T: Follow>(&self, flights: &InFlight<T>, change: impl FnOnce()) {
        let mut list = self.0.lock();
        change();
        let mut waiting = list.take();
        drop(list);
        while let Some(flight) = waiting.pop() {
            // SAFETY: Taken from the list, so it is ours; once it goes on it may be gone.
            unsafe { flights.go_on(flight) };
        }
    }
}
