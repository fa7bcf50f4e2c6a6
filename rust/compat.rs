// SPDX-License-Identifier: GPL-2.0

//! What kernel series name differently.
//!
//! The rest of the module is written for the newest series, and has no `cfg` for a series.
//! `DM_BEFORE_7_3` is set by `Kbuild`.
//!
//! C headers: [`include/linux/bvec.h`](srctree/include/linux/bvec.h),
//! [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use kernel::{
    bindings::{self, bvec_iter},
    error::Error,
    ffi::c_int,
};

#[cfg(DRR_MUTANTS)]
use kernel::module_param::ModuleParamAccess;
#[cfg(DM_BEFORE_7_3)]
use kernel::sync::barrier::smp_rmb;
#[cfg(not(DM_BEFORE_7_3))]
use kernel::sync::barrier::{smp_mb, Read};

/// The head by which memory is queued to be freed after a grace period.
#[cfg(DM_BEFORE_7_3)]
pub(crate) use kernel::bindings::callback_head as kvfree_rcu_head;
#[cfg(not(DM_BEFORE_7_3))]
pub(crate) use kernel::bindings::kvfree_rcu_head;

/// Returns how many bytes of its bio_vec `iter` has passed.
#[inline]
pub(crate) fn passed(iter: &bvec_iter) -> u32 {
    #[cfg(DM_BEFORE_7_3)]
    return iter.bi_bvec_done;
    #[cfg(not(DM_BEFORE_7_3))]
    return iter.bi_offset;
}

/// Sets how many bytes of its bio_vec `iter` has passed.
#[inline]
pub(crate) fn set_passed(iter: &mut bvec_iter, bytes: u32) {
    #[cfg(DM_BEFORE_7_3)]
    {
        iter.bi_bvec_done = bytes;
    }
    #[cfg(not(DM_BEFORE_7_3))]
    {
        iter.bi_offset = bytes;
    }
}

/// Orders the loads before it and the loads after it, as other CPUs see them. Any context.
#[inline]
pub fn read_barrier() {
    #[cfg(DM_BEFORE_7_3)]
    smp_rmb();
    #[cfg(not(DM_BEFORE_7_3))]
    smp_mb(Read);
}

/// Returns the error of a C constant. The kernel crate has fewer names for errors before 7.3, and
/// a name that is missing is a variable in a pattern, which matches any error.
fn error(errno: u32) -> Error {
    // CAST: A small number.
    Error::from_errno(-(errno as c_int))
}

/// Returns `EOPNOTSUPP`.
pub fn not_supported() -> Error {
    error(bindings::EOPNOTSUPP)
}

/// Returns `ESTALE`.
pub fn stale() -> Error {
    error(bindings::ESTALE)
}

/// Returns the value of a parameter of the module. Any context.
#[cfg(DRR_MUTANTS)]
pub fn parameter<T: Copy>(parameter: &ModuleParamAccess<T>) -> T {
    #[cfg(DM_BEFORE_7_3)]
    return *parameter.value();
    #[cfg(not(DM_BEFORE_7_3))]
    return *parameter.value_ref();
}
