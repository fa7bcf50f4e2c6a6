// SPDX-License-Identifier: GPL-2.0

//! A thread that uses one slot's layer: picks operations and files, and judges what it reads.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;

use crate::config::Config;
use crate::content::{fill, first_wrong, is_mixture, Key, PAGE, UNIT, WORDS};
use crate::diagnose;
use crate::kmsg;
use crate::layer::{File, Layer, Slot};
use crate::ops;
use crate::run::{Run, Trouble};
use crate::shadow::NewKeys;
use crate::sys::{self, Buffer};
use crate::uring::Ring;

/// Bytes of a thread's buffer: no operation reads or writes more at once.
pub const BUFFER: usize = 1 << 20;
/// Units in it.
pub const BUFFER_UNITS: usize = BUFFER / UNIT;

/// The kernel says ten times in five seconds that direct reads collide, then nothing for the rest.
const COLLISIONS: Duration = Duration::from_secs(6);
static STALE_PAGES: kmsg::Ever = kmsg::Ever::new("Page cache invalidation failure on direct I/O");

/// dm-thin fails a bio, though it was to wait for space, if the pool gets some just when the worker has found none
/// (should_error_unserviceable_bio()).
const UNSERVICEABLE: &str = "bio unserviceable, yet pool is in PM_WRITE mode";
const LATELY: Duration = Duration::from_secs(60);

/// A file number that threads of all siblings prefer for a while, so that they meet.
pub static FOCUS: AtomicUsize = AtomicUsize::new(0);

/// A thread's own things.
pub struct Worker<'a> {
    /// The run.
    pub run: &'a Run,
    /// The round's configuration.
    pub config: &'a Config,
    /// Picks everything.
    pub rng: Rng,
    /// Data to be written, or that was read.
    pub buffer: Buffer,
    /// Its io_uring, where the kernel has it.
    pub ring: Option<Ring>,
    keys: Vec<Key>,
    operation: &'static str,
    number: usize,
    slot: &'a Slot,
}

impl<'a> Worker<'a> {
    /// A thread with this number.
    pub fn new(run: &'a Run, config: &'a Config, slot: &'a Slot, number: usize, seed: u64) -> Self {
        Worker {
            run,
            config,
            rng: Rng::with_seed(seed),
            buffer: Buffer::new(BUFFER),
            ring: Ring::new().ok(),
            keys: Vec::new(),
            operation: "",
            number,
            slot,
        }
    }

    /// Whether an operation should end early: the round does, or the layer is to be replaced.
    pub fn hurried(&self) -> bool {
        self.run.stopping() || self.slot.wanted.load(Relaxed)
    }

