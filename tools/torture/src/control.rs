// SPDX-License-Identifier: GPL-2.0

//! The controller: one thread that manages devices and memory while the workers read and write.

use std::io::Result;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::RwLockWriteGuard;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::config::Config;
use crate::content::AUTHORS;
use crate::dm;
use crate::layer::{Image, Layer, Slot};
use crate::memory;
use crate::pool::Pool;
use crate::run::Run;
use crate::sys::{self, Buffer};
use crate::worker::FOCUS;

type Operation = fn(&mut Controller<'_>) -> Result<bool>;

/// What the controller does, and how often. Each says whether it could.
#[rustfmt::skip]
const OPERATIONS: &[(u32, &str, Operation)] = &[
    (12, "drop caches", |_| memory::drop_caches()),
    (6, "reclaim", |it| memory::reclaim(&mut it.rng)),
    (2, "memory limit", |it| memory::squeeze(&mut it.rng)),
    (2, "limit of I/O", |it| memory::throttle(it.pool.disk_number()?, &mut it.rng)),
    (3, "compact", |_| memory::compact()),
    (1, "huge pages", |it| memory::huge_pages(&mut it.rng)),
    (14, "recreate from the image", |it| it.recreate()),
    (24, "snapshot of a running layer", |it| it.snapshot()),
    (4, "new image", |it| it.new_image()),
    (8, "remount", |it| it.remount()),
    (8, "reload drr", |it| it.reload_top()),
    (4, "reload thin", |it| it.reload_thin()),
    (6, "another thin id", |it| it.change_id()),
    (6, "suspend and resume", |it| it.suspend()),
    (2, "reload pool", |it| it.pool.reload_pool().map(|()| true)),
    (1, "grow pool", |it| it.pool.grow(16)),
];

/// What it does besides in a round with faults.
#[rustfmt::skip]
const FAULTS: &[(u32, &str, Operation)] = &[
    (6, "pool without space, queueing", |it| it.full_queueing()),
    (4, "pool without space, failing", |it| it.failing(Fault::Full)),
    (4, "pool read-only", |it| it.failing(Fault::ReadOnly)),
    (6, "read errors in parts", |it| it.failing(Fault::Reads)),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Full,
    ReadOnly,
    Reads,
}

/// Numbers of authors that haven't been given out in this round.
pub struct Authors(AtomicU16);

impl Authors {
    /// All but that of the images.
    pub fn new() -> Self {
        Authors(AtomicU16::new(crate::layer::BASE + 1))
    }

    fn next(&self) -> u16 {
        self.0.fetch_add(1, Relaxed)
    }

    fn used_up(&self) -> bool {
        usize::from(self.0.load(Relaxed)) > AUTHORS - 64
    }
}

/// The controller of a round.
pub struct Controller<'a> {
    /// The run.
    pub run: &'a Run,
    /// The round's configuration.
    pub config: &'a Config,
    /// The devices.
    pub pool: &'a Pool,
    /// The siblings.
    pub slots: &'a [Slot],
    /// The file systems' and the raw devices' first image.
    pub images: [Image; 2],
    /// Numbers for those who write.
    pub authors: &'a Authors,
    /// Picks everything.
    pub rng: Rng,
    /// How long to wait between operations.
    pub pace: Duration,
    /// Its number among the threads.
    pub number: usize,
}

type Guard<'b> = RwLockWriteGuard<'b, Option<Layer>>;

