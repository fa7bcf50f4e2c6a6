// SPDX-License-Identifier: GPL-2.0

//! What a proof costs: a page is copied to a page of our own, hashed there, and copied on, instead of being copied.

use std::{
    hint::black_box,
    io::{stdout, Write},
};

use dm::{
    block::bio::Writer,
    pagecache::content::Digest,
    pagecache::folio::{bytes, PageWords, PAGE_WORDS},
    sync::scratch::ScratchPages,
};

use crate::{access::digest::Key, random::Random, scale::cpu_ns};

/// 512 MiB.
const COLD: usize = 1 << 17;
/// 64 KiB.
const WARM: usize = 1 << 4;
/// Pages of receivers, one after the other: 1 MiB.
const RECEIVERS: usize = 1 << 8;
/// Pages of a measurement.
const COUNT: usize = 1 << 17;
const ROUNDS: usize = 5;

/// What is done with each page.
#[derive(Clone, Copy)]
enum Way {
    /// The receiver's page is only cleared, as the kernel does.
    Clear,
    /// The page is copied to it.
    Copy,
    /// It is copied to a page of our own, hashed, and copied on.
    Prove,
}

struct Bench {
    key: Key,
    scratch: ScratchPages,
    pages: Vec<PageWords>,
    digests: Vec<Digest>,
    receivers: Vec<[u8; PAGE_WORDS * 8]>,
}

impl Bench {
    fn new() -> Self {
        let key = Key::draw().expect("memory");
        let mut random = Random(1);
        let mut pages = vec![[0; PAGE_WORDS]; COLD];
        for word in pages.iter_mut().flatten() {
            *word = random.next_u64();
        }
        Self {
            digests: pages.iter().map(|page| key.digest(page)).collect(),
            key,
            scratch: ScratchPages::new().expect("memory"),
            pages,
            receivers: vec![[0; PAGE_WORDS * 8]; RECEIVERS],
        }
    }

    /// Nanoseconds for a page, chosen by chance among the first `among`.
    fn time(&mut self, way: Way, among: usize, seed: u64) -> f64 {
        let mut random = Random(seed);
        let start = cpu_ns();
        for at in 0..COUNT {
            let which = random.below(among as u64) as usize;
            let to = &mut self.receivers[at % RECEIVERS];
            to.fill(0);
            let to = black_box(to);
            let page = black_box(&self.pages[which]);
            match way {
                Way::Clear => {}
                Way::Copy => Writer::new(to).write(bytes(page)),
                Way::Prove => {
                    let (key, digest) = (&self.key, &self.digests[which]);
                    let proven = self.scratch.with(|own| {
                        own.copy_from_slice(page);
                        let proven = key.digest(own) == *digest;
                        if proven {
                            Writer::new(to).write(bytes(own));
                        }
                        proven
                    });
                    assert_eq!(proven, Some(true));
                }
            }
        }
        (cpu_ns() - start) as f64 / COUNT as f64
    }

    /// The same, in rounds that alternate, without clearing: median and range.
    fn row(&mut self, name: &str, among: usize) {
        let mut figures = [[0.0; ROUNDS]; 2];
        for round in 0..ROUNDS {
            let clear = self.time(Way::Clear, among, round as u64);
            figures[0][round] = self.time(Way::Copy, among, round as u64) - clear;
            figures[1][round] = self.time(Way::Prove, among, round as u64) - clear;
        }
        print!("{name:>20}");
        for mut rounds in figures {
            rounds.sort_by(f64::total_cmp);
            let (least, most) = (rounds[0], rounds[ROUNDS - 1]);
            let cell = format!("{:.0} ({least:.0}-{most:.0})", rounds[ROUNDS / 2]);
            print!("{cell:>24}");
        }
        println!();
        let _ = stdout().flush();
    }
}

/// Prints the table.
pub fn run() {
    let mut bench = Bench::new();
    println!("nanoseconds of a CPU for a page, median (range) of {ROUNDS} rounds; the receiver's page was");
    println!("cleared just before, which isn't counted");
    println!("{:>20}{:>24}{:>24}", "", "copy", "copy, digest, copy");
    bench.row("random in 512 MiB", COLD);
    bench.row("warm, of 64 KiB", WARM);
}
