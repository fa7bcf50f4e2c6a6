// SPDX-License-Identifier: GPL-2.0

//! Blocks that were found not to be shared, so that they needn't be looked up with each bio.
//!
//! A container's own data is most of what DRR can't help with: to find that out once is enough. A block
//! that isn't shared becomes so only by a snapshot of its thin device. That is taken while the device
//! is suspended, which changes its binding, or DRR's is; dm-thin tells of it besides. A rollback of the
//! pool's metadata may bring back an older mapping.
//!
//! Nothing depends on it but how much is served: a block that is taken for unshared is read from the
//! disk, is not recorded, and is not made a whole when a part of it is written. So it doesn't matter
//! either that a block may have been discarded meanwhile, or that two may look the same.

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

use dm::{
    sync::cells::{by_memory, cells},
    sync::index::hash,
};

use crate::layers::id::ThinId;

/// Pages of memory for each block that is remembered: 16 bytes in a MiB.
const PAGES_EACH: usize = 128;

/// See the [module](self).
pub(crate) struct UnsharedBlocks {
    blocks: KVVec<Atomic<u64>>,
    /// How often all of them were forgotten.
    forgotten: Atomic<u64>,
}

/// What there is to be known of a block, from before it is looked up.
pub(crate) struct Memory<'a> {
    cell: &'a Atomic<u64>,
    block: u64,
}

impl UnsharedBlocks {
    /// None yet, and room for more the more memory there is. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let count = by_memory(PAGES_EACH, 512, 1 << 17);
        Ok(Self {
            blocks: cells(count, || Atomic::new(0))?,
            forgotten: Atomic::new(0),
        })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        // RANGE: A size in memory.
        (self.blocks.len() * size_of::<Atomic<u64>>()) as u64
    }

    /// Of virtual block `block` of `layer` in `binding`. Consecutive blocks are next to each other.
    pub(crate) fn at(&self, layer: ThinId, block: u64, binding: u64) -> Memory<'_> {
        // Before the look-up: what was found before a snapshot is not taken for newer.
        let forgotten = self.forgotten.load(Acquire);
        let layer = hash(layer.to_bits());
        // CAST: Less than the number of cells.
        let at = (layer.wrapping_add(block) % self.blocks.len() as u64) as usize;
        Memory {
            cell: &self.blocks[at],
            // Zero is what was never written.
            block: hash(block ^ hash(layer ^ hash(binding ^ hash(forgotten)))) | 1,
        }
    }

    /// They may be shared by now.
    pub(crate) fn forget(&self) {
        self.forgotten.fetch_add(1, Full);
    }
}

impl Memory<'_> {
    /// It was found not to be shared.
    pub(crate) fn unshared(&self) -> bool {
        self.cell.load(Relaxed) == self.block
    }

    /// It has been found not to be shared.
    pub(crate) fn keep(&self) {
        self.cell.store(self.block, Relaxed);
    }
}

#[kunit_tests(drr_unshared)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_until_it_may_be_shared() -> Result {
        let unshared = UnsharedBlocks::new()?;
        let layer = ThinId::new(1, 7);
        let before = unshared.at(layer, 10, 3);
        assert!(!before.unshared());
        before.keep();
        assert!(unshared.at(layer, 10, 3).unshared());
        for (layer, block, binding) in [
            (layer, 11, 3),
            (layer, 10, 4),
            (ThinId::new(1, 8), 10, 3),
            (ThinId::new(2, 7), 10, 3),
        ] {
            assert!(!unshared.at(layer, block, binding).unshared());
        }
        unshared.forget();
        assert!(!unshared.at(layer, 10, 3).unshared());
        // A look-up that has taken its time.
        before.keep();
        assert!(!unshared.at(layer, 10, 3).unshared());
        Ok(())
    }
}
