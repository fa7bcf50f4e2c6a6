// SPDX-License-Identifier: GPL-2.0

//! Bios and block devices.
//!
//! A target owns a bio ([`bio`]) from `map` until it sends the bio down or completes it. Private
//! bios ([`private_read`]) and their pages belong to this crate alone.

pub mod bio;
pub mod device;
pub(crate) mod private_bio;
pub mod private_read;
pub mod slab;
