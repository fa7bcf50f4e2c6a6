// SPDX-License-Identifier: GPL-2.0

//! How long a target's reads wait for another target's read of the same data, and when whole blocks
//! are written.
//!
//! Waiting pays as long as the other target's reads don't take much longer than the target's own
//! would. The other container may be throttled (`io.max`), which the target can't see, and each of
//! its reads may end just in time. So each target measures the longest time that its own reads from
//! the disk take ([`OwnReads`]), and for each target it is recorded how long other targets have
//! lately waited for its reads ([`Lag`]). If the waits are several times as long as own reads, or
//! long and there are no own reads to compare them with, one read *probes*: it doesn't wait, but
//! measures how long it takes itself. If the probe takes much less time, no read waits for the
//! other target for a while.
//!
//! All times are in jiffies. Two concurrent reads may count as one, and times may be slightly out
//! of order: the figures are estimates.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
    time::msecs_to_jiffies,
};

use dm::io::in_flight::LATE_MS;

/// The longest wait for another target's read, in milliseconds: longer than any healthy disk takes.
/// A read of that age can't be followed any more.
const MOST_MS: u32 = LATE_MS;
/// A wait that is always allowed, in milliseconds: some reads take much longer than most.
const LIMIT_MS: u32 = 250;
/// Waits with a mean of up to this, in milliseconds, don't count as slow: a busy hard disk takes as
/// long for a read.
const LEAST_MS: u32 = 20;
/// Mean of fewer than [`WAITS`] waits, in milliseconds, above which a target probes that doesn't
/// know the time of its own reads: several times what a busy hard disk takes.
const LONG_MS: u32 = 100;
/// How many times as long as own reads another target's reads may take: reads of one disk differ by
/// less on average.
const TIMES: u64 = 4;
/// How long the time of own reads is known after the last of them, in milliseconds: the load of a
/// disk changes within seconds.
const KNOWN_MS: u32 = 10_000;
/// A whole-block write that takes longer than this, in milliseconds, is the last for a while: it is
/// one request, for which a healthy disk takes less even with a queue.
const WHOLE_MS: u32 = 500;
/// Whole-block writes before a write of a part measures how long parts take: many, as each
/// measurement costs a copy in dm-thin.
const WHOLE_WRITES: u32 = 16;
/// Waits for the same target's reads before a read probes, as fewer may be slow by chance;
/// [`LONG_MS`] is the exception.
pub(crate) const WAITS: u32 = 3;
/// log2 of the part that each read takes off the longest time: 1/16, so that a dozen faster reads
/// halve it.
const DECAY: u32 = 4;
/// The shortest and the longest restraint, in milliseconds; a restraint that soon follows another
/// is four times as long. A second is long beside the read or write that is measured at its end,
/// and a limit that an administrator lifts is noticed after a minute.
const RESTRAINT_MS: [u32; 2] = [1000, 64_000];

fn jiffies(ms: u32) -> u64 {
    // CAST: A `c_ulong` fits.
    msecs_to_jiffies(ms) as u64
}

/// Returns whether `waited` is much longer than an own read that takes `own`, and long enough to
/// matter.
fn is_slow(waited: u64, own: u64) -> bool {
    waited > own.saturating_mul(TIMES).max(jiffies(LEAST_MS))
}

/// Times of a target's reads from the disk.
pub(crate) struct OwnReads {
    /// The longest time, which decays.
    worst: Atomic<u64>,
    /// When the last of them ended; 0 if none has.
    known: Atomic<u64>,
}

impl OwnReads {
    /// Creates an estimate that knows nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            worst: Atomic::new(0),
            known: Atomic::new(0),
        }
    }

    /// Forgets the times, as the disk may be another one now.
    pub(crate) fn forget(&self) {
        self.known.store(0, Relaxed);
    }

    /// Returns the longest time that own reads take, or [`None`] if none has ended lately.
    pub(crate) fn worst(&self, now: u64) -> Option<u64> {
        let known = self.known.load(Relaxed);
        let lately = known != 0 && now.saturating_sub(known) <= jiffies(KNOWN_MS);
        lately.then(|| self.worst.load(Relaxed))
    }

    /// Learns that a read took `time` and has ended at `now`.
    pub(crate) fn took(&self, time: u64, now: u64) {
        let old = self.worst(now).unwrap_or(0);
        self.worst
            // RANGE: Takes off a part of `old`.
            .store(time.max(old - old.div_ceil(1 << DECAY)), Relaxed);
        self.known.store(now.max(1), Relaxed);
    }

    /// Returns how long to wait for another target's read.
    pub(crate) fn patience(&self, now: u64) -> u64 {
        let most = jiffies(MOST_MS);
        self.worst(now).map_or(most, |own| {
            own.saturating_mul(TIMES).clamp(jiffies(LIMIT_MS), most)
        })
    }
}

/// A period without waits for a target's reads, or without whole-block writes, as these took too
/// long.
struct Restraint {
    /// When the restraint ends.
    until: Atomic<u64>,
    /// How long the last restraint was.
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

