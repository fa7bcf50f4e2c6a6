// SPDX-License-Identifier: GPL-2.0

//! How long a target's reads wait for another's of the same data.
//!
//! To wait pays as long as the other's reads don't take much longer than the target's own would. The other's
//! container may be throttled (`io.max`), far below what can be seen here, and each of its reads may end just in
//! time. So a target knows how long its own reads from the disk take at the worst, and how long it has lately waited
//! for the same other. If that is many times as long, or if the first isn't known, the next read doesn't wait, to
//! find out (it *probes*). If it turns out to take much less time, nobody waits for the other any more, for a while.
//!
//! All times are in jiffies.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    time::msecs_to_jiffies,
};

/// The longest that anybody waits, in milliseconds: longer than any healthy disk takes.
const MOST_MS: u32 = 1000;
/// What anybody may wait, in milliseconds: single reads take longer than others.
const LIMIT_MS: u32 = 250;
/// Waits of which the mean is less than that, in milliseconds, are nobody's fault.
const LEAST_MS: u32 = 20;
/// A wait that makes a target probe, in milliseconds.
const LONG_MS: u32 = 100;
/// How many times as long as own reads another's may take.
const TIMES: u64 = 4;
/// How long it is known how long own reads take, in milliseconds.
const KNOWN_MS: u32 = 10_000;
/// Waits for the same other before anything is made of it.
const WAITS: u32 = 3;
/// How fast bad moments are forgotten: a part of one to the power of two with each read.
const DECAY: u32 = 4;

/// See the [module](self). Two reads at once may count as one: all of it is a matter of experience.
pub(crate) struct Patience {
    /// How long own reads from the disk take at the worst.
    worst: Atomic<u64>,
    /// When the last of them ended, and 0 if none has.
    known: Atomic<u64>,
    /// For whom the target has waited last: a number of a target, 0 for nobody. How often in a row, and how long, a
    /// moving average.
    other: Atomic<u32>,
    waits: Atomic<u32>,
    waited: Atomic<u64>,
    /// That is long: one read is to find out whether it has to be.
    suspects: Atomic<bool>,
}

fn jiffies(ms: u32) -> u64 {
    // CAST: Fits.
    msecs_to_jiffies(ms) as u64
}

/// `waited` is much longer than an own read that takes so long, and worth the trouble.
fn is_slow(waited: u64, own: u64) -> bool {
    waited > own.saturating_mul(TIMES).max(jiffies(LEAST_MS))
}

impl Patience {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            worst: Atomic::new(0),
            known: Atomic::new(0),
            other: Atomic::new(0),
            waits: Atomic::new(0),
            waited: Atomic::new(0),
            suspects: Atomic::new(false),
        }
    }

    /// The disk may be another by now.
    pub(crate) fn forget(&self) {
        self.known.store(0, Relaxed);
        self.other.store(0, Relaxed);
        self.suspects.store(false, Relaxed);
    }

    /// The worst time of own reads, if any has come lately.
    fn own(&self, now: u64) -> Option<u64> {
        let known = self.known.load(Relaxed);
        (known != 0 && now.wrapping_sub(known) <= jiffies(KNOWN_MS))
            .then(|| self.worst.load(Relaxed))
    }

    /// How long to wait for another's read.
    pub(crate) fn limit(&self, now: u64) -> u64 {
        let most = jiffies(MOST_MS);
        self.own(now).map_or(most, |own| {
            own.saturating_mul(TIMES).clamp(jiffies(LIMIT_MS), most)
        })
    }

    /// Whether not to wait for another's read this time, but to see how long an own one takes. Says so once.
    pub(crate) fn probes(&self) -> bool {
        self.suspects.load(Relaxed) && self.suspects.cmpxchg(true, false, Relaxed).is_ok()
    }

    /// A read has waited for one of `other`'s, in vain or not.
    pub(crate) fn waited(&self, other: u32, time: u64, now: u64) {
        let (waits, mean) = if self.other.load(Relaxed) == other {
            let mean = (3 * self.waited.load(Relaxed) + time) / 4;
            (self.waits.load(Relaxed).saturating_add(1), mean)
        } else {
            self.other.store(other, Relaxed);
            (1, time)
        };
        self.waits.store(waits, Relaxed);
        self.waited.store(mean, Relaxed);
        let own = self.own(now);
        let long = waits >= WAITS || own.is_none() && time > jiffies(LONG_MS);
        if long && is_slow(mean, own.unwrap_or(0)) {
            self.suspects.store(true, Relaxed);
        }
    }

    /// An own read from the disk has ended, and took so long. If it has probed, returns for whose reads the target
    /// has waited, and whether these are slow.
    pub(crate) fn took(&self, time: u64, probed: bool, now: u64) -> Option<(u32, bool)> {
        let old = self.own(now).unwrap_or(0);
        self.worst
            .store(time.max(old - old.div_ceil(1 << DECAY)), Relaxed);
        self.known.store(now.max(1), Relaxed);
        if !probed {
            return None;
        }
        let other = self.other.load(Relaxed);
        self.other.store(0, Relaxed);
        (other != 0).then(|| (other, is_slow(self.waited.load(Relaxed), time)))
    }
}

#[kunit_tests(drr_patience)]
mod tests {
    use super::*;

    const NOW: u64 = 1 << 40;

    /// So many waits for the same other make a read probe.
    fn waits_until_suspect(patience: &Patience, other: u32, ms: u32, most: u32) -> u32 {
        let one = |_: &u32| {
            patience.waited(other, jiffies(ms), NOW);
            patience.probes()
        };
        (1..=most).find(one).unwrap_or(0)
    }

    #[test]
    fn who_knows_nothing_probes() {
        for (ms, waits) in [(250, 1), (80, 3), (LEAST_MS, 0)] {
            let patience = Patience::new();
            assert_eq!(patience.limit(NOW), jiffies(MOST_MS));
            assert_eq!(waits_until_suspect(&patience, 7, ms, 10), waits);
            // One read is enough.
            assert!(!patience.probes());
            if waits != 0 {
                assert_eq!(patience.took(0, true, NOW), Some((7, true)));
            }
        }
    }

    #[test]
    fn who_takes_many_times_as_long_is_left() {
        let patience = Patience::new();
        assert_eq!(patience.took(jiffies(20), false, NOW), None);
        assert_eq!(patience.limit(NOW), jiffies(LIMIT_MS));
        assert_eq!(waits_until_suspect(&patience, 7, 250, 2), 0);
        // Somebody else's are counted anew.
        assert_eq!(waits_until_suspect(&patience, 8, 250, 10), WAITS);
        assert_eq!(patience.took(jiffies(20), true, NOW), Some((8, true)));
    }

    #[test]
    fn a_slow_disk_is_nobodys_fault() {
        let patience = Patience::new();
        assert_eq!(waits_until_suspect(&patience, 7, 800, 10), 1);
        assert_eq!(patience.took(jiffies(700), true, NOW), Some((7, false)));
        assert_eq!(patience.limit(NOW), jiffies(MOST_MS));
        // Better moments don't make it forget at once.
        for _ in 0..5 {
            assert_eq!(patience.took(jiffies(10), false, NOW), None);
        }
        assert_eq!(waits_until_suspect(&patience, 7, 800, 10), 0);
        // But all is forgotten with time.
        let later = NOW + jiffies(KNOWN_MS) + 1;
        assert_eq!(patience.took(jiffies(10), false, later), None);
        assert_eq!(patience.limit(later), jiffies(LIMIT_MS));
        patience.forget();
        assert_eq!(patience.limit(later), jiffies(MOST_MS));
    }
}
