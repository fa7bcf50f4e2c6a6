// SPDX-License-Identifier: GPL-2.0

//! The target: the path of a bio.
//!
//! ```text
//! read:   map -> thin lookup -> (not shared | no metadata: forward)
//!                -> access table -> copy engine -> proven: complete, the rest is another bio
//!                                               -> no donors, up to the next that have some:
//!                                                  follow a read of the same, or forward
//!         end_io -> success: record the pages read, with their digests
//! write, discard, write zeroes:
//!         map -> a block of it is just written as a whole: park
//!             -> part of a shared block, donors have the rest: write all of the block
//!             -> else forward
//!         end_io -> unlock its blocks
//! empty flush, and everything else: forward
//! page events, pool events: see crate::events and crate::pool
//! ```
//!
//! A hit is completed in `map`, and device-mapper then calls `end_io` as for a read from the disk:
//! both end in the same recording, so the reader becomes the newest donor of the pages that it got.

use core::{fmt::Write, iter};

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

use dm::{
    block::bio::{Bio, EndedBio, Mapped, Op, SECTOR_SHIFT},
    compat::not_supported,
    drr::trace,
    io::end_later::EndIoLater,
    io::in_flight::InFlightBio,
    io::parked::{Follow, Wake},
    io::verify::{Verdict, Verify},
    pagecache::folio::{FilledPages, PAGE_SECTORS, PAGE_SHIFT},
    sched::{in_hardirq, may_warn},
    sync::work_queue::WorkQueue,
    target::status_buffer::StatusBuffer,
    target::thin::{Info, OpenError, ThinDevice},
    target::{Constructor, DeviceRange, Ended, Limits, MappedDevice, StatusType, Target},
};

use crate::{
    access::donor_target::DonorTarget,
    args::{Args, Features},
    core::{Core, TargetHandle},
    io::patience::{FullBlockWrites, OwnReads},
    io::read::PerBioData,
    layers::duplicates,
    layers::id::ThinId,
    message::{Answer, Message},
    refusal::Refusal,
    stats::Stats,
};

/// Most pages that are hashed in a hard interrupt, as each takes up to a microsecond; more are
/// hashed in a softirq.
const MOST_HASHED: u32 = 4;

/// A `drr` target.
pub(crate) struct Drr {
    /// Dropped first, so that no record is left when the devices go.
    pub(crate) handle: TargetHandle,
    pub(crate) thin: ThinDevice,
    pub(crate) md: MappedDevice,
    pub(crate) features: Features,
    pub(crate) block_sectors: u32,
    /// The target's length in sectors.
    pub(crate) sectors: u64,
    /// [`ThinId::to_bits`] of the thin device; changes only if the device's table is replaced.
    pub(crate) layer: Atomic<u64>,
    pub(crate) stats: Stats,
    /// Times of the target's reads from the disk.
    pub(crate) own_reads: OwnReads,
    pub(crate) whole_writes: FullBlockWrites,
}

/// Parses the arguments of a table line. Fails with `EINVAL`, and logs what to write instead.
fn parse_args<'a>(
    ctor: &Constructor<'_>,
    md: &MappedDevice,
    args: &[&'a CStr],
) -> Result<Args<'a>> {
    Args::parse(args).map_err(|error| {
        Refusal::from(&error).log(md);
        ctor.fail(error.text(), EINVAL)
    })
}

/// Opens the thin device at `path`, and returns what dm-thin tells of it. Fails as
/// [`Constructor::open`] and [`ThinDevice::new`] do, with `EOPNOTSUPP` without a provider of
/// dm-thin's interface, and with `EAGAIN` if the thin device is suspended.
fn open_thin(ctor: &Constructor<'_>, md: &MappedDevice, path: &CStr) -> Result<(ThinDevice, Info)> {
    let device = ctor.open(path).inspect_err(|_| {
        pr_err!("{}: cannot open device {}\n", md.name(), path);
    })?;
    ThinDevice::new(device).map_err(|error| match error {
        OpenError::NoInterface => ctor.fail(
            c"dm-thin-pool without stacking support loaded: load dm-thin-hooks or the patched one",
            not_supported(),
        ),
        OpenError::NotThin(error) => {
            pr_err!("{}: {} is not a thin device\n", md.name(), path);
            ctor.fail(c"Device is not a device-mapper thin device", error)
        }
        OpenError::Suspended => {
            pr_err!("{}: {} is suspended\n", md.name(), path);
            ctor.fail(c"Thin device is suspended: resume it, or its pool", EAGAIN)
        }
        OpenError::NoInfo(error) => ctor.fail(c"Cannot read the thin device's metadata", error),
    })
}

