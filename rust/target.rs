// SPDX-License-Identifier: GPL-2.0

//! A device-mapper target.
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

/// What `status` is to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusType {
    /// Figures (`STATUSTYPE_INFO`).
    Info,
    /// The table line's arguments, canonical (`STATUSTYPE_TABLE`).
    Table,
    /// What the integrity measurement architecture records (`STATUSTYPE_IMA`).
    Ima,
}

/// A device-mapper target (`struct target_type`).
///
/// Device-mapper calls several functions at once, from several tasks: they take `&self`. What only some targets want
/// is in traits of its own, beside the code that calls them: bios that wait ([`Follow`](crate::io::in_flight::Follow)),
/// an end that is put off ([`EndIoLater`](crate::io::in_flight::EndIoLater)), private reads
/// ([`PrivateReads`](crate::block::private_read::PrivateReads)), and reads that are verified
/// ([`Verify`](crate::io::verify::Verify)).
///
/// # Examples
///
/// A target that hands all bios on; `samples/passthrough.rs` is a whole module.
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
    /// Data of the target's own that travels with each bio. Made before [`Self::map`], and dropped after the last
    /// [`Self::end_io`].
    type PerBio: Default + Send;
    /// What else travels with each bio: `()`, or [`InFlightBio`] if bios wait or have their end put off.
    ///
    /// [`InFlightBio`]: crate::io::in_flight::InFlightBio
    type InFlight: PerBioExtension;
    /// What all targets of the type share.
    type Shared: Send + Sync;
    /// What a message is answered with; [`Infallible`](core::convert::Infallible) if none is.
    type Reply;

    /// The name in tables.
    const NAME: &'static CStr;
    /// Version of the interface.
    const VERSION: [u32; 3];

    /// Makes a target from a table line. Process context.
    fn new(
        ctor: &Constructor<'_>,
        shared: &Arc<Self::Shared>,
        args: &[&CStr],
    ) -> Result<KBox<Self>>;

    /// Decides what becomes of a bio. May sleep.
    fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped;

    /// Looks at a bio that has ended. Any context.
    fn end_io(&self, _bio: EndedBio<'_, Self>) -> Ended {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the parts of devices that the target's `sectors` sectors are on.
    fn devices(&self, sectors: u64) -> impl Iterator<Item = DeviceRange<'_>>;

    /// Prints its status. May sleep.
    fn status(&self, _kind: StatusType, _out: &mut StatusBuffer<'_>) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Obeys a message. Returns how it is to be answered, if it is. May sleep.
    fn message(&self, _args: &[&CStr]) -> Result<Option<Self::Reply>> {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prints the answer to a message. May sleep.
    fn reply(&self, _what: Self::Reply, _out: &mut StatusBuffer<'_>) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds to the limits of the device that the table makes up.
    fn io_hints(&self, _limits: &mut Limits<'_>) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is about to be suspended.
    fn presuspend(&self) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device has been suspended: no I/O is in flight.
    fn postsuspend(&self) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is about to be resumed; an error keeps it suspended.
    fn preresume(&self) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device has been resumed.
    fn resume(&self) {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A part of a device below a target.
pub struct DeviceRange<'a> {
    device: &'a Device,
    start: u64,
    sectors: u64,
}

impl Device {
    /// Returns the part that is `sectors` long and begins at sector `start`.
    pub fn range(&self, start: u64, sectors: u64) -> DeviceRange<'_> {
        DeviceRange {
            device: self,
            start,
            sectors,
        }
    }
}

/// Limits of a device under construction (`struct queue_limits`), when those of the devices below have been stacked.
pub struct Limits<'a>(&'a mut queue_limits);

impl Limits<'_> {
    /// Makes `bytes` the size that I/O had best have (`io_opt`), unless it is more.
    pub fn raise_io_opt(&mut self, bytes: u32) {
        self.0.io_opt = self.0.io_opt.max(bytes);
    }

    /// Has I/O that is too long split at a multiple of `sectors`, a power of two, if the limit allows as much.
    pub fn round_max_sectors(&mut self, sectors: u32) {
        for max in [&mut self.0.max_hw_sectors, &mut self.0.max_sectors] {
            if *max > sectors {
                // RANGE: A power of two is one at least.
                *max &= !(sectors - 1);
            }
        }
    }
}

/// What [`Target::end_io`] has done with a bio (`DM_ENDIO_*`). Only made from an [`EndedBio`], which it takes.
#[must_use]
pub struct Ended(u32);

impl Ended {
    pub(crate) fn incomplete() -> Self {
        Self(bindings::DM_RUST_ENDIO_INCOMPLETE)
    }
}

impl<T: Target> EndedBio<'_, T> {
    /// Completes the bio as it has ended.
    pub fn done(self) -> Ended {
        Ended(bindings::DM_RUST_ENDIO_DONE)
    }

    /// Has the bio mapped again when the device has been suspended and resumed (`DM_ENDIO_REQUEUE`).
    pub fn requeue(self) -> Ended {
        Ended(bindings::DM_RUST_ENDIO_REQUEUE)
    }
}

mod sealed {
    /// Only this crate extends per-bio data: other memory moves or is freed while the kernel links it.
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// Memory that travels with each bio and that this crate looks after.
pub trait PerBioExtension: Default + Sealed {
    /// Whether bios may be sent down after [`Target::map`] has returned.
    const SENDS_LATER: bool;

    /// Returns whether [`Target::end_io`] has put off the bio's end before, and that is over.
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
/// Valid for `'a`, in its constructor.
pub struct Constructor<'a> {
    ti: NonNull<bindings::dm_target>,
    live: PhantomData<&'a ()>,
}

impl Constructor<'_> {
    fn raw(&self) -> &bindings::dm_target {
        // SAFETY: Valid by the type invariant.
        unsafe { self.ti.as_ref() }
    }

    /// Sets the text that device-mapper logs for the error, and returns the error.
    pub fn fail(&self, text: &'static CStr, error: Error) -> Error {
        // SAFETY: Valid by the type invariant; the text is static and only read.
        unsafe { (*self.ti.as_ptr()).error = text.as_char_ptr().cast_mut() };
        error
    }

    /// Length of the target in sectors.
    pub fn sectors(&self) -> u64 {
        self.raw().len
    }

    /// Opens a device by path or number, in the table's mode. Several may be opened, and one several times.
    pub fn open(&self, path: &CStr) -> Result<Device> {
        let mut dev = core::ptr::null_mut();
        // SAFETY: The target is under construction, as the function wants it.
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
        // SAFETY: Just got for this target, which drops its private data in its destructor.
        Ok(unsafe { Device::from_raw(self.ti, dev) })
    }

    /// Has I/O split at multiples of `sectors`, counted from the target's start.
    pub fn split_at(&self, sectors: u32) -> Result {
        // SAFETY: Valid by the type invariant.
        kernel::error::to_result(unsafe {
            bindings::dm_set_target_max_io_len(self.ti.as_ptr(), u64::from(sectors))
        })
    }

    /// Has each flush sent to the target `count` times, once for each device below, say; never without this call.
    pub fn set_flush_bios(&self, count: u32) {
        // SAFETY: Valid by the type invariant, and nobody else's in the constructor.
        unsafe { (*self.ti.as_ptr()).num_flush_bios = count };
    }

    /// Has each discard sent to the target `count` times; never without this call.
    pub fn set_discard_bios(&self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.ti.as_ptr()).num_discard_bios = count };
    }

    /// Has each write of zeroes sent to the target `count` times, or written as data without this call.
    pub fn set_write_zeroes_bios(&self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.ti.as_ptr()).num_write_zeroes_bios = count };
    }

    /// The block device that the target's table is going to make up.
    pub fn mapped_device(&self) -> MappedDevice {
        // SAFETY: The table has a device, which outlives it.
        MappedDevice(unsafe { bindings::dm_table_get_md(self.raw().table) })
    }
}

