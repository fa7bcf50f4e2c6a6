// SPDX-License-Identifier: GPL-2.0

//! Requests to device-mapper, and their answers. All `unsafe` code of the crate is here.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::mem::offset_of;
use std::ops::BitOr;
use std::os::fd::AsRawFd;

use crate::layout::{text_at, u32_at, u64_at, Header};
use crate::table::{self, Line};
use crate::Number;

/// Version of the interface that the requests are written for. The kernel accepts its own major
/// version, with any minor version up to its own (`check_version()`).
const VERSION: [u32; 3] = [4, 0, 0];
/// The type of device-mapper's ioctls: `DM_IOCTL`.
const KIND: u32 = 0xfd;
/// Size of the header, in bytes.
const HEADER: usize = size_of::<Header>();
/// Room for a request and its answer at first, in bytes: most answers fit.
const ROOM: usize = 16384;
/// Most room for a request and its answer, in bytes: the most that the kernel accepts
/// (`copy_params()`).
const MOST_ROOM: usize = 1 << 30;

/// Flags of requests and answers. The kernel's names have the prefix `DM_` and the suffix `_FLAG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// No flags.
    pub const NONE: Self = Self(0);
    /// The device can't be written to.
    pub const READONLY: Self = Self(1 << 0);
    /// In a request, suspends the device instead of resuming it; in an answer, says that the device
    /// is suspended.
    pub const SUSPEND: Self = Self(1 << 1);
    /// Asks for the table instead of the status.
    pub const STATUS_TABLE: Self = Self(1 << 4);
    /// A table is loaded, and not active yet.
    pub const INACTIVE_PRESENT: Self = Self(1 << 6);
    /// The answer didn't have enough room.
    pub const BUFFER_FULL: Self = Self(1 << 8);
    /// Suspends without freezing the file system.
    pub const SKIP_LOCKFS: Self = Self(1 << 10);
    /// Suspends without waiting for I/O; asks for the status without a commit.
    pub const NOFLUSH: Self = Self(1 << 11);
    /// Asks for the table that is loaded and not active.
    pub const QUERY_INACTIVE_TABLE: Self = Self(1 << 12);
    /// The answer has data.
    pub const DATA_OUT: Self = Self(1 << 16);
    /// Removes the device when it is closed for the last time, if it is open.
    pub const DEFERRED_REMOVE: Self = Self(1 << 17);

    /// Returns the flags as the bits of the kernel's interface.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns whether all of the other flags are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The command of a request, numbered as in the enumeration that begins with `DM_VERSION_CMD`.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Command {
    ListDevices = 2,
    DevCreate = 3,
    DevRemove = 4,
    DevSuspend = 6,
    TableLoad = 9,
    TableClear = 10,
    TableStatus = 12,
    ListVersions = 13,
    TargetMsg = 14,
}

impl Command {
    /// Returns `_IOWR(DM_IOCTL, command, struct dm_ioctl)`.
    const fn code(self) -> libc::Ioctl {
        libc::_IOWR::<Header>(KIND, self as u32)
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub command: Command,
    /// The device's name; empty if the request is about no device.
    pub name: &'a [u8],
    /// The UUID of a new device, or the prefix of the UUIDs of the devices to list.
    pub uuid: &'a str,
    pub flags: Flags,
    /// Number of table lines in `data`.
    pub lines: u32,
    pub data: &'a [u8],
}

impl<'a> Request<'a> {
    /// Creates a request about the device `name`, or about no device if `name` is empty.
    pub fn new(command: Command, name: &'a [u8]) -> Self {
        Self {
            command,
            name,
            uuid: "",
            flags: Flags::NONE,
            lines: 0,
            data: &[],
        }
    }

    /// Encodes the request in a buffer of `room` bytes, in which the kernel will put the answer.
    /// `room` is at least the size of the header and the data. Fails with `InvalidInput` if the
    /// name or the UUID is too long.
    fn bytes(&self, room: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; room];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        for (place, number) in VERSION.into_iter().enumerate() {
            put(
                offset_of!(Header, version) + 4 * place,
                &number.to_ne_bytes(),
            );
        }
        // The kernel's numbers have 32 bits, into which `MOST_ROOM` fits.
        put(offset_of!(Header, data_size), &(room as u32).to_ne_bytes());
        put(
            offset_of!(Header, data_start),
            &(HEADER as u32).to_ne_bytes(),
        );
        put(offset_of!(Header, target_count), &self.lines.to_ne_bytes());
        put(offset_of!(Header, flags), &self.flags.bits().to_ne_bytes());
        let (name, uuid) = (self.name, self.uuid.as_bytes());
        // Each field has room for a zero after the text.
        for (what, text, at, room) in [
            ("name", name, offset_of!(Header, name), 127),
            ("UUID", uuid, offset_of!(Header, uuid), 128),
        ] {
            if text.len() > room {
                let long = format!("no device has a {what} of more than {room} bytes");
                return Err(Error::new(ErrorKind::InvalidInput, long));
            }
            put(at, text);
        }
        put(HEADER, self.data);
        Ok(bytes)
    }