/// Checks that the target ends within the thin device at `path`. Fails with `EINVAL`.
fn check_length(
    ctor: &Constructor<'_>,
    md: &MappedDevice,
    thin: &ThinDevice,
    path: &CStr,
) -> Result {
    let device_sectors = thin.device().bdev().sectors();
    if ctor.sectors() <= device_sectors {
        return Ok(());
    }
    pr_err!(
        "{}: {} sectors are too long for {}, which has {}\n",
        md.name(),
        ctor.sectors(),
        path,
        device_sectors
    );
    Err(ctor.fail(
        c"Target is too long: beyond the end of the thin device",
        EINVAL,
    ))
}

#[vtable]
impl Target for Drr {
    type PerBio = PerBioData;
    type InFlight = InFlightBio;
    type Shared = Core;
    type Reply = Answer;

    const NAME: &'static CStr = c"drr";
    const VERSION: [u32; 3] = [1, 0, 0];

    fn new(ctor: &Constructor<'_>, core: &Arc<Core>, args: &[&CStr]) -> Result<KBox<Self>> {
        let md = ctor.mapped_device();
        let args = parse_args(ctor, &md, args)?;
        let (thin, info) = open_thin(ctor, &md, args.device)?;
        check_length(ctor, &md, &thin, args.device)?;
        ctor.split_at(info.block_sectors)?;
        ctor.set_flush_bios(1);
        ctor.set_discard_bios(1);

        let handle = core
            .join(&info, &args.features)
            .map_err(|error| ctor.fail(c"Cannot watch the pool", error))?;
        let target = Self {
            handle,
            thin,
            md,
            features: args.features,
            block_sectors: info.block_sectors,
            sectors: ctor.sectors(),
            layer: Atomic::new(ThinId::new(info.pool, info.thin_id).to_bits()),
            stats: Stats::new()?,
            own_reads: OwnReads::new(),
            whole_writes: FullBlockWrites::new(),
        };
        Ok(KBox::new(target, GFP_KERNEL)?)
    }

    /// Releases the reads that wait for reads of this target, and this target's reads that wait for
    /// others.
    fn presuspend(&self) {
        self.handle.in_flight().release(self);
    }

    fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped {
        if bio.sectors() == 0 {
            return bio.redirect(self.thin.device().bdev());
        }
        match bio.op() {
            Op::Read => self.read(bio),
            op if op.changes_sectors() => self.change(bio),
            _ => self.forward(bio),
        }
    }

    /// Records what a read has filled, in a softirq if this takes longer than an interrupt should.
    fn end_io(&self, mut bio: EndedBio<'_, Self>) -> Ended {
        if self.hashes_many(&bio) && in_hardirq() {
            return bio.end_later(self, self.handle.softirq());
        }
        self.end_io_later(&mut bio);
        bio.done()
    }

