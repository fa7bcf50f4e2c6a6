// SPDX-License-Identifier: GPL-2.0

//! A cache of lookups: where shared blocks of layers are mapped.
//!
//! A lookup walks dm-thin's B-trees, under locks that all devices of a pool share, and most reads
//! are of a block that was looked up a moment ago. A cached lookup is as good as one that is made
//! when a read arrives, if no change of the mapping has begun since before the cached one was made
//! ([`crate::access::epoch`]), and the thin device's table is the same.
//!
//! Only shared mappings are cached: they stay shared, while an unshared one may become shared at
//! any time.

use kernel::{alloc::KVVec, prelude::*};

use dm::{
    drr::rule::Rule,
    sync::cells::{by_memory, cells},
    sync::index::hash,
    sync::seq_cell::SeqCell,
    target::thin_event::Mapping,
};

use crate::{access::epoch::Epoch, layers::id::ThinId};

/// Words of a cached lookup: layer, virtual block, moment of the epoch (two words), binding, data
/// block, time.
const WORDS: usize = 7;

/// Pages of memory for each cached lookup: 64 bytes in a MiB.
const PAGES_EACH: usize = 256;

/// The cache of lookups, see the [module](self).
pub(crate) struct MappingCache(KVVec<SeqCell<WORDS>>);

impl MappingCache {
    /// Creates an empty cache, with a size that depends on the machine's memory. Process context;
    /// fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let count = by_memory(PAGES_EACH, 256, 1 << 16);
        Ok(Self(cells(count, SeqCell::new)?))
    }

    /// Returns the bytes of memory that the cache takes.
    pub(crate) fn bytes(&self) -> u64 {
        // RANGE: A size in memory.
        (self.0.len() * size_of::<SeqCell<WORDS>>()) as u64
    }

    /// Returns the cell of a block. Consecutive blocks have consecutive cells.
    fn cell(&self, layer: ThinId, block: u64) -> &SeqCell<WORDS> {
        // CAST: A `usize` fits.
        let at = hash(layer.to_bits()).wrapping_add(block) % self.0.len() as u64;
        // CAST: Less than the number of cells.
        &self.0[at as usize]
    }

    /// Returns the cached mapping of virtual block `block` of `layer`, of `block_sectors` sectors,
    /// if it was looked up in `binding`, and in the epoch `epoch`, which is the block's current
    /// one.
    pub(crate) fn get(
        &self,
        layer: ThinId,
        block: u64,
        block_sectors: u32,
        epoch: Epoch,
        binding: u64,
    ) -> Option<Mapping> {
        let [its_layer, its_block, counters, begun, its_binding, at, time] =
            self.cell(layer, block).read()?;
        let same = its_layer == layer.to_bits()
            && its_block == block
            && ([counters, begun] == epoch.moment() || !Rule::Kept.on())
            && its_binding == binding;
        // No thin device has binding 0, so a cell that was never written matches nothing.
        (same && binding != 0).then_some(Mapping {
            pool: layer.pool(),
            block: at,
            binding,
            thin_id: layer.thin_id(),
            // CAST: It was a `u32`.
            time: time as u32,
            block_sectors,
            shared: true,
            changing: false,
        })
    }

    /// Caches a lookup of virtual block `block` of `layer`, made after the epoch `epoch` was taken.
    /// Does nothing if the mapping isn't shared.
    pub(crate) fn keep(&self, layer: ThinId, block: u64, epoch: Epoch, mapping: &Mapping) {
        let Mapping {
            binding,
            block: at,
            time,
            shared: true,
            ..
        } = *mapping
        else {
            return;
        };
        let [counters, begun] = epoch.moment();
        // If another CPU is writing to the cell, this lookup isn't cached.
        self.cell(layer, block).write(&[
            layer.to_bits(),
            block,
            counters,
            begun,
            binding,
            at,
            time.into(),
        ]);
    }
}

#[kunit_tests(drr_mappings)]
mod tests {
    use super::*;
    use crate::access::epoch::Epochs;

    const BINDING: u64 = 9;

    fn mapping(block: u64, shared: bool) -> Mapping {
        Mapping {
            pool: 1,
            block,
            binding: BINDING,
            thin_id: 7,
            time: 3,
            block_sectors: 128,
            shared,
            changing: false,
        }
    }

    fn get(
        mappings: &MappingCache,
        changes: &Epochs,
        layer: ThinId,
        block: u64,
    ) -> Option<Mapping> {
        let epoch = changes.current(layer.thin_id(), block)?;
        mappings.get(layer, block, 128, epoch, BINDING)
    }

    #[test]
    fn is_kept_for_its_stamp_and_binding() -> Result {
        let (mappings, changes) = (MappingCache::new()?, Epochs::new()?);
        let (layer, found) = (ThinId::new(1, 7), mapping(55, true));
        assert_eq!(get(&mappings, &changes, layer, 10), None);
        mappings.keep(layer, 10, changes.current(7, 10).ok_or(EINVAL)?, &found);
        assert_eq!(get(&mappings, &changes, layer, 10), Some(found));
        for (layer, block) in [
            (ThinId::new(1, 8), 10),
            (ThinId::new(2, 7), 10),
            (layer, 11),
        ] {
            assert_eq!(get(&mappings, &changes, layer, block), None);
        }
        for binding in [0, BINDING + 1] {
            let epoch = changes.current(7, 10).ok_or(EINVAL)?;
            assert_eq!(mappings.get(layer, 10, 128, epoch, binding), None);
        }
        changes.begin(7, 10, 11);
        changes.end(7, 10, 11);
        assert_eq!(get(&mappings, &changes, layer, 10), None);
        Ok(())
    }

    #[test]
    fn what_isn_t_shared_is_not_kept() -> Result {
        let (mappings, changes) = (MappingCache::new()?, Epochs::new()?);
        let layer = ThinId::new(1, 7);
        mappings.keep(
            layer,
            0,
            changes.current(7, 0).ok_or(EINVAL)?,
            &mapping(55, false),
        );
        assert_eq!(get(&mappings, &changes, layer, 0), None);
        Ok(())
    }

    #[test]
    fn an_empty_cell_is_nobodys() -> Result {
        let (mappings, changes) = (MappingCache::new()?, Epochs::new()?);
        let layer = ThinId::new(0, 0);
        assert_eq!(
            mappings.get(layer, 0, 128, changes.current(0, 0).ok_or(EINVAL)?, 0),
            None
        );
        Ok(())
    }
}
