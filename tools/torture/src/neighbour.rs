// SPDX-License-Identifier: GPL-2.0

//! A second pool, in trouble of its own: its disk is slow or hangs, or it has no space. What is tested must not wait
//! for it. In rounds whose pool doesn't fail its disk is a loop device over a drr device of that pool.
//!
//!   /dev/mapper/n-N    drr, or linear for comparison
//!   /dev/mapper/p2-N   thin
//!   /dev/mapper/pool2  thin-pool
//!   /dev/mapper/data2  linear or delay, on nullb2 or a loop device

use std::fs::File;
use std::io::{Error, Result};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::config::{Config, Target};
use crate::content::PAGE;
use crate::dm;
use crate::pool::{disk, disk_gone, run, Pool};
use crate::run::Run;
use crate::sys::{self, Buffer};

const DATA_DISK: &str = "nullb2";
const META_DISK: &str = "nullb3";
const DISK_MIB: u64 = 48;
const DISK_SECTORS: u64 = DISK_MIB * 2048;
const BLOCK_SECTORS: u64 = 128;
/// Pages of a thin device.
const PAGES: usize = 2048;
const SECTORS: u64 = (PAGES * PAGE) as u64 / 512;
const WRITERS: usize = 4;
/// A number among the threads that no other has.
const THREAD: usize = usize::MAX;
/// A write failed: what the page has isn't known.
const UNKNOWN: u32 = u32::MAX;

/// The drr device below, in the pool that is tested, and a sibling that has all of its blocks in memory.
struct Host {
    thins: [u32; 2],
    device: String,
}

/// The pool.
pub struct Neighbour<'a> {
    config: &'a Config,
    pool: &'a Pool,
    host: Option<Host>,
    rng: Rng,
    rounds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    Hangs,
    Slow,
    Full,
}

fn fill(page: &mut [u8], number: usize, generation: u32) {
    let seed = ((u64::from(generation) << 32) | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(seed ^ at as u64).to_ne_bytes());
    }
}

/// Compares all pages of a device with the generations that are expected.
fn check(path: &str, flags: i32, expected: &dyn Fn(usize) -> u32) -> Result<()> {
    let device = sys::open(sys::path(path), libc::O_RDONLY | flags)?;
    let mut buffer = Buffer::new(64 * PAGE);
    let mut page = vec![0; PAGE];
    for first in (0..PAGES).step_by(64) {
        let bytes = buffer.bytes_mut(64 * PAGE);
        sys::pread(&device, bytes, (first * PAGE) as u64, 0)?;
        for (number, found) in (first..).zip(bytes.chunks_exact(PAGE)) {
            let generation = expected(number);
            fill(&mut page, number, generation);
            if generation != UNKNOWN && page != found {
                return Err(Error::other(format!(
                    "wrong bytes: page {number} of {path} isn't of generation {generation}"
                )));
            }
        }
    }
    Ok(())
}

/// Makes n-NAME on the thin device PREFIX-NAME. The pool that is tested doesn't count what passes it.
fn top(config: &Config, prefix: &str, name: &str, sectors: u64) -> Result<()> {
    let table = match config.target {
        Target::Drr => format!("0 {sectors} drr /dev/mapper/{prefix}-{name}"),
        Target::Linear => format!("0 {sectors} linear /dev/mapper/{prefix}-{name} 0"),
    };
    dm::create(&format!("n-{name}"), &table)
}

impl Host {
    fn new(config: &Config, pool: &Pool) -> Result<Self> {
        let thin = pool.thin_new()?;
        pool.thin_open("host", thin, DISK_SECTORS)?;
        top(config, "t", "host", DISK_SECTORS)?;
        let device = run(
            "losetup",
            &["--find", "--show", "--direct-io=on", "/dev/mapper/n-host"],
        )?;
        Ok(Host {
            thins: [thin, thin],
            device: device.trim().to_owned(),
        })
    }

    /// A sibling reads what it has up to now.
    fn share(&mut self, config: &Config, pool: &Pool) -> Result<()> {
        self.thins[1] = pool.thin_snap(self.thins[0])?;
        pool.thin_open("host2", self.thins[1], DISK_SECTORS)?;
        top(config, "t", "host2", DISK_SECTORS)?;
        run("dd", &["if=/dev/mapper/n-host2", "of=/dev/null", "bs=1M"]).map(|_| ())
    }