    fn devices(&self, sectors: u64) -> impl Iterator<Item = DeviceRange<'_>> {
        iter::once(self.thin.device().range(0, sectors))
    }

    fn status(&self, kind: StatusType, out: &mut StatusBuffer<'_>) -> Result {
        match kind {
            StatusType::Info => self.print_info(out),
            StatusType::Table => self.print_table(out),
            StatusType::Ima => self.print_ima(out),
        }
        .map_err(|_| EIO)
    }

    fn message(&self, args: &[&CStr]) -> Result<Option<Answer>> {
        #[cfg(DRR_MUTANTS)]
        if let Some(result) = dm::drr::hold_point::message(args) {
            return result.map(|()| None);
        }
        let message = Message::parse(args).map_err(|error| {
            Refusal::from(&error).log(&self.md);
            EINVAL
        })?;
        match message {
            Message::ResetStats => {
                self.stats.reset();
                self.handle
                    .targets()
                    .with(self.handle.target_id, DonorTarget::reset);
            }
            Message::Declare {
                thin_id,
                parent,
                created,
            } => self.declare(thin_id, parent, created)?,
            Message::CountBlocks(on) => self.handle.blocks().switch(on),
            Message::Tell(what) => return Ok(Some(what)),
        }
        Ok(None)
    }

    fn reply(&self, what: Answer, out: &mut StatusBuffer<'_>) -> Result {
        let pool = self.layer().pool();
        match what {
            Answer::Layers => self.print_layers(out),
            Answer::Heatmap => self.print_heat(out),
            Answer::Blocks => self.handle.blocks().print(pool, self.block_sectors, out),
            Answer::Duplicates => return duplicates::print(self.handle.table(), pool, out),
            Answer::Copies(from) => {
                return duplicates::list(self.handle.table(), pool, from, out);
            }
        }
        .map_err(|_| EIO)
    }

    /// Checks the thin device, whose table may have been replaced while this device was suspended,
    /// and forgets what is known of the old one. Fails with `EINVAL` if the thin device has another
    /// pool or block size.
    fn preresume(&self) -> Result {
        self.handle.unshared().forget();
        self.own_reads.forget();
        self.whole_writes.forget();
        let (targets, dev_t) = (self.handle.targets(), self.md.bdev().dev_t());
        targets.with(self.handle.target_id, |target| {
            target.lag.forget();
            target.set_dev_t(dev_t);
        });
        // Fails if the thin device itself is suspended; `locate` then finds out.
        let Ok(info) = self.thin.thin().info() else {
            return Ok(());
        };
        if info.pool != self.handle.pool.id {
            pr_err!(
                "{}: the thin device is another pool's now: reload the table\n",
                self.md.name()
            );
            return Err(EINVAL);
        }
        if info.block_sectors != self.block_sectors {
            pr_err!(
                "{}: blocks of the thin device are {} sectors now, not {}: reload the table\n",
                self.md.name(),
                info.block_sectors,
                self.block_sectors
            );
            return Err(EINVAL);
        }
        let layer = ThinId::new(info.pool, info.thin_id);
        self.layer.store(layer.to_bits(), Relaxed);
        self.handle.moves_to(&info);
        Ok(())
    }

    /// Makes readahead ask for whole thin blocks, and no I/O split in the middle of a page: 255
    /// sectors are a common limit.
    fn io_hints(&self, limits: &mut Limits<'_>) {
        limits.raise_io_opt(self.block_sectors.saturating_mul(1 << SECTOR_SHIFT));
        limits.round_max_sectors(PAGE_SECTORS);
    }
}

impl EndIoLater for Drr {
    fn end_io_later(&self, bio: &mut EndedBio<'_, Self>) {
        self.ended(bio);
        // Only now, as the records have been made.
        bio.wake_followers();
    }
}

impl Verify for Drr {
    fn verified(&self, data: &mut PerBioData, verdict: Verdict) {
        let changed = data.range.is_none_or(|range| !self.still_there(&range));
        match verdict {
            Verdict::Same => self.stats.verified(true),
            // The mapping has changed: the reader gets what the disk has now, as without DRR.
            _ if changed => data.range = None,
            Verdict::Failed => data.range = None,
            Verdict::Different(at) => {
                self.stats.verified(false);
                // A direct reader can cause this at will by writing to its own buffer.
                if let Some(range) = data.range.take().filter(|_| may_warn()) {
                    let layer = self.layer();
                    pr_warn!(
                        "paranoid: mismatch: {} (thin {}) got wrong data from thin {}: \
                         byte {at} of {:?} of {:?}; the disk's was used\n",
                        self.md.name(),
                        layer.thin_id(),
                        data.donor,
                        range.extent,
                        range.block
                    );
                }
            }
        }
    }
}

impl Follow for Drr {
    fn resume_bio<'a>(&'a self, bio: Bio<'a, Self>, why: Wake) -> Mapped {
        match bio.op() {
            Op::Read => self.followed(bio, why),
            _ => self.change(bio),
        }
    }

    fn queue(&self) -> &WorkQueue {
        &self.handle.pool.queue
    }
}

impl Drr {
    /// Returns whether more pages than [`MOST_HASHED`] are to be hashed now that the bio has ended.
    fn hashes_many(&self, bio: &EndedBio<'_, Self>) -> bool {
        let data = bio.data();
        let len = data.range.as_ref().map_or(0, |range| range.extent.len);
        let many = bio.ok() && !data.served && len >> PAGE_SHIFT > MOST_HASHED;
        many && matches!(data.filled.pages(bio).next(), Some(FilledPages::Alone(_)))
    }

