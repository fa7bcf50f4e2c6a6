// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

pub mod status_buffer;
pub mod thin;
pub mod thin_event;

use core::{fmt::Write, marker::PhantomData, ptr::NonNull};

use kernel::{
    alloc::KVVec,
    bindings::{bio, blk_status_t, queue_limits},
    error::{from_result, VTABLE_DEFAULT_ERROR},
    ffi::{c_char, c_int, c_uint, c_void},
    prelude::*,
    sync::Arc,
    types::Opaque,
};

use crate::{
    bindings,
    block::bio::{Bio, EndedBio, Mapped},
    block::device::{BlockDevice, Device},
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
/// Device-mapper may call several functions at once, from several tasks, so all take `&self`. Features
/// that only some targets need are in traits of their own, beside the code that uses them: parked
/// bios ([`Follow`](crate::io::in_flight::Follow)), deferred completion
/// ([`EndIoLater`](crate::io::in_flight::EndIoLater)), private reads
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
#[must_use]
pub struct Ended(u32);

impl Ended {
    pub(crate) fn incomplete() -> Self {
        Self(bindings::DM_RUST_ENDIO_INCOMPLETE)
    }
}

impl<T: Target> EndedBio<'_, T> {
    /// Completes the bio with its status (`DM_ENDIO_DONE`).
    pub fn done(self) -> Ended {
        Ended(bindings::DM_RUST_ENDIO_DONE)
    }

    /// Has the bio mapped again after the device was suspended and resumed (`DM_ENDIO_REQUEUE`).
    pub fn requeue(self) -> Ended {
        Ended(bindings::DM_RUST_ENDIO_REQUEUE)
    }
}

mod sealed {
    /// Restricts [`PerBioExtension`](super::PerBioExtension) to this crate: the kernel links this
    /// memory into its lists, so it must neither move nor be freed meanwhile.
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// Private data of this crate for each bio.
pub trait PerBioExtension: Default + Sealed {
    /// Whether bios may be sent down after [`Target::map`] has returned.
    const SENDS_LATER: bool;

    /// Returns whether [`Target::end_io`] has already run for the bio, and the completion that it
    /// deferred is due.
    fn has_ended(&self) -> bool;
}

impl Sealed for () {}

impl PerBioExtension for () {
    const SENDS_LATER: bool = false;

    fn has_ended(&self) -> bool {
        false
    }
}

/// A target under construction.
///
/// # Invariants
///
/// `ti` is valid for `'a`, and its constructor runs.
pub struct Constructor<'a> {
    ti: NonNull<bindings::dm_target>,
    live: PhantomData<&'a ()>,
}

impl Constructor<'_> {
    fn raw(&self) -> &bindings::dm_target {
        // SAFETY: Valid by the type invariant.
        unsafe { self.ti.as_ref() }
    }

    /// Sets the message that device-mapper logs for a failed constructor, and returns `error`.
    pub fn fail(&self, text: &'static CStr, error: Error) -> Error {
        // SAFETY: Valid by the type invariant; the text is static and only read.
        unsafe { (*self.ti.as_ptr()).error = text.as_char_ptr().cast_mut() };
        error
    }

    /// Returns the length of the target in sectors.
    pub fn sectors(&self) -> u64 {
        self.raw().len
    }

    /// Opens a device by path or number, with the mode of the table. Fails as `dm_get_device()`
    /// does.
    ///
    /// A target may open several devices, and one device several times.
    pub fn open(&self, path: &CStr) -> Result<Device> {
        let mut dev = core::ptr::null_mut();
        // SAFETY: `dm_get_device()` may be called in the constructor, where we are.
        kernel::error::to_result(unsafe {
            bindings::dm_get_device(
                self.ti.as_ptr(),
                path.as_char_ptr(),
                bindings::dm_table_get_mode(self.raw().table),
                &mut dev,
            )
        })
        .map_err(|error| self.fail(c"Cannot open device", error))?;
        let dev = NonNull::new(dev).ok_or(ENODEV)?;
        // SAFETY: The device was just opened for this target, which drops its private data in its
        // destructor.
        Ok(unsafe { Device::from_raw(self.ti, dev) })
    }

    /// Has I/O split at multiples of `sectors` from the start of the target.
    pub fn split_at(&self, sectors: u32) -> Result {
        // SAFETY: Valid by the type invariant.
        kernel::error::to_result(unsafe {
            bindings::dm_set_target_max_io_len(self.ti.as_ptr(), u64::from(sectors))
        })
    }

    /// Has each flush sent to the target `count` times, for example once for each device below.
    /// Without this call, the target gets no flushes.
    pub fn set_flush_bios(&self, count: u32) {
        // SAFETY: Valid by the type invariant, and not shared yet in the constructor.
        unsafe { (*self.ti.as_ptr()).num_flush_bios = count };
    }

    /// Has each discard sent to the target `count` times. Without this call, the target gets none.
    pub fn set_discard_bios(&self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.ti.as_ptr()).num_discard_bios = count };
    }

    /// Has each write of zeroes sent to the target `count` times. Without this call, zeroes are
    /// written as data.
    pub fn set_write_zeroes_bios(&self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.ti.as_ptr()).num_write_zeroes_bios = count };
    }

    /// Returns the mapped device that the target's table is for.
    pub fn mapped_device(&self) -> MappedDevice {
        // SAFETY: The table belongs to a mapped device, which outlives it.
        MappedDevice(unsafe { bindings::dm_table_get_md(self.raw().table) })
    }
}

