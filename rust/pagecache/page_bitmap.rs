// SPDX-License-Identifier: GPL-2.0

//! The known pages of an extent, and the end of the extent.
//!
//! An extent is up to [`PAGES`] consecutive pages of one file that hold consecutive pages of one
//! data block. Pages are added after they were read, and removed by page-cache events among others,
//! at any time, in any context and without a lock. An extent whose last page is removed is dead
//! from that moment: no page can be added any more, and exactly one caller is told to unlink the
//! extent. Adding a page then takes a new extent.

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};

/// Number of pages in an extent: dm-thin's smallest block, 64 KiB, with pages of 4 KiB.
pub const PAGES: u32 = 16;

/// The bit that says that the extent is dead, away from those of the pages.
const DEAD: u64 = 1 << 63;

/// The set of known pages of an extent.
///
/// # Invariants
///
/// Once [`DEAD`] is set, the value never changes again and no page is in the set.
pub struct PageBitmap(Atomic<u64>);

/// The result of [`PageBitmap::clear`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cleared {
    /// The pages that were removed.
    pub pages: u32,
    /// Whether this call has removed the last page. If so, the caller unlinks the extent.
    pub died: bool,
}

impl PageBitmap {
    /// Creates a set with the pages of `mask`, bit *n* for page *n*.
    pub fn new(mask: u32) -> Self {
        // INVARIANT: Not dead.
        Self(Atomic::new(u64::from(mask)))
    }

    /// Returns the pages that are known now.
    ///
    /// Relaxed, so it orders nothing. A caller that relies on a page being known holds the folio's
    /// lock, under which the page would be removed. A caller that relies on the page cache being
    /// alive has held RCU since before the call.
    #[inline]
    pub fn pages(&self) -> u32 {
        // CAST: The upper half holds the dead bit only.
        self.0.load(Relaxed) as u32
    }

    /// Adds the pages of `mask`. Returns those that were not known before, or `None` if the extent
    /// is dead.
    pub fn set(&self, mask: u32) -> Option<u32> {
        let mut old = self.0.load(Relaxed);
        loop {
            if old & DEAD != 0 {
                return None;
            }
            // INVARIANT: Not dead.
            match self.0.cmpxchg(old, old | u64::from(mask), Full) {
                // CAST: As in `pages`.
                Ok(_) => return Some(mask & !(old as u32)),
                Err(now) => old = now,
            }
        }
    }

    /// Removes the pages of `mask`.
    pub fn clear(&self, mask: u32) -> Cleared {
        let mut old = self.0.load(Relaxed);
        loop {
            let hit = old & u64::from(mask);
            if hit == 0 {
                return Cleared {
                    pages: 0,
                    died: false,
                };
            }
            let left = old & !hit;
            // INVARIANT: Dead only if no page is left.
            let new = if left == 0 { DEAD } else { left };
            match self.0.cmpxchg(old, new, Full) {
                Ok(_) => {
                    return Cleared {
                        // CAST: `hit` is a part of `mask`.
                        pages: hit as u32,
                        died: left == 0,
                    };
                }
                Err(now) => old = now,
            }
        }
    }
}

/// Returns the mask of `count` pages from page `first` on, without pages beyond the end of an
/// extent.
#[inline]
pub fn mask(first: u32, count: u32) -> u32 {
    if first >= PAGES {
        return 0;
    }
    // RANGE: `first` is less than `PAGES`.
    let count = count.min(PAGES - first);
    // RANGE: At most `PAGES` bits are set, none above the lowest `PAGES`.
    (((1u64 << count) - 1) << first) as u32
}

/// Returns the pages of an extent starting at file index `base` that are in `first..=last`.
///
/// `base` wraps: an extent whose first pages would lie before the file starts at a "negative"
/// index.
#[inline]
pub fn overlap(base: u64, first: u64, last: u64) -> u32 {
    // CAST: Distances between file indexes fit in 63 bits; the sign tells the direction.
    let low = first.wrapping_sub(base) as i64;
    // CAST: As above.
    let high = last.wrapping_sub(base) as i64;
    if high < low.max(0) || low >= i64::from(PAGES) {
        return 0;
    }
    // CAST: Less than `PAGES`, as checked above, and not negative any more.
    let low = low.max(0) as u32;
    // RANGE: Not negative, as checked above, and less than `PAGES` now, which is at least 1.
    let high = high.min(i64::from(PAGES) - 1) as u32;
    // RANGE: `low` is at most `high`, which is less than `PAGES`.
    mask(low, high - low + 1)
}

