// SPDX-License-Identifier: GPL-2.0

//! Requests where udev runs, through the `devicemapper` crate. The crate notifies udev of changes
//! of devices, and waits until udev has handled them.
//!
//! The crate repeats a request with a larger buffer if the answer is too long, also for messages,
//! and tries for five seconds to remove a device that is in use. It refuses all requests where no
//! udev runs, and has no type for names that aren't ASCII. For devices with these names, requests
//! that udev needn't know of are made by plain ioctls.

use std::path::Path;

use devicemapper::{errors, DevId, DmError, DmFlags, DmName, DmOptions, DmUdevFlags, DmUuid, DM};
use drr_dm::name::is_escaped;
use drr_dm::{Device, Flags, Line, Number, Version};

use crate::device_mapper::requests::{Asked, Audience, Failed, Requests};
use crate::device_mapper::without_udev::WithoutUdev;

/// Returns whether udev runs.
pub fn udev_runs() -> bool {
    Path::new("/run/udev/control").exists()
}

/// Both ways to device-mapper.
pub struct WithUdev {
    through: DM,
    ioctls: WithoutUdev,
}

impl From<DmError> for Failed {
    fn from(error: DmError) -> Self {
        Self {
            number: match &error {
                DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => Some(**errno as i32),
                _ => None,
            },
            text: error.to_string(),
        }
    }
}

/// Converts flags to those of the crate.
fn options(flags: Flags) -> DmOptions {
    DmOptions::default().set_flags(DmFlags::from_bits_truncate(flags.bits()))
}

/// Returns the flags for udev that let only `audience` see a device.
fn udev_flags(audience: Audience) -> DmUdevFlags {
    match audience {
        Audience::All => DmUdevFlags::empty(),
        Audience::Nobody => {
            DmUdevFlags::DM_UDEV_DISABLE_DM_RULES_FLAG
                | DmUdevFlags::DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG
                | DmUdevFlags::DM_UDEV_DISABLE_DISK_RULES_FLAG
                | DmUdevFlags::DM_UDEV_DISABLE_OTHER_RULES_FLAG
        }
    }
}

/// Identifies a device by its name.
fn by_name(name: &str) -> Asked<DevId<'_>> {
    Ok(DevId::Name(DmName::new(name)?))
}

/// Converts a line of the crate.
fn line((start, length, target, arguments): (u64, u64, String, String)) -> Line {
    Line {
        start,
        length,
        target,
        arguments,
    }
}

impl WithUdev {
    /// Opens the control device.
    pub fn new() -> Asked<Self> {
        Ok(Self {
            through: DM::new()?,
            ioctls: WithoutUdev::new()?,
        })
    }
}

impl Requests for WithUdev {
    fn targets(&self) -> Asked<Vec<(String, Version)>> {
        let targets = self.through.list_versions()?.into_iter();
        Ok(targets
            .map(|(name, major, minor, patch)| (name, (major, minor, patch)))
            .collect())
    }

    /// Lists devices by a plain ioctl, as any device may have a name that isn't ASCII.
    fn devices(&self, uuid: &str) -> Asked<Vec<(String, Number)>> {
        self.ioctls.devices(uuid)
    }

    fn device(&self, name: &str) -> Asked<Device> {
        if is_escaped(name) {
            return self.ioctls.device(name);
        }
        let options = options(Flags::STATUS_TABLE);
        let (info, lines) = self.through.table_status(&by_name(name)?, options)?;
        let flags = info.flags();
        Ok(Device {
            name: name.to_string(),
            number: (info.device().major, info.device().minor),
            uuid: info.uuid().map(|uuid| uuid.to_string()).unwrap_or_default(),
            suspended: flags.contains(DmFlags::DM_SUSPEND),
            read_only: flags.contains(DmFlags::DM_READONLY),
            staged: flags.contains(DmFlags::DM_INACTIVE_PRESENT),
            open: info.open_count() != 0,
            table: lines.into_iter().map(line).collect(),
        })
    }

    fn lines(&self, name: &str, flags: Flags) -> Asked<Vec<Line>> {
        if is_escaped(name) {
            return self.ioctls.lines(name, flags);
        }
        let (_, lines) = self.through.table_status(&by_name(name)?, options(flags))?;
        Ok(lines.into_iter().map(line).collect())
    }

    fn message(&self, name: &str, message: &str) -> Asked<Option<String>> {
        if is_escaped(name) {
            return self.ioctls.message(name, message);
        }
        let (_, answer) = self.through.target_msg(&by_name(name)?, None, message)?;
        Ok(answer)
    }

    fn create(&self, name: &str, uuid: &str) -> Asked<Number> {
        let uuid = match uuid {
            "" => None,
            uuid => Some(DmUuid::new(uuid)?),
        };
        let name = DmName::new(name)?;
        let made = self
            .through
            .device_create(name, uuid, options(Flags::NONE))?;
        Ok((made.device().major, made.device().minor))
    }

    fn load(&self, name: &str, line: &Line, flags: Flags) -> Asked<()> {
        let Line {
            start,
            length,
            target,
            arguments,
        } = line.clone();
        let table = [(start, length, target, arguments)];
        self.through
            .table_load(&by_name(name)?, &table, options(flags))?;
        Ok(())
    }

    fn resume(&self, name: &str, flags: Flags, audience: Audience) -> Asked<()> {
        let options = options(flags).set_udev_flags(udev_flags(audience));
        self.through.device_suspend(&by_name(name)?, options)?;
        Ok(())
    }

    fn clear(&self, name: &str) -> Asked<()> {
        self.through.table_clear(&by_name(name)?)?;
        Ok(())
    }

    fn remove(&self, name: &str, flags: Flags) -> Asked<()> {
        self.through
            .device_remove(&by_name(name)?, options(flags))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_crate() {
        for (ours, crates) in [
            (Flags::READONLY, DmFlags::DM_READONLY),
            (Flags::STATUS_TABLE, DmFlags::DM_STATUS_TABLE),
            (Flags::SKIP_LOCKFS, DmFlags::DM_SKIP_LOCKFS),
            (Flags::NOFLUSH, DmFlags::DM_NOFLUSH),
            (
                Flags::QUERY_INACTIVE_TABLE,
                DmFlags::DM_QUERY_INACTIVE_TABLE,
            ),
            (Flags::DEFERRED_REMOVE, DmFlags::DM_DEFERRED_REMOVE),
        ] {
            assert_eq!(options(ours).flags(), crates);
        }
    }
}
