// SPDX-License-Identifier: GPL-2.0

//! The target: the walk of a bio.
//!
//! ```text
//! read:   map -> thin lookup -> (not shared | no metadata: forward)
//!                -> access table -> copy engine -> hits: complete, and come again with the rest
//!                                               -> misses, up to the next hits: forward
//!         end_io -> success: record the pages read; error: end what is known of them
//! write, discard, write zeroes:
//!         map -> whoever reads these blocks right now must notice
//!                -> part of a shared block, donors have the rest: write all of the block
//!                -> else forward
//! flush and everything else: forward
//! page events, pool events: see dm::directory and crate::access
//! ```
//!
//! A hit is completed in `map`, which brings it to `end_io` like a read from the disk: both end
//! in the same recording, so the reader is the newest donor of what it has just got.

use core::fmt::Write;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc,
    },
};

use dm::{
    bio::{Bio, EndedBio, Filled, Mapped, Op},
    device::Device,
    directory::{End, ReadRange},
    folio::{ReadPages, PAGE_SECTORS_SHIFT},
    guard::Guard,
    inflight::Lent,
    printer::Printer,
    sched::may_warn,
    target::{Constructor, OwnDevice, StatusType, Target},
    thin::{OpenError, ThinDevice},
    trace,
    verify::Verdict,
};

use crate::{
    args::{Args, Features},
    core::{Core, Membership},
    donor, duplicates,
    giver::Giver,
    layer::Layer,
    message::{Answer, Message},
    read::{Passage, Place},
    stats::Stats,
};

/// A `drr` target.
pub(crate) struct Drr {
    // Dropped first, so that no record is left when the devices go.
    pub(crate) member: Membership,
    pub(crate) thin: ThinDevice,
    pub(crate) own: OwnDevice,
    pub(crate) features: Features,
    pub(crate) block_sectors: u32,
    /// The target's length.
    pub(crate) sectors: u64,
    /// [`Layer::number`] of the thin device; another only after its table was replaced.
    pub(crate) layer: Atomic<u64>,
    /// Counts how often the device came to be claimed, and whether it was when last seen:
    /// twice the count, plus one while it is.
    claims: Atomic<u64>,
    /// Pages of the block device's own may be recorded.
    raw_records: Atomic<bool>,
    pub(crate) stats: Stats,
}

#[vtable]
impl Target for Drr {
    type PerBio = Passage;
    type Shared = Core;
    type Answer = Answer;

    const NAME: &'static CStr = c"drr";
    const VERSION: [u32; 3] = [1, 0, 0];

    fn new(ctor: &Constructor<'_>, core: &Arc<Core>, args: &[&CStr]) -> Result<KBox<Self>> {
        let own = ctor.own_device();
        let args = Args::parse(args).map_err(|error| {
            pr_err!(
                "{}: {} \"{}\": {}\n",
                own.name(),
                error.text(),
                error.culprit().unwrap_or_default(),
                error.remedy()
            );
            ctor.fail(error.text(), EINVAL)
        })?;
        let device = ctor.open(args.device).map_err(|error| {
            pr_err!("{}: cannot open device {}\n", own.name(), args.device);
            ctor.fail(c"Cannot open device", error)
        })?;
        let device_sectors = device.bdev().sectors();
        let (thin, info) = ThinDevice::new(device).map_err(|error| match error {
            OpenError::NoInterface => ctor.fail(
                c"dm-thin-pool without stacking support loaded: load the patched one",
                EOPNOTSUPP,
            ),
            OpenError::NotThin(error) => {
                pr_err!("{}: {} is not a thin device\n", own.name(), args.device);
                ctor.fail(c"Device is not a device-mapper thin device", error)
            }
            OpenError::Suspended => {
                pr_err!("{}: {} is suspended\n", own.name(), args.device);
                ctor.fail(c"Thin device is suspended: resume it, or its pool", EAGAIN)
            }
            OpenError::NoInfo(error) => ctor.fail(c"Cannot read the thin device's metadata", error),
        })?;
        if ctor.sectors() > device_sectors {
            pr_err!(
                "{}: {} sectors are too long for {}, which has {}\n",
                own.name(),
                ctor.sectors(),
                args.device,
                device_sectors
            );
            return Err(ctor.fail(
                c"Target is too long: beyond the end of the thin device",
                EINVAL,
            ));
        }
        ctor.split_at(info.block_sectors)?;
        ctor.pass_flush_and_discard();

        core.table
            .expect_blocks_of(info.block_sectors >> PAGE_SECTORS_SHIFT);
        let member = core
            .join(own.bdev(), &info, &args.features)
            .map_err(|error| ctor.fail(c"Cannot watch the pool", error))?;
        let target = Self {
            member,
            thin,
            own,
            features: args.features,
            block_sectors: info.block_sectors,
            sectors: ctor.sectors(),
            layer: Atomic::new(Layer::new(info.pool, info.thin_id).number()),
            claims: Atomic::new(0),
            raw_records: Atomic::new(false),
            stats: Stats::new()?,
        };
        Ok(KBox::new(target, GFP_KERNEL)?)
    }

