// SPDX-License-Identifier: GPL-2.0

//! Thin devices as the target above sees them: where a sector is mapped, and what happens to
//! mappings.
//!
//! The interface is optional in the kernel: its functions are looked up when a thin device is
//! opened, so that a dm-thin-pool without it gives an error rather than an unloadable module.
//!
//! C header: `include/linux/dm-thin.h`

use core::ptr::NonNull;

use kernel::{
    bindings::{block_device, notifier_block},
    error::from_err_ptr,
    ffi::{c_int, c_ulong, c_void},
    prelude::*,
    sync::Arc,
    time::{delay::fsleep, Delta},
    types::Opaque,
};

use crate::{
    bindings,
    block::device::Device,
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

/// A symbol of another module, which stays loaded as long as this lives.
///
/// # Invariants
///
/// `address` was got by `__symbol_get()` for `name`.
struct Symbol {
    name: &'static CStr,
    address: NonNull<c_void>,
}

impl Symbol {
    fn get(name: &'static CStr) -> Option<Self> {
        // SAFETY: A C string.
        let address = unsafe { bindings::__symbol_get(name.as_char_ptr()) };
        // INVARIANT: Just got.
        NonNull::new(address).map(|address| Self { name, address })
    }
}

impl Drop for Symbol {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::__symbol_put(self.name.as_char_ptr()) };
    }
}

/// dm-thin's functions.
///
/// # Invariants
///
/// The functions are those of the header, and stay as long as the symbols.
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

// SAFETY: Function addresses and names.
unsafe impl Send for Api {}
// SAFETY: As above.
unsafe impl Sync for Api {}

impl Api {
    fn get() -> Option<Self> {
        let get_handle = Symbol::get(c"dm_thin_get_handle")?;
        let lookup = Symbol::get(c"dm_thin_lookup")?;
        let binding = Symbol::get(c"dm_thin_binding")?;
        let writable = Symbol::get(c"dm_thin_writable")?;
        let info = Symbol::get(c"dm_thin_get_info")?;
        let register = Symbol::get(c"dm_thin_register_notifier")?;
        let unregister = Symbol::get(c"dm_thin_unregister_notifier")?;
        // SAFETY: The types are those of the header.
        // INVARIANT: The symbols are kept along.
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
    /// What it is can't be told.
    NoInfo(Error),
}

/// What a thin device is (`struct dm_thin_info`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// The pool; never reused.
    pub pool: u64,
    /// Number of sectors that are mapped.
    pub mapped_sectors: u64,
    /// Highest mapped sector, if any is.
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
/// `handle` was got from `api`, for a device that its owner holds open.
pub struct Thin {
    api: Api,
    handle: NonNull<bindings::dm_thin_handle>,
}

// SAFETY: The functions may be called from any task.
unsafe impl Send for Thin {}
// SAFETY: And by several at once.
unsafe impl Sync for Thin {}

impl Thin {
    /// Opens the thin device that `device` is. Process context.
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
            error => OpenError::NotThin(error),
        })?;
        // INVARIANT: Just got; `device` stays open by the safety requirements.
        NonNull::new(handle)
            .map(|handle| Self { api, handle })
            .ok_or(OpenError::NotThin(EINVAL))
    }

    /// Where `sector` is mapped, without waiting for I/O. Process context.
    ///
    /// Fails with `EWOULDBLOCK` if metadata would have to be read, `ENODATA` if the sector is not
    /// mapped, `ENXIO` while the device is suspended, `ESTALE` once a roll-back of the pool's metadata, say, has
    /// made that names aren't unique any more, and others if the metadata is broken.
    #[inline]
    pub fn lookup(&self, sector: u64) -> Result<Mapping> {
        let mut raw = bindings::dm_thin_mapping::default();
        // SAFETY: Valid, by the type invariant.
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

    /// The current activation of the device's table; any context.
    #[inline]
    pub fn binding(&self) -> u64 {
        // SAFETY: Valid, by the type invariant.
        unsafe { (self.api.binding)(self.handle.as_ptr()) }
    }

    /// Whether a write that needs a new block can be expected to get one. Any context.
    pub fn is_writable(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (self.api.writable)(self.handle.as_ptr()) }
    }

    /// What the device is. Process context; may read metadata.
    pub fn info(&self) -> Result<Info> {
        let mut raw = bindings::dm_thin_info::default();
        // SAFETY: Valid, by the type invariant.
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

/// A thin device together with the device below a target that it is.
pub struct ThinDevice {
    // Dropped in this order.
    thin: Thin,
    device: Device,
}

/// How long, and how often, to wait for a thin device that is suspended.
const PATIENCE: (Delta, u32) = (Delta::from_millis(20), 100);

impl ThinDevice {
    /// Opens `device` as a thin device, and tells what it is. Process context.
    ///
    /// Waits two seconds for a device that is suspended: all thin devices of a pool are for a
    /// moment when the pool grows.
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
        // SAFETY: `new` drops what it gets before the device, and so does the value: its fields
        // are dropped in the order in which they are declared.
        let thin = unsafe { Thin::open(device) }?;
        let info = thin.info().map_err(|error| match error {
            ENXIO => OpenError::Suspended,
            error => OpenError::NoInfo(error),
        })?;
        Ok((thin, info))
    }

    /// The thin device.
    #[inline]
    pub fn thin(&self) -> &Thin {
        &self.thin
    }

    /// The device below the target.
    #[inline]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Event {
    /// From what a notifier is called with; nothing if this module doesn't know the event.
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
            bindings::dm_thin_event_DM_THIN_DELETES => Event::Deletes { pool, thin_id },
            bindings::dm_thin_event_DM_THIN_DELETED => Event::Deleted { pool, thin_id },
            bindings::dm_thin_event_DM_THIN_CLOSED => Event::Closed { pool, thin_id },
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
    // First, so that its address is the notifier's.
    raw: Opaque<notifier_block>,
    target: Arc<T>,
}

/// Sends the events of all pools to a `T` for as long as it lives.
///
/// # Invariants
///
/// The notifier is registered with `api`.
pub struct Subscription<T: Events> {
    api: Api,
    notifier: KBox<Notifier<T>>,
}

// SAFETY: The chain has its own lock, and `T` is `Send` and `Sync`.
unsafe impl<T: Events> Send for Subscription<T> {}
// SAFETY: As above.
unsafe impl<T: Events> Sync for Subscription<T> {}

impl<T: Events> Subscription<T> {
    /// Starts sending events to `target`. Process context.
    ///
    /// Fails with `ENOENT` if dm-thin-pool is not loaded or lacks the interface, and `ENOMEM`.
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
        // SAFETY: The notifier stays where it is until it is unregistered.
        kernel::error::to_result(unsafe { (api.register)(notifier.raw.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self { api, notifier })
    }

    /// # Safety
    ///
    /// Called by the chain with the notifier of a `Subscription<T>`.
    unsafe extern "C" fn call(
        notifier: *mut notifier_block,
        event: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: The block is the first field of a `Notifier<T>`, which lives while it is
        // registered; `data` is what the header says.
        let (notifier, data) = unsafe {
            (
                &*notifier.cast::<Notifier<T>>(),
                &*data.cast::<bindings::dm_thin_event_data>(),
            )
        };
        if let Some(event) = Event::new(event, data) {
            notifier.target.event(event);
        }
        kernel::bindings::NOTIFY_OK as c_int
    }
}

impl<T: Events> Drop for Subscription<T> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant. No callback runs when this has returned.
        unsafe { (self.api.unregister)(self.notifier.raw.get()) };
    }
}