    /// Sends the request, again and with twice the room as long as the answer doesn't fit. Fails
    /// with the kernel's error, and as [`Self::bytes`] does.
    pub fn send(&self, control: &File) -> Result<Answer> {
        let mut room = (HEADER + self.data.len()).max(ROOM);
        while room <= MOST_ROOM {
            let mut bytes = self.bytes(room)?;
            let code = self.command.code();
            // SAFETY: The kernel reads and writes at most `data_size` bytes, which is the length of
            // `bytes`.
            let result = unsafe { libc::ioctl(control.as_raw_fd(), code, bytes.as_mut_ptr()) };
            if result < 0 {
                return Err(Error::last_os_error());
            }
            let answer = Answer(bytes);
            if !answer.flags().contains(Flags::BUFFER_FULL) {
                return Ok(answer);
            }
            room *= 2;
        }
        Err(Error::other("the answer is too long"))
    }
}

/// The kernel's answer: a header and data.
pub struct Answer(Vec<u8>);

impl Answer {
    /// Returns the data, which follows the header.
    pub fn data(&self) -> &[u8] {
        let start = u32_at(&self.0, offset_of!(Header, data_start));
        self.0.get(start as usize..).unwrap_or_default()
    }

    /// Returns the flags, which tell the device's state and the kind of the answer.
    pub fn flags(&self) -> Flags {
        Flags(u32_at(&self.0, offset_of!(Header, flags)))
    }

    /// Returns how many times the device is open.
    pub fn open_count(&self) -> u32 {
        u32_at(&self.0, offset_of!(Header, open_count))
    }

    /// Returns the device's number.
    pub fn number(&self) -> Number {
        number(u64_at(&self.0, offset_of!(Header, dev)))
    }

    /// Returns the device's UUID, or an empty string if the device has none.
    pub fn uuid(&self) -> String {
        let header = &self.0[..HEADER.min(self.0.len())];
        text_at(header, offset_of!(Header, uuid))
    }

    /// Returns the lines of the answer to `TableStatus`.
    pub fn lines(&self) -> Vec<Line> {
        let count = u32_at(&self.0, offset_of!(Header, target_count));
        table::from_bytes(self.data(), count)
    }
}

/// Decodes a device's number that `new_encode_dev()` of linux/kdev_t.h has encoded.
pub fn number(packed: u64) -> Number {
    let packed = packed as u32;
    (
        (packed & 0xf_ff00) >> 8,
        (packed & 0xff) | ((packed >> 12) & 0xf_ff00),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out() {
        let request = Request {
            uuid: "DRR-1",
            flags: Flags::SKIP_LOCKFS | Flags::SUSPEND,
            lines: 2,
            data: b"data",
            ..Request::new(Command::DevSuspend, b"c1")
        };
        let bytes = request.bytes(400).expect("bytes");
        assert_eq!(bytes.len(), 400);
        let numbers: Vec<_> = (0..8).map(|place| u32_at(&bytes, 4 * place)).collect();
        assert_eq!(numbers, [4, 0, 0, 400, 312, 2, 0, 0x402]);
        assert_eq!(text_at(&bytes, 48), "c1");
        assert_eq!(text_at(&bytes, 176), "DRR-1");
        assert_eq!(&bytes[312..317], b"data\0");
        assert_eq!(Command::DevSuspend.code(), 0xc138_fd06);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let bytes = |name: &[u8], uuid: &str| {
            let request = Request::new(Command::DevCreate, name);
            Request { uuid, ..request }.bytes(ROOM).map(drop)
        };
        assert!(bytes(&[b'x'; 127], &"x".repeat(128)).is_ok());
        let error = bytes(&[b'x'; 128], "").expect_err("a long name");
        assert!(
            error.to_string().contains("name of more than 127"),
            "{error}"
        );
        assert!(bytes(b"x", &"x".repeat(129)).is_err());
    }

    #[test]
    fn answers_are_taken_apart() {
        let mut bytes = Request::new(Command::TableStatus, b"c1")
            .bytes(400)
            .expect("bytes");
        bytes[24..28].copy_from_slice(&3u32.to_ne_bytes());
        bytes[40..48].copy_from_slice(&0x12_3fd_45u64.to_ne_bytes());
        bytes[176..305].fill(b'u');
        bytes[312] = b'd';
        let answer = Answer(bytes);
        assert_eq!((answer.open_count(), answer.data().len()), (3, 88));
        assert_eq!(answer.number(), (0x3fd, 0x1245));
        // A text without a zero ends with the header.
        assert!(answer.uuid().len() <= 136);
        assert!(answer.lines().is_empty());
        let none = Answer(Vec::new());
        assert_eq!(
            (none.data(), none.uuid().as_str(), none.number()),
            (&[][..], "", (0, 0))
        );
    }
}
