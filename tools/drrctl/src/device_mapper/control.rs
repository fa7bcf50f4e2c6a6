// SPDX-License-Identifier: GPL-2.0

//! Device-mapper, with errors that tell the user what to do.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use drr_dm::{Device, Flags, Line, Number};

use crate::device_mapper::requests::{Asked, Audience, Failed, Requests};
use crate::device_mapper::with_udev::{udev_runs, WithUdev};
use crate::device_mapper::without_udev::WithoutUdev;
use crate::error::{Code, Error, Result};

pub struct Control(Box<dyn Requests>);

pub fn not_permitted() -> Error {
    Error::new(
        Code::NotPermitted,
        "device-mapper",
        "only root may use it",
        "run this as root, e.g. with sudo",
    )
}

pub fn not_loaded() -> Error {
    Error::new(
        Code::NotLoaded,
        "dm-drr",
        "the module is not loaded",
        "modprobe dm-drr",
    )
}

pub fn explain(device: &str, doing: &str, error: &Failed) -> Error {
    let (code, why, remedy) = match error.number {
        Some(libc::ENXIO | libc::ENODEV | libc::ENOENT) => (
            Code::NotThere,
            "there is no such device-mapper device".to_string(),
            "'drrctl list' shows the drr devices, 'dmsetup ls' all",
        ),
        Some(libc::EPERM | libc::EACCES) => return not_permitted(),
        Some(libc::EBUSY) => (
            Code::InUse,
            format!("can't {doing} it, as it is in use"),
            "unmount it, and close what has it open",
        ),
        Some(number) => (
            Code::Failed,
            format!(
                "can't {doing} it: {}",
                std::io::Error::from_raw_os_error(number)
            ),
            "the kernel log may say more: dmesg",
        ),
        None => (
            Code::Failed,
            format!("can't {doing} it: {}", error.text),
            "the kernel log may say more: dmesg",
        ),
    };
    Error::new(code, device, why, remedy)
}

/// Refuses a name that no device can have.
fn check_name(name: &str) -> Result<()> {
    match name.is_ascii() && (1..128).contains(&name.len()) {
        true => Ok(()),
        false => Err(Error::new(
            Code::Usage,
            format!("'{name}'"),
            "no device can have this name",
            "use 1 to 127 ASCII characters",
        )),
    }
}

/// What has the nodes of devices, by their names.
pub const FOLDER: &str = "/dev/mapper";

