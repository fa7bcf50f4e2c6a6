// SPDX-License-Identifier: GPL-2.0

//! The requests to device-mapper that are made in one way where udev runs, and in another where it
//! doesn't.

use drr_dm::{Device, Flags, Line, Number};

/// What went wrong.
#[derive(Debug)]
pub struct Failed {
    /// The system's number of the error; `None` if it isn't one of the system's.
    pub number: Option<i32>,
    pub text: String,
}

pub type Asked<T> = std::result::Result<T, Failed>;

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self {
            number: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

/// Which of udev's rules see a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All, as any device.
    All,
    /// None: no link leads to it, and no program looks what is on it.
    Nobody,
}

/// A way to make requests. Names are those that device-mapper can have, with escapes of what isn't
/// ASCII.
pub trait Requests: Send {
    /// Lists the names of the targets that are loaded.
    fn targets(&self) -> Asked<Vec<String>>;

    /// Lists the devices whose UUIDs begin with `uuid`.
    fn devices(&self, uuid: &str) -> Asked<Vec<(String, Number)>>;

    /// Returns a device with its active table.
    fn device(&self, name: &str) -> Asked<Device>;

    /// Returns the status of a device, or its table, as the flags say.
    fn lines(&self, name: &str, flags: Flags) -> Asked<Vec<Line>>;

    /// Sends a message, and returns its answer if there is one.
    fn message(&self, name: &str, message: &str) -> Asked<Option<String>>;

    /// Makes a device without a table; an empty UUID is none. Fails with `EBUSY` if the name or the
    /// UUID is taken.
    fn create(&self, name: &str, uuid: &str) -> Asked<Number>;

    /// Loads a table of one line.
    fn load(&self, name: &str, line: &Line, flags: Flags) -> Asked<()>;

    /// Makes a loaded table the active one, if there is one, and resumes the device.
    fn resume(&self, name: &str, flags: Flags, audience: Audience) -> Asked<()>;

    /// Throws away a table that is loaded and not active.
    fn clear(&self, name: &str) -> Asked<()>;

    /// Removes a device. Fails with `EBUSY` if it is still in use after five seconds.
    fn remove(&self, name: &str, flags: Flags) -> Asked<()>;
}