/// The mapped device that a target belongs to.
///
/// # Invariants
///
/// The pointer is valid while the target is: device-mapper destroys the tables first.
pub struct MappedDevice(*mut bindings::mapped_device);

// SAFETY: Only used for reading.
unsafe impl Send for MappedDevice {}
// SAFETY: As above.
unsafe impl Sync for MappedDevice {}

impl MappedDevice {
    /// The block device.
    pub fn bdev(&self) -> BlockDevice<'_> {
        // SAFETY: Valid by the type invariant, and so is its disk.
        unsafe { BlockDevice::from_raw(NonNull::new_unchecked(bindings::dm_rust_md_bdev(self.0))) }
    }

    /// Its number, as `major:minor`.
    pub fn name(&self) -> &CStr {
        // SAFETY: The name lives as long as the device.
        unsafe { CStr::from_char_ptr(bindings::dm_device_name(self.0)) }
    }
}

#[repr(C)]
struct Type<T: Target> {
    // First, so that its address is the type's.
    raw: Opaque<bindings::target_type>,
    shared: Arc<T::Shared>,
}

/// What travels with each bio of a `T`.
pub(crate) struct PerBio<T: Target> {
    pub(crate) in_flight: T::InFlight,
    pub(crate) data: T::PerBio,
}

/// Returns the size of what travels with a bio of a `T`, in bytes.
pub fn per_bio_bytes<T: Target>() -> usize {
    // What device-mapper aligns it to.
    const {
        assert!(align_of::<PerBio<T>>() <= align_of::<u64>());
    }
    size_of::<PerBio<T>>()
}

