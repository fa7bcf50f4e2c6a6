// SPDX-License-Identifier: GPL-2.0

//! `create`, `remove` and `reset`: makes and removes drr devices on thin devices, and resets their
//! counters.

use std::fs;

use drr_dm::Line;

use crate::answers::table;
use crate::commands::upgrade::kept;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::device_mapper::runtime;
use crate::error::{Code, Error, Result};

/// Creates a drr device on the thin device `thin`.
pub fn create(control: &Control, name: &str, thin: &str, features: &[&str]) -> Result<()> {
    if name.contains('/') {
        return Err(Error::new(
            Code::Usage,
            name,
            "is a path, and not the name of a new device",
            "give the name only, as it will be in /dev/mapper",
        ));
    }
    // `upgrade` unloads the module under this lock.
    let lock = runtime::lock()?;
    // Not `Inventory::new`, which wants the module: loading a table loads the module, too.
    let inventory = Inventory::all(control)?;
    let (node, sectors) = inventory.find_thin(thin)?;
    control.create(
        name,
        &Line {
            start: 0,
            length: sectors,
            target: "drr".to_string(),
            arguments: table::drr_arguments(&node.number, features),
        },
    )?;
    kept::keep(&lock);
    Ok(())
}

/// Removes a drr device.
pub fn remove(control: &Control, name: &str) -> Result<()> {
    let inventory = Inventory::new(control)?;
    let device = inventory.find_drr(name)?;
    // The request to remove a device that is in use is repeated for seconds, in vain if the device
    // is mounted.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(place) = mounted_on(&mounts, &device.number) {
        return Err(Error::new(
            Code::InUse,
            &device.name,
            format!("is mounted on {place}"),
            format!("umount {place}"),
        ));
    }
    control.remove(&device.name)
}

/// Resets the counters of one drr device, or of all.
pub fn reset(control: &Control, name: Option<&str>) -> Result<()> {
    let inventory = Inventory::new(control)?;
    if let Some(name) = name {
        let device = inventory.find_drr(name)?;
        return control.message(&device.name, "reset_stats").map(|_| ());
    }
    for device in &inventory.drr {
        control.message(&device.name, "reset_stats")?;
    }
    Ok(())
}

/// Returns where a device is mounted: field 5 of the line in /proc/self/mountinfo that has the
/// device's number as field 3.
fn mounted_on<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(2);
        (words.next()? == number).then(|| words.nth(1))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n30 1 253:5 / /mnt/c1 rw - ext4 x rw\n";
        assert_eq!(mounted_on(mounts, "253:5"), Some("/mnt/c1"));
        assert_eq!(mounted_on(mounts, "253:6"), None);
        assert_eq!(mounted_on("odd", "253:6"), None);
    }
}
