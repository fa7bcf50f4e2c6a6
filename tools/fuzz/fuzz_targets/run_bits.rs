// SPDX-License-Identifier: GPL-2.0

//! The arithmetic of runs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drr::fuzz::run_bits(data));
