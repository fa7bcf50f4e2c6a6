// SPDX-License-Identifier: GPL-2.0

//! Changes of mappings and those who read meanwhile, in every order that the memory model allows.

use std::sync::Arc;

use dm::{
    pagecache::page_store::PrivateMount,
    sync::cells::MANY,
    target::thin::tell,
    target::thin_event::{Event, Mapping, MappingChange},
};
use kernel::{
    prelude::PinInit,
    sync::atomic::{Acquire, Atomic, Release},
};
use loom::{sync::Mutex, thread};

use crate::{
    access::epoch::Epochs, access::mappings::MappingCache, layers::id::ThinId, pool::Pools,
};

/// Cells of tables that are made for loom at once.
const FEW: usize = 64;

const POOL: u64 = 1;
const THIN_ID: u32 = 7;
const BLOCK: u64 = 5;
const BINDING: u64 = 9;
/// Another virtual block that has the same cell.
const NEIGHBOUR: u64 = BLOCK + 4096;

/// Data blocks: the virtual block is mapped to the first, and then to the second.
const FIRST: usize = 0;
const SECOND: usize = 1;

/// A pool with a virtual block, and a disk with two data blocks.
struct World {
    changes: Epochs,
    mappings: MappingCache,
    /// dm-thin's mapping of the virtual block, under its `root_lock`.
    root: Mutex<usize>,
    /// What the data blocks hold. A disk orders what it does.
    disk: Mutex<[u64; 2]>,
    /// Somebody has been told that the change is made.
    completed: Atomic<bool>,
}

/// When dm-thin tells that a change begins.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Before,
    After,
}

impl World {
    fn layer() -> ThinId {
        ThinId::new(POOL, THIN_ID)
    }

    /// Uses what is used of large tables, so that loom knows it.
    fn touch(&self) {
        assert!(self.changes.current(THIN_ID, NEIGHBOUR).is_some());
        self.use_kept();
    }

    fn begin(&self) {
        self.changes.begin(THIN_ID, BLOCK, BLOCK + 1);
    }

    fn end(&self) {
        self.changes.end(THIN_ID, BLOCK, BLOCK + 1);
    }

    fn mapped(&self) -> usize {
        *self.root.lock().expect("no panic")
    }

    /// dm-thin maps the virtual block to the second data block.
    fn remap(&self, told: Told) {
        if told == Told::Before {
            self.begin();
        }
        *self.root.lock().expect("no panic") = SECOND;
        if told == Told::After {
            self.begin();
        }
        self.end();
    }

    /// As above; who waits for that is told, and may tell others.
    fn remap_and_complete(&self, told: Told) {
        if told == Told::Before {
            self.remap(told);
            self.completed.store(true, Release);
        } else {
            *self.root.lock().expect("no panic") = SECOND;
            self.completed.store(true, Release);
            self.begin();
            self.end();
        }
    }

    /// As above; the first data block is free then, and somebody else fills it.
    fn remap_and_refill(&self, told: Told) {
        if told == Told::Before {
            self.remap(told);
        }
        self.disk.lock().expect("no panic")[FIRST] = 3;
        if told == Told::After {
            self.remap(told);
        }
    }

    /// A neighbour changes, whatever it has to do with our block.
    fn change_neighbour(&self) {
        self.changes.begin(THIN_ID, NEIGHBOUR, NEIGHBOUR + 1);
        self.changes.end(THIN_ID, NEIGHBOUR, NEIGHBOUR + 1);
    }

    /// What was under way has ended.
    fn is_quiet(&self) {
        let epoch = self.changes.current(THIN_ID, BLOCK);
        assert!(epoch.is_some(), "a change never ends");
    }

    /// A read, as in `drr/io/read.rs` and `drr/target.rs`: what comes from the disk is recorded as the content of
    /// the block that was found.
    fn read(&self) {
        let Some(epoch) = self.changes.current(THIN_ID, BLOCK) else {
            return;
        };
        let found = self.mapped();
        // It passes dm-thin, which may send it elsewhere by now.
        let from = self.mapped();
        let data = self.disk.lock().expect("no panic")[from];
        if self.changes.unchanged(epoch) {
            assert_eq!(data, [1, 2][found], "recorded under a wrong name");
        }
    }

    /// A read that looks its mapping up, and keeps that.
    fn keep(&self) {
        let Some(epoch) = self.changes.current(THIN_ID, BLOCK) else {
            return;
        };
        let mapping = Mapping {
            pool: POOL,
            block: self.mapped() as u64,
            binding: BINDING,
            thin_id: THIN_ID,
            time: 3,
            block_sectors: 128,
            shared: true,
            changing: false,
        };
        self.mappings.keep(Self::layer(), BLOCK, epoch, &mapping);
    }

    /// A read that uses what was kept; it comes when somebody may have learnt of the change.
    fn use_kept(&self) {
        let known = self.completed.load(Acquire);
        let Some(epoch) = self.changes.current(THIN_ID, BLOCK) else {
            return;
        };
        let kept = self.mappings.get(Self::layer(), BLOCK, 128, epoch, BINDING);
        if let Some(kept) = kept.filter(|_| known) {
            assert_eq!(kept.block, SECOND as u64, "a stale lookup was used");
        }
    }
}

fn explore(preemptions: Option<usize>, actors: &'static [fn(&World)]) {
    explore_from(preemptions, |_| (), actors, World::is_quiet);
}

