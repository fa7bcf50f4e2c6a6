// SPDX-License-Identifier: GPL-2.0

//! Where memory is short: copies that others have, too, go before last copies.
//!
//! Any copy of a page serves all siblings, so what reclaim takes costs a read from the disk only if it
//! was the last one. Reclaim can't tell: it takes the page that was not used for the longest time. So
//! for each recorded page that it takes, another that has a copy elsewhere is taken, too, from the same
//! control group's memory, and reclaim has that much less to find: no more goes than reclaim has taken.
//! Only what nobody used lately goes, and the oldest of several first. While reclaim takes nothing, nor does this.
//!
//! They are found by walking the [table](crate::access::table), a bit each time. If a walk finds none, the next
//! one waits until reclaim has taken twice as much as before the last.

use core::array;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

use dm::{
    drr::hold_point::HoldPoint,
    pagecache::directory::Holders,
    pagecache::folio::{FolioRef, Group, MappingId},
    pagecache::page_bitmap,
    sync::index::hash,
    sync::periodic_work::Periodic,
};

use crate::access::table::{AccessTable, BlockExtent, Holder, PageDonor};

/// Pages that may go from a group until reclaim takes the next, at most: 64 MiB.
const MOST_DUE: u32 = 1 << 14;
/// Groups that are told apart.
const GROUPS: usize = 64;

/// Milliseconds between two parts of a walk, and buckets of the table in a part.
pub(crate) const EVERY_MS: u32 = 20;
const BUCKETS: usize = 4096;
/// Folios that are looked up before they are dropped.
const BATCH: usize = 32;
/// Copies of a stretch that are told apart.
const COPIES: usize = 16;

/// Pages that reclaim has taken when a walk begins: at the least, and after many that found nothing.
const PATIENCE: [u32; 2] = [32, 1 << 16];

/// Pages that may go from a group.
struct Due {
    /// [`Group::hash_key`] of the last whose hash has come here.
    group: Atomic<u64>,
    pages: Atomic<u32>,
}

impl Due {
    /// How many of `group`'s.
    fn of(&self, group: Group) -> u32 {
        match self.group.load(Relaxed) == group.hash_key() {
            true => self.pages.load(Relaxed),
            false => 0,
        }
    }

    /// Several at once may be counted as one: it is a hint.
    fn set(&self, group: Group, pages: u32) {
        self.group.store(group.hash_key(), Relaxed);
        self.pages.store(pages, Relaxed);
    }
}

/// A folio that may go.
struct Candidate {
    folio: FolioRef,
    mapping: MappingId,
    /// The target that it was read through.
    target_id: u32,
    group: Group,
    pages: u32,
}

/// Drops copies that are one too many.
pub(crate) struct Reclaim {
    table: Arc<AccessTable>,
    /// By hashed group.
    due: [Due; GROUPS],
    /// Pages that reclaim has taken since the last walk.
    taken: Atomic<u32>,
    /// So many have to be when the next one begins.
    patience: Atomic<u32>,
    /// Where the walk is.
    at: Atomic<usize>,
    /// Pages that were dropped in this walk.
    dropped: Atomic<u32>,
}

impl Reclaim {
    pub(crate) fn new(table: Arc<AccessTable>) -> Self {
        Self {
            table,
            due: array::from_fn(|_| Due {
                group: Atomic::new(0),
                pages: Atomic::new(0),
            }),
            taken: Atomic::new(0),
            patience: Atomic::new(PATIENCE[0]),
            at: Atomic::new(0),
            dropped: Atomic::new(0),
        }
    }

    fn due(&self, group: Group) -> &Due {
        // CAST: Six bits.
        &self.due[(hash(group.hash_key()) >> (u64::BITS - GROUPS.ilog2())) as usize]
    }

    fn any_due(&self) -> bool {
        self.due.iter().any(|due| due.pages.load(Relaxed) != 0)
    }

    /// Reclaim takes recorded pages. Returns whether to begin a walk.
    pub(crate) fn reclaimed(&self, group: Group, pages: u32) -> bool {
        let due = self.due(group);
        due.set(group, due.of(group).saturating_add(pages).min(MOST_DUE));
        let taken = self.taken.load(Relaxed).saturating_add(pages);
        self.taken.store(taken, Relaxed);
        taken >= self.patience.load(Relaxed)
    }

    /// Drops some of `found`.
    fn drop_all(&self, found: &mut KVec<Candidate>) {
        if !found.is_empty() {
            HoldPoint::CopiesFound.pass();
        }
        for it in found.drain_all() {
            let due = self.due(it.group);
            let left = due.of(it.group);
            let folio = it.folio.try_lock(it.mapping);
            if left >= it.pages && folio.is_some_and(|folio| folio.drop_from_cache()) {
                due.set(it.group, left.saturating_sub(it.pages));
                self.dropped.add(it.pages, Relaxed);
                self.table.targets.with(it.target_id, |target| {
                    target.thinned.add(it.pages.into(), Relaxed)
                });
            }
        }
    }

