// SPDX-License-Identifier: GPL-2.0

//! Bios and block devices.
//!
//! A target's own bios ([`bio`]) belong to it until it sends them down or completes them. Private bios ([`private_read`])
//! are ours alone: nobody else sees the pages they transfer to or from.

pub mod bio;
pub mod device;
pub(crate) mod private_bio;
pub mod private_read;
pub mod slab;
