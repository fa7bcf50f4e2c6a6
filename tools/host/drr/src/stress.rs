// SPDX-License-Identifier: GPL-2.0

//! Many threads at the real access table and the real copy engine, with page caches, thin devices and a disk that
//! are numbers. Pages are modified without a word, evicted, and read anew, and virtual blocks are mapped elsewhere
//! meanwhile. What is served and what is recorded is compared with what the name stands for.
//!
//! Whoever reads or records does it in the order of `drr/io/read.rs` and `drr/target.rs`.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::*},
        Mutex,
    },
    thread,
    time::{Duration, Instant},
};

use dm::{
    block::bio::Writer,
    pagecache::cached_pages::CachedPages,
    pagecache::content::Digest,
    pagecache::directory::End,
    pagecache::folio::{
        number_in, words_of, LockedFolio, MappingId, PageCache, PageWords, PAGE_SHIFT, PAGE_WORDS,
    },
    pagecache::page_store::PrivateMount,
    sync::scratch::ScratchPages,
    target::thin::tell,
    target::thin_event::{Event, Mapping, MappingChange},
};
use kernel::{
    prelude::{PinInit, GFP_KERNEL},
    sync::Arc,
};

use crate::{
    access::digest::Key,
    access::donor_target::TargetRegistry,
    access::epoch::Epoch,
    access::mappings::MappingCache,
    access::name::{Block, Holder},
    access::table::AccessTable,
    io::copy::{ByteRange, Engine},
    layers::id::{LayerId, ThinId},
    pool::{Pool, Pools},
    random::Random,
};

const LAYERS: u64 = 24;
/// Virtual blocks of each layer, and pages of each block: more than a run's.
const BLOCKS: u64 = 16;
const PAGES: u64 = 40;
/// Data blocks that no layer maps.
const SPARE: u64 = 8;
const BINDING: u64 = 1;
/// Each layer with such a number reads from the disk only.
const PROUD: u64 = 4;

/// What is counted.
#[derive(Clone, Copy)]
enum Count {
    Served,
    Unproven,
    Recorded,
    Compared,
    Void,
    Kept,
    Events,
    Remapped,
    Differed,
    WrongBirths,
    WrongNames,
    Wrong,
}

/// What came of a run.
#[derive(Default, Debug)]
pub struct Figures {
    /// Reads that were served from donors, and compared with what their name stands for.
    pub served: u64,
    /// Copies that were not what they should have been.
    pub unproven: u64,
    /// Reads from the disk that were recorded.
    pub recorded: u64,
    /// Of these, reads whose name had a digest already.
    pub compared: u64,
    /// Reads from the disk that were not recorded, as the mapping had changed, or was changing.
    pub void: u64,
    /// Reads whose mapping was kept from an earlier lookup.
    pub kept: u64,
    /// Pages that were removed or modified.
    pub events: u64,
    /// Virtual blocks that were mapped elsewhere.
    pub remapped: u64,
    /// Names that lost a page's digest since another came from the disk.
    pub differed: u64,
    /// Reads from the disk that were recorded under the name of something else.
    pub wrong_births: u64,
    /// Reads whose name was that of an older mapping than the one there was when they came.
    pub wrong_names: u64,
    /// Reads that were served something else than what their name stands for.
    pub wrong: u64,
}

impl Figures {
    /// Nothing wrong was served, recorded or used.
    pub fn right(&self) -> bool {
        self.differed + self.wrong_births + self.wrong_names + self.wrong == 0
    }
}

/// A data block, and the time at which it was mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mapped {
    block: u64,
    time: u64,
}

impl Mapped {
    fn number(self) -> u64 {
        self.time << 32 | self.block
    }

    fn from_number(number: u64) -> Self {
        Self {
            block: number & 0xffff_ffff,
            time: number >> 32,
        }
    }

    /// What page `page` holds.
    fn content(self, page: u64) -> u64 {
        self.number() << 8 | page
    }
}

/// A read on its way.
struct Place {
    name: Block,
    /// The mapping that was found.
    found: Mapped,
    page: u64,
    epoch: Option<Epoch>,
}

