// SPDX-License-Identifier: GPL-2.0

//! The requests that a program can send to device-mapper.
//!
//! Errors are the kernel's, with their numbers, or this crate's own, without a number. They don't
//! contain the name of the device, which callers know. Names are written as
//! [`name`](crate::name) describes.

use std::fs::File;
use std::io::Result;
use std::mem::offset_of;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::layout::{bytes_at, text_at, u32_at, u64_at, NameList, TargetVersions, NAME_LIST_NAME};
use crate::name::{escaped, unescaped};
use crate::request::{number, Answer, Command, Flags, Request};
use crate::table::{self, Line};
use crate::Number;

/// Path of device-mapper's control device, which takes the requests.
const PATH: &str = "/dev/mapper/control";
/// How long [`Control::remove`] waits for a device that is in use: programs that open it for a
/// moment, as udev's rules do, may be slow to close it.
const REMOVAL: Duration = Duration::from_secs(5);
/// How long [`Control::remove`] pauses between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// The version of a target type: major, minor, patch level.
pub type Version = (u32, u32, u32);

/// The kernel's description of a device.
#[derive(Clone, Debug, Default)]
pub struct Device {
    pub name: String,
    pub number: Number,
    /// Empty if the device has no UUID.
    pub uuid: String,
    pub suspended: bool,
    pub read_only: bool,
    /// Whether a table is loaded and not active yet.
    pub staged: bool,
    pub open: bool,
    /// The active table.
    pub table: Vec<Line>,
}

/// Device-mapper's control device, open for requests.
pub struct Control(File);

impl Control {
    /// Opens device-mapper's control device. Fails if the module dm-mod isn't loaded, and for users
    /// other than root.
    pub fn open() -> Result<Self> {
        File::open(PATH).map(Self)
    }

    /// Sends a request about the device `name`. If no device has this name as it stands, and the
    /// name contains escapes, sends the request about the device whose name is escaped like this.
    fn ask(&self, name: &str, request: Request<'_>) -> Result<Answer> {
        let answer = Request {
            name: name.as_bytes(),
            ..request
        }
        .send(&self.0);
        // An error without a number is this crate's own: the escaped name is too long.
        let unknown = match &answer {
            Err(error) => matches!(error.raw_os_error(), Some(libc::ENXIO) | None),
            Ok(_) => false,
        };
        match unescaped(name) {
            Some(name) if unknown => Request {
                name: &name,
                ..request
            }
            .send(&self.0),
            _ => answer,
        }
    }

    /// Sends a request about the device `name` that consists of a command and flags only.
    fn tell(&self, name: &str, command: Command, flags: Flags) -> Result<Answer> {
        let request = Request::new(command, &[]);
        self.ask(name, Request { flags, ..request })
    }

    /// Returns the names and numbers of the devices whose UUIDs begin with `uuid`. A device without
    /// a UUID is listed only if `uuid` is empty.
    pub fn devices(&self, uuid: &str) -> Result<Vec<(String, Number)>> {
        let request = Request::new(Command::ListDevices, &[]);
        let answer = Request { uuid, ..request }.send(&self.0)?;
        Ok(names(answer.data()))
    }

    /// Returns the names and versions of the registered target types.
    pub fn targets(&self) -> Result<Vec<(String, Version)>> {
        let answer = Request::new(Command::ListVersions, &[]).send(&self.0)?;
        Ok(targets(answer.data()))
    }

    /// Returns the description of a device, with its active table.
    pub fn device(&self, name: &str) -> Result<Device> {
        let answer = self.tell(name, Command::TableStatus, Flags::STATUS_TABLE)?;
        let flags = answer.flags();
        Ok(Device {
            name: name.to_string(),
            number: answer.number(),
            uuid: answer.uuid(),
            suspended: flags.contains(Flags::SUSPEND),
            read_only: flags.contains(Flags::READONLY),
            staged: flags.contains(Flags::INACTIVE_PRESENT),
            open: answer.open_count() != 0,
            table: answer.lines(),
        })
    }

    /// Returns the status of a device, or its table if `flags` has [`Flags::STATUS_TABLE`].
    pub fn lines(&self, name: &str, flags: Flags) -> Result<Vec<Line>> {
        Ok(self.tell(name, Command::TableStatus, flags)?.lines())
    }

    /// Sends a message to the target at a device's first sector, and returns the answer if the
    /// target gives one.
    pub fn message(&self, name: &str, message: &str) -> Result<Option<String>> {
        let data = message_bytes(message);
        let request = Request::new(Command::TargetMsg, &[]);
        let answer = self.ask(
            name,
            Request {
                data: &data,
                ..request
            },
        )?;
        let has_data = answer.flags().contains(Flags::DATA_OUT);
        Ok(has_data.then(|| text_at(answer.data(), 0)))
    }

