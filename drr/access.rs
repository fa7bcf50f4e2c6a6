// SPDX-License-Identifier: GPL-2.0

//! The access table: which cached page was read from which block, the digests that prove a cached
//! page unchanged, and caches of dm-thin's mappings.

pub(crate) mod digest;
pub(crate) mod donor_target;
pub(crate) mod epoch;
pub(crate) mod mappings;
pub(crate) mod name;
pub(crate) mod table;
pub(crate) mod unshared;