    fn landed<'a>(&'a self, bio: Bio<'a, Self>, lent: Option<Lent<'_, Self>>) -> Mapped {
        match bio.op() {
            Op::Change => self.change(bio),
            _ => self.followed(bio, lent),
        }
    }

    fn lends(&self, bio: &EndedBio<'_, Self>) -> bool {
        let place = &bio.data().place;
        !Guard::Lend.on() || place.is_some_and(|place| self.still_there(&place))
    }

    fn led_in_vain(&self) {
        self.member.table().givers.in_vain(self.member.device);
    }

    /// Nobody has to wait for the suspended.
    fn presuspend(&self) {
        self.member.flights().release(self);
    }

    fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped {
        self.watch_claims();
        match bio.op() {
            Op::Read => self.read(bio),
            Op::Change => self.change(bio),
            Op::Other => self.forward(bio),
        }
    }

    fn end_io(&self, bio: &EndedBio<'_, Self>, ok: bool) {
        let passage = bio.data();
        if !passage.locked.is_empty() {
            return self.changed(passage.locked);
        }
        if !ok && Guard::ReadError.on() {
            // The folio doesn't become up to date, so its good pages will be read again, from
            // wherever the file's blocks are then.
            for pages in passage.filled.pages(bio) {
                self.member.table().directory().read_failed(&pages);
            }
            return;
        }
        if !bio.readahead() && Guard::Readahead.on() {
            // On behalf of a write perhaps, which may change the page and then give up without
            // making it dirty: a copy from user space that was cut short, and a fatal signal.
            return self.forget(bio, &passage.filled);
        }
        if let Some(place) = &passage.place {
            self.record(bio, place, &passage.filled);
        }
    }

    fn verified(&self, passage: &mut Passage, verdict: Verdict) {
        let changed = passage.place.is_none_or(|place| !self.still_there(&place));
        match verdict {
            Verdict::Same => self.stats.verified(true),
            // What the disk has now is what the reader gets, as it would have without us.
            _ if changed => passage.place = None,
            Verdict::Failed => passage.place = None,
            Verdict::Different(at) => {
                self.stats.verified(false);
                // A direct reader that writes to its own buffer can get here at will.
                if let Some(place) = passage.place.take().filter(|_| may_warn()) {
                    let layer = self.layer();
                    pr_warn!(
                        "paranoid: mismatch: {} (thin {}) got wrong data from thin {}: \
                         byte {at} of {} pages at page {} of {:?}; the disk's was used\n",
                        self.own.name(),
                        layer.thin_id(),
                        passage.donor,
                        place.count,
                        place.first,
                        place.block
                    );
                }
            }
        }
    }

    fn device(&self) -> &Device {
        self.thin.device()
    }

    fn status(&self, kind: StatusType, out: &mut Printer<'_>) -> Result {
        match kind {
            StatusType::Info => self.print_info(out),
            StatusType::Table => self.print_table(out),
            StatusType::Ima => self.print_ima(out),
        }
        .map_err(|_| EIO)
    }

    fn message(&self, args: &[&CStr]) -> Result<Option<Answer>> {
        #[cfg(DRR_MUTANTS)]
        if let Some(result) = dm::hold::message(args) {
            return result.map(|()| None);
        }
        let message = Message::parse(args).map_err(|error| {
            pr_err!(
                "{}: {} \"{}\": {}\n",
                self.own.name(),
                error.text(),
                error.culprit(),
                error.remedy()
            );
            EINVAL
        })?;
        match message {
            Message::ResetStats => {
                self.stats.reset();
                self.member
                    .table()
                    .givers
                    .with(self.member.device, Giver::reset);
            }
            Message::Declare {
                thin_id,
                parent,
                created,
            } => self.declare(thin_id, parent, created)?,
            Message::CountBlocks(on) => self.member.blocks().switch(on),
            Message::Tell(what) => return Ok(Some(what)),
        }
        Ok(None)
    }

    fn answer(&self, what: Answer, out: &mut Printer<'_>) -> Result {
        let pool = self.layer().pool();
        match what {
            Answer::Layers => self.print_layers(out),
            Answer::Heat => self.print_heat(out),
            Answer::Blocks => self.member.blocks().print(pool, self.block_sectors, out),
            Answer::Duplicates => return duplicates::print(self.member.table(), pool, out),
            Answer::Copies(from) => {
                return duplicates::list(self.member.table(), pool, from, out);
            }
        }
        .map_err(|_| EIO)
    }

    /// The thin device's table may have been replaced while this device was suspended.
    fn preresume(&self) -> Result {
        self.member.table().unshared.forget();
        let (givers, number) = (&self.member.table().givers, self.own.bdev().number());
        givers.with(self.member.device, |giver| giver.numbered(number));
        // Not if the thin device is suspended itself; then `place` finds out.
        let Ok(info) = self.thin.thin().info() else {
            return Ok(());
        };
        if info.block_sectors != self.block_sectors {
            pr_err!(
                "{}: blocks of the thin device are {} sectors now, not {}: reload the table\n",
                self.own.name(),
                info.block_sectors,
                self.block_sectors
            );
            return Err(EINVAL);
        }
        let layer = Layer::new(info.pool, info.thin_id);
        self.layer.store(layer.number(), Relaxed);
        self.member.moves_to(&info);
        Ok(())
    }

    /// A thin block, so that readahead asks for whole blocks.
    fn optimal_io_bytes(&self) -> u32 {
        self.block_sectors.saturating_mul(512)
    }
}

