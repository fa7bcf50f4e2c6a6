// SPDX-License-Identifier: GPL-2.0

//! Whether a layer's mapping of a block has been left alone for a while.
//!
//! A read looks its block's mapping up, takes its time, and then wants to know whether the
//! mapping it found held all the while: if not, the data block may have been freed and filled by
//! somebody else, and neither what was copied from its donors nor what came from the disk may be
//! taken for its content.
//!
//! Counters stand for the blocks, many blocks for a counter. A change of a mapping counts up:
//!
//! - when a write or discard to the layer arrives, before it is sent down;
//! - when dm-thin says that a mapping changed, which is after the fact, but before any data block
//!   that became free is allocated again. This covers what doesn't pass the target.
//!
//! A read takes the counter before it looks the mapping up, and compares it at the end. If a data
//! block got new content in between, its old mapping was gone before, so the count went up
//! before; and whoever saw a record of the new content, or the new data on the disk, sees that
//! the count went up (the records' and dm-thin's locks order the two).

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

use dm::{cells::cells, guard::Guard, index::hash};

use crate::layer::Layer;

const COUNTERS: usize = 4096;

/// A counter's value at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Epoch {
    counter: u32,
    /// Doesn't wrap: lookups are kept for as long as it stays the same.
    count: u64,
}

impl Epoch {
    /// The counter's value.
    pub(crate) fn count(self) -> u64 {
        self.count
    }
}

/// See the [module](self).
pub(crate) struct Epochs(KVVec<Atomic<u64>>);

impl Epochs {
    /// Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(cells(COUNTERS, || Atomic::new(0))?))
    }

    /// Consecutive blocks have consecutive counters.
    fn counter(layer: Layer, block: u64) -> usize {
        // CAST: The remainder is less than `COUNTERS`.
        (hash(layer.number()).wrapping_add(block) % COUNTERS as u64) as usize
    }

    /// The epoch of virtual block `block` of `layer` now; taken before the mapping is looked up.
    pub(crate) fn now(&self, layer: Layer, block: u64) -> Epoch {
        let counter = Self::counter(layer, block);
        Epoch {
            // CAST: Less than `COUNTERS`.
            counter: counter as u32,
            // Fully ordered before the look-up, which an acquire would be too, but cheap beside
            // it and easier to reason about.
            count: self.0[counter].fetch_add(0, Full),
        }
    }

    /// No mapping that `epoch` stands for has changed since it was taken.
    pub(crate) fn is_now(&self, epoch: Epoch) -> bool {
        !Guard::Epoch.on() || self.0[epoch.counter as usize].fetch_add(0, Full) == epoch.count
    }

    /// The mappings of virtual blocks `begin..end` of `layer` change, or have changed.
    pub(crate) fn change(&self, layer: Layer, begin: u64, end: u64) {
        let count = end.saturating_sub(begin).min(COUNTERS as u64);
        for step in 0..count {
            self.0[Self::counter(layer, begin.wrapping_add(step))].fetch_add(1, Full);
        }
    }

    /// All mappings have changed.
    pub(crate) fn change_all(&self) {
        for counter in &self.0 {
            counter.add(1, Relaxed);
        }
        // Ordered like the others, once.
        self.0[0].fetch_add(0, Full);
    }
}

#[kunit_tests(drr_epoch)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed() -> Result {
        let epochs = Epochs::new()?;
        let layer = Layer::new(3, 7);
        for (begin, end, block, noticed) in [
            (10, 11, 10, true),
            (10, 11, 11, false),
            (10, 10, 10, false),
            (11, 10, 10, false),
            (0, u64::MAX, 123_456, true),
            (u64::MAX - 1, u64::MAX, u64::MAX - 1, true),
        ] {
            let epoch = epochs.now(layer, block);
            epochs.change(layer, begin, end);
            assert_eq!(!epochs.is_now(epoch), noticed);
        }
        let epoch = epochs.now(layer, 5);
        assert!(epochs.is_now(epoch));
        epochs.change_all();
        assert!(!epochs.is_now(epoch));
        Ok(())
    }
}
