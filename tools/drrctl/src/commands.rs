// SPDX-License-Identifier: GPL-2.0

//! What `drrctl` does: a file for each command, or for a few that belong together, and a folder for
//! what only that one needs.

pub mod attach;
pub mod blocks;
pub mod duplicates;
pub mod export;
pub mod heat;
pub mod layers;
pub mod resize;
pub mod setup;
pub mod top;
pub mod watch;
