// SPDX-License-Identifier: GPL-2.0

//! Requests to device-mapper, with errors that tell the user what to do.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use drr_dm::{Device, Flags, Line, Number, Version};

use crate::device_mapper::requests::{Asked, Audience, Failed, Requests};
use crate::device_mapper::with_udev::{udev_runs, WithUdev};
use crate::device_mapper::without_udev::WithoutUdev;
use crate::error::{Code, Error, Result};

/// The way to device-mapper for commands.
pub struct Control(Box<dyn Requests>);

/// Returns the error for users other than root.
pub fn not_permitted() -> Error {
    Error::new(
        Code::NotPermitted,
        "device-mapper",
        "only root may use it",
        "run this as root, e.g. with sudo",
    )
}

/// Returns the error for a module dm-drr that isn't loaded.
pub fn not_loaded() -> Error {
    Error::new(
        Code::NotLoaded,
        "dm-drr",
        "the module is not loaded",
        "modprobe dm-drr",
    )
}

/// Converts the error of a request about `device`. `doing` says what the request was to do, after
/// "can't".
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

/// Checks that a device can have this name. Fails with [`Code::Usage`].
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

/// The folder with the nodes of devices, or links to these, by the devices' names.
pub const FOLDER: &str = "/dev/mapper";

/// Returns the path of a device's node.
pub fn node(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

impl Control {
    /// Opens device-mapper. Fails with [`Code::NotPermitted`] for users other than root, and with
    /// [`Code::NotLoaded`] if dm-mod isn't loaded.
    pub fn new() -> Result<Self> {
        // The crate `devicemapper` keeps only the text of this error.
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

    /// Returns whether the target type drr is registered.
    pub fn drr_loaded(&self) -> Result<bool> {
        Ok(self.drr_version()?.is_some())
    }

    /// Returns the version of the target type drr; `None` if it isn't registered.
    pub fn drr_version(&self) -> Result<Option<Version>> {
        let targets = self
            .0
            .targets()
            .map_err(|error| explain("device-mapper", "ask", &error))?;
        let drr = targets.into_iter().find(|(name, _)| name == "drr");
        Ok(drr.map(|(_, version)| version))
    }

    /// Returns the names and numbers of all device-mapper devices.
    pub fn devices(&self) -> Result<Vec<(String, Number)>> {
        self.list("")
    }

    /// Returns whether there are devices whose UUIDs begin with `prefix`.
    pub fn has_uuid(&self, prefix: &str) -> Result<bool> {
        self.list(prefix).map(|devices| !devices.is_empty())
    }

    fn list(&self, uuid: &str) -> Result<Vec<(String, Number)>> {
        self.0
            .devices(uuid)
            .map_err(|error| explain("device-mapper", "list", &error))
    }

    /// Returns the description of a device, with its active table.
    pub fn device(&self, name: &str) -> Result<Device> {
        check_name(name)?;
        self.0
            .device(name)
            .map_err(|error| explain(name, "ask", &error))
    }

    /// Returns the table that is loaded and not active; an empty one if there is none.
    pub fn staged(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(name, Flags::STATUS_TABLE | Flags::QUERY_INACTIVE_TABLE)
    }

    /// Returns the status of a device, without committing the metadata of its pool.
    pub fn status(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(name, Flags::NOFLUSH)
    }

    fn lines(&self, name: &str, flags: Flags) -> Result<Vec<Line>> {
        check_name(name)?;
        self.0
            .lines(name, flags)
            .map_err(|error| explain(name, "ask", &error))
    }

    /// Sends a message, and returns the answer if there is one.
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

    /// Sends a message that has an answer, and returns the answer.
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

    /// Creates and activates a device with a table of one line. Removes the device again if this
    /// fails.
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

    /// Creates a device without a table, and returns its number; `None` if the name or the UUID is
    /// taken.
    pub fn make(&self, name: &str, uuid: &str) -> Result<Option<Number>> {
        check_name(name)?;
        match self.0.create(name, uuid) {
            Ok(number) => Ok(Some(number)),
            Err(error) if error.number == Some(libc::EBUSY) => Ok(None),
            Err(error) => Err(explain(name, "create", &error)),
        }
    }

    /// Loads a table of one line, which becomes active when the device is resumed.
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

    /// Makes the loaded table the active one, if there is one, and resumes the device. To replace
    /// the table, the kernel first suspends a device that isn't suspended; if this fails, the
    /// device is as before.
    pub fn resume(&self, name: &str, flags: Flags, audience: Audience) -> Asked<()> {
        self.0.resume(name, flags, audience)
    }

    /// Discards the table that is loaded and not active, if there is one.
    pub fn clear(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.0
            .clear(name)
            .map_err(|error| explain(name, "clear the loaded table of", &error))
    }

    /// Removes a device now, or when it is closed for the last time.
    pub fn remove_later(&self, name: &str) -> Result<()> {
        self.take_away(name, Flags::DEFERRED_REMOVE)
    }

    /// Removes a device.
    fn take_away(&self, name: &str, flags: Flags) -> Result<()> {
        check_name(name)?;
        self.0
            .remove(name, flags)
            .map_err(|error| explain(name, "remove", &error))
    }

    /// Removes a device, and its node.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.take_away(name, Flags::NONE)?;
        // Udev has removed the node by now. Where no udev runs, it is a link that leads nowhere.
        let path = node(name);
        if fs::read_link(&path).is_ok() && !path.exists() {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// Makes a device's link in /dev/mapper where no udev runs: devtmpfs only makes /dev/dm-N.
fn link(name: &str, minor: u32) {
    let path = node(name);
    if !path.exists() {
        let _ = fs::remove_file(&path);
        let _ = symlink(format!("../dm-{minor}"), path);
    }
}

/// The kernel's log, the only place where the kernel gives the reason why it refuses a table.
struct KernelLog(Option<File>);

impl KernelLog {
    /// Opens the log at its end.
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

    /// Returns the last reason that the target has given since the log was opened.
    fn reason(self, target: &str) -> Option<String> {
        use std::io::Read;
        let mut log = self.0?;
        let mut last = None;
        let mut record = vec![0; 8192];
        // Each call reads one record, until there is no more.
        while let Ok(length @ 1..) = log.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]);
            if let Some(reason) = reason_of(&text, target) {
                last = Some(reason);
            }
        }
        last
    }
}

/// Returns the reason in a record of the log:
/// `PREFIX;device-mapper: table: 253:5: drr: TEXT (-EINVAL)`.
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
