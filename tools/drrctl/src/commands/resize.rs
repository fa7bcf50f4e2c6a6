// SPDX-License-Identifier: GPL-2.0

//! `resize`: makes drr devices longer while they are in use.
//!
//! If drr is attached, the second device below is drrctl's own, so both devices get a longer table.
//! The second device gets it first, so that the device above is never longer. Each swap is a single
//! request, as in `attach`. If drrctl is killed between the two swaps, the second device is longer
//! than the one above, which does no harm; the next `resize` continues from there.
//!
//! A device made by `create` is on a thin device that is managed by LVM or other programs. It
//! becomes as long as that thin device at most.

use drr_dm::{Device, Line};

use crate::answers::table;
use crate::commands::attach::clean_up::clean_up_if_need_be;
use crate::commands::attach::device::{number_of, only, ready, thin_of};
use crate::commands::attach::swap::swap;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::{self, SECOND};
use crate::device_mapper::runtime::{self, Change};
use crate::error::{Code, Error, Result};

/// Returns the device below a drr device, with its table.
fn below(control: &Control, name: &str, drr: &Line) -> Result<Device> {
    let number = table::drr(&drr.arguments).and_then(|table| number_of(&table.thin));
    let below = number.and_then(runtime::name).ok_or_else(|| {
        Error::new(
            Code::Failed,
            name,
            format!("what it is on isn't known: {}", drr.arguments),
            "load the module that drrctl came with",
        )
    })?;
    control.device(&below)
}

/// Returns the error for a device that isn't a drr device.
fn not_drr(device: &Device) -> Error {
    let wrong = |why: &str, remedy: &str| Error::new(Code::WrongKind, &device.name, why, remedy);
    if device.uuid.starts_with(SECOND) {
        return wrong(
            "is the thin device below an attached one",
            "name that one: 'drrctl list' shows it",
        );
    }
    if only(&device.table, "thin").is_some() {
        return wrong(
            "drr is not attached to it; it is a thin",
            "grow it as any thin device: LVM's by lvextend, others by a longer table",
        );
    }
    wrong(
        &format!(
            "is not a drr device, but a {}",
            inventory::kind(&device.table)
        ),
        "'drrctl list' shows the drr devices",
    )
}

/// Returns the length that a device is to have, in sectors. `given` is the length that the user
/// wants, `drr` and `thin` are the tables of the device and of the one below. Fails if the device
/// would become shorter, or longer than a thin device that isn't drrctl's own.
fn wanted(
    device: &Device,
    drr: &Line,
    below: &Device,
    thin: &Line,
    given: Option<u64>,
) -> Result<u64> {
    let (name, attached) = (&device.name, below.uuid.starts_with(SECOND));
    let wrong =
        |what: &str, why: String, remedy: String| Error::new(Code::Usage, what, why, remedy);
    let bytes = |line: &Line| line.length * 512;
    match given {
        None if thin.length < drr.length => Err(wrong(
            &below.name,
            format!("has {} bytes, and {name} on it {}", bytes(thin), bytes(drr)),
            "give it its length back".to_string(),
        )),
        None => Ok(thin.length),
        Some(given) if given < drr.length => Err(wrong(
            name,
            format!("has {} bytes, and is never made shorter", bytes(drr)),
            "a file system would lose its end: copy it to a smaller device".to_string(),
        )),
        Some(given) if given > thin.length && !attached => Err(wrong(
            name,
            format!("{} below it has {} bytes only", below.name, bytes(thin)),
            format!("grow that first, LVM's by lvextend; then: drrctl resize {name}"),
        )),
        Some(given) => Ok(given),
    }
}

/// Returns whether a killed `resize` may have left this loaded table. A table that another program
/// has loaded to make the device longer looks the same.
fn left_by_resize(staged: &[Line], drr: &Line) -> bool {
    only(staged, "drr").is_some_and(|line| line.arguments == drr.arguments)
}

/// Makes a drr device `sectors` sectors long, or as long as the thin device below if `sectors` is
/// `None`.
pub fn resize(control: &Control, text: &str, sectors: Option<u64>) -> Result<()> {
    let lock = runtime::lock()?;
    clean_up_if_need_be(control, &lock)?;
    let mut device = inventory::device(control, text)?;
    let Some(drr) = only(&device.table, "drr").cloned() else {
        return Err(not_drr(&device));
    };
    let below = below(control, &device.name, &drr)?;
    let thin = thin_of(&below)?;
    let length = wanted(&device, &drr, &below, thin, sectors)?;
    if device.staged && left_by_resize(&control.staged(&device.name)?, &drr) {
        control.clear(&device.name)?;
        device.staged = false;
    }
    ready(&device)?;
    if length == drr.length && length <= thin.length {
        return Ok(());
    }
    let change = Change::begin(&lock)?;
    if length > thin.length {
        ready(&below)?;
        let line = Line {
            length,
            ..thin.clone()
        };
        swap(control, &below, &line, ["below-staged", "below-swapped"])?;
    }
    swap(
        control,
        &device,
        &Line { length, ..drr },
        ["staged", "swapped"],
    )?;
    change.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, uuid: &str, target: &str, length: u64) -> Device {
        Device {
            name: name.into(),
            uuid: uuid.into(),
            table: vec![Line {
                start: 0,
                length,
                target: target.into(),
                arguments: "253:1".into(),
            }],
            ..Device::default()
        }
    }

    #[test]
    fn lengths() {
        let above = device("c1", "", "drr", 16);
        let second = device("drr-c1-7.0", "DRR-7-0", "thin", 16);
        let longer = device("drr-c1-7.0", "DRR-7-0", "thin", 24);
        let shorter = device("t1", "", "thin", 8);
        let own = device("t1", "", "thin", 24);
        for (below, given, length) in [
            (&second, None, Some(16)),
            (&second, Some(16), Some(16)),
            (&second, Some(32), Some(32)),
            (&second, Some(15), None),
            (&longer, None, Some(24)),
            (&longer, Some(16), Some(16)),
            (&longer, Some(32), Some(32)),
            (&own, None, Some(24)),
            (&own, Some(20), Some(20)),
            (&own, Some(25), None),
            (&shorter, None, None),
        ] {
            let thin = thin_of(below).expect("a thin device");
            let is = wanted(&above, &above.table[0], below, thin, given);
            assert_eq!(is.ok(), length, "{given:?} on {below:?}");
        }
    }

    #[test]
    fn what_a_killed_one_leaves() {
        let drr = device("c1", "", "drr", 16).table;
        assert!(left_by_resize(&device("c1", "", "drr", 24).table, &drr[0]));
        assert!(!left_by_resize(
            &device("c1", "", "thin", 24).table,
            &drr[0]
        ));
        assert!(!left_by_resize(&[], &drr[0]));
    }
}