    /// Does operations on whatever is in the slot, until the round ends.
    pub fn work(mut self) {
        while !self.run.stopping() {
            let guard = self.slot.layer.read().unwrap();
            match &*guard {
                Some(layer) => {
                    for _ in 0..self.rng.usize(1..4) {
                        if self.hurried() {
                            break;
                        }
                        self.step(layer);
                    }
                }
                None => {
                    drop(guard);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    fn step(&mut self, layer: &Layer) {
        let operation = ops::pick(&mut self.rng, self.config, layer.raw);
        let file = self.pick_file(layer, operation.changes);
        self.operation = operation.name;
        self.run.begin(self.number, &layer.name, operation.name);
        let result = if operation.changes {
            let _mutate = layer.mutate.read().unwrap();
            (operation.run)(self, layer, file)
        } else {
            (operation.run)(self, layer, file)
        };
        let time = self.run.end(self.number);
        self.judge(layer, file, time, result);
    }

    /// Counts a result, or ends the run.
    fn judge(&self, layer: &Layer, file: &File, time: Duration, result: Result<(), Trouble>) {
        let name = self.operation;
        match result {
            Ok(()) => self.run.count(name, time, |count| count.done += 1),
            Err(Trouble::Wrong) => {}
            Err(Trouble::Io(error)) => {
                let number = error.raw_os_error();
                if matches!(number, Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS)) {
                    self.run.count(name, time, |count| count.unsupported += 1);
                } else if layer.faulty.load(Relaxed) || self.collides(number) {
                    self.run.count(name, time, |count| count.failed += 1);
                } else {
                    let text = format!("{name}: {}: {error}", layer.path(file).display());
                    if kmsg::said(UNSERVICEABLE, LATELY) {
                        layer.faulty.store(true, Relaxed);
                        self.run
                            .end_round(format!("{text}, as dm-thin has lost a bio"));
                    } else {
                        self.run.fail(text);
                    }
                }
            }
        }
    }

    /// With blocks smaller than a page, a direct write can't always drop a page that it has
    /// bypassed from the cache. dio_warn_stale_pagecache() warns of a collision, the first ten times
    /// of a day, and has the next sync or direct read of the file tell of it. The page's content is
    /// uncertain then.
    ///
    /// Nor are direct reads kept apart from writes through a mapping, on any file system that
    /// allocates late: a read that finds a block that was just written and has no place on the
    /// disk yet fails, and iomap_dio_iter() says so in the log.
    fn collides(&self, error: Option<i32>) -> bool {
        if error != Some(libc::EIO) {
            return false;
        }
        let small = self.config.fs.block() < PAGE && STALE_PAGES.was_said();
        small
            || self.operation.contains("O_DIRECT read")
                && kmsg::said("Direct I/O collision with buffered writes", COLLISIONS)
    }

    fn pick_file<'b>(&mut self, layer: &'b Layer, changes: bool) -> &'b File {
        let mut index = if self.rng.bool() {
            FOCUS.load(Relaxed)
        } else {
            self.rng.usize(..layer.files.len())
        };
        index %= layer.files.len();
        // every other file changes
        if changes && layer.files[index].fixed {
            index = (index + 1) % layer.files.len();
        }
        &layer.files[index]
    }

    /// Another file that changes, if there is one.
    pub fn other_file<'b>(&mut self, layer: &'b Layer, file: &File) -> Option<&'b File> {
        let index = self.rng.usize(..layer.files.len());
        let other = &layer.files[index];
        (!other.fixed && other.number != file.number).then_some(other)
    }

    /// A part of a file, in multiples of `align` units, that fits the buffer.
    pub fn part(&mut self, units: usize, align: usize) -> Option<Range<usize>> {
        let grains = units / align;
        if grains == 0 {
            return None;
        }
        let most = (BUFFER_UNITS / align).min(grains);
        let length = match self.rng.u8(..4) {
            0 => 1,
            1 => self.rng.usize(1..=most.min((PAGE / UNIT / align).max(1))),
            2 => self
                .rng
                .usize(1..=most.min((16 * PAGE / UNIT / align).max(1))),
            _ => self.rng.usize(1..=most),
        };
        let start = self.rng.usize(0..=grains - length);
        Some(start * align..(start + length) * align)
    }

    /// Opens a layer's file.
    pub fn open(&self, layer: &Layer, file: &File, flags: i32) -> io::Result<fs::File> {
        sys::open(&layer.path(file), flags)
    }

    // --- reading ---

    /// Whether only the origin of a file's units is known.
    pub fn is_loose(layer: &Layer, file: &File) -> bool {
        !file.fixed && layer.faulty.load(Relaxed)
    }

    /// Reads units of a file into the buffer, and judges them. The caller holds the file's
    /// layout lock at least shared.
    pub fn read(
        &mut self,
        layer: &Layer,
        file: &File,
        units: Range<usize>,
        read: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<(), Trouble> {
        if Self::is_loose(layer, file) {
            self.buffer.bytes_mut(units.len() * UNIT).fill(0);
            read(self)?;
            return self.judge_origin(layer, file, units);
        }
        let start = file
            .shadow
            .lock()
            .unwrap()
            .begin_read(units.clone(), &mut self.keys);
        let result = read(self);
        let judged = match &result {
            Ok(()) => self.judge_units(layer, file, &units, start),
            Err(_) => Ok(()),
        };
        file.shadow.lock().unwrap().end_read(start);
        result?;
        judged
    }

    /// Compares the buffer with the keys noted at `start`, and with what was written since.
    fn judge_units(
        &mut self,
        layer: &Layer,
        file: &File,
        units: &Range<usize>,
        start: u64,
    ) -> Result<(), Trouble> {
        self.run
            .verified
            .fetch_add((units.len() * UNIT) as u64, Relaxed);
        let words = &self.buffer.words()[..units.len() * WORDS];
        let mut next = 0;
        let mut wrong = Vec::new();
        while let Some(index) = first_wrong(words, &self.keys, next) {
            next = index + 1;
            let got = &words[index * WORDS..][..WORDS];
            let expected = self.keys[index];
            if expected == Key::ANY && Key::of(got).is_some_and(|key| own(layer, key)) {
                continue;
            }
            let unit = units.start + index;
            let mut candidates = file.shadow.lock().unwrap().written_since(start, unit);
            if !candidates.is_empty() {
                candidates.push(expected);
                if is_mixture(got, &candidates) {
                    continue;
                }
            }
            wrong.push((unit, expected, got.to_vec()));
        }
        self.report(layer, file, &wrong)
    }

    /// Looks only at whose data the buffer has.
    ///
    /// Not even that is certain where a write has failed and the pool doesn't zero the blocks that
    /// it gives: the file may have one whose old content nobody has overwritten.
    pub fn judge_origin(
        &mut self,
        layer: &Layer,
        file: &File,
        units: Range<usize>,
    ) -> Result<(), Trouble> {
        if Self::is_loose(layer, file) && !self.config.zeroing {
            return Ok(());
        }
        self.run
            .verified
            .fetch_add((units.len() * UNIT) as u64, Relaxed);
        let mut wrong = Vec::new();
        for (index, got) in self.buffer.words()[..units.len() * WORDS]
            .chunks_exact(WORDS)
            .enumerate()
        {
            // no whole unit may be one that was being written
            if Key::of(got).is_some_and(|key| !own(layer, key)) {
                wrong.push((units.start + index, Key::ANY, got.to_vec()));
            }
        }
        self.report(layer, file, &wrong)
    }

    /// Reports wrong units, if there are some.
    fn report(
        &self,
        layer: &Layer,
        file: &File,
        wrong: &[(usize, Key, Vec<u64>)],
    ) -> Result<(), Trouble> {
        let Some((first, ..)) = wrong.first() else {
            return Ok(());
        };
        self.run.wrong.fetch_add(wrong.len() as u64, Relaxed);
        let path = layer.path(file);
        let mut text = format!(
            "{}: {} wrong units of {}, author {}",
            self.operation,
            wrong.len(),
            path.display(),
            layer.author
        );
        for (unit, expected, got) in wrong.iter().take(8) {
            let what = match Key::of(got) {
                Some(key) if !own(layer, key) => format!("FOREIGN: {key}"),
                Some(key) => key.to_string(),
                None => format!("no unit: {got:016x?}"),
            };
            text += &format!("\n  at {:#x}: expected {expected}, got {what}", unit * UNIT);
        }
        text += &diagnose::diagnose(self.config, layer, &path, first * UNIT);
        self.run.fail(text);
        Err(Trouble::Wrong)
    }

    // --- writing ---

    /// Writes new data into units of a file, with `write`, which finds it in the buffer. The
    /// caller holds the file's layout lock.
    pub fn write(
        &mut self,
        layer: &Layer,
        file: &File,
        units: Range<usize>,
        write: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<(), Trouble> {
        let _writer = file.writer.lock().unwrap();
        let loose = Self::is_loose(layer, file);
        let new = {
            let mut shadow = file.shadow.lock().unwrap();
            let new = NewKeys::Data(layer.author, file.number, shadow.next_version());
            if !loose {
                shadow.begin_write(units.clone(), new);
            }
            new
        };
        self.fill(units, new);
        let result = write(self);
        if !loose {
            file.shadow.lock().unwrap().end_write(result.is_ok());
        }
        Ok(result?)
    }

    /// Overwrites units with zeroes, in the same way.
    pub fn zero(
        &mut self,
        layer: &Layer,
        file: &File,
        units: Range<usize>,
        zero: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Trouble> {
        let _writer = file.writer.lock().unwrap();
        let loose = Self::is_loose(layer, file);
        if !loose {
            file.shadow
                .lock()
                .unwrap()
                .begin_write(units, NewKeys::Zero);
        }
        let result = zero();
        if !loose {
            file.shadow.lock().unwrap().end_write(result.is_ok());
        }
        Ok(result?)
    }

    /// Puts the data of these units into the buffer.
    pub fn fill(&mut self, units: Range<usize>, new: NewKeys) {
        self.keys.clear();
        self.keys.extend(units.map(|unit| new.at(unit)));
        fill(self.buffer.words_mut(), &self.keys);
    }
}

/// Whether a unit may be in a layer at all.
fn own(layer: &Layer, key: Key) -> bool {
    key == Key::ZERO || layer.lineage.get(key.author()).copied().unwrap_or(false)
}
