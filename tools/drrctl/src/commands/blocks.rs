// SPDX-License-Identifier: GPL-2.0

//! `blocks`: shows how often a pool's shared blocks were read, and by how many layers.

use serde::Serialize;

use crate::answers::text::{self, Bucket};
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::error::Result;
use crate::views::histogram;
use crate::views::units::short;

/// The reads of a pool's shared blocks.
#[derive(Debug, Serialize)]
pub struct Blocks {
    version: u32,
    pool: String,
    counting: bool,
    blocks: u64,
    block_sectors: u64,
    missed_reads: u64,
    #[serde(serialize_with = "histogram::blocks")]
    by_reads: Vec<Bucket>,
    #[serde(serialize_with = "histogram::blocks")]
    by_layers: Vec<Bucket>,
}

/// Switches the counting on or off, for all pools.
pub fn switch(control: &Control, inventory: &Inventory, pool: &str, on: bool) -> Result<()> {
    let message = if on { "blocks on" } else { "blocks off" };
    inventory.tell_pool(control, pool, message).map(|_| ())
}

impl Blocks {
    /// Asks for the reads of a pool's shared blocks.
    pub fn collect(control: &Control, inventory: &Inventory, pool: &str) -> Result<Self> {
        let (device, answer) = inventory.tell_pool(control, pool, "blocks")?;
        Ok(Self::new(pool, text::blocks(&device, &answer)?))
    }

    fn new(pool: &str, blocks: text::Blocks) -> Self {
        Self {
            version: 1,
            pool: pool.to_string(),
            counting: blocks.on,
            blocks: blocks.blocks,
            block_sectors: blocks.block_sectors,
            missed_reads: blocks.missed,
            by_reads: blocks.reads,
            by_layers: blocks.layers,
        }
    }

    pub fn draw(&self) -> String {
        if !self.counting {
            return format!(
                "{}: reads of blocks are not counted; 'drrctl blocks --on' begins to\n",
                self.pool
            );
        }
        let mib = |blocks: u64| short(blocks as f64 * self.block_sectors as f64 / 2048.0);
        let mut text = format!(
            "{}: {} shared blocks of {} KiB were read ({} MiB)\n",
            self.pool,
            self.blocks,
            self.block_sectors / 2,
            mib(self.blocks)
        );
        if self.missed_reads > 0 {
            text.push_str(&format!(
                "{} reads were not counted, as too many blocks were\n",
                self.missed_reads
            ));
        }
        text += &histogram::draw("TIMES READ", "BLOCKS", &self.by_reads, mib);
        text += &histogram::draw("BY LAYERS", "BLOCKS", &self.by_layers, mib);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(state: &str) -> Blocks {
        let answer = format!(
            "drr-blocks 1 pool=253:2 state={state} blocks=19 block_sectors=128 missed=2\n\
             reads 1 1 16\nreads 2 3 3\nlayers 1 1 17\nlayers 9 - 2\n"
        );
        Blocks::new("pool", text::blocks("c1", &answer).expect("understood"))
    }

    #[test]
    fn the_histogram() {
        let text = sample("on").draw();
        assert!(
            text.contains("19 shared blocks of 64 KiB were read (1.2 MiB)"),
            "{text}"
        );
        assert!(text.contains("2 reads were not counted"), "{text}");
        let bar = format!("1                     16        1.0  {}\n", "█".repeat(40));
        assert!(text.contains(&bar), "{text}");
        assert!(
            text.contains("9 or more              2       0.12  █████\n"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(sample("off").draw().contains("--on"));
    }

    #[test]
    fn json_is_what_the_schema_says() {
        crate::schema::check("blocks", &sample("on"));
        crate::schema::check("blocks", &sample("off"));
    }
}
