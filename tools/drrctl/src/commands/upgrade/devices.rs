// SPDX-License-Identifier: GPL-2.0

//! The devices: takes drr out of their tables, and puts it back.

use drr_dm::{Device, Line};

use crate::answers::table;
use crate::commands::attach::device::{only, ready, second_of};
use crate::commands::attach::swap::swap;
use crate::commands::attach::{attach_to, settle, thin_table};
use crate::device_mapper::control::Control;
use crate::device_mapper::runtime::{self, Change, Lock, Mark};
use crate::error::{Code, Error, Result};

/// How a device is without drr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `attach` has put drr under it: detached.
    Attached,
    /// It is on top of a thin device: a linear device.
    OnTop,
}

impl How {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Attached => "detached, and attached again",
            Self::OnTop => "dm-linear in between",
        }
    }
}

/// A device that is to have its drr table back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Sequence number of its disk.
    pub sequence: u64,
    pub name: String,
    pub how: How,
    /// The arguments of its drr table.
    pub arguments: String,
}

/// Returns the names of devices, separated by spaces.
pub fn names(held: &[Held]) -> String {
    let names: Vec<_> = held.iter().map(|device| device.name.as_str()).collect();
    names.join(" ")
}

/// Returns all devices with drr tables. Fails if one of them is in use by another program, or, if
/// not forced, wasn't made by `attach`.
pub fn with_drr(control: &Control, force: bool) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for (name, _) in control.devices()? {
        let Ok(device) = control.device(&name) else {
            continue; // The device has gone.
        };
        if device.table.iter().any(|line| line.target == "drr") {
            held.extend(held_of(&device)?);
        }
    }
    let foreign: Vec<_> = held
        .iter()
        .filter(|it| it.how == How::OnTop)
        .cloned()
        .collect();
    match foreign.is_empty() || force {
        true => Ok(held),
        false => Err(Error::new(
            Code::InUse,
            names(&foreign),
            "drrctl attach hasn't made these drr tables",
            "remove them (drrctl remove NAME), or have dm-linear in between: drrctl upgrade --force",
        )),
    }
}

/// Returns how a device with a drr table is to be held; `None` if it has gone.
fn held_of(device: &Device) -> Result<Option<Held>> {
    let Some(line) = only(&device.table, "drr") else {
        return Err(Error::new(
            Code::WrongKind,
            &device.name,
            "has several targets, and drr is one of them",
            "give it another table first, or remove it",
        ));
    };
    ready(device)?;
    let how = match second_of(line) {
        Some(_) => How::Attached,
        None => How::OnTop,
    };
    let sequence = runtime::sequence(device.number);
    Ok(sequence.map(|sequence| Held {
        sequence,
        name: device.name.clone(),
        how,
        arguments: line.arguments.clone(),
    }))
}

/// Returns the device as it is now; `None` if it has gone.
fn now(control: &Control, held: &Held) -> Result<Option<Device>> {
    match control.device(&held.name) {
        Ok(device) if runtime::sequence(device.number) == Some(held.sequence) => Ok(Some(device)),
        Ok(_) => Ok(None),
        Err(error) if error.code == Code::NotThere => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a device a table without drr. Does nothing if it has one, or has gone.
pub fn take_out(control: &Control, lock: &Lock, held: &Held) -> Result<()> {
    let Some(device) = now(control, held)? else {
        return Ok(());
    };
    let Some(drr) = only(&device.table, "drr") else {
        return Ok(());
    };
    let line = match held.how {
        How::Attached => thin_table(control, &device)?,
        How::OnTop => Line {
            target: "linear".to_string(),
            arguments: format!("{} 0", thin_of(held)?),
            ..drr.clone()
        },
    };
    let change = Change::begin(lock)?;
    swap(control, &device, &line, ["staged", "swapped"])?;
    change.done();
    if held.how == How::Attached {
        // A second device that somebody has open goes later: it keeps no module.
        settle(control, held.sequence).or_else(|error| match error.code {
            Code::InUse => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

/// Returns the number of the thin device that a drr table names.
fn thin_of(held: &Held) -> Result<String> {
    table::drr(&held.arguments)
        .map(|table| table.thin)
        .ok_or_else(|| {
            Error::new(
                Code::Failed,
                &held.name,
                format!("its table isn't understood: drr {}", held.arguments),
                "use the drrctl that came with the module",
            )
        })
}

/// Devices that couldn't be given their drr tables back.
pub struct Left {
    pub names: String,
    /// The error of the first of them.
    pub error: Error,
}

/// Gives all devices their drr tables back: those that don't have them, and are still there.
/// Returns those that couldn't be given theirs; `None` if there are none.
pub fn put_back(control: &Control, lock: &Lock, held: &[Held]) -> Option<Left> {
    let (mut left, mut first) = (Vec::new(), None);
    for device in held {
        match put_one_back(control, lock, device) {
            Err(error) if error.code != Code::NotThere => {
                left.push(device.clone());
                first.get_or_insert(error);
            }
            _ => {}
        }
    }
    first.map(|error| Left {
        names: names(&left),
        error,
    })
}

fn put_one_back(control: &Control, lock: &Lock, held: &Held) -> Result<()> {
    let Some(device) = now(control, held)? else {
        return Ok(());
    };
    // A user may have detached it since an upgrade that was interrupted.
    let has_it = device.table.iter().any(|line| line.target == "drr");
    if has_it || Mark::Detached.is_on(held.sequence) {
        return Ok(());
    }
    match held.how {
        How::Attached => {
            let table = table::drr(&held.arguments);
            let features = table.map(|table| table.features).unwrap_or_default();
            let features: Vec<_> = features.iter().map(String::as_str).collect();
            attach_to(control, lock, &device, &features)
        }
        How::OnTop => {
            ready(&device)?;
            let Some(linear) = only(&device.table, "linear") else {
                return Ok(()); // Somebody has given it another table.
            };
            let line = Line {
                target: "drr".to_string(),
                arguments: held.arguments.clone(),
                ..linear.clone()
            };
            let change = Change::begin(lock)?;
            swap(control, &device, &line, ["staged", "swapped"])?;
            change.done();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::attach::device::tests::line;

    #[test]
    fn devices_that_cannot_be_held() {
        let mut device = Device {
            name: "c1".into(),
            table: vec![line("drr", "253:9"), line("linear", "8:1 0")],
            ..Device::default()
        };
        let error = held_of(&device).expect_err("refused").to_string();
        assert!(error.starts_with("c1: has several targets"), "{error}");
        device.table.pop();
        device.suspended = true;
        let error = held_of(&device).expect_err("refused").to_string();
        assert!(error.contains("dmsetup resume c1"), "{error}");
    }
}
