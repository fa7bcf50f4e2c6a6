// SPDX-License-Identifier: GPL-2.0

//! Device-mapper's ioctls, as include/uapi/linux/dm-ioctl.h has them.
//!
//! The crate does not notify udev. Where no udev runs, the program that uses the crate creates the
//! links in /dev/mapper itself.
//!
//! [`control`] has the requests, [`request`] sends one, [`table`] encodes the lines of a table,
//! [`layout`] has the kernel's structures, and [`name`] the printable forms of names that aren't
//! ASCII.

pub mod control;
mod layout;
pub mod name;
mod request;
pub mod table;

pub use control::{Control, Device, Version};
pub use request::Flags;
pub use table::Line;

/// The number of a device: major and minor.
pub type Number = (u32, u32);