impl Controller<'_> {
    /// Features of a drr device: with `paranoid`, a wrong hit is counted and the reader gets
    /// the right data; without, the reader sees it.
    fn features(&mut self) -> Vec<&'static str> {
        let mut features = Vec::new();
        for (name, odds) in [
            ("paranoid", 4),
            ("no_donate", 12),
            ("no_receive", 6),
            ("no_meta_cache", 8),
        ] {
            if self.rng.u8(..odds) == 0 {
                features.push(name);
            }
        }
        features
    }

    fn put(&mut self, slot: &Slot, guard: &mut Guard<'_>, image: &Image) -> Result<()> {
        let features = self.features();
        let author = self.authors.next();
        let layer = Layer::open(self.pool, self.config, &slot.name, image, author, &features)?;
        **guard = Some(layer);
        Ok(())
    }

    /// Opens a layer in each slot.
    pub fn fill(&mut self) -> Result<()> {
        for slot in self.slots {
            let image = &self.images[usize::from(slot.raw)];
            let image = image.copied_to(self.pool.thin_snap(image.thin)?);
            self.put(slot, &mut slot.take(), &image)?;
        }
        Ok(())
    }

    /// Closes all.
    pub fn empty(&mut self) -> Result<()> {
        for slot in self.slots {
            if let Some(layer) = slot.take().take() {
                self.close(layer)?;
            }
        }
        Ok(())
    }

    fn close(&self, layer: Layer) -> Result<Image> {
        layer.close(self.pool)
    }

    /// Does operations until the round ends, or it has run out of numbers.
    pub fn work(&mut self, until: Instant) {
        let faults = if self.config.faults { FAULTS } else { &[] };
        let operations = || OPERATIONS.iter().chain(faults);
        let sum: u32 = operations().map(|(weight, ..)| weight).sum();
        while Instant::now() < until && !self.run.stopping() && !self.authors.used_up() {
            FOCUS.store(self.rng.usize(..1000), Relaxed);
            let mut rest = self.rng.u32(..sum);
            let found = operations().find(|(weight, ..)| {
                let found = rest < *weight;
                rest = rest.saturating_sub(*weight);
                found
            });
            if let Some((_, name, operation)) = found {
                self.run.begin(self.number, "controller", name);
                let result = operation(self);
                let time = self.run.end(self.number);
                match result {
                    Ok(true) => self.run.count(name, time, |count| count.done += 1),
                    Ok(false) => self.run.count(name, time, |count| count.unsupported += 1),
                    Err(error) => self.run.fail(format!("{name}: {error}")),
                }
            }
            self.check();
            let pause = self.pace.mul_f64(2.0 * self.rng.f64());
            std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        }
        self.run.stop.store(true, Relaxed);
    }

    /// Ends the run if a paranoid device found a difference.
    pub fn check(&self) {
        match self.pool.counters() {
            Ok(counters) if counters.of("mismatches") > 0 => {
                let text = format!(
                    "{} mismatches: see the kernel's log",
                    counters.of("mismatches")
                );
                self.run.fail(text);
            }
            Ok(_) => {}
            Err(error) => self.run.fail(format!("status: {error}")),
        }
    }

    fn any_slot(&mut self) -> usize {
        self.rng.usize(..self.slots.len())
    }

    // --- layers ---

    /// Deletes a layer, and makes a new one of the image in its place.
    fn recreate(&mut self) -> Result<bool> {
        let index = self.any_slot();
        let slot = &self.slots[index];
        let mut guard = slot.take();
        self.replace(slot, &mut guard)?;
        Ok(true)
    }

    fn replace(&mut self, slot: &Slot, guard: &mut Guard<'_>) -> Result<()> {
        if let Some(layer) = guard.take() {
            let old = self.close(layer)?;
            self.pool.thin_delete(old.thin)?;
        }
        let image = &self.images[usize::from(slot.raw)];
        let image = image.copied_to(self.pool.thin_snap(image.thin)?);
        self.put(slot, guard, &image)
    }

    /// Replaces a layer by a snapshot of a running one, whose readers go on.
    fn snapshot(&mut self) -> Result<bool> {
        let (from, to) = (self.any_slot(), self.any_slot());
        if from == to || self.slots[from].raw != self.slots[to].raw {
            return Ok(false);
        }
        let suspends = self.rng.bool();
        let slot = &self.slots[to];
        let mut guard = slot.take();
        if let Some(layer) = guard.take() {
            let old = self.close(layer)?;
            self.pool.thin_delete(old.thin)?;
        }
        let origin = self.slots[from].layer.read().unwrap();
        let Some(origin) = &*origin else {
            return Ok(false);
        };
        let image = self.take_image(origin, suspends)?;
        self.put(slot, &mut guard, &image)?;
        Ok(true)
    }

    /// A snapshot of a layer whose readers go on; with its devices suspended, as dm-thin asks for, or not. Its file
    /// system is frozen in any case: what is left by recovery from its journal would be the file system's
    /// matter (with data=journal, ext4 replays data over blocks that were zeroed past the journal).
    fn take_image(&self, origin: &Layer, suspends: bool) -> Result<Image> {
        let _mutate = origin.mutate.write().unwrap();
        if origin.raw {
            origin.sync()?;
        }
        if !suspends && !origin.raw {
            let root = sys::open(&origin.root(), libc::O_RDONLY)?;
            sys::freeze(&root)?;
            let id = self.pool.thin_snap(origin.thin());
            sys::thaw(&root)?;
            return Ok(origin.image(id?));
        }
        if !suspends {
            return Ok(origin.image(self.pool.thin_snap(origin.thin())?));
        }
        let (top, thin) = (format!("c-{}", origin.name), format!("t-{}", origin.name));
        dm::suspend(&top, true)?;
        dm::suspend(&thin, false)?;
        let id = self.pool.thin_snap(origin.thin())?;
        dm::resume(&thin)?;
        dm::resume(&top)?;
        Ok(origin.image(id))
    }

    /// Lets later layers be made of a running one, and deletes the image they were made of till
    /// now: so blocks of the image become free too.
    fn new_image(&mut self) -> Result<bool> {
        let (index, suspends) = (self.any_slot(), self.rng.bool());
        let origin = self.slots[index].layer.read().unwrap();
        let Some(origin) = &*origin else {
            return Ok(false);
        };
        let image = self.take_image(origin, suspends)?;
        let old = std::mem::replace(&mut self.images[usize::from(origin.raw)], image);
        self.pool.thin_delete(old.thin)?;
        Ok(true)
    }

    /// Removes a layer's devices, and makes them again.
    fn remount(&mut self) -> Result<bool> {
        let index = self.any_slot();
        let slot = &self.slots[index];
        let mut guard = slot.take();
        if let Some(layer) = guard.take() {
            let image = self.close(layer)?;
            self.put(slot, &mut guard, &image)?;
        }
        Ok(true)
    }

    // --- tables ---

    fn reload_top(&mut self) -> Result<bool> {
        let index = self.any_slot();
        let slot = &self.slots[index];
        let features = self.features();
        self.pool
            .top_reload(&slot.name, &features, self.rng.bool())?;
        Ok(true)
    }

    fn reload_thin(&mut self) -> Result<bool> {
        let index = self.any_slot();
        let guard = self.slots[index].layer.read().unwrap();
        if let Some(layer) = &*guard {
            self.pool
                .thin_reload(&layer.name, layer.thin(), Layer::sectors(layer.raw))?;
        }
        Ok(true)
    }

    /// Replaces a running layer's thin device by a snapshot of it, and deletes it.
    fn change_id(&mut self) -> Result<bool> {
        let index = self.any_slot();
        let lockfs = self.rng.bool();
        let guard = self.slots[index].layer.read().unwrap();
        let Some(layer) = &*guard else {
            return Ok(false);
        };
        let (top, thin) = (format!("c-{}", layer.name), format!("t-{}", layer.name));
        let (old, sectors) = (layer.thin(), Layer::sectors(layer.raw));
        dm::suspend(&top, lockfs)?;
        dm::suspend(&thin, false)?;
        let new = self.pool.thin_snap(old)?;
        self.pool.thin_load(&layer.name, new, sectors)?;
        dm::resume(&thin)?;
        layer.moves_to(new);
        dm::resume(&top)?;
        self.pool.thin_delete(old)?;
        Ok(true)
    }

    fn suspend(&mut self) -> Result<bool> {
        let index = self.any_slot();
        let name = &self.slots[index].name;
        let pause = Duration::from_millis(self.rng.u64(..20));
        let (device, lockfs) = match self.rng.u8(..3) {
            0 => return self.pool.pause(pause).map(|()| true),
            1 => (format!("t-{name}"), false),
            _ => (format!("c-{name}"), self.rng.bool()),
        };
        dm::suspend(&device, lockfs)?;
        std::thread::sleep(pause);
        dm::resume(&device)?;
        Ok(true)
    }

    // --- a pool in trouble ---

    /// Takes the pool's free blocks, but for `left` sectors, for a thin device that nobody reads;
    /// its id.
    fn take_space(&self, left: u64) -> Result<u32> {
        let mut data = Buffer::new(1 << 20);
        data.words_mut().fill(u64::MAX);
        let thin = self.pool.thin_new()?;
        let (used, all) = self.pool.usage()?;
        self.pool.thin_open("filler", thin, all - used)?;
        let path = sys::path("/dev/mapper/t-filler");
        let device = sys::open(path, libc::O_WRONLY | libc::O_DIRECT)?;
        let len = data.len();
        for at in (0..(all - used) * 512).step_by(len) {
            let (used, all) = self.pool.usage()?;
            if all - used <= left {
                break;
            }
            match sys::pwrite(&device, data.bytes_mut(len), at, 0) {
                // the siblings took some meanwhile
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
                result => result?,
            }
        }
        drop(device);
        self.pool.thin_close("filler")?;
        Ok(thin)
    }

    fn is_full(&self) -> Result<bool> {
        Ok(self.pool.status()?.contains(" out_of_data_space "))
    }

    /// Waits a while for the siblings to take the rest of the space.
    fn wait_until_full(&self) -> Result<bool> {
        for _ in 0..300 {
            if self.is_full()? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn pause(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(..milliseconds)));
    }

    /// The pool has no space, and whoever writes waits until it has. Nothing is lost.
    fn full_queueing(&mut self) -> Result<bool> {
        let _scarce = self.pool.scarce.lock().unwrap();
        // The siblings' own writes take the rest: if this thread had to wait for space itself,
        // there would be nobody to make some.
        let thin = self.take_space(6 * 2048)?;
        let full = self.wait_until_full()?;
        self.pause(1000);
        // either way there is space again
        let grown = self.rng.bool() && self.pool.grow(16)?;
        if grown {
            self.pause(200);
        }
        self.pool.thin_delete(thin)?;
        Ok(full)
    }

    /// The pool fails what is written, for want of space or because it is read-only, or its disk what is read. Of files
    /// that change, only whose data they have is known then; the others stay readable.
    fn failing(&mut self, fault: Fault) -> Result<bool> {
        for slot in self.slots {
            if let Some(layer) = &*slot.take() {
                layer.sync()?;
                layer.faulty.store(true, Relaxed);
            }
        }
        // Nor does anybody make a read-only pool larger: dm-thin adds to its size each time.
        let scarce = self.pool.scarce.lock().unwrap();
        let happened = match fault {
            Fault::Full => {
                self.pool.pool_feature("error_if_no_space", true)?;
                let thin = self.take_space(0)?;
                let full = self.wait_until_full()?;
                self.pause(2000);
                self.pool.thin_delete(thin)?;
                self.pool.pool_feature("error_if_no_space", false)?;
                full
            }
            Fault::Reads => {
                let time = Duration::from_millis(self.rng.u64(200..2000));
                self.pool.fail_reads(time)?;
                true
            }
            Fault::ReadOnly => {
                self.pool.pool_feature("read_only", true)?;
                self.pause(2000);
                self.pool.pool_feature("read_only", false)?;
                true
            }
        };
        drop(scarce);
        for slot in self.slots {
            let mut guard = slot.take();
            self.replace(slot, &mut guard)?;
        }
        Ok(happened)
    }
}
