// SPDX-License-Identifier: GPL-2.0

//! `attach` and `detach`: drr under a thin device that is in use.
//!
//! The device keeps its name, its node and all who have it open; what changes is its table. A
//! second device gets its thin table (dm-thin lets several devices be one thin device), and it a
//! drr table on that one:
//!
//! ```text
//!     NAME: thin             NAME: drr
//!                    <->       second: thin
//! ```
//!
//! Whenever drrctl ends, by an error or a signal, NAME's table is the one or the other, and active:
//!
//! - The swap is a single request. The kernel suspends NAME, swaps and resumes; if it can't suspend
//!   it, nothing has changed.
//! - The second is open as long as drrctl or NAME's table needs it, and marked to be removed when
//!   the last closes it. So it goes by itself: when drrctl dies, when NAME is detached, removed, or
//!   gets another table from somebody else. Before it is marked there's a moment in which a drrctl
//!   that dies leaves it behind, with nobody having it open: `clean_up` removes that.
//! - The second has no node in /dev, from before its table is active. LVM, blkid and others look at
//!   every node that they find there: they would see NAME's content twice, and LVM refuses to work on a
//!   physical volume that it sees twice. LVM passes over devices by their UUID, too, but only if that
//!   begins as LVM's own, cryptsetup's or Stratis's do, and other programs would take the second for
//!   theirs. Device-mapper finds devices by number and name. lsblk wants something by the device's name
//!   in /dev/mapper, or leaves out the device and all above it: there's a link to its folder in /sys.
//! - A table that was loaded into NAME and isn't active yet does nothing. When NAME is resumed by
//!   somebody it becomes active, which is what was asked for; another table that is loaded takes
//!   its place; it goes with NAME, and so does the second that it has open. `clean_up` clears it.
//!
//! In-flight I/O is waited for, and what comes meanwhile takes the way of the new table. It could be
//! had back from dm-thin (NOFLUSH), but if such a suspension is given up, because something below
//! hangs, the kernel fails the I/O: the wait is given up instead, and nothing has happened. File
//! systems are not frozen, as no state on the disk matters.
//!
//! [`device`] looks at a device, [`second`] makes the second, [`swap`] swaps tables, [`step`] stops
//! at a step of these for a test, and [`clean_up`] removes what was left behind.

pub mod clean_up;
pub mod device;
pub mod second;
mod step;
pub mod swap;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use drr_dm::{Device, Line};

use crate::answers::table;
use crate::commands::attach::clean_up::clean_up_if_need_be;
use crate::commands::attach::device::{gone, number_of, only, ready, second_of, thin_of};
use crate::commands::attach::second::{forget_links, Second};
use crate::commands::attach::swap::{swap, PATIENCE};
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::{self, SECOND};
use crate::device_mapper::runtime::{self, Change, Lock, Mark};
use crate::error::{Code, Error, Result};

/// The thin table of a device that drr can be attached to.
fn attachable(control: &Control, device: &Device) -> Result<Line> {
    let name = &device.name;
    let wrong = |why: &str, remedy: String| Error::new(Code::WrongKind, name, why, remedy);
    if device.uuid.starts_with(SECOND) {
        return Err(wrong(
            "is the thin device below an attached one",
            "name that one: 'drrctl list' shows it".to_string(),
        ));
    }
    if let Some(line) = only(&device.table, "drr") {
        return Err(match second_of(line) {
            Some(_) => Error::new(
                Code::InUse,
                name,
                "drr is attached to it already",
                format!("to attach it with other features: drrctl detach {name} first"),
            ),
            None => wrong(
                "is a drr device itself",
                "name a thin device: 'dmsetup ls --target thin' shows them".to_string(),
            ),
        });
    }
    let Some(line) = only(&device.table, "thin") else {
        return Err(wrong(
            &format!(
                "is not a thin device, but a {}",
                inventory::kind(&device.table)
            ),
            "name an active thin device: 'dmsetup ls --target thin' shows them".to_string(),
        ));
    };
    if device.uuid.starts_with("LVM-") {
        return Err(wrong(
            "is a volume of LVM, which wants its tables as it made them",
            format!("put a drr device on top of it: drrctl create NEW-NAME {name}"),
        ));
    }
    for holder in holders(device) {
        let above = control.device(&holder);
        if above.is_ok_and(|above| above.table.iter().any(|line| line.target == "drr")) {
            return Err(Error::new(
                Code::InUse,
                name,
                format!("the drr device {holder} is on top of it"),
                "use that one, or remove it first: drrctl remove",
            ));
        }
    }
    ready(device)?;
    Ok(line.clone())
}

