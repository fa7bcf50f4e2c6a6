// SPDX-License-Identifier: GPL-2.0

//! Serves a read: from donors, from another read of the same data that is in flight, or from the
//! disk.

use kernel::{prelude::*, sync::atomic::Relaxed, sync::rcu};

use dm::{
    block::bio::{Bio, Filled, Mapped, SECTOR_SHIFT},
    block::private_read::read_privately,
    compat::stale,
    drr::hold_point::HoldPoint,
    drr::rule::Rule,
    drr::trace,
    io::block_lock::Locked,
    io::in_flight::{Entry, Occupied, PageRange, Vacant},
    io::parked::Wake,
    io::verify::read_again,
    jiffies::Since,
    pagecache::folio::FilledPages,
    target::thin_event::Mapping,
    trace,
};

use crate::{
    access::donor_target::DonorTarget,
    access::epoch::Epoch,
    access::name::Block,
    access::unshared::Memory,
    io::copy::{ByteRange, Served, Sources},
    io::patience::Advice,
    layers::id::{LayerId, Serial, ThinId},
    stats::Miss,
    target::Drr,
};

/// Fewest donor pages in a row worth serving from the middle of a read: with fewer, splitting the
/// disk request costs more than the copy saves. At the beginning and at the end of a read any
/// number is served.
const WORTH_PAGES: u32 = 4;

/// Most pages of a private read: metadata is read in pieces no larger than that.
const MOST_PRIVATE_PAGES: u32 = 4;

/// The part of a shared block that a read is for, and how it was found.
#[derive(Clone, Copy)]
pub(crate) struct MappedRange {
    /// The name of the block's content.
    pub(crate) block: Block,
    /// The part of the block.
    pub(crate) extent: ByteRange,
    /// The target's layer, through which the block is read.
    pub(crate) layer: LayerId,
    /// The block's epoch when the mapping was looked up, if its cell was quiet.
    epoch: Option<Epoch>,
    /// The binding of the thin device when the mapping was looked up.
    binding: u64,
}

/// What is known of the place that a bio is for.
pub(crate) struct Located {
    /// The layer that wrote the block, if known.
    pub(crate) owner: Option<LayerId>,
    /// The part of the block, or the reason why donors can't serve it.
    pub(crate) range: Result<MappedRange, Miss>,
}

/// A mapping, and what it was looked up for.
struct Found {
    mapping: Mapping,
    /// The block's epoch when the mapping was looked up, if its cell was quiet.
    epoch: Option<Epoch>,
}

/// The reason why there is no mapping to look at.
enum NotFound {
    /// The block is remembered not to be shared.
    KnownUnshared,
    /// The lookup has failed.
    Failed(Miss),
}

/// Per-bio data of the target.
#[derive(Default)]
pub(crate) struct PerBioData {
    /// The layer that wrote the block that a read is for.
    owner: Option<LayerId>,
    /// The target whose read in flight this read has followed, or could have; 0 for none.
    followed: u32,
    /// When a read began to wait, and then when it was sent to the disk. For a write, when it was
    /// decided whether to write the whole block.
    pub(crate) since: Option<Since>,
    /// Whether this is a probe: a read that doesn't wait, or a write of a part, whose time is
    /// measured.
    pub(crate) probes: bool,
    /// Whether the read was served.
    pub(crate) served: bool,
    /// The pages of a read.
    pub(crate) filled: Filled,
    /// The part of a shared block that a read is for.
    pub(crate) range: Option<MappedRange>,
    /// Thin id of the first donor, for the comparison with the disk (paranoid).
    pub(crate) donor: u32,
    /// The locks of the blocks that a write changes.
    pub(crate) locked: Locked,
}

