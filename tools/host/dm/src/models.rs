// SPDX-License-Identifier: GPL-2.0

//! Runs of a few threads in every order of their atomic operations that the memory model allows.
//!
//! Where that is too much, a run has at most so many preemptions as the model says.

use loom::thread;
use std::sync::Arc;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        rcu::{self, given_away, gone},
    },
};

use crate::{
    pagecache::page_bitmap::PageBitmap,
    sync::index::{hash, Index, Keyed},
    sync::rcu_arc::{RcuArc, RcuPtr},
    sync::seq_cell::SeqCell,
};

mod directory;
mod inflight;

// With only one thread beside the first, loom may find nothing to explore: who is looked at runs in a
// thread of its own.
fn explore(preemptions: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.max_branches = 100_000;
    model.check(run);
}

fn join<T: 'static, const N: usize>(threads: [thread::JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join().expect("no thread panicked"))
}

/// A page is told gone once, and whoever takes the last one is alone in being told so.
#[test]
fn one_caller_is_told_that_the_run_died() {
    explore(None, || {
        let bits = Arc::new(PageBitmap::new(0b11));
        let clear = |mask| {
            let bits = bits.clone();
            thread::spawn(move || bits.clear(mask))
        };
        let done = join([clear(0b01), clear(0b11), clear(0b10)]);
        assert_eq!(
            done.iter().map(|one| one.pages.count_ones()).sum::<u32>(),
            2
        );
        assert_eq!(done.iter().filter(|one| one.died).count(), 1);
        assert_eq!(bits.pages(), 0);
        assert_eq!(bits.set(1), None);
    });
}

/// A page that was added is there, in a run that isn't dead; or the run is and got none.
#[test]
fn no_page_is_added_to_a_dead_run() {
    explore(None, || {
        let bits = Arc::new(PageBitmap::new(0b01));
        let other = bits.clone();
        let adder = thread::spawn(move || other.set(0b10));
        let other = bits.clone();
        let second = thread::spawn(move || other.set(0b110));
        let died = bits.clear(0b01).died;
        let added = join([adder, second]);
        let expected = added.iter().flatten().fold(0, |all, new| all | new);
        assert_eq!(bits.pages(), expected);
        assert_eq!(died, added.iter().all(Option::is_none));
    });
}

/// Words that are read are of one write, however many write.
#[test]
fn words_are_of_the_same_write() {
    explore(Some(3), || {
        let cell = Arc::new(SeqCell::new());
        let write = |value| {
            let cell = cell.clone();
            thread::spawn(move || u64::from(cell.write(&[value, value])))
        };
        let other = cell.clone();
        let reader = thread::spawn(move || other.read().map_or(0, |[a, b]| a ^ b));
        let [first, second, torn] = join([write(1), write(2), reader]);
        assert_eq!(torn, 0);
        assert!(first + second >= 1);
        // Nobody is left writing.
        assert!(cell.read().is_some_and(|[a, b]| a == b && a != 0));
    });
}

struct Pair(u64, u64);

impl Keyed for Pair {
    fn forward(&self) -> u64 {
        hash(self.0)
    }

    fn reverse(&self) -> u64 {
        hash(self.1)
    }
}

fn index_of(pairs: &[(u64, u64)]) -> Arc<Index<Pair>> {
    let index = Index::new(1).expect("memory");
    for pair in pairs {
        let pair = Pair(pair.0, pair.1);
        index
            .insert_unless(pair, GFP_KERNEL, |_| false)
            .expect("memory");
    }
    Arc::new(index)
}

/// The second halves of the pairs whose first is `key`, as a reader finds them.
fn read(index: &Index<Pair>, key: u64) -> Vec<u64> {
    let guard = rcu::read_lock();
    let mut found = Vec::new();
    for pair in index.by_forward(&guard, hash(key)) {
        assert!(!gone(pair), "a reader stands on freed memory");
        if pair.0 == key {
            found.push(pair.1);
        }
    }
    found
}

fn remove(index: &Index<Pair>, key: u64) -> usize {
    let guard = rcu::read_lock();
    index
        .by_reverse(&guard, hash(key))
        .filter(|pair| {
            assert!(!gone(*pair), "a remover stands on freed memory");
            pair.1 == key
        })
        .filter(|pair| index.remove(pair))
        .count()
}

/// What stays is found however its neighbours come and go.
#[test]
fn neighbours_go_while_a_reader_passes() {
    explore(Some(3), || {
        let index = index_of(&[(1, 10), (1, 11), (1, 12)]);
        let remover = |key| {
            let index = index.clone();
            thread::spawn(move || remove(&index, key))
        };
        let removers = [remover(11), remover(12)];
        let found = read(&index, 1);
        assert_eq!(found.iter().filter(|key| **key == 10).count(), 1);
        assert_eq!(join(removers), [1, 1]);
        assert_eq!(read(&index, 1), [10]);
    });
}