/// Names of the device-mapper devices on top of a device.
fn holders(device: &Device) -> Vec<String> {
    let entries = fs::read_dir(runtime::sys(device.number).join("holders"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok())
        .filter_map(|number| runtime::name(number_of(number.trim_end())?))
        .collect()
}

/// Attaches drr to a thin device.
pub fn attach(control: &Control, text: &str, features: &[&str]) -> Result<()> {
    let lock = runtime::lock()?;
    clean_up_if_need_be(control, &lock)?;
    let device = inventory::device(control, text)?;
    attach_to(control, &lock, &device, features)?;
    if let Some(sequence) = runtime::sequence(device.number) {
        Mark::Detached.remove(sequence);
    }
    Ok(())
}

/// The same, for one that holds the lock.
pub fn attach_to(control: &Control, lock: &Lock, device: &Device, features: &[&str]) -> Result<()> {
    let thin = attachable(control, device)?;
    let sequence = runtime::sequence(device.number).ok_or_else(|| gone(&device.name))?;
    let change = Change::begin(lock)?;
    let second = Second::new(control, device, sequence, &thin)?;
    Mark::Attached.put(sequence)?;
    let below = format!("{}:{}", second.number.0, second.number.1);
    let line = Line {
        target: "drr".to_string(),
        arguments: table::drr_arguments(&below, features),
        ..thin
    };
    if let Err(error) = swap(control, device, &line, ["staged", "swapped"]) {
        second.give_up();
        return Err(error);
    }
    change.done();
    Ok(())
}

/// Takes it out again.
pub fn detach(control: &Control, text: &str) -> Result<()> {
    let lock = runtime::lock()?;
    clean_up_if_need_be(control, &lock)?;
    let device = inventory::device(control, text)?;
    let name = &device.name;
    let not_attached = |remedy: &str| {
        Error::new(
            Code::WrongKind,
            name,
            format!(
                "drr is not attached to it; it is a {}",
                inventory::kind(&device.table)
            ),
            remedy,
        )
    };
    let Some(drr) = only(&device.table, "drr") else {
        return Err(not_attached("'drrctl list' shows where it is"));
    };
    let Some(second) = second_of(drr) else {
        return Err(not_attached(
            "a device that 'drrctl create' made is removed by 'drrctl remove'",
        ));
    };
    ready(&device)?;
    let below = control.device(&second)?;
    let thin = thin_of(&below)?;
    let sequence = runtime::sequence(device.number).ok_or_else(|| gone(name))?;
    let line = Line {
        length: drr.length,
        ..thin.clone()
    };
    let change = Change::begin(&lock)?;
    // before: the swap is an event that `watch` acts on
    Mark::Detached.put(sequence)?;
    if let Err(error) = swap(control, &device, &line, ["staged", "swapped"]) {
        Mark::Detached.remove(sequence);
        return Err(error);
    }
    change.done();
    settle(control, sequence)
}

/// Waits until the second devices of a disk are gone. The kernel removes them in a worker of its
/// own, within milliseconds; after that the thin device can be deleted from its pool.
pub fn settle(control: &Control, sequence: u64) -> Result<()> {
    let prefix = format!("{SECOND}{sequence}-");
    let end = Instant::now() + PATIENCE;
    while control.has_uuid(&prefix)? {
        if Instant::now() >= end {
            return Err(Error::new(
                Code::InUse,
                format!("the thin device with UUID {prefix}*"),
                "somebody has it open, so it isn't removed yet",
                "nothing has to be done: it goes when it is closed",
            ));
        }
        sleep(Duration::from_millis(5));
    }
    forget_links();
    Mark::Attached.remove(sequence);
    Ok(())
}
