// SPDX-License-Identifier: GPL-2.0

//! Stand-in: a block device is a number.

use core::marker::PhantomData;

/// A block device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockDevice<'a>(u64, PhantomData<&'a ()>);

impl BlockDevice<'_> {
    /// Device `number`.
    pub fn new(number: u64) -> Self {
        Self(number, PhantomData)
    }

    /// Its number.
    pub fn id(self) -> u64 {
        self.0
    }
}
