// SPDX-License-Identifier: GPL-2.0

//! Places at which a test build can hold a thread up.
//!
//! Some races are a few instructions wide. A build with `MUTANTS=1` can stop the next thread that
//! gets to such a place, let a test do what would have to happen then by chance, and let the
//! thread go on. In a normal build [`HoldPoint::pass`] is nothing.
//!
//! The test arms a place, perhaps for a later passage than the next one, waits until a thread is held
//! there, and releases it. If nobody does, it goes on after 15 seconds.

/// A place that reads and events pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum HoldPoint {
    /// The mapping of the read's block is known; nothing else has been done.
    MappingKnown = 1,
    /// A record was found, and its page isn't copied yet. Under RCU.
    RecordFound = 2,
    /// The pool has a new layer, and hasn't committed it yet.
    LayerCreated = 3,
    /// A write has become one of its whole block, which hasn't been sent yet.
    BlockFilled = 4,
    /// Copies that are one too many were found, and none has been dropped yet.
    CopiesFound = 5,
    /// A copy that isn't proven is in the reader's memory, as it must never be.
    Unproven = 6,
}

impl HoldPoint {
    /// Waits here if a test has armed the place.
    #[inline(always)]
    pub fn pass(self) {
        #[cfg(DRR_MUTANTS)]
        test_build::hold(self);
    }
}

#[cfg(DRR_MUTANTS)]
pub use test_build::message;

#[cfg(DRR_MUTANTS)]
mod test_build {
    use super::HoldPoint;
    use kernel::{
        prelude::*,
        sync::atomic::{Acquire, Atomic, Full, Release},
        time::{delay, Delta},
    };

    /// Milliseconds until a thread goes on by itself.
    const PATIENCE_MS: u32 = 15_000;

    const NONE: u32 = 0;
    const HELD: u32 = 1 << 31;

    /// [`NONE`], or the place that is armed, with [`HELD`] once a thread is there.
    static ARMED: Atomic<u32> = Atomic::new(NONE);
    /// So many pass the place that is armed before one is held.
    static PASS: Atomic<u32> = Atomic::new(0);

    pub(super) fn hold(place: HoldPoint) {
        // CAST: A place's number is small.
        let number = place as u32;
        if ARMED.load(Acquire) == number && PASS.load(Acquire) != 0 {
            PASS.fetch_add(1u32.wrapping_neg(), Full);
            return;
        }
        if ARMED.cmpxchg(number, number | HELD, Full).is_err() {
            return;
        }
        for _ in 0..PATIENCE_MS {
            if ARMED.load(Acquire) != number | HELD {
                return;
            }
            match place {
                // Others may have to wait for a grace period meanwhile.
                HoldPoint::RecordFound | HoldPoint::Unproven => {
                    delay::udelay(Delta::from_millis(1))
                }
                _ => delay::fsleep(Delta::from_millis(1)),
            }
        }
        pr_warn!("held at {place:?} for {PATIENCE_MS} ms: gone on\n");
    }

    /// Messages of a test build: `hold <place> [second]`, `held` (fails until a thread is), `release`.
    pub fn message(args: &[&CStr]) -> Option<Result> {
        match args {
            [name, place, rest @ ..] if *name == c"hold" => {
                let place = match place.to_bytes() {
                    b"mapping_known" => HoldPoint::MappingKnown,
                    b"record_found" => HoldPoint::RecordFound,
                    b"layer_created" => HoldPoint::LayerCreated,
                    b"block_filled" => HoldPoint::BlockFilled,
                    b"copies_found" => HoldPoint::CopiesFound,
                    b"unproven" => HoldPoint::Unproven,
                    _ => return Some(Err(EINVAL)),
                };
                PASS.store(u32::from(rest == [c"second"]), Release);
                // CAST: A place's number is small.
                ARMED.store(place as u32, Release);
                Some(Ok(()))
            }
            [name] if *name == c"held" => Some(
                (ARMED.load(Acquire) & HELD != 0)
                    .then_some(())
                    .ok_or(EAGAIN),
            ),
            [name] if *name == c"release" => {
                ARMED.store(NONE, Release);
                Some(Ok(()))
            }
            _ => None,
        }
    }
}
