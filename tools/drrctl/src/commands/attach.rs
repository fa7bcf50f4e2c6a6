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

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drr_dm::{Device, Flags, Line, Number};
use nix::sys::signal::{
    self, SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::answers::table;
use crate::device_mapper::control::{self, explain, Control};
use crate::device_mapper::inventory::{self, SECOND};
use crate::device_mapper::requests::Audience;
use crate::device_mapper::runtime::{self, Change, Lock, Mark};
use crate::error::{Code, Error, Result};

/// How long others' I/O may hold up the swap, and the swap others' I/O.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a second device that nobody needs may take to go.
const GOING: Duration = Duration::from_secs(1);

/// For tests: stops itself at this step, to be killed or continued. Harmless, as any step may be
/// its last anyway.
fn step(name: &str) {
    if std::env::var("DRRCTL_STOP_AT").is_ok_and(|wanted| wanted == name) {
        let _ = signal::raise(Signal::SIGSTOP);
    }
}

/// The only line of a table, if it has that target.
pub fn only<'a>(table: &'a [Line], target: &str) -> Option<&'a Line> {
    match table {
        [line] if line.target == target && line.start == 0 => Some(line),
        _ => None,
    }
}

pub fn number_of(text: &str) -> Option<Number> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The name of the second device that a table line is on.
fn second_of(line: &Line) -> Option<String> {
    let number = number_of(&table::drr(&line.arguments)?.thin)?;
    let uuid = runtime::attribute(number, "dm/uuid")?;
    uuid.starts_with(SECOND)
        .then(|| runtime::attribute(number, "dm/name"))?
}

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

/// The table of the device below a drr device.
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

/// Nobody else is at work on its tables.
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

fn gone(name: &str) -> Error {
    Error::new(
        Code::NotThere,
        name,
        "it went away meanwhile",
        "there is nothing left to do",
    )
}

/// A second device, and what keeps it: it goes when both this and the table above are gone.
struct Second<'a> {
    control: &'a Control,
    name: String,
    number: Number,
    /// Keeps it, once it's marked to be removed.
    open: Option<File>,
}

impl<'a> Second<'a> {
    fn new(control: &'a Control, above: &Device, sequence: u64, line: &Line) -> Result<Self> {
        // those of earlier attachments may be on their way out
        let (name, number) = (0..1000)
            .find_map(|count| {
                let name = second_name(&above.name, sequence, count);
                match control.make(&name, &format!("{SECOND}{sequence}-{count}")) {
                    Ok(made) => made.map(|number| Ok((name, number))),
                    Err(error) => Some(Err(error)),
                }
            })
            .unwrap_or_else(|| {
                Err(Error::new(
                    Code::InUse,
                    &above.name,
                    "there is no free name for the device below it",
                    "'dmsetup ls' shows what is named drr-*: remove what isn't needed",
                ))
            })?;
        let mut second = Self {
            control,
            name,
            number,
            open: None,
        };
        step("made");
        control.load(&second.name, line, above.read_only)?;
        step("loaded");
        let file = second.open_and_hide()?;
        step("opened");
        control
            .resume(&second.name, Flags::NONE, Audience::Nobody)
            .map_err(|error| explain(&second.name, "activate", &error))?;
        step("activated");
        hide_number(number);
        control.remove_later(&second.name)?;
        second.open = Some(file);
        step("deferred");
        Ok(second)
    }

    /// Opens it, and removes its node from /dev.
    fn open_and_hide(&self) -> Result<File> {
        let node = format!("/dev/dm-{}", self.number.1);
        let failed = |error: std::io::Error| {
            Error::new(
                Code::Failed,
                &node,
                error.to_string(),
                "/dev has to be a devtmpfs, or looked after by udev, and root has to be able to write to it",
            )
        };
        let file = File::open(&node).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let (major, minor) = self.number;
        if !found.file_type().is_block_device() || found.rdev() != libc::makedev(major, minor) {
            return Err(Error::new(
                Code::Failed,
                &node,
                format!("is not the node of the block device {major}:{minor}"),
                "/dev has to be a devtmpfs, or looked after by udev",
            ));
        }
        // no other device gets the number while it is open, but one may have it already
        if runtime::attribute(self.number, "dm/name").as_deref() != Some(self.name.as_str()) {
            return Err(gone(&self.name));
        }
        fs::remove_file(&node).map_err(failed)?;
        // nothing but lsblk misses it
        let link = control::node(&self.name);
        let _ = fs::remove_file(&link);
        let _ = symlink(runtime::sys(self.number), link);
        Ok(file)
    }
}

