// SPDX-License-Identifier: GPL-2.0

//! The devices: null_blk disks, the pool on them, thin devices, and drr on top.
//!
//!   /dev/mapper/c-N   drr, or linear for comparison
//!   /dev/mapper/t-N   thin
//!   /dev/mapper/pool  thin-pool
//!   /dev/mapper/data  linear, on the null_blk disk that the tests call nullb0

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, Result};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::config::{Config, Target};
use crate::dm;

const DATA_DISK: &str = "nullb0";
const META_DISK: &str = "nullb1";

/// Runs a program, and returns its output. Fails with the text on its standard error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    Err(Error::other(format!(
        "{program} {}: {said}",
        arguments.join(" ")
    )))
}

/// The counters in the status lines of drr devices, added up.
#[derive(Default, Clone)]
pub struct Counters(BTreeMap<String, u64>);

/// Numbers in a status line that describe the present state, and are not counters.
const STATES: [&str; 4] = ["thin", "records", "tracked_pages", "table_bytes"];

impl Counters {
    /// Adds the counters in a status line.
    fn add_status(&mut self, status: &str) {
        for (name, value) in status
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            if let (Ok(value), false) = (value.parse::<u64>(), STATES.contains(&name)) {
                *self.0.entry(name.to_owned()).or_default() += value;
            }
        }
    }

    /// Adds the counters of `other`.
    pub fn add(&mut self, other: &Counters) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }

    /// Returns a counter; 0 if there is none of this name.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Returns all counters by their names.
    pub fn all(&self) -> &BTreeMap<String, u64> {
        &self.0
    }
}

/// A pool, and the devices on it.
pub struct Pool {
    config: Config,
    /// Held while the pool is to run out of space. Taken before all other locks.
    pub scarce: Mutex<()>,
    /// Held while the pool's own table is changed, or the pool is suspended: messages to it and new
    /// thin devices would fail.
    table: Mutex<()>,
    data_sectors: Mutex<u64>,
    features: Mutex<Vec<&'static str>>,
    ids: Mutex<Ids>,
    /// Counters of devices and tables that are gone.
    past: Mutex<Counters>,
    /// Lengths of the existing drr (or linear) devices in sectors, by name.
    tops: Mutex<BTreeMap<String, u64>>,
}

/// Thin ids.
#[derive(Default)]
struct Ids {
    /// Lowest id that was never used.
    next: u32,
    /// Ids of deleted thin devices.
    free: Vec<u32>,
}

/// Creates a RAM disk of `mib` MiB.
pub fn disk(name: &str, mib: u64) -> Result<()> {
    let directory = format!("/sys/kernel/config/nullb/{name}");
    fs::create_dir(&directory)?;
    let size = mib.to_string();
    for (file, value) in [
        ("size", size.as_str()),
        ("memory_backed", "1"),
        ("discard", "1"),
        ("blocksize", "512"),
        ("power", "1"),
    ] {
        fs::write(format!("{directory}/{file}"), value)?;
    }
    Ok(())
}

/// Removes a RAM disk.
pub fn disk_gone(name: &str) -> Result<()> {
    let directory = format!("/sys/kernel/config/nullb/{name}");
    fs::write(format!("{directory}/power"), "0")?;
    fs::remove_dir(directory)
}

impl Pool {
    /// Creates the disks and the pool.
    pub fn new(config: &Config) -> Result<Self> {
        for module in ["null_blk", "dm-thin-pool"] {
            let arguments: &[&str] = if module == "null_blk" {
                &["nr_devices=0"]
            } else {
                &[]
            };
            run("modprobe", &[&["-q", module], arguments].concat())?;
        }
        if config.target == Target::Drr {
            run("modprobe", &["dm-drr"])?;
        }
        disk(DATA_DISK, config.disk_mib)?;
        disk(META_DISK, 16)?;
        let mut features = Vec::new();
        if !config.zeroing {
            features.push("skip_block_zeroing");
        }
        if !config.passdown {
            features.push("no_discard_passdown");
        }
        let pool = Pool {
            config: config.clone(),
            scarce: Mutex::default(),
            table: Mutex::default(),
            data_sectors: Mutex::new(config.pool_mib * 2048),
            features: Mutex::new(features),
            ids: Mutex::default(),
            past: Mutex::default(),
            tops: Mutex::default(),
        };
        dm::create("data", &pool.data_table())?;
        dm::create("pool", &pool.pool_table())?;
        Ok(pool)
    }

    /// Returns the number of the disk with the pool's data, as MAJOR:MINOR.
    pub fn disk_number(&self) -> Result<String> {
        let number = fs::read_to_string(format!("/sys/block/{DATA_DISK}/dev"))?;
        Ok(number.trim().to_owned())
    }

    fn data_table(&self) -> String {
        format!(
            "0 {} linear /dev/{DATA_DISK} 0",
            *self.data_sectors.lock().unwrap()
        )
    }