impl Drr {
    /// Maps a read.
    pub(crate) fn read<'a>(&'a self, mut bio: Bio<'a, Self>) -> Mapped {
        bio.data().filled = Filled::by(&bio);
        if self.handle.key().is_none() {
            self.handle.draw_key();
        }
        let located = self.locate(bio.sector(), bio.sectors());
        bio.data().owner = located.owner;
        let range = match located.range {
            Ok(_) if bio.transformed() => return self.missed(bio, Miss::Layout),
            Ok(range) => range,
            Err(miss) => return self.missed(bio, miss),
        };
        bio.data().range = Some(range);
        self.handle.blocks().read(range.block, range.layer.serial);
        HoldPoint::MappingKnown.pass();
        if self.features.no_receive {
            let (_, pages) = range.extent.pages();
            let entry = self.entry_of(&range, pages);
            return self.fetch(bio, range, pages, entry);
        }
        self.serve(bio, range)
    }

    /// Serves as many pages of a read, from its first on, as donors have. If donors have none of
    /// them, parks the read behind another one or sends it to the disk.
    fn serve<'a>(&'a self, mut bio: Bio<'a, Self>, mut range: MappedRange) -> Mapped {
        let mut again = true;
        loop {
            let served = self.copy_to(&mut bio, &range);
            if served.pages != 0 {
                self.accept(&mut bio, &mut range, served.pages);
                return self.hit(bio, &served.sources);
            }
            let pages = self.pages_without_donors(&range);
            let entry = self.entry_of(&range, pages);
            // A leader that has ended since donors were looked for has left records. The entry is
            // unlocked for copying, and locked again if no copy is proven: copying a block under
            // its lock would keep interrupts off for hundreds of microseconds, and a copy that
            // fails the proof takes locks of the table, below which the entry's lock ranks.
            if again && matches!(entry, Entry::Vacant(_)) && self.donors_came(&range, pages) {
                again = false;
                continue;
            }
            return self.fetch(bio, range, pages, entry);
        }
    }

    /// Returns how many pages of a read are to be fetched together: those before the first that
    /// donors can serve; all if the first pages have donors by now, or donors that couldn't be
    /// copied.
    fn pages_without_donors(&self, range: &MappedRange) -> u32 {
        let (first, count) = range.extent.pages();
        let guard = rcu::read_lock();
        let table = self.handle.table();
        match table.before_donors(&guard, &range.block, first, count, WORTH_PAGES) {
            0 => count,
            pages => pages,
        }
    }

    /// Returns whether any of the first `pages` pages of a read have donors by now.
    fn donors_came(&self, range: &MappedRange, pages: u32) -> bool {
        let (first, _) = range.extent.pages();
        let worth = pages.min(WORTH_PAGES);
        let guard = rcu::read_lock();
        let table = self.handle.table();
        table.before_donors(&guard, &range.block, first, pages, worth) < pages
    }

    /// Looks for a read in flight of the first `pages` pages of `range`, which the returned value
    /// locks.
    fn entry_of(&self, range: &MappedRange, pages: u32) -> Entry<'_, Self> {
        self.handle.in_flight().entry(PageRange {
            content: range.block.content(),
            first: range.extent.pages().0,
            count: pages,
        })
    }

    /// Copies to a read what donors have, and returns how much.
    fn copy_to(&self, bio: &mut Bio<'_, Self>, range: &MappedRange) -> Served {
        let Some(engine) = self.handle.engine() else {
            return Served::default();
        };
        let served = engine.serve(&range.block, range.extent, &mut bio.writer());
        self.stats.unproven(served.unproven);
        served
    }

    /// Parks the first pages of a read behind another read of them that is in flight, or sends the
    /// first `pages` pages to the disk. `entry` is that of these pages.
    fn fetch<'a>(
        &'a self,
        bio: Bio<'a, Self>,
        range: MappedRange,
        pages: u32,
        entry: Entry<'_, Self>,
    ) -> Mapped {
        match entry {
            Entry::Occupied(leader) => self.follow(bio, range, pages, leader),
            Entry::Vacant(vacant) => self.lead(bio, range, vacant),
        }
    }

    /// Parks a read behind `leader`. If the read can't follow, or had better not, sends its first
    /// `pages` pages to the disk.
    fn follow<'a>(
        &'a self,
        mut bio: Bio<'a, Self>,
        mut range: MappedRange,
        pages: u32,
        leader: Occupied<'_, Self>,
    ) -> Mapped {
        let now = Since::now();
        let may_follow = !self.features.no_receive && !bio.polled();
        let data = bio.data();
        data.since = Some(now);
        if may_follow {
            let other = leader.target().handle.target_id;
            data.followed = other;
            match self.advice(other, now) {
                Advice::Follow => {
                    self.accept(&mut bio, &mut range, leader.pages());
                    trace!(follow, self.traced(bio.sector(), bio.sectors()));
                    let patience = self.own_reads.patience(now.jiffies());
                    return leader.follow(bio, self, patience);
                }
                Advice::Probe => data.probes = true,
                Advice::Leave => {}
            }
        }
        drop(leader);
        self.accept(&mut bio, &mut range, pages);
        let private = self.wants_privacy(&bio, &range);
        self.send(bio, private)
    }

    /// Sends the pages that `vacant` has to the disk, and lets other reads follow if this read may
    /// lead.
    fn lead<'a>(
        &'a self,
        mut bio: Bio<'a, Self>,
        mut range: MappedRange,
        vacant: Vacant<'_, Self>,
    ) -> Mapped {
        let now = Since::now();
        self.accept(&mut bio, &mut range, vacant.pages());
        let private = self.wants_privacy(&bio, &range);
        if self.may_lead(&bio, &range, private, now) {
            bio.data().since = Some(now);
            vacant.lead(&bio, self, range.extent.pages().1);
        } else {
            drop(vacant);
        }
        self.send(bio, private)
    }

    /// Sends a read to the disk, as a private read if `private`.
    fn send<'a>(&'a self, bio: Bio<'a, Self>, private: bool) -> Mapped {
        match private {
            true => self.fetch_privately(bio),
            false => self.missed(bio, Miss::NoRecord),
        }
    }

    /// Returns whether other reads may follow this one: as far as can be told before it is sent,
    /// its pages will be on record when it has ended, and the target's reads aren't slower than
    /// others.
    fn may_lead(
        &self,
        bio: &Bio<'_, Self>,
        range: &MappedRange,
        private: bool,
        now: Since,
    ) -> bool {
        let targets = self.handle.targets();
        range.epoch.is_some()
            && !self.features.no_donate
            && range.extent.is_whole()
            && (private || matches!(bio.pages().next(), Some(FilledPages::Alone(_))))
            && targets
                .with(self.handle.target_id, |target| {
                    !target.lag.is_restrained(now.jiffies())
                })
                .unwrap_or(false)
    }

    /// Returns whether a read is to be private: its memory belongs to a page cache but may be
    /// written to during the read, or belongs to none but the metadata that is read may be kept.
    fn wants_privacy(&self, bio: &Bio<'_, Self>, range: &MappedRange) -> bool {
        range.epoch.is_some()
            && !self.features.no_donate
            && range.extent.is_whole()
            && range.extent.pages().1 <= MOST_PRIVATE_PAGES
            && self.handle.key().is_some()
            && !bio.polled()
            && match bio.pages().next() {
                Some(FilledPages::Buffers(_)) => true,
                Some(FilledPages::Alone(_)) => false,
                None => bio.metadata() && !self.features.no_meta_cache,
            }
    }

    /// Sends a private read to the disk, or `bio` itself if there is no memory.
    fn fetch_privately<'a>(&'a self, mut bio: Bio<'a, Self>) -> Mapped {
        let (sector, disk) = (bio.sector(), self.thin.device().bdev());
        let (owner, sectors, metadata) = (bio.data().owner, bio.sectors(), bio.metadata());
        let traced = self.traced(sector, sectors);
        match read_privately(bio, self, disk, sector) {
            Ok(mapped) => {
                self.stats.miss(Miss::NoRecord, owner, sectors, metadata);
                trace!(miss, traced, Miss::NoRecord.reason());
                mapped
            }
            Err(bio) => self.missed(bio, Miss::NoRecord),
        }
    }

    /// Goes on with a read that has followed another, for the reason `why`. Process context.
    pub(crate) fn followed<'a>(&'a self, mut bio: Bio<'a, Self>, why: Wake) -> Mapped {
        let now = Since::now();
        let (leader, since) = (bio.data().followed, bio.data().since.replace(now));
        if let Some(since) = since.filter(|_| why != Wake::Left) {
            let time = since.elapsed(now);
            let targets = self.handle.targets();
            targets.with(leader, |target| target.lag.waited(time));
        }
        let Some(range) = bio.data().range else {
            return self.missed(bio, Miss::Left);
        };
        // Served only as a whole, since a bio can't be divided after it was parked.
        let served = self.copy_to(&mut bio, &range);
        if served.pages != range.extent.pages().1 {
            return self.missed(bio, Miss::Left);
        }
        if why == Wake::Landed {
            self.stats.followed(bio.sectors());
        }
        self.hit(bio, &served.sources)
    }

    /// Learns from the time that a successful read took, if it came from the disk and either could
    /// be followed or could have followed another.
    pub(crate) fn learn_time(&self, data: &PerBioData) {
        let Some(since) = data.since.filter(|_| !data.served) else {
            return;
        };
        let now = Since::now();
        let time = since.elapsed(now);
        self.own_reads.took(time, now.jiffies());
        if data.probes {
            let targets = self.handle.targets();
            targets.with(data.followed, |target| {
                target.lag.judge(time, now.jiffies())
            });
        }
    }

    /// Returns what to do about a read in flight of the target `other`.
    fn advice(&self, other: u32, now: Since) -> Advice {
        let own = self.own_reads.worst(now.jiffies());
        let targets = self.handle.targets();
        targets
            .with(other, |target| target.lag.advice(own, now.jiffies()))
            .unwrap_or(Advice::Leave)
    }

    /// Completes a read that was served; in paranoid mode, once it was compared with the disk.
    fn hit<'a>(&'a self, mut bio: Bio<'a, Self>, sources: &Sources) -> Mapped {
        let (owner, metadata) = (bio.data().owner, bio.metadata());
        let (sector, sectors) = (bio.sector(), bio.sectors());
        bio.data().served = true;
        let account = || {
            self.stats.hit(owner, sectors, metadata, sources);
            trace!(hit, self.traced(sector, sectors), self.donor(sources));
            for source in sources.known() {
                self.handle.targets().with(source.target_id, |target| {
                    target.donated.add(source.sectors.into())
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
        // A read that can't be compared isn't served.
        match read_again(bio, self, disk, sector) {
            Ok(mapped) => {
                account();
                mapped
            }
            Err(mut bio) => {
                bio.data().served = false;
                self.missed(bio, Miss::NoRecord)
            }
        }
    }

    /// Describes the donors of a read for tracepoints.
    fn donor(&self, sources: &Sources) -> trace::Donor {
        let others = u32::from(sources.others() != 0);
        let Some(first) = sources.known().next() else {
            return trace::Donor::default();
        };
        let targets = self.handle.targets();
        trace::Donor {
            dev: targets
                .with(first.target_id, DonorTarget::dev_t)
                .unwrap_or(0),
            thin_id: first.layer.thin_id,
            // RANGE: At most `SOURCES`, and one for all others.
            donors: sources.known().count() as u32 + others,
        }
    }

    /// Shortens a read to its first `pages` pages; device-mapper sends the rest as another bio.
    fn accept(&self, bio: &mut Bio<'_, Self>, range: &mut MappedRange, pages: u32) {
        let len = range.extent.up_to(pages);
        if !bio.accept(len >> SECTOR_SHIFT) {
            return;
        }
        range.extent.len = len;
        bio.data().filled = Filled::by(bio);
        bio.data().range = Some(*range);
    }

    /// Counts a read that has missed, and sends it to the disk.
    fn missed(&self, mut bio: Bio<'_, Self>, miss: Miss) -> Mapped {
        let owner = bio.data().owner;
        self.stats.miss(miss, owner, bio.sectors(), bio.metadata());
        trace!(
            miss,
            self.traced(bio.sector(), bio.sectors()),
            miss.reason()
        );
        self.forward(bio)
    }

    /// Finds the block that the `sectors` sectors from `sector` on are in. May sleep.
    pub(crate) fn locate(&self, sector: u64, sectors: u32) -> Located {
        let layer = self.layer();
        let owner_at = |time| self.handle.tree().owner(layer, time);
        match self.mapping_of(layer, sector) {
            Ok(found) => {
                let (serial, owner) = owner_at(found.mapping.time);
                let range = self.part_of(&found, sector, sectors, serial);
                Located { owner, range }
            }
            Err(NotFound::KnownUnshared) => Located {
                // An unshared block was mapped after all snapshots, so this layer wrote it.
                owner: owner_at(u32::MAX).1,
                range: Err(Miss::Unshared),
            },
            Err(NotFound::Failed(miss)) => Located {
                owner: None,
                range: Err(miss),
            },
        }
    }

    /// Returns the mapping of the block of `layer` that `sector` is in: one that is kept, or one
    /// that is looked up. May sleep.
    fn mapping_of(&self, layer: ThinId, sector: u64) -> Result<Found, NotFound> {
        let block = sector / u64::from(self.block_sectors);
        let epoch = self.handle.pool.epochs.current(layer.thin_id(), block);
        let binding = self.thin.thin().binding();
        let kept = epoch.and_then(|epoch| {
            let mappings = self.handle.mappings();
            mappings.get(layer, block, self.block_sectors, epoch, binding)
        });
        if let Some(mapping) = kept {
            return Ok(Found { mapping, epoch });
        }
        let memory = self.memory_of(layer, block);
        if memory.unshared() {
            return Err(NotFound::KnownUnshared);
        }
        self.look_up(sector, layer, block, epoch, &memory)
            .map_err(NotFound::Failed)
    }

    /// Returns the `sectors` sectors from `sector` on as a part of the block that was found, or the
    /// reason why donors can't serve it. `serial` is that of the target's layer.
    fn part_of(
        &self,
        found: &Found,
        sector: u64,
        sectors: u32,
        serial: Serial,
    ) -> Result<MappedRange, Miss> {
        let mapping = &found.mapping;
        // CAST: The remainder of a division by a u32.
        let at = (sector % u64::from(self.block_sectors)) as u32;
        // RANGE: `at` is a remainder, and less.
        if sectors == 0 || sectors > self.block_sectors - at {
            return Err(Miss::Layout);
        }
        if !mapping.shared && Rule::Shared.on() {
            return Err(Miss::Unshared);
        }
        Ok(MappedRange {
            block: Block::of(mapping).ok_or(Miss::Layout)?,
            extent: ByteRange {
                // RANGE: dm-thin's blocks are no longer than 1 GiB.
                at: at << SECTOR_SHIFT,
                len: sectors << SECTOR_SHIFT,
            },
            layer: LayerId {
                serial,
                thin_id: mapping.thin_id,
            },
            epoch: found.epoch,
            binding: mapping.binding,
        })
    }

    /// Returns the entry that remembers whether virtual block `block` of `layer` is unshared.
    pub(crate) fn memory_of(&self, layer: ThinId, block: u64) -> Memory<'_> {
        let binding = self.thin.thin().binding();
        self.handle.unshared().at(layer, block, binding)
    }

    /// Looks up where `sector` is mapped, in virtual block `block` of `layer`, and caches the
    /// result. `epoch` and `memory` are the block's, and were taken before; the epoch is not
    /// returned if it may have missed a change. May sleep.
    fn look_up(
        &self,
        sector: u64,
        layer: ThinId,
        block: u64,
        epoch: Option<Epoch>,
        memory: &Memory<'_>,
    ) -> Result<Found, Miss> {
        let mapping = self
            .thin
            .thin()
            .lookup(sector)
            .map_err(|error| match error {
                EAGAIN => Miss::Metadata,
                error if error == stale() => Miss::Stale,
                _ => Miss::Unshared,
            })?;
        self.check_layer(layer, &mapping)?;
        let epoch = epoch.filter(|_| self.handle.pool.settles(&mapping));
        if mapping.shared {
            if let Some(epoch) = epoch {
                let mappings = self.handle.mappings();
                mappings.keep(layer, block, epoch, &mapping);
            }
        } else if Rule::Shared.on() {
            memory.keep();
        }
        Ok(Found { mapping, epoch })
    }

    /// Checks that `mapping` is one of `layer`, for which the epoch was taken: the thin device's
    /// table may have been replaced.
    fn check_layer(&self, layer: ThinId, mapping: &Mapping) -> Result<(), Miss> {
        let now = ThinId::new(mapping.pool, mapping.thin_id);
        if mapping.block_sectors != self.block_sectors {
            return Err(Miss::Layout);
        }
        if mapping.pool != self.handle.pool.id {
            return Err(Miss::Changed);
        }
        if now != layer {
            self.layer.store(now.to_bits(), Relaxed);
            return Err(Miss::Changed);
        }
        Ok(())
    }

    /// Returns whether the mapping of `range` has been left alone since before it was looked up,
    /// and the thin device's table is the same.
    pub(crate) fn still_there(&self, range: &MappedRange) -> bool {
        range
            .epoch
            .is_some_and(|epoch| self.handle.pool.epochs.unchanged(epoch))
            && (self.thin.thin().binding() == range.binding || !Rule::Binding.on())
    }
}
