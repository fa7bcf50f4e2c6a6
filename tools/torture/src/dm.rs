// SPDX-License-Identifier: GPL-2.0

//! Requests to device-mapper through its ioctls: many times faster than running a program for each
//! step.

use std::fs;
use std::io::{Error, Result};
use std::os::unix::fs::symlink;

use drr_dm::{Control, Flags, Line};

/// Sends a request to device-mapper. An error says what was being done, and to which device.
fn ask<T>(what: &str, name: &str, request: impl FnOnce(&Control) -> Result<T>) -> Result<T> {
    Control::open()
        .and_then(|control| request(&control))
        .map_err(|error| Error::new(error.kind(), format!("{what} {name}: {error}")))
}

/// Creates and activates a device, and makes its link in /dev/mapper.
pub fn create(name: &str, table: &str) -> Result<()> {
    let (_, minor) = ask("create", name, |control| control.create(name, ""))?;
    let result = load(name, table).and_then(|()| resume(name));
    if result.is_err() {
        let _ = ask("remove", name, |control| control.remove(name, Flags::NONE));
        return result;
    }
    let link = format!("/dev/mapper/{name}");
    let _ = fs::remove_file(&link);
    symlink(format!("../dm-{minor}"), link)
}

/// Removes a device and its link.
pub fn remove(name: &str) -> Result<()> {
    ask("remove", name, |control| control.remove(name, Flags::NONE))?;
    fs::remove_file(format!("/dev/mapper/{name}"))
}

/// Loads a table, which becomes active when the device is resumed. The table has a line of
/// `START LENGTH TARGET ARGUMENTS` for each target.
pub fn load(name: &str, table: &str) -> Result<()> {
    let lines = table.lines().map(str::parse);
    let lines = lines.collect::<Result<Vec<Line>>>()?;
    ask("load", &format!("{name} with {table}"), |control| {
        control.load(name, &lines, Flags::NONE)
    })
}

/// Suspends a device. If `lockfs`, freezes the file system on it.
pub fn suspend(name: &str, lockfs: bool) -> Result<()> {
    let flags = match lockfs {
        true => Flags::NONE,
        false => Flags::SKIP_LOCKFS,
    };
    ask("suspend", name, |control| control.suspend(name, flags))
}

/// Resumes a device, with the loaded table if there is one.
pub fn resume(name: &str) -> Result<()> {
    ask("resume", name, |control| control.resume(name, Flags::NONE))
}

/// Returns the status of a device's first target. If `flush`, a pool commits its metadata first.
pub fn status(name: &str, flush: bool) -> Result<String> {
    let flags = match flush {
        true => Flags::NONE,
        false => Flags::NOFLUSH,
    };
    let lines = ask("status", name, |control| control.lines(name, flags))?;
    let first = lines.into_iter().next();
    Ok(first.map(|line| line.arguments).unwrap_or_default())
}

/// Sends a message to the target at a device's first sector.
pub fn message(name: &str, text: &str) -> Result<()> {
    ask("message", &format!("{name} {text}"), |control| {
        control.message(name, text).map(drop)
    })
}
