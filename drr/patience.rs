// SPDX-License-Identifier: GPL-2.0

//! How long a target's reads wait for another's of the same data.
//!
//! To wait pays as long as the other's reads don't take much longer than the target's own would. The other's
//! container may be throttled (`io.max`), far below what can be seen here, and each of its reads may end just in
//! time. So a target knows how long its own reads from the disk take at the worst ([`OwnReads`]), and of each target it
//! is known how long others have lately waited for its reads ([`Lag`]). If that is many times as long, or long and
//! there is nothing to compare it with, one read doesn't wait, to find out: it *probes*. If it turns out to take
//! much less time, nobody waits for the other any more, for a while.
//!
//! All times are in jiffies. Two reads at once may count as one, and times may be out of order by a little: all of it
//! is a matter of experience.

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
/// A wait that makes those probe who know nothing, in milliseconds.
const LONG_MS: u32 = 100;
/// How many times as long as own reads another's may take.
const TIMES: u64 = 4;
/// How long it is known how long own reads take, in milliseconds.
const KNOWN_MS: u32 = 10_000;
/// Waits for the same other before anything is made of it.
const WAITS: u32 = 3;
/// How fast bad moments are forgotten: a part of one to the power of two with each read.
const DECAY: u32 = 4;
/// How long nobody waits for a target the first time, and at the most, in milliseconds; four times as long with each
/// time that follows soon.
const RESTRAINT_MS: [u32; 2] = [1000, 64_000];

fn jiffies(ms: u32) -> u64 {
    // CAST: Fits.
    msecs_to_jiffies(ms) as u64
}

/// `waited` is much longer than an own read that takes so long, and worth the trouble.
fn is_slow(waited: u64, own: u64) -> bool {
    waited > own.saturating_mul(TIMES).max(jiffies(LEAST_MS))
}

/// How long a target's reads from the disk take.
pub(crate) struct OwnReads {
    /// At the worst.
    worst: Atomic<u64>,
    /// When the last of them ended, and 0 if none has.
    known: Atomic<u64>,
}

impl OwnReads {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            worst: Atomic::new(0),
            known: Atomic::new(0),
        }
    }

    /// The disk may be another by now.
    pub(crate) fn forget(&self) {
        self.known.store(0, Relaxed);
    }

    /// How long they take at the worst, if any has come lately.
    pub(crate) fn worst(&self, now: u64) -> Option<u64> {
        let known = self.known.load(Relaxed);
        let lately = known != 0 && now.saturating_sub(known) <= jiffies(KNOWN_MS);
        lately.then(|| self.worst.load(Relaxed))
    }

    /// One has ended, and took so long.
    pub(crate) fn took(&self, time: u64, now: u64) {
        let old = self.worst(now).unwrap_or(0);
        self.worst
            .store(time.max(old - old.div_ceil(1 << DECAY)), Relaxed);
        self.known.store(now.max(1), Relaxed);
    }

    /// How long to wait for another's read.
    pub(crate) fn patience(&self, now: u64) -> u64 {
        let most = jiffies(MOST_MS);
        self.worst(now).map_or(most, |own| {
            own.saturating_mul(TIMES).clamp(jiffies(LIMIT_MS), most)
        })
    }
}

/// What to do about another's read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Wait for it.
    Follow,
    /// Don't.
    Leave,
    /// Don't, and see how long an own read takes: [`Lag::judge`].
    Probe,
}

/// How long others wait for a target's reads.
pub(crate) struct Lag {
    /// How often they have, since it was last judged, and how long, a moving average.
    waits: Atomic<u32>,
    mean: Atomic<u64>,
    /// A read is on its way to find out whether that has to be. Given up after a while.
    probing: Atomic<u64>,
    /// Nobody waits before that.
    until: Atomic<u64>,
    /// How long that was for.
    restraint: Atomic<u64>,
}

impl Lag {
    /// Nobody has waited.
    pub(crate) fn new() -> Self {
        Self {
            waits: Atomic::new(0),
            mean: Atomic::new(0),
            probing: Atomic::new(0),
            until: Atomic::new(0),
            restraint: Atomic::new(0),
        }
    }

    /// The disk may be another by now.
    pub(crate) fn forget(&self) {
        self.waits.store(0, Relaxed);
        self.until.store(0, Relaxed);
        self.restraint.store(0, Relaxed);
    }

    /// Whether to wait for the target's reads at all.
    pub(crate) fn is_restrained(&self, now: u64) -> bool {
        now < self.until.load(Relaxed)
    }

    /// What a target is to do about one of these reads. Its own take `own` at the worst, if that is known.
    pub(crate) fn advice(&self, own: Option<u64>, now: u64) -> Advice {
        if self.is_restrained(now) {
            return Advice::Leave;
        }
        let (waits, mean) = (self.waits.load(Relaxed), self.mean.load(Relaxed));
        let long = waits >= WAITS || waits != 0 && own.is_none() && mean > jiffies(LONG_MS);
        if !long || !is_slow(mean, own.unwrap_or(0)) {
            return Advice::Follow;
        }
        let since = self.probing.load(Relaxed);
        let free = since == 0 || now.saturating_sub(since) > jiffies(MOST_MS);
        if free && self.probing.cmpxchg(since, now.max(1), Relaxed).is_ok() {
            Advice::Probe
        } else {
            Advice::Follow
        }
    }

