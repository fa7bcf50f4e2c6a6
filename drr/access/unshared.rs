// SPDX-License-Identifier: GPL-2.0

//! A cache of blocks that were found not to be shared, so that they aren't looked up for each bio.
//!
//! Most of the blocks that DRR can't serve are a container's own data, for which one lookup is
//! enough. An unshared block becomes shared only by a snapshot of its thin device. The snapshot is
//! taken while the thin device is suspended, which changes its binding, or while the device above
//! is; dm-thin sends an event, too. A rollback of the pool's metadata may restore an older mapping.
//!
//! Only how much is served depends on this cache: a block that is taken for unshared is read from
//! the disk, is not recorded, and gets no whole-block writes. So neither a discard of the block nor
//! two blocks with the same hash do harm.

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

use dm::{
    sync::cells::{by_memory, cells},
    sync::index::hash,
    target::thin_event::Event,
};

use crate::layers::id::ThinId;

/// Pages of memory for each cell: 16 bytes in a MiB.
const PAGES_EACH: usize = 128;

/// The cache of unshared blocks, see the [module](self).
pub(crate) struct UnsharedBlocks {
    blocks: KVVec<Atomic<u64>>,
    /// How often the cache was invalidated; part of each hash.
    forgotten: Atomic<u64>,
}

/// The cell and the hash of a block, computed before the block is looked up.
pub(crate) struct Memory<'a> {
    cell: &'a Atomic<u64>,
    block: u64,
}

impl UnsharedBlocks {
    /// Creates an empty cache, with a size that depends on the machine's memory. Process context;
    /// fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let count = by_memory(PAGES_EACH, 512, 1 << 17);
        Ok(Self {
            blocks: cells(count, || Atomic::new(0))?,
            forgotten: Atomic::new(0),
        })
    }

    /// Returns the bytes of memory that the cache takes.
    pub(crate) fn bytes(&self) -> u64 {
        // RANGE: A size in memory.
        (self.blocks.len() * size_of::<Atomic<u64>>()) as u64
    }

    /// Returns the cell and the hash of virtual block `block` of `layer` in `binding`. Consecutive
    /// blocks have consecutive cells. The binding is part of the hash, so what was found out before
    /// the thin device was suspended is not used after it is resumed.
    pub(crate) fn at(&self, layer: ThinId, block: u64, binding: u64) -> Memory<'_> {
        // Read before the lookup, so that a result from before a snapshot isn't taken for a newer
        // one.
        let forgotten = self.forgotten.load(Acquire);
        let layer = hash(layer.to_bits());
        // CAST: Less than the number of cells.
        let at = (layer.wrapping_add(block) % self.blocks.len() as u64) as usize;
        Memory {
            cell: &self.blocks[at],
            // A cell that was never written holds 0.
            block: hash(block ^ hash(layer ^ hash(binding ^ hash(forgotten)))) | 1,
        }
    }

    /// Invalidates the cache, as blocks may have become shared.
    pub(crate) fn forget(&self) {
        self.forgotten.fetch_add(1, Full);
    }

    /// Handles an event of a pool: a snapshot may have made blocks shared, and a rollback of the
    /// metadata may have restored older mappings.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::Created {
                origin: Some(_), ..
            }
            | Event::Aborted { .. } => self.forget(),
            _ => {}
        }
    }
}

impl Memory<'_> {
    /// Returns whether the block was found not to be shared.
    pub(crate) fn unshared(&self) -> bool {
        self.cell.load(Relaxed) == self.block
    }

    /// Remembers that the block was found not to be shared.
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
        // A lookup that began before `forget()` and ends after it.
        before.keep();
        assert!(!unshared.at(layer, 10, 3).unshared());
        Ok(())
    }
}