/// Makes udev's link to a second device, by its number, one to the device's folder in /sys. Else it would lead
/// nowhere: libvirt gives a virtual machine access to all that its disk is on, looks these up by number, and
/// doesn't start one whose disk is on something that isn't there; what is no device it leaves alone. udev
/// makes the link anew with each event of the device, and then its rule does the same.
fn hide_number((major, minor): Number) {
    let link = format!("/dev/block/{major}:{minor}");
    if fs::symlink_metadata(&link).is_ok() {
        let new = format!("{link}.drrctl");
        let _ = fs::remove_file(&new);
        let _ = symlink(runtime::sys((major, minor)), &new).and_then(|()| fs::rename(&new, &link));
    }
}

/// Removes the links of second devices that are gone.
pub fn forget_links() {
    let entries = fs::read_dir(control::FOLDER).into_iter().flatten();
    for link in entries.flatten().map(|entry| entry.path()) {
        let folder = match fs::read_link(&link) {
            Ok(folder) if folder.starts_with(runtime::DEVICES) => folder,
            _ => continue, // a node, or a link to one
        };
        let name = fs::read_to_string(folder.join("dm/name")).unwrap_or_default();
        if link.file_name() != Some(OsStr::new(name.trim_end_matches('\n'))) {
            let _ = fs::remove_file(link);
        }
    }
}

impl Second<'_> {
    /// Nothing has come of it: waits a while until it is gone, so that the thin device can be deleted from its pool.
    /// Its name and UUID go before the thin device is closed, its folder after that.
    fn give_up(self) {
        let number = self.number;
        drop(self);
        let end = Instant::now() + GOING;
        let is_there = || {
            let uuid = runtime::attribute(number, "dm/uuid");
            runtime::sys(number).exists() && uuid.is_none_or(|uuid| uuid.starts_with(SECOND))
        };
        while is_there() && Instant::now() < end {
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        // not marked yet, if something failed early
        if self.open.take().is_none() {
            let _ = self.control.remove_later(&self.name);
        }
    }
}

/// Tells what it's for; of characters that no tool minds.
fn second_name(above: &str, sequence: u64, count: u32) -> String {
    let above: String = above
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '+' | '@' | '=' | ':' => c,
            _ => '_',
        })
        .take(80)
        .collect();
    format!("drr-{above}-{sequence}.{count}")
}

