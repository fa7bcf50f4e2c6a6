// SPDX-License-Identifier: GPL-2.0

//! What drrctl's runs share, in /run: a lock, so that one at a time changes devices, and marks of
//! the devices that were attached, for udev's rule, and of those that somebody detached by hand,
//! which `watch` leaves alone. A file tells that nothing was left behind by one that was killed.
//!
//! Names and numbers of devices are used again; a disk's sequence number is not before the next
//! boot, which empties /run, too.

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

/// Held until it's dropped, or the process ends.
pub struct Lock(#[allow(dead_code)] Flock<File>);

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

/// Waits for another drrctl that changes devices just now.
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

fn clean() -> PathBuf {
    Path::new(FOLDER).join("clean")
}

/// A change of devices that begins. If it isn't told that it is done, because drrctl was killed or
/// something failed, the next has to look at all devices for what was left behind.
pub struct Change {
    was_clean: bool,
}

impl Change {
    pub fn begin(_lock: &Lock) -> Result<Self> {
        let path = clean();
        match fs::remove_file(&path) {
            Ok(()) => Ok(Self { was_clean: true }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { was_clean: false }),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// Nothing is left of it.
    pub fn done(self) {
        if self.was_clean {
            let _ = fs::write(clean(), "");
        }
    }
}

/// Did all changes come to their end since `set_clean`?
pub fn is_clean(_lock: &Lock) -> bool {
    clean().exists()
}

/// All devices were looked at, and nothing is left behind.
pub fn set_clean(_lock: &Lock) {
    let _ = fs::write(clean(), "");
}

/// There is one watcher.
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

/// What has the folders of block devices, by their numbers.
pub const DEVICES: &str = "/sys/dev/block";

/// The folder of a block device in /sys.
pub fn sys((major, minor): Number) -> PathBuf {
    Path::new(DEVICES).join(format!("{major}:{minor}"))
}

/// A file of it, without the newline; `None` if the device is gone, or isn't device-mapper's.
pub fn attribute(number: Number, name: &str) -> Option<String> {
    let text = fs::read_to_string(sys(number).join(name)).ok()?;
    Some(text.trim_end_matches('\n').to_string())
}

/// The name of a device-mapper device, as `Control` takes it; `None` if it's gone.
pub fn name(number: Number) -> Option<String> {
    let name = fs::read(sys(number).join("dm/name")).ok()?;
    Some(escaped(name.strip_suffix(b"\n").unwrap_or(&name)))
}

/// What no other disk has had or will have before the next boot.
pub fn sequence(number: Number) -> Option<u64> {
    attribute(number, "diskseq")?.parse().ok()
}

/// A folder with an empty file for each disk that has it, named by its sequence number.
#[derive(Clone, Copy)]
pub enum Mark {
    Attached,
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

    pub fn put(self, sequence: u64) -> Result<()> {
        let path = self.path(sequence);
        fs::write(&path, "").map_err(|error| failed(&path, &error))
    }

    pub fn remove(self, sequence: u64) {
        let _ = fs::remove_file(self.path(sequence));
    }

    pub fn is_on(self, sequence: u64) -> bool {
        self.path(sequence).exists()
    }
}

fn forget(sequence: u64) {
    Mark::Attached.remove(sequence);
    Mark::Detached.remove(sequence);
}

/// The names or the content of a file of all that is in a folder, as far as they are numbers.
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

/// The device is being removed. Where udev runs its rule may have to look up yet whether it was
/// attached; `settle` removes that mark then.
pub fn removed(sequence: u64) {
    if udev_runs() {
        Mark::Detached.remove(sequence);
    } else {
        forget(sequence);
    }
}

/// Forgets the disks that are gone, if there are more marks than disks. A look at all disks takes
/// longer the more there are, and a few marks too many are no harm.
pub fn forget_if_many() {
    let count = |folder: &Path| fs::read_dir(folder).into_iter().flatten().count();
    let marks = count(&Mark::Attached.folder()) + count(&Mark::Detached.folder());
    if marks > count(Path::new("/sys/block")) {
        forget_gone();
    }
}

/// Forgets all disks that are gone.
pub fn forget_gone() {
    // the marks first: a disk that is made meanwhile has none yet
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
