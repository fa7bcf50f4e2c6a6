// SPDX-License-Identifier: GPL-2.0

//! Stand-in: a page of a store, which is in a page cache like any other.

use core::marker::PhantomData;

use kernel::{error::Result, sync::Arc};

use crate::pagecache::folio::MappingId;

/// A file system for stores.
pub struct PrivateMount;

impl PrivateMount {
    /// Mounts it.
    pub fn new() -> Result<Self> {
        Ok(Self)
    }

    /// Mounts it, for pools.
    pub fn shared() -> Arc<Self> {
        Arc::new(Self, kernel::alloc::flags::GFP_KERNEL).expect("memory")
    }
}

/// A store that keeps nothing.
pub struct PageStore;

impl PageStore {
    /// Makes one.
    pub fn new(_mount: Arc<PrivateMount>, _most_pages: u64) -> Result<Self> {
        Ok(Self)
    }
}

/// A page that was just added to a store.
pub struct StoredPage<'a> {
    mapping: MappingId,
    index: u64,
    store: PhantomData<&'a ()>,
}

impl StoredPage<'_> {
    /// The store's page cache.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// The page's file index.
    pub fn index(&self) -> u64 {
        self.index
    }
}
