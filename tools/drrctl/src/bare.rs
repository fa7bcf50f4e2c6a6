// SPDX-License-Identifier: GPL-2.0

//! Device-mapper by its own ioctls, for systems where no udev runs: the `devicemapper` crate
//! refuses every request there. Also for devices with names that aren't ASCII, for which the crate
//! has no type. Only what drrctl needs.
//!
//! Such a name is written with an escape for each byte that isn't ASCII, as libdm does: `\xc3\xbc`.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

use devicemapper::DmFlags;

use crate::control::{Device, Line};

const VERSION: u32 = 0;
const LIST: u32 = 2;
const CREATE: u32 = 3;
const REMOVE: u32 = 4;
const SUSPEND: u32 = 6;
const LOAD: u32 = 9;
const CLEAR: u32 = 10;
const STATUS: u32 = 12;
const VERSIONS: u32 = 13;
const MESSAGE: u32 = 14;

/// Offsets in `struct dm_ioctl` of linux/dm-ioctl.h, and its size.
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const COUNT: usize = 20;
const OPEN: usize = 24;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME: usize = 48;
const UUID: usize = 176;
const HEADER: usize = 312;
/// Room for a name and for a UUID, each with its zero.
const NAME_ROOM: usize = 128;
const UUID_ROOM: usize = 129;
/// Of `struct dm_target_spec`.
const SPEC: usize = 40;

pub struct Bare(File);

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(part) = bytes.get(at..at + 4) {
        word.copy_from_slice(part);
    }
    u32::from_ne_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(part) = bytes.get(at..at + 8) {
        word.copy_from_slice(part);
    }
    u64::from_ne_bytes(word)
}

/// The bytes there, up to their zero.
fn bytes_at(bytes: &[u8], at: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0);
    &rest[..end.unwrap_or(rest.len())]
}

/// The same as a text.
fn text_at(bytes: &[u8], at: usize) -> String {
    String::from_utf8_lossy(bytes_at(bytes, at)).into_owned()
}

/// A name as it is shown.
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        match byte {
            0..=0x7f => text.push(char::from(*byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text
}

/// The name that is shown so, if that isn't the name itself: libdm escapes what it gives names, too.
fn unescaped(name: &str) -> Option<Vec<u8>> {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next()?.as_bytes().to_vec();
    let mut found = false;
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(|code| *code > 0x7f) {
            Some(code) => {
                bytes.push(code);
                bytes.extend(&part.as_bytes()[2..]);
                found = true;
            }
            None => {
                bytes.extend(b"\\x");
                bytes.extend(part.as_bytes());
            }
        }
    }
    found.then_some(bytes)
}

/// Whether a name may be one that isn't ASCII.
pub fn is_odd(name: &str) -> bool {
    unescaped(name).is_some()
}

/// Major and minor as the kernel packs them.
fn device(number: u64) -> (u32, u32) {
    let number = number as u32;
    (
        (number & 0xf_ff00) >> 8,
        (number & 0xff) | ((number >> 12) & 0xf_ff00),
    )
}

/// The answer: its header, and its data.
struct Answer(Vec<u8>);

impl Answer {
    fn data(&self) -> &[u8] {
        let start = u32_at(&self.0, DATA_START) as usize;
        self.0.get(start..).unwrap_or_default()
    }

    fn flags(&self) -> DmFlags {
        DmFlags::from_bits_truncate(u32_at(&self.0, FLAGS))
    }

    fn lines(&self) -> Vec<Line> {
        let (data, mut at, mut lines) = (self.data(), 0, Vec::new());
        for _ in 0..u32_at(&self.0, COUNT) {
            lines.push(Line {
                start: u64_at(data, at),
                length: u64_at(data, at + 8),
                target: text_at(&data[..data.len().min(at + SPEC)], at + 24),
                arguments: text_at(data, at + SPEC).trim_end().to_string(),
            });
            at = u32_at(data, at + 20) as usize; // from the beginning
        }
        lines
    }
}

/// What a request is about: a device by its name. Only a new one has a UUID in its request, and a
/// list, which is of those that begin so.
#[derive(Clone, Copy, Default)]
struct About<'a> {
    name: &'a [u8],
    uuid: &'a str,
}

