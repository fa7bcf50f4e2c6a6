// SPDX-License-Identifier: GPL-2.0

//! A device-mapper target.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

pub mod status_buffer;
pub mod thin;
pub mod thin_event;

use core::{fmt::Write, marker::PhantomData, mem::MaybeUninit, ptr::NonNull};

use kernel::{
    alloc::KVVec,
    bindings::{bio, blk_status_t, queue_limits, work_struct},
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
    block::slab::BioSlabs,
    io::in_flight::{InFlightBio, Lead},
    io::verify::Verdict,
    pagecache::folio::PAGE_SECTORS,
    sync::work_queue::WorkQueue,
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

/// A device-mapper target.
///
/// Device-mapper calls several functions at once, from several tasks: they take `&self`.
#[vtable]
pub trait Target: Sized + Send + Sync + 'static {
    /// Data that travels with each bio.
    type PerBio: Default + Send;
    /// What all targets of the type share.
    type Shared: Send + Sync;
    /// What a message asks for.
    type Answer;

    /// The name in tables.
    const NAME: &'static CStr;
    /// Version of the interface.
    const VERSION: [u32; 3];

    /// Makes a target from a table line.
    fn new(
        ctor: &Constructor<'_>,
        shared: &Arc<Self::Shared>,
        args: &[&CStr],
    ) -> Result<KBox<Self>>;

    /// Decides what becomes of a bio. May sleep.
    fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped;

    /// Looks at a bio that has ended; any context.
    fn end_io(&self, bio: &EndedBio<'_, Self>, ok: bool);

    /// [`Self::end_io`] of this bio, which has ended well, takes longer than an interrupt should: it is called
    /// in a softirq then.
    fn takes_long(&self, _bio: &EndedBio<'_, Self>) -> bool {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Learns what a second read showed ([`crate::io::verify::read_again`]); any context.
    fn verified(&self, data: &mut Self::PerBio, verdict: Verdict);

    /// The one device below, which the target's sectors map to from sector 0 on.
    fn device(&self) -> &Device;

    /// Prints its status. May sleep.
    fn status(&self, kind: StatusType, out: &mut StatusBuffer<'_>) -> Result;

    /// Obeys a message, and says how it is to be answered, if it is. May sleep.
    fn message(&self, args: &[&CStr]) -> Result<Option<Self::Answer>>;

    /// Prints the answer to a message. May sleep.
    fn answer(&self, what: Self::Answer, out: &mut StatusBuffer<'_>) -> Result;

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

    /// Size in bytes that I/O had best have (`io_opt`), if that of the device below is smaller.
    fn optimal_io_bytes(&self) -> u32 {
        0
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

    /// Opens a device by path or number, in the table's mode.
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
        })?;
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

    /// Takes flushes and discards, to hand them on.
    pub fn pass_flush_and_discard(&self) {
        // SAFETY: Valid by the type invariant, and nobody else's in the constructor.
        let ti = unsafe { &mut *self.ti.as_ptr() };
        ti.num_flush_bios = 1;
        ti.num_discard_bios = 1;
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
    /// For what would take too long in an interrupt.
    later: WorkQueue,
    _slabs: BioSlabs,
}

/// How far a bio has come.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    /// It is on its way.
    Under,
    /// It is, and others may follow it.
    Leading(Lead),
    /// It has ended, and been looked at.
    Ended,
}

/// What travels with each bio of a `T`.
#[repr(C)]
pub(crate) struct PerBio<T: Target> {
    // First, so that its address is the whole's.
    work: Opaque<work_struct>,
    /// For the work: the bio, and its target.
    ended: MaybeUninit<(NonNull<bio>, NonNull<T>)>,
    pub(crate) phase: Phase,
    pub(crate) data: T::PerBio,
    pub(crate) flight: MaybeUninit<InFlightBio>,
}

/// What travels with a clone.
pub(crate) fn per_bio<T: Target>(bio: *mut bio) -> *mut PerBio<T> {
    // SAFETY: Only calculates: device-mapper puts it before the clone.
    unsafe { bindings::dm_per_bio_data(bio, size_of::<PerBio<T>>()) }.cast()
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
            status: Some(Callbacks::<T>::status),
            message: Some(Callbacks::<T>::message),
            iterate_devices: Some(Callbacks::<T>::iterate_devices),
            io_hints: Some(Callbacks::<T>::io_hints),
            ..Default::default()
        });
        let later = WorkQueue::in_softirq(T::NAME)?;
        let slabs = BioSlabs::new(size_of::<PerBio<T>>())?;
        let this = KBox::new(
            Type {
                raw,
                shared,
                later,
                _slabs: slabs,
            },
            GFP_KERNEL,
        )?;
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
                (*ti).per_io_data_size = size_of::<PerBio<T>>() as u32;
                // A bio may wait before it is sent, with `dm_submit_bio_remap()`.
                (*ti).set_accounts_remapped_io(true);
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
            (&raw mut (*slot).data).write(T::PerBio::default());
            (&raw mut (*slot).phase).write(Phase::Under);
        }
        // SAFETY: The bio is a clone that is now ours, and its data initialised.
        let bio = unsafe { Bio::from_raw(NonNull::new_unchecked(bio), (*ti).begin) };
        // SAFETY: Device-mapper's promise.
        unsafe { Self::target(ti) }.map(bio).code()
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
        // SAFETY: A clone that went through `map`, and completes when this has returned.
        let (ended, ok, phase) = unsafe {
            (
                EndedBio::from_raw(NonNull::new_unchecked(bio)),
                u32::from(*error) == bindings::DM_RUST_STS_OK,
                (*slot).phase,
            )
        };
        if !matches!(phase, Phase::Ended) {
            // SAFETY: Device-mapper's promise.
            let target = unsafe { Self::target(ti) };
            // SAFETY: Only asks for the context.
            let later = T::HAS_TAKES_LONG && ok && unsafe { bindings::dm_rust_in_hardirq() };
            if later && target.takes_long(&ended) {
                // SAFETY: The type is the first field of a `Type<T>`. The work is nobody's, and its queue there
                // for as long as the type is registered.
                unsafe {
                    let pointers = (NonNull::new_unchecked(bio), NonNull::from(target));
                    (*slot).ended.write(pointers);
                    let work = Opaque::cast_into(&raw const (*slot).work);
                    let later = &(*(*ti).type_.cast::<Type<T>>()).later;
                    later.queue(work, Self::end_later);
                }
                return bindings::DM_RUST_ENDIO_INCOMPLETE as c_int;
            }
            // SAFETY: It ends for the first time.
            unsafe { Self::finish(target, slot, &ended, ok) };
        }
        // SAFETY: Initialised in `map`, and not used after this.
        unsafe { (&raw mut (*slot).data).drop_in_place() };
        bindings::DM_RUST_ENDIO_DONE as c_int
    }

    /// Looks at a bio that has ended.
    ///
    /// # Safety
    ///
    /// `slot` is that of `ended`, which went through `map` and was not looked at.
    unsafe fn finish(target: &T, slot: *mut PerBio<T>, ended: &EndedBio<'_, T>, ok: bool) {
        target.end_io(ended, ok);
        // SAFETY: The slot is the bio's, which is ours.
        unsafe {
            let phase = core::mem::replace(&mut (*slot).phase, Phase::Ended);
            if let Phase::Leading(lead) = phase {
                lead.land(NonNull::new_unchecked((*slot).flight.as_mut_ptr()), ok);
            }
        }
    }

    /// # Safety
    ///
    /// Called by the workqueue, with the work of a bio that `end_io` has put there.
    unsafe extern "C" fn end_later(work: *mut work_struct) {
        let slot = work.cast::<PerBio<T>>();
        // SAFETY: `end_io` wrote them, and the bio keeps its target alive.
        let (bio, ended, target) = unsafe {
            let (bio, target) = (*slot).ended.assume_init();
            (bio, EndedBio::from_raw(bio), target.as_ref())
        };
        // SAFETY: It ends for the first time.
        unsafe { Self::finish(target, slot, &ended, true) };
        // SAFETY: Ours, as `end_io` said that it isn't completed; not used after this.
        unsafe { kernel::bindings::bio_endio(bio.as_ptr()) };
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
            target.answer(answer, &mut StatusBuffer::new(buffer))?;
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
        // SAFETY: Device-mapper's promise.
        let device = unsafe { Self::target(ti) }.device();
        // SAFETY: The device is open, and the callout's arguments are device-mapper's own.
        callout.map_or(0, |callout| unsafe {
            callout(ti, device.as_ptr(), 0, (*ti).len, data)
        })
    }

    /// # Safety
    ///
    /// As for `ctr`.
    unsafe extern "C" fn io_hints(ti: *mut bindings::dm_target, limits: *mut queue_limits) {
        // SAFETY: Device-mapper's promise.
        let (target, limits) = unsafe { (Self::target(ti), &mut *limits) };
        limits.io_opt = limits.io_opt.max(target.optimal_io_bytes());
        // Or I/O longer than that is split in the middle of a page; 255 is a common limit.
        for max in [&mut limits.max_hw_sectors, &mut limits.max_sectors] {
            if *max > PAGE_SECTORS {
                *max &= !(PAGE_SECTORS - 1);
            }
        }
    }
}
