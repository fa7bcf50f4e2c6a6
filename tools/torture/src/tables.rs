// SPDX-License-Identifier: GPL-2.0

//! Tables of any shape: several of drr's targets and others in one device, loaded, replaced before
//! they are active and refused, with I/O at all their edges.
//!
//! What each sector of the thin devices below must hold is kept here. Thin devices are only
//! written through the tables meanwhile.

use std::fmt;
use std::fs::File;
use std::io::{Error, Result, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use fastrand::Rng;

use crate::dm;
use crate::sys::{self, Buffer};

const SECTOR: usize = 512;
/// Longest transfer, in sectors.
const MOST: u64 = 300;
/// Pages, blocks of 64 KiB and whole-block writes begin and end here and there.
const LENGTHS: [u64; 14] = [1, 2, 7, 8, 9, 15, 120, 127, 128, 129, 136, 1000, 1024, 4099];
const FEATURES: [&str; 4] = ["no_donate", "no_receive", "paranoid", "keep_copies"];
pub const USAGE: &str = "usage: drr-torture tables SEED COUNT DEVICE THIN_DEVICE...";

/// A thin device, of which nothing else has a table meanwhile that writes.
struct Thin {
    path: String,
    device: File,
    content: Vec<u8>,
}

impl Thin {
    fn new(path: String) -> Result<Self> {
        let device = sys::open(Path::new(&path), libc::O_RDWR | libc::O_DIRECT)?;
        let mut thin = Self {
            path,
            device,
            content: Vec::new(),
        };
        let len = thin.device.seek(SeekFrom::End(0))?;
        thin.content = read(&thin.device, 0..len / SECTOR as u64)?;
        Ok(thin)
    }

    fn sectors(&self) -> u64 {
        (self.content.len() / SECTOR) as u64
    }

    /// What a discard has left: it may have done nothing for some of the sectors.
    fn discarded(&mut self, sectors: Range<u64>) -> Result<()> {
        let now = read(&self.device, sectors.clone())?;
        let before = &mut self.content[bytes(&sectors)];
        for (sector, (now, before)) in now
            .chunks(SECTOR)
            .zip(before.chunks_mut(SECTOR))
            .enumerate()
        {
            if now != before && now.iter().any(|&byte| byte != 0) {
                let sector = sectors.start + sector as u64;
                let text = format!(
                    "{}: sector {sector} is wrong after a discard of {sectors:?}",
                    self.path
                );
                return Err(Error::other(text));
            }
            before.copy_from_slice(now);
        }
        Ok(())
    }
}

fn bytes(sectors: &Range<u64>) -> Range<usize> {
    sectors.start as usize * SECTOR..sectors.end as usize * SECTOR
}

fn read(device: &File, sectors: Range<u64>) -> Result<Vec<u8>> {
    let len = (sectors.end - sectors.start) as usize * SECTOR;
    let mut buffer = Buffer::new(len);
    let into = buffer.bytes_mut(len);
    sys::pread(device, into, sectors.start * SECTOR as u64, 0)?;
    Ok(into.to_vec())
}

#[derive(Clone, Copy)]
enum Kind {
    /// Of that thin device, from its first sector on.
    Drr {
        thin: usize,
    },
    /// From that sector on.
    Linear {
        thin: usize,
        from: u64,
    },
    Zero,
    Error,
}

struct Target {
    start: u64,
    sectors: u64,
    kind: Kind,
    features: Vec<&'static str>,
}

impl Target {
    fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.sectors)
    }

    /// Where these of its sectors are: on which thin device, and which they are there.
    fn place_below(&self, sectors: &Range<u64>) -> Option<(usize, Range<u64>)> {
        let (thin, from) = match self.kind {
            Kind::Drr { thin } => (thin, 0),
            Kind::Linear { thin, from } => (thin, from),
            Kind::Zero | Kind::Error => return None,
        };
        let below = |sector| sector - self.start + from;
        Some((thin, below(sectors.start)..below(sectors.end)))
    }
}

/// A device's table.
struct Table<'a> {
    targets: Vec<Target>,
    paths: &'a [String],
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, target) in self.targets.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{} {} ", target.start, target.sectors)?;
            match target.kind {
                Kind::Drr { thin } => write!(f, "drr {}", self.paths[thin])?,
                Kind::Linear { thin, from } => write!(f, "linear {} {from}", self.paths[thin])?,
                Kind::Zero => write!(f, "zero ")?,
                Kind::Error => write!(f, "error ")?,
            }
            if !target.features.is_empty() {
                write!(
                    f,
                    " {} {}",
                    target.features.len(),
                    target.features.join(" ")
                )?;
            }
        }
        Ok(())
    }
}

