// SPDX-License-Identifier: GPL-2.0

//! What happens to the access table, and what it knows then.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drr::fuzz::access_table(data));
