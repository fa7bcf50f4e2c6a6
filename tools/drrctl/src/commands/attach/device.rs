// SPDX-License-Identifier: GPL-2.0

//! Checks of a device before its table is changed.

use drr_dm::{Device, Line, Number};

use crate::answers::table;
use crate::device_mapper::inventory::SECOND;
use crate::device_mapper::runtime;
use crate::error::{Code, Error, Result};

/// Returns the only line of a table, if it has the target `target`.
pub fn only<'a>(table: &'a [Line], target: &str) -> Option<&'a Line> {
    match table {
        [line] if line.target == target && line.start == 0 => Some(line),
        _ => None,
    }
}

/// Parses a device's number, major:minor.
pub fn number_of(text: &str) -> Option<Number> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Returns the name of the second device that a drr line is on; `None` if the device below is no
/// second device.
pub fn second_of(line: &Line) -> Option<String> {
    let number = number_of(&table::drr(&line.arguments)?.thin)?;
    let uuid = runtime::attribute(number, "dm/uuid")?;
    uuid.starts_with(SECOND)
        .then(|| runtime::attribute(number, "dm/name"))?
}

/// Returns the table of the device below a drr device. Fails if it is not a thin table.
pub fn thin_of(below: &Device) -> Result<&Line> {
    only(&below.table, "thin").ok_or_else(|| {
        Error::new(
            Code::Failed,
            &below.name,
            "is not the thin device any more that a drr device was put on",
            "give it its table back, or remove the device above it",
        )
    })
}

/// Checks that no other program is changing the device's table. Fails with [`Code::InUse`].
pub fn ready(device: &Device) -> Result<()> {
    let name = &device.name;
    if device.suspended {
        return Err(Error::new(
            Code::InUse,
            name,
            "is suspended",
            format!("wait for who suspended it, or resume it: dmsetup resume {name}"),
        ));
    }
    if device.staged {
        return Err(Error::new(
            Code::InUse,
            name,
            "has a table that is loaded and not active yet",
            format!("activate it: dmsetup resume {name}; or throw it away: dmsetup clear {name}"),
        ));
    }
    Ok(())
}

/// Returns the error for a device that has gone meanwhile.
pub fn gone(name: &str) -> Error {
    Error::new(
        Code::NotThere,
        name,
        "it went away meanwhile",
        "there is nothing left to do",
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a table's line of eight sectors.
    pub fn line(target: &str, arguments: &str) -> Line {
        Line {
            start: 0,
            length: 8,
            target: target.into(),
            arguments: arguments.into(),
        }
    }

    #[test]
    fn tables_are_recognised() {
        let two = [line("thin", "253:1 7"), line("linear", "8:1 0")];
        assert!(only(&two, "thin").is_none());
        assert!(only(&two[..1], "thin").is_some());
        assert!(only(&two[..1], "drr").is_none());
        assert_eq!(number_of("253:12"), Some((253, 12)));
        assert_eq!(number_of("253"), None);
    }

    #[test]
    fn devices_of_busy_programs_are_left_alone() {
        let mut device = Device {
            name: "c1".into(),
            ..Device::default()
        };
        assert!(ready(&device).is_ok());
        device.staged = true;
        let error = ready(&device).err().map(|error| error.to_string());
        assert!(error.unwrap_or_default().contains("dmsetup clear c1"));
        device.suspended = true;
        let error = ready(&device).err().map(|error| error.to_string());
        assert!(error.unwrap_or_default().contains("dmsetup resume c1"));
    }
}