    /// Learns whether the waits, or the whole-block writes, took too long lately. Ignored while the
    /// restraint is on.
    fn tell(&self, too_long: bool, now: u64) {
        if self.is_on(now) {
            return;
        }
        let last = self.length.load(Relaxed);
        // A restraint that ended longer ago than it lasted is forgotten.
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

/// Advice on another target's read in flight, or on a write of a part of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Wait for the read; write the whole block.
    Follow,
    /// Don't wait; write the part.
    Leave,
    /// As [`Advice::Leave`], and pass the time that it takes to [`Lag::judge`].
    Probe,
}

/// The time that other targets wait for a target's reads.
pub(crate) struct Lag {
    /// Waits that a judgement needs.
    enough: u32,
    /// Number of waits since the last judgement.
    waits: Atomic<u32>,
    /// Moving average of these waits.
    mean: Atomic<u64>,
    /// When a probe was sent that hasn't ended; 0 if there is none. After [`MOST_MS`] another may
    /// be sent.
    probing: Atomic<u64>,
    /// While this is on, no read waits for the target's reads.
    restraint: Restraint,
}

impl Lag {
    /// Creates an estimate without waits; a judgement needs `enough` waits.
    pub(crate) fn new(enough: u32) -> Self {
        Self {
            enough,
            waits: Atomic::new(0),
            mean: Atomic::new(0),
            probing: Atomic::new(0),
            restraint: Restraint::new(),
        }
    }

    /// Forgets waits and restraint, as the disk may be another one now.
    pub(crate) fn forget(&self) {
        self.waits.store(0, Relaxed);
        self.restraint.forget();
    }

    /// Returns whether no read is to wait for the target's reads for now.
    pub(crate) fn is_restrained(&self, now: u64) -> bool {
        self.restraint.is_on(now)
    }

    /// Returns what another target is to do about one of the target's reads. `own` is the longest
    /// time that the other target's own reads take, if known.
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

    /// Learns that another target's read has waited `time` for one of the target's, successfully or
    /// not.
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

    /// Judges the waits: a probe has ended, and took `time`.
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

/// The decision whether whole blocks are written instead of parts.
///
/// A whole block costs its writer's control group more bytes than the part. Where bandwidth is
/// limited (`io.max`), the whole block takes longer than the part, although dm-thin copies the
/// block for the part: one part is written to measure this. Where many writes wait for each other,
/// both kinds take long and a comparison tells nothing. So only parts are written for a while after
/// a whole-block write that took longer than [`WHOLE_MS`]. If the disk itself is slow, this is no
/// worse than dm-thin alone.
pub(crate) struct FullBlockWrites(Lag);

impl FullBlockWrites {
    /// Creates an estimate that knows nothing yet.
    pub(crate) fn new() -> Self {
        Self(Lag::new(WHOLE_WRITES))
    }

    /// Forgets times and restraint, as the disk may be another one now.
    pub(crate) fn forget(&self) {
        self.0.forget();
    }

    /// Returns whether no whole block is to be written for now.
    pub(crate) fn is_restrained(&self, now: u64) -> bool {
        self.0.is_restrained(now)
    }

    /// Returns what to do with the next write: [`Advice::Follow`] is to write the whole block.
    pub(crate) fn advice(&self, now: u64) -> Advice {
        self.0.advice(Some(0), now)
    }

    /// Learns that a whole-block write took `time`, and has ended at `now`.
    pub(crate) fn took(&self, time: u64, now: u64) {
        self.0.waited(time);
        if time > jiffies(WHOLE_MS) {
            self.0.restraint.tell(true, now);
        }
    }

    /// Judges whole-block writes: the write of a part to measure took `time`.
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

    /// Returns how many waits it takes until a read probes.
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
        // The worst time isn't forgotten at once when faster reads follow. Nor is it when another
        // CPU has read the clock a little earlier.
        own.took(ms(10), NOW + 1);
        assert!(own.worst(NOW) > Some(ms(700)));
        // It is forgotten some time after the last read.
        let later = NOW + ms(KNOWN_MS) + 2;
        assert_eq!(own.worst(later), None);
        own.took(ms(10), later);
        assert_eq!(own.worst(later), Some(ms(10)));
        own.forget();
        assert_eq!(own.worst(later), None);
    }

    #[test]
    fn a_target_without_own_reads_probes() {
        for (time, waits) in [(250, Some(1)), (80, Some(WAITS)), (LEAST_MS, None)] {
            let lag = Lag::new(WAITS);
            assert_eq!(lag.advice(None, NOW), Advice::Follow);
            assert_eq!(waits_until_probe(&lag, None, time), waits);
            // One probe is enough.
            assert_eq!(lag.advice(None, NOW), Advice::Follow);
        }
    }

    #[test]
    fn a_target_that_takes_many_times_as_long_is_left() {
        let (lag, other) = (Lag::new(WAITS), Lag::new(WAITS));
        let own = Some(ms(20));
        // Waits for one target don't count for the other.
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
            // A late probe with the same result doesn't lengthen the restraint.
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
        // Whole blocks take 80 ms. A part takes half of that first, and a tenth later.
        for time in [40, 8] {
            for _ in 0..WHOLE_WRITES {
                assert_eq!(whole.advice(NOW), Advice::Follow);
                whole.took(ms(80), NOW);
            }
            assert_eq!(whole.advice(NOW), Advice::Probe);
            assert_eq!(whole.advice(NOW), Advice::Follow);
            whole.judge(ms(time), NOW);
        }
        // A tenth is much less.
        assert_eq!(whole.advice(NOW), Advice::Leave);
        assert_eq!(whole.advice(NOW + least), Advice::Follow);
        // Whole blocks take longer than `WHOLE_MS`; another one during the restraint doesn't
        // lengthen it.
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