    fn close(self, pool: &Pool) -> Result<()> {
        run("losetup", &["-d", &self.device])?;
        for (name, thin) in ["host2", "host"].iter().zip(self.thins.iter().rev()) {
            dm::remove(&format!("n-{name}"))?;
            pool.thin_close(name)?;
            pool.thin_delete(*thin)?;
        }
        Ok(())
    }
}

impl<'a> Neighbour<'a> {
    /// Makes the pool and a thin device with content.
    pub fn new(config: &'a Config, pool: &'a Pool, rng: Rng) -> Result<Self> {
        run("modprobe", &["-q", "loop"]).ok(); // built in, in some kernels
        run("modprobe", &["-q", "dm-delay"]).ok();
        let host = match config.faults {
            true => None,
            false => Some(Host::new(config, pool)?),
        };
        let mut it = Neighbour {
            config,
            pool,
            host,
            rng,
            rounds: 0,
        };
        if it.host.is_none() {
            disk(DATA_DISK, DISK_MIB)?;
        }
        disk(META_DISK, 16)?;
        dm::create("data2", &it.data_table(0))?;
        let features = "1 skip_block_zeroing";
        let table = format!(
            "0 {DISK_SECTORS} thin-pool /dev/{META_DISK} /dev/mapper/data2 {BLOCK_SECTORS} 0 {features}"
        );
        dm::create("pool2", &table)?;
        dm::message("pool2", "create_thin 0")?;
        it.open("base", 0)?;
        it.write_base()?;
        it.close_top("base")?;
        if let Some(host) = &mut it.host {
            host.share(config, pool)?;
        }
        Ok(it)
    }

    fn data_table(&self, delay: u32) -> String {
        let nullb = format!("/dev/{DATA_DISK}");
        let device = self.host.as_ref().map_or(&nullb, |host| &host.device);
        match delay {
            0 => format!("0 {DISK_SECTORS} linear {device} 0"),
            _ => format!("0 {DISK_SECTORS} delay {device} 0 {delay}"),
        }
    }

    fn delay(&self, delay: u32) -> Result<()> {
        dm::load("data2", &self.data_table(delay))?;
        dm::suspend("data2", false)?;
        dm::resume("data2")
    }

    fn open(&self, name: &str, id: u32) -> Result<()> {
        let thin = format!("p2-{name}");
        dm::create(&thin, &format!("0 {SECTORS} thin /dev/mapper/pool2 {id}"))?;
        top(self.config, "p2", name, SECTORS)
    }

    fn close_top(&self, name: &str) -> Result<()> {
        dm::remove(&format!("n-{name}"))?;
        dm::remove(&format!("p2-{name}"))
    }

    fn write_base(&self) -> Result<()> {
        let device = sys::open(
            sys::path("/dev/mapper/n-base"),
            libc::O_WRONLY | libc::O_DIRECT,
        )?;
        let mut buffer = Buffer::new(PAGE);
        for number in 0..PAGES {
            let bytes = buffer.bytes_mut(PAGE);
            fill(bytes, number, 0);
            sys::pwrite(&device, bytes, (number * PAGE) as u64, 0)?;
        }
        Ok(())
    }