/// The mapped device that a target belongs to.
///
/// # Invariants
///
/// The pointer is valid while the target exists: device-mapper destroys the tables first.
pub struct MappedDevice(*mut bindings::mapped_device);

// SAFETY: Only used for reading.
unsafe impl Send for MappedDevice {}
// SAFETY: As above.
unsafe impl Sync for MappedDevice {}

impl MappedDevice {
    /// Returns the block device.
    pub fn bdev(&self) -> BlockDevice<'_> {
        // SAFETY: Valid by the type invariant, and so is its disk.
        unsafe { BlockDevice::from_raw(NonNull::new_unchecked(bindings::dm_rust_md_bdev(self.0))) }
    }

    /// Returns the device number, as `major:minor`.
    pub fn name(&self) -> &CStr {
        // SAFETY: The name lives as long as the device.
        unsafe { CStr::from_char_ptr(bindings::dm_device_name(self.0)) }
    }
}

#[repr(C)]
struct Type<T: Target> {
    // First, so that the address of this field is that of the structure.
    raw: Opaque<bindings::target_type>,
    shared: Arc<T::Shared>,
}

/// Private data for each bio of a `T`: that of this crate and that of the target.
pub(crate) struct PerBio<T: Target> {
    pub(crate) in_flight: T::InFlight,
    pub(crate) data: T::PerBio,
}

/// Returns the size of the private data for each bio of a `T`, in bytes.
pub fn per_bio_bytes<T: Target>() -> usize {
    // Device-mapper aligns per-bio data to this.
    const {
        assert!(align_of::<PerBio<T>>() <= align_of::<u64>());
    }
    size_of::<PerBio<T>>()
}

/// Returns the private data of a clone.
pub(crate) fn per_bio<T: Target>(bio: *mut bio) -> *mut PerBio<T> {
    // SAFETY: Only computes an address: device-mapper places per-bio data before the clone.
    unsafe { bindings::dm_per_bio_data(bio, per_bio_bytes::<T>()) }.cast()
}

/// A registered target type. Dropping it unregisters the type.
///
/// # Invariants
///
/// The type is registered, and all its functions expect a `T`.
pub struct Registration<T: Target>(KBox<Type<T>>);

// SAFETY: Device-mapper protects its list of types with a lock of its own.
unsafe impl<T: Target> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: Target> Sync for Registration<T> {}

impl<T: Target> Registration<T> {
    /// Registers the type. Fails with `EEXIST` if a type of this name exists, and with `ENOMEM`.
    pub fn new(module: &'static ThisModule, shared: Arc<T::Shared>) -> Result<Self> {
        let raw = Opaque::new(bindings::target_type {
            name: T::NAME.as_char_ptr(),
            module: module.as_ptr(),
            version: T::VERSION,
            ctr: Some(Callbacks::<T>::ctr),
            dtr: Some(Callbacks::<T>::dtr),
            map: Some(Callbacks::<T>::map),
            // Set even if the target has no `end_io`: per-bio data is dropped here.
            end_io: Some(Callbacks::<T>::end_io),
            presuspend: if T::HAS_PRESUSPEND {
                Some(Callbacks::<T>::presuspend)
            } else {
                None
            },
            postsuspend: if T::HAS_POSTSUSPEND {
                Some(Callbacks::<T>::postsuspend)
            } else {
                None
            },
            preresume: if T::HAS_PRERESUME {
                Some(Callbacks::<T>::preresume)
            } else {
                None
            },
            resume: if T::HAS_RESUME {
                Some(Callbacks::<T>::resume)
            } else {
                None
            },
            status: if T::HAS_STATUS {
                Some(Callbacks::<T>::status)
            } else {
                None
            },
            message: if T::HAS_MESSAGE {
                Some(Callbacks::<T>::message)
            } else {
                None
            },
            iterate_devices: Some(Callbacks::<T>::iterate_devices),
            io_hints: if T::HAS_IO_HINTS {
                Some(Callbacks::<T>::io_hints)
            } else {
                None
            },
            ..Default::default()
        });
        let this = KBox::new(Type { raw, shared }, GFP_KERNEL)?;
        // SAFETY: The type is complete, and does not move before it is unregistered.
        kernel::error::to_result(unsafe { bindings::dm_register_target(this.raw.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self(this))
    }
}

impl<T: Target> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant. Each target holds a reference on the module, so
        // no target is left.
        unsafe { bindings::dm_unregister_target(self.0.raw.get()) };
    }
}

