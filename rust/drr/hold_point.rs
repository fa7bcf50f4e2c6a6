// SPDX-License-Identifier: GPL-2.0

//! Points at which a test build can hold a thread.
//!
//! Some race windows are a few instructions wide. A build with `MUTANTS=1` can hold the next thread
//! that reaches such a point while the test runs the other side of the race. In a normal build,
//! [`HoldPoint::pass`] does nothing.
//!
//! The test arms a point, for the next or the second passage, waits until a thread is held there,
//! and releases the thread. A thread that is not released continues after 15 seconds.

/// A point in the code at which reads and events can be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum HoldPoint {
    /// The mapping of the read's block is known, and nothing else has been done.
    MappingKnown = 1,
    /// A record was found, and its page is not copied yet. Under RCU.
    RecordFound = 2,
    /// The pool has created a new layer and not committed it yet.
    LayerCreated = 3,
    /// A write was extended to its whole block, and the block has not been sent yet.
    BlockFilled = 4,
    /// Redundant copies were found, and none has been dropped yet.
    CopiesFound = 5,
    /// An unproven copy is in the reader's memory. Reached only if [`ProofFirst`] is off.
    ///
    /// [`ProofFirst`]: crate::drr::rule::Rule::ProofFirst
    Unproven = 6,
}

impl HoldPoint {
    /// Holds the thread here if a test has armed the point.
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

    /// How long a thread is held if the test does not release it, in milliseconds: a test that
    /// fails must not leave it held for ever.
    const PATIENCE_MS: u32 = 15_000;

    /// No point is armed; points are numbered from 1 on.
    const NONE: u32 = 0;
    /// The bit that says that a thread is held, above the numbers of points.
    const HELD: u32 = 1 << 31;

    /// [`NONE`], or the number of the armed point, with [`HELD`] once a thread is held there.
    static ARMED: Atomic<u32> = Atomic::new(NONE);
    /// Number of threads that still pass the armed point before one is held.
    static PASS: Atomic<u32> = Atomic::new(0);

    pub(super) fn hold(place: HoldPoint) {
        // CAST: The number of a point is small.
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
                // Spins, as the thread is in an RCU critical section and can't sleep.
                HoldPoint::RecordFound | HoldPoint::Unproven => {
                    delay::udelay(Delta::from_millis(1))
                }
                _ => delay::fsleep(Delta::from_millis(1)),
            }
        }
        pr_warn!("held at {place:?} for {PATIENCE_MS} ms: gone on\n");
    }

    /// Handles the messages of a test build: `hold <point> [second]`, `held`, which fails with
    /// `EAGAIN` until a thread is held, and `release`. Returns `None` for other messages.
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
                // CAST: The number of a point is small.
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
