// SPDX-License-Identifier: GPL-2.0

//! Which cached page was read from which block: the access table, what proves that a page is still what it was, and what
//! is kept of dm-thin's mappings.

pub(crate) mod digest;
pub(crate) mod donor_target;
pub(crate) mod epoch;
pub(crate) mod mappings;
pub(crate) mod table;
pub(crate) mod unshared;
