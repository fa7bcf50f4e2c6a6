// SPDX-License-Identifier: GPL-2.0

//! Requests to device-mapper, which are made in different ways where udev runs and where it
//! doesn't.

use drr_dm::{Device, Flags, Line, Number, Version};

/// The error of a request.
#[derive(Debug)]
pub struct Failed {
    /// The error number (`errno`); `None` if the error doesn't come from the system.
    pub number: Option<i32>,
    pub text: String,
}

/// The result of a request.
pub type Asked<T> = std::result::Result<T, Failed>;

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self {
            number: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

/// The rules of udev that see a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All rules, as for other devices.
    All,
    /// No rules: no links to the device are made, and no program probes its content.
    Nobody,
}

/// A way to make requests. Names have the form that [`drr_dm::name`] describes.
pub trait Requests: Send {
    /// Returns the names and versions of the registered target types.
    fn targets(&self) -> Asked<Vec<(String, Version)>>;

    /// Returns the names and numbers of the devices whose UUIDs begin with `uuid`.
    fn devices(&self, uuid: &str) -> Asked<Vec<(String, Number)>>;

    /// Returns the description of a device, with its active table.
    fn device(&self, name: &str) -> Asked<Device>;

    /// Returns the status of a device, or its table if `flags` has [`Flags::STATUS_TABLE`].
    fn lines(&self, name: &str, flags: Flags) -> Asked<Vec<Line>>;

    /// Sends a message, and returns the answer if there is one.
    fn message(&self, name: &str, message: &str) -> Asked<Option<String>>;

    /// Creates a device without a table, and returns its number. If `uuid` is empty, the device has
    /// no UUID. Fails with `EBUSY` if the name or the UUID is taken.
    fn create(&self, name: &str, uuid: &str) -> Asked<Number>;

    /// Loads a table of one line.
    fn load(&self, name: &str, line: &Line, flags: Flags) -> Asked<()>;

    /// Makes the loaded table the active one, if there is one, and resumes the device.
    fn resume(&self, name: &str, flags: Flags, audience: Audience) -> Asked<()>;

    /// Discards the table that is loaded and not active, if there is one.
    fn clear(&self, name: &str) -> Asked<()>;

    /// Removes a device. Fails with `EBUSY` if it is still in use after five seconds.
    fn remove(&self, name: &str, flags: Flags) -> Asked<()>;
}
