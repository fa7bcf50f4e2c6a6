// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

mod constructor;
mod mapped_device;
mod per_bio;
mod registration;
pub mod status_buffer;
pub mod thin;
pub mod thin_event;

pub use constructor::Constructor;
pub use mapped_device::MappedDevice;
pub(crate) use per_bio::{per_bio, PerBio, Sealed};
pub use per_bio::{per_bio_bytes, PerBioExtension};
pub use registration::Registration;

use kernel::{bindings::queue_limits, error::VTABLE_DEFAULT_ERROR, prelude::*, sync::Arc};

use crate::{
    block::bio::{Bio, EndedBio, Mapped},
    block::device::Device,
    sync::work_queue::PendingWork,
    target::status_buffer::StatusBuffer,
};

/// What [`Target::status`] prints (`status_type_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusType {
    /// The target's state and counters (`STATUSTYPE_INFO`).
    Info,
    /// The arguments of the table line, in canonical form (`STATUSTYPE_TABLE`).
    Table,
    /// The text that the integrity measurement architecture records (`STATUSTYPE_IMA`).
    Ima,
}

/// A device-mapper target (`struct target_type`).
///
/// Device-mapper may call several functions at once, from several tasks, so all take `&self`.
/// Features that only some targets need are in traits of their own, beside the code that uses them:
/// parked bios ([`Follow`](crate::io::parked::Follow)), deferred completion
/// ([`EndIoLater`](crate::io::end_later::EndIoLater)), private reads
/// ([`PrivateReads`](crate::block::private_read::PrivateReads)), and verified reads
/// ([`Verify`](crate::io::verify::Verify)).
///
/// # Examples
///
/// A target that passes all bios on. `samples/passthrough.rs` is the whole module.
///
/// ```ignore
/// struct PassThrough(Device);
///
/// #[vtable]
/// impl Target for PassThrough {
///     type PerBio = ();
///     type InFlight = ();
///     type Shared = ();
///     type Reply = Infallible;
///
///     const NAME: &'static CStr = c"passthrough";
///     const VERSION: [u32; 3] = [1, 0, 0];
///
///     fn new(ctor: &Constructor<'_>, _: &Arc<()>, args: &[&CStr]) -> Result<KBox<Self>> {
///         let [path] = args else {
///             return Err(ctor.fail(c"One argument is wanted: a device", EINVAL));
///         };
///         Ok(KBox::new(Self(ctor.open(path)?), GFP_KERNEL)?)
///     }
///
///     fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped {
///         let sector = bio.sector();
///         bio.remap(self.0.bdev(), sector)
///     }
///
///     fn devices(&self, sectors: u64) -> impl Iterator<Item = DeviceRange<'_>> {
///         iter::once(self.0.range(0, sectors))
///     }
/// }
/// ```
#[vtable]
pub trait Target: Sized + Send + Sync + 'static {
    /// Private data of the target for each bio. Created before [`Self::map`], and dropped after the
    /// last [`Self::end_io`], or when `map` gives the bio back.
    type PerBio: Default + Send;
    /// Private data of this crate for each bio: `()`, or [`InFlightBio`] if the target parks bios
    /// or defers their completion.
    ///
    /// [`InFlightBio`]: crate::io::in_flight::InFlightBio
    type InFlight: PerBioExtension;
    /// Data that all targets of the type share.
    type Shared: Send + Sync;
    /// The result of a message that has an answer; [`Infallible`](core::convert::Infallible) if no
    /// message has one.
    type Reply;

    /// The target type's name in tables.
    const NAME: &'static CStr;
    /// The version of the target type: major, minor, patch level.
    const VERSION: [u32; 3];

    /// Creates a target from the arguments of a table line. Process context.
    fn new(
        ctor: &Constructor<'_>,
        shared: &Arc<Self::Shared>,
        args: &[&CStr],
    ) -> Result<KBox<Self>>;

    /// Maps a bio, and returns what is to be done with it. May sleep.
    fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped;

    /// Called when a bio has ended. Any context.
    fn end_io(&self, _bio: EndedBio<'_, Self>) -> Ended {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the ranges of the devices below on which the target's `sectors` sectors are.
    fn devices(&self, sectors: u64) -> impl Iterator<Item = DeviceRange<'_>>;

    /// Prints the target's status of the given kind. May sleep.
    fn status(&self, _kind: StatusType, _out: &mut StatusBuffer<'_>) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles a message, and returns the answer to print if the message has one. May sleep.
    fn message(&self, _args: &[&CStr]) -> Result<Option<Self::Reply>> {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prints the answer to a message. May sleep.
    fn reply(&self, _what: Self::Reply, _out: &mut StatusBuffer<'_>) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adjusts the limits of the mapped device.
    fn io_hints(&self, _limits: &mut Limits<'_>) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called before the device is suspended.
    fn presuspend(&self) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called when the device has been suspended and no I/O is in flight.
    fn postsuspend(&self) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called before the device is resumed. On an error the device stays suspended.
    fn preresume(&self) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called when the device has been resumed.
    fn resume(&self) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A range of a device below a target.
pub struct DeviceRange<'a> {
    device: &'a Device,
    start: u64,
    sectors: u64,
}

impl Device {
    /// Returns the range of `sectors` sectors that begins at sector `start`.
    pub fn range(&self, start: u64, sectors: u64) -> DeviceRange<'_> {
        DeviceRange {
            device: self,
            start,
            sectors,
        }
    }
}

/// Limits of a mapped device (`struct queue_limits`), after those of the devices below were
/// stacked.
pub struct Limits<'a>(&'a mut queue_limits);

impl Limits<'_> {
    /// Raises the optimal I/O size (`io_opt`) to `bytes` if it is less.
    pub fn raise_io_opt(&mut self, bytes: u32) {
        self.0.io_opt = self.0.io_opt.max(bytes);
    }

    /// Rounds the limits on the size of I/O down to a multiple of `sectors`, except limits below
    /// `sectors`. `sectors` must be a power of two.
    ///
    /// # Panics
    ///
    /// If `sectors` is 0, with `CONFIG_RUST_OVERFLOW_CHECKS`.
    pub fn round_max_sectors(&mut self, sectors: u32) {
        for max in [&mut self.0.max_hw_sectors, &mut self.0.max_sectors] {
            if *max > sectors {
                // RANGE: A power of two is at least 1.
                *max &= !(sectors - 1);
            }
        }
    }
}

/// The outcome of [`Target::end_io`] (`DM_ENDIO_*`). Created only by consuming an [`EndedBio`].
///
/// It is carried out after the target's function has returned: once the bio has completed, the
/// target may be destroyed.
#[must_use]
pub struct Ended(EndAction);

enum EndAction {
    /// Let the bio complete.
    Done,
    /// Have device-mapper map the bio again.
    Requeue,
    /// Queue work that completes the bio.
    Later(PendingWork),
}

impl Ended {
    /// Creates the value for a bio that `work` completes.
    pub(crate) fn later(work: PendingWork) -> Self {
        Self(EndAction::Later(work))
    }
}

impl<T: Target> EndedBio<'_, T> {
    /// Completes the bio with its status (`DM_ENDIO_DONE`).
    pub fn done(self) -> Ended {
        Ended(EndAction::Done)
    }

    /// Has the bio mapped again after the device was suspended and resumed (`DM_ENDIO_REQUEUE`).
    pub fn requeue(self) -> Ended {
        Ended(EndAction::Requeue)
    }
}
