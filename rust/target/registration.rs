// SPDX-License-Identifier: GPL-2.0

//! Registered target types, and the functions that device-mapper calls.

use core::{fmt::Write, marker::PhantomData, ptr::NonNull};

use kernel::{
    alloc::KVVec,
    bindings::{bio, blk_status_t, queue_limits},
    error::from_result,
    ffi::{c_char, c_int, c_uint, c_void},
    prelude::*,
    sync::Arc,
    types::Opaque,
};

use crate::{
    bindings,
    block::bio::{Bio, EndedBio},
    target::status_buffer::StatusBuffer,
    target::{
        per_bio, per_bio_bytes, Constructor, EndAction, Limits, PerBio, PerBioExtension,
        StatusType, Target,
    },
};

#[repr(C)]
struct Type<T: Target> {
    // First, so that the address of this field is that of the structure.
    raw: Opaque<bindings::target_type>,
    shared: Arc<T::Shared>,
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
///
/// # Examples
///
/// The module of `samples/passthrough.rs`.
///
/// ```ignore
/// dm::module_target! {
///     type: PassThrough,
///     name: "dm_passthrough",
///     authors: ["DRR developers"],
///     description: "device-mapper target that hands all I/O on",
///     license: "GPL v2",
/// }
/// ```
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
            // SAFETY: Device-mapper constructs the target.
            let ctor = unsafe { Constructor::from_raw(NonNull::new(ti).ok_or(EINVAL)?) };
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
            EndAction::Done
        };
        let code = match ended {
            EndAction::Later(work) => {
                // SAFETY: A bio ends once, so the work is in no queue. The work is part of the
                // bio's private data, and so is valid until the bio completes. The target and its
                // queues live until then.
                unsafe { work.queue() };
                // CAST: The codes are small numbers.
                return bindings::DM_RUST_ENDIO_INCOMPLETE as c_int;
            }
            EndAction::Done => bindings::DM_RUST_ENDIO_DONE,
            EndAction::Requeue => bindings::DM_RUST_ENDIO_REQUEUE,
        };
        // SAFETY: Initialised in `map`, and not used after this.
        unsafe { slot.drop_in_place() };
        // CAST: The codes are small numbers.
        code as c_int
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
            // As dm-thin does.
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