struct World {
    table: AccessTable,
    mappings: MappingCache,
    key: Key,
    scratch: ScratchPages,
    pools: Pools,
    pool: Arc<Pool>,
    caches: Vec<MappingId>,
    /// Of each virtual block, by layer: what it is mapped to. All layers map the same, but for the time in which
    /// they are moved.
    maps: Vec<AtomicU64>,
    /// Of each data block: when it was mapped by whom who has filled it.
    disk: Vec<AtomicU64>,
    /// Data blocks to be used next, and the pool's time. Its lock is the pool's worker.
    worker: Mutex<(Vec<u64>, u64)>,
    stop: AtomicBool,
    /// The table learns of changes of mappings.
    told: bool,
    counters: [AtomicU64; Count::Wrong as usize + 1],
}

impl World {
    fn new(told: bool) -> Self {
        static POOL: AtomicU64 = AtomicU64::new(1);

        let targets = TargetRegistry::new().expect("memory");
        for layer in 0..LAYERS {
            targets.add(layer as u32, false).expect("memory");
        }
        let targets = Arc::new(targets, GFP_KERNEL).expect("memory");
        let table = AccessTable::new(targets).expect("memory");
        let mappings = MappingCache::new().expect("memory");
        let pools = Pools::new(PrivateMount::shared()).make().expect("memory");
        let maps = (0..LAYERS * BLOCKS).map(|at| Mapped {
            block: at % BLOCKS,
            time: 0,
        });
        Self {
            table,
            mappings,
            key: Key::draw().expect("memory"),
            scratch: ScratchPages::new().expect("memory"),
            pool: pools.join(POOL.fetch_add(1, Relaxed)).expect("memory"),
            pools,
            caches: (0..LAYERS)
                .map(|layer| PageCache::new(layer + 1, (BLOCKS * PAGES) as usize))
                .collect(),
            maps: maps.map(|it| AtomicU64::new(it.number())).collect(),
            disk: (0..BLOCKS + SPARE).map(|_| AtomicU64::new(0)).collect(),
            worker: Mutex::new(((BLOCKS..BLOCKS + SPARE).collect(), 0)),
            stop: AtomicBool::new(false),
            told,
            counters: Default::default(),
        }
    }

    fn count(&self, what: Count, by: u64) {
        self.counters[what as usize].fetch_add(by, Relaxed);
    }

    /// What dm-thin has for a virtual block.
    fn mapped(&self, layer: u64, block: u64) -> Mapped {
        Mapped::from_number(self.maps[(layer * BLOCKS + block) as usize].load(Acquire))
    }

    /// As `Drr::place_at()`.
    fn place_at(&self, layer: u64, index: u64) -> Option<Place> {
        let (block, page) = (index / PAGES, index % PAGES);
        let came = self.mapped(layer, block);
        let id = ThinId::new(self.pool.id, layer as u32);
        let mut epoch = self.pool.epochs.current(id.thin_id(), block);
        let mappings = &self.mappings;
        let kept = epoch.and_then(|epoch| mappings.get(id, block, 8, epoch, BINDING));
        self.count(Count::Kept, kept.is_some().into());
        let mapping = kept.unwrap_or_else(|| {
            let found = self.mapped(layer, block);
            let mapping = Mapping {
                pool: self.pool.id,
                block: found.block,
                binding: BINDING,
                thin_id: id.thin_id(),
                time: found.time as u32,
                block_sectors: 8,
                shared: true,
                changing: false,
            };
            epoch = epoch.filter(|_| self.pool.settles(&mapping));
            if let Some(epoch) = epoch {
                mappings.keep(id, block, epoch, &mapping);
            }
            mapping
        });
        let found = Mapped {
            block: mapping.block,
            time: mapping.time.into(),
        };
        if found.time < came.time {
            self.count(Count::WrongNames, 1);
        }
        Some(Place {
            name: Block::of(&mapping)?,
            found,
            page,
            epoch,
        })
    }