impl<'a> Table<'a> {
    /// Makes a table that is right, on thin devices of at least `most` sectors.
    fn right(rng: &mut Rng, paths: &'a [String], most: u64) -> Self {
        let mut start = 0;
        let targets = (0..rng.u64(1..=6))
            .map(|_| {
                let sectors = match rng.u32(0..4) {
                    0 => rng.u64(1..=most),
                    _ => rng.choice(LENGTHS).expect("some").min(most),
                };
                let thin = rng.usize(0..paths.len());
                let mut features = Vec::new();
                let kind = match rng.u32(0..10) {
                    0..=5 => {
                        features.extend(FEATURES.iter().filter(|_| rng.u32(0..6) == 0));
                        Kind::Drr { thin }
                    }
                    6 | 7 => Kind::Linear {
                        thin,
                        from: rng.u64(0..=most - sectors),
                    },
                    8 => Kind::Zero,
                    _ => Kind::Error,
                };
                start += sectors;
                Target {
                    start: start - sectors,
                    sectors,
                    kind,
                    features,
                }
            })
            .collect();
        Self { targets, paths }
    }

    /// Makes a table with a mistake in it.
    fn wrong(rng: &mut Rng, paths: &'a [String], most: u64) -> Self {
        let mut table = Self::right(rng, paths, most);
        let at = rng.usize(0..table.targets.len());
        let target = &mut table.targets[at];
        match rng.u32(0..5) {
            0 => target.start += rng.u64(1..3),
            1 => target.start = target.start.wrapping_sub(1),
            2 => target.sectors = 0,
            3 => {
                target.kind = Kind::Drr { thin: 0 };
                target.sectors =
                    most + 1 + rng.choice([0, 1, 1 << 32, (1 << 55) - most]).expect("some");
            }
            _ => target.features = vec!["no_donate", "no_donate"],
        }
        if target.features.len() == 2 && !matches!(target.kind, Kind::Drr { .. }) {
            target.kind = Kind::Drr { thin: 0 };
            target.sectors = target.sectors.min(most);
        }
        table
    }

    fn end(&self) -> u64 {
        self.targets.last().map_or(0, |last| last.range().end)
    }

    /// The targets that have some of `sectors`, and what of these each has.
    fn parts(&self, sectors: &Range<u64>) -> Vec<(&Target, Range<u64>)> {
        let part = |target: &Target| {
            let range = target.range();
            range.start.max(sectors.start)..range.end.min(sectors.end)
        };
        let parts = self.targets.iter().map(|target| (target, part(target)));
        parts.filter(|(_, part)| !part.is_empty()).collect()
    }

    fn has_error(&self, sectors: &Range<u64>) -> bool {
        self.parts(sectors)
            .iter()
            .any(|(target, _)| matches!(target.kind, Kind::Error))
    }

    /// What `sectors` must hold.
    fn content(&self, thins: &[Thin], sectors: &Range<u64>) -> Vec<u8> {
        let mut content = Vec::new();
        for (target, part) in self.parts(sectors) {
            match target.place_below(&part) {
                Some((thin, range)) => content.extend(&thins[thin].content[bytes(&range)]),
                None => content.resize(content.len() + bytes(&part).len(), 0),
            }
        }
        content
    }

    /// `sectors` hold `content` from now on.
    fn put(&self, thins: &mut [Thin], sectors: &Range<u64>, content: &[u8]) {
        let mut content = content;
        for (target, part) in self.parts(sectors) {
            let (here, rest) = content.split_at(bytes(&part).len());
            if let Some((thin, range)) = target.place_below(&part) {
                thins[thin].content[bytes(&range)].copy_from_slice(here);
            }
            content = rest;
        }
    }
}

/// The device under test, with an active table.
struct Device<'a> {
    name: &'a str,
    table: &'a Table<'a>,
    direct: File,
    done: &'a mut Done,
}

/// How often what was done.
#[derive(Default)]
struct Done {
    accepted: u64,
    refused: u64,
    replaced: u64,
    reads: u64,
    writes: u64,
    discards: u64,
    errors: u64,
}

/// Fails unless a request ended as it should: with an error if it was for an error target's sectors, too.
fn expect<T>(what: &str, sectors: &Range<u64>, fails: bool, result: &Result<T>) -> Result<()> {
    match (result, fails) {
        (Ok(_), false) => Ok(()),
        (Err(error), true) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
        (Ok(_), true) => Err(Error::other(format!("{what} of {sectors:?} should fail"))),
        (Err(error), _) => Err(Error::other(format!("{what} of {sectors:?}: {error}"))),
    }
}

