// SPDX-License-Identifier: GPL-2.0

//! The path of a bio: reads, which donors may serve and which leave records; and bios that change
//! sectors.

pub(crate) mod copy;
pub(crate) mod patience;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod write;
