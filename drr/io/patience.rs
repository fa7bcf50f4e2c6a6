// SPDX-License-Identifier: GPL-2.0

//! How long a target's reads wait for another's of the same data, and when whole blocks are written.
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
/// A write of a whole block that takes longer, in milliseconds, is the last for a while.
const WHOLE_MS: u32 = 500;
/// Such writes before one of a part is made to find out how long that takes: of many, few are spent on that.
const WHOLE_WRITES: u32 = 16;
/// Waits for the same other before anything is made of it.
pub(crate) const WAITS: u32 = 3;
/// How fast bad moments are forgotten: a part of one to the power of two with each read.
const DECAY: u32 = 4;
/// How long something isn't done the first time, and at the most, in milliseconds; four times as long with each time
/// that follows soon.
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
            // RANGE: Takes off a part of it.
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

/// Something that isn't done for a while, since it took too long.
struct Restraint {
    /// When the restraint ends.
    until: Atomic<u64>,
    /// How long the last one was.
    length: Atomic<u64>,
}

impl Restraint {
    fn new() -> Self {
        Self {
            until: Atomic::new(0),
            length: Atomic::new(0),
        }
    }

    fn forget(&self) {
        self.until.store(0, Relaxed);
        self.length.store(0, Relaxed);
    }

    fn is_on(&self, now: u64) -> bool {
        now < self.until.load(Relaxed)
    }

    /// It was done, and has taken too long or not. Ignored while the restraint is on.
    fn tell(&self, too_long: bool, now: u64) {
        if self.is_on(now) {
            return;
        }
        let last = self.length.load(Relaxed);
        // What came long ago is forgotten.
        let soon = now.saturating_sub(self.until.load(Relaxed)) <= last;
        let [least, most] = RESTRAINT_MS.map(jiffies);
        let length = match too_long {
            true if soon => last.saturating_mul(4).clamp(least, most),
            true => least,
            false => 0,
        };
        self.length.store(length, Relaxed);
        self.until.store(now.saturating_add(length), Relaxed);
    }
}

/// What to do about another's read, or whether to write a whole block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Wait for the read; write the whole block.
    Follow,
    /// Don't.
    Leave,
    /// Don't, and see how long an own read takes: [`Lag::judge`].
    Probe,
}

/// How long others wait for a target's reads.
pub(crate) struct Lag {
    /// Waits that a judgement needs.
    enough: u32,
    /// How often they have waited, since it was last judged, and how long, a moving average.
    waits: Atomic<u32>,
    mean: Atomic<u64>,
    /// A read is on its way to find out whether that has to be. Given up after a while.
    probing: Atomic<u64>,
    /// Nobody waits.
    restraint: Restraint,
}

impl Lag {
    /// Nobody has waited yet; a judgement needs `enough` waits.
    pub(crate) fn new(enough: u32) -> Self {
        Self {
            enough,
            waits: Atomic::new(0),
            mean: Atomic::new(0),
            probing: Atomic::new(0),
            restraint: Restraint::new(),
        }
    }

    /// The disk may be another by now.
    pub(crate) fn forget(&self) {
        self.waits.store(0, Relaxed);
        self.restraint.forget();
    }

    /// Whether to wait for the target's reads at all.
    pub(crate) fn is_restrained(&self, now: u64) -> bool {
        self.restraint.is_on(now)
    }

    /// What a target is to do about one of these reads. Its own take `own` at the worst, if that is known.
    pub(crate) fn advice(&self, own: Option<u64>, now: u64) -> Advice {
        if self.is_restrained(now) {
            return Advice::Leave;
        }
        let (waits, mean) = (self.waits.load(Relaxed), self.mean.load(Relaxed));
        let long = waits >= self.enough || waits != 0 && own.is_none() && mean > jiffies(LONG_MS);
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
        self.restraint
            .tell(is_slow(self.mean.load(Relaxed), time), now);
    }
}

/// Whether whole blocks are written instead of parts.
///
/// A whole block costs its writer's control group more bytes than the part. Where bytes are short (`io.max`), whole
/// blocks take longer than parts, for all that dm-thin then has to copy: one part is written to find out. Where many
/// writes wait for each other, both kinds take long and a comparison tells nothing. So parts are written after any
/// whole block that took longer than [`WHOLE_MS`]. If the disk itself is slow, this is no worse than dm-thin alone.
pub(crate) struct FullBlockWrites(Lag);

impl FullBlockWrites {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self(Lag::new(WHOLE_WRITES))
    }

    /// The disk may be another by now.
    pub(crate) fn forget(&self) {
        self.0.forget();
    }

    /// Whether none is to be made for now.
    pub(crate) fn is_restrained(&self, now: u64) -> bool {
        self.0.is_restrained(now)
    }

    /// What to do about the next: [`Advice::Follow`] is to write the whole.
    pub(crate) fn advice(&self, now: u64) -> Advice {
        self.0.advice(Some(0), now)
    }

    /// A whole block has been written, in so long.
    pub(crate) fn took(&self, time: u64, now: u64) {
        self.0.waited(time);
        if time > jiffies(WHOLE_MS) {
            self.0.restraint.tell(true, now);
        }
    }

    /// A part has been written to find out.
    pub(crate) fn judge(&self, time: u64, now: u64) {
        self.0.judge(time, now);
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
            let lag = Lag::new(WAITS);
            assert_eq!(lag.advice(None, NOW), Advice::Follow);
            assert_eq!(waits_until_probe(&lag, None, time), waits);
            // One read is enough.
            assert_eq!(lag.advice(None, NOW), Advice::Follow);
        }
    }

    #[test]
    fn who_takes_many_times_as_long_is_left() {
        let (lag, other) = (Lag::new(WAITS), Lag::new(WAITS));
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
            // One that comes late with the same doesn't make it worse.
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
    fn whole_blocks_only_where_they_are_quick() {
        let whole = FullBlockWrites::new();
        let [least, _] = RESTRAINT_MS.map(ms);
        // Each of them takes long, and so would a part.
        for time in [40, 8] {
            for _ in 0..WHOLE_WRITES {
                assert_eq!(whole.advice(NOW), Advice::Follow);
                whole.took(ms(80), NOW);
            }
            assert_eq!(whole.advice(NOW), Advice::Probe);
            assert_eq!(whole.advice(NOW), Advice::Follow);
            whole.judge(ms(time), NOW);
        }
        // It wouldn't.
        assert_eq!(whole.advice(NOW), Advice::Leave);
        assert_eq!(whole.advice(NOW + least), Advice::Follow);
        // All take so long that something is short. Those that were sent before don't count.
        let now = NOW + least;
        whole.took(ms(WHOLE_MS + 20), now);
        whole.took(ms(WHOLE_MS + 20), now + 1);
        assert_eq!(whole.advice(now + 4 * least - 1), Advice::Leave);
        assert_eq!(whole.advice(now + 4 * least), Advice::Follow);
        whole.took(ms(WHOLE_MS + 20), now + 4 * least);
        whole.forget();
        assert_eq!(whole.advice(now + 4 * least), Advice::Follow);
    }

    #[test]
    fn a_slow_disk_is_nobodys_fault() {
        let lag = Lag::new(WAITS);
        assert_eq!(waits_until_probe(&lag, None, 800), Some(1));
        lag.judge(ms(700), NOW);
        assert_eq!(lag.advice(None, NOW), Advice::Follow);
        assert_eq!(waits_until_probe(&lag, Some(ms(700)), 800), None);
    }
}
