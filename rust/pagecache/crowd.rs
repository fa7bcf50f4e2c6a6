// SPDX-License-Identifier: GPL-2.0

//! How many extents of a name the [directory](crate::pagecache::directory) has, and which further
//! ones it takes.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::{pagecache::folio::MappingId, sync::index::hash};

/// Most extents of one name that are known at the same time, approximately: as many as if each of
/// its 16 pages had [`MOST_ALIKE`] of its own. Bounded, as a search for the name walks all of them.
pub(super) const MOST_EXTENTS: u32 = 256;
/// Most extents of one name that have the same pages. Bounded, as thousands of page caches may hold
/// the pages, and a search walks all extents.
///
/// So that some holder is known whichever ones drop the pages, half of the known extents are the
/// first, and half are later ones, of which [one in a few](LATER_ONE_IN) is taken: holders that
/// stay long are among the first, and holders that leave soon are among the last.
pub(super) const MOST_ALIKE: u32 = 16;
/// Once [`MOST_ALIKE`] extents are known, one in this many later ones replaces another. So half of
/// [`MOST_ALIKE`] are a sample of the last 64.
const LATER_ONE_IN: u64 = 8;
/// Most extents of one name and one holder that have the same pages, a quarter of [`MOST_ALIKE`]: a
/// file system may have any number of files that share their blocks, and must not displace other
/// holders.
const MOST_OF_A_HOLDER: u32 = 4;

/// Numbers of extents of a name: all, those with the same pages, and those of one holder among the
/// latter.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) extents: u32,
    pub(super) alike: u32,
    pub(super) own: u32,
}

impl Crowd {
    /// Returns whether no further extent is to be created.
    pub(super) fn is_enough(&self) -> bool {
        self.extents == MOST_EXTENTS || self.alike == MOST_ALIKE || self.own == MOST_OF_A_HOLDER
    }

    /// Returns whether a further extent may replace another.
    pub(super) fn may_change(&self) -> bool {
        self.alike == MOST_ALIKE && self.own < MOST_OF_A_HOLDER
    }
}

/// Draws of later extents: each has one chance in [`LATER_ONE_IN`] whenever its pages are read.
///
/// The result depends on the number of the draw, so that an extent that has lost may win when its
/// pages are read again. It also depends on the page cache and the place in it, so that each of
/// several page caches wins some draws even if their pages are always read in the same order.
pub(super) struct Draws(Atomic<u64>);

impl Draws {
    pub(super) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Draws for the extent of `mapping` with base `base`. Returns whether it wins.
    pub(super) fn is_drawn(&self, mapping: MappingId, base: u64) -> bool {
        let number = self.0.fetch_add(1, Relaxed);
        hash(mapping.hash_key() ^ hash(base) ^ hash(number)) % LATER_ONE_IN == 0
    }
}