    /// Returns a table for the data device with which reads fail in every other piece of `sectors`
    /// sectors.
    fn faulty_table(&self, sectors: u64) -> String {
        let all = *self.data_sectors.lock().unwrap();
        let line = |(number, start): (usize, u64)| {
            let length = sectors.min(all - start);
            let what = match number % 2 {
                0 => format!("linear /dev/{DATA_DISK} {start}"),
                _ => format!("flakey /dev/{DATA_DISK} {start} 0 3600 1 error_reads"),
            };
            format!("{start} {length} {what}")
        };
        let starts = (0..all).step_by(sectors as usize);
        starts.enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Lets reads of the data fail for `time` in every other of a thousand pieces, which begin and
    /// end within blocks.
    pub fn fail_reads(&self, time: Duration) -> Result<()> {
        let _table = self.table.lock().unwrap();
        let pages = *self.data_sectors.lock().unwrap() / 8 / 1000;
        let file = "/tmp/faulty-table";
        std::fs::write(file, self.faulty_table((pages | 1) * 8))?;
        run("dmsetup", &["load", "data", file])?;
        dm::suspend("data", false)?;
        dm::resume("data")?;
        std::thread::sleep(time);
        Self::reload("data", &self.data_table())
    }

    fn pool_table(&self) -> String {
        let features = self.features.lock().unwrap();
        format!(
            "0 {} thin-pool /dev/{META_DISK} /dev/mapper/data {} 32 {} {}",
            *self.data_sectors.lock().unwrap(),
            self.config.block_sectors,
            features.len(),
            features.join(" ")
        )
    }

    /// Replaces a device's table under load.
    fn reload(device: &str, table: &str) -> Result<()> {
        dm::load(device, table)?;
        dm::suspend(device, false)?;
        dm::resume(device)
    }

    /// Reloads the pool's table under load.
    pub fn reload_pool(&self) -> Result<()> {
        let _table = self.table.lock().unwrap();
        Self::reload("pool", &self.pool_table())
    }

    /// Suspends the pool for `time`.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let _table = self.table.lock().unwrap();
        dm::suspend("pool", false)?;
        std::thread::sleep(time);
        dm::resume("pool")
    }

    /// Grows the pool if less than 16 MiB of it are free. The pool is kept small, so that freed
    /// blocks are soon used again, but must not run out of space: I/O that waits for space would
    /// keep the suspend of its device from finishing.
    pub fn keep_space(&self) -> Result<()> {
        let Ok(_scarce) = self.scarce.try_lock() else {
            return Ok(());
        };
        let (used, all) = self.usage()?;
        if all - used < 16 * 2048 && !self.grow(16)? {
            return Err(Error::other("the disk is full"));
        }
        Ok(())
    }

    /// Adds a feature to the pool's table, or removes it.
    pub fn pool_feature(&self, feature: &'static str, on: bool) -> Result<()> {
        let mut features = self.features.lock().unwrap();
        features.retain(|other| *other != feature);
        if on {
            features.push(feature);
        }
        drop(features);
        self.reload_pool()
    }

    /// Makes the pool's data device `mib` MiB larger, up to the size of its disk. Returns whether
    /// it has grown.
    pub fn grow(&self, mib: u64) -> Result<bool> {
        let _table = self.table.lock().unwrap();
        let mut sectors = self.data_sectors.lock().unwrap();
        let larger = (*sectors + mib * 2048).min(self.config.disk_mib * 2048);
        if larger == *sectors {
            return Ok(false);
        }
        *sectors = larger;
        drop(sectors);
        Self::reload("data", &self.data_table())?;
        Self::reload("pool", &self.pool_table())?;
        Ok(true)
    }

    /// Returns the sectors of the data blocks that are in use, and of all data blocks.
    pub fn usage(&self) -> Result<(u64, u64)> {
        let status = self.status()?;
        let blocks = status
            .split_whitespace()
            .nth(2)
            .and_then(|word| word.split_once('/'));
        let number = |text: &str| text.parse::<u64>().unwrap_or(0) * self.config.block_sectors;
        let (used, all) = blocks.ok_or_else(|| Error::other(format!("odd status: {status}")))?;
        Ok((number(used), number(all)))
    }

    /// Returns the pool's status line.
    pub fn status(&self) -> Result<String> {
        dm::status("pool", true)
    }

    /// Returns an unused thin id; if `reuse`, that of a deleted thin device if there is one.
    fn new_id(&self, reuse: bool) -> u32 {
        let mut ids = self.ids.lock().unwrap();
        if reuse && !ids.free.is_empty() {
            return ids.free.remove(0);
        }
        ids.next += 1;
        ids.next - 1
    }

    fn message(&self, text: &str) -> Result<()> {
        let _table = self.table.lock().unwrap();
        dm::message("pool", text)
    }

    /// Creates an empty thin device, and returns its id.
    pub fn thin_new(&self) -> Result<u32> {
        let id = self.new_id(false);
        self.message(&format!("create_thin {id}"))?;
        Ok(id)
    }

    /// Creates a snapshot of a thin device that isn't active, or is suspended, and returns its id,
    /// which may be that of a deleted thin device.
    pub fn thin_snap(&self, origin: u32) -> Result<u32> {
        let id = self.new_id(true);
        self.message(&format!("create_snap {id} {origin}"))?;
        Ok(id)
    }

