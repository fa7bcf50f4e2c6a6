// SPDX-License-Identifier: GPL-2.0

//! Slabs of clones that stay when the last target goes.
//!
//! Device-mapper has two slabs of bios for each size of per-bio data. With the last device of a size it destroys them,
//! which takes three RCU barriers each: 0.1 s, and more where there are few timer ticks. Where containers come and
//! go by the minute, one of them is often the last.
//!
//! C source: `bioset_exit()` in block/bio.c, `dm_table_alloc_md_mempools()` in drivers/md/dm-table.c

use core::ptr::NonNull;

use kernel::{bindings::bio_set, prelude::*};

use crate::bindings;

/// A slab of clones.
///
/// # Invariants
///
/// The bio set is initialised, and there until the value is dropped.
struct Slab(NonNull<bio_set>);

// SAFETY: A bio set may be freed by any task.
unsafe impl Send for Slab {}
// SAFETY: Nothing is done with a shared one.
unsafe impl Sync for Slab {}

impl Slab {
    /// For a bio's first clone, or for those that follow.
    fn new(data_size: usize, first: bool) -> Result<Self> {
        // SAFETY: May sleep here, as `BioSlabs::new` asks for.
        // CAST: The per-bio data has a few hundred bytes.
        let set = unsafe { bindings::dm_rust_slab_new(data_size as u32, first) };
        // INVARIANT: Just made.
        NonNull::new(set).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; no bio was ever taken from the set.
        unsafe { bindings::dm_rust_slab_free(self.0.as_ptr()) };
    }
}

/// Both slabs for a size of per-bio data.
pub struct BioSlabs {
    _first: Slab,
    _more: Slab,
}

impl BioSlabs {
    /// Makes or joins them. `data_size` is in bytes. Process context; fails with `ENOMEM`.
    pub fn new(data_size: usize) -> Result<Self> {
        Ok(Self {
            _first: Slab::new(data_size, true)?,
            _more: Slab::new(data_size, false)?,
        })
    }
}
