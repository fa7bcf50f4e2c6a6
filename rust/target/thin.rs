// SPDX-License-Identifier: GPL-2.0

//! Thin devices as a stacked target sees them: lookups of mappings, and events of pools.
//!
//! The kernel may lack this interface. Its functions are looked up for each thin device and each
//! [`Subscription`], so that a dm-thin-pool without them causes an error, and not a module that
//! can't be loaded.
//!
//! C header: `include/linux/dm-thin.h`

use core::ptr::NonNull;

use kernel::{
    bindings::{block_device, notifier_block},
    error::from_err_ptr,
    ffi::{c_int, c_uint, c_ulong, c_void},
    prelude::*,
    sync::Arc,
    time::{delay::fsleep, Delta},
    types::Opaque,
};

use crate::{
    bindings,
    block::device::Device,
    compat::not_supported,
    target::thin_event::{Event, Events, Mapping, MappingChange},
};

type GetHandleFn = unsafe extern "C" fn(*mut block_device) -> *mut bindings::dm_thin_handle;
type LookupFn = unsafe extern "C" fn(
    *mut bindings::dm_thin_handle,
    u64,
    bool,
    *mut bindings::dm_thin_mapping,
) -> c_int;
type BindingFn = unsafe extern "C" fn(*mut bindings::dm_thin_handle) -> u64;
type WritableFn = unsafe extern "C" fn(*mut bindings::dm_thin_handle) -> bool;
type InfoFn =
    unsafe extern "C" fn(*mut bindings::dm_thin_handle, *mut bindings::dm_thin_info) -> c_int;
type NotifierFn = unsafe extern "C" fn(*mut notifier_block) -> c_int;

/// A symbol of another module, which stays loaded as long as the value lives.
///
/// # Invariants
///
/// `address` was returned by `__symbol_get()` for `name`.
struct Symbol {
    name: &'static CStr,
    address: NonNull<c_void>,
}

impl Symbol {
    fn get(name: &'static CStr) -> Option<Self> {
        // SAFETY: `name` is a C string.
        let address = unsafe { bindings::__symbol_get(name.as_char_ptr()) };
        // INVARIANT: Just returned for `name`.
        NonNull::new(address).map(|address| Self { name, address })
    }
}

impl Drop for Symbol {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::__symbol_put(self.name.as_char_ptr()) };
    }
}

/// The functions of dm-thin.
///
/// # Invariants
///
/// The functions have the types of the header, and are valid as long as the symbols are held.
struct Api {
    get_handle: GetHandleFn,
    lookup: LookupFn,
    binding: BindingFn,
    writable: WritableFn,
    info: InfoFn,
    register: NotifierFn,
    unregister: NotifierFn,
    _symbols: [Symbol; 7],
}

// SAFETY: Consists of addresses of functions, and names.
unsafe impl Send for Api {}
// SAFETY: As above.
unsafe impl Sync for Api {}

impl Api {
    /// Returns the functions, or [`None`] if they aren't there, or are those of another interface
    /// than that of the header: the names alone don't tell.
    fn get() -> Option<Self> {
        let interface = Symbol::get(c"dm_thin_interface")?;
        // SAFETY: The header declares the symbol as a constant of this type.
        if unsafe { *interface.address.cast::<c_uint>().as_ptr() } != bindings::DM_THIN_INTERFACE {
            return None;
        }
        let get_handle = Symbol::get(c"dm_thin_get_handle")?;
        let lookup = Symbol::get(c"dm_thin_lookup")?;
        let binding = Symbol::get(c"dm_thin_binding")?;
        let writable = Symbol::get(c"dm_thin_writable")?;
        let info = Symbol::get(c"dm_thin_get_info")?;
        let register = Symbol::get(c"dm_thin_register_notifier")?;
        let unregister = Symbol::get(c"dm_thin_unregister_notifier")?;
        // SAFETY: The types are those of the header.
        // INVARIANT: The value holds the symbols.
        Some(unsafe {
            Self {
                get_handle: core::mem::transmute::<NonNull<c_void>, GetHandleFn>(
                    get_handle.address,
                ),
                lookup: core::mem::transmute::<NonNull<c_void>, LookupFn>(lookup.address),
                binding: core::mem::transmute::<NonNull<c_void>, BindingFn>(binding.address),
                writable: core::mem::transmute::<NonNull<c_void>, WritableFn>(writable.address),
                info: core::mem::transmute::<NonNull<c_void>, InfoFn>(info.address),
                register: core::mem::transmute::<NonNull<c_void>, NotifierFn>(register.address),
                unregister: core::mem::transmute::<NonNull<c_void>, NotifierFn>(unregister.address),
                _symbols: [
                    get_handle, lookup, binding, writable, info, register, unregister,
                ],
            }
        })
    }
}