impl Drr {
    pub(crate) fn layer(&self) -> Layer {
        Layer::from_number(self.layer.load(Relaxed))
    }

    /// Takes somebody's word for where a layer comes from.
    fn declare(&self, thin_id: u32, parent: Option<u32>, created: Option<u32>) -> Result {
        let pool = self.layer().pool();
        let layer = |thin_id| Layer::new(pool, thin_id);
        self.member
            .tree()
            .declare(layer(thin_id), parent.map(layer), created)
            .map_err(|error| {
                pr_err!(
                    "{}: layer {thin_id}: {}: {}\n",
                    self.own.name(),
                    error.text(),
                    error.remedy()
                );
                error.into()
            })
    }

    /// What tracepoints tell of a bio, or of a part of one.
    pub(crate) fn traced(&self, sector: u64, sectors: u32) -> trace::Part {
        trace::Part {
            dev: self.own.bdev().number(),
            thin_id: self.layer().thin_id(),
            sector,
            sectors,
        }
    }

    /// What tracepoints tell of `pages` pages from page `page` of a block on.
    fn traced_pages(&self, place: &Place, page: u32, pages: u32) -> trace::Pages {
        trace::Pages {
            dev: self.own.bdev().number(),
            thin_id: place.layer.thin_id,
            pool: place.block.pool(),
            block: place.block.content().1,
            page,
            pages,
        }
    }

    /// Sends a bio down unchanged: the target's sectors are the thin device's.
    pub(crate) fn forward(&self, bio: Bio<'_, Self>) -> Mapped {
        let sector = bio.sector();
        bio.remap(self.thin.device().bdev(), sector)
    }

    /// Ends what is known of the folios that a read was for.
    fn forget(&self, bio: &EndedBio<'_, Self>, filled: &Filled) {
        for pages in filled.pages(bio) {
            self.member.table().forget_folio(&pages);
        }
    }