impl Device<'_> {
    fn path(&self) -> String {
        format!("/dev/mapper/{}", self.name)
    }

    fn compare(&self, thins: &[Thin], what: &str, sectors: &Range<u64>, got: &[u8]) -> Result<()> {
        let want = self.table.content(thins, sectors);
        let wrong = want.chunks(SECTOR).zip(got.chunks(SECTOR));
        match wrong.into_iter().position(|(want, got)| want != got) {
            None if want.len() == got.len() => Ok(()),
            None => Err(Error::other(format!(
                "{what} of {sectors:?} has another length"
            ))),
            Some(at) => {
                let sector = sectors.start + at as u64;
                Err(Error::other(format!(
                    "{what} of {sectors:?}: sector {sector} is wrong"
                )))
            }
        }
    }

    fn read(
        &mut self,
        thins: &[Thin],
        file: &File,
        what: &str,
        sectors: &Range<u64>,
    ) -> Result<()> {
        let fails = self.table.has_error(sectors);
        let result = read(file, sectors.clone());
        expect(what, sectors, fails, &result)?;
        self.done.errors += u64::from(fails);
        self.done.reads += u64::from(!fails);
        match result {
            Ok(got) => self.compare(thins, what, sectors, &got),
            Err(_) => Ok(()),
        }
    }

    fn write(&mut self, rng: &mut Rng, thins: &mut [Thin], sectors: &Range<u64>) -> Result<()> {
        let len = bytes(sectors).len();
        let mut buffer = Buffer::new(len);
        let content = buffer.bytes_mut(len);
        rng.fill(content);
        let result = sys::pwrite(&self.direct, content, sectors.start * SECTOR as u64, 0);
        expect("a write", sectors, false, &result)?;
        self.table.put(thins, sectors, content);
        self.done.writes += 1;
        Ok(())
    }

    fn discard(&mut self, thins: &mut [Thin], sectors: &Range<u64>) -> Result<()> {
        let (offset, len) = (sectors.start * SECTOR as u64, bytes(sectors).len() as u64);
        match sys::discard(&self.direct, offset, len) {
            // Of the table, as one of the targets doesn't.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
            result => expect("a discard", sectors, false, &result)?,
        }
        self.done.discards += 1;
        for (target, part) in self.table.parts(sectors) {
            if let Some((thin, range)) = target.place_below(&part) {
                thins[thin].discarded(range)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, thins: &mut [Thin], sectors: &Range<u64>) -> Result<()> {
        let (offset, len) = (sectors.start * SECTOR as u64, bytes(sectors).len());
        expect(
            "zeroes",
            sectors,
            false,
            &sys::zero_out(&self.direct, offset, len as u64),
        )?;
        self.table.put(thins, sectors, &vec![0; len]);
        self.done.writes += 1;
        Ok(())
    }

    /// One transfer at a place where something begins or ends.
    fn step(&mut self, rng: &mut Rng, thins: &mut [Thin], edge: u64) -> Result<()> {
        let end = self.table.end();
        let before = rng.choice([0, 0, 1, 3, 8, 127, 128]).expect("some");
        let start = edge.saturating_sub(before).min(end - 1);
        let len = rng.choice([1, 2, 7, 8, 16, 128, 136, MOST]).expect("some");
        let sectors = start..start.saturating_add(len).min(end);
        let fails = self.table.has_error(&sectors);
        let direct = self.direct.try_clone()?;
        match rng.u32(0..10) {
            0..=3 => self.read(thins, &direct, "a read", &sectors),
            4 | 5 if !fails => self.write(rng, thins, &sectors),
            6 if !fails => self.discard(thins, &sectors),
            7 if !fails => self.zero(thins, &sectors),
            8 => {
                let result = direct.sync_all();
                expect("a flush", &(0..end), false, &result)
            }
            9 => {
                sys::pread(&direct, &mut [], sectors.start * SECTOR as u64, 0)?;
                let mut buffer = Buffer::new(SECTOR);
                let beyond = direct.read_at(buffer.bytes_mut(SECTOR), end * SECTOR as u64)?;
                match beyond {
                    0 => Ok(()),
                    _ => Err(Error::other("a read beyond the end gave something")),
                }
            }
            _ => self.read(thins, &direct, "a read", &sectors),
        }
    }

    /// Reads through the page cache, which has none of the device before: two targets may be of one thin device.
    fn read_cached(&mut self, thins: &[Thin]) -> Result<()> {
        // Its pages may reach into a target that only has errors.
        if self.table.has_error(&(0..self.table.end())) {
            return Ok(());
        }
        sys::flush_buffers(&self.direct)?;
        let file = File::open(self.path())?;
        for edge in self.edges() {
            let start = edge.saturating_sub(9).min(self.table.end() - 1);
            let sectors = start..start.saturating_add(40).min(self.table.end());
            self.read(thins, &file, "a cached read", &sectors)?;
        }
        Ok(())
    }

    fn edges(&self) -> Vec<u64> {
        let starts = self.table.targets.iter().map(|target| target.start);
        starts.chain([self.table.end()]).collect()
    }
}

/// Reads what is there until it is told to stop, whatever comes of it.
fn disturb(path: &str, stop: &AtomicBool) -> Result<()> {
    let device = sys::open(Path::new(path), libc::O_RDONLY | libc::O_DIRECT)?;
    let mut buffer = Buffer::new(8 * SECTOR);
    let mut at = 0;
    while !stop.load(Relaxed) {
        let _ = device.read_at(buffer.bytes_mut(8 * SECTOR), at);
        at = (at + 8 * SECTOR as u64) % (1 << 20);
    }
    Ok(())
}

/// Makes a table the active one while the device is read; sometimes one or two others are loaded before.
fn activate(
    rng: &mut Rng,
    name: &str,
    table: &Table<'_>,
    others: &[Table<'_>],
    done: &mut Done,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let path = format!("/dev/mapper/{name}");
    thread::scope(|scope| {
        let reader = scope.spawn(|| disturb(&path, &stop));
        let result = others
            .iter()
            .try_for_each(|other| {
                done.replaced += 1;
                dm::load(name, &other.to_string())
            })
            .and_then(|()| dm::load(name, &table.to_string()))
            .and_then(|()| match rng.bool() {
                true => dm::suspend(name, rng.bool()),
                false => Ok(()),
            })
            .and_then(|()| dm::resume(name));
        stop.store(true, Relaxed);
        reader.join().expect("no panic").and(result)
    })
}

/// Tries `count` tables.
fn try_all(rng: &mut Rng, count: u64, name: &str, paths: &[String], done: &mut Done) -> Result<()> {
    let mut thins = paths
        .iter()
        .cloned()
        .map(Thin::new)
        .collect::<Result<Vec<_>>>()?;
    let most = thins.iter().map(Thin::sectors).min().expect("one at least");
    for number in 0..count {
        let wrong = Table::wrong(rng, paths, most);
        if dm::load(name, &wrong.to_string()).is_ok() {
            return Err(Error::other(format!(
                "table {number} should be refused:\n{wrong}"
            )));
        }
        done.refused += 1;
        let others: Vec<_> = (0..rng.u32(0..3))
            .map(|_| Table::right(rng, paths, most))
            .collect();
        let table = Table::right(rng, paths, most);
        let tried = activate(rng, name, &table, &others, done).and_then(|()| {
            done.accepted += 1;
            let path = format!("/dev/mapper/{name}");
            let mut device = Device {
                name,
                table: &table,
                direct: sys::open(Path::new(&path), libc::O_RDWR | libc::O_DIRECT)?,
                done: &mut *done,
            };
            device.read_cached(&thins)?;
            for edge in device.edges() {
                for _ in 0..8 {
                    device.step(rng, &mut thins, edge)?;
                }
            }
            device.read_cached(&thins)
        });
        tried.map_err(|error| Error::other(format!("table {number}: {error}\n{table}")))?;
    }
    for thin in &thins {
        if read(&thin.device, 0..thin.sectors())? != thin.content {
            return Err(Error::other(format!("{} isn't as it should be", thin.path)));
        }
    }
    Ok(())
}

/// Runs with the words after `tables`; the exit status.
pub fn run(words: &[String]) -> i32 {
    let numbers: Vec<u64> = words
        .iter()
        .take(2)
        .map_while(|word| word.parse().ok())
        .collect();
    let ([seed, count], [_, _, name, paths @ ..]) = (&numbers[..], words) else {
        eprintln!("{USAGE}");
        return 2;
    };
    let mut done = Done::default();
    let result = try_all(&mut Rng::with_seed(*seed), *count, name, paths, &mut done);
    let Done {
        accepted,
        refused,
        replaced,
        reads,
        writes,
        discards,
        errors,
    } = done;
    println!(
        "tables: {accepted} active, {refused} refused, {replaced} replaced; {reads} reads, {writes} writes, {discards} discards, {errors} errors that had to be"
    );
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("drr-torture: seed {seed}: {error}");
            1
        }
    }
}
