// SPDX-License-Identifier: GPL-2.0

//! The module's tracepoints. They may be called in any context but NMI.
//!
//! While a tracepoint is disabled, [`trace!`](crate::trace!) costs one branch, which is a no-op
//! where the architecture can patch code. The arguments are evaluated only after that branch. The
//! macro takes expressions, as the captures of a closure would be stored before the branch.
//!
//! C header: `include/trace/events/drr.h`. The kernel crate's [`kernel::tracepoint`] supports only
//! tracepoints of its own bindings.

use crate::bindings;

/// Emits the tracepoint `$event` with the given arguments if it is enabled.
#[macro_export]
macro_rules! trace {
    ($event:ident, $($what:expr),+ $(,)?) => {
        if $crate::drr::trace::on::$event() {
            $crate::drr::trace::$event($($what),+);
        }
    };
}

/// Checks of whether tracepoints are enabled.
pub mod on {
    use crate::bindings;

    #[cfg(CONFIG_JUMP_LABEL)]
    macro_rules! on {
        ($event:ident, $tracepoint:ident) => {
            /// Returns whether the tracepoint is enabled.
            #[inline(always)]
            pub fn $event() -> bool {
                // SAFETY: The symbol is a tracepoint, whose key may be read at any time.
                unsafe {
                    kernel::jump_label::static_branch_unlikely!(
                        bindings::$tracepoint,
                        kernel::bindings::tracepoint,
                        key
                    )
                }
            }
        };
    }

    // Reads the key directly: the kernel crate would call a function.
    #[cfg(not(CONFIG_JUMP_LABEL))]
    macro_rules! on {
        ($event:ident, $tracepoint:ident) => {
            /// Returns whether the tracepoint is enabled.
            #[inline(always)]
            pub fn $event() -> bool {
                let tracepoint = &raw const bindings::$tracepoint;
                // SAFETY: The symbol is a tracepoint.
                let enabled = unsafe { &raw const (*tracepoint).key.key.enabled.counter };
                // SAFETY: The counter is an integer that is written atomically.
                unsafe { enabled.read_volatile() > 0 }
            }
        };
    }

    on!(hit, __tracepoint_drr_hit);
    on!(miss, __tracepoint_drr_miss);
    on!(follow, __tracepoint_drr_follow);
    on!(whole_write, __tracepoint_drr_whole_write);
    on!(record, __tracepoint_drr_record);
    on!(record_end, __tracepoint_drr_record_end);
}

/// The range of a device that a bio is for.
#[derive(Clone, Copy)]
pub struct Part {
    /// Number of the device ([`dev_t`](crate::block::device::BlockDevice::dev_t)).
    pub dev: u32,
    /// Id of the thin device below.
    pub thin_id: u32,
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
}

/// The donor of a read.
#[derive(Clone, Copy, Default)]
pub struct Donor {
    /// Number of the device as in [`Part`]; 0 if the device is gone.
    pub dev: u32,
    /// Id of the thin device that the donor's pages were read from.
    pub thin_id: u32,
    /// Number of donors that served the read; this is the first.
    pub donors: u32,
}

/// Pages of a data block.
#[derive(Clone, Copy)]
pub struct Pages {
    /// Number of the device in whose page cache the pages are.
    pub dev: u32,
    /// Id of the thin device that the pages were read from.
    pub thin_id: u32,
    /// Number of the pool.
    pub pool: u64,
    /// Number of the data block.
    pub block: u64,
    /// First page in the block.
    pub page: u32,
    /// The number of pages, or a bitmap with bit *n* for the *n*th page after the first.
    pub pages: u32,
}

/// Returns a reason in the form that the tracepoints take.
fn text(reason: &str) -> (*const kernel::ffi::c_char, u32) {
    // CAST: A reason is one word.
    (reason.as_ptr().cast(), reason.len() as u32)
}

/// Traces that a read is served.
#[cold]
#[inline(never)]
pub fn hit(at: Part, donor: Donor) {
    // SAFETY: The function takes only numbers.
    unsafe {
        bindings::rust_do_trace_drr_hit(
            at.dev,
            at.thin_id,
            at.sector,
            at.sectors,
            donor.dev,
            donor.thin_id,
            donor.donors,
        )
    };
}

/// Traces that a read goes to the disk, and the reason.
#[cold]
#[inline(never)]
pub fn miss(at: Part, reason: &'static str) {
    let (reason, length) = text(reason);
    // SAFETY: The function takes numbers, and a text of the given length.
    unsafe {
        bindings::rust_do_trace_drr_miss(at.dev, at.thin_id, at.sector, at.sectors, reason, length)
    };
}

/// Traces that a read waits for another read of the same content.
#[cold]
#[inline(never)]
pub fn follow(at: Part) {
    // SAFETY: The function takes only numbers.
    unsafe { bindings::rust_do_trace_drr_follow(at.dev, at.thin_id, at.sector, at.sectors) };
}

/// Traces that a whole block is written instead of a part of it.
#[cold]
#[inline(never)]
pub fn whole_write(at: Part) {
    // SAFETY: The function takes only numbers.
    unsafe { bindings::rust_do_trace_drr_whole_write(at.dev, at.thin_id, at.sector, at.sectors) };
}

/// Traces that pages which a read has filled can donate from now on. [`Pages::pages`] is their
/// number; if it is 0, nothing is traced.
#[cold]
#[inline(never)]
pub fn record(what: Pages) {
    if what.pages == 0 {
        return;
    }
    // SAFETY: The function takes only numbers.
    unsafe {
        bindings::rust_do_trace_drr_record(
            what.dev,
            what.thin_id,
            what.pool,
            what.block,
            what.page,
            what.pages,
        )
    };
}

/// Traces that pages no longer donate, and the reason. [`Pages::pages`] has a bit for each.
#[cold]
#[inline(never)]
pub fn record_end(what: Pages, reason: &'static str) {
    let (reason, length) = text(reason);
    // SAFETY: The function takes numbers, and a text of the given length.
    unsafe {
        bindings::rust_do_trace_drr_record_end(
            what.dev,
            what.thin_id,
            what.pool,
            what.block,
            what.page,
            what.pages,
            reason,
            length,
        )
    };
}