    /// Deletes a thin device that isn't active.
    pub fn thin_delete(&self, id: u32) -> Result<()> {
        self.message(&format!("delete {id}"))?;
        self.ids.lock().unwrap().free.push(id);
        Ok(())
    }

    fn thin_table(id: u32, sectors: u64) -> String {
        format!("0 {sectors} thin /dev/mapper/pool {id}")
    }

    /// Activates a thin device.
    pub fn thin_open(&self, name: &str, id: u32, sectors: u64) -> Result<()> {
        let _table = self.table.lock().unwrap();
        dm::create(&format!("t-{name}"), &Self::thin_table(id, sectors))
    }

    /// Loads a table into a thin device, which becomes active when the device is resumed.
    pub fn thin_load(&self, name: &str, id: u32, sectors: u64) -> Result<()> {
        let _table = self.table.lock().unwrap();
        dm::load(&format!("t-{name}"), &Self::thin_table(id, sectors))
    }

    /// Reloads a thin device's table under load.
    pub fn thin_reload(&self, name: &str, id: u32, sectors: u64) -> Result<()> {
        let device = format!("t-{name}");
        self.thin_load(name, id, sectors)?;
        dm::suspend(&device, false)?;
        dm::resume(&device)
    }

    /// Deactivates a thin device.
    pub fn thin_close(&self, name: &str) -> Result<()> {
        dm::remove(&format!("t-{name}"))
    }

    fn top_table(&self, name: &str, sectors: u64, features: &[&str]) -> String {
        match self.config.target {
            Target::Linear => format!("0 {sectors} linear /dev/mapper/t-{name} 0"),
            Target::Drr if features.is_empty() => {
                format!("0 {sectors} drr /dev/mapper/t-{name}")
            }
            Target::Drr => {
                let (count, features) = (features.len(), features.join(" "));
                format!("0 {sectors} drr /dev/mapper/t-{name} {count} {features}")
            }
        }
    }

    /// Puts drr on a thin device.
    pub fn top_open(&self, name: &str, sectors: u64, features: &[&str]) -> Result<()> {
        dm::create(
            &format!("c-{name}"),
            &self.top_table(name, sectors, features),
        )?;
        self.tops.lock().unwrap().insert(name.to_owned(), sectors);
        Ok(())
    }

    /// Reloads a drr device's table under load; if `lockfs`, with the file system on it frozen.
    pub fn top_reload(&self, name: &str, features: &[&str], lockfs: bool) -> Result<()> {
        let device = format!("c-{name}");
        let tops = self.tops.lock().unwrap();
        let sectors = *tops
            .get(name)
            .ok_or_else(|| Error::other("no such device"))?;
        let table = self.top_table(name, sectors, features);
        dm::load(&device, &table)?;
        dm::suspend(&device, lockfs)?;
        self.keep_counters(name)?;
        dm::resume(&device)
    }

    /// Adds the counters of the drr device `name` to `sum`.
    fn add_counters(&self, sum: &mut Counters, name: &str) -> Result<()> {
        if self.config.target == Target::Drr {
            sum.add_status(&dm::status(&format!("c-{name}"), false)?);
        }
        Ok(())
    }

    /// Adds the counters of a drr device, whose table is about to go, to those of the past.
    fn keep_counters(&self, name: &str) -> Result<()> {
        self.add_counters(&mut self.past.lock().unwrap(), name)
    }

    /// Removes drr from a thin device.
    pub fn top_close(&self, name: &str) -> Result<()> {
        let mut tops = self.tops.lock().unwrap();
        self.keep_counters(name)?;
        dm::remove(&format!("c-{name}"))?;
        tops.remove(name);
        Ok(())
    }

    /// Returns the counters of all devices, past and present.
    pub fn counters(&self) -> Result<Counters> {
        let tops = self.tops.lock().unwrap();
        let mut sum = self.past.lock().unwrap().clone();
        for name in tops.keys() {
            self.add_counters(&mut sum, name)?;
        }
        Ok(sum)
    }

    /// Returns the numbers of tracked pages and of records of the module, which each device's
    /// status has.
    pub fn remembered(&self) -> Result<(u64, u64)> {
        if self.config.target == Target::Linear {
            return Ok((0, 0));
        }
        let tops = self.tops.lock().unwrap();
        let name = tops
            .keys()
            .next()
            .ok_or_else(|| Error::other("no device"))?;
        let line = dm::status(&format!("c-{name}"), false)?;
        let of = |name: &str| {
            let words = line.split_whitespace();
            let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next().and_then(|value| value.parse().ok())
        };
        match (of("tracked_pages"), of("records")) {
            (Some(pages), Some(records)) => Ok((pages, records)),
            _ => Err(Error::other(format!("odd status: {line}"))),
        }
    }

    /// Removes the pool and its disks. No thin device may be active.
    pub fn close(self) -> Result<()> {
        dm::remove("pool")?;
        dm::remove("data")?;
        disk_gone(DATA_DISK)?;
        disk_gone(META_DISK)
    }
}