    /// Another target's read has waited `time` for one of these, in vain or not.
    pub(crate) fn waited(&self, time: u64) {
        let waits = self.waits.load(Relaxed);
        let mean = match waits {
            0 => time,
            _ => {
                self.mean
                    .load(Relaxed)
                    .saturating_mul(3)
                    .saturating_add(time)
                    / 4
            }
        };
        self.mean.store(mean, Relaxed);
        self.waits.store(waits.saturating_add(1), Relaxed);
    }

    /// A probe has ended, and took `time`.
    pub(crate) fn judge(&self, time: u64, now: u64) {
        self.probing.store(0, Relaxed);
        self.waits.store(0, Relaxed);
        if self.is_restrained(now) {
            return;
        }
        let last = self.restraint.load(Relaxed);
        // What came long ago is forgotten.
        let soon = now.saturating_sub(self.until.load(Relaxed)) <= last;
        let [least, most] = RESTRAINT_MS.map(jiffies);
        let restraint = match is_slow(self.mean.load(Relaxed), time) {
            true if soon => last.saturating_mul(4).clamp(least, most),
            true => least,
            false => 0,
        };
        self.restraint.store(restraint, Relaxed);
        self.until.store(now.saturating_add(restraint), Relaxed);
    }
}

#[kunit_tests(drr_patience)]
mod tests {
    use super::*;

    const NOW: u64 = 1 << 40;

    fn ms(ms: u32) -> u64 {
        jiffies(ms)
    }

    /// How many waits it takes until a read probes.
    fn waits_until_probe(lag: &Lag, own: Option<u64>, time: u32) -> Option<u32> {
        (1..=10).find(|_| {
            lag.waited(ms(time));
            lag.advice(own, NOW) == Advice::Probe
        })
    }

    #[test]
    fn own_reads_at_the_worst() {
        let own = OwnReads::new();
        assert_eq!((own.worst(NOW), own.patience(NOW)), (None, ms(MOST_MS)));
        own.took(ms(20), NOW);
        assert_eq!(own.patience(NOW), ms(LIMIT_MS));
        own.took(ms(800), NOW);
        assert_eq!(own.patience(NOW), ms(MOST_MS));
        // Better moments don't make it forget at once. Nor does a clock that another CPU has read a little earlier.
        own.took(ms(10), NOW + 1);
        assert!(own.worst(NOW) > Some(ms(700)));
        // But with time.
        let later = NOW + ms(KNOWN_MS) + 2;
        assert_eq!(own.worst(later), None);
        own.took(ms(10), later);
        assert_eq!(own.worst(later), Some(ms(10)));
        own.forget();
        assert_eq!(own.worst(later), None);
    }

    #[test]
    fn who_knows_nothing_probes() {
        for (time, waits) in [(250, Some(1)), (80, Some(WAITS)), (LEAST_MS, None)] {
            let lag = Lag::new();
            assert_eq!(lag.advice(None, NOW), Advice::Follow);
            assert_eq!(waits_until_probe(&lag, None, time), waits);
            // One read is enough.
            assert_eq!(lag.advice(None, NOW), Advice::Follow);
        }
    }

    #[test]
    fn who_takes_many_times_as_long_is_left() {
        let (lag, other) = (Lag::new(), Lag::new());
        let own = Some(ms(20));
        // It doesn't matter whose reads come in between.
        for lag in [&lag, &other, &lag, &other] {
            lag.waited(ms(250));
            assert_eq!(lag.advice(own, NOW), Advice::Follow);
        }
        lag.waited(ms(250));
        assert_eq!(lag.advice(own, NOW), Advice::Probe);
        lag.judge(ms(20), NOW);
        let [mut restraint, most] = RESTRAINT_MS.map(jiffies);
        let mut now = NOW;
        while restraint <= most {
            assert_eq!(lag.advice(own, now), Advice::Leave);
            // Who comes late with the same doesn't make it worse.
            lag.judge(ms(20), now);
            now += restraint;
            assert_eq!(lag.advice(own, now), Advice::Follow);
            lag.judge(ms(20), now);
            restraint *= 4;
        }
        // After a while all is forgotten.
        now += 3 * most;
        lag.judge(ms(20), now);
        assert!(!lag.is_restrained(now + ms(RESTRAINT_MS[0])));
        lag.forget();
        assert!(!lag.is_restrained(now));
    }

    #[test]
    fn a_slow_disk_is_nobodys_fault() {
        let lag = Lag::new();
        assert_eq!(waits_until_probe(&lag, None, 800), Some(1));
        lag.judge(ms(700), NOW);
        assert_eq!(lag.advice(None, NOW), Advice::Follow);
        assert_eq!(waits_until_probe(&lag, Some(ms(700)), 800), None);
    }
}
