// SPDX-License-Identifier: GPL-2.0

//! `create`, `remove` and `reset`.

use std::fs;

use drr_dm::Line;

use crate::answers::table;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::error::{Code, Error, Result};

pub fn create(control: &Control, name: &str, thin: &str, features: &[&str]) -> Result<()> {
    if name.contains('/') {
        return Err(Error::new(
            Code::Usage,
            name,
            "is a path, and not the name of a new device",
            "give the name only, as it will be in /dev/mapper",
        ));
    }
    // not the inventory's own check: loading the table loads the module, too
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
    )
}

pub fn remove(control: &Control, name: &str) -> Result<()> {
    let inventory = Inventory::new(control)?;
    let device = inventory.find_drr(name)?;
    // it may take seconds to find out that it's in use, and a mount doesn't go by itself
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

/// Starts the counters of one device anew, or of all.
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

/// Where a device is mounted: fields 3 and 5 of its line.
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
