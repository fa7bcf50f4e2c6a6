// SPDX-License-Identifier: GPL-2.0

//! Device-mapper, by its ioctls: many times faster than a program for each step.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::Duration;

use crate::sys;

const CREATE: u64 = 3;
const REMOVE: u64 = 4;
const SUSPEND: u64 = 6;
const LOAD: u64 = 9;
const STATUS: u64 = 12;
const MESSAGE: u64 = 14;

/// Suspends instead of resuming.
const SUSPENDED: u32 = 1 << 1;
/// Without freezing the file system.
const SKIP_LOCKFS: u32 = 1 << 10;
/// The status without a commit.
const NOFLUSH: u32 = 1 << 11;

/// `struct dm_ioctl` of linux/dm-ioctl.h, and what follows it.
#[repr(C)]
pub struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    rest: [u8; 7],
    data: [u8; 16384],
}

const HEADER: usize = 312;
/// `struct dm_target_spec`
const SPEC: usize = 40;

fn ask(command: u64, name: &str, flags: u32, fill: impl FnOnce(&mut Request)) -> Result<Request> {
    let mut request = Request {
        version: [4, 0, 0],
        data_size: size_of::<Request>() as u32,
        data_start: HEADER as u32,
        target_count: 0,
        open_count: 0,
        flags,
        event: 0,
        padding: 0,
        device: 0,
        name: [0; 128],
        uuid: [0; 129],
        rest: [0; 7],
        data: [0; 16384],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    fill(&mut request);
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/mapper/control")?;
    sys::device_mapper(&control, command, HEADER, &mut request)?;
    Ok(request)
}

fn explain<T>(what: &str, name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::new(error.kind(), format!("{what} {name}: {error}")))
}

/// Makes a device and activates it; its node is a link in /dev/mapper.
pub fn create(name: &str, table: &str) -> Result<()> {
    let made = explain("create", name, ask(CREATE, name, 0, |_| ()))?;
    let minor = (made.device & 0xff) | ((made.device >> 12) & 0xf_ff00);
    let result = load(name, table).and_then(|()| resume(name));
    if result.is_err() {
        let _ = ask(REMOVE, name, 0, |_| ());
        return result;
    }
    let link = format!("/dev/mapper/{name}");
    let _ = fs::remove_file(&link);
    symlink(format!("../dm-{minor}"), link)
}

/// Removes a device. Its last closer may be slow to let go of it.
pub fn remove(name: &str) -> Result<()> {
    for _ in 0..100 {
        match ask(REMOVE, name, 0, |_| ()) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            result => {
                explain("remove", name, result)?;
                return fs::remove_file(format!("/dev/mapper/{name}"));
            }
        }
        sleep(Duration::from_millis(50));
    }
    Err(Error::other(format!(
        "remove {name}: still in use after 5 s"
    )))
}

/// Loads a table, a line of `START LENGTH TARGET ARGUMENTS` for each target, to be active from the next resume on.
pub fn load(name: &str, table: &str) -> Result<()> {
    let mut targets = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [start, length, target, arguments] = words[..] else {
            return Err(Error::other(format!("odd table: {line}")));
        };
        let number = |text: &str| text.parse::<u64>().map_err(Error::other);
        targets.push((number(start)?, number(length)?, target, arguments));
    }
    let result = ask(LOAD, name, 0, |request| {
        request.target_count = targets.len() as u32;
        let mut data = &mut request.data[..];
        for (start, length, target, arguments) in targets {
            let end = (SPEC + arguments.len() + 1).next_multiple_of(8);
            data[..8].copy_from_slice(&start.to_ne_bytes());
            data[8..16].copy_from_slice(&length.to_ne_bytes());
            data[20..24].copy_from_slice(&(end as u32).to_ne_bytes());
            data[24..24 + target.len()].copy_from_slice(target.as_bytes());
            data[SPEC..SPEC + arguments.len()].copy_from_slice(arguments.as_bytes());
            data = &mut data[end..];
        }
    });
    explain("load", &format!("{name} with {table}"), result)?;
    Ok(())
}

/// Suspends a device; `lockfs` freezes the file system.
pub fn suspend(name: &str, lockfs: bool) -> Result<()> {
    let flags = SUSPENDED | if lockfs { 0 } else { SKIP_LOCKFS };
    explain("suspend", name, ask(SUSPEND, name, flags, |_| ()))?;
    Ok(())
}

/// Resumes a device, with the table that was loaded, if any.
pub fn resume(name: &str) -> Result<()> {
    explain("resume", name, ask(SUSPEND, name, 0, |_| ()))?;
    Ok(())
}

/// What the target says of itself.
pub fn status(name: &str, flush: bool) -> Result<String> {
    let flags = if flush { 0 } else { NOFLUSH };
    let answer = explain("status", name, ask(STATUS, name, flags, |_| ()))?;
    let text = &answer.data[answer.data_start as usize - HEADER + SPEC..];
    let end = text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// Sends a message to the target.
pub fn message(name: &str, text: &str) -> Result<()> {
    let result = ask(MESSAGE, name, 0, |request| {
        // its first word is a sector
        request.data[8..8 + text.len()].copy_from_slice(text.as_bytes());
    });
    explain("message", &format!("{name} {text}"), result)?;
    Ok(())
}