    /// A layer reads a page that isn't in its page cache.
    fn read(&self, layer: u64, index: u64) {
        let Some(folio) = LockedFolio::try_new(self.caches[layer as usize], index) else {
            return;
        };
        if folio.cached() {
            return;
        }
        let Some(place) = self.place_at(layer, index) else {
            return;
        };
        let holder = Holder {
            target_id: layer as u32,
            layer: LayerId::default(),
        };
        let copied = (layer % PROUD != 0).then(|| self.copy(&place));
        match copied.flatten() {
            Some(content) => folio.read(content, |pages| {
                let pages = CachedPages::read(&pages);
                self.table
                    .inherit(&place.name, place.page as u32, &pages, holder);
            }),
            None => {
                // It passes dm-thin, which may send it elsewhere by now.
                let from = self.mapped(layer, index / PAGES);
                let time = self.disk[from.block as usize].load(Acquire);
                let content = Mapped { time, ..from }.content(place.page);
                folio.read(content, |pages| {
                    self.record(&place, CachedPages::read(&pages), content, holder);
                });
            }
        }
    }

    /// What donors have, compared with what the name stands for.
    fn copy(&self, place: &Place) -> Option<u64> {
        let engine = Engine {
            table: &self.table,
            key: &self.key,
            scratch: &self.scratch,
        };
        let mut memory = [0u8; 1 << PAGE_SHIFT];
        let extent = ByteRange {
            at: (place.page as u32) << PAGE_SHIFT,
            len: 1 << PAGE_SHIFT,
        };
        let served = engine.serve(&place.name, extent, &mut Writer::new(&mut memory));
        self.count(Count::Unproven, served.unproven.into());
        if served.pages == 0 {
            assert!(
                memory.iter().all(|byte| *byte == 0),
                "unproven bytes got out"
            );
            return None;
        }
        let mut words: PageWords = [0; PAGE_WORDS];
        for (word, bytes) in words.iter_mut().zip(memory.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("eight"));
        }
        let expected = place.found.content(place.page);
        let right = number_in(&words) == Some(expected);
        self.count(if right { Count::Served } else { Count::Wrong }, 1);
        Some(words[0])
    }

    /// As `Drr::record()`.
    fn record(&self, place: &Place, pages: CachedPages<'_>, content: u64, holder: Holder) {
        let unchanged = |epoch| self.pool.epochs.unchanged(epoch);
        if !place.epoch.is_some_and(unchanged) {
            return self.count(Count::Void, 1);
        }
        let page = place.page as u32;
        let counted = self
            .table
            .record(&place.name, page, &pages, &[self.digest(content)], holder);
        self.count(Count::Recorded, counted.recorded.into());
        self.count(Count::Compared, counted.compared.into());
        self.count(Count::Differed, counted.differed.into());
        if content != place.found.content(place.page) {
            self.count(Count::WrongBirths, 1);
        }
    }

    fn digest(&self, content: u64) -> Digest {
        let mut words: PageWords = [0; PAGE_WORDS];
        for (word, value) in words.iter_mut().zip(words_of(content)) {
            *word = value;
        }
        self.key.digest(&words)
    }

    /// A page is removed from its page cache, or modified there.
    fn event(&self, layer: u64, index: u64, number: u64) {
        let Some(folio) = LockedFolio::try_new(self.caches[layer as usize], index) else {
            return;
        };
        if folio.cached() {
            self.count(Count::Events, 1);
            if number % 4 == 0 {
                folio.modify(u64::MAX / 2 + number / 2);
            } else {
                self.remove(folio);
            }
        }
    }

    fn remove(&self, folio: LockedFolio) {
        folio.remove(|folio| {
            self.table.directory().folio_removed(&folio);
        });
    }

    /// All layers' virtual block gets another data block, which has been filled, and the old one is free.
    fn remap(&self, block: u64) {
        // Epochs of one pool don't overlap.
        let mut worker = self.worker.lock().expect("no panic");
        let (spare, now) = &mut *worker;
        let Some(data_block) = spare.pop() else {
            return;
        };
        *now += 1;
        let new = Mapped {
            block: data_block,
            time: *now,
        };
        self.disk[data_block as usize].store(*now, Release);
        let old = self.mapped(0, block);
        for layer in 0..LAYERS {
            let change = MappingChange {
                pool: self.pool.id,
                thin_id: layer as u32,
                begin: block,
                end: block + 1,
            };
            if self.told {
                tell(Event::MappingChanges(change));
            }
            self.maps[(layer * BLOCKS + block) as usize].store(new.number(), Release);
            if self.told {
                tell(Event::MappingChanged(change));
            }
        }
        self.count(Count::Remapped, 1);
        // Last in, last out, so that it stays unused for a while.
        spare.insert(0, old.block);
    }

    fn worker(&self, number: u64, seed: u64) {
        let mut random = Random(seed ^ number << 32);
        while !self.stop.load(Relaxed) {
            let what = random.next_u64();
            let (layer, index) = (what % LAYERS, (what >> 8) % (BLOCKS * PAGES));
            match what >> 56 {
                0..=150 => self.read(layer, index),
                251.. if number < BLOCKS => self.remap(number),
                251.. if number == BLOCKS && what >> 40 & 0xff == 0 => {
                    self.table.forget_target(layer as u32, End::Gone)
                }
                _ => self.event(layer, index, what >> 32),
            }
        }
    }

    /// Removes all pages, which must leave nothing behind.
    fn empty(&self, bytes: u64) {
        for cache in &self.caches {
            for index in 0..BLOCKS * PAGES {
                let folio = LockedFolio::try_new(*cache, index).expect("nobody else is there");
                if folio.cached() {
                    self.remove(folio);
                }
            }
        }
        assert_eq!(self.table.usage(), (0, 0, bytes), "something is left over");
    }
}