fn explore_from(
    preemptions: Option<usize>,
    first: fn(&World),
    actors: &'static [fn(&World)],
    last: fn(&World),
) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.preemption_bound = preemptions;
    MANY.set(FEW);
    model.check(move || {
        let world = Arc::new(World {
            changes: Epochs::new().expect("memory"),
            mappings: MappingCache::new().expect("memory"),
            root: Mutex::new(FIRST),
            disk: Mutex::new([1, 2]),
            completed: Atomic::new(false),
        });
        world.touch();
        first(&world);
        let threads: Vec<_> = actors
            .iter()
            .map(|actor| {
                let world = world.clone();
                thread::spawn(move || actor(&world))
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        last(&world);
    });
}

#[test]
fn who_reads_by_a_new_mapping_sees_the_change() {
    explore(None, &[|world| world.remap(Told::Before), World::read]);
}

/// Epochs of a pool don't overlap, but one may be told while a roll-back is.
const OVERLAPPING: &[fn(&World)] = &[
    |world| world.remap(Told::Before),
    World::change_neighbour,
    World::read,
];

#[test]
fn who_reads_by_a_new_mapping_sees_one_of_two_changes() {
    explore_from(Some(3), |_| (), OVERLAPPING, |_| ());
}

#[test]
fn a_cell_is_quiet_when_two_changes_have_ended() {
    explore_from(Some(3), |_| (), OVERLAPPING, World::is_quiet);
}

/// The model can fail: what is told after the mapping has changed comes too late.
#[test]
#[should_panic(expected = "recorded under a wrong name")]
fn told_after_it_a_change_goes_unnoticed() {
    explore(None, &[|world| world.remap(Told::After), World::read]);
}

#[test]
fn who_reads_a_block_that_was_filled_anew_sees_the_change() {
    explore(
        None,
        &[|world| world.remap_and_refill(Told::Before), World::read],
    );
}

#[test]
#[should_panic(expected = "recorded under a wrong name")]
fn filled_before_it_is_told_a_block_goes_unnoticed() {
    explore(
        None,
        &[|world| world.remap_and_refill(Told::After), World::read],
    );
}

/// Kept before the change, and used while it is made.
#[test]
fn a_kept_lookup_is_not_used_after_a_change_that_is_known() {
    explore_from(
        None,
        World::keep,
        &[
            |world| world.remap_and_complete(Told::Before),
            World::use_kept,
        ],
        |_| (),
    );
}

/// Kept while the change is made, and used after it.
#[test]
fn a_lookup_that_is_kept_while_it_changes_is_not_used_after_that() {
    explore_from(
        None,
        |_| (),
        &[|world| world.remap_and_complete(Told::Before), World::keep],
        World::use_kept,
    );
}

#[test]
#[should_panic(expected = "a stale lookup was used")]
fn completed_before_it_is_told_a_change_leaves_a_stale_lookup() {
    explore_from(
        None,
        World::keep,
        &[
            |world| world.remap_and_complete(Told::After),
            World::use_kept,
        ],
        |_| (),
    );
}

/// A pool whose first target is made while a mapping changes.
struct Young {
    pools: Pools,
    root: Mutex<usize>,
    /// dm-thin's: a change is under way.
    changing: Atomic<bool>,
}

impl Young {
    /// As dm-thin's `change_mapping()`.
    fn change(&self) {
        let change = MappingChange {
            pool: POOL,
            thin_id: THIN_ID,
            begin: BLOCK,
            end: BLOCK + 1,
        };
        self.changing.store(true, Release);
        tell(Event::MappingChanges(change));
        *self.root.lock().expect("no panic") = SECOND;
        tell(Event::MappingChanged(change));
        self.changing.store(false, Release);
    }

    /// The pool's first target is made, and a read passes it, which is recorded if the epoch is known to be
    /// good, or without that.
    fn join_and_read(&self, settles: bool) {
        let pool = self.pools.join(POOL).expect("memory");
        let Some(epoch) = pool.epochs.current(THIN_ID, BLOCK) else {
            return;
        };
        let found = *self.root.lock().expect("no panic");
        let mapping = Mapping {
            changing: self.changing.load(Acquire),
            ..Mapping::default()
        };
        if settles && !pool.settles(&mapping) {
            return;
        }
        let from = *self.root.lock().expect("no panic");
        if pool.epochs.unchanged(epoch) {
            assert_eq!(from, found, "recorded under a wrong name");
        }
    }
}

fn joined_while_it_changes(settles: bool) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.preemption_bound = Some(3);
    // What the pool's first target makes can't be used before.
    MANY.set(usize::MAX);
    model.check(move || {
        let world = Arc::new(Young {
            pools: Pools::new(PrivateMount::shared()).make().expect("memory"),
            root: Mutex::new(FIRST),
            changing: Atomic::new(false),
        });
        // The chain is there before.
        tell(Event::Aborted { pool: POOL });
        let other = world.clone();
        let reader = thread::spawn(move || other.join_and_read(settles));
        let other = world.clone();
        let writer = thread::spawn(move || other.change());
        reader.join().expect("no panic");
        writer.join().expect("no panic");
        world.pools.leave(POOL);
    });
}

#[test]
fn who_joins_while_a_mapping_changes_records_nothing_wrong() {
    joined_while_it_changes(true);
}

#[test]
#[should_panic(expected = "recorded under a wrong name")]
fn without_asking_who_joins_records_it_under_a_wrong_name() {
    joined_while_it_changes(false);
}
