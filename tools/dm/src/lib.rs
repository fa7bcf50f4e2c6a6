// SPDX-License-Identifier: GPL-2.0

//! Device-mapper's ioctls, as include/uapi/linux/dm-ioctl.h has them.
//!
//! The crate tells udev nothing: its user sets up what udev would, where no udev runs. [`control`]
//! has the requests, [`request`] sends one, [`table`] has the lines of a table as bytes, [`layout`]
//! the kernel's structures, and [`name`] the names that aren't ASCII.

pub mod control;
mod layout;
pub mod name;
mod request;
pub mod table;

pub use control::{Control, Device};
pub use request::Flags;
pub use table::Line;

/// The number of a device: major and minor.
pub type Number = (u32, u32);
