// SPDX-License-Identifier: GPL-2.0

//! Stand-ins for C functions.

#![allow(clippy::missing_safety_doc)]

use core::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

pub(crate) use kernel::bindings::kvfree_call_rcu;
use kernel::{
    bindings::{bio, page, work_struct, workqueue_struct},
    ffi::{c_char, c_void},
};

/// Nobody waits for the CPU.
pub(crate) unsafe fn dm_rust_cond_resched() {}

/// A thread has its CPU for itself here.
pub(crate) unsafe fn dm_rust_preempt_disable() {}

/// As above.
pub(crate) unsafe fn dm_rust_preempt_enable() {}

/// Pages of memory that the machine seems to have: 2 GiB at first.
pub(crate) static RAM_PAGES: AtomicUsize = AtomicUsize::new(1 << 19);

pub(crate) unsafe fn dm_rust_in_hardirq() -> bool {
    false
}

/// As in the module.
pub(crate) unsafe fn dm_rust_total_ram_pages() -> usize {
    RAM_PAGES.load(Relaxed)
}

pub(crate) unsafe fn dm_rust_may_warn() -> bool {
    true
}

/// Sends a bio down, which here only counts.
pub(crate) unsafe fn dm_submit_bio_remap(bio: *mut bio, _own: *mut bio) {
    // SAFETY: It is the caller's.
    unsafe { &*bio }.sent.fetch_add(1, Relaxed);
}

/// As in the module.
pub(crate) unsafe fn dm_rust_bio_hold(bio: *mut bio) {
    // SAFETY: It is the caller's.
    unsafe { &*bio }.holds.fetch_add(1, Relaxed);
}

/// As in the module.
pub(crate) unsafe fn dm_rust_bio_release(bio: *mut bio) {
    // SAFETY: The caller's promise.
    unsafe { kernel::bindings::bio_endio(bio) };
}

/// A page is named by its address.
pub(crate) unsafe fn dm_rust_page_address(page: *mut page) -> *mut c_void {
    page.cast()
}

/// Counters that all CPUs share: nothing is measured by them here. Their number comes before them.
pub(crate) unsafe fn dm_rust_counters_alloc(count: usize, _may_sleep: bool) -> *mut u64 {
    let counters: Box<[AtomicU64]> = (0..=count).map(|_| AtomicU64::new(0)).collect();
    counters[0].store(count as u64, Relaxed);
    // SAFETY: There is one more than `count`.
    unsafe { Box::into_raw(counters).cast::<u64>().add(1) }
}

/// # Safety
///
/// `counters` are there, and `at` is one of them.
unsafe fn counter<'a>(counters: *mut u64, at: usize) -> &'a AtomicU64 {
    // SAFETY: By the safety requirements.
    unsafe { AtomicU64::from_ptr(counters.add(at)) }
}

pub(crate) unsafe fn dm_rust_counters_add(counters: *mut u64, at: usize, by: u64) {
    // SAFETY: The caller's promise.
    unsafe { counter(counters, at) }.fetch_add(by, Relaxed);
}

pub(crate) unsafe fn dm_rust_counters_sum(counters: *mut u64, at: usize) -> u64 {
    // SAFETY: The caller's promise.
    unsafe { counter(counters, at) }.load(Relaxed)
}

pub(crate) unsafe fn dm_rust_counters_free(counters: *mut u64) {
    // SAFETY: From `dm_rust_counters_alloc`, and the caller's.
    unsafe {
        let first = counters.sub(1);
        let count = *first as usize + 1;
        drop(Box::from_raw(core::ptr::slice_from_raw_parts_mut(
            first, count,
        )));
    }
}

std::thread_local! {
    /// The time, which stands still unless somebody sets it. All of a model's threads are one of the machine's.
    pub(crate) static JIFFIES: Cell<u64> = const { Cell::new(0) };
}

pub(crate) unsafe fn dm_rust_jiffies() -> u64 {
    JIFFIES.get()
}

/// A tick that comes with [`tick`].
#[allow(non_camel_case_types)]
pub struct dm_rust_ticker {
    fun: unsafe extern "C" fn(*mut c_void) -> bool,
    data: *mut c_void,
    /// It was told to tick.
    asked: Cell<bool>,
}

std::thread_local! {
    /// The ticker that was made last.
    static TICKER: Cell<*const dm_rust_ticker> = const { Cell::new(core::ptr::null()) };
}

/// Has the ticker that was made last tick, if it was told to.
pub(crate) fn tick() {
    // SAFETY: The models call this while it is there.
    let ticker = unsafe { &*TICKER.get() };
    if ticker.asked.replace(false) {
        // SAFETY: Its maker's promise.
        let again = unsafe { (ticker.fun)(ticker.data) };
        ticker.asked.set(again || ticker.asked.get());
    }
}

pub(crate) unsafe fn dm_rust_ticker_new(
    _name: *const c_char,
    _for_reclaim: bool,
    _every_ms: u32,
    fun: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
    data: *mut c_void,
) -> *mut dm_rust_ticker {
    let ticker = Box::into_raw(Box::new(dm_rust_ticker {
        fun: fun.expect("a function"),
        data,
        asked: Cell::new(false),
    }));
    TICKER.set(ticker);
    ticker
}

pub(crate) unsafe fn dm_rust_ticker_tick(ticker: *mut dm_rust_ticker, _soon: bool) {
    // SAFETY: The caller's promise.
    unsafe { &*ticker }.asked.set(true);
}

pub(crate) const DM_RUST_WQ_SOFTIRQ: u32 = 0;
pub(crate) const DM_RUST_WQ_TASK: u32 = 1;
pub(crate) const DM_RUST_WQ_THREADS: u32 = 2;

pub(crate) unsafe fn dm_rust_queue_new(_name: *const c_char, _flags: u32) -> *mut workqueue_struct {
    core::ptr::dangling_mut()
}

pub(crate) unsafe fn dm_rust_queue_free(_queue: *mut workqueue_struct) {}

/// Work is done at once, by whoever puts it there.
pub(crate) unsafe fn dm_rust_queue_work(
    _queue: *mut workqueue_struct,
    work: *mut work_struct,
    fun: Option<unsafe extern "C" fn(*mut work_struct)>,
) {
    // SAFETY: The caller's promise.
    unsafe { fun.expect("a function")(work) }
}

pub(crate) unsafe fn dm_rust_ticker_free(ticker: *mut dm_rust_ticker) {
    // SAFETY: From `dm_rust_ticker_new`, and the caller's.
    drop(unsafe { Box::from_raw(ticker) });
}
