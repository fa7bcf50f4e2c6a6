// SPDX-License-Identifier: GPL-2.0

//! The copy engine: serves a read from donors.
//!
//! Everything is by trying; nobody waits for a donor. For each donor, and each of its folios as far
//! as it has the pages, in this order:
//!
//! 1. under RCU, find the record and take a reference to the folio it names;
//! 2. lock the folio, and see that it is still in the mapping: from here on neither the folio nor
//!    the inode can go away, nor the content change;
//! 3. look at the record again: its page is still the one that was read, and unmodified, since
//!    whoever removes, dirties or truncates it takes the folio lock, and the record ends before it
//!    is let go;
//! 4. see that the page may be copied ([`crate::donor`]), and copy;
//! 5. see that a block device wasn't claimed meanwhile;
//! 6. let go of the folio.

use kernel::sync::rcu;

use dm::{bio::Writer, directory::Donor, guard::Guard, hold};

use crate::{
    access::{AccessTable, Block, Stretch},
    donor,
    layer::Who,
};

/// Why a read was not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unserved {
    /// The next page has no donor.
    NoRecord,
    /// The next page has donors, but none could be copied at this moment.
    Busy,
    /// The same, and other pages of a donor's folio are still being read, by this target.
    Reading(u32),
}

/// Distinct donors that a single read tells apart.
const SOURCES: usize = 8;

/// A part of a read that came from one donor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// The target whose page cache it came from.
    pub(crate) device: u32,
    /// The target's layer.
    pub(crate) layer: Who,
    /// How much.
    pub(crate) pages: u32,
}

/// Where the parts of a read came from.
#[derive(Default)]
pub(crate) struct Sources {
    known: [Source; SOURCES],
    others: u32,
}

impl Sources {
    /// `pages` from the one target `device`, read from `layer`.
    pub(crate) fn one(device: u32, layer: Who, pages: u32) -> Self {
        let mut sources = Self::default();
        sources.known[0] = Source {
            device,
            layer,
            pages,
        };
        sources
    }

    fn add(&mut self, donor: &Stretch, pages: u32) {
        let fits = |source: &&mut Source| source.pages == 0 || source.device == donor.device;
        match self.known.iter_mut().find(fits) {
            Some(source) => {
                *source = Source {
                    device: donor.device,
                    layer: donor.layer,
                    pages: source.pages + pages,
                }
            }
            None => self.others += pages,
        }
    }

    /// The parts whose donors are told apart.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Source> {
        self.known.iter().filter(|source| source.pages != 0)
    }

    /// Pages from all other donors.
    pub(crate) fn others(&self) -> u32 {
        self.others
    }
}

/// What came of a read.
pub(crate) struct Served {
    /// Whose.
    pub(crate) sources: Sources,
    /// How many pages, from the first on.
    pub(crate) pages: u32,
    /// Why not more.
    pub(crate) why: Option<Unserved>,
}

/// Fills `writer` with pages `first..first + count` of `block`, from donors, as far as it goes.
///
/// What has been written is of no consequence if the read goes to the disk.
pub(crate) fn serve(
    table: &AccessTable,
    block: &Block,
    first: u32,
    count: u32,
    writer: &mut Writer<'_>,
) -> Served {
    let mut served = Served {
        sources: Sources::default(),
        pages: 0,
        why: None,
    };
    let guard = rcu::read_lock();
    while served.pages < count {
        let (next, left) = (first + served.pages, count - served.pages);
        match serve_some(table, &guard, block, next, left, writer) {
            Ok((donor, pages)) => {
                served.sources.add(&donor, pages);
                served.pages += pages;
            }
            Err(why) => {
                served.why = Some(why);
                break;
            }
        }
    }
    served
}

/// Serves one or more pages from page `page` on; returns whose, and how many.
fn serve_some(
    table: &AccessTable,
    guard: &rcu::Guard,
    block: &Block,
    page: u32,
    want: u32,
    writer: &mut Writer<'_>,
) -> Result<(Stretch, u32), Unserved> {
    let mut unserved = Unserved::NoRecord;
    let (donors, at) = table.donors(guard, block, page);
    for donor in donors {
        if donor.pages_from(at) == 0 {
            continue;
        }
        match copy_from(&donor, at, want, writer) {
            Ok(pages) => return Ok((*donor.key(), pages)),
            Err(why @ Unserved::Reading(_)) => unserved = why,
            Err(why) if unserved == Unserved::NoRecord => unserved = why,
            Err(_) => {}
        }
    }
    Err(unserved)
}

/// Copies up to `want` pages from page `page` of the donor's run on, or says why it can't now.
fn copy_from(
    donor: &Donor<'_, Stretch>,
    page: u32,
    want: u32,
    writer: &mut Writer<'_>,
) -> Result<u32, Unserved> {
    let mut done = copy_folio(donor, page, want, writer)?;
    while done < want && donor.pages_from(page + done) != 0 {
        // Why not, the next look at this page will say: another donor may have it.
        match copy_folio(donor, page + done, want - done, writer) {
            Ok(pages) => done += pages,
            Err(_) => break,
        }
    }
    Ok(done)
}

/// The same, from one folio.
fn copy_folio(
    donor: &Donor<'_, Stretch>,
    page: u32,
    want: u32,
    writer: &mut Writer<'_>,
) -> Result<u32, Unserved> {
    let known = donor.pages_from(page);
    let folio = donor.folio(page).ok_or(Unserved::Busy)?;
    hold::Place::RecordFound.pass();
    let reading = folio.state().being_read();
    let folio = folio.try_lock(donor.mapping()).ok_or(if reading {
        Unserved::Reading(donor.key().device)
    } else {
        Unserved::Busy
    })?;
    let still_known = if Guard::Recheck.on() {
        donor.pages_from(page)
    } else {
        known
    };
    let index = donor.index(page);
    let inode = folio.inode();
    if !donor::copyable(folio.state(), &inode) {
        return Err(Unserved::Busy);
    }
    let count = folio
        .pages_from(index)
        .min(u64::from(still_known.min(want)));
    // CAST: Not more than `want`.
    let count = count as u32;
    if count == 0 {
        return Err(Unserved::Busy);
    }
    let data = folio.data(index, count).ok_or(Unserved::Busy)?;
    // The donor is written only if its copy can be trusted; else the next donor writes here.
    let mut here = *writer;
    here.write(&data);
    if !donor::copy_holds(&inode) {
        return Err(Unserved::Busy);
    }
    *writer = here;
    Ok(count)
}