    /// Creates a device without a table, and returns its number. The name is used as it stands,
    /// with escapes. If `uuid` is empty, the device has no UUID. Fails with `EBUSY` if the name or
    /// the UUID is taken.
    pub fn create(&self, name: &str, uuid: &str) -> Result<Number> {
        let request = Request::new(Command::DevCreate, name.as_bytes());
        let answer = Request { uuid, ..request }.send(&self.0)?;
        Ok(answer.number())
    }

    /// Loads a table, which becomes the active one when the device is resumed.
    pub fn load(&self, name: &str, table: &[Line], flags: Flags) -> Result<()> {
        let data = table::to_bytes(table)?;
        let request = Request {
            flags,
            lines: table.len() as u32,
            data: &data,
            ..Request::new(Command::TableLoad, &[])
        };
        self.ask(name, request).map(drop)
    }

    /// Discards the table that is loaded and not active, if there is one.
    pub fn clear(&self, name: &str) -> Result<()> {
        self.tell(name, Command::TableClear, Flags::NONE).map(drop)
    }

    /// Suspends a device. Freezes the file system on it, unless `flags` has [`Flags::SKIP_LOCKFS`]
    /// or [`Flags::NOFLUSH`], and waits for its I/O, unless `flags` has [`Flags::NOFLUSH`].
    pub fn suspend(&self, name: &str, flags: Flags) -> Result<()> {
        self.tell(name, Command::DevSuspend, flags | Flags::SUSPEND)
            .map(drop)
    }

    /// Makes the loaded table the active one, if there is one, and resumes the device. To replace
    /// the table, the kernel first suspends a device that isn't suspended; if this fails, the
    /// device is as before.
    pub fn resume(&self, name: &str, flags: Flags) -> Result<()> {
        self.tell(name, Command::DevSuspend, flags).map(drop)
    }

    /// Removes a device. Tries for five seconds while the device is in use, and then fails with
    /// `EBUSY`.
    pub fn remove(&self, name: &str, flags: Flags) -> Result<()> {
        let end = Instant::now() + REMOVAL;
        loop {
            match self.tell(name, Command::DevRemove, flags) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                    sleep(PAUSE);
                }
                result => return result.map(drop),
            }
        }
    }
}

/// Returns the data of a message: the number of the first sector, whose target gets the message,
/// and the text.
fn message_bytes(message: &str) -> Vec<u8> {
    let mut data = 0u64.to_ne_bytes().to_vec();
    data.extend(message.as_bytes());
    data.push(0);
    data
}

/// Parses the answer to [`Command::ListDevices`].
fn names(data: &[u8]) -> Vec<(String, Number)> {
    let (mut at, mut devices) = (0, Vec::new());
    loop {
        let packed = u64_at(data, at + offset_of!(NameList, dev));
        if packed == 0 {
            return devices; // An empty list is one entry of zeroes.
        }
        devices.push((escaped(bytes_at(data, at + NAME_LIST_NAME)), number(packed)));
        match u32_at(data, at + offset_of!(NameList, next)) {
            0 => return devices,
            next => at += next as usize,
        }
    }
}

/// Parses the answer to [`Command::ListVersions`].
fn targets(data: &[u8]) -> Vec<(String, Version)> {
    let (mut at, mut targets) = (0, Vec::new());
    loop {
        let part =
            |index: usize| u32_at(data, at + offset_of!(TargetVersions, version) + 4 * index);
        let name = text_at(data, at + size_of::<TargetVersions>());
        targets.push((name, (part(0), part(1), part(2))));
        match u32_at(data, at + offset_of!(TargetVersions, next)) {
            0 => return targets,
            next => at += next as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an entry of a list: `fields`, then `name`, padded with zeroes to `length` bytes.
    fn entry(fields: &[u8], name: &[u8], length: usize) -> Vec<u8> {
        let mut bytes = [fields, name, &[0]].concat();
        bytes.resize(length, 0);
        bytes
    }

    #[test]
    fn devices_are_listed() {
        let fields = |minor: u64, next: u32| {
            [&(253 << 8 | minor).to_ne_bytes()[..], &next.to_ne_bytes()].concat()
        };
        let first = entry(&fields(3, 24), b"c1", 24);
        let list = [first, entry(&fields(4, 0), b"\xff", 24)].concat();
        let devices = [("c1".into(), (253, 3)), ("\\xff".into(), (253, 4))];
        assert_eq!(names(&list), devices);
        assert_eq!(names(&list[..24]), devices[..1]);
        assert!(names(&[0; 24]).is_empty());
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn targets_are_listed() {
        let fields = |next: u32, major: u32| {
            let words = [next, major, 2, 3];
            words.map(u32::to_ne_bytes).concat()
        };
        let first = entry(&fields(24, 1), b"thin", 24);
        let list = [first, entry(&fields(0, 9), b"drr", 24)].concat();
        let wanted = [("thin".into(), (1, 2, 3)), ("drr".into(), (9, 2, 3))];
        assert_eq!(targets(&list), wanted);
    }

    #[test]
    fn messages_are_for_the_first_sector() {
        assert_eq!(message_bytes("layers"), b"\0\0\0\0\0\0\0\0layers\0");
    }
}
