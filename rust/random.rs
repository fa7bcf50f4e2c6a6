// SPDX-License-Identifier: GPL-2.0

//! Random numbers that nobody can guess.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use core::mem::size_of_val;

use kernel::bindings;

/// Returns whether the kernel's random number generator is seeded.
///
/// It may not be when a module is loaded from the initramfs.
pub fn seeded() -> bool {
    // SAFETY: Only reads.
    unsafe { bindings::rng_is_initialized() }
}

/// Fills `words` with random numbers; good ones only if [`seeded`].
pub fn fill(words: &mut [u64]) {
    // SAFETY: The slice is ours, and all bit patterns are numbers.
    unsafe { bindings::get_random_bytes(words.as_mut_ptr().cast(), size_of_val(words)) }
}