impl<'a> From<&'a str> for About<'a> {
    fn from(name: &'a str) -> Self {
        let name = name.as_bytes();
        Self { name, uuid: "" }
    }
}

fn put_text(buffer: &mut [u8], at: usize, text: &[u8], room: usize) {
    let text = &text[..text.len().min(room - 1)];
    buffer[at..at + text.len()].copy_from_slice(text);
}

impl Bare {
    pub fn new() -> Result<Self> {
        File::open("/dev/mapper/control").map(Self)
    }

    fn ask(
        &self,
        command: u32,
        about: About<'_>,
        flags: DmFlags,
        count: u32,
        data: &[u8],
    ) -> Result<Answer> {
        let answer = self.ask_as_is(command, about, flags, count, data);
        let unknown = matches!(&answer, Err(error) if error.raw_os_error() == Some(libc::ENXIO));
        match std::str::from_utf8(about.name).ok().and_then(unescaped) {
            Some(name) if unknown => {
                let name = name.as_slice();
                self.ask_as_is(command, About { name, ..about }, flags, count, data)
            }
            _ => answer,
        }
    }

    fn ask_as_is(
        &self,
        command: u32,
        about: About<'_>,
        flags: DmFlags,
        count: u32,
        data: &[u8],
    ) -> Result<Answer> {
        let mut size = (HEADER + data.len()).max(16384);
        loop {
            let mut buffer = vec![0; size];
            let mut put = |at: usize, value: u32| {
                buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            };
            put(VERSION as usize, 4);
            put(DATA_SIZE, size as u32);
            put(DATA_START, HEADER as u32);
            put(COUNT, count);
            put(FLAGS, flags.bits());
            put_text(&mut buffer, NAME, about.name, NAME_ROOM);
            put_text(&mut buffer, UUID, about.uuid.as_bytes(), UUID_ROOM);
            buffer[HEADER..HEADER + data.len()].copy_from_slice(data);
            let request = (3 << 30) | ((HEADER as u32) << 16) | (0xfd << 8) | command;
            // SAFETY: the buffer is as long as it says
            let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, buffer.as_mut_ptr()) };
            if rc != 0 {
                return Err(Error::last_os_error());
            }
            let answer = Answer(buffer);
            if !answer.flags().contains(DmFlags::DM_BUFFER_FULL) {
                return Ok(answer);
            }
            size = size
                .checked_mul(2)
                .filter(|size| *size <= 1 << 30)
                .ok_or_else(|| Error::other("the answer is too long"))?;
        }
    }

    /// All devices whose UUIDs begin so; those that have none have an empty one.
    pub fn list(&self, uuid: &str) -> Result<Vec<(String, (u32, u32))>> {
        let about = About { name: &[], uuid };
        let answer = self.ask(LIST, about, DmFlags::empty(), 0, &[])?;
        let (data, mut at, mut devices) = (answer.data(), 0, Vec::new());
        loop {
            let number = u64_at(data, at);
            if number == 0 {
                return Ok(devices); // none at all
            }
            devices.push((escaped(bytes_at(data, at + 12)), device(number)));
            match u32_at(data, at + 8) {
                0 => return Ok(devices),
                next => at += next as usize,
            }
        }
    }

    pub fn targets(&self) -> Result<Vec<String>> {
        let answer = self.ask(VERSIONS, About::default(), DmFlags::empty(), 0, &[])?;
        let (data, mut at, mut names) = (answer.data(), 0, Vec::new());
        loop {
            names.push(text_at(data, at + 16));
            match u32_at(data, at) {
                0 => return Ok(names),
                next => at += next as usize,
            }
        }
    }

    pub fn lines(&self, name: &str, flags: DmFlags) -> Result<Vec<Line>> {
        Ok(self.ask(STATUS, name.into(), flags, 0, &[])?.lines())
    }

    /// A device with its table.
    pub fn device(&self, name: &str) -> Result<Device> {
        let answer = self.ask(STATUS, name.into(), DmFlags::DM_STATUS_TABLE, 0, &[])?;
        let flags = answer.flags();
        Ok(Device {
            name: name.to_string(),
            number: device(u64_at(&answer.0, DEVICE)),
            uuid: text_at(&answer.0[..HEADER], UUID),
            suspended: flags.contains(DmFlags::DM_SUSPEND),
            read_only: flags.contains(DmFlags::DM_READONLY),
            staged: flags.contains(DmFlags::DM_INACTIVE_PRESENT),
            open: u32_at(&answer.0, OPEN) != 0,
            table: answer.lines(),
        })
    }

    pub fn message(&self, name: &str, message: &str) -> Result<Option<String>> {
        let mut data = vec![0; 8];
        data.extend(message.as_bytes());
        data.push(0);
        let answer = self.ask(MESSAGE, name.into(), DmFlags::empty(), 0, &data)?;
        let has_data = answer.flags().contains(DmFlags::DM_DATA_OUT);
        Ok(has_data.then(|| text_at(answer.data(), 0)))
    }

    /// The new device's numbers.
    pub fn create(&self, name: &str, uuid: &str) -> Result<(u32, u32)> {
        let name = name.as_bytes();
        let answer = self.ask(CREATE, About { name, uuid }, DmFlags::empty(), 0, &[])?;
        Ok(device(u64_at(&answer.0, DEVICE)))
    }

    pub fn load(&self, name: &str, line: &Line, flags: DmFlags) -> Result<()> {
        let mut data = vec![0; SPEC];
        data[..8].copy_from_slice(&line.start.to_ne_bytes());
        data[8..16].copy_from_slice(&line.length.to_ne_bytes());
        let target = &line.target.as_bytes()[..line.target.len().min(15)];
        data[24..24 + target.len()].copy_from_slice(target);
        data.extend(line.arguments.as_bytes());
        data.push(0);
        data.resize(data.len().next_multiple_of(8), 0);
        let next = (data.len() as u32).to_ne_bytes();
        data[20..24].copy_from_slice(&next);
        self.ask(LOAD, name.into(), flags, 1, &data).map(|_| ())
    }

    /// Makes a loaded table the active one, if there is one, and resumes.
    pub fn resume(&self, name: &str, flags: DmFlags) -> Result<()> {
        self.ask(SUSPEND, name.into(), flags, 0, &[]).map(|_| ())
    }

    /// Throws a loaded table away.
    pub fn clear(&self, name: &str) -> Result<()> {
        self.ask(CLEAR, name.into(), DmFlags::empty(), 0, &[])
            .map(|_| ())
    }

    /// What has it open for a moment may be slow to let go of it.
    pub fn remove(&self, name: &str, flags: DmFlags) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.ask(REMOVE, name.into(), flags, 0, &[]) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < 25 => {}
                result => return result.map(|_| ()),
            }
            tries += 1;
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_escaped() {
        for (name, shown) in [
            (&b"vg-lv"[..], "vg-lv"),
            (b"\xc3\xbc-1", "\\xc3\\xbc-1"),
            (b"\xff", "\\xff"),
        ] {
            assert_eq!(escaped(name), shown);
            assert_eq!(unescaped(shown).is_some(), !name.is_ascii());
            assert_eq!(unescaped(shown).unwrap_or(name.to_vec()), name);
        }
        for ordinary in ["a\\x20b", "\\x", "\\xg0", "\\x\u{fc}", ""] {
            assert!(!is_odd(ordinary), "{ordinary}");
        }
    }
}
