// SPDX-License-Identifier: GPL-2.0

//! The kernel crate in user space, as far as the module's pure sources use it.
//!
//! They are compiled here from the very files that the module is built from, so that they can be
//! fuzzed, run by many threads, and, with `--cfg loom`, be tried in every order of their atomic
//! operations. Atomics, locks and RCU are then loom's.

pub mod alloc;
pub mod error;
pub mod init;
pub mod rcu;
pub mod sync;

/// CPUs, one for each thread.
pub mod cpu {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Number of a CPU.
    pub struct CpuId(u32);

    impl CpuId {
        /// That of the calling thread.
        pub fn current() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            thread_local!(static OWN: Cell<Option<u32>> = const { Cell::new(None) });
            Self(OWN.with(|own| {
                let cpu = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Relaxed));
                own.set(Some(cpu));
                cpu
            }))
        }

        /// As a number.
        pub fn as_u32(&self) -> u32 {
            self.0
        }
    }
}

/// What the sources call by their C names.
pub mod bindings {
    pub use crate::rcu::{kvfree_call_rcu, kvfree_rcu_head};
}

/// What every source uses.
pub mod prelude {
    pub use crate::{
        alloc::{flags::*, KBox, KVVec, KVec},
        error::{code::*, Error, Result},
        init::{self as pin_init, InPlaceInit, PinInit},
        pr_debug, pr_err, pr_warn, try_pin_init,
    };
    pub use core::{ffi::CStr, mem::size_of, pin::Pin};
    pub use macros::{kunit_tests, pin_data};
}

/// Checks its arguments and says nothing.
#[macro_export]
macro_rules! pr_debug {
    ($($arg:tt)*) => {{
        let _ = core::format_args!($($arg)*);
    }};
}

/// As [`pr_debug`].
#[macro_export]
macro_rules! pr_err {
    ($($arg:tt)*) => { $crate::pr_debug!($($arg)*) };
}

/// As [`pr_debug`].
#[macro_export]
macro_rules! pr_warn {
    ($($arg:tt)*) => { $crate::pr_debug!($($arg)*) };
}
