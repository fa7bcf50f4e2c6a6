// SPDX-License-Identifier: GPL-2.0

//! A read: from donors, with somebody who reads the same right now, or from the disk.

use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, rcu},
    time::{delay::fsleep, Delta},
};

use dm::{
    bio::{Bio, Filled, Mapped},
    blocklock::Locked,
    event::Mapping,
    folio::{PAGE_SECTORS, PAGE_SECTORS_SHIFT},
    guard::Guard,
    hold,
    inflight::{Lent, Part, Since, PATIENCE_MS},
    trace,
    verify::read_again,
};

use crate::{
    access::Block,
    copy::{self, Sources, Unserved},
    epoch::Epoch,
    giver::Giver,
    layer::{Layer, Who},
    stats::{sectors_of, Miss},
    target::Drr,
    unshared::Memory,
};

/// Pages in a row that are worth two requests from the disk in the place of one, around them: less
/// costs more than it saves. At the beginning and at the end of a read any number is.
const WORTH_PAGES: u32 = 4;

/// How long busy donors are given each time, in microseconds. They are as a rule since their own
/// readers are just being told that they have been read, which takes them microseconds.
const BUSY_US: [i64; 3] = [0, 100, 400];

/// How long the rest of a donor's read is waited for by what may be such a rest itself, in
/// milliseconds: longer than reads from a healthy disk take as a rule.
const RING_MS: u32 = 300;
/// No read has more pages, as a rule: 2 MiB. A ring of longer ones may last for all of the patience.
const READ_PAGES: u64 = 512;

/// Where a read goes, and what has to hold until its pages can be recorded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) block: Block,
    /// First page in the block, and number of pages.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// The layer that it is read from.
    pub(crate) layer: Who,
    epoch: Epoch,
    binding: u64,
}

/// What travels with a bio.
#[derive(Default)]
pub(crate) struct Passage {
    /// Who wrote the block that a read is for.
    owner: Option<Who>,
    /// The target that it passes.
    device: u32,
    /// It has stepped aside from busy donors.
    busy: Option<Since>,
    /// The pages of a read.
    pub(crate) filled: Filled,
    /// The shared block that they are from, if they may be recorded when the read ends well.
    pub(crate) place: Option<Place>,
    /// Whose pages they were copied from, until the disk agrees (paranoid).
    pub(crate) donor: u32,
    /// The blocks that a write is in.
    pub(crate) locked: Locked,
}

