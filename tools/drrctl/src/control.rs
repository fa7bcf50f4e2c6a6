// SPDX-License-Identifier: GPL-2.0

//! Device-mapper, through the `devicemapper` crate, with errors that tell the user what to do.
//!
//! The crate asks again with a larger buffer when an answer is too long, for messages, too, and
//! tries for five seconds to remove a device that is in use. What it doesn't do: nodes in
//! /dev/mapper where no udev runs.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use devicemapper::{DevId, Device, DmError, DmFlags, DmName, DmOptions, DM};

use crate::error::{Code, Error, Result};

/// One line of a table or a status.
#[derive(Clone, Debug)]
pub struct Line {
    pub start: u64,
    pub length: u64,
    pub target: String,
    pub arguments: String,
}

pub struct Control {
    dm: DM,
}

/// The number of the system's error, if that's what it was.
fn errno(error: &DmError) -> Option<i32> {
    match error {
        DmError::Core(devicemapper::errors::Error::Ioctl(_, _, _, errno)) => Some(**errno as i32),
        _ => None,
    }
}

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

fn explain(device: &str, doing: &str, error: &DmError) -> Error {
    let (code, why, remedy) = match errno(error) {
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
            format!("can't {doing} it: {error}"),
            "the kernel log may say more: dmesg",
        ),
    };
    Error::new(code, device, why, remedy)
}

/// The name as the crate takes it.
fn dm_name(name: &str) -> Result<&DmName> {
    DmName::new(name).map_err(|_| {
        Error::new(
            Code::Usage,
            format!("'{name}'"),
            "no device can have this name",
            "use 1 to 127 ASCII characters",
        )
    })
}

pub fn node(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
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
        let dm = DM::new().map_err(|error| explain("device-mapper", "open", &error))?;
        Ok(Self { dm })
    }

    pub fn drr_loaded(&self) -> Result<bool> {
        let targets = self
            .dm
            .list_versions()
            .map_err(|error| explain("device-mapper", "ask", &error))?;
        Ok(targets.iter().any(|(name, ..)| name == "drr"))
    }

    /// Names and numbers (major, minor) of all device-mapper devices.
    pub fn devices(&self) -> Result<Vec<(String, (u32, u32))>> {
        let devices = self
            .dm
            .list_devices()
            .map_err(|error| explain("device-mapper", "list", &error))?;
        Ok(devices
            .into_iter()
            .map(|(name, device, _)| (name.to_string(), (device.major, device.minor)))
            .collect())
    }

    pub fn table(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(name, DmFlags::DM_STATUS_TABLE)
    }

    /// Without a commit of the pool's metadata.
    pub fn status(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(name, DmFlags::DM_NOFLUSH)
    }

    fn lines(&self, name: &str, flags: DmFlags) -> Result<Vec<Line>> {
        let options = DmOptions::default().set_flags(flags);
        let (_, lines) = self
            .dm
            .table_status(&DevId::Name(dm_name(name)?), options)
            .map_err(|error| explain(name, "ask", &error))?;
        Ok(lines
            .into_iter()
            .map(|(start, length, target, arguments)| Line {
                start,
                length,
                target,
                arguments,
            })
            .collect())
    }

    /// Sends a message; its answer, if there is one.
    pub fn message(&self, name: &str, message: &str) -> Result<Option<String>> {
        let (_, answer) = self
            .dm
            .target_msg(&DevId::Name(dm_name(name)?), None, message)
            .map_err(|error| match errno(&error) {
                Some(libc::EINVAL) => Error::new(
                    Code::Failed,
                    name,
                    format!("dm-drr does not take the message '{message}'"),
                    "load the module that drrctl came with; the kernel log may say more: dmesg",
                ),
                _ => explain(name, "ask", &error),
            })?;
        Ok(answer)
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
        let name_of = dm_name(name)?;
        let options = DmOptions::default;
        let made = self
            .dm
            .device_create(name_of, None, options())
            .map_err(|error| match errno(&error) {
                Some(libc::EBUSY) => Error::new(
                    Code::InUse,
                    name,
                    "there is a device with this name already",
                    "choose another name, or remove that one",
                ),
                _ => explain(name, "create", &error),
            })?;
        let id = DevId::Name(name_of);
        let table = [(
            line.start,
            line.length,
            line.target.clone(),
            line.arguments.clone(),
        )];
        let log = KernelLog::from_now();
        let activated = self
            .dm
            .table_load(&id, &table, options())
            .and_then(|_| self.dm.device_suspend(&id, options()));
        if let Err(error) = activated {
            let _ = self.dm.device_remove(&id, options());
            if !self.drr_loaded()? {
                return Err(not_loaded());
            }
            return Err(match log.reason(&line.target) {
                Some(why) => Error::new(
                    Code::Failed,
                    name,
                    format!("dm-{} refuses: {why}", line.target),
                    "see Documentation/admin-guide/device-mapper/drr.rst",
                ),
                None => explain(name, "activate", &error),
            });
        }
        link(name, made.device());
        Ok(())
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        self.dm
            .device_remove(&DevId::Name(dm_name(name)?), DmOptions::default())
            .map_err(|error| explain(name, "remove", &error))?;
        // a node that udev made is gone by now, one that nobody looks after is not
        let path = node(name);
        if fs::read_link(&path).is_ok() && !path.exists() {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// Where no udev runs there is only /dev/dm-N, from devtmpfs.
fn link(name: &str, device: Device) {
    let path = node(name);
    if !path.exists() {
        let _ = fs::remove_file(&path);
        let _ = symlink(format!("../dm-{}", device.minor), path);
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
        assert!(dm_name("c1").is_ok());
        assert_eq!(dm_name("").err().map(|e| e.code), Some(Code::Usage));
        assert!(dm_name(&"x".repeat(128)).is_err());
    }
}
