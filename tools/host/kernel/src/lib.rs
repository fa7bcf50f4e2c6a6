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

/// CPUs: each thread has one for as long as it lives.
pub mod cpu {
    use std::sync::{Mutex, PoisonError};

    /// More than threads at any time.
    const CPUS: u32 = 256;

    /// The numbers that no thread has.
    static FREE: Mutex<(u32, Vec<u32>)> = Mutex::new((0, Vec::new()));

    struct Own(u32);

    impl Own {
        fn take() -> Self {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            let cpu = free.1.pop().unwrap_or_else(|| {
                free.0 += 1;
                free.0 - 1
            });
            assert!(cpu < CPUS, "more threads than CPUs");
            Self(cpu)
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.1.push(self.0);
        }
    }

    /// One more than the highest number.
    pub fn nr_cpu_ids() -> u32 {
        CPUS
    }

    /// Number of a CPU.
    pub struct CpuId(u32);

    impl CpuId {
        /// That of the calling thread.
        pub fn current() -> Self {
            thread_local!(static OWN: Own = Own::take());
            Self(OWN.with(|own| own.0))
        }

        /// As a number.
        pub fn as_u32(&self) -> u32 {
            self.0
        }
    }
}

/// Pages of memory.
pub mod page {
    use crate::{
        alloc::Flags,
        bindings::page,
        error::{code::ENOMEM, Result},
    };
    use core::ptr::NonNull;

    /// log2 of the page size.
    pub const PAGE_SHIFT: usize = 12;

    /// A page.
    pub struct Page(NonNull<page>);

    // SAFETY: It owns its memory.
    unsafe impl Send for Page {}
    // SAFETY: Only its address can be had.
    unsafe impl Sync for Page {}

    impl Page {
        /// Fails with `ENOMEM`.
        pub fn alloc_page(_flags: Flags) -> Result<Self> {
            // SAFETY: A page's size is a multiple of its alignment, a power of two.
            let raw = unsafe { libc::aligned_alloc(1 << PAGE_SHIFT, 1 << PAGE_SHIFT) };
            if !raw.is_null() {
                // SAFETY: So large. In the kernel it may hold anything, here not what the compiler
                // takes for uninitialised.
                unsafe { libc::memset(raw, 0x5a, 1 << PAGE_SHIFT) };
            }
            NonNull::new(raw.cast()).map(Self).ok_or(ENOMEM)
        }

        /// What stands for it, which is its memory's address here.
        pub fn as_ptr(&self) -> *mut page {
            self.0.as_ptr()
        }
    }

    impl Drop for Page {
        fn drop(&mut self) {
            // SAFETY: Allocated in `alloc_page`.
            unsafe { libc::free(self.0.as_ptr().cast()) };
        }
    }
}

/// C's types.
pub mod ffi {
    pub use core::ffi::{c_char, c_int, c_void};
}

/// Time, in milliseconds.
pub mod time {
    /// A jiffy is one.
    pub fn msecs_to_jiffies(ms: u32) -> u64 {
        ms.into()
    }
}

/// What C looks after.
pub mod types {
    use core::{cell::UnsafeCell, mem::MaybeUninit};

    /// A value that only C touches.
    #[repr(transparent)]
    pub struct Opaque<T>(UnsafeCell<MaybeUninit<T>>);

    impl<T> Opaque<T> {
        /// One that C has still to fill in.
        pub const fn uninit() -> Self {
            Self(UnsafeCell::new(MaybeUninit::uninit()))
        }

        /// As C has it.
        pub const fn cast_into(this: *const Self) -> *mut T {
            this.cast_mut().cast()
        }
    }
}

/// What the sources call by their C names.
#[allow(non_camel_case_types)]
pub mod bindings {
    pub use crate::rcu::{kvfree_call_rcu, kvfree_rcu_head};
    use core::ffi::c_void;
    use std::{fs::File, io::Read, sync::atomic::AtomicUsize};

    /// Stands for a page.
    #[repr(C)]
    pub struct page([u8; 0]);

    /// Completes a bio, which here only counts.
    ///
    /// # Safety
    ///
    /// The bio is the caller's.
    pub unsafe fn bio_endio(bio: *mut bio) {
        use core::sync::atomic::Ordering::Relaxed;

        // SAFETY: By the safety requirements.
        let bio = unsafe { &*bio };
        if bio.holds.load(Relaxed) == 0 {
            bio.completed.fetch_add(1, Relaxed);
        } else {
            bio.holds.fetch_sub(1, Relaxed);
        }
    }

    /// Work for a worker.
    #[repr(C)]
    pub struct work_struct([usize; 4]);

    /// Stands for a queue.
    #[repr(C)]
    pub struct workqueue_struct([u8; 0]);

    /// A request for data.
    pub struct bio {
        /// What travels with it.
        pub per_bio: *mut c_void,
        /// How often it was sent down.
        pub sent: AtomicUsize,
        /// How often it was completed.
        pub completed: AtomicUsize,
        /// How often it has to be ended before it completes the next time it is ended.
        pub holds: AtomicUsize,
    }

    /// Random numbers can be had.
    ///
    /// # Safety
    ///
    /// Always.
    pub unsafe fn rng_is_initialized() -> bool {
        true
    }

    /// Fills memory with random numbers.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, and so large.
    pub unsafe fn get_random_bytes(to: *mut c_void, len: usize) {
        // SAFETY: By the safety requirements; all bit patterns are bytes.
        let to = unsafe { core::slice::from_raw_parts_mut(to.cast::<u8>(), len) };
        let mut source = File::open("/dev/urandom").expect("random numbers");
        source.read_exact(to).expect("random numbers");
    }
}

/// What every source uses.
pub mod prelude {
    pub use crate::{
        alloc::{flags::*, KBox, KVBox, KVVec, KVec},
        error::{code::*, Error, Result},
        init::{self as pin_init, InPlaceInit, PinInit},
        pin_init, pr_debug, pr_err, pr_info, pr_warn, try_pin_init, CStrExt,
    };
    pub use core::{ffi::CStr, mem::size_of, pin::Pin};
    pub use macros::{kunit_tests, pin_data};
}

/// Strings as C takes them.
pub trait CStrExt {
    /// The first character's address.
    fn as_char_ptr(&self) -> *const ffi::c_char;
}

impl CStrExt for core::ffi::CStr {
    fn as_char_ptr(&self) -> *const ffi::c_char {
        self.as_ptr()
    }
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

/// As [`pr_debug`].
#[macro_export]
macro_rules! pr_info {
    ($($arg:tt)*) => { $crate::pr_debug!($($arg)*) };
}
