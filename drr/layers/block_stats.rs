// SPDX-License-Identifier: GPL-2.0

//! How often the shared blocks of a pool are read, and by how many layers.
//!
//! Off by default, as counting costs an entry of memory for each block that is read, and a hash
//! lookup for each read.

use core::fmt::{self, Write};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu,
    },
};

use dm::sync::index::{Index, Keyed};

use crate::{access::name::Block, layers::id::Serial};

/// Layers of a block that are told apart: with these an entry takes 128 bytes.
const LAYERS: usize = 8;

/// A block that was read.
pub(crate) struct HotBlock {
    block: Block,
    reads: Atomic<u32>,
    /// The first layers that have read the block; 0 is free.
    layers: [Atomic<Serial>; LAYERS],
    /// Whether more layers have read the block.
    others: Atomic<bool>,
}

impl Keyed for HotBlock {
    fn forward(&self) -> u64 {
        self.block.hash()
    }

    fn reverse(&self) -> u64 {
        self.block.hash()
    }
}

impl HotBlock {
    fn read_by(&self, layer: Serial) {
        self.reads.add(1, Relaxed);
        for place in &self.layers {
            let owner = match place.load(Relaxed) {
                0 => place
                    .cmpxchg(0, layer, Relaxed)
                    .map_or_else(|now| now, |_| layer),
                owner => owner,
            };
            if owner == layer {
                return;
            }
        }
        self.others.store(true, Relaxed);
    }

    /// Returns the number of layers that have read the block, or `LAYERS + 1` if more than `LAYERS`
    /// have.
    fn layers(&self) -> usize {
        let known = self.layers.iter().filter(|it| it.load(Relaxed) != 0);
        // RANGE: At most `LAYERS`, and one more.
        known.count() + usize::from(self.others.load(Relaxed))
    }
}

/// log2 of the number of buckets, which is a quarter of [`MOST`].
const BITS: u32 = 16;
/// Most blocks that are counted: 16 GiB with blocks of 64 KiB, for 128 bytes each, 32 MiB in all.
const MOST: u64 = 4 << BITS;
/// Classes of numbers of reads: 1, 2-3, 4-7 ..., one for each bit of a `u32`.
const CLASSES: usize = 32;

/// Counters of reads by block, see the [module](self).
pub(crate) struct BlockStats {
    on: Atomic<bool>,
    hot: Index<HotBlock>,
    count: Atomic<u64>,
    missed: Atomic<u64>,
}

impl BlockStats {
    /// Creates counters that are switched off. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            on: Atomic::new(false),
            hot: Index::new(BITS)?,
            count: Atomic::new(0),
            missed: Atomic::new(0),
        })
    }

    /// Starts counting, or stops counting and removes all counters. Process context.
    pub(crate) fn switch(&self, on: bool) {
        self.on.store(on, Relaxed);
        if on {
            return;
        }
        // A concurrent read may still add an entry, which counts on when counting starts again.
        self.hot.for_each(|hot| {
            if self.hot.remove(hot) {
                self.count.add(1u64.wrapping_neg(), Relaxed);
            }
        });
        self.missed.store(0, Relaxed);
    }

    /// Counts a read of a shared block through the layer `layer`, if counting is on.
    pub(crate) fn read(&self, block: Block, layer: Serial) {
        let block = block.at_any_time();
        if !self.on.load(Relaxed) || layer == 0 {
            return;
        }
        let guard = rcu::read_lock();
        if let Some(hot) = self
            .hot
            .by_forward(&guard, block.hash())
            .find(|hot| hot.block == block)
        {
            return hot.read_by(layer);
        }
        if self.count.load(Relaxed) >= MOST {
            self.missed.add(1, Relaxed);
            return;
        }
        let hot = HotBlock {
            block,
            reads: Atomic::new(0),
            layers: [const { Atomic::new(0) }; LAYERS],
            others: Atomic::new(false),
        };
        hot.read_by(layer);
        let inserted = self.hot.insert_unless(hot, GFP_NOWAIT, |hot| {
            let same = hot.block == block;
            if same {
                hot.read_by(layer);
            }
            same
        });
        match inserted {
            Ok(true) => self.count.add(1, Relaxed),
            Ok(false) => {}
            Err(_) => self.missed.add(1, Relaxed),
        }
    }

    /// Prints the figures of a pool, in the format of `include/uapi/linux/dm-drr.h`. Process
    /// context.
    // RANGE: Counts of entries in memory; a class is less than `CLASSES`.
    pub(crate) fn print(&self, pool: u64, block_sectors: u32, out: &mut dyn Write) -> fmt::Result {
        let mut reads = [0u64; CLASSES];
        let mut layers = [0u64; LAYERS + 2];
        let mut blocks = 0u64;
        self.hot.for_each(|hot| {
            if hot.block.pool() == pool {
                let count = hot.reads.load(Relaxed).max(1);
                // CAST: At most 31.
                reads[count.ilog2() as usize] += 1;
                layers[hot.layers()] += 1;
                blocks += 1;
            }
        });
        let state = match self.on.load(Relaxed) {
            true => "on",
            false => "off",
        };
        let missed = self.missed.load(Relaxed);
        writeln!(
            out,
            "drr-blocks 1 pool={pool} state={state} blocks={blocks} \
             block_sectors={block_sectors} missed={missed}"
        )?;
        for (class, count) in reads.iter().enumerate().filter(|(_, count)| **count != 0) {
            let low = 1u64 << class;
            writeln!(out, "reads {low} {} {count}", 2 * low - 1)?;
        }
        for (number, count) in layers.iter().enumerate().filter(|(_, count)| **count != 0) {
            match number {
                0..=LAYERS => writeln!(out, "layers {number} {number} {count}")?,
                more => writeln!(out, "layers {more} - {count}")?,
            }
        }
        Ok(())
    }
}

#[kunit_tests(drr_blocks)]
mod tests {
    use super::*;
    use dm::target::status_buffer::printed;

    #[test]
    fn counts_when_on() -> Result {
        let mut buffer = [0; 512];
        let blocks = BlockStats::new()?;
        let block = |number| Block::new(3, number, 0).ok_or(EINVAL);
        blocks.read(block(1)?, 1);
        assert_eq!(
            printed(&mut buffer, |out| blocks.print(3, 128, out))?,
            &b"drr-blocks 1 pool=3 state=off blocks=0 block_sectors=128 missed=0\n"[..]
        );
        blocks.switch(true);
        blocks.read(block(1)?, 1);
        for layer in [1, 2, 2] {
            blocks.read(block(2)?, layer);
        }
        for layer in 1..=20 {
            blocks.read(block(3)?, layer);
        }
        blocks.read(Block::new(4, 1, 0).ok_or(EINVAL)?, 1);
        assert_eq!(
            printed(&mut buffer, |out| blocks.print(3, 128, out))?,
            &b"drr-blocks 1 pool=3 state=on blocks=3 block_sectors=128 missed=0\n\
              reads 1 1 1\nreads 2 3 1\nreads 16 31 1\n\
              layers 1 1 1\nlayers 2 2 1\nlayers 9 - 1\n"[..]
        );
        blocks.switch(false);
        assert_eq!(blocks.count.load(Relaxed), 0);
        Ok(())
    }
}