impl Drr {
    /// A read comes in.
    pub(crate) fn read<'a>(&'a self, mut bio: Bio<'a, Self>) -> Mapped {
        bio.data().filled = Filled::by(&bio);
        let (owner, place) = self.place_at(bio.sector(), bio.sectors());
        let place =
            place.and_then(|place| (!bio.transformed()).then_some(place).ok_or(Miss::Layout));
        let passage = bio.data();
        (passage.owner, passage.device) = (owner, self.member.device);
        let place = match place {
            Ok(place) => place,
            Err(miss) => return self.missed(bio, miss),
        };
        bio.data().place = Some(place);
        self.member.blocks().read(place.block, place.layer.serial);
        hold::Place::MappingKnown.pass();
        if self.features.no_receive {
            return self.fetch(bio, place, Miss::NoRecord, place.count, 0);
        }
        self.serve(bio, place, 1)
    }

    /// Serves as much of a read as donors have; or looks elsewhere, and comes back no more than
    /// `again` times.
    fn serve<'a>(&'a self, mut bio: Bio<'a, Self>, mut place: Place, again: u32) -> Mapped {
        let table = self.member.table();
        let (first, count) = (place.first, place.count);
        let served = copy::serve(table, &place.block, first, count, &mut bio.writer());
        if served.pages != 0 && !self.still_there(&place) {
            return self.missed(bio, Miss::Changed);
        }
        match served.why {
            Some(Unserved::Busy | Unserved::Reading(_)) if served.pages == 0 => {
                self.fetch(bio, place, Miss::Busy, count, again)
            }
            Some(Unserved::NoRecord) if served.pages == 0 => {
                let guard = rcu::read_lock();
                let alone = table.before_donors(&guard, &place.block, first, count, WORTH_PAGES);
                drop(guard);
                self.fetch(bio, place, Miss::NoRecord, alone, again)
            }
            _ => {
                self.accept(&mut bio, &mut place, served.pages);
                self.hit(bio, &served.sources)
            }
        }
    }

    /// Gets the first `pages` of a read with somebody who reads them right now, or from the disk.
    fn fetch<'a>(
        &'a self,
        mut bio: Bio<'a, Self>,
        mut place: Place,
        miss: Miss,
        pages: u32,
        again: u32,
    ) -> Mapped {
        let part = Part {
            content: place.block.content(),
            first: place.first,
            // Not even one if there is a donor by now.
            count: if pages == 0 { place.count } else { pages },
        };
        let flights = self.member.flights();
        let mut gate = flights.look(part);
        let waits = !self.features.no_receive && !bio.polled();
        if waits && (gate.found() || miss == Miss::Busy) {
            // A worker may have to send it down. Not with the gate closed, so that is looked at again.
            drop(gate);
            bio.charge_submitter();
            gate = flights.look(part);
            if gate.found() {
                self.accept(&mut bio, &mut place, gate.pages());
                trace!(follow, self.traced(bio.sector(), bio.sectors()));
                return gate.follow(bio, self);
            }
            if miss == Miss::Busy {
                bio.data().busy = Some(Since::now());
                return gate.step_aside(bio, self);
            }
        }
        // Who was in flight when donors were looked for, and has ended before we looked here, is a
        // donor by now.
        if again != 0 && !gate.found() && miss == Miss::NoRecord && self.donors_came(&place, part) {
            drop(gate);
            return self.serve(bio, place, again - 1);
        }
        let pages = if gate.found() {
            part.count
        } else {
            gate.pages()
        };
        self.accept(&mut bio, &mut place, pages);
        if self.may_lead() {
            gate.lead(&bio, self, place.count);
        } else {
            drop(gate);
        }
        self.missed(bio, miss)
    }

    fn donors_came(&self, place: &Place, part: Part) -> bool {
        let (first, count) = (part.first, part.count);
        let worth = count.min(WORTH_PAGES);
        let guard = rcu::read_lock();
        let table = self.member.table();
        table.before_donors(&guard, &place.block, first, count, worth) < count
    }

    fn may_lead(&self) -> bool {
        let givers = &self.member.table().givers;
        !self.features.no_donate && givers.worth_waiting(self.member.device)
    }

    /// A read goes on that has followed another's, or stepped aside from busy donors.
    pub(crate) fn followed<'a>(
        &'a self,
        mut bio: Bio<'a, Self>,
        lent: Option<Lent<'_, Self>>,
    ) -> Mapped {
        // `fetch` put it there.
        let place = bio.data().place.unwrap_or_default();
        let Some(lent) = lent else {
            return self.once_more(bio, place);
        };
        lent.copy_to(&mut bio.writer());
        if !self.still_there(&place) {
            return self.missed(bio, Miss::Changed);
        }
        let from = lent.data();
        let layer = from.place.map_or(Who::default(), |place| place.layer);
        let sources = Sources::one(from.device, layer, place.count);
        self.stats.followed(bio.sectors());
        self.hit(bio, &sources)
    }

    /// Tries once more to serve a read, in a worker; as a whole, since it can't be divided any more.
    fn once_more<'a>(&'a self, mut bio: Bio<'a, Self>, place: Place) -> Mapped {
        let table = self.member.table();
        let (first, count) = (place.first, place.count);
        let mut why = None;
        for pause in BUSY_US {
            fsleep(Delta::from_micros(pause));
            let served = copy::serve(table, &place.block, first, count, &mut bio.writer());
            if served.pages == count && self.still_there(&place) {
                return self.hit(bio, &served.sources);
            }
            why = served.why;
            if !matches!(why, Some(Unserved::Busy | Unserved::Reading(_))) {
                break;
            }
        }
        let Some(since) = bio.data().busy else {
            return self.missed(bio, Miss::Left);
        };
        // The rest of the donor's folio is on its way.
        if let Some(Unserved::Reading(device)) = why {
            if since.over(Since::now(), PATIENCE_MS) {
                table.givers.in_vain(device);
            } else if !self.in_a_ring(&bio, device, since) && table.givers.worth_waiting(device) {
                return self.member.flights().later(bio, self);
            }
        }
        self.missed(bio, Miss::Busy)
    }

    /// A read that waits for the rest of one of `device` may be what others wait for, and so for
    /// itself.
    ///
    /// A read comes here in parts, and its folios are locked until the last part has ended. Everybody
    /// in such a ring waits for a folio that is on record and locked, so everybody has such, near the
    /// part that waits; and somebody's device comes before the one that it waits for, or is the same.
    /// Who finds both of itself leaves, and the ring is none any more.
    fn in_a_ring(&self, bio: &Bio<'_, Self>, device: u32, since: Since) -> bool {
        if !since.over(Since::now(), RING_MS) || device < self.member.device {
            return false;
        }
        let directory = self.member.table().directory();
        bio.pages().next().is_some_and(|pages| {
            let near = pages.first().saturating_sub(READ_PAGES)..=pages.first() + READ_PAGES;
            directory.any_being_read(pages.mapping(), near)
        })
    }

    /// A read's data is there: completes it. The target may be gone afterwards.
    fn hit<'a>(&'a self, mut bio: Bio<'a, Self>, sources: &Sources) -> Mapped {
        let (owner, sector, sectors) = (bio.data().owner, bio.sector(), bio.sectors());
        let account = || {
            self.stats.hit(owner, sectors, sources);
            trace!(hit, self.traced(sector, sectors), self.donor(sources));
            for source in sources.known() {
                self.member.table().givers.with(source.device, |giver| {
                    giver.donated.add(sectors_of(source.pages))
                });
            }
        };
        if !self.features.paranoid {
            account();
            return bio.complete();
        }
        bio.data().donor = sources
            .known()
            .next()
            .map_or(0, |source| source.layer.thin_id);
        let disk = self.thin.device().bdev();
        // What can't be compared isn't served.
        read_again(bio, self, disk, sector, account)
            .unwrap_or_else(|bio| self.missed(bio, Miss::Busy))
    }

    /// What tracepoints tell of donors.
    fn donor(&self, sources: &Sources) -> trace::Donor {
        let others = u32::from(sources.others() != 0);
        let Some(first) = sources.known().next() else {
            return trace::Donor::default();
        };
        let givers = &self.member.table().givers;
        trace::Donor {
            dev: givers.with(first.device, Giver::number).unwrap_or(0),
            thin_id: first.layer.thin_id,
            // CAST: Few.
            donors: sources.known().count() as u32 + others,
        }
    }

    /// Takes only the first `pages` of a read; the rest comes as another.
    fn accept(&self, bio: &mut Bio<'_, Self>, place: &mut Place, pages: u32) {
        if pages == 0 || pages >= place.count {
            return;
        }
        bio.accept(pages * PAGE_SECTORS);
        place.count = pages;
        bio.data().filled = Filled::by(bio);
        bio.data().place = Some(*place);
    }

    fn missed(&self, mut bio: Bio<'_, Self>, miss: Miss) -> Mapped {
        let owner = bio.data().owner;
        self.stats.miss(miss, owner, bio.sectors());
        trace!(
            miss,
            self.traced(bio.sector(), bio.sectors()),
            miss.reason()
        );
        self.forward(bio)
    }

    /// Finds the shared data block that `sectors` from `sector` on are in, and who wrote it.
    pub(crate) fn place_at(&self, sector: u64, sectors: u32) -> (Option<Who>, Result<Place, Miss>) {
        let (block, at) = (
            sector / u64::from(self.block_sectors),
            // CAST: The remainder of a division by a u32.
            (sector % u64::from(self.block_sectors)) as u32,
        );
        let layer = self.layer();
        let table = self.member.table();
        let epoch = table.epochs.now(layer, block);
        let binding = self.thin.thin().binding();
        let kept = table
            .mappings
            .get(layer, block, self.block_sectors, epoch, binding);
        let mapping = if let Some(mapping) = kept {
            mapping
        } else {
            let memory = self.memory_of(layer, block);
            if memory.unshared() {
                // It was written after all snapshots, so by this layer.
                let (_, owner) = self.member.tree().owner(layer, u32::MAX);
                return (owner, Err(Miss::Unshared));
            }
            match self.look_up(sector, layer, block, epoch, &memory) {
                Ok(mapping) => mapping,
                Err(miss) => return (None, Err(miss)),
            }
        };
        let (serial, owner) = self.member.tree().owner(layer, mapping.time);
        let place = || {
            let aligned = (at | sectors) % PAGE_SECTORS == 0;
            if !aligned || sectors == 0 || at + sectors > self.block_sectors {
                return Err(Miss::Layout);
            }
            if !mapping.shared && Guard::Shared.on() {
                return Err(Miss::Unshared);
            }
            Ok(Place {
                block: Block::new(mapping.pool, mapping.block).ok_or(Miss::Layout)?,
                first: at >> PAGE_SECTORS_SHIFT,
                count: sectors >> PAGE_SECTORS_SHIFT,
                layer: Who {
                    serial,
                    thin_id: mapping.thin_id,
                },
                epoch,
                binding: mapping.binding,
            })
        };
        (owner, place())
    }

    /// What is known of virtual block `block` of `layer`.
    pub(crate) fn memory_of(&self, layer: Layer, block: u64) -> Memory<'_> {
        let binding = self.thin.thin().binding();
        self.member.table().unshared.at(layer, block, binding)
    }

    /// Looks up where `sector` is mapped, in virtual block `block` of `layer`, whose epoch was taken
    /// before, as was what is known of it; and keeps what comes of it.
    fn look_up(
        &self,
        sector: u64,
        layer: Layer,
        block: u64,
        epoch: Epoch,
        memory: &Memory<'_>,
    ) -> Result<Mapping, Miss> {
        let mapping = self
            .thin
            .thin()
            .lookup(sector)
            .map_err(|error| match error {
                EAGAIN => Miss::Metadata,
                _ => Miss::Unshared,
            })?;
        self.check_layer(layer, &mapping)?;
        if mapping.shared {
            let mappings = &self.member.table().mappings;
            mappings.keep(layer, block, epoch, &mapping);
        } else if Guard::Shared.on() {
            memory.keep();
        }
        Ok(mapping)
    }

    /// The epoch is good for `layer` only; the thin device's table may have been replaced.
    fn check_layer(&self, layer: Layer, mapping: &Mapping) -> Result<(), Miss> {
        let now = Layer::new(mapping.pool, mapping.thin_id);
        if mapping.block_sectors != self.block_sectors {
            return Err(Miss::Layout);
        }
        if now != layer {
            self.layer.store(now.number(), Relaxed);
            return Err(Miss::Changed);
        }
        Ok(())
    }

    /// The mapping that `place` was looked up in is still the reader's.
    ///
    /// In this order: what can make a record for new content of the block, before the binding
    /// says that the thin device has gone, is seen by the epoch's full ordering.
    pub(crate) fn still_there(&self, place: &Place) -> bool {
        self.member.table().epochs.is_now(place.epoch)
            && (self.thin.thin().binding() == place.binding || !Guard::Binding.on())
    }
}
