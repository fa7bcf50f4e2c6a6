// SPDX-License-Identifier: GPL-2.0

//! Device-mapper, through the `devicemapper` crate, with errors that tell the user what to do.
//!
//! The crate asks again with a larger buffer when an answer is too long, for messages, too, and
//! tries for five seconds to remove a device that is in use. What it doesn't do: anything at all
//! where no udev runs; see `bare`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use devicemapper::{DevId, DmError, DmFlags, DmName, DmOptions, DM};

use crate::bare::{self, Bare};
use crate::error::{Code, Error, Result};

/// A device's name, and its numbers: major, minor.
pub type NameAndNumber = (String, (u32, u32));

/// One line of a table or a status.
#[derive(Clone, Debug)]
pub struct Line {
    pub start: u64,
    pub length: u64,
    pub target: String,
    pub arguments: String,
}

/// Where udev runs it has to be told, which the crate does.
enum Way {
    Udev(DM),
    Bare(Bare),
}

pub struct Control {
    way: Way,
}

/// What went wrong, with the number of the system's error, if that's what it was.
struct Failed {
    number: Option<i32>,
    text: String,
}

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

fn explain(device: &str, doing: &str, error: &Failed) -> Error {
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
        let failed = |error: Failed| explain("device-mapper", "open", &error);
        let way = if Path::new("/run/udev/control").exists() {
            Way::Udev(DM::new().map_err(|error| failed(error.into()))?)
        } else {
            Way::Bare(Bare::new().map_err(|error| failed(error.into()))?)
        };
        Ok(Self { way })
    }

    pub fn drr_loaded(&self) -> Result<bool> {
        let targets = self
            .targets()
            .map_err(|error| explain("device-mapper", "ask", &error))?;
        Ok(targets.iter().any(|name| name == "drr"))
    }

    fn targets(&self) -> std::result::Result<Vec<String>, Failed> {
        Ok(match &self.way {
            Way::Udev(dm) => dm.list_versions()?.into_iter().map(|it| it.0).collect(),
            Way::Bare(bare) => bare.targets()?,
        })
    }

    /// Names and numbers (major, minor) of all device-mapper devices.
    pub fn devices(&self) -> Result<Vec<NameAndNumber>> {
        self.list()
            .map_err(|error| explain("device-mapper", "list", &error))
    }

    fn list(&self) -> std::result::Result<Vec<NameAndNumber>, Failed> {
        Ok(match &self.way {
            Way::Udev(dm) => dm
                .list_devices()?
                .into_iter()
                .map(|(name, device, _)| (name.to_string(), (device.major, device.minor)))
                .collect(),
            Way::Bare(bare) => bare.list()?,
        })
    }

    pub fn table(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(dm_name(name)?, DmFlags::DM_STATUS_TABLE, bare::TABLE)
            .map_err(|error| explain(name, "ask", &error))
    }

    /// Without a commit of the pool's metadata.
    pub fn status(&self, name: &str) -> Result<Vec<Line>> {
        self.lines(dm_name(name)?, DmFlags::DM_NOFLUSH, bare::NOFLUSH)
            .map_err(|error| explain(name, "ask", &error))
    }

    fn lines(
        &self,
        name: &DmName,
        flags: DmFlags,
        bare_flags: u32,
    ) -> std::result::Result<Vec<Line>, Failed> {
        let dm = match &self.way {
            Way::Udev(dm) => dm,
            Way::Bare(bare) => return Ok(bare.lines(&name.to_string(), bare_flags)?),
        };
        let options = DmOptions::default().set_flags(flags);
        let (_, lines) = dm.table_status(&DevId::Name(name), options)?;
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

    fn send(&self, name: &DmName, message: &str) -> std::result::Result<Option<String>, Failed> {
        Ok(match &self.way {
            Way::Udev(dm) => dm.target_msg(&DevId::Name(name), None, message)?.1,
            Way::Bare(bare) => bare.message(&name.to_string(), message)?,
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
        let dm_name = dm_name(name)?;
        let minor = self.make(dm_name).map_err(|error| match error.number {
            Some(libc::EBUSY) => Error::new(
                Code::InUse,
                name,
                "there is a device with this name already",
                "choose another name, or remove that one",
            ),
            _ => explain(name, "create", &error),
        })?;
        let log = KernelLog::from_now();
        if let Err(error) = self.activate(dm_name, line) {
            let _ = self.take_away(dm_name);
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
        link(name, minor);
        Ok(())
    }

    fn make(&self, name: &DmName) -> std::result::Result<u32, Failed> {
        Ok(match &self.way {
            Way::Udev(dm) => {
                let made = dm.device_create(name, None, DmOptions::default())?;
                made.device().minor
            }
            Way::Bare(bare) => bare.create(&name.to_string())?,
        })
    }

    fn activate(&self, name: &DmName, line: &Line) -> std::result::Result<(), Failed> {
        let dm = match &self.way {
            Way::Udev(dm) => dm,
            Way::Bare(bare) => return Ok(bare.activate(&name.to_string(), line)?),
        };
        let (id, options) = (DevId::Name(name), DmOptions::default);
        let Line {
            start,
            length,
            target,
            arguments,
        } = line.clone();
        dm.table_load(&id, &[(start, length, target, arguments)], options())?;
        dm.device_suspend(&id, options())?; // without its flag: resume
        Ok(())
    }

    fn take_away(&self, name: &DmName) -> std::result::Result<(), Failed> {
        match &self.way {
            Way::Udev(dm) => dm
                .device_remove(&DevId::Name(name), DmOptions::default())
                .map(|_| ())?,
            Way::Bare(bare) => bare.remove(&name.to_string())?,
        }
        Ok(())
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        self.take_away(dm_name(name)?)
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