#[test]
fn neighbours_come_while_a_reader_passes() {
    explore(Some(3), || {
        let index = index_of(&[(1, 10)]);
        let other = index.clone();
        let inserter = thread::spawn(move || {
            let pair = Pair(1, 11);
            other
                .insert_unless(pair, GFP_KERNEL, |_| false)
                .expect("memory")
        });
        let other = index.clone();
        let reader = thread::spawn(move || {
            let found = read(&other, 1);
            assert!(found == [10] || found == [11, 10]);
        });
        reader.join().expect("no panic");
        assert!(inserter.join().expect("no panic"));
    });
}

/// LayerId is found by the reverse key may be added to, and then has to be found by the forward key.
#[test]
fn who_is_found_in_reverse_is_found_forward() {
    explore(Some(3), || {
        let index = index_of(&[]);
        let other = index.clone();
        let inserter = thread::spawn(move || {
            let pair = Pair(1, 10);
            other
                .insert_unless(pair, GFP_KERNEL, |_| false)
                .expect("memory")
        });
        let other = index.clone();
        let reader = thread::spawn(move || {
            let guard = rcu::read_lock();
            let known = other.by_reverse(&guard, hash(10)).any(|pair| pair.1 == 10);
            drop(guard);
            assert!(!known || read(&other, 1) == [10], "known, and not found");
        });
        reader.join().expect("no panic");
        assert!(inserter.join().expect("no panic"));
    });
}

#[test]
fn an_entry_is_removed_once() {
    explore(Some(3), || {
        let index = index_of(&[(1, 10)]);
        let remover = || {
            let index = index.clone();
            thread::spawn(move || remove(&index, 10))
        };
        let done = join([remover(), remover()]);
        assert_eq!(done.iter().sum::<usize>(), 1);
        assert_eq!(read(&index, 1), [0u64; 0]);
    });
}

#[test]
fn one_of_two_is_inserted() {
    explore(Some(3), || {
        let index = index_of(&[]);
        let inserter = || {
            let index = index.clone();
            thread::spawn(move || {
                let same = |pair: &Pair| pair.1 == 10;
                index
                    .insert_unless(Pair(1, 10), GFP_KERNEL, same)
                    .expect("memory")
            })
        };
        let done = join([inserter(), inserter()]);
        assert_eq!(done.iter().filter(|inserted| **inserted).count(), 1);
        assert_eq!(read(&index, 1), [10]);
    });
}

/// A counted reference in something that readers come across, as long as it is linked.
struct Linked {
    value: RcuPtr<u64>,
    linked: Atomic<bool>,
}

const VALUE: u64 = 7;

impl Linked {
    fn new() -> Arc<Self> {
        let value = RcuArc::new(VALUE, GFP_KERNEL).expect("memory");
        let pointer = value.ptr();
        // The reference is the pointer's.
        core::mem::forget(value);
        Arc::new(Self {
            value: pointer,
            linked: Atomic::new(true),
        })
    }

    /// Looks at the value, and takes a reference if there is one to be had; returns whether it was the last.
    fn read(&self) -> bool {
        let guard = rcu::read_lock();
        if !self.linked.load(Acquire) {
            return false;
        }
        // SAFETY: Linked since the guard was taken.
        let value = unsafe { self.value.get(&guard) };
        assert!(!gone(value), "a reader stands on freed memory");
        assert_eq!(*value, VALUE);
        // SAFETY: As above.
        let Some(own) = (unsafe { self.value.try_ref(&guard) }) else {
            return false;
        };
        // A reference is good without RCU.
        drop(guard);
        assert!(!gone(&*own), "who has a reference stands on freed memory");
        own.put()
    }

    /// Looks at the value when the guard is gone.
    fn read_late(&self) -> bool {
        let guard = rcu::read_lock();
        if !self.linked.load(Acquire) {
            return false;
        }
        // SAFETY: Linked since the guard was taken.
        let value = core::ptr::from_ref(unsafe { self.value.get(&guard) });
        drop(guard);
        assert!(!gone(value), "a reader stands on freed memory");
        false
    }

    /// It is unlinked; returns whether the pointer's reference was the last.
    fn unlink(&self) -> bool {
        self.linked.store(false, Release);
        // SAFETY: Left to the pointer, and nobody else takes it back.
        unsafe { self.value.release() }.put()
    }
}

fn linked_with(preemptions: Option<usize>, reader: fn(&Linked) -> bool) {
    explore(preemptions, move || {
        let linked = Linked::new();
        let act = |what: fn(&Linked) -> bool| {
            let linked = linked.clone();
            thread::spawn(move || what(&linked))
        };
        let last = join([act(reader), act(reader), act(Linked::unlink)]);
        assert_eq!(last.iter().filter(|last| **last).count(), 1);
        assert_eq!(given_away(), 1, "what was freed");
    });
}

/// One of those who had a reference frees the value, and no reader stands on it then.
#[test]
fn the_last_reference_frees_once() {
    linked_with(Some(3), Linked::read);
}

/// The model can fail.
#[test]
#[should_panic(expected = "a reader stands on freed memory")]
fn without_rcu_a_reader_stands_on_freed_memory() {
    linked_with(Some(3), Linked::read_late);
}
