// SPDX-License-Identifier: GPL-2.0

//! Device-mapper, through the `devicemapper` crate, with errors that tell the user what to do.
//!
//! The crate asks again with a larger buffer when an answer is too long, for messages, too, and
//! tries for five seconds to remove a device that is in use. What it doesn't do: anything at all
//! where no udev runs, and with a name that isn't ASCII: these are left to the crate `drr-dm`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::slice;

use devicemapper::{DevId, DmError, DmFlags, DmName, DmOptions, DmUdevFlags, DmUuid, DM};
use drr_dm::name::is_escaped;
use drr_dm::{Device, Flags, Line, Number};

use crate::error::{Code, Error, Result};

/// Who is told of a device by udev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody, as of any device.
    All,
    /// Nobody: no link leads to it, and nobody looks what is on it.
    Nobody,
}

impl Audience {
    fn options(self) -> DmOptions {
        match self {
            Self::All => DmOptions::default(),
            Self::Nobody => DmOptions::default().set_udev_flags(
                DmUdevFlags::DM_UDEV_DISABLE_DM_RULES_FLAG
                    | DmUdevFlags::DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG
                    | DmUdevFlags::DM_UDEV_DISABLE_DISK_RULES_FLAG
                    | DmUdevFlags::DM_UDEV_DISABLE_OTHER_RULES_FLAG,
            ),
        }
    }
}

/// Where udev runs it has to be told, which the crate does.
enum Way {
    Udev(DM),
    Bare,
}

pub struct Control {
    way: Way,
    /// What udev needn't know of goes this way always, if need be.
    bare: drr_dm::Control,
}

/// What went wrong, with the number of the system's error, if that's what it was.
#[derive(Debug)]
pub struct Failed {
    pub number: Option<i32>,
    text: String,
}

type Asked<T> = std::result::Result<T, Failed>;

