// SPDX-License-Identifier: GPL-2.0

//! Stand-in: what truncations are told to.

use core::marker::PhantomData;

use crate::{
    device::BlockDevice,
    folio::{LockedFolio, MappingId},
};

/// A page that may be zeroed in part.
pub struct TruncatedPages<'a> {
    mapping: MappingId,
    range: (u64, u64),
    settled: bool,
    _alive: PhantomData<&'a ()>,
}

/// The inode behind a page cache: only what it is on.
pub struct Inode(u64);

impl Inode {
    /// The block device; each page cache has its own here.
    pub fn device(&self) -> Option<BlockDevice<'_>> {
        Some(BlockDevice::new(self.0))
    }
}

impl TruncatedPages<'_> {
    /// Page `index`, if it is in the page cache; the caller keeps others from adding it.
    pub fn find(mapping: MappingId, index: u64) -> Option<Self> {
        let (cached, settled) = LockedFolio::peek(mapping, index);
        cached.then_some(Self {
            mapping,
            range: (index, index),
            settled,
            _alive: PhantomData,
        })
    }

    /// Pages of a page cache that is only a name, which have been read.
    pub fn made_up(mapping: MappingId, range: (u64, u64)) -> Self {
        Self {
            mapping,
            range,
            settled: true,
            _alive: PhantomData,
        }
    }

    /// The page cache that they are in.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// First and last file index.
    pub fn range(&self) -> (u64, u64) {
        self.range
    }

    /// Whoever read them has done so before now.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// The inode that the page cache belongs to.
    pub fn inode(&self) -> Inode {
        Inode(self.mapping.number())
    }
}

/// As in the module.
pub trait TruncationEvents: Send + Sync {
    /// A part of `pages` is going to be zeroed.
    fn truncates(&self, pages: &TruncatedPages<'_>);
}
