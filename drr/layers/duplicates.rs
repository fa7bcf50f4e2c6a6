// SPDX-License-Identifier: GPL-2.0

//! What is cached more than once: pages of a pool's blocks that are in several page caches.
//!
//! The [access table](crate::access::table) knows each cached page that was read from a shared
//! block, so no page is searched for by content. A page that was modified since counts until a copy
//! of it fails the proof, or the page leaves the page cache. Copies appear and disappear while they
//! are counted.

use core::fmt::{self, Write};

use kernel::prelude::*;

use dm::{pagecache::cached_extent::Holders, pagecache::folio::PAGE_SHIFT, pagecache::page_bitmap};

use crate::{
    access::name::{BlockExtent, Holder},
    access::table::AccessTable,
    layers::id::LayerId,
    layers::layer_counters::LayerCounters,
};

/// Pages with this many copies or more are counted together: the table knows no more of most pages.
const MOST_COPIES: usize = 16;

/// Layers that are told apart, except for a few if their rows are taken (`LayerCounters::of()`):
/// more than a machine has containers.
const LAYERS: usize = 4096;

/// Lines of an answer, about, so that it takes a few hundred KiB; the answer says where the next
/// one begins.
const LINES: u32 = 4096;

/// Counters of cached pages, by number of copies and by layer.
struct Tally {
    copies: [u64; MOST_COPIES],
    /// Pages in a layer's page caches; of these, pages of which there is a newer copy.
    layers: LayerCounters<2>,
}

impl Tally {
    /// Creates counters that are all zero. Fails with `ENOMEM`.
    fn new() -> Result<Self> {
        Ok(Self {
            copies: [0; MOST_COPIES],
            layers: LayerCounters::for_once(LAYERS)?,
        })
    }

    /// Counts the copies of an extent, the newest first: for each, the layer whose page cache has
    /// the copy, and the pages.
    fn add(&mut self, copies: impl Iterator<Item = (LayerId, u32)>) {
        let mut count = [0usize; page_bitmap::PAGES as usize];
        let mut seen = 0;
        for (who, pages) in copies {
            let (all, extra) = (pages.count_ones(), (pages & seen).count_ones());
            self.layers
                .of(Some(who))
                .add(0, &[all.into(), extra.into()]);
            seen |= pages;
            for (page, count) in count.iter_mut().enumerate() {
                // RANGE: One bit of each copy; `page` is less than a mask's bits.
                *count += (pages >> page & 1) as usize;
            }
        }
        for count in count.into_iter().filter(|count| *count != 0) {
            // RANGE: Not 0. Each stands for a record, which is in memory.
            self.copies[count.min(MOST_COPIES) - 1] += 1;
        }
    }

    fn print(&self, pool: u64, out: &mut dyn Write) -> fmt::Result {
        writeln!(
            out,
            "drr-duplicates 1 pool={pool} page_bytes={}",
            1 << PAGE_SHIFT
        )?;
        for (at, pages) in self.copies.iter().enumerate() {
            // RANGE: At most `MOST_COPIES`.
            match (at + 1, pages) {
                (_, 0) => {}
                (MOST_COPIES, _) => writeln!(out, "copies {MOST_COPIES} - {pages}")?,
                (times, _) => writeln!(out, "copies {times} {times} {pages}")?,
            }
        }
        for row in self.layers.all() {
            row.print("layer", out)?;
        }
        Ok(())
    }
}

/// Returns the copies of an extent, the newest first.
fn copies<'a, 'g>(
    holders: &'a Holders<'g, BlockExtent, Holder>,
) -> impl Iterator<Item = (LayerId, u32)> + use<'a, 'g> {
    holders
        .donors()
        .map(|donor| (donor.holder().layer, donor.pages()))
}

