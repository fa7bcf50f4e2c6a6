// SPDX-License-Identifier: GPL-2.0

//! The devices: takes drr out of their tables, and puts it back.

use drr_dm::{Device, Line, Number};

use crate::answers::table::{self, DrrTable};
use crate::commands::attach::device::{number_of, only, ready, second_of};
use crate::commands::attach::step::step;
use crate::commands::attach::swap::swap;
use crate::commands::attach::{attach_to, settle, thin_table};
use crate::commands::upgrade::journal;
use crate::device_mapper::control::Control;
use crate::device_mapper::runtime::{self, Change, Lock, Mark};
use crate::error::{Code, Error, Result};
use crate::views::output::print;

/// A thin device, by what is not reused before the next boot. Its number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thin {
    /// Sequence number of its disk.
    pub sequence: u64,
    /// Sequence number of its pool's disk.
    pub pool: u64,
    /// Its id in the pool.
    pub id: u64,
}

impl Thin {
    /// Returns the thin device that has a number, major:minor, now; `None` if there is none.
    fn at(control: &Control, number: &str) -> Option<Self> {
        let number = number_of(number)?;
        let device = control.device(&runtime::name(number)?).ok()?;
        let (pool, id) = table::thin(&only(&device.table, "thin")?.arguments)?;
        (device.number == number).then_some(Self {
            sequence: runtime::sequence(number)?,
            pool: runtime::sequence(number_of(&pool)?)?,
            id,
        })
    }
}

/// How a device is without drr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `attach` has put drr under it: detached.
    Attached,
    /// It is on top of this thin device: a linear device.
    OnTop(Thin),
}

impl How {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Attached => "detached, and attached again",
            Self::OnTop(_) => "dm-linear in between",
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
            held.extend(held_of(&device, |number| Thin::at(control, number))?);
        }
    }
    let foreign: Vec<_> = held
        .iter()
        .filter(|it| matches!(it.how, How::OnTop(_)))
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

/// Parses the arguments of a device's drr table. Fails if they can't be made again from what was
/// understood.
fn drr_table(name: &str, arguments: &str) -> Result<DrrTable> {
    table::drr(arguments)
        .filter(|table| {
            let features: Vec<_> = table.features.iter().map(String::as_str).collect();
            let again = table::drr_arguments(&table.thin, &features);
            again == arguments || (features.is_empty() && format!("{again} 0") == arguments)
        })
        .ok_or_else(|| {
            Error::new(
                Code::Failed,
                name,
                format!("its table isn't understood: drr {arguments}"),
                "use the drrctl that came with the module",
            )
        })
}

/// Returns how a device with a drr table is to be held; `None` if it has gone. `thin_at` returns
/// the thin device that has a number.
fn held_of(device: &Device, thin_at: impl Fn(&str) -> Option<Thin>) -> Result<Option<Held>> {
    let wrong = |why: &str| {
        let remedy = "give it another table first, or remove it";
        Error::new(Code::WrongKind, &device.name, why, remedy)
    };
    let Some(line) = only(&device.table, "drr") else {
        return Err(wrong("has several targets, and drr is one of them"));
    };
    ready(device)?;
    let table = drr_table(&device.name, &line.arguments)?;
    let Some(sequence) = runtime::sequence(device.number) else {
        return Ok(None);
    };
    let how = match second_of(line) {
        Some(_) => How::Attached,
        None => How::OnTop(
            thin_at(&table.thin).ok_or_else(|| wrong("has drr on what isn't a thin device"))?,
        ),
    };
    Ok(Some(Held {
        sequence,
        name: device.name.clone(),
        how,
        arguments: line.arguments.clone(),
    }))
}

/// Adds the devices of an earlier `upgrade`'s journal to those that have drr tables now. The
/// journal may be older than a device's table, and doesn't count for these.
pub fn with_earlier(found: Vec<Held>, journal: Vec<Held>) -> Vec<Held> {
    let is_new = |old: &Held| found.iter().all(|it| it.sequence != old.sequence);
    let mut held: Vec<_> = journal.into_iter().filter(is_new).collect();
    held.extend(found);
    held
}

