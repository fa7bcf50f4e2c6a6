// SPDX-License-Identifier: GPL-2.0

//! The state that processes of drrctl share, in /run/drrctl:
//!
//! - a lock, so that one process at a time changes devices,
//! - marks of devices that drr was attached to, for udev's rule, and of devices that a user has
//!   detached, which `watch` leaves alone,
//! - the file `clean`, which says that no killed process has left anything behind.
//!
//! Devices are marked by the sequence numbers of their disks. Unlike names and numbers of devices,
//! these are not reused before the next boot, which also empties /run.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drr_dm::name::escaped;
use drr_dm::Number;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::device_mapper::control;
use crate::device_mapper::with_udev::udev_runs;
use crate::error::{Code, Error, Result};

const FOLDER: &str = "/run/drrctl";
/// Path of the file whose lock `watch` holds.
pub const WATCH: &str = "/run/drrctl/watch";

/// A lock on a file, which is held until the value is dropped or the process ends.
pub struct Lock(#[allow(dead_code)] Flock<File>);

/// Returns the error for a file in /run.
fn failed(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == ErrorKind::PermissionDenied {
        return control::not_permitted();
    }
    Error::new(
        Code::Failed,
        path.display().to_string(),
        error.to_string(),
        "/run has to be a folder that root can write to",
    )
}

/// Opens a file to lock, and creates the folders if need be.
fn open(name: &str) -> Result<(PathBuf, File)> {
    for mark in [Mark::Attached, Mark::Detached] {
        let folder = mark.folder();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)
            .map_err(|error| failed(&folder, &error))?;
    }
    let path = Path::new(FOLDER).join(name);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed(&path, &error))?;
    Ok((path, file))
}

/// Takes the lock for changing devices. Waits until no other process has it.
pub fn lock() -> Result<Lock> {
    let (path, mut file) = open("lock")?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(Lock(lock)),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, error)) => return Err(failed(&path, &error.into())),
        }
    }
}

/// Returns the path of the file that says that nothing was left behind.
fn clean() -> PathBuf {
    Path::new(FOLDER).join("clean")
}

/// A change of devices that is under way. If [`Self::done`] is not called, because drrctl was
/// killed or something failed, the next process has to look at all devices for what was left
/// behind.
pub struct Change {
    was_clean: bool,
}

impl Change {
    /// Begins a change.
    pub fn begin(_lock: &Lock) -> Result<Self> {
        let path = clean();
        match fs::remove_file(&path) {
            Ok(()) => Ok(Self { was_clean: true }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { was_clean: false }),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// Ends a change that has left nothing behind.
    pub fn done(self) {
        if self.was_clean {
            let _ = fs::write(clean(), "");
        }
    }
}

/// Returns whether all changes since [`set_clean`] have ended without leaving anything behind.
pub fn is_clean(_lock: &Lock) -> bool {
    clean().exists()
}

/// Notes that all devices were looked at, and that nothing is left behind.
pub fn set_clean(_lock: &Lock) {
    let _ = fs::write(clean(), "");
}

/// Takes the lock of `watch`. Fails with [`Code::InUse`] if another `watch` is running.
pub fn lock_watch() -> Result<Lock> {
    let (path, file) = open("watch")?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Lock(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::new(
            Code::InUse,
            "drrctl watch",
            "is running already",
            "stop that one first: systemctl stop drrctl-watch",
        )),
        Err((_, error)) => Err(failed(&path, &error.into())),
    }
}

/// The folder in /sys that has a folder for each block device, named by its number.
pub const DEVICES: &str = "/sys/dev/block";

/// Returns the folder of a block device in /sys.
pub fn sys((major, minor): Number) -> PathBuf {
    Path::new(DEVICES).join(format!("{major}:{minor}"))
}

/// Returns the content of a file in a block device's folder in /sys, without the newline at its
/// end; `None` if the device has gone, or has no such file.
pub fn attribute(number: Number, name: &str) -> Option<String> {
    let text = fs::read_to_string(sys(number).join(name)).ok()?;
    Some(text.trim_end_matches('\n').to_string())
}

/// Returns the name of a device-mapper device, as [`control::Control`] takes it; `None` if the
/// device has gone.
pub fn name(number: Number) -> Option<String> {
    let name = fs::read(sys(number).join("dm/name")).ok()?;
    Some(escaped(name.strip_suffix(b"\n").unwrap_or(&name)))
}

/// Returns the sequence number of a disk, which no other disk has before the next boot.
pub fn sequence(number: Number) -> Option<u64> {
    attribute(number, "diskseq")?.parse().ok()
}

/// A mark of a disk. Its folder has an empty file for each marked disk, named by the disk's
/// sequence number.
#[derive(Clone, Copy)]
pub enum Mark {
    /// Drr was attached to the device.
    Attached,
    /// A user has detached drr from the device.
    Detached,
}

impl Mark {
    fn folder(self) -> PathBuf {
        Path::new(FOLDER).join(match self {
            Self::Attached => "attached",
            Self::Detached => "detached",
        })
    }

    fn path(self, sequence: u64) -> PathBuf {
        self.folder().join(sequence.to_string())
    }

    /// Marks a disk.
    pub fn put(self, sequence: u64) -> Result<()> {
        let path = self.path(sequence);
        fs::write(&path, "").map_err(|error| failed(&path, &error))
    }

    /// Removes the mark of a disk, if there is one.
    pub fn remove(self, sequence: u64) {
        let _ = fs::remove_file(self.path(sequence));
    }

    /// Returns whether a disk has the mark.
    pub fn is_on(self, sequence: u64) -> bool {
        self.path(sequence).exists()
    }
}

/// Removes all marks of a disk.
fn forget(sequence: u64) {
    Mark::Attached.remove(sequence);
    Mark::Detached.remove(sequence);
}

/// Returns the numbers that the entries of a folder have as their names, or, if `file` is given, as
/// the content of a file of that name in the entry. Skips entries without a number.
fn numbers(folder: &Path, file: Option<&str>) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| match file {
            None => entry.file_name().to_str()?.parse().ok(),
            Some(file) => {
                let text = fs::read_to_string(entry.path().join(file)).ok()?;
                text.trim_end().parse().ok()
            }
        })
        .collect()
}

/// Forgets a disk that is being removed. Where udev runs, leaves the mark of an attached device:
/// udev's rule may not have looked at it yet, and `settle` will remove it.
pub fn removed(sequence: u64) {
    if udev_runs() {
        Mark::Detached.remove(sequence);
    } else {
        forget(sequence);
    }
}

/// Forgets the disks that are gone, if there are more marks than disks: reading the sequence
/// numbers of all disks takes a while, and a few superfluous marks do no harm.
pub fn forget_if_many() {
    let count = |folder: &Path| fs::read_dir(folder).into_iter().flatten().count();
    let marks = count(&Mark::Attached.folder()) + count(&Mark::Detached.folder());
    if marks > count(Path::new("/sys/block")) {
        forget_gone();
    }
}

/// Forgets all disks that are gone.
pub fn forget_gone() {
    // The marks are read first, so that those of a disk that is made meanwhile are not removed.
    let mut marks = numbers(&Mark::Attached.folder(), None);
    marks.extend(numbers(&Mark::Detached.folder(), None));
    let disks: HashSet<_> = numbers(Path::new("/sys/block"), Some("diskseq"))
        .into_iter()
        .collect();
    for sequence in marks {
        if !disks.contains(&sequence) {
            forget(sequence);
        }
    }
}
