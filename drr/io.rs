// SPDX-License-Identifier: GPL-2.0

//! The walk of a bio: reads, which donors may serve and which leave records; and what changes sectors.

pub(crate) mod copy;
pub(crate) mod patience;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod write;
