// SPDX-License-Identifier: GPL-2.0

//! What a look-up costs against the table's size.

use std::{
    fs,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use dm::{
    bits,
    directory::ReadRange,
    folio::{EventFolio, MappingId, ReadPages},
    tracepoint::FolioEvents,
};
use kernel::sync::rcu;

use crate::{
    access::{AccessTable, Block},
    layer::Who,
    random::Random,
};

const THREADS: u64 = 64;

/// Nanoseconds that this thread has had a CPU: others may want it too.
fn cpu_ns() -> u64 {
    let words = fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that counts");
    let word = words.split(' ').next().expect("three words");
    word.parse().expect("a number")
}

/// A table of `records` records, each of them `donors` times: as many layers have cached the same
/// pages.
struct Filled {
    table: AccessTable,
    /// Bytes of the empty table.
    empty: u64,
    stretches: u64,
    donors: u64,
}

/// Bytes of a record in the kernel; here they are a few more.
const RECORD_BYTES: u64 = 96;

/// Stretches of a block of 64 KiB are one; the table doesn't care for a block's size.
fn block(number: u64) -> Block {
    Block::new(1, number).expect("small numbers")
}

/// Which file of which layer holds a stretch: files of 4 MiB.
fn place(stretch: u64, donor: u64) -> (MappingId, u64) {
    let runs_a_file = 32;
    let file = stretch / runs_a_file * 16 + donor;
    // As far apart as inodes are.
    let mapping = MappingId::made_up(0xffff_8880_0000_0000 + file * 1_088);
    (mapping, stretch % runs_a_file * u64::from(bits::PAGES))
}

impl Filled {
    /// Also says how many nanoseconds a record took.
    fn new(records: u64, donors: u64) -> (Self, f64) {
        let table = AccessTable::new().expect("memory");
        let it = Self {
            empty: table.usage().2,
            table,
            stretches: records / donors,
            donors,
        };
        let (next, spent) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let start = cpu_ns();
                    loop {
                        let from = next.fetch_add(1024, Relaxed);
                        if from >= records {
                            break;
                        }
                        for record in from..(from + 1024).min(records) {
                            it.record(record / donors, record % donors);
                        }
                    }
                    spent.fetch_add(cpu_ns() - start, Relaxed);
                });
            }
        });
        assert_eq!(it.table.usage().0, records);
        let spent = spent.into_inner();
        (it, spent as f64 / records as f64)
    }

    fn record(&self, stretch: u64, donor: u64) {
        let (mapping, first) = place(stretch, donor);
        let range = ReadRange::new(&ReadPages::new(mapping, first, 16, 0));
        self.table
            .record(&block(stretch), 0, range, donor as u32, Who::default());
    }

    /// Nanoseconds of a call, with all threads calling at once.
    fn time(&self, time: Duration, call: impl Fn(&Self, &mut Random) + Sync) -> f64 {
        let (calls, spent, start) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (calls, spent, call) = (&calls, &spent, &call);
                scope.spawn(move || {
                    let mut random = Random(number << 40);
                    let mut done = 0;
                    let cpu = cpu_ns();
                    while start.elapsed() < time {
                        for _ in 0..512 {
                            call(self, &mut random);
                        }
                        done += 512;
                    }
                    calls.fetch_add(done, Relaxed);
                    spent.fetch_add(cpu_ns() - cpu, Relaxed);
                });
            }
        });
        spent.into_inner() as f64 / calls.into_inner() as f64
    }

    fn look_up(&self, stretch: u64) -> u32 {
        let guard = rcu::read_lock();
        let (mut donors, at) = self.table.donors(&guard, &block(stretch), 0);
        donors.next().map_or(0, |donor| donor.pages_from(at))
    }

    fn hit(&self, random: &mut Random) {
        assert_eq!(self.look_up(random.below(self.stretches)), 16);
    }

    fn miss(&self, random: &mut Random) {
        let stretch = self.stretches + random.below(1 << 30);
        assert_eq!(black_box(self.look_up(stretch)), 0);
    }

    /// A page-cache event of a file that has records, for a page that has none.
    fn event(&self, random: &mut Random) {
        let stretch = random.below(self.stretches);
        let (mapping, first) = place(stretch, random.below(self.donors));
        let folio = EventFolio::made_up(mapping, (first + 20, first + 20));
        self.table.directory().removed(folio);
    }

    /// A folio leaves, and is read again.
    fn replace(&self, random: &mut Random) {
        let (stretch, donor) = (random.below(self.stretches), random.below(self.donors));
        let (mapping, first) = place(stretch, donor);
        let folio = EventFolio::made_up(mapping, (first, first + 15));
        self.table.directory().removed(folio);
        self.record(stretch, donor);
    }
}

/// A row of the table: GiB of memory, records, donors of each stretch.
fn row(gib: usize, records: u64, donors: u64, time: Duration) {
    dm::set_ram_pages(gib << 18);
    let (filled, fill) = Filled::new(records, donors);
    // A bucket is 16 bytes, and what else there is are few.
    let buckets = 1u64 << (filled.empty / 16).ilog2();
    let mut figures = [[0.0; 3]; 4];
    for round in 0..3 {
        figures[0][round] = filled.time(time, Filled::hit);
        figures[1][round] = filled.time(time, Filled::miss);
        figures[2][round] = filled.time(time, Filled::event);
        figures[3][round] = filled.time(time, Filled::replace);
    }
    let cells = figures.map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        format!("{:.0} ({:.0}-{:.0})", rounds[1], rounds[0], rounds[2])
    });
    let bytes = filled.empty + records * RECORD_BYTES;
    println!(
        "{gib:>4} {buckets:>8} {records:>9} {donors:>6} {:>6.1} {:>5} {fill:>6.0}  {}",
        records as f64 / buckets as f64,
        bytes >> 20,
        cells.map(|cell| format!("{cell:>20}")).concat()
    );
}

/// Prints the table, without the rows that have more than `most` records.
pub fn run(time: Duration, most: u64) {
    println!("nanoseconds of a CPU, {THREADS} threads, median (range) of three rounds");
    println!(
        " GiB  buckets   records donors /bucket  MiB   fill  {:>20}{:>20}{:>20}{:>20}",
        "look-up, found", "look-up, not found", "event, no record", "leave and enter"
    );
    for (gib, records, donors) in [
        (128, 1_000, 1),
        (128, 10_000, 1),
        (128, 100_000, 1),
        (128, 1_000_000, 1),
        // As many containers have read the same; the table wants no more than 16 of them.
        (128, 1_000_000, 10),
        (128, 1_000_000, 16),
        (128, 10_000_000, 1),
        (1024, 10_000_000, 1),
        // Each page of the machine is a record: the longest chains that there can be.
        (4, 1_000_000, 1),
        (40, 10_000_000, 1),
    ] {
        if records <= most {
            row(gib, records, donors, time);
        }
    }
}
