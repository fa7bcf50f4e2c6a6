// SPDX-License-Identifier: GPL-2.0

//! Lookups that are kept: where shared blocks of layers are mapped.
//!
//! A lookup walks dm-thin's B-trees, under locks that all devices of a pool share. Most reads are
//! of a block that was looked up a moment ago. Its mapping is the same still if its
//! [epoch](crate::epoch) is: a kept lookup stands for itself, made when its epoch was taken, and
//! the read that uses it for one that has taken its time since then. What such a read has to have
//! compared at its end, epoch and binding, it has.
//!
//! It must not get what a write has replaced that was completed before the read came. dm-thin
//! tells of a changed mapping, and so raises the epoch, before it completes the bio that has
//! changed it; the read takes the epoch first, and the kept lookup is of the same.
//!
//! Only shared mappings are kept: they stay shared, while others may come to be at any time.

use kernel::{alloc::KVVec, prelude::*};

use dm::{
    cells::{by_memory, cells},
    event::Mapping,
    guard::Guard,
    index::hash,
    seqcell::SeqCell,
};

use crate::{epoch::Epoch, layer::Layer};

/// Layer, virtual block, epoch, binding, data block, time: one is kept in these words.
const WORDS: usize = 6;

/// Pages of memory for each mapping that is kept: 64 bytes in a MiB.
const PAGES_EACH: usize = 256;

/// See the [module](self).
pub(crate) struct Mappings(KVVec<SeqCell<WORDS>>);

impl Mappings {
    /// None yet, and room for more the more memory there is. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let count = by_memory(PAGES_EACH, 256, 1 << 16);
        Ok(Self(cells(count, SeqCell::new)?))
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.0.len() * size_of::<SeqCell<WORDS>>()) as u64
    }

    /// Consecutive blocks have consecutive cells.
    fn cell(&self, layer: Layer, block: u64) -> &SeqCell<WORDS> {
        let at = hash(layer.number()).wrapping_add(block) % self.0.len() as u64;
        // CAST: Less than the number of cells.
        &self.0[at as usize]
    }

    /// Where virtual block `block` of `layer`, of `block_sectors` sectors, is mapped, if that was
    /// looked up in `epoch`, which is the block's now, and in `binding`.
    pub(crate) fn get(
        &self,
        layer: Layer,
        block: u64,
        block_sectors: u32,
        epoch: Epoch,
        binding: u64,
    ) -> Option<Mapping> {
        let [its_layer, its_block, its_epoch, its_binding, at, time] =
            self.cell(layer, block).read()?;
        let same = its_layer == layer.number()
            && its_block == block
            && (its_epoch == epoch.count() || !Guard::Kept.on())
            && its_binding == binding;
        // No thin device has binding 0, so that a cell that was never written isn't taken for one.
        (same && binding != 0).then_some(Mapping {
            pool: layer.pool(),
            block: at,
            binding,
            thin_id: layer.thin_id(),
            // CAST: It was a `u32`.
            time: time as u32,
            block_sectors,
            shared: true,
        })
    }

    /// Keeps a lookup of virtual block `block` of `layer`, made after `epoch` was taken.
    pub(crate) fn keep(&self, layer: Layer, block: u64, epoch: Epoch, mapping: &Mapping) {
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
        // If another is being kept in its place, that will do.
        self.cell(layer, block).write(&[
            layer.number(),
            block,
            epoch.count(),
            binding,
            at,
            time.into(),
        ]);
    }
}

#[kunit_tests(drr_mappings)]
mod tests {
    use super::*;
    use crate::epoch::Epochs;

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
        }
    }

    fn get(mappings: &Mappings, epochs: &Epochs, layer: Layer, block: u64) -> Option<Mapping> {
        mappings.get(layer, block, 128, epochs.now(layer, block), BINDING)
    }

    #[test]
    fn is_kept_for_its_epoch_and_binding() -> Result {
        let (mappings, epochs) = (Mappings::new()?, Epochs::new()?);
        let (layer, found) = (Layer::new(1, 7), mapping(55, true));
        assert_eq!(get(&mappings, &epochs, layer, 10), None);
        mappings.keep(layer, 10, epochs.now(layer, 10), &found);
        assert_eq!(get(&mappings, &epochs, layer, 10), Some(found));
        for (layer, block) in [(Layer::new(1, 8), 10), (Layer::new(2, 7), 10), (layer, 11)] {
            assert_eq!(get(&mappings, &epochs, layer, block), None);
        }
        for binding in [0, BINDING + 1] {
            let epoch = epochs.now(layer, 10);
            assert_eq!(mappings.get(layer, 10, 128, epoch, binding), None);
        }
        epochs.change(layer, 10, 11);
        assert_eq!(get(&mappings, &epochs, layer, 10), None);
        Ok(())
    }

    #[test]
    fn what_isn_t_shared_is_not_kept() -> Result {
        let (mappings, epochs) = (Mappings::new()?, Epochs::new()?);
        let layer = Layer::new(1, 7);
        mappings.keep(layer, 0, epochs.now(layer, 0), &mapping(55, false));
        assert_eq!(get(&mappings, &epochs, layer, 0), None);
        Ok(())
    }

    #[test]
    fn an_empty_cell_is_nobodys() -> Result {
        let (mappings, epochs) = (Mappings::new()?, Epochs::new()?);
        let layer = Layer::new(0, 0);
        assert_eq!(mappings.get(layer, 0, 128, epochs.now(layer, 0), 0), None);
        Ok(())
    }
}
