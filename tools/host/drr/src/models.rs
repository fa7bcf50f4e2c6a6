// SPDX-License-Identifier: GPL-2.0

//! Epochs, in every order that the memory model allows.

use std::sync::Arc;

use kernel::sync::atomic::{Atomic, Relaxed};
use loom::{sync::Mutex, thread};

use crate::{epoch::Epochs, layer::Layer};

const OLD: u64 = 1;
const NEW: u64 = 2;

/// A virtual block, and the data block that is behind it at first.
struct World {
    epochs: Epochs,
    layer: Layer,
    /// dm-thin's: the virtual block still maps the data block.
    mapped: Mutex<bool>,
    /// What the data block holds. Atomic so that nothing else orders it.
    content: Atomic<u64>,
}

fn explore(run: fn(&World, bool), told_first: bool) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.check(move || {
        let world = Arc::new(World {
            epochs: Epochs::new().expect("memory"),
            layer: Layer::new(1, 2),
            mapped: Mutex::new(true),
            content: Atomic::new(OLD),
        });
        let other = world.clone();
        let writer = thread::spawn(move || run(&other, told_first));
        reader(&world);
        writer.join().expect("no panic");
    });
}

/// The block is unmapped, that is told, and it is filled anew.
fn writer(world: &World, told_first: bool) {
    *world.mapped.lock().expect("no panic") = false;
    if told_first {
        world.epochs.change(world.layer, 5, 6);
    }
    world.content.store(NEW, Relaxed);
    if !told_first {
        world.epochs.change(world.layer, 5, 6);
    }
}

/// Whoever read through the old mapping and found new content notices.
fn reader(world: &World) {
    let epoch = world.epochs.now(world.layer, 5);
    if !*world.mapped.lock().expect("no panic") {
        return;
    }
    let content = world.content.load(Relaxed);
    if world.epochs.is_now(epoch) {
        assert_eq!(content, OLD, "a change went unnoticed");
    }
}

#[test]
fn whoever_sees_new_content_sees_the_change() {
    explore(writer, true);
}

/// The model can fail: told only after the new content is there, a change goes unnoticed.
#[test]
#[should_panic(expected = "a change went unnoticed")]
fn told_too_late_a_change_goes_unnoticed() {
    explore(writer, false);
}