/// Why a thin device could not be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// dm-thin-pool is not loaded, or lacks the interface for stacked targets.
    NoInterface,
    /// The device is not a thin device.
    NotThin(Error),
    /// The thin device is suspended, or was never active.
    Suspended,
    /// Reading the properties of the device has failed.
    NoInfo(Error),
}

/// Properties of a thin device (`struct dm_thin_info`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// Number of the pool, which is never reused.
    pub pool: u64,
    /// Number of sectors that are mapped.
    pub mapped_sectors: u64,
    /// Highest mapped sector, or `None` if no sector is mapped.
    pub highest_sector: Option<u64>,
    /// The thin device's id within the pool.
    pub thin_id: u32,
    /// The pool's time when the thin device was created.
    pub created: u32,
    /// Size of a data block in sectors.
    pub block_sectors: u32,
}

/// A thin device (`struct dm_thin_handle`).
///
/// # Invariants
///
/// `handle` was returned by `api`, for a device that the owner of the value holds open.
pub struct Thin {
    api: Api,
    handle: NonNull<bindings::dm_thin_handle>,
}

// SAFETY: The functions may be called from any task.
unsafe impl Send for Thin {}
// SAFETY: The functions may be called concurrently.
unsafe impl Sync for Thin {}

impl Thin {
    /// Opens `device` as a thin device. Process context.
    ///
    /// # Safety
    ///
    /// `device` is dropped after the value.
    unsafe fn open(device: &Device) -> core::result::Result<Self, OpenError> {
        let api = Api::get().ok_or(OpenError::NoInterface)?;
        // SAFETY: The device is open.
        let handle = unsafe { (api.get_handle)(device.bdev().as_ptr()) };
        let handle = from_err_ptr(handle).map_err(|error| match error {
            EAGAIN => OpenError::Suspended,
            error if error == not_supported() => OpenError::NoInterface,
            error => OpenError::NotThin(error),
        })?;
        // INVARIANT: Just returned; `device` stays open by the safety requirements.
        NonNull::new(handle)
            .map(|handle| Self { api, handle })
            .ok_or(OpenError::NotThin(EINVAL))
    }

    /// Returns the mapping of `sector` without waiting for I/O. Process context.
    ///
    /// Fails with `EWOULDBLOCK` if metadata would have to be read, `ENODATA` if the sector is not
    /// mapped, `ENXIO` while the device is suspended, `ESTALE` once names have stopped being
    /// unique, for example after a roll-back of the pool's metadata, and with other errors if the
    /// metadata is broken.
    #[inline]
    pub fn lookup(&self, sector: u64) -> Result<Mapping> {
        let mut raw = bindings::dm_thin_mapping::default();
        // SAFETY: The handle is valid by the type invariant.
        let result = unsafe { (self.api.lookup)(self.handle.as_ptr(), sector, false, &mut raw) };
        kernel::error::to_result(result)?;
        Ok(Mapping {
            pool: raw.pool_id,
            block: raw.data_block,
            binding: raw.binding,
            thin_id: raw.thin_id,
            time: raw.time,
            block_sectors: raw.block_sectors,
            shared: raw.shared,
            changing: raw.changing,
        })
    }

