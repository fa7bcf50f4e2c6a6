// SPDX-License-Identifier: GPL-2.0

//! The module's own tracepoints.
//!
//! By [`trace!`](crate::trace!), each costs one branch while nobody listens, which is a no-op where
//! the architecture can patch code; what it tells is put together only after that. Not by a closure:
//! its captures would be stored before the branch. Any context but NMI.
//!
//! C header: `include/trace/events/drr.h`; the kernel crate's [`kernel::tracepoint`] is for
//! tracepoints of its own bindings.

use crate::bindings;

/// Tells a tracepoint, whose name is the first, what the other expressions say, if somebody listens.
#[macro_export]
macro_rules! trace {
    ($event:ident, $($what:expr),+ $(,)?) => {
        if $crate::drr::trace::on::$event() {
            $crate::drr::trace::$event($($what),+);
        }
    };
}

/// Whether somebody listens to a tracepoint.
pub mod on {
    use crate::bindings;

    #[cfg(CONFIG_JUMP_LABEL)]
    macro_rules! on {
        ($event:ident, $tracepoint:ident) => {
            /// Somebody does.
            #[inline(always)]
            pub fn $event() -> bool {
                // SAFETY: It is a tracepoint, whose key may always be looked at.
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

    // Not by a function call, as the kernel crate would.
    #[cfg(not(CONFIG_JUMP_LABEL))]
    macro_rules! on {
        ($event:ident, $tracepoint:ident) => {
            /// Somebody does.
            #[inline(always)]
            pub fn $event() -> bool {
                let tracepoint = &raw const bindings::$tracepoint;
                // SAFETY: It is a tracepoint.
                let enabled = unsafe { &raw const (*tracepoint).key.key.enabled.counter };
                // SAFETY: An integer that is written atomically.
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

/// What a bio is for: a part of a device.
#[derive(Clone, Copy)]
pub struct Part {
    /// [`dev_t`](crate::block::device::BlockDevice::dev_t) of the device.
    pub dev: u32,
    /// Id of the thin device below it.
    pub thin_id: u32,
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
}

/// Whose page cache a read was served from.
#[derive(Clone, Copy, Default)]
pub struct Donor {
    /// As in [`Part`]; 0 if it is gone.
    pub dev: u32,
    /// Id of the thin device that it was read from.
    pub thin_id: u32,
    /// How many there were; this is the first.
    pub donors: u32,
}

/// Pages of a data block.
#[derive(Clone, Copy)]
pub struct Pages {
    /// Number of the device whose page cache has them.
    pub dev: u32,
    /// Id of the thin device that they were read from.
    pub thin_id: u32,
    /// Number of the pool.
    pub pool: u64,
    /// The block.
    pub block: u64,
    /// First page.
    pub page: u32,
    /// How many; or which, bit *n* for the *n*th after the first.
    pub pages: u32,
}

/// A reason as the tracepoints take it.
fn text(reason: &str) -> (*const kernel::ffi::c_char, u32) {
    // CAST: A word.
    (reason.as_ptr().cast(), reason.len() as u32)
}

/// A read is served.
#[cold]
#[inline(never)]
pub fn hit(at: Part, donor: Donor) {
    // SAFETY: Takes numbers.
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

/// A read goes to the disk, for a reason.
#[cold]
#[inline(never)]
pub fn miss(at: Part, reason: &'static str) {
    let (reason, length) = text(reason);
    // SAFETY: Takes numbers and a text of that length.
    unsafe {
        bindings::rust_do_trace_drr_miss(at.dev, at.thin_id, at.sector, at.sectors, reason, length)
    };
}

/// A read waits for another's read of the same.
#[cold]
#[inline(never)]
pub fn follow(at: Part) {
    // SAFETY: Takes numbers.
    unsafe { bindings::rust_do_trace_drr_follow(at.dev, at.thin_id, at.sector, at.sectors) };
}

/// All of a block is written in the place of a part of it.
#[cold]
#[inline(never)]
pub fn whole_write(at: Part) {
    // SAFETY: Takes numbers.
    unsafe { bindings::rust_do_trace_drr_whole_write(at.dev, at.thin_id, at.sector, at.sectors) };
}

/// Pages that a read has filled can donate now, if any; [`Pages::pages`] is their number.
#[cold]
#[inline(never)]
pub fn record(what: Pages) {
    if what.pages == 0 {
        return;
    }
    // SAFETY: Takes numbers.
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

/// Pages donate no longer, for a reason; [`Pages::pages`] has a bit for each.
#[cold]
#[inline(never)]
pub fn record_end(what: Pages, reason: &'static str) {
    let (reason, length) = text(reason);
    // SAFETY: Takes numbers and a text of that length.
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
