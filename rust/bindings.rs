// SPDX-License-Identifier: GPL-2.0

//! Bindings that `kernel::bindings` lacks, generated from `rust/bindings_helper.h`.
//!
//! Types that both have are those of the kernel crate, by the glob import.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    improper_ctypes_definitions,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unused_imports,
    unsafe_op_in_unsafe_fn
)]

pub(crate) use kernel::bindings::*;

include!(env!("DM_BINDINGS"));

// Written by hand, as bindgen's options for these functions would pull in their whole headers.
extern "C" {
    pub(crate) fn for_each_kernel_tracepoint(
        fct: Option<unsafe extern "C" fn(tp: *mut tracepoint, data: *mut kernel::ffi::c_void)>,
        data: *mut kernel::ffi::c_void,
    );
    pub(crate) fn tracepoint_probe_register(
        tp: *mut tracepoint,
        probe: *mut kernel::ffi::c_void,
        data: *mut kernel::ffi::c_void,
    ) -> kernel::ffi::c_int;
    pub(crate) fn tracepoint_probe_unregister(
        tp: *mut tracepoint,
        probe: *mut kernel::ffi::c_void,
        data: *mut kernel::ffi::c_void,
    ) -> kernel::ffi::c_int;
    pub(crate) fn __symbol_get(symbol: *const kernel::ffi::c_char) -> *mut kernel::ffi::c_void;
    pub(crate) fn __symbol_put(symbol: *const kernel::ffi::c_char);
}
