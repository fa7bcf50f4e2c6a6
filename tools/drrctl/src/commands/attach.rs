// SPDX-License-Identifier: GPL-2.0

//! `attach` and `detach`: put drr under a thin device that is in use, and take it out again.
//!
//! The device keeps its name and its node, and stays open; only its table changes. Its thin table
//! goes to a *second device* (in dm-thin, several devices may be the same thin device), and the
//! device itself gets a drr table on the second device:
//!
//! ```text
//!     NAME: thin             NAME: drr
//!                    <->       second: thin
//! ```
//!
//! Whenever drrctl ends, by an error or by a signal, NAME has one of these tables, and the table is
//! active:
//!
//! - *The swap is a single request.* The kernel suspends NAME, swaps the tables, and resumes NAME.
//!   If NAME can't be suspended, nothing has changed.
//! - *The second device goes by itself.* It is open as long as drrctl or NAME's table needs it, and
//!   marked to be removed when it is closed for the last time: when drrctl is killed, or when NAME
//!   is detached, is removed, or gets another table from another program. If drrctl is killed
//!   before the device is marked, the device is left behind, not open, and `clean_up` removes it.
//! - *The second device has no node in /dev*, from before its table is active. LVM, blkid and other
//!   programs look at each node that they find there. They would see NAME's content twice, and LVM
//!   refuses to work on a physical volume that it sees twice. LVM also skips devices by their
//!   UUIDs, but only if the UUID begins like LVM's own, cryptsetup's or Stratis's, and with one of
//!   these, other programs would take the second device for their own. Device-mapper itself finds
//!   devices by number and name. lsblk leaves out a device that has no entry in /dev/mapper, and
//!   all devices above, so there is a link to the device's folder in /sys.
//! - *A table that is loaded into NAME and isn't active yet* does nothing. It becomes active when
//!   another program resumes NAME, which is what the user has asked for. It goes when another table
//!   is loaded, or when NAME is removed, and closes the second device then. `clean_up` clears it.
//!
//! The swap waits for I/O in flight; I/O that arrives meanwhile passes through the new table.
//! Instead, dm-thin could push I/O in flight back (NOFLUSH). But if a device below hangs and the
//! suspension has to be given up, the kernel fails I/O that was pushed back, while giving up the
//! wait changes nothing. File systems are not frozen, as the swap depends on no state on the disk.
//!
//! [`device`] checks a device, [`second`] makes the second device, [`swap`] swaps tables, [`step`]
//! stops drrctl at a step of these for tests, and [`clean_up`] removes what was left behind.

pub mod clean_up;
pub mod device;
pub mod second;
pub mod step;
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
use crate::commands::upgrade::kept;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::{self, SECOND};
use crate::device_mapper::runtime::{self, Change, Lock, Mark};
use crate::error::{Code, Error, Result};

/// Returns the thin table of a device that drr can be attached to. Fails for other devices.
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

/// Returns the names of the device-mapper devices on top of a device.
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
    kept::keep(&lock);
    if let Some(sequence) = runtime::sequence(device.number) {
        Mark::Detached.remove(sequence);
    }
    Ok(())
}

/// Attaches drr to a thin device. The caller holds the lock for changing devices.
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

/// Returns the thin table that an attached device gets when drr is detached from it. Fails for
/// other devices.
pub fn thin_table(control: &Control, device: &Device) -> Result<Line> {
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
    ready(device)?;
    let below = control.device(&second)?;
    Ok(Line {
        length: drr.length,
        ..thin_of(&below)?.clone()
    })
}

/// Detaches drr from a thin device, and marks the device for `watch`.
pub fn detach(control: &Control, text: &str) -> Result<()> {
    let lock = runtime::lock()?;
    clean_up_if_need_be(control, &lock)?;
    let device = inventory::device(control, text)?;
    let line = thin_table(control, &device)?;
    let sequence = runtime::sequence(device.number).ok_or_else(|| gone(&device.name))?;
    let change = Change::begin(&lock)?;
    // Before the swap, which causes an event that `watch` acts on.
    Mark::Detached.put(sequence)?;
    if let Err(error) = swap(control, &device, &line, ["staged", "swapped"]) {
        Mark::Detached.remove(sequence);
        return Err(error);
    }
    change.done();
    settle(control, sequence)
}

/// Waits until the second devices of a disk are gone, which the kernel removes in a worker within
/// milliseconds. From then on, the thin device can be deleted from its pool. Fails with
/// [`Code::InUse`] after [`PATIENCE`].
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