pub fn node(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

impl Control {
    pub fn new() -> Result<Self> {
        // the crate keeps the text of this error only
        match File::open("/dev/mapper/control") {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(not_permitted())
            }
            Err(error) => {
                return Err(Error::new(
                    Code::NotLoaded,
                    "/dev/mapper/control",
                    error.to_string(),
                    "modprobe dm-mod",
                ))
            }
            Ok(_) => {}
        }
        let opened = match udev_runs() {
            true => WithUdev::new().map(|way| Self(Box::new(way))),
            false => WithoutUdev::new().map(|way| Self(Box::new(way))),
        };
        opened.map_err(|error| explain("device-mapper", "open", &error))
    }

    pub fn drr_loaded(&self) -> Result<bool> {
        let targets = self
            .0
            .targets()
            .map_err(|error| explain("device-mapper", "ask", &error))?;
        Ok(targets.iter().any(|name| name == "drr"))
    }

    /// Names and numbers of all device-mapper devices.
    pub fn devices(&self) -> Result<Vec<(String, Number)>> {
        self.list("")
    }

    /// Are there devices whose UUIDs begin so?
    pub fn has_uuid(&self, prefix: &str) -> Result<bool> {
        self.list(prefix).map(|devices| !devices.is_empty())
    }

    fn list(&self, uuid: &str) -> Result<Vec<(String, Number)>> {
        self.0
            .devices(uuid)
            .map_err(|error| explain("device-mapper", "list", &error))
    }

    /// A device with its active table.
    pub fn device(&self, name: &str) -> Result<Device> {
        check_name(name)?;
        self.0
            .device(name)
            .map_err(|error| explain(name, "ask", &error))
    }

    /// A table that is loaded and not active; empty if there is none.
    pub fn staged(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(name, Flags::STATUS_TABLE | Flags::QUERY_INACTIVE_TABLE)
    }

    /// Without a commit of the pool's metadata.
    pub fn status(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(name, Flags::NOFLUSH)
    }

    fn lines(&self, name: &str, flags: Flags) -> Result<Vec<Line>> {
        check_name(name)?;
        self.0
            .lines(name, flags)
            .map_err(|error| explain(name, "ask", &error))
    }

    /// Sends a message; its answer, if there is one.
    pub fn message(&self, name: &str, message: &str) -> Result<Option<String>> {
        check_name(name)?;
        self.0
            .message(name, message)
            .map_err(|error| match error.number {
                Some(libc::EINVAL) => Error::new(
                    Code::Failed,
                    name,
                    format!("dm-drr does not take the message '{message}'"),
                    "load the module that drrctl came with; the kernel log may say more: dmesg",
                ),
                _ => explain(name, "ask", &error),
            })
    }

    /// A message that has an answer.
    pub fn ask(&self, name: &str, message: &str) -> Result<String> {
        self.message(name, message)?.ok_or_else(|| {
            Error::new(
                Code::Failed,
                name,
                format!("no answer to the message '{message}'"),
                "load the module that drrctl came with",
            )
        })
    }

    /// Makes a device of one line and activates it; takes it away again if that fails.
    pub fn create(&self, name: &str, line: &Line) -> Result<()> {
        let (_, minor) = self.make(name, "")?.ok_or_else(|| {
            Error::new(
                Code::InUse,
                name,
                "there is a device with this name already",
                "choose another name, or remove that one",
            )
        })?;
        let activated = self.load(name, line, false).and_then(|()| {
            self.resume(name, Flags::NONE, Audience::All)
                .map_err(|error| explain(name, "activate", &error))
        });
        if let Err(error) = activated {
            let _ = self.0.remove(name, Flags::NONE);
            return Err(error);
        }
        link(name, minor);
        Ok(())
    }

    /// A new device without a table, and its numbers; `None` if the name or the UUID is taken.
    pub fn make(&self, name: &str, uuid: &str) -> Result<Option<Number>> {
        check_name(name)?;
        match self.0.create(name, uuid) {
            Ok(number) => Ok(Some(number)),
            Err(error) if error.number == Some(libc::EBUSY) => Ok(None),
            Err(error) => Err(explain(name, "create", &error)),
        }
    }

    /// Loads a table of one line; it isn't active before the device is resumed.
    pub fn load(&self, name: &str, line: &Line, read_only: bool) -> Result<()> {
        check_name(name)?;
        let flags = match read_only {
            true => Flags::READONLY,
            false => Flags::NONE,
        };
        let log = KernelLog::from_now();
        let Err(error) = self.0.load(name, line, flags) else {
            return Ok(());
        };
        if line.target == "drr" && !self.drr_loaded()? {
            return Err(not_loaded());
        }
        Err(match log.reason(&line.target) {
            Some(why) => Error::new(
                Code::Failed,
                name,
                format!("dm-{} refuses: {why}", line.target),
                match line.target.as_str() {
                    "drr" => "see Documentation/admin-guide/device-mapper/drr.rst",
                    _ => "look at its pool: dmsetup status --target thin-pool",
                },
            ),
            None => explain(name, "load a table into", &error),
        })
    }

    /// Makes the loaded table the active one, if there is one, and resumes. A device that isn't
    /// suspended is suspended for it, by the kernel; if that fails it's as before.
    pub fn resume(&self, name: &str, flags: Flags, audience: Audience) -> Asked<()> {
        self.0.resume(name, flags, audience)
    }

    /// Throws away a table that is loaded and not active.
    pub fn clear(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.0
            .clear(name)
            .map_err(|error| explain(name, "clear the loaded table of", &error))
    }

    /// Removes a device now, or when the last who has it open closes it.
    pub fn remove_later(&self, name: &str) -> Result<()> {
        self.take_away(name, Flags::DEFERRED_REMOVE)
    }

    fn take_away(&self, name: &str, flags: Flags) -> Result<()> {
        check_name(name)?;
        self.0
            .remove(name, flags)
            .map_err(|error| explain(name, "remove", &error))
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        self.take_away(name, Flags::NONE)?;
        // a node that udev made is gone by now, one that nobody looks after is not
        let path = node(name);
        if fs::read_link(&path).is_ok() && !path.exists() {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// Where no udev runs there is only /dev/dm-N, from devtmpfs.
fn link(name: &str, minor: u32) {
    let path = node(name);
    if !path.exists() {
        let _ = fs::remove_file(&path);
        let _ = symlink(format!("../dm-{minor}"), path);
    }
}

/// The kernel gives the reason of a refused table in its log only.
struct KernelLog(Option<File>);

impl KernelLog {
    fn from_now() -> Self {
        use std::io::{Seek, SeekFrom};
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .ok();
        if let Some(log) = &mut file {
            if log.seek(SeekFrom::End(0)).is_err() {
                file = None;
            }
        }
        Self(file)
    }

    /// The last word of the target since then.
    fn reason(self, target: &str) -> Option<String> {
        use std::io::Read;
        let mut log = self.0?;
        let mut last = None;
        let mut record = vec![0; 8192];
        // one record at a time, until there is no more
        while let Ok(length @ 1..) = log.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]);
            if let Some(reason) = reason_of(&text, target) {
                last = Some(reason);
            }
        }
        last
    }
}

/// `PREFIX;device-mapper: table: 253:5: drr: TEXT (-EINVAL)`
fn reason_of(record: &str, target: &str) -> Option<String> {
    let line = record.split_once(';')?.1.lines().next()?;
    let (head, text) = line.split_once(&format!(": {target}: "))?;
    head.starts_with("device-mapper: table:")
        .then(|| text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_in_the_kernel_log() {
        let record = "4,1234,5678,-;device-mapper: table: 253:5: drr: Target is too long (-EINVAL)\n SUBSYSTEM=x\n";
        assert_eq!(
            reason_of(record, "drr").as_deref(),
            Some("Target is too long (-EINVAL)")
        );
        assert_eq!(reason_of(record, "thin"), None);
        assert_eq!(reason_of("4,1;other: drr: text", "drr"), None);
        assert_eq!(reason_of("odd", "drr"), None);
    }

    #[test]
    fn names() {
        assert!(check_name("c1").is_ok());
        assert!(check_name(&"x".repeat(127)).is_ok());
        for name in ["", "\u{fc}", &"x".repeat(128)] {
            let error = check_name(name).expect_err("no name");
            assert_eq!(error.code, Code::Usage);
        }
    }
}