    /// Unlocks what a write has locked, or records what a read has filled.
    fn ended(&self, bio: &EndedBio<'_, Self>) {
        let data = bio.data();
        if !data.locked.is_empty() {
            return self.changed(data, bio.ok());
        }
        if !bio.ok() {
            return;
        }
        self.learn_time(data);
        if let Some(range) = data.range.as_ref() {
            if data.served {
                self.inherit(bio, range);
            } else if let Some(key) = self.handle.key() {
                self.record(bio, range, key);
            }
        }
    }

    /// Returns the thin device's id, with that of its pool.
    pub(crate) fn layer(&self) -> ThinId {
        ThinId::from_bits(self.layer.load(Relaxed))
    }

    /// Applies a message that declares where a layer comes from.
    fn declare(&self, thin_id: u32, parent: Option<u32>, created: Option<u32>) -> Result {
        let pool = self.layer().pool();
        let layer = |thin_id| ThinId::new(pool, thin_id);
        self.handle
            .tree()
            .declare(layer(thin_id), parent.map(layer), created)
            .map_err(|error| {
                Refusal::of_layer(thin_id, error).log(&self.md);
                error.into()
            })
    }

    /// Describes a bio, or a part of one, for tracepoints.
    pub(crate) fn traced(&self, sector: u64, sectors: u32) -> trace::Part {
        trace::Part {
            dev: self.md.bdev().dev_t(),
            thin_id: self.layer().thin_id(),
            sector,
            sectors,
        }
    }

    /// Sends a bio down unchanged: the target's sectors are the thin device's.
    pub(crate) fn forward(&self, bio: Bio<'_, Self>) -> Mapped {
        let sector = bio.sector();
        bio.remap(self.thin.device().bdev(), sector)
    }

    fn print_info(&self, out: &mut StatusBuffer<'_>) -> core::fmt::Result {
        let info = match self.thin.thin().info() {
            Ok(info) => info,
            // The thin device is suspended, or the pool has failed: print what dm-thin does.
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

    fn print_figures(&self, out: &mut StatusBuffer<'_>) -> core::fmt::Result {
        write!(out, " thin={}", self.layer().thin_id())?;
        self.stats.print_reads(out)?;
        let targets = self.handle.targets();
        targets
            .with(self.handle.target_id, |target| target.print(out))
            .transpose()?;
        let (records, pages, bytes) = self.handle.usage();
        write!(
            out,
            " records={records} tracked_pages={pages} table_bytes={bytes} meta_cache_pages={}",
            self.handle.pool.metadata.pages()
        )?;
        self.stats.print_verified(out)?;
        let limits = if self.can_write_whole() {
            "-"
        } else {
            "disk_requests"
        };
        write!(out, " limits={limits}")?;
        self.stats.heat.print_from(out)
    }

    fn print_layers(&self, out: &mut StatusBuffer<'_>) -> core::fmt::Result {
        let pool = self.layer().pool();
        writeln!(out, "drr-layers 1 pool={pool}")?;
        self.handle.tree().print(pool, out)
    }

    fn print_heat(&self, out: &mut StatusBuffer<'_>) -> core::fmt::Result {
        let layer = self.layer();
        let (pool, thin_id) = (layer.pool(), layer.thin_id());
        let serial = self.handle.tree().serial(layer);
        writeln!(out, "drr-heat 1 pool={pool} layer={serial} thin={thin_id}")?;
        self.stats.heat.print(out)
    }

    fn print_table(&self, out: &mut StatusBuffer<'_>) -> core::fmt::Result {
        out.write_str(self.thin.device().name())?;
        self.features.print(out)
    }

    fn print_ima(&self, out: &mut StatusBuffer<'_>) -> core::fmt::Result {
        let [major, minor, patch] = Self::VERSION;
        write!(
            out,
            "target_name=drr,target_version={major}.{minor}.{patch},thin_device="
        )?;
        out.write_str(self.thin.device().name())?;
        for (name, set) in self.features.iter() {
            write!(out, ",{name}={}", if set { 'y' } else { 'n' })?;
        }
        write!(out, ";")
    }
}