/// Returns the device as it is now, under whatever name; `None` if it has gone.
fn now(control: &Control, held: &Held) -> Result<Option<Device>> {
    match control.device(&held.name) {
        Ok(device) if runtime::sequence(device.number) == Some(held.sequence) => {
            return Ok(Some(device))
        }
        Err(error) if error.code != Code::NotThere => return Err(error),
        _ => {}
    }
    named(held.sequence, control.devices()?, runtime::sequence)
        .map(|name| control.device(&name))
        .transpose()
}

/// Returns the name of the disk with a sequence number. `sequence_of` returns that of a device.
fn named(
    sequence: u64,
    devices: Vec<(String, Number)>,
    sequence_of: impl Fn(Number) -> Option<u64>,
) -> Option<String> {
    let mut devices = devices.into_iter();
    devices
        .find(|(_, number)| sequence_of(*number) == Some(sequence))
        .map(|(name, _)| name)
}

/// How often a device is looked for that is renamed all the time.
const TRIES: u32 = 3;

/// Does something to a device as it is now. Does it again if the device was renamed meanwhile.
/// Returns `None` if the device has gone.
fn to_it<T>(
    now: impl Fn() -> Result<Option<Device>>,
    act: impl Fn(&Device) -> Result<T>,
) -> Result<Option<T>> {
    let mut tries = 0;
    loop {
        let acted = now().and_then(|device| device.as_ref().map(&act).transpose());
        tries += 1;
        match acted {
            Err(error) if error.code == Code::NotThere && tries < TRIES => {}
            acted => return acted,
        }
    }
}

/// Gives a device a table without drr. Does nothing if it has one, or has gone.
pub fn take_out(control: &Control, lock: &Lock, held: &Held) -> Result<()> {
    let taken = to_it(
        || now(control, held),
        |device| take_out_of(control, lock, held, device),
    );
    taken.map(|_| ())
}

fn take_out_of(control: &Control, lock: &Lock, held: &Held, device: &Device) -> Result<()> {
    let Some(drr) = only(&device.table, "drr") else {
        return Ok(());
    };
    if drr.arguments != held.arguments {
        return Err(Error::new(
            Code::InUse,
            &device.name,
            "somebody else changed its table meanwhile",
            "try again when that is done",
        ));
    }
    let line = match held.how {
        How::Attached => thin_table(control, device)?,
        How::OnTop(_) => Line {
            target: "linear".to_string(),
            arguments: in_between(&drr_table(&device.name, &drr.arguments)?),
            ..drr.clone()
        },
    };
    let change = Change::begin(lock)?;
    swap(control, device, &line, ["staged", "swapped"])?;
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

/// Returns the arguments of the linear table that a device on top has in a drr table's place.
fn in_between(table: &DrrTable) -> String {
    format!("{} 0", table.thin)
}

/// Returns the line of the linear table that [`take_out`] has given to a device on top of `thin`;
/// `None` if the device has another table by now, or if the number in it is another device's.
/// `there` is the thin device that has the number.
fn linear_of<'a>(
    device: &'a Device,
    table: &DrrTable,
    thin: Thin,
    there: Option<Thin>,
) -> Option<&'a Line> {
    only(&device.table, "linear")
        .filter(|line| line.arguments == in_between(table) && there == Some(thin))
}

/// Devices that couldn't be given their drr tables back.
pub struct Left {
    pub held: Vec<Held>,
    /// The error of the first of them; of the first that dm-drr refuses, if it refuses any.
    pub error: Error,
    /// Whether dm-drr refuses one of them, rather than another program being at work on each.
    pub is_refused: bool,
}

impl Left {
    /// Returns the devices that were left, and why.
    fn new(left: Vec<(Held, Error)>) -> Option<Self> {
        let (held, mut errors): (Vec<_>, Vec<_>) = left.into_iter().unzip();
        let refuses = |error: &Error| matches!(error.code, Code::Failed | Code::NotLoaded);
        let refused = errors.iter().position(refuses);
        (!errors.is_empty()).then(|| Self {
            held,
            error: errors.swap_remove(refused.unwrap_or(0)),
            is_refused: refused.is_some(),
        })
    }
}

