// SPDX-License-Identifier: GPL-2.0

//! Stand-in: what truncations of block devices are told to.

use core::ops::Range;

use crate::device::BlockDevice;

/// As in the module.
pub trait TruncationEvents: Send + Sync {
    /// The page cache of `device` is going to be truncated in `bytes`.
    fn truncates(&self, device: BlockDevice<'_>, bytes: Range<u64>);
}
