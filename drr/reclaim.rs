// SPDX-License-Identifier: GPL-2.0

//! Drops pages that other page caches have, too, where memory is short, before last copies are
//! lost.
//!
//! Any copy of a page serves all siblings, so reclaim costs a read from the disk only if it takes
//! the last copy. Reclaim can't tell: it takes the page that was not used for the longest time. So
//! for each recorded page that reclaim takes, a page that has a copy elsewhere is dropped, too,
//! from the memory of the same control group, and reclaim has that much less to find: no more pages
//! are dropped than reclaim has taken. Only pages that weren't used lately are dropped, and of
//! several copies the oldest first. While reclaim takes nothing, nothing is dropped.
//!
//! The pages are found by walking the [access table](crate::access::table), a part at a time. If a
//! walk drops nothing, the next one begins when reclaim has taken twice as many pages as before the
//! last.

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
    pagecache::cached_extent::Holders,
    pagecache::folio::{FolioRef, Group, MappingId},
    pagecache::page_bitmap,
    sync::index::{hash, slot},
    sync::periodic_work::Periodic,
};

use crate::access::{
    donor_target::TargetRegistry,
    name::{BlockExtent, Holder},
    table::{AccessTable, PageDonor},
};

/// Most pages that may be dropped from a group until reclaim takes the next one: 64 MiB, so that a
/// group doesn't lose at once what has added up over hours.
const MOST_DUE: u32 = 1 << 14;
/// Entries for groups, by their hash. Few groups are at their limit at the same time; of two with
/// the same entry one gives up its turn.
const GROUPS: usize = 64;

/// Milliseconds between two parts of a walk: with 64 GiB of memory, a walk has about a hundred
/// parts, and takes two seconds.
pub(crate) const EVERY_MS: u32 = 20;
/// Buckets of the table in a part of a walk: a part is to be short beside the pause after it.
const BUCKETS: usize = 4096;
/// Folios that are collected before they are dropped: as many as reclaim isolates at once
/// (`SWAP_CLUSTER_MAX`).
const BATCH: usize = 32;
/// Copies of an extent that are looked at: as many as the directory knows of a page.
const COPIES: usize = 16;

/// Pages that reclaim must take before a walk begins: at first what reclaim isolates at once
/// (`SWAP_CLUSTER_MAX`), and after many walks that dropped nothing 256 MiB.
const PATIENCE: [u32; 2] = [32, 1 << 16];

/// The number of pages that may be dropped from a group.
struct Due {
    /// [`Group::hash_key`] of the last group with this hash.
    group: Atomic<u64>,
    pages: Atomic<u32>,
}

impl Due {
    /// Returns how many pages may be dropped from `group`.
    fn of(&self, group: Group) -> u32 {
        match self.group.load(Relaxed) == group.hash_key() {
            true => self.pages.load(Relaxed),
            false => 0,
        }
    }

    /// Sets how many pages may be dropped from `group`. Concurrent calls may count as one: the
    /// number is a hint.
    fn set(&self, group: Group, pages: u32) {
        self.group.store(group.hash_key(), Relaxed);
        self.pages.store(pages, Relaxed);
    }
}

/// A folio that may be dropped.
struct Candidate {
    folio: FolioRef,
    mapping: MappingId,
    /// The target that the folio was read through.
    target_id: u32,
    group: Group,
    pages: u32,
}

/// The walk that drops extra copies.
pub(crate) struct Reclaim {
    table: Arc<AccessTable>,
    targets: Arc<TargetRegistry>,
    /// Pages that may be dropped, by their group's hash.
    due: [Due; GROUPS],
    /// Pages that reclaim has taken since the last walk.
    taken: Atomic<u32>,
    /// Value of `taken` at which the next walk begins.
    patience: Atomic<u32>,
    /// The bucket at which the walk goes on.
    at: Atomic<usize>,
    /// Pages that were dropped in this walk.
    dropped: Atomic<u32>,
}

impl Reclaim {
    pub(crate) fn new(table: Arc<AccessTable>, targets: Arc<TargetRegistry>) -> Self {
        Self {
            table,
            targets,
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

    /// Returns the entry for a group.
    fn due(&self, group: Group) -> &Due {
        &self.due[slot(hash(group.hash_key()), GROUPS)]
    }

    /// Returns whether any pages may be dropped.
    fn any_due(&self) -> bool {
        self.due.iter().any(|due| due.pages.load(Relaxed) != 0)
    }

    /// Counts recorded pages of `group` that reclaim takes. Returns whether to begin a walk.
    pub(crate) fn reclaimed(&self, group: Group, pages: u32) -> bool {
        let due = self.due(group);
        due.set(group, due.of(group).saturating_add(pages).min(MOST_DUE));
        let taken = self.taken.load(Relaxed).saturating_add(pages);
        self.taken.store(taken, Relaxed);
        taken >= self.patience.load(Relaxed)
    }

    /// Drops those of `found` that are still unused, as far as their groups have pages to drop.
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
                self.targets.with(it.target_id, |target| {
                    target.thinned.add(it.pages.into(), Relaxed)
                });
            }
        }
    }

    /// Adds folios of an extent that may be dropped to `found`; one copy of each page stays.
    fn look_at(&self, holders: &Holders<'_, BlockExtent, Holder>, found: &mut KVec<Candidate>) {
        let mut copies: [Option<PageDonor<'_>>; COPIES] = [None; COPIES];
        let mut pages = [0; COPIES];
        let mut count = 0;
        for donor in holders.donors().take(COPIES) {
            // A record stays when its page is modified, but the modified page is no copy.
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

    /// Returns whether a target's copies are to stay; true if the target has gone.
    fn keeps(&self, target_id: u32) -> bool {
        self.targets
            .with(target_id, |target| target.keeps)
            .unwrap_or(true)
    }

    /// Adds those folios of one copy to `found` that are idle, and have no pages in the extent
    /// except some of `extra`. Returns their pages.
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
            // If there is no room left, a later walk finds the folio again.
            if found.push_within_capacity(candidate).is_ok() {
                gone |= pages;
            }
        }
        gone
    }

    /// Ends a walk that has reached the end of the table, or has nothing left to do.
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

/// Returns the pages of a donor that are neither modified nor about to be, as far as their folios
/// tell.
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
        // Clears the page itself, too, in case its folio holds other pages by now.
        left &= !(pages | page_bitmap::mask(page, 1));
    }
    unchanged
}
