// SPDX-License-Identifier: GPL-2.0

//! The commands: a file for each, or for a few that belong together, and a folder for modules that
//! only one file uses.

pub mod attach;
pub mod blocks;
pub mod doctor;
pub mod duplicates;
pub mod export;
pub mod heat;
pub mod layers;
pub mod resize;
pub mod setup;
pub mod top;
pub mod upgrade;
pub mod watch;
