// SPDX-License-Identifier: GPL-2.0

//! What is cached more than once: pages of a pool's blocks that are in several page caches.
//!
//! The [table](crate::access) knows each clean copy of a shared block's page, so nothing is searched
//! for by content. Which copies there are changes while they are counted.

use core::fmt::{self, Write};

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
};

use dm::{bits, directory::Holders, folio::PAGE_SHIFT, index::hash};

use crate::{
    access::{AccessTable, Stretch},
    layer::{Serial, Who},
};

/// Pages with so many copies or more aren't told apart.
const MOST_COPIES: usize = 16;

/// Layers that are told apart; a power of two, as are the places that are looked at for one.
const LAYERS: usize = 4096;
const PROBES: usize = 64;

/// Lines of a list, about; whoever asks asks again for the rest.
const LINES: u32 = 4096;

/// What a layer's page caches hold.
#[derive(Clone, Copy, Default)]
struct Share {
    who: Who,
    pages: u64,
    /// Of these, pages of which somebody else has a newer copy.
    extra: u64,
}

/// How many pages are cached how often, and by whom.
struct Tally {
    copies: [u64; MOST_COPIES],
    layers: KVVec<Share>,
    others: Share,
}

impl Tally {
    fn new() -> Result<Self> {
        let mut layers = KVVec::with_capacity(LAYERS, GFP_KERNEL)?;
        for _ in 0..LAYERS {
            layers.push(Share::default(), GFP_KERNEL)?;
        }
        Ok(Self {
            copies: [0; MOST_COPIES],
            layers,
            others: Share::default(),
        })
    }

    fn share(&mut self, who: Who) -> &mut Share {
        // CAST: Below the number of layers.
        let start = (hash(who.number()) >> (u64::BITS - LAYERS.trailing_zeros())) as usize;
        let place = |step| (start + step) % LAYERS;
        let serial_at = |step: &usize| -> Serial { self.layers[place(*step)].who.serial };
        let fits = |step: &usize| [0, who.serial].contains(&serial_at(step));
        match (0..PROBES).find(fits) {
            Some(step) if who.serial != 0 => {
                let share = &mut self.layers[place(step)];
                share.who = who;
                share
            }
            _ => &mut self.others,
        }
    }

    /// The copies of a stretch, each as whose it is and its pages; the newest first.
    fn add(&mut self, copies: impl Iterator<Item = (Who, u32)>) {
        let mut count = [0usize; bits::PAGES as usize];
        let mut seen = 0;
        for (who, pages) in copies {
            let share = self.share(who);
            share.pages += u64::from(pages.count_ones());
            share.extra += u64::from((pages & seen).count_ones());
            seen |= pages;
            for (page, count) in count.iter_mut().enumerate() {
                // CAST: One bit.
                *count += (pages >> page & 1) as usize;
            }
        }
        for count in count.into_iter().filter(|count| *count != 0) {
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
            match (at + 1, pages) {
                (_, 0) => {}
                (MOST_COPIES, _) => writeln!(out, "copies {MOST_COPIES} - {pages}")?,
                (times, _) => writeln!(out, "copies {times} {times} {pages}")?,
            }
        }
        for share in self.layers.iter().filter(|share| share.pages != 0) {
            let Share { who, pages, extra } = share;
            writeln!(out, "layer {} {} {pages} {extra}", who.serial, who.thin_id)?;
        }
        let Share { pages, extra, .. } = self.others;
        if pages != 0 {
            writeln!(out, "layer - - {pages} {extra}")?;
        }
        Ok(())
    }
}

/// The copies of a stretch, the newest first.
fn copies<'a, 'g>(
    holders: &'a Holders<'g, Stretch>,
) -> impl Iterator<Item = (Who, u32)> + use<'a, 'g> {
    holders
        .donors()
        .map(|donor| (donor.key().layer, donor.pages()))
}

/// Prints the figures of a pool, as `include/uapi/linux/dm-drr.h` says. Process context; fails with
/// `ENOMEM`, or with `EIO` if they can't be printed.
pub(crate) fn print(table: &AccessTable, pool: u64, out: &mut dyn Write) -> Result {
    let mut tally = Tally::new()?;
    table.directory().each_key(0, |holders| {
        if u64::from(holders.key().pool()) == pool {
            tally.add(copies(&holders));
        }
        true
    });
    tally.print(pool, out).map_err(|_| EIO)
}

/// Prints which pages are cached more than once, and where: from place `from` of the table on, as
/// many as fit into an answer. Process context; fails with `EIO` if they can't be printed.
pub(crate) fn list(table: &AccessTable, pool: u64, from: u32, out: &mut dyn Write) -> Result {
    let mut list = || {
        writeln!(out, "drr-copies 1 pool={pool}")?;
        let (mut lines, mut result) = (0, Ok(()));
        // CAST: A bucket's number; there are at most 2^26.
        let next = table.directory().each_key(from as usize, |holders| {
            if u64::from(holders.key().pool()) == pool {
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

/// A line for pages in a row of each copy of a stretch, if the pages have more than one.
fn print_copies(
    holders: &Holders<'_, Stretch>,
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
    let (block, first) = holders.key().place();
    for (who, pages) in copies(holders) {
        let mut left = pages & again;
        while left != 0 {
            let begin = left.trailing_zeros();
            let count = (left >> begin).trailing_ones();
            left &= !bits::mask(begin, count);
            let Who { serial, thin_id } = who;
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
    use dm::printer::printed;

    fn who(serial: Serial) -> Who {
        Who {
            serial,
            thin_id: serial + 100,
        }
    }

    #[test]
    fn copies_are_counted() -> Result {
        let mut buffer = [0; 512];
        let mut tally = Tally::new()?;
        tally.add([(who(1), 0b1111), (who(2), 0b0110), (who(3), 0b0011)].into_iter());
        tally.add([(who(2), u32::MAX)].into_iter());
        tally.add([(who(0), 1 << 31), (who(1), 1 << 31)].into_iter());
        tally.add([(who(1), 1); 40].into_iter());
        let text = printed(&mut buffer, |out| tally.print(7, out))?;
        let mut lines = text.split(|byte| *byte == b'\n');
        for line in [
            &b"drr-duplicates 1 pool=7 page_bytes=4096"[..],
            b"copies 1 1 33",
            b"copies 2 2 3",
            b"copies 3 3 1",
            b"copies 16 - 1",
        ] {
            assert_eq!(lines.next(), Some(line));
        }
        // In the order of the hashes.
        for line in [
            &b"layer 1 101 45 40"[..],
            b"layer 2 102 34 2",
            b"layer 3 103 2 2",
            b"layer - - 1 0",
        ] {
            assert_eq!(lines.clone().filter(|it| *it == line).count(), 1);
        }
        assert_eq!(lines.count(), 5);
        Ok(())
    }

    #[test]
    fn layers_without_room_are_others() -> Result {
        let mut tally = Tally::new()?;
        for serial in 1..=2 * LAYERS as u32 {
            tally.add([(who(serial), 1)].into_iter());
        }
        let pages = |share: &Share| share.pages;
        let known: u64 = tally.layers.iter().map(pages).sum();
        assert_eq!(known + tally.others.pages, 2 * LAYERS as u64);
        assert!(known > LAYERS as u64 / 2 && tally.others.pages >= LAYERS as u64);
        Ok(())
    }
}