/// Prints the figures of a pool, in the format of `include/uapi/linux/dm-drr.h`. Process context;
/// fails with `ENOMEM`, or with `EIO` if they can't be printed.
pub(crate) fn print(table: &AccessTable, pool: u64, out: &mut dyn Write) -> Result {
    let mut tally = Tally::new()?;
    table.directory().each_name(0, usize::MAX, |holders| {
        if u64::from(holders.name().pool()) == pool {
            tally.add(copies(&holders));
        }
        true
    });
    tally.print(pool, out).map_err(|_| EIO)
}

/// Prints which pages are cached more than once, and where: from bucket `from` of the table on, as
/// many as fit into an answer. Process context; fails with `EIO` if they can't be printed.
pub(crate) fn list(table: &AccessTable, pool: u64, from: u32, out: &mut dyn Write) -> Result {
    let mut list = || {
        writeln!(out, "drr-copies 1 pool={pool}")?;
        let (mut lines, mut result) = (0, Ok(()));
        // CAST: A bucket's number; there are at most 2^26.
        let next = table
            .directory()
            .each_name(from as usize, usize::MAX, |holders| {
                if u64::from(holders.name().pool()) == pool {
                    result = result.and_then(|()| print_copies(&holders, &mut lines, out));
                }
                lines < LINES && result.is_ok()
            });
        result?;
        match next {
            Some(next) => writeln!(out, "next {next}"),
            None => writeln!(out, "next -"),
        }
    };
    list().map_err(|_: fmt::Error| EIO)
}

/// Prints a line for each sequence of pages in a copy of an extent that are cached more than once.
// RANGE: Numbers of pages are those of one block. `list` stops at a number of lines, and an extent
// has few copies.
fn print_copies(
    holders: &Holders<'_, BlockExtent, Holder>,
    lines: &mut u32,
    out: &mut dyn Write,
) -> fmt::Result {
    let (mut seen, mut again) = (0, 0);
    for (_, pages) in copies(holders) {
        again |= seen & pages;
        seen |= pages;
    }
    if again == 0 {
        return Ok(());
    }
    let (block, first) = holders.name().place();
    for (who, pages) in copies(holders) {
        let mut left = pages & again;
        while left != 0 {
            let begin = left.trailing_zeros();
            let count = (left >> begin).trailing_ones();
            left &= !page_bitmap::mask(begin, count);
            let LayerId { serial, thin_id } = who;
            writeln!(
                out,
                "copy {block} {} {count} {serial} {thin_id}",
                first + begin
            )?;
            *lines += 1;
        }
    }
    Ok(())
}

#[kunit_tests(drr_duplicates)]
mod tests {
    use super::*;
    use dm::target::status_buffer::printed;

    fn who(serial: u32) -> LayerId {
        LayerId {
            serial,
            thin_id: serial + 100,
        }
    }

    #[test]
    fn copies_are_counted() -> Result {
        let mut buffer = [0; 512];
        let mut tally = Tally::new()?;
        tally.add([(who(1), 0b1111), (who(2), 0b0110), (who(3), 0b0011)].into_iter());
        tally.add([(who(2), 0xffff)].into_iter());
        tally.add([(who(0), 1 << 15), (who(1), 1 << 15)].into_iter());
        tally.add([(who(1), 1); 40].into_iter());
        let text = printed(&mut buffer, |out| tally.print(7, out))?;
        let mut lines = text.split(|byte| *byte == b'\n');
        for line in [
            &b"drr-duplicates 1 pool=7 page_bytes=4096"[..],
            b"copies 1 1 17",
            b"copies 2 2 3",
            b"copies 3 3 1",
            b"copies 16 - 1",
        ] {
            assert_eq!(lines.next(), Some(line));
        }
        // Rows are in the order of their hashes.
        for line in [
            &b"layer 1 101 45 40"[..],
            b"layer 2 102 18 2",
            b"layer 3 103 2 2",
            b"layer - - 1 0",
        ] {
            assert_eq!(lines.clone().filter(|it| *it == line).count(), 1);
        }
        assert_eq!(lines.count(), 5);
        Ok(())
    }
}