/// Lets `threads` threads work for a time; panics if anything is left over when all pages have
/// been removed. If it isn't `told` of changes of mappings, the table must be wrong.
pub fn run(threads: u64, time: Duration, seed: u64, told: bool) -> Figures {
    let world = World::new(told);
    let (_, _, bytes) = world.table.usage();
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
    world.empty(bytes);
    world.pools.leave(world.pool.id);
    let of = |what: Count| world.counters[what as usize].load(Relaxed);
    Figures {
        served: of(Count::Served),
        unproven: of(Count::Unproven),
        recorded: of(Count::Recorded),
        compared: of(Count::Compared),
        void: of(Count::Void),
        kept: of(Count::Kept),
        events: of(Count::Events),
        remapped: of(Count::Remapped),
        differed: of(Count::Differed),
        wrong_births: of(Count::WrongBirths),
        wrong_names: of(Count::WrongNames),
        wrong: of(Count::Wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_threads() {
        let figures = run(64, Duration::from_secs(5), 1, true);
        println!("{figures:?}");
        assert!(figures.right(), "{figures:?}");
        assert!(figures.served > 1000 && figures.recorded > 1000 && figures.compared > 1000);
        assert!(figures.kept > 1000 && figures.events > 1000 && figures.unproven > 1000);
        assert!(figures.remapped > 100 && figures.void > 0);
    }

    /// The checks can fail.
    #[test]
    fn a_table_that_is_not_told_is_wrong() {
        let figures = run(8, Duration::from_secs(1), 1, false);
        assert_ne!(figures.wrong_births, 0);
        assert_ne!(figures.wrong_names, 0);
        assert_ne!(figures.wrong, 0);
    }

    /// A lookup that was kept is not used by targets that come after the pool's last target has gone: what has changed
    /// meanwhile was told to nobody.
    #[test]
    fn a_kept_lookup_ends_with_the_pools_last_target() {
        let mut world = World::new(false);
        for _ in 0..2 {
            world.place_at(0, 0);
        }
        let kept = |world: &World| world.counters[Count::Kept as usize].load(Relaxed);
        assert_eq!(kept(&world), 1);
        let pool = world.pool.id;
        world.pools.leave(pool);
        world.remap(0);
        world.pool = world.pools.join(pool).expect("memory");
        world.place_at(0, 0);
        assert_eq!(kept(&world), 1, "a stale lookup was used");
        assert_eq!(world.counters[Count::WrongNames as usize].load(Relaxed), 0);
    }
}
