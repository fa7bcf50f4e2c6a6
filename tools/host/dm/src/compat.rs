// SPDX-License-Identifier: GPL-2.0

//! Stand-in: what this kernel, which is of the newest series, has other names for.

pub(crate) use kernel::bindings::kvfree_rcu_head;
use kernel::sync::barrier::{smp_mb, Read};

/// As in the module.
#[inline]
pub fn read_barrier() {
    smp_mb(Read);
}