    /// Two siblings, one of which has all in memory when parts of its blocks are written by the other, in trouble or
    /// not.
    fn round(&mut self) -> Result<()> {
        const TROUBLES: [Trouble; 4] = [
            Trouble::Nothing,
            Trouble::Hangs,
            Trouble::Slow,
            Trouble::Full,
        ];
        let trouble = TROUBLES[self.rng.usize(..TROUBLES.len())];
        self.rounds += 1;
        for (name, id) in [("reader", 1), ("writer", 2)] {
            dm::message("pool2", &format!("create_snap {id} 0"))?;
            self.open(name, id)?;
        }
        let opened = File::open("/dev/mapper/n-reader")?;
        check("/dev/mapper/n-reader", 0, &|_| 0)?;
        let generations: Vec<AtomicU32> = (0..PAGES).map(|_| AtomicU32::new(0)).collect();
        if trouble == Trouble::Slow {
            let delay = self.rng.u32(1..30);
            self.delay(delay)?;
        }
        if trouble == Trouble::Full {
            self.take_space()?;
        }
        thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (rng, generations) = (self.rng.fork(), &generations);
                    scope.spawn(move || write(writer, rng, generations))
                })
                .collect();
            self.during(trouble)?;
            let ended = writers.into_iter().map(|writer| writer.join().unwrap());
            // Where there was no space dm-thin may fail a write; see `write`.
            ended
                .filter(|_| trouble != Trouble::Full)
                .collect::<Result<()>>()
        })?;
        if trouble == Trouble::Slow {
            self.delay(0)?;
        }
        let expected = |number: usize| generations[number].load(Relaxed);
        check("/dev/mapper/n-writer", libc::O_DIRECT, &expected)?;
        check("/dev/mapper/n-writer", 0, &expected)?;
        check("/dev/mapper/n-reader", libc::O_DIRECT, &|_| 0)?;
        drop(opened);
        for (name, id) in [("reader", 1), ("writer", 2)] {
            self.close_top(name)?;
            dm::message("pool2", &format!("delete {id}"))?;
        }
        Ok(())
    }

    /// Leaves space for some blocks only.
    fn take_space(&self) -> Result<()> {
        dm::message("pool2", "create_thin 3")?;
        let sectors = DISK_SECTORS - SECTORS - 32 * BLOCK_SECTORS;
        let table = format!("0 {sectors} thin /dev/mapper/pool2 3");
        dm::create("p2-filler", &table)?;
        let device = sys::open(
            sys::path("/dev/mapper/p2-filler"),
            libc::O_WRONLY | libc::O_DIRECT,
        )?;
        let mut buffer = Buffer::new(1 << 16);
        for block in 0..sectors / BLOCK_SECTORS {
            sys::pwrite(&device, buffer.bytes_mut(1 << 16), block << 16, 0)?;
        }
        Ok(())
    }

    /// While there are writes in flight.
    fn during(&self, trouble: Trouble) -> Result<()> {
        let pause = || Duration::from_millis(100 + 20 * (self.rounds % 64));
        match trouble {
            Trouble::Nothing | Trouble::Slow => {}
            Trouble::Hangs => {
                dm::suspend("data2", false)?;
                thread::sleep(pause());
                dm::resume("data2")?;
            }
            Trouble::Full => {
                thread::sleep(pause());
                dm::remove("p2-filler")?;
                dm::message("pool2", "delete 3")?;
                // The deletion's commit has dm-thin send all writes on again that wait for space. Its worker may
                // add one to their list right afterwards, having seen the pool full before. Only a resumption of
                // the pool looks at that list again.
                dm::suspend("pool2", false)?;
                dm::resume("pool2")?;
            }
        }
        Ok(())
    }

    /// Until the round ends.
    pub fn work(&mut self, run: &Run) {
        while !run.stopping() {
            run.begin(THREAD, "the neighbour", "a round");
            let result = self.round();
            let time = run.end(THREAD);
            match result {
                Ok(()) => run.count("a neighbour's round", time, |count| count.done += 1),
                Err(error) => run.fail(format!("the neighbour's pool: {error}")),
            }
        }
    }

    /// Removes all of it.
    pub fn close(self) -> Result<()> {
        dm::remove("pool2")?;
        dm::remove("data2")?;
        disk_gone(META_DISK)?;
        match self.host {
            Some(host) => host.close(self.pool),
            None => disk_gone(DATA_DISK),
        }
    }
}

/// Writes pages that are none of the other writers'. What a write that fails leaves isn't known.
fn write(writer: usize, mut rng: Rng, generations: &[AtomicU32]) -> Result<()> {
    let path = sys::path("/dev/mapper/n-writer");
    let device = sys::open(path, libc::O_WRONLY | libc::O_DIRECT)?;
    let mut buffer = Buffer::new(PAGE);
    let mut result = Ok(());
    for generation in 1..=64 {
        let number = rng.usize(..PAGES / WRITERS) * WRITERS + writer;
        let bytes = buffer.bytes_mut(PAGE);
        fill(bytes, number, generation);
        let written = sys::pwrite(&device, bytes, (number * PAGE) as u64, 0);
        let is = if written.is_ok() { generation } else { UNKNOWN };
        generations[number].store(is, Relaxed);
        result = result.and(written);
    }
    result
}