    /// Returns the number of the current activation of the device's table. Any context.
    #[inline]
    pub fn binding(&self) -> u64 {
        // SAFETY: The handle is valid by the type invariant.
        unsafe { (self.api.binding)(self.handle.as_ptr()) }
    }

    /// Returns whether a write that needs a new block can be expected to get one. Any context.
    pub fn is_writable(&self) -> bool {
        // SAFETY: The handle is valid by the type invariant.
        unsafe { (self.api.writable)(self.handle.as_ptr()) }
    }

    /// Returns the properties of the device. Process context; may read metadata.
    pub fn info(&self) -> Result<Info> {
        let mut raw = bindings::dm_thin_info::default();
        // SAFETY: The handle is valid by the type invariant.
        kernel::error::to_result(unsafe { (self.api.info)(self.handle.as_ptr(), &mut raw) })?;
        Ok(Info {
            pool: raw.pool_id,
            mapped_sectors: raw.mapped_sectors,
            highest_sector: (raw.mapped_sectors != 0).then_some(raw.highest_sector),
            thin_id: raw.thin_id,
            created: raw.creation_time,
            block_sectors: raw.block_sectors,
        })
    }
}

/// A thin device, together with the open device below a target.
///
/// # Examples
///
/// A target that opens the thin device below it, and handles reads of shared blocks itself.
///
/// ```ignore
/// // In `new`:
/// let (thin, info) = ThinDevice::new(ctor.open(path)?)
///     .map_err(|_| ctor.fail(c"Cannot use the device as a thin device", EINVAL))?;
/// ctor.split_at(info.block_sectors)?;
///
/// // In `map`:
/// match self.thin.thin().lookup(bio.sector()) {
///     Ok(mapping) if mapping.shared => self.read_shared(bio, mapping),
///     _ => self.forward(bio),
/// }
/// ```
pub struct ThinDevice {
    // The fields are dropped in this order.
    thin: Thin,
    device: Device,
}

/// The pause between attempts to open a suspended thin device, and the number of further attempts:
/// two seconds in total, as a pool suspends its thin devices only for a moment when it grows.
const PATIENCE: (Delta, u32) = (Delta::from_millis(20), 100);

impl ThinDevice {
    /// Opens `device` as a thin device, and returns its properties. Process context.
    ///
    /// Waits up to two seconds for a suspended device: all thin devices of a pool are suspended for
    /// a moment when the pool grows.
    pub fn new(device: Device) -> core::result::Result<(Self, Info), OpenError> {
        let (pause, times) = PATIENCE;
        let mut opened = Self::try_open(&device);
        for _ in 0..times {
            if opened.as_ref().err() != Some(&OpenError::Suspended) || current!().signal_pending() {
                break;
            }
            fsleep(pause);
            opened = Self::try_open(&device);
        }
        opened.map(|(thin, info)| (Self { thin, device }, info))
    }

    fn try_open(device: &Device) -> core::result::Result<(Thin, Info), OpenError> {
        // SAFETY: `new` drops the result before the device, and so does the resulting value: its
        // fields are dropped in the order of their declaration.
        let thin = unsafe { Thin::open(device) }?;
        let info = thin.info().map_err(|error| match error {
            ENXIO => OpenError::Suspended,
            error => OpenError::NoInfo(error),
        })?;
        Ok((thin, info))
    }

    /// Returns the thin device.
    #[inline]
    pub fn thin(&self) -> &Thin {
        &self.thin
    }