/// Returns the aligned window of [`PAGES`] file indexes in which an extent starting at `base`
/// begins.
///
/// An extent reaches at most into the next window. So the extents that can hold an index are in the
/// window of the index and in the one before.
#[inline]
pub fn window(base: u64) -> u64 {
    // CAST: Arithmetic shift, so that wrapped bases come before index 0.
    ((base as i64) >> PAGES.trailing_zeros()) as u64
}

/// Returns how many of `count` items come before the first `worth` consecutive `known` items, or
/// before a shorter row of known items at the end, or `count` if there is neither.
// RANGE: `run` counts items before `at + 1`, which is at most `count`.
pub fn before_run(count: u32, worth: u32, mut known: impl FnMut(u32) -> bool) -> u32 {
    let mut run = 0;
    for at in 0..count {
        run = if known(at) { run + 1 } else { 0 };
        if run == worth {
            return at + 1 - run;
        }
    }
    count - run
}

#[kunit_tests(dm_bits)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_are_worth_it() -> Result {
        for (known, count, worth, before) in [
            (0b0000_0000u32, 8, 4, 8),
            (0b1111_0000, 8, 4, 4),
            (0b1111_1111, 8, 4, 0),
            (0b0111_0111, 8, 4, 8),
            (0b0111_0111, 8, 3, 0),
            (0b1110_1100, 8, 3, 5),
            (0b1111_0000, 7, 4, 4),
            (0b1000_0000, 8, 4, 7),
            (0b0000_0111, 8, 8, 8),
            (0b1111_1110, 8, 8, 1),
            (0b1111_1111, 8, 8, 0),
            (0b1, 0, 1, 0),
        ] {
            assert_eq!(before_run(count, worth, |at| known >> at & 1 == 1), before);
        }
        Ok(())
    }

    const RUN: u64 = PAGES as u64;
    const LAST: u32 = 1 << (PAGES - 1);
    const ALL: u32 = LAST | (LAST - 1);

    #[test]
    fn masks() -> Result {
        for (first, count, want) in [
            (0, 1, 1),
            (0, PAGES, ALL),
            (0, u32::MAX, ALL),
            (PAGES - 1, 1, LAST),
            (PAGES - 1, 9, LAST),
            (4, 3, 0b111_0000),
            (PAGES, 1, 0),
            (u32::MAX, 1, 0),
            (3, 0, 0),
        ] {
            assert_eq!(mask(first, count), want);
        }
        Ok(())
    }

    #[test]
    fn overlaps() -> Result {
        let before = 5u64.wrapping_neg();
        for (base, first, last, want) in [
            (100, 100, 100, 1),
            (100, 99 + RUN, 99 + RUN, LAST),
            (100, 100 + RUN, 200, 0),
            (100, 0, 99, 0),
            (100, 0, 100, 1),
            (100, 0, u64::from(u32::MAX), ALL),
            (100, 103, 104, 0b1_1000),
            (before, 0, 0, 1 << 5),
            (before, 0, 1, 0b11 << 5),
            (before, RUN - 6, RUN - 6, LAST),
            (before, RUN - 5, RUN - 5, 0),
            (100, 105, 103, 0),
        ] {
            assert_eq!(overlap(base, first, last), want);
        }
        Ok(())
    }

    #[test]
    fn a_run_is_found_from_each_of_its_pages() -> Result {
        for base in [
            0,
            1,
            RUN - 1,
            RUN,
            RUN + 1,
            1000,
            3u64.wrapping_neg(),
            RUN.wrapping_neg(),
        ] {
            for page in 0..RUN {
                let index = base.wrapping_add(page);
                let windows = [window(index), window(index).wrapping_sub(1)];
                assert!(windows.contains(&window(base)));
            }
        }
        Ok(())
    }

    #[test]
    fn set_and_clear() -> Result {
        let bits = PageBitmap::new(0b0110);
        assert_eq!(bits.set(0b1100), Some(0b1000));
        assert_eq!(bits.pages(), 0b1110);
        let none = Cleared {
            pages: 0,
            died: false,
        };
        assert_eq!(bits.clear(0b0001), none);
        assert_eq!(
            bits.clear(0b0011),
            Cleared {
                pages: 0b0010,
                died: false
            }
        );
        assert_eq!(bits.pages(), 0b1100);
        Ok(())
    }

    #[test]
    fn dead_stays_dead() -> Result {
        let bits = PageBitmap::new(LAST);
        assert!(bits.clear(u32::MAX).died);
        assert_eq!(bits.pages(), 0);
        assert_eq!(bits.set(1), None);
        assert!(!bits.clear(u32::MAX).died);
        assert_eq!(bits.pages(), 0);
        Ok(())
    }
}
