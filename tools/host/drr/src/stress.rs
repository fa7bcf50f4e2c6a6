// SPDX-License-Identifier: GPL-2.0

//! Many threads at the real access table, with page caches, thin devices and a disk that are
//! numbers. What is served is compared with the disk.
//!
//! Whoever copies or records does it in the order of `drr/target.rs` and `drr/copy.rs`.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        Mutex, RwLock,
    },
    thread,
    time::{Duration, Instant},
};

use dm::{
    directory::{End, ReadRange},
    event::Event,
    folio::{LockedFolio, MappingId, PageCache},
    truncation::{TruncatedPages, TruncationEvents},
};
use kernel::sync::rcu;

use crate::{
    access::{AccessTable, Block},
    layer::{Layer, Who},
    random::Random,
};

const POOL: u64 = 1;
const LAYERS: u64 = 24;
/// Virtual blocks of each layer, and pages of each block: more than a run's.
const BLOCKS: u64 = 16;
const PAGES: u64 = 40;
/// The only layer whose pages are zeroed in part: it donates less and less.
const TRUNCATED: u64 = 0;
/// Data blocks that no layer maps.
const SPARE: u64 = 8;

/// What came of a run.
#[derive(Default, Debug)]
pub struct Figures {
    /// Reads that were served from donors, and compared with the disk.
    pub served: u64,
    /// Reads from the disk that were recorded.
    pub recorded: u64,
    /// Copies that were given up, as the mapping had changed.
    pub changed: u64,
    /// Pages that were removed or changed.
    pub events: u64,
    /// Data blocks that were filled anew.
    pub reallocated: u64,
    /// Reads that were served something else than the disk's.
    pub wrong: u64,
}

struct World {
    table: AccessTable,
    caches: Vec<MappingId>,
    /// Of each virtual block, by layer: the data block. All layers map the same one, but for the
    /// time in which they are moved.
    maps: Vec<AtomicU64>,
    /// Of each data block: what fills it.
    disk: Vec<AtomicU64>,
    /// Data blocks to be used next. Its lock is the pool's.
    spare: Mutex<Vec<u64>>,
    /// `invalidate_lock` of the page cache of [`TRUNCATED`].
    invalidate: RwLock<()>,
    stop: AtomicBool,
    /// The table learns of data blocks that are filled anew.
    told: bool,
    counters: [AtomicU64; 6],
}

/// What page `page` of a block holds that is filled with `fill`.
fn content(fill: u64, page: u64) -> u64 {
    fill * PAGES + page
}

impl World {
    fn new(told: bool) -> Self {
        let table = AccessTable::new().expect("memory");
        table.expect_blocks_of(PAGES as u32);
        for layer in 0..LAYERS {
            // each on a block device of its own, whose number is its page cache's
            table
                .givers
                .add(layer as u32, layer + 1, false)
                .expect("memory");
        }
        Self {
            table,
            caches: (0..LAYERS)
                .map(|layer| PageCache::new(layer + 1, (BLOCKS * PAGES) as usize))
                .collect(),
            invalidate: RwLock::new(()),
            maps: (0..LAYERS * BLOCKS)
                .map(|at| AtomicU64::new(at % BLOCKS))
                .collect(),
            disk: (0..BLOCKS + SPARE).map(AtomicU64::new).collect(),
            spare: Mutex::new((BLOCKS..BLOCKS + SPARE).collect()),
            stop: AtomicBool::new(false),
            told,
            counters: Default::default(),
        }
    }

    fn count(&self, counter: usize) {
        self.counters[counter].fetch_add(1, Relaxed);
    }

    /// dm-thin's look-up, and what it depends on.
    fn lookup(&self, layer: u64, block: u64) -> u64 {
        self.maps[(layer * BLOCKS + block) as usize].load(Relaxed)
    }

    /// Copies a page from a donor.
    fn copy(&self, name: &Block, page: u64) -> Option<u64> {
        let guard = rcu::read_lock();
        let (donors, at) = self.table.donors(&guard, name, page as u32);
        for donor in donors {
            if donor.pages_from(at) == 0 {
                continue;
            }
            let folio = donor
                .folio(at)
                .and_then(|folio| folio.try_lock(donor.mapping()));
            let Some(folio) = folio else { continue };
            if donor.pages_from(at) != 0 && folio.clean() {
                return Some(folio.content());
            }
        }
        None
    }

    /// A layer reads a page that isn't in its page cache.
    fn read(&self, layer: u64, index: u64) {
        let adding = (layer == TRUNCATED).then(|| self.invalidate.read().expect("no panic"));
        let Some(folio) = LockedFolio::try_new(self.caches[layer as usize], index) else {
            return;
        };
        if folio.cached() {
            return;
        }
        folio.add();
        drop(adding);
        let (block, page) = (index / PAGES, index % PAGES);
        let id = Layer::new(POOL, layer as u32);
        let epochs = &self.table.epochs;
        let epoch = epochs.now(id, block);
        let data_block = self.lookup(layer, block);
        let name = Block::new(POOL, data_block).expect("small numbers");
        let disk = || content(self.disk[data_block as usize].load(Relaxed), page);

        let copied = self.copy(&name, page);
        if let Some(copied) = copied.filter(|_| epochs.is_now(epoch)) {
            let expected = disk();
            // Else the disk may have changed since.
            if epochs.is_now(epoch) {
                self.count(if copied == expected { 0 } else { 5 });
            }
        } else if copied.is_some() {
            self.count(2);
        }
        let filled = copied.unwrap_or_else(disk);
        folio.read(filled, |pages| {
            if !epochs.is_now(epoch) {
                return;
            }
            let (table, device) = (&self.table, layer as u32);
            let range = ReadRange::new(&pages);
            table.record(&name, page as u32, range, device, Who::default());
            let still = epochs.is_now(epoch);
            let mapping = pages.mapping().number();
            if still && !table.givers.withholds(device, mapping, index, index) {
                self.count(1);
            } else {
                self.table.forget_folio(&pages);
            }
        });
    }