    /// Records what a read has filled.
    fn record(&self, bio: &EndedBio<'_, Self>, place: &Place, filled: &Filled) {
        if self.features.no_donate || !self.still_there(place) {
            return;
        }
        let table = self.member.table();
        let claims = self.claims.load(Acquire);
        let (mut recorded, mut raw, mut partial) = (0, false, false);
        let mut record = |range: ReadRange<'_>| {
            let page = place.first + range.offset();
            let pages = table.record(&place.block, page, range, self.member.device, place.layer);
            recorded += pages;
            trace!(record, self.traced_pages(place, page, pages));
        };
        let mut range: Option<ReadRange<'_>> = None;
        for pages in filled.pages(bio) {
            // Then the folio won't be up to date, and may become so without being read again.
            if table.directory().may_be_incomplete(&pages) {
                continue;
            }
            partial |= !pages.is_whole_folio();
            // Of the same inode, whose rules hold for all of it; a claim since is noticed below.
            if range.as_mut().is_some_and(|range| range.extend(&pages)) {
                continue;
            }
            range.take().map(&mut record);
            if !donor::recordable(&pages, self.own.bdev()) {
                continue;
            }
            if pages.inode().is_block_device() {
                raw = true;
                // Before the record, so that whoever sees the device claimed looks for it.
                self.raw_records.store(true, Relaxed);
            }
            range = Some(ReadRange::new(&pages));
        }
        range.take().map(&mut record);
        self.stats.recorded(recorded);
        // Changes, claims, failures and truncations end only what is on record by then: one that
        // came just before is noticed here, once for the whole read. Nobody has been served from
        // these records meanwhile, as the reader holds the folios' locks until the read completes.
        let changed = !self.still_there(place);
        let claimed = raw && self.claims.fetch_add(0, Full) != claims;
        if !(changed || claimed || partial || table.givers.any_withheld()) {
            return;
        }
        for pages in filled.pages(bio) {
            let failed = partial && table.directory().may_be_incomplete(&pages);
            if changed || claimed || failed || self.withholds(&pages) {
                table.forget_folio(&pages);
            }
        }
    }

    /// The pages may be about to be zeroed in part.
    fn withholds(&self, pages: &ReadPages<'_>) -> bool {
        let (first, last) = pages.folio_range();
        let givers = &self.member.table().givers;
        givers.withholds(self.member.device, pages.mapping().number(), first, last)
    }

    /// Ends the records of the block device's own pages when somebody claims the device: a file
    /// system may now change them unnoticed, and they would look the same when it is gone again.
    ///
    /// Between the claim and the first such change there is I/O, which comes through here; a
    /// claim that does no I/O changes nothing.
    fn watch_claims(&self) {
        let claimed = self.own.bdev().claimed();
        let seen = self.claims.load(Relaxed);
        if claimed == (seen & 1 == 1) || !Guard::ClaimedDevice.on() {
            return;
        }
        // Odd while claimed; whoever is first counts.
        let counted = self.claims.cmpxchg(seen, seen + 1, Full).is_ok();
        if counted && claimed && self.raw_records.load(Relaxed) {
            self.raw_records.store(false, Relaxed);
            self.member
                .table()
                .forget_device(self.member.device, End::Claimed);
        }
    }

    fn print_info(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        let info = match self.thin.thin().info() {
            Ok(info) => info,
            // Suspended, or the pool has failed: as dm-thin prints it.
            Err(_) => {
                write!(out, "- -")?;
                return self.print_figures(out);
            }
        };
        write!(out, "{} ", info.mapped_sectors)?;
        match info.highest_sector {
            Some(sector) => write!(out, "{sector}")?,
            None => write!(out, "-")?,
        }
        self.print_figures(out)
    }

    fn print_figures(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        write!(out, " thin={}", self.layer().thin_id())?;
        self.stats.print_reads(out)?;
        let givers = &self.member.table().givers;
        givers
            .with(self.member.device, |giver| giver.print(out))
            .transpose()?;
        let (records, pages, bytes) = self.member.table().usage();
        write!(
            out,
            " records={records} tracked_pages={pages} table_bytes={bytes}"
        )?;
        self.stats.print_verified(out)?;
        self.stats.heat.print_from(out)
    }

    fn print_layers(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        let pool = self.layer().pool();
        writeln!(out, "drr-layers 1 pool={pool}")?;
        self.member.tree().print(pool, out)
    }

    fn print_heat(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        let layer = self.layer();
        let (pool, thin_id) = (layer.pool(), layer.thin_id());
        let serial = self.member.tree().serial(layer);
        writeln!(out, "drr-heat 1 pool={pool} layer={serial} thin={thin_id}")?;
        self.stats.heat.print(out)
    }

    fn print_device(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        let number = self.thin.device().number();
        let number = CStr::from_bytes_until_nul(&number).unwrap_or_default();
        out.write_str(number.to_str().unwrap_or_default())
    }

    fn print_table(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        self.print_device(out)?;
        self.features.print(out)
    }

    fn print_ima(&self, out: &mut Printer<'_>) -> core::fmt::Result {
        let [major, minor, patch] = Self::VERSION;
        write!(
            out,
            "target_name=drr,target_version={major}.{minor}.{patch},thin_device="
        )?;
        self.print_device(out)?;
        for (name, set) in self.features.iter() {
            write!(out, ",{name}={}", if set { 'y' } else { 'n' })?;
        }
        write!(out, ";")
    }
}
