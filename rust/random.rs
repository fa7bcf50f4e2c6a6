// SPDX-License-Identifier: GPL-2.0

//! Random numbers from the kernel's generator.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use core::mem::size_of_val;

use kernel::bindings;

/// Returns whether the kernel's random number generator is seeded. Any context.
///
/// The generator may not be seeded yet when a module is loaded from the initramfs.
pub fn seeded() -> bool {
    // SAFETY: Only reads the generator's state.
    unsafe { bindings::rng_is_initialized() }
}

/// Fills `words` with random numbers. They are unpredictable only if the generator is [`seeded`].
pub fn fill(words: &mut [u64]) {
    // SAFETY: The slice is valid for writes of its whole size, and all bit patterns are valid.
    unsafe { bindings::get_random_bytes(words.as_mut_ptr().cast(), size_of_val(words)) }
}