/// Declares a module that only registers a target type, whose `Shared` has a default value.
///
/// Takes what [`module!`](kernel::prelude::module) takes, with the target as `type`.
#[macro_export]
macro_rules! module_target {
    (type: $type:ty, $($rest:tt)*) => {
        struct TargetModule {
            _registration: $crate::target::Registration<$type>,
        }

        impl ::kernel::Module for TargetModule {
            fn init(module: &'static ::kernel::ThisModule) -> ::kernel::error::Result<Self> {
                let shared = ::core::default::Default::default();
                let shared = ::kernel::sync::Arc::new(shared, ::kernel::alloc::flags::GFP_KERNEL)?;
                Ok(Self {
                    _registration: $crate::target::Registration::new(module, shared)?,
                })
            }
        }

        ::kernel::prelude::module! {
            type: TargetModule,
            $($rest)*
        }
    };
}

/// The callbacks that device-mapper invokes.
struct Callbacks<T>(PhantomData<T>);

impl<T: Target> Callbacks<T> {
    /// Returns the `T` of a target.
    ///
    /// # Safety
    ///
    /// `ti` is a target of this type between its constructor and its destructor, for `'a`.
    unsafe fn target<'a>(ti: *mut bindings::dm_target) -> &'a T {
        // SAFETY: `ctr` put a `T` there.
        unsafe { &*(*ti).private.cast::<T>() }
    }

    /// Collects the arguments of a table line or a message. Fails with `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `argv` holds `argc` strings that live for `'a`.
    // CAST: A `u32` fits.
    unsafe fn args<'a>(argc: c_uint, argv: *mut *mut c_char) -> Result<KVVec<&'a CStr>> {
        // `KVVec`, as a table line may have hundreds of thousands of words.
        let mut args = KVVec::with_capacity(argc as usize, GFP_KERNEL)?;
        for at in 0..argc as usize {
            // SAFETY: By the safety requirements.
            args.push(unsafe { CStr::from_char_ptr(*argv.add(at)) }, GFP_KERNEL)?;
        }
        Ok(args)
    }

