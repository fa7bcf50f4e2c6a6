// SPDX-License-Identifier: GPL-2.0

//! A message's words, with zero bytes between them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drr::fuzz::message(data));