    /// A page is removed from its page cache, or changed there and written back.
    fn event(&self, layer: u64, index: u64, number: u64) {
        let Some(folio) = LockedFolio::try_new(self.caches[layer as usize], index) else {
            return;
        };
        if folio.cached() {
            self.count(3);
            if number % 8 == 0 {
                folio.change(u64::MAX / 2 + number / 2, self.table.directory());
            } else {
                folio.remove(self.table.directory());
            }
        }
    }

    /// A part of a page is zeroed, and the page stays as it is then.
    fn truncate(&self, index: u64, number: u64) {
        let _alone = self.invalidate.write().expect("no panic");
        let cache = self.caches[TRUNCATED as usize];
        if let Some(pages) = TruncatedPages::find(cache, index) {
            self.table.truncates(&pages);
        }
        loop {
            if let Some(folio) = LockedFolio::try_new(cache, index) {
                if folio.cached() {
                    self.count(3);
                    folio.zero_part(u64::MAX / 2 + number / 2);
                }
                return;
            }
            thread::yield_now();
        }
    }

    /// All layers' virtual block gets another data block, and the old one other content.
    fn reallocate(&self, block: u64, fill: u64) {
        let Some(new) = self.spare.lock().expect("no panic").pop() else {
            return;
        };
        let old: Vec<u64> = (0..LAYERS)
            .map(|layer| {
                let map = &self.maps[(layer * BLOCKS + block) as usize];
                let old = map.swap(new, Relaxed);
                self.table.event(Event::Unmapped {
                    pool: POOL,
                    thin_id: layer as u32,
                    begin: block,
                    end: block + 1,
                });
                old
            })
            .collect();
        // Two at once may have moved a part of the layers each.
        if old.iter().any(|it| *it != old[0]) {
            self.stop.store(true, Relaxed);
            panic!("two threads moved block {block} at once");
        }
        if self.told {
            self.table.event(Event::Allocated {
                pool: POOL,
                block: old[0],
            });
        }
        self.disk[old[0] as usize].store(fill, Relaxed);
        self.count(4);
        // Last in, last out, so that it stays unused for a while.
        self.spare.lock().expect("no panic").insert(0, old[0]);
    }

    fn worker(&self, number: u64, seed: u64) {
        let mut random = Random(seed ^ number << 32);
        let mut fills = 0;
        while !self.stop.load(Relaxed) {
            let what = random.next_u64();
            let (layer, index) = (what % LAYERS, (what >> 8) % (BLOCKS * PAGES));
            match what >> 56 {
                0..=150 => self.read(layer, index),
                // Each such thread has virtual blocks of its own.
                251.. if number < BLOCKS => {
                    fills += 1;
                    self.reallocate(number, (number + 1) << 32 | fills);
                }
                251.. if number == BLOCKS && what >> 40 & 0xff == 0 => {
                    self.table.forget_device(layer as u32, End::Gone)
                }
                250 if layer == TRUNCATED => self.truncate(index, what >> 8),
                _ => self.event(layer, index, what >> 8),
            }
        }
    }
}

/// Lets `threads` threads work for a time; panics if anything is left over when all pages have
/// been removed. If it isn't `told` of data blocks that are filled anew, the table must be wrong.
pub fn run(threads: u64, time: Duration, seed: u64, told: bool) -> Figures {
    let world = World::new(told);
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn({
                    let world = &world;
                    move || world.worker(number, seed)
                })
            })
            .collect();
        while start.elapsed() < time && !workers.iter().any(|worker| worker.is_finished()) {
            thread::sleep(Duration::from_millis(20));
        }
        world.stop.store(true, Relaxed);
    });
    for cache in &world.caches {
        for index in 0..BLOCKS * PAGES {
            let folio = LockedFolio::try_new(*cache, index).expect("nobody else is there");
            if folio.cached() {
                folio.remove(world.table.directory());
            }
        }
    }
    let (records, pages, _) = world.table.usage();
    assert_eq!((records, pages), (0, 0), "something is left over");
    let [served, recorded, changed, events, reallocated, wrong] =
        world.counters.map(AtomicU64::into_inner);
    Figures {
        served,
        recorded,
        changed,
        events,
        reallocated,
        wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_threads() {
        let figures = run(64, Duration::from_secs(5), 1, true);
        println!("{figures:?}");
        assert_eq!(figures.wrong, 0);
        assert!(figures.served > 1000 && figures.recorded > 1000);
        assert!(figures.reallocated > 100 && figures.events > 1000);
    }

    /// The check can fail.
    #[test]
    fn a_table_that_is_not_told_is_wrong() {
        assert_ne!(run(8, Duration::from_secs(1), 1, false).wrong, 0);
    }
}