    /// # Safety
    ///
    /// Called by device-mapper, as all functions below, with a target of this type.
    unsafe extern "C" fn ctr(
        ti: *mut bindings::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
    ) -> c_int {
        from_result(|| {
            let ctor = Constructor {
                ti: NonNull::new(ti).ok_or(EINVAL)?,
                live: PhantomData,
            };
            // SAFETY: Device-mapper passes `argc` valid strings.
            let args = unsafe { Self::args(argc, argv) }
                .map_err(|error| ctor.fail(c"Out of memory", error))?;
            // SAFETY: The type is the first field of a `Type<T>`, which is registered.
            let shared = unsafe { &(*(*ti).type_.cast::<Type<T>>()).shared };
            let target = T::new(&ctor, shared, &args)?;
            // SAFETY: Nothing else uses the target while it is being constructed.
            unsafe {
                (*ti).private = KBox::into_raw(target).cast();
                // CAST: Per-bio data has a few hundred bytes.
                (*ti).per_io_data_size = per_bio_bytes::<T>() as u32;
                // Parked bios are sent with `dm_submit_bio_remap()`.
                (*ti).set_accounts_remapped_io(T::InFlight::SENDS_LATER);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn dtr(ti: *mut bindings::dm_target) {
        // SAFETY: `ctr` stored the box there, and nothing uses the target any more.
        drop(unsafe { KBox::from_raw((*ti).private.cast::<T>()) });
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn map(ti: *mut bindings::dm_target, bio: *mut bio) -> c_int {
        let slot = per_bio::<T>(bio);
        // SAFETY: Device-mapper reserved room for a `PerBio<T>`, which nothing has used yet.
        unsafe {
            slot.write(PerBio {
                in_flight: T::InFlight::default(),
                data: T::PerBio::default(),
            });
        }
        // SAFETY: We own the clone, and its per-bio data is initialised.
        let bio = unsafe { Bio::from_raw(NonNull::new_unchecked(bio), (*ti).begin, true) };
        // SAFETY: Device-mapper passes a constructed target.
        let mapped = unsafe { Self::target(ti) }.map(bio);
        // SAFETY: This is the map function of the bio.
        let (code, given_back) = unsafe { mapped.carry_out_in_map() };
        if given_back {
            // SAFETY: Device-mapper frees the clone without calling `end_io`.
            unsafe { slot.drop_in_place() };
        }
        // CAST: The codes are small numbers.
        code as c_int
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn end_io(
        ti: *mut bindings::dm_target,
        bio: *mut bio,
        error: *mut blk_status_t,
    ) -> c_int {
        let slot = per_bio::<T>(bio);
        // SAFETY: Initialised in `map`.
        let again = unsafe { (*slot).in_flight.has_ended() };
        let ended = if T::HAS_END_IO && !again {
            // SAFETY: The clone went through `map`, and completes when this function has returned.
            // The status is device-mapper's.
            let bio = unsafe {
                let ok = u32::from(*error) == bindings::DM_RUST_STS_OK;
                EndedBio::from_raw(NonNull::new_unchecked(bio), ok)
            };
            // SAFETY: Device-mapper passes a constructed target.
            unsafe { Self::target(ti) }.end_io(bio).0
        } else {
            bindings::DM_RUST_ENDIO_DONE
        };
        if ended != bindings::DM_RUST_ENDIO_INCOMPLETE {
            // SAFETY: Initialised in `map`, and not used after this.
            unsafe { slot.drop_in_place() };
        }
        // CAST: The codes are small numbers.
        ended as c_int
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn presuspend(ti: *mut bindings::dm_target) {
        // SAFETY: Device-mapper passes a constructed target.
        unsafe { Self::target(ti) }.presuspend();
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn postsuspend(ti: *mut bindings::dm_target) {
        // SAFETY: Device-mapper passes a constructed target.
        unsafe { Self::target(ti) }.postsuspend();
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn preresume(ti: *mut bindings::dm_target) -> c_int {
        // SAFETY: Device-mapper passes a constructed target.
        from_result(|| unsafe { Self::target(ti) }.preresume().map(|()| 0))
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn resume(ti: *mut bindings::dm_target) {
        // SAFETY: Device-mapper passes a constructed target.
        unsafe { Self::target(ti) }.resume();
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn status(
        ti: *mut bindings::dm_target,
        kind: bindings::status_type_t,
        _flags: c_uint,
        result: *mut c_char,
        maxlen: c_uint,
    ) {
        // SAFETY: Device-mapper passes a buffer of `maxlen` bytes that only we use during the call.
        // CAST: A `u32` fits.
        let buffer = unsafe { core::slice::from_raw_parts_mut(result.cast(), maxlen as usize) };
        let mut out = StatusBuffer::new(buffer);
        let kind = match kind {
            bindings::DM_RUST_STATUS_TABLE => StatusType::Table,
            bindings::DM_RUST_STATUS_IMA => StatusType::Ima,
            _ => StatusType::Info,
        };
        // SAFETY: Device-mapper passes a constructed target.
        if unsafe { Self::target(ti) }.status(kind, &mut out).is_err() {
            // As dm-thin does. The log has the cause.
            let _ = out.write_str("Error");
        }
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn message(
        ti: *mut bindings::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_int {
        from_result(|| {
            // SAFETY: Device-mapper passes `argc` valid strings.
            let args = unsafe { Self::args(argc, argv) }?;
            // SAFETY: Device-mapper passes a constructed target.
            let target = unsafe { Self::target(ti) };
            let Some(answer) = target.message(&args)? else {
                return Ok(0);
            };
            // The answer overwrites the buffer that holds the words of the message.
            drop(args);
            // SAFETY: Device-mapper passes a buffer of `maxlen` bytes that only we use during the
            // call.
            // CAST: A `u32` fits.
            let buffer = unsafe { core::slice::from_raw_parts_mut(result.cast(), maxlen as usize) };
            target.reply(answer, &mut StatusBuffer::new(buffer))?;
            // 1 tells device-mapper that the buffer has an answer.
            Ok(1)
        })
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn iterate_devices(
        ti: *mut bindings::dm_target,
        callout: bindings::iterate_devices_callout_fn,
        data: *mut c_void,
    ) -> c_int {
        let Some(callout) = callout else {
            return 0;
        };
        // SAFETY: Device-mapper passes a constructed target.
        for it in unsafe { Self::target(ti).devices((*ti).len) } {
            // SAFETY: The device is open, and the arguments are those that device-mapper passed.
            let result = unsafe { callout(ti, it.device.as_ptr(), it.start, it.sectors, data) };
            if result != 0 {
                return result;
            }
        }
        0
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn io_hints(ti: *mut bindings::dm_target, limits: *mut queue_limits) {
        // SAFETY: Device-mapper passes a constructed target, and limits that only we use during the
        // call.
        unsafe { Self::target(ti).io_hints(&mut Limits(&mut *limits)) };
    }
}
