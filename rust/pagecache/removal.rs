// SPDX-License-Identifier: GPL-2.0

//! Page-cache events, by way of the kernel's own tracepoints.
//!
//! C headers: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h),
//! [`include/trace/events/filemap.h`](srctree/include/trace/events/filemap.h)

use core::ptr::NonNull;

use kernel::{
    bindings::{folio, tracepoint},
    ffi::{c_char, c_int, c_void},
    prelude::*,
    sync::Arc,
};

use crate::{bindings, pagecache::folio::EventFolio};

/// What happens to folios of any page cache.
///
/// Called in any context but NMI, with interrupts on or off, under the page cache's locks.
pub trait FolioEvents: Send + Sync {
    /// `folio` is about to leave the page cache; it is locked, and so is `i_pages`.
    fn removed(&self, folio: EventFolio<'_>);
}

/// A probe on a tracepoint.
///
/// # Invariants
///
/// `probe` is registered with `tracepoint`, `data` is valid as long as it is.
pub(crate) struct Probe {
    tracepoint: *mut tracepoint,
    probe: *mut c_void,
    data: *mut c_void,
}

extern "C" {
    fn strcmp(left: *const c_char, right: *const c_char) -> c_int;
}

struct Search<'a> {
    name: &'a CStr,
    found: *mut tracepoint,
}

/// # Safety
///
/// `tp` is a tracepoint and `search` a [`Search`].
unsafe extern "C" fn compare(tp: *mut tracepoint, search: *mut c_void) {
    // SAFETY: By the safety requirements.
    let search = unsafe { &mut *search.cast::<Search<'_>>() };
    // SAFETY: Both are C strings.
    if unsafe { strcmp((*tp).name, search.name.as_char_ptr()) } == 0 {
        search.found = tp;
    }
}

impl Probe {
    /// The kernel's tracepoint of that name.
    pub(crate) fn find(name: &CStr) -> Option<NonNull<tracepoint>> {
        let mut search = Search {
            name,
            found: core::ptr::null_mut(),
        };
        // SAFETY: `compare` gets what it asks for.
        unsafe {
            bindings::for_each_kernel_tracepoint(
                Some(compare),
                core::ptr::from_mut(&mut search).cast(),
            )
        };
        NonNull::new(search.found)
    }

    /// # Safety
    ///
    /// `probe` has the tracepoint's prototype, with `data` before its arguments. `data` is valid
    /// until the probe was dropped and [`synchronize`] has returned.
    pub(crate) unsafe fn new(
        tracepoint: NonNull<tracepoint>,
        probe: *mut c_void,
        data: *mut c_void,
    ) -> Result<Self> {
        let tracepoint = tracepoint.as_ptr();
        // SAFETY: By the safety requirements.
        kernel::error::to_result(unsafe {
            bindings::tracepoint_probe_register(tracepoint, probe, data)
        })?;
        // INVARIANT: Just registered.
        Ok(Self {
            tracepoint,
            probe,
            data,
        })
    }

    /// As [`Self::new`], of a tracepoint that has to be there.
    ///
    /// # Safety
    ///
    /// As for [`Self::new`].
    unsafe fn on(name: &CStr, probe: *mut c_void, data: *mut c_void) -> Result<Self> {
        let Some(tracepoint) = Self::find(name) else {
            pr_err!(
                "the kernel has no tracepoint {}: it is built without CONFIG_TRACEPOINTS\n",
                name.to_str().unwrap_or("?")
            );
            return Err(ENOENT);
        };
        // SAFETY: By the safety requirements.
        unsafe { Self::new(tracepoint, probe, data) }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant.
        unsafe { bindings::tracepoint_probe_unregister(self.tracepoint, self.probe, self.data) };
    }
}

/// Waits until no probe that was unregistered runs any more.
pub(crate) fn synchronize() {
    // SAFETY: Process context.
    unsafe { bindings::dm_rust_tracepoint_synchronize() };
}

/// Sends page-cache events to a `T` for as long as it lives.
pub struct Hooks<T: FolioEvents> {
    probe: Option<Probe>,
    _target: Arc<T>,
}

// SAFETY: The raw pointers are to static tracepoints, functions and `target`.
unsafe impl<T: FolioEvents> Send for Hooks<T> {}
// SAFETY: As above.
unsafe impl<T: FolioEvents> Sync for Hooks<T> {}

impl<T: FolioEvents> Hooks<T> {
    /// Starts sending events to `target`. Process context.
    ///
    /// Fails with `ENOENT` if the kernel lacks the tracepoint, and with `ENOMEM`.
    pub fn new(target: Arc<T>) -> Result<Self> {
        let data = core::ptr::from_ref::<T>(&target)
            .cast_mut()
            .cast::<c_void>();
        // SAFETY: The prototype is that of the header above; `target` is kept alive until `synchronize()`
        // has returned in `drop`.
        let probe = unsafe {
            Probe::on(
                c"mm_filemap_delete_from_page_cache",
                Self::removed as *mut c_void,
                data,
            )
        }?;
        Ok(Self {
            probe: Some(probe),
            _target: target,
        })
    }

    /// # Safety
    ///
    /// Called as a probe with the data of [`Self::new`].
    unsafe extern "C" fn removed(data: *mut c_void, folio: *mut folio) {
        // SAFETY: `data` is a `T`, by the safety requirements.
        let target = unsafe { &*data.cast::<T>() };
        // SAFETY: The tracepoint fires before the folio leaves its mapping.
        if let Some(folio) = unsafe { EventFolio::in_own_mapping(folio) } {
            target.removed(folio);
        }
    }
}

impl<T: FolioEvents> Drop for Hooks<T> {
    fn drop(&mut self) {
        self.probe = None;
        synchronize();
    }
}