/// What travels with a clone.
pub(crate) fn per_bio<T: Target>(bio: *mut bio) -> *mut PerBio<T> {
    // SAFETY: Only calculates: device-mapper puts it before the clone.
    unsafe { bindings::dm_per_bio_data(bio, per_bio_bytes::<T>()) }.cast()
}

/// A registered target type; unregistered when dropped.
///
/// # Invariants
///
/// The type is registered, and all its functions expect a `T`.
pub struct Registration<T: Target>(KBox<Type<T>>);

// SAFETY: Device-mapper guards its list of types itself.
unsafe impl<T: Target> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: Target> Sync for Registration<T> {}

impl<T: Target> Registration<T> {
    /// Registers the type. Fails with `EEXIST` if there is one of that name, and `ENOMEM`.
    pub fn new(module: &'static ThisModule, shared: Arc<T::Shared>) -> Result<Self> {
        let raw = Opaque::new(bindings::target_type {
            name: T::NAME.as_char_ptr(),
            module: module.as_ptr(),
            version: T::VERSION,
            ctr: Some(Callbacks::<T>::ctr),
            dtr: Some(Callbacks::<T>::dtr),
            map: Some(Callbacks::<T>::map),
            // Always: per-bio data is dropped there.
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
        // SAFETY: The type is complete, and stays where it is until it is unregistered.
        kernel::error::to_result(unsafe { bindings::dm_register_target(this.raw.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self(this))
    }
}

impl<T: Target> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant. Targets hold a reference on the module, so
        // none is left.
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

/// The functions that device-mapper calls.
struct Callbacks<T>(PhantomData<T>);

impl<T: Target> Callbacks<T> {
    /// # Safety
    ///
    /// `ti` is a target of this type between its constructor and its destructor, for `'a`.
    unsafe fn target<'a>(ti: *mut bindings::dm_target) -> &'a T {
        // SAFETY: `ctr` put a `T` there.
        unsafe { &*(*ti).private.cast::<T>() }
    }

    /// # Safety
    ///
    /// `argv` holds `argc` strings that live for `'a`.
    // CAST: A `u32` fits.
    unsafe fn args<'a>(argc: c_uint, argv: *mut *mut c_char) -> Result<KVVec<&'a CStr>> {
        // A table line may have hundreds of thousands of words.
        let mut args = KVVec::with_capacity(argc as usize, GFP_KERNEL)?;
        for at in 0..argc as usize {
            // SAFETY: By the safety requirements.
            args.push(unsafe { CStr::from_char_ptr(*argv.add(at)) }, GFP_KERNEL)?;
        }
        Ok(args)
    }

    /// # Safety
    ///
    /// Called by device-mapper, as are all below, with a target of this type.
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
            // SAFETY: Device-mapper's promise.
            let args = unsafe { Self::args(argc, argv) }
                .map_err(|error| ctor.fail(c"Out of memory", error))?;
            // SAFETY: The type is the first field of a `Type<T>`, which is registered.
            let shared = unsafe { &(*(*ti).type_.cast::<Type<T>>()).shared };
            let target = T::new(&ctor, shared, &args)?;
            // SAFETY: In the constructor the target is nobody else's.
            unsafe {
                (*ti).private = KBox::into_raw(target).cast();
                // CAST: A few hundred bytes.
                (*ti).per_io_data_size = per_bio_bytes::<T>() as u32;
                // They are sent with `dm_submit_bio_remap()`.
                (*ti).set_accounts_remapped_io(T::InFlight::SENDS_LATER);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn dtr(ti: *mut bindings::dm_target) {
        // SAFETY: `ctr` put it there; nothing uses the target any more.
        drop(unsafe { KBox::from_raw((*ti).private.cast::<T>()) });
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn map(ti: *mut bindings::dm_target, bio: *mut bio) -> c_int {
        let slot = per_bio::<T>(bio);
        // SAFETY: There is room for a `PerBio<T>`, and nobody has looked at it.
        unsafe {
            slot.write(PerBio {
                in_flight: T::InFlight::default(),
                data: T::PerBio::default(),
            });
        }
        // SAFETY: The bio is a clone that is now ours, and its data initialised.
        let bio = unsafe { Bio::from_raw(NonNull::new_unchecked(bio), (*ti).begin) };
        // SAFETY: Device-mapper's promise.
        let mapped = unsafe { Self::target(ti) }.map(bio);
        // SAFETY: This is the bio's map function.
        let (code, given_back) = unsafe { mapped.carry_out_in_map() };
        if given_back {
            // SAFETY: Device-mapper frees the clone without `end_io`.
            unsafe { slot.drop_in_place() };
        }
        // CAST: A small number.
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
            // SAFETY: A clone that went through `map`, and completes when this has returned. The status is device-mapper's.
            let bio = unsafe {
                let ok = u32::from(*error) == bindings::DM_RUST_STS_OK;
                EndedBio::from_raw(NonNull::new_unchecked(bio), ok)
            };
            // SAFETY: Device-mapper's promise.
            unsafe { Self::target(ti) }.end_io(bio).0
        } else {
            bindings::DM_RUST_ENDIO_DONE
        };
        if ended != bindings::DM_RUST_ENDIO_INCOMPLETE {
            // SAFETY: Initialised in `map`, and not used after this.
            unsafe { slot.drop_in_place() };
        }
        // CAST: A small number.
        ended as c_int
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn presuspend(ti: *mut bindings::dm_target) {
        // SAFETY: Device-mapper's promise.
        unsafe { Self::target(ti) }.presuspend();
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn postsuspend(ti: *mut bindings::dm_target) {
        // SAFETY: Device-mapper's promise.
        unsafe { Self::target(ti) }.postsuspend();
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn preresume(ti: *mut bindings::dm_target) -> c_int {
        // SAFETY: Device-mapper's promise.
        from_result(|| unsafe { Self::target(ti) }.preresume().map(|()| 0))
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn resume(ti: *mut bindings::dm_target) {
        // SAFETY: Device-mapper's promise.
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
        // SAFETY: Device-mapper's buffer of `maxlen` bytes, which is ours for now.
        // CAST: A `u32` fits.
        let buffer = unsafe { core::slice::from_raw_parts_mut(result.cast(), maxlen as usize) };
        let mut out = StatusBuffer::new(buffer);
        let kind = match kind {
            bindings::DM_RUST_STATUS_TABLE => StatusType::Table,
            bindings::DM_RUST_STATUS_IMA => StatusType::Ima,
            _ => StatusType::Info,
        };
        // SAFETY: Device-mapper's promise.
        if unsafe { Self::target(ti) }.status(kind, &mut out).is_err() {
            // As dm-thin does; the cause is in the log.
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
            // SAFETY: Device-mapper's promise.
            let args = unsafe { Self::args(argc, argv) }?;
            // SAFETY: Device-mapper's promise.
            let target = unsafe { Self::target(ti) };
            let Some(answer) = target.message(&args)? else {
                return Ok(0);
            };
            // The answer goes where the words of the message are.
            drop(args);
            // SAFETY: Device-mapper's buffer of `maxlen` bytes, which is ours for now.
            // CAST: A `u32` fits.
            let buffer = unsafe { core::slice::from_raw_parts_mut(result.cast(), maxlen as usize) };
            target.reply(answer, &mut StatusBuffer::new(buffer))?;
            // 1 says that there is an answer.
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
        // SAFETY: Device-mapper's promise.
        for it in unsafe { Self::target(ti).devices((*ti).len) } {
            // SAFETY: The device is open, and the callout's arguments are device-mapper's own.
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
        // SAFETY: Device-mapper's promise, and its limits, which nobody else uses meanwhile.
        unsafe { Self::target(ti).io_hints(&mut Limits(&mut *limits)) };
    }
}