/// Interrupts a request that doesn't come to its end. The kernel then takes it back.
struct Limit(#[allow(dead_code)] Timer);

extern "C" fn nothing(_: libc::c_int) {}

impl Limit {
    fn new() -> nix::Result<Self> {
        // without SA_RESTART
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing
        unsafe { signal::sigaction(Signal::SIGALRM, &action) }?;
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        // again and again, as the first may come when nothing waits yet
        timer.set(
            Expiration::IntervalDelayed(
                TimeSpec::from_duration(PATIENCE),
                TimeSpec::from_duration(Duration::from_secs(1)),
            ),
            TimerSetTimeFlags::empty(),
        )?;
        Ok(Self(timer))
    }
}

/// Loads a table into a device and makes it the active one, if the device still has `before`. The
/// steps are those after the one and the other.
pub fn swap(control: &Control, before: &Device, line: &Line, steps: [&str; 2]) -> Result<()> {
    let name = &before.name;
    let audience = if before.uuid.starts_with(SECOND) {
        Audience::Nobody
    } else {
        Audience::All
    };
    control.load(name, line, before.read_only)?;
    step(steps[0]);
    let undo = |error: Error| {
        let _ = control.clear(name);
        error
    };
    // as late as can be: who suspends it takes a snapshot, and it must not be resumed by us
    let now = control.device(name).map_err(undo)?;
    if now.suspended {
        return Err(undo(ready(&now).err().unwrap_or_else(|| gone(name))));
    }
    if now.table != before.table || now.number != before.number {
        return Err(undo(Error::new(
            Code::InUse,
            name,
            "somebody else changed its table meanwhile",
            "try again when that is done",
        )));
    }
    let limit = Limit::new();
    let done = control.resume(name, Flags::SKIP_LOCKFS, audience);
    drop(limit);
    if before.uuid.starts_with(SECOND) {
        hide_number(before.number);
    }
    step(steps[1]);
    let Err(error) = done else {
        return Ok(());
    };
    let Ok(after) = control.device(name) else {
        return Err(gone(name));
    };
    if same(&after.table, line) && !after.suspended {
        return Ok(()); // it's udev that didn't answer
    }
    let _ = control.clear(name);
    if after.suspended {
        // the kernel refused the table when it had suspended the device already
        if after.table != before.table {
            if let [old] = &before.table[..] {
                let _ = control.load(name, old, before.read_only);
            }
        }
        let _ = control.resume(name, Flags::NONE, audience);
    }
    Err(match error.number {
        Some(libc::EINTR) => Error::new(
            Code::InUse,
            name,
            format!("its I/O did not end within {} seconds", PATIENCE.as_secs()),
            "look whether its pool is out of space: dmsetup status --target thin-pool",
        ),
        _ => explain(name, "swap the table of", &error),
    })
}

fn same(table: &[Line], line: &Line) -> bool {
    only(table, &line.target).is_some_and(|is| {
        let first = |text: &str| text.split(' ').next().map(str::to_string);
        is.length == line.length && first(&is.arguments) == first(&line.arguments)
    })
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

/// Removes what a drrctl left behind that was killed; nothing that is in use. What it finds is
/// nobody's, as who makes it holds the lock. Returns the names of the devices concerned.
///
/// A loaded table is seen by asking its device only, so this asks all that there are.
pub fn clean_up(control: &Control, lock: &Lock) -> Result<Vec<String>> {
    runtime::forget_gone();
    forget_links();
    let (mut found, mut all_clean) = (Vec::new(), true);
    let devices: Vec<_> = control
        .devices()?
        .into_iter()
        .filter_map(|(name, _)| control.device(&name).ok())
        .collect();
    for device in devices.iter().filter(|device| device.staged) {
        let Ok(staged) = control.staged(&device.name) else {
            continue; // it's gone
        };
        if is_ours(&devices, device, &staged) {
            match control.clear(&device.name) {
                Ok(()) => found.push(device.name.clone()),
                Err(error) => all_clean &= error.code == Code::NotThere,
            }
        }
    }
    for device in devices {
        // a drrctl that was killed while the kernel swapped its tables, for `resize`; nobody else suspends it
        if device.uuid.starts_with(SECOND) && device.suspended {
            let _ = control.resume(&device.name, Flags::NONE, Audience::Nobody);
            found.push(device.name.clone());
        }
        if device.uuid.starts_with(SECOND) && !device.open {
            control.remove_later(&device.name).or_else(|error| {
                // it may be going by itself
                (error.code == Code::NotThere).then_some(()).ok_or(error)
            })?;
            found.push(device.name);
        }
    }
    if all_clean {
        runtime::set_clean(lock);
    }
    Ok(found)
}

/// The same, unless every drrctl since then has said that it left nothing.
pub fn clean_up_if_need_be(control: &Control, lock: &Lock) -> Result<()> {
    runtime::forget_if_many();
    match runtime::is_clean(lock) {
        true => forget_links(),
        false => drop(clean_up(control, lock)?),
    }
    Ok(())
}

/// A table that is loaded and not active: is it drrctl's? One of or on a second device is. One that
/// makes the device what the second below it is would change nothing that matters.
fn is_ours(devices: &[Device], device: &Device, staged: &[Line]) -> bool {
    let on_second = only(staged, "drr").is_some_and(|line| second_of(line).is_some());
    if on_second || device.uuid.starts_with(SECOND) {
        return true;
    }
    let below = only(&device.table, "drr").and_then(second_of);
    let second = devices.iter().find(|it| Some(&it.name) == below.as_ref());
    let thin = only(staged, "thin");
    thin.is_some() && thin == second.and_then(|second| only(&second.table, "thin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, arguments: &str) -> Line {
        Line {
            start: 0,
            length: 8,
            target: target.into(),
            arguments: arguments.into(),
        }
    }

    #[test]
    fn names_of_second_devices() {
        assert_eq!(second_name("pool-snap-1", 7, 0), "drr-pool-snap-1-7.0");
        assert_eq!(second_name("my\\x20dev", 7, 1), "drr-my_x20dev-7.1");
        let long = second_name(&"ä".repeat(127), u64::MAX, 999);
        assert!(long.len() < 128 && long.is_ascii(), "{long}");
    }

    #[test]
    fn tables_are_recognised() {
        let two = [line("thin", "253:1 7"), line("linear", "8:1 0")];
        assert!(only(&two, "thin").is_none());
        assert!(only(&two[..1], "thin").is_some());
        assert!(only(&two[..1], "drr").is_none());
        assert!(same(
            &[line("drr", "253:9 1 paranoid")],
            &line("drr", "253:9")
        ));
        assert!(!same(&[line("drr", "253:8")], &line("drr", "253:9")));
        let longer = Line {
            length: 16,
            ..line("drr", "253:9")
        };
        assert!(!same(&[line("drr", "253:9")], &longer));
        assert!(!same(&[line("thin", "253:9 1")], &line("drr", "253:9")));
        assert_eq!(number_of("253:12"), Some((253, 12)));
        assert_eq!(number_of("253"), None);
    }

    #[test]
    fn who_is_busy_is_left_alone() {
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
