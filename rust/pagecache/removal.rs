// SPDX-License-Identifier: GPL-2.0

//! The removal of folios from page caches, as reported by the kernel's tracepoints.
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

/// A receiver of events of all page caches.
///
/// Called in any context but NMI, with interrupts on or off, under the locks of the page cache.
///
/// # Examples
///
/// A receiver that ends what is known about pages that leave their page cache, and begins to drop
/// pages itself if reclaim has taken any.
///
/// ```ignore
/// impl FolioEvents for PageEvents {
///     fn removed(&self, folio: EventFolio<'_>) {
///         let pages = self.directory.folio_removed(&folio);
///         if pages != 0 && folio.reclaimed_from().is_some() {
///             self.reclaim.start();
///         }
///     }
/// }
///
/// let events = PageEvents { directory, reclaim };
/// let hooks = Hooks::new(Arc::new(events, GFP_KERNEL)?)?;
/// ```
pub trait FolioEvents: Send + Sync {
    /// Called when `folio` is about to leave the page cache. The folio and `i_pages` are locked.
    fn removed(&self, folio: EventFolio<'_>);
}

/// A probe on a tracepoint.
///
/// # Invariants
///
/// `probe` is registered with `tracepoint`, and `data` is valid as long as it is.
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

/// Stores `tp` in `search` if it has the name that is searched for.
///
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
    /// Returns the kernel's tracepoint of this name. Process context.
    pub(crate) fn find(name: &CStr) -> Option<NonNull<tracepoint>> {
        let mut search = Search {
            name,
            found: core::ptr::null_mut(),
        };
        // SAFETY: `compare` is called with a tracepoint and the search.
        unsafe {
            bindings::for_each_kernel_tracepoint(
                Some(compare),
                core::ptr::from_mut(&mut search).cast(),
            )
        };
        NonNull::new(search.found)
    }

    /// Registers `probe`. Process context. Fails as `tracepoint_probe_register()` does.
    ///
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

    /// Registers a probe on the tracepoint of this name. Fails with `ENOENT` if there is none, and
    /// otherwise as [`Self::new`].
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
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::tracepoint_probe_unregister(self.tracepoint, self.probe, self.data) };
    }
}

/// Waits until probes that were unregistered are not running any more. Process context.
pub(crate) fn synchronize() {
    // SAFETY: Called in process context.
    unsafe { bindings::dm_rust_tracepoint_synchronize() };
}

/// Passes page-cache events to a `T` as long as the value lives.
pub struct Hooks<T: FolioEvents> {
    probe: Option<Probe>,
    _target: Arc<T>,
}

// SAFETY: The raw pointers are to static tracepoints, to functions and to `target`.
unsafe impl<T: FolioEvents> Send for Hooks<T> {}
// SAFETY: As above.
unsafe impl<T: FolioEvents> Sync for Hooks<T> {}

impl<T: FolioEvents> Hooks<T> {
    /// Starts passing events to `target`. Process context.
    ///
    /// Fails with `ENOENT` if the kernel lacks the tracepoint, and with `ENOMEM`.
    pub fn new(target: Arc<T>) -> Result<Self> {
        let data = core::ptr::from_ref::<T>(&target)
            .cast_mut()
            .cast::<c_void>();
        // SAFETY: The prototype is that of the header above; `target` is kept alive until
        // `synchronize()` has returned in `drop`.
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
        // SAFETY: By the safety requirements `data` is a `T`.
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
