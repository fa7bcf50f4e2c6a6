// SPDX-License-Identifier: GPL-2.0

//! What a look-up costs against the table's size, and what the table takes.

use std::{
    fs,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use dm::{
    pagecache::cached_pages::CachedPages,
    pagecache::content::Digest,
    pagecache::folio::{EventFolio, MappingId, ReadPages},
    pagecache::page_bitmap,
};
use kernel::sync::rcu;

use crate::{
    access::name::{Block, Holder},
    access::table::AccessTable,
    fuzz::empty_table,
    layers::id::LayerId,
    random::Random,
};

const THREADS: u64 = 64;

/// Nanoseconds that this thread has had a CPU: others may want it too.
pub(crate) fn cpu_ns() -> u64 {
    let words = fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that counts");
    let word = words.split(' ').next().expect("three words");
    word.parse().expect("a number")
}

/// A table of `records` records, each of them `donors` times: as many layers have cached the same
/// pages.
struct Filled {
    table: AccessTable,
    stretches: u64,
    donors: u64,
}

/// Stretches of a block of 64 KiB are one; the table doesn't care for a block's size.
fn block(number: u64) -> Block {
    Block::new(1, number, 0).expect("small numbers")
}

/// Stretches of a file: files of 4 MiB.
const FILE_RUNS: u64 = 64;
/// Pages of a stretch.
const RUN: u64 = page_bitmap::PAGES as u64;

/// Which file of which layer holds a stretch.
fn place(stretch: u64, donor: u64) -> (MappingId, u64) {
    let file = stretch / FILE_RUNS * 16 + donor;
    // As far apart as inodes are.
    let mapping = MappingId::made_up(0xffff_8880_0000_0000 + file * 1_088);
    (mapping, stretch % FILE_RUNS * RUN)
}

/// Records the first `pages` pages of a stretch.
fn record(table: &AccessTable, stretch: u64, donor: u64, pages: u32) {
    let (mapping, first) = place(stretch, donor);
    let digests: [_; RUN as usize] =
        core::array::from_fn(|at| Digest::from_bits(stretch * RUN + at as u64 + 1));
    let holder = Holder {
        target_id: donor as u32,
        layer: LayerId::default(),
    };
    let pages = CachedPages::read(&ReadPages::new(mapping, first, pages, 0));
    table.record(&block(stretch), 0, &pages, &digests, holder);
}

impl Filled {
    /// Also says how many nanoseconds a record took.
    fn new(records: u64, donors: u64) -> (Self, f64) {
        let table = empty_table();
        let it = Self {
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
        record(&self.table, stretch, donor, page_bitmap::PAGES);
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
        let mut donors = self.table.donors(&guard, &block(stretch), 0);
        donors.next().map_or(0, |donor| donor.pages_from(0))
    }

    fn hit(&self, random: &mut Random) {
        assert_eq!(
            self.look_up(random.below(self.stretches)),
            page_bitmap::PAGES
        );
    }

    fn miss(&self, random: &mut Random) {
        let stretch = self.stretches + random.below(1 << 30);
        assert_eq!(black_box(self.look_up(stretch)), 0);
    }

    fn remove(&self, mapping: MappingId, first: u64, pages: u64) -> u32 {
        let folio = EventFolio::made_up(mapping, (first, first + pages - 1));
        self.table.directory().folio_removed(&folio)
    }

    /// A page-cache event of a file that has records, for a page that has none.
    fn event(&self, random: &mut Random) {
        let stretch = random.below(self.stretches);
        let (mapping, _) = place(stretch, random.below(self.donors));
        assert_eq!(
            self.remove(mapping, (FILE_RUNS + stretch % FILE_RUNS) * RUN, 1),
            0
        );
    }

    /// A folio leaves, and is read again.
    fn replace(&self, random: &mut Random) {
        let (stretch, donor) = (random.below(self.stretches), random.below(self.donors));
        let (mapping, first) = place(stretch, donor);
        self.remove(mapping, first, RUN);
        self.record(stretch, donor);
    }
}

/// A row of the table: GiB of memory, records, donors of each stretch.
fn row(gib: usize, records: u64, donors: u64, time: Duration) {
    dm::set_ram_pages(gib << 18);
    let (filled, fill) = Filled::new(records, donors);
    let buckets = 1u64 << ((gib << 18) / 32).ilog2();
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
    let (_, _, bytes) = filled.table.usage();
    println!(
        "{gib:>4} {buckets:>8} {records:>9} {donors:>6} {:>6.1} {:>5} {fill:>6.0}  {}",
        records as f64 / buckets as f64,
        bytes >> 20,
        cells.map(|cell| format!("{cell:>20}")).concat()
    );
}

/// Bytes of the table for each page on record, without what it takes when it is empty: `donors` have
/// `pages` pages of each stretch.
fn bytes_each(donors: u64, pages: u32) -> f64 {
    const STRETCHES: u64 = 1000;

    let table = empty_table();
    let (_, _, empty) = table.usage();
    for stretch in 0..STRETCHES {
        for donor in 0..donors {
            record(&table, stretch, donor, pages);
        }
    }
    let (records, all, bytes) = table.usage();
    assert_eq!(records, STRETCHES * donors);
    assert_eq!(all, records * u64::from(pages));
    (bytes - empty) as f64 / all as f64
}

/// Prints how many bytes a page takes.
fn print_bytes() {
    println!(
        "bytes for a page on record, in the kernel's slabs and without tables of a fixed size"
    );
    println!("{:>20}{:>10}{:>10}{:>10}", "donors", 1, 8, 16);
    for pages in [page_bitmap::PAGES, page_bitmap::PAGES / 4, 1] {
        let cells = [1, 8, 16].map(|donors| format!("{:>10.1}", bytes_each(donors, pages)));
        println!(
            "{pages:>7} of {} pages{}",
            page_bitmap::PAGES,
            cells.concat()
        );
    }
}

/// Prints the tables, without the rows that have more than `most` records.
pub fn run(time: Duration, most: u64) {
    print_bytes();
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
        (1024, 10_000_000, 1),
        // As many as the table takes in: its share of the machine's memory.
        (4, 220_000, 1),
        (4, 600_000, 16),
        (128, 7_000_000, 1),
    ] {
        if records <= most {
            row(gib, records, donors, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A digest for each page must not cost more than that.
    #[test]
    fn a_page_takes_few_bytes() {
        for (donors, pages, most) in [(1, page_bitmap::PAGES, 20.0), (8, page_bitmap::PAGES, 11.0)]
        {
            let bytes = bytes_each(donors, pages);
            assert!(bytes <= most, "{bytes} bytes a page with {donors} donors");
        }
    }
}