/// What has become of a device that was to have its drr table back.
enum Put {
    /// It has a drr table, or was detached by a user.
    Done,
    /// Somebody has given it another table since, which it keeps.
    Changed,
}

/// Gives all devices their drr tables back: those that don't have them, and are still there. The
/// journal keeps those that couldn't be given theirs, which are returned; `None` if there are none.
pub fn put_back(control: &Control, lock: &Lock, held: &[Held]) -> Option<Left> {
    let mut left = Vec::new();
    for (count, device) in held.iter().enumerate() {
        let put = to_it(
            || now(control, device),
            |it| put_one_back(control, lock, device, it),
        );
        match put {
            Err(error) => left.push((device.clone(), error)),
            Ok(Some(Put::Changed)) => {
                let name = &device.name;
                let text = format!("device  {name}  has another table by now, and keeps it\n");
                let _ = print(text.as_bytes());
            }
            _ => {}
        }
        // If this fails, the journal names devices that have drr, which does no harm.
        let without = left.iter().map(|(device, _)| device);
        let without: Vec<_> = without.chain(&held[count + 1..]).cloned().collect();
        let _ = journal::write(&without);
        step("put-back");
    }
    Left::new(left)
}

fn put_one_back(control: &Control, lock: &Lock, held: &Held, device: &Device) -> Result<Put> {
    // A user may have detached it since an upgrade that was interrupted.
    let has_it = device.table.iter().any(|line| line.target == "drr");
    if has_it || Mark::Detached.is_on(held.sequence) {
        return Ok(Put::Done);
    }
    let table = drr_table(&device.name, &held.arguments)?;
    match held.how {
        How::Attached if only(&device.table, "thin").is_none() => return Ok(Put::Changed),
        How::Attached => {
            let features: Vec<_> = table.features.iter().map(String::as_str).collect();
            attach_to(control, lock, device, &features)?;
        }
        How::OnTop(thin) => {
            let there = Thin::at(control, &table.thin);
            let Some(linear) = linear_of(device, &table, thin, there) else {
                return Ok(Put::Changed);
            };
            ready(device)?;
            let line = Line {
                target: "drr".to_string(),
                arguments: held.arguments.clone(),
                ..linear.clone()
            };
            let change = Change::begin(lock)?;
            swap(control, device, &line, ["staged", "swapped"])?;
            change.done();
        }
    }
    Ok(Put::Done)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::commands::attach::device::tests::line;

    /// Returns the error for a device that can't be held.
    fn refused(device: &Device) -> String {
        held_of(device, |_| None).expect_err("refused").to_string()
    }

    #[test]
    fn devices_that_cannot_be_held() {
        let mut device = Device {
            name: "c1".into(),
            table: vec![line("drr", "253:9"), line("linear", "8:1 0")],
            ..Device::default()
        };
        let error = refused(&device);
        assert!(error.starts_with("c1: has several targets"), "{error}");
        device.table.pop();
        device.suspended = true;
        let error = refused(&device);
        assert!(error.contains("dmsetup resume c1"), "{error}");
        device.suspended = false;
        for odd in [
            "",
            "253:9 paranoid",
            "253:9 2 paranoid",
            "253:9 1 paranoid x",
            "253:9 0 x",
        ] {
            device.table = vec![line("drr", odd)];
            let error = refused(&device);
            assert!(
                error.contains(&format!("isn't understood: drr {odd}:")),
                "{error}"
            );
        }
        assert!(drr_table("c1", "253:9 0").is_ok() && drr_table("c1", "253:9 1 x").is_ok());
    }

    #[test]
    fn tables_in_use_count_more_than_the_journal() {
        let held = |sequence, arguments: &str| Held {
            sequence,
            name: "c1".into(),
            how: How::Attached,
            arguments: arguments.into(),
        };
        let journal = vec![held(1, "253:4"), held(2, "253:5")];
        let found = vec![held(1, "253:9 1 paranoid"), held(3, "253:6")];
        let all = vec![
            held(2, "253:5"),
            held(1, "253:9 1 paranoid"),
            held(3, "253:6"),
        ];
        assert_eq!(with_earlier(found, journal.clone()), all);
        assert_eq!(with_earlier(Vec::new(), journal.clone()), journal);
    }

    #[test]
    fn only_the_linear_table_of_the_upgrade_is_replaced() {
        let thin = Thin {
            sequence: 7,
            pool: 3,
            id: 1,
        };
        let table = drr_table("top", "253:4 1 paranoid").expect("a table");
        let is_replaced = |lines: &[Line], there| {
            let device = Device {
                table: lines.to_vec(),
                ..Device::default()
            };
            linear_of(&device, &table, thin, there).is_some()
        };
        let own = [line("linear", "253:4 0")];
        assert!(is_replaced(&own, Some(thin)));
        for other in ["253:5 0", "253:4 8", "8:1 0"] {
            assert!(
                !is_replaced(&[line("linear", other)], Some(thin)),
                "{other}"
            );
        }
        assert!(!is_replaced(&[line("crypt", "253:4 0")], Some(thin)));
        assert!(!is_replaced(&[&own[..], &own].concat(), Some(thin)));
        // The number is another device's, or the thin device has another table.
        assert!(!is_replaced(&own, None));
        for other in [
            Thin {
                sequence: 8,
                ..thin
            },
            Thin { pool: 4, ..thin },
            Thin { id: 2, ..thin },
        ] {
            assert!(!is_replaced(&own, Some(other)), "{other:?}");
        }
    }

    #[test]
    fn devices_are_found_under_other_names() {
        let devices = || vec![("a".to_string(), (253, 1)), ("b".to_string(), (253, 2))];
        let sequence_of = |number: Number| Some(u64::from(number.1) + 10);
        assert_eq!(named(12, devices(), sequence_of).as_deref(), Some("b"));
        assert_eq!(named(13, devices(), sequence_of), None);
        assert_eq!(named(12, devices(), |_| None), None);
    }

    #[test]
    fn devices_that_are_renamed_are_not_gone() {
        let not_there = || Error::new(Code::NotThere, "c1", "", "");
        let count = Cell::new(0);
        // It is renamed after each of the first looks.
        let renamed = |times| {
            count.set(0);
            let now = || {
                count.set(count.get() + 1);
                Ok(Some(Device::default()))
            };
            to_it(now, |_| match count.get() > times {
                true => Ok(count.get()),
                false => Err(not_there()),
            })
        };
        assert_eq!(renamed(0).expect("done"), Some(1));
        assert_eq!(renamed(2).expect("done"), Some(3));
        assert_eq!(renamed(3).expect_err("too often").code, Code::NotThere);
        // Between the list and the look.
        let now = || match count.replace(count.get() + 1) {
            4.. => Ok(Some(Device::default())),
            _ => Err(not_there()),
        };
        count.set(3);
        assert_eq!(to_it(now, |_| Ok(())).expect("done"), Some(()));
        assert_eq!(to_it(|| Ok(None), |_| Ok(())).expect("done"), None);
        let busy = |_: &Device| -> Result<()> { Err(Error::new(Code::InUse, "c1", "", "")) };
        count.set(4);
        assert_eq!(to_it(now, busy).expect_err("busy").code, Code::InUse);
        assert_eq!(count.get(), 5);
    }

    #[test]
    fn what_dm_drr_refuses_is_told_from_devices_in_use() {
        let left = |codes: &[Code]| {
            let held = Held {
                sequence: 1,
                name: "c1".into(),
                how: How::Attached,
                arguments: "253:4".into(),
            };
            let error = |code: &Code| Error::new(*code, "c1", format!("{code:?}"), "");
            Left::new(codes.iter().map(|it| (held.clone(), error(it))).collect())
        };
        assert!(left(&[]).is_none());
        let busy = left(&[Code::InUse, Code::WrongKind]).expect("left");
        assert!(!busy.is_refused && busy.error.code == Code::InUse);
        let refused = left(&[Code::InUse, Code::Failed]).expect("left");
        assert!(refused.is_refused && refused.error.code == Code::Failed);
        assert_eq!(refused.held.len(), 2);
    }
}
