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
    /// Input or output failed.
    pub const EIO: Error = Error(libc::EIO);
    /// Out of memory.
    pub const ENOMEM: Error = Error(libc::ENOMEM);
    /// Invalid argument.
    pub const EINVAL: Error = Error(libc::EINVAL);
}

/// A pointer that C returned, which here is never an error's.
pub fn from_err_ptr<T>(pointer: *mut T) -> Result<*mut T> {
    Ok(pointer)
}
