// SPDX-License-Identifier: GPL-2.0

//! Slabs of clones that outlive the last target.
//!
//! Device-mapper has two slabs of bios for each size of per-bio data, and destroys them with the
//! last device that uses the size. That takes three RCU barriers for each slab: 0.1 s, and more
//! where timer ticks are rare. Where containers come and go every minute, a device is often the
//! last of its size.
//!
//! C source: `bioset_exit()` in block/bio.c, `dm_table_alloc_md_mempools()` in
//! drivers/md/dm-table.c

use core::ptr::NonNull;

use kernel::{bindings::bio_set, prelude::*};

use crate::bindings;

/// A reference to a slab of clones.
///
/// # Invariants
///
/// The bio set is initialised, and exists until the value is dropped.
struct Slab(NonNull<bio_set>);

// SAFETY: A bio set may be freed by any task.
unsafe impl Send for Slab {}
// SAFETY: A shared reference allows no operation.
unsafe impl Sync for Slab {}

impl Slab {
    /// Creates the slab for the first clone of a bio, or for further ones. Fails with `ENOMEM`.
    fn new(data_size: usize, first: bool) -> Result<Self> {
        // SAFETY: May sleep here, as `BioSlabs::new` requires process context.
        // CAST: Per-bio data has a few hundred bytes.
        let set = unsafe { bindings::dm_rust_slab_new(data_size as u32, first) };
        // INVARIANT: Just made.
        NonNull::new(set).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; no bio was ever allocated from the set.
        unsafe { bindings::dm_rust_slab_free(self.0.as_ptr()) };
    }
}

/// References to both slabs for one size of per-bio data.
///
/// # Examples
///
/// A module that keeps the slabs of its target until the target type is unregistered.
///
/// ```ignore
/// struct Module {
///     _target: Registration<MyTarget>,
///     // Dropped after the registration.
///     _slabs: BioSlabs,
/// }
///
/// let slabs = BioSlabs::new(per_bio_bytes::<MyTarget>())?;
/// let target = Registration::new(module, shared)?;
/// Ok(Module { _target: target, _slabs: slabs })
/// ```
pub struct BioSlabs {
    _first: Slab,
    _more: Slab,
}

impl BioSlabs {
    /// Creates the slabs, or takes references to device-mapper's. `data_size` is the size of
    /// per-bio data in bytes. Process context. Fails with `ENOMEM`.
    pub fn new(data_size: usize) -> Result<Self> {
        Ok(Self {
            _first: Slab::new(data_size, true)?,
            _more: Slab::new(data_size, false)?,
        })
    }
}
