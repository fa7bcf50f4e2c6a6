// SPDX-License-Identifier: GPL-2.0

//! The requests: what a program can ask of device-mapper, and tell it to do.
//!
//! Each error is the kernel's, with its number, and says nothing of the device: callers know its
//! name. A device is named as [`name`](crate::name) writes it.

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

/// What takes requests.
const PATH: &str = "/dev/mapper/control";
/// How long a device may be in use that is to be removed: what has it open for a moment, as udev's
/// rules do, may be slow to let go of it.
const REMOVAL: Duration = Duration::from_secs(5);
/// How long to wait between two tries to remove a device.
const PAUSE: Duration = Duration::from_millis(50);

/// What the kernel says of a device.
#[derive(Clone, Debug, Default)]
pub struct Device {
    pub name: String,
    pub number: Number,
    /// Empty if it has none.
    pub uuid: String,
    pub suspended: bool,
    pub read_only: bool,
    /// A table is loaded, and not active yet.
    pub staged: bool,
    pub open: bool,
    /// The active one.
    pub table: Vec<Line>,
}

/// Device-mapper, open for requests.
pub struct Control(File);

impl Control {
    /// Opens device-mapper's control device. Fails if the module isn't loaded, and for all but
    /// root.
    pub fn open() -> Result<Self> {
        File::open(PATH).map(Self)
    }

    /// Sends a request about a device. If no device has the name as it stands, but it is one with
    /// escapes, the request is about the device that has it without them.
    fn ask(&self, name: &str, request: Request<'_>) -> Result<Answer> {
        let answer = Request {
            name: name.as_bytes(),
            ..request
        }
        .send(&self.0);
        // without a number it is the crate's own: the name is too long
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

    /// The same, for a request that is no more than its command and its flags.
    fn tell(&self, name: &str, command: Command, flags: Flags) -> Result<Answer> {
        let request = Request::new(command, &[]);
        self.ask(name, Request { flags, ..request })
    }

    /// Lists the devices whose UUIDs begin with `uuid`: their names and numbers. The UUID of a
    /// device that has none is empty.
    pub fn devices(&self, uuid: &str) -> Result<Vec<(String, Number)>> {
        let request = Request::new(Command::ListDevices, &[]);
        let answer = Request { uuid, ..request }.send(&self.0)?;
        Ok(names(answer.data()))
    }

    /// Lists the names of the targets that are there.
    pub fn targets(&self) -> Result<Vec<String>> {
        let answer = Request::new(Command::ListVersions, &[]).send(&self.0)?;
        Ok(targets(answer.data()))
    }

    /// Returns a device with its active table.
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

    /// Returns the status of a device, or its table, as the flags say.
    pub fn lines(&self, name: &str, flags: Flags) -> Result<Vec<Line>> {
        Ok(self.tell(name, Command::TableStatus, flags)?.lines())
    }

    /// Sends a message to the target at a device's first sector, and returns its answer if it gives
    /// one.
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

    /// Makes a device that has no table yet, and returns its number. Fails with `EBUSY` if the name
    /// or the UUID is taken. The name is taken as it stands, and an empty UUID is none.
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

    /// Throws away a table that is loaded and not active.
    pub fn clear(&self, name: &str) -> Result<()> {
        self.tell(name, Command::TableClear, Flags::NONE).map(drop)
    }

    /// Suspends a device: waits for its I/O, and freezes the file system on it unless the flags say
    /// otherwise.
    pub fn suspend(&self, name: &str, flags: Flags) -> Result<()> {
        self.tell(name, Command::DevSuspend, flags | Flags::SUSPEND)
            .map(drop)
    }

    /// Makes a loaded table the active one, if there is one, and resumes. The kernel suspends a
    /// device for it that isn't suspended; if that fails the device is as before.
    pub fn resume(&self, name: &str, flags: Flags) -> Result<()> {
        self.tell(name, Command::DevSuspend, flags).map(drop)
    }

    /// Removes a device. Fails with `EBUSY` if it is still in use after five seconds.
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

/// Returns the data of a message: the sector whose target gets it, and the text.
fn message_bytes(message: &str) -> Vec<u8> {
    let mut data = 0u64.to_ne_bytes().to_vec();
    data.extend(message.as_bytes());
    data.push(0);
    data
}

/// Takes a list of devices apart.
fn names(data: &[u8]) -> Vec<(String, Number)> {
    let (mut at, mut devices) = (0, Vec::new());
    loop {
        let packed = u64_at(data, at + offset_of!(NameList, dev));
        if packed == 0 {
            return devices; // an empty list has one entry of zeroes
        }
        devices.push((escaped(bytes_at(data, at + NAME_LIST_NAME)), number(packed)));
        match u32_at(data, at + offset_of!(NameList, next)) {
            0 => return devices,
            next => at += next as usize,
        }
    }
}

/// Takes a list of targets apart.
fn targets(data: &[u8]) -> Vec<String> {
    let (mut at, mut names) = (0, Vec::new());
    loop {
        names.push(text_at(data, at + size_of::<TargetVersions>()));
        match u32_at(data, at + offset_of!(TargetVersions, next)) {
            0 => return names,
            next => at += next as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of a list: its fields, and where the next one is.
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
        let fields = |next: u32| [&next.to_ne_bytes()[..], &[0; 12]].concat();
        let first = entry(&fields(24), b"thin", 24);
        let list = [first, entry(&fields(0), b"drr", 24)].concat();
        assert_eq!(targets(&list), ["thin", "drr"]);
    }

    #[test]
    fn messages_are_for_the_first_sector() {
        assert_eq!(message_bytes("layers"), b"\0\0\0\0\0\0\0\0layers\0");
    }
}