impl From<DmError> for Failed {
    fn from(error: DmError) -> Self {
        Self {
            number: match &error {
                DmError::Core(devicemapper::errors::Error::Ioctl(_, _, _, errno)) => {
                    Some(**errno as i32)
                }
                _ => None,
            },
            text: error.to_string(),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self {
            number: error.raw_os_error(),
            text: error.to_string(),
        }
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

/// The flags as the crate has them.
fn of_crate(flags: Flags) -> DmFlags {
    DmFlags::from_bits_truncate(flags.bits())
}

/// A line as the crate has it.
fn line_of((start, length, target, arguments): (u64, u64, String, String)) -> Line {
    Line {
        start,
        length,
        target,
        arguments,
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
        let failed = |error: Failed| explain("device-mapper", "open", &error);
        let way = if Path::new("/run/udev/control").exists() {
            Way::Udev(DM::new().map_err(|error| failed(error.into()))?)
        } else {
            Way::Bare
        };
        let bare = drr_dm::Control::open().map_err(|error| failed(error.into()))?;
        Ok(Self { way, bare })
    }

    pub fn drr_loaded(&self) -> Result<bool> {
        let targets = self
            .targets()
            .map_err(|error| explain("device-mapper", "ask", &error))?;
        Ok(targets.iter().any(|name| name == "drr"))
    }

    fn targets(&self) -> Asked<Vec<String>> {
        Ok(match &self.way {
            Way::Udev(dm) => dm.list_versions()?.into_iter().map(|it| it.0).collect(),
            Way::Bare => self.bare.targets()?,
        })
    }

    /// Names and numbers (major, minor) of all device-mapper devices.
    pub fn devices(&self) -> Result<Vec<(String, Number)>> {
        self.list()
            .map_err(|error| explain("device-mapper", "list", &error))
    }

    /// Are there devices whose UUIDs begin so?
    pub fn has_uuid(&self, prefix: &str) -> Result<bool> {
        self.bare
            .devices(prefix)
            .map(|devices| !devices.is_empty())
            .map_err(|error| explain("device-mapper", "list", &error.into()))
    }

    fn list(&self) -> Asked<Vec<(String, Number)>> {
        Ok(self.bare.devices("")?)
    }

    /// A device with its active table.
    pub fn device(&self, name: &str) -> Result<Device> {
        self.look(dm_name(name)?)
            .map_err(|error| explain(name, "ask", &error))
    }

    fn look(&self, name: &DmName) -> Asked<Device> {
        let dm = match &self.way {
            Way::Udev(dm) if !is_escaped(&name.to_string()) => dm,
            _ => return Ok(self.bare.device(&name.to_string())?),
        };
        let options = DmOptions::default().set_flags(DmFlags::DM_STATUS_TABLE);
        let (info, lines) = dm.table_status(&DevId::Name(name), options)?;
        let flags = info.flags();
        Ok(Device {
            name: name.to_string(),
            number: (info.device().major, info.device().minor),
            uuid: info.uuid().map(|uuid| uuid.to_string()).unwrap_or_default(),
            suspended: flags.contains(DmFlags::DM_SUSPEND),
            read_only: flags.contains(DmFlags::DM_READONLY),
            staged: flags.contains(DmFlags::DM_INACTIVE_PRESENT),
            open: info.open_count() != 0,
            table: lines.into_iter().map(line_of).collect(),
        })
    }

    /// A table that is loaded and not active; empty if there is none.
    pub fn staged(&self, name: &str) -> Result<Vec<Line>> {
        let flags = Flags::STATUS_TABLE | Flags::QUERY_INACTIVE_TABLE;
        self.lines(dm_name(name)?, flags)
            .map_err(|error| explain(name, "ask", &error))
    }

    /// Without a commit of the pool's metadata.
    pub fn status(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(dm_name(name)?, Flags::NOFLUSH)
            .map_err(|error| explain(name, "ask", &error))
    }

    fn lines(&self, name: &DmName, flags: Flags) -> Asked<Vec<Line>> {
        let dm = match &self.way {
            Way::Udev(dm) if !is_escaped(&name.to_string()) => dm,
            _ => return Ok(self.bare.lines(&name.to_string(), flags)?),
        };
        let options = DmOptions::default().set_flags(of_crate(flags));
        let (_, lines) = dm.table_status(&DevId::Name(name), options)?;
        Ok(lines.into_iter().map(line_of).collect())
    }

    /// Sends a message; its answer, if there is one.
    pub fn message(&self, name: &str, message: &str) -> Result<Option<String>> {
        self.send(dm_name(name)?, message)
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

    fn send(&self, name: &DmName, message: &str) -> Asked<Option<String>> {
        Ok(match &self.way {
            Way::Udev(dm) if !is_escaped(&name.to_string()) => {
                dm.target_msg(&DevId::Name(name), None, message)?.1
            }
            _ => self.bare.message(&name.to_string(), message)?,
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
            let _ = self.take_away(dm_name(name)?, Flags::NONE);
            return Err(error);
        }
        link(name, minor);
        Ok(())
    }

    /// A new device without a table, and its numbers; `None` if the name or the UUID is taken.
    pub fn make(&self, name: &str, uuid: &str) -> Result<Option<Number>> {
        match self.new_device(dm_name(name)?, uuid) {
            Ok(number) => Ok(Some(number)),
            Err(error) if error.number == Some(libc::EBUSY) => Ok(None),
            Err(error) => Err(explain(name, "create", &error)),
        }
    }

    fn new_device(&self, name: &DmName, uuid: &str) -> Asked<Number> {
        Ok(match &self.way {
            Way::Udev(dm) => {
                let uuid = match uuid {
                    "" => None,
                    uuid => Some(DmUuid::new(uuid)?),
                };
                let made = dm.device_create(name, uuid, DmOptions::default())?;
                (made.device().major, made.device().minor)
            }
            Way::Bare => self.bare.create(&name.to_string(), uuid)?,
        })
    }

    /// Loads a table of one line; it isn't active before the device is resumed.
    pub fn load(&self, name: &str, line: &Line, read_only: bool) -> Result<()> {
        let log = KernelLog::from_now();
        let Err(error) = self.load_line(dm_name(name)?, line, read_only) else {
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

    fn load_line(&self, name: &DmName, line: &Line, read_only: bool) -> Asked<()> {
        let flags = if read_only {
            Flags::READONLY
        } else {
            Flags::NONE
        };
        let dm = match &self.way {
            Way::Udev(dm) => dm,
            Way::Bare => {
                return Ok(self
                    .bare
                    .load(&name.to_string(), slice::from_ref(line), flags)?)
            }
        };
        let Line {
            start,
            length,
            target,
            arguments,
        } = line.clone();
        let options = DmOptions::default().set_flags(of_crate(flags));
        let lines = [(start, length, target, arguments)];
        dm.table_load(&DevId::Name(name), &lines, options)?;
        Ok(())
    }

    /// Makes the loaded table the active one, if there is one, and resumes. A device that isn't
    /// suspended is suspended for it, by the kernel; if that fails it's as before.
    pub fn resume(&self, name: &str, flags: Flags, audience: Audience) -> Asked<()> {
        let name = dm_name(name).map_err(|error| Failed {
            number: None,
            text: error.to_string(),
        })?;
        match &self.way {
            Way::Udev(dm) => {
                let options = audience.options().set_flags(of_crate(flags));
                dm.device_suspend(&DevId::Name(name), options).map(|_| ())?;
            }
            Way::Bare => self.bare.resume(&name.to_string(), flags)?,
        }
        Ok(())
    }

    /// Throws away a table that is loaded and not active.
    pub fn clear(&self, name: &str) -> Result<()> {
        let dm_name = dm_name(name)?;
        let cleared: Asked<()> = match &self.way {
            Way::Udev(dm) => dm
                .table_clear(&DevId::Name(dm_name))
                .map(|_| ())
                .map_err(Failed::from),
            Way::Bare => self.bare.clear(name).map_err(Failed::from),
        };
        cleared.map_err(|error| explain(name, "clear the loaded table of", &error))
    }

    /// Removes a device now, or when the last who has it open closes it.
    pub fn remove_later(&self, name: &str) -> Result<()> {
        self.take_away(dm_name(name)?, Flags::DEFERRED_REMOVE)
            .map_err(|error| explain(name, "remove", &error))
    }

    fn take_away(&self, name: &DmName, flags: Flags) -> Asked<()> {
        match &self.way {
            Way::Udev(dm) => dm
                .device_remove(
                    &DevId::Name(name),
                    DmOptions::default().set_flags(of_crate(flags)),
                )
                .map(|_| ())?,
            Way::Bare => self.bare.remove(&name.to_string(), flags)?,
        }
        Ok(())
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        self.take_away(dm_name(name)?, Flags::NONE)
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
        assert!(dm_name("c1").is_ok());
        assert_eq!(dm_name("").err().map(|e| e.code), Some(Code::Usage));
        assert!(dm_name(&"x".repeat(128)).is_err());
    }
}