    /// Looks for folios of a stretch that may go; one copy of each page is to stay.
    fn look_at(&self, holders: &Holders<'_, BlockExtent, Holder>, found: &mut KVec<Candidate>) {
        let mut copies: [Option<PageDonor<'_>>; COPIES] = [None; COPIES];
        let mut pages = [0; COPIES];
        let mut count = 0;
        for donor in holders.donors().take(COPIES) {
            // A record stays when its page is modified: what was is no copy.
            pages[count] = unchanged(&donor);
            copies[count] = Some(donor);
            // RANGE: At most `COPIES`.
            count += 1;
        }
        // The oldest first.
        for at in (0..count).rev() {
            let others = (0..count).filter(|other| *other != at);
            let elsewhere = others.fold(0, |all, other| all | pages[other]);
            let Some(donor) = &copies[at] else { continue };
            if pages[at] & elsewhere == 0 || self.keeps(donor.holder().target_id) {
                continue;
            }
            pages[at] &= !self.look_through(donor, pages[at] & elsewhere, found);
        }
    }

    fn keeps(&self, target_id: u32) -> bool {
        let targets = &self.table.targets;
        targets
            .with(target_id, |target| target.keeps)
            .unwrap_or(true)
    }

    /// Looks for folios of one copy, none of whose pages but those of `extra` are in the stretch.
    /// Returns these.
    fn look_through(&self, donor: &PageDonor<'_>, extra: u32, found: &mut KVec<Candidate>) -> u32 {
        let (mut left, mut gone) = (extra, 0);
        while left != 0 {
            let page = left.trailing_zeros();
            left &= !page_bitmap::mask(page, 1);
            let Some(folio) = donor.folio(page) else {
                continue;
            };
            let (first, last) = folio.range();
            let pages = donor.pages_between(first, last);
            left &= !(pages | page_bitmap::mask(page, 1));
            let group = folio.group();
            if pages & !extra != 0 || self.due(group).of(group) == 0 || !folio.idle() {
                continue;
            }
            let candidate = Candidate {
                folio,
                mapping: donor.mapping(),
                target_id: donor.holder().target_id,
                group,
                // RANGE: A folio has a page at least, and fewer than a `u32` counts.
                pages: (last - first + 1) as u32,
            };
            // There is room for most; the next walk comes by again.
            if found.push_within_capacity(candidate).is_ok() {
                gone |= pages;
            }
        }
        gone
    }

    /// The walk is through, or nothing is left to do.
    fn walked(&self) {
        let [least, most] = PATIENCE;
        let patience = match self.dropped.load(Relaxed) {
            // RANGE: Not above `most` before.
            0 => (self.patience.load(Relaxed) * 2).min(most),
            _ => least,
        };
        self.patience.store(patience, Relaxed);
        for due in &self.due {
            due.pages.store(0, Relaxed);
        }
        self.taken.store(0, Relaxed);
        self.dropped.store(0, Relaxed);
    }
}

impl Periodic for Reclaim {
    fn tick(&self) -> bool {
        let Ok(mut found) = KVec::with_capacity(BATCH, GFP_NOWAIT) else {
            return true;
        };
        let begin = self.at.load(Relaxed);
        // RANGE: `begin` is at most the table's number of buckets, 2^26.
        let end = begin + BUCKETS;
        let mut at = Some(begin);
        while let Some(from) = at.filter(|from| *from < end) {
            let directory = self.table.directory();
            // RANGE: `from` is before the end.
            at = directory.each_name(from, end - from, |holders| {
                self.look_at(&holders, &mut found);
                found.len() < BATCH / 2
            });
            self.drop_all(&mut found);
        }
        self.at.store(at.unwrap_or(0), Relaxed);
        let more = at.is_some() && self.any_due();
        if !more {
            self.walked();
        }
        more
    }
}

/// The pages that a donor has, and that nobody has modified or is about to, for all that their folios tell.
fn unchanged(donor: &PageDonor<'_>) -> u32 {
    let (mut left, mut unchanged) = (donor.pages(), 0);
    while left != 0 {
        let page = left.trailing_zeros();
        let Some(folio) = donor.folio(page) else {
            left &= !page_bitmap::mask(page, 1);
            continue;
        };
        let (first, last) = folio.range();
        let pages = donor.pages_between(first, last);
        if folio.state().unchanged() {
            unchanged |= left & pages;
        }
        // The page itself, too, should its folio have been another's by now.
        left &= !(pages | page_bitmap::mask(page, 1));
    }
    unchanged
}
