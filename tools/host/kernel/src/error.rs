// SPDX-License-Identifier: GPL-2.0

//! Errors by number.

/// A kernel error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub i32);

/// What functions return.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// The numbers that are used.
pub mod code {
    use super::Error;

    /// No such entry.
    pub const ENOENT: Error = Error(libc::ENOENT);
    /// Out of memory.
    pub const ENOMEM: Error = Error(libc::ENOMEM);
    /// Invalid argument.
    pub const EINVAL: Error = Error(libc::EINVAL);
}