    /// Returns the device below the target.
    #[inline]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Event {
    /// Converts the arguments of a notifier call. Returns `None` if this module does not know the
    /// event.
    fn new(event: c_ulong, data: &bindings::dm_thin_event_data) -> Option<Self> {
        let pool = data.pool_id;
        let thin_id = data.thin_id;
        let change = MappingChange {
            pool,
            thin_id,
            begin: data.begin,
            end: data.end,
        };
        // CAST: The enumeration is small.
        Some(match event as u32 {
            bindings::dm_thin_event_DM_THIN_CREATED
            | bindings::dm_thin_event_DM_THIN_SNAPSHOT_CREATED => Event::Created {
                pool,
                thin_id,
                // CAST: As above.
                origin: (event as u32 == bindings::dm_thin_event_DM_THIN_SNAPSHOT_CREATED)
                    .then_some(data.origin_id),
                time: data.time,
            },
            bindings::dm_thin_event_DM_THIN_DELETED => Event::Deleted { pool, thin_id },
            bindings::dm_thin_event_DM_THIN_MAPPING_CHANGES => Event::MappingChanges(change),
            bindings::dm_thin_event_DM_THIN_MAPPING_CHANGED => Event::MappingChanged(change),
            bindings::dm_thin_event_DM_THIN_ABORTED => Event::Aborted { pool },
            bindings::dm_thin_event_DM_THIN_POOL_GONE => Event::Gone { pool },
            _ => return None,
        })
    }
}

#[repr(C)]
struct Notifier<T> {
    // First, so that the address of this field is that of the structure.
    raw: Opaque<notifier_block>,
    target: Arc<T>,
}

/// Passes the events of all pools to a `T` as long as the value lives.
///
/// # Invariants
///
/// The notifier is registered with `api`.
///
/// # Examples
///
/// A `Watch`, which [`Events`] shows, that is told of all changes that begin from now on.
///
/// ```ignore
/// let watch = Watch {
///     pool: info.pool,
///     changes: Atomic::new(0),
/// };
/// let watch = Arc::new(watch, GFP_KERNEL)?;
/// let subscription = Subscription::new(watch.clone())?;
/// ```
pub struct Subscription<T: Events> {
    api: Api,
    notifier: KBox<Notifier<T>>,
}

// SAFETY: The notifier chain has its own lock, and `T` is `Send` and `Sync`.
unsafe impl<T: Events> Send for Subscription<T> {}
// SAFETY: As above.
unsafe impl<T: Events> Sync for Subscription<T> {}

impl<T: Events> Subscription<T> {
    /// Starts passing events to `target`. Process context.
    ///
    /// Fails with `ENOENT` if dm-thin-pool is not loaded or lacks the interface, and with `ENOMEM`.
    pub fn new(target: Arc<T>) -> Result<Self> {
        let api = Api::get().ok_or(ENOENT)?;
        let notifier = KBox::new(
            Notifier {
                raw: Opaque::new(notifier_block {
                    notifier_call: Some(Self::call),
                    ..Default::default()
                }),
                target,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The notifier does not move before it is unregistered.
        kernel::error::to_result(unsafe { (api.register)(notifier.raw.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self { api, notifier })
    }

    /// # Safety
    ///
    /// Called by the notifier chain with the notifier of a `Subscription<T>`.
    unsafe extern "C" fn call(
        notifier: *mut notifier_block,
        event: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: The block is the first field of a `Notifier<T>`, which lives while it is
        // registered; `data` is what the header specifies.
        let (notifier, data) = unsafe {
            (
                &*notifier.cast::<Notifier<T>>(),
                &*data.cast::<bindings::dm_thin_event_data>(),
            )
        };
        // CAST: The enumeration is small.
        if event as u32 == bindings::dm_thin_event_DM_THIN_BUSY {
            // SAFETY: `dm-thin` passes a C string with this event.
            let uuid = unsafe { CStr::from_char_ptr(data.uuid) };
            if notifier
                .target
                .closes_soon(data.pool_id, data.thin_id, uuid.to_bytes())
            {
                return kernel::bindings::NOTIFY_STOP as c_int;
            }
        } else if let Some(event) = Event::new(event, data) {
            notifier.target.event(event);
        }
        kernel::bindings::NOTIFY_OK as c_int
    }
}

impl<T: Events> Drop for Subscription<T> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant. No callback runs after the return.
        unsafe { (self.api.unregister)(self.notifier.raw.get()) };
    }
}
