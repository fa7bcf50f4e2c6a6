// SPDX-License-Identifier: GPL-2.0

//! Copies of the files of loaded modules, in /run: a new package removes the files of the old one,
//! and the kernel doesn't give a module back.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::commands::doctor::host::{programs, Host};
use crate::commands::doctor::module_file::{find as find_file, folder, ModuleFile, Place};
use crate::commands::doctor::modules::loaded;
use crate::device_mapper::runtime::Lock;

/// Has a folder for each build that is loaded, named by the build id, and a file for each of which
/// no copy can be had.
const KEPT: &str = "/run/drrctl/modules";
/// Ends the name of a file that says which file on disk is of another build than the loaded one, so
/// that it isn't read and unpacked again each time.
const OTHER: &str = ".other";
/// The modules that `upgrade` changes.
const OURS: [&str; 2] = ["dm-drr", "dm-thin-hooks"];

/// The space of a file system in bytes.
struct Space {
    all: u64,
    free: u64,
}

impl Space {
    /// Returns the space of the file system that a file is in; `None` if it can't be asked.
    fn of(path: &Path) -> Option<Self> {
        let found = statvfs(path).ok()?;
        let bytes = |blocks: u64| found.fragment_size().checked_mul(blocks);
        Some(Self {
            all: bytes(found.blocks())?,
            free: bytes(found.blocks_available())?,
        })
    }

    /// Returns whether a quarter is left with a file of `bytes` in it: others need /run, too. A
    /// ramfs has no limit, and says so by no space at all.
    fn has_room(&self, bytes: u64) -> bool {
        let left = self.free.checked_sub(bytes);
        self.all == 0 || left.is_some_and(|left| left >= self.all / 4)
    }
}

/// Copies the files of the modules that are loaded, for [`find`], unless this was done. If it
/// fails, `upgrade` can't load them again, which is no reason for other commands to fail.
pub fn keep(_lock: &Lock) {
    keep_of(&Host::new("/", None, &programs), Space::of);
}

fn keep_of(host: &Host, space_of: impl Fn(&Path) -> Option<Space>) {
    let build_ids: Vec<_> = OURS
        .iter()
        .map(|name| loaded(host, name).and_then(|it| it.build_id))
        .collect();
    let mut has_changed = false;
    for (name, build_id) in OURS.iter().zip(&build_ids) {
        match build_id {
            Some(id) if !host.exists(&format!("{KEPT}/{id}")) => {
                has_changed |= copy(host, name, id, &space_of).is_some();
            }
            _ => {}
        }
    }
    if has_changed {
        for old in host.names(KEPT) {
            let build_id = old.strip_suffix(OTHER).unwrap_or(&old).to_string();
            if !build_ids.contains(&Some(build_id)) {
                let path = host.path(&format!("{KEPT}/{old}"));
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
}

/// Tells a file from what is put in its place.
fn stamp(path: &str, file: &Metadata) -> String {
    format!(
        "{path} {} {} {}.{:09}",
        file.ino(),
        file.len(),
        file.mtime(),
        file.mtime_nsec()
    )
}

/// Copies the file of a module, if it is of the build that is loaded, and if there is room.
fn copy(
    host: &Host,
    name: &str,
    build_id: &str,
    space_of: impl Fn(&Path) -> Option<Space>,
) -> Option<()> {
    let new = host.path(&format!("{KEPT}/new"));
    let _ = fs::remove_dir_all(&new);
    let Place::File(path) = find_file(host, name) else {
        return None;
    };
    let from = host.path(&format!("{}/{path}", folder(host)));
    let metadata = fs::metadata(&from).ok()?;
    let is_now = stamp(&path, &metadata);
    let other = format!("{KEPT}/{build_id}{OTHER}");
    if host.text(&other).as_deref() == Some(&is_now) {
        return None;
    }
    fs::create_dir_all(host.path(KEPT)).ok()?;
    if !space_of(&host.path(KEPT))?.has_room(metadata.len()) {
        return None;
    }
    if ModuleFile::read(host, &path)?.build_id()? != build_id {
        let _ = fs::write(host.path(&other), is_now);
        return None;
    }
    // As a whole, or not at all.
    let copied = fs::create_dir(&new)
        .and_then(|()| fs::copy(&from, new.join(from.file_name().unwrap_or_default())))
        .and_then(|_| match stamp(&path, &fs::metadata(&from)?) == is_now {
            true => fs::rename(&new, host.path(&format!("{KEPT}/{build_id}"))),
            false => Err(ErrorKind::NotFound.into()), // A package has replaced it meanwhile.
        });
    let _ = match copied {
        Ok(()) => fs::remove_file(host.path(&other)),
        Err(_) => fs::remove_dir_all(&new),
    };
    copied.ok()
}

/// Returns the copy of the file of a build; `None` if there is none.
pub fn find(host: &Host, build_id: &str) -> Option<PathBuf> {
    let folder = format!("{KEPT}/{build_id}");
    let name = host.names(&folder).into_iter().next()?;
    Some(host.path(&folder).join(name))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::commands::doctor::host::Ran;
    use crate::commands::doctor::module_file::tests::module;
    use crate::commands::doctor::tests::fake::{Fake, DRR, HOOKS, MODULES, RELEASE};

    fn room(_: &Path) -> Option<Space> {
        Some(Space {
            all: 1 << 30,
            free: 1 << 30,
        })
    }

    fn id(byte: u8) -> String {
        format!("{byte:02x}").repeat(20)
    }

    /// Returns the names of what is kept.
    fn kept(host: &Fake) -> Vec<String> {
        host.with(|host| host.names(KEPT))
    }

    fn keep(host: &Fake) -> Vec<String> {
        host.with(|host| keep_of(host, room));
        kept(host)
    }

    #[test]
    fn what_is_loaded_is_kept() {
        let host = Fake::loaded();
        assert_eq!(keep(&host), [id(DRR), id(HOOKS)]);
        let copy = host.with(|host| find(host, &id(DRR))).expect("a copy");
        assert_eq!(fs::read(copy).expect("read"), module(RELEASE, DRR, b""));
        // The package's new file isn't what is loaded, which stays kept.
        host.module("dm-drr", module(RELEASE, 9, b""));
        assert_eq!(keep(&host), [id(DRR), id(HOOKS)]);
        // It is loaded.
        host.load("dm_drr", 9);
        assert_eq!(keep(&host), [id(HOOKS), id(9)]);
    }

    #[test]
    fn room_is_left() {
        let size = 100;
        let space = |free| Space { all: 1000, free };
        assert!(space(350).has_room(size) && !space(349).has_room(size));
        assert!(!space(99).has_room(size));
        assert!(!Space { all: 3, free: 99 }.has_room(size));
        assert!(Space { all: 0, free: 0 }.has_room(size));
        let host = Fake::loaded();
        let full = |_: &Path| {
            Some(Space {
                all: 1 << 30,
                free: 1 << 28,
            })
        };
        host.with(|host| keep_of(host, full));
        host.with(|host| keep_of(host, |_| None));
        assert_eq!(kept(&host), [""; 0]);
        assert!(Space::of(Path::new("/")).is_some_and(|space| space.all >= space.free));
    }

    #[test]
    fn nothing_is_left_of_copies_that_fail() {
        let host = Fake::loaded();
        // No folder can have this name.
        let folder = host.root.join(KEPT.trim_start_matches('/'));
        fs::create_dir_all(&folder).expect("made");
        symlink("nowhere", folder.join(id(DRR))).expect("made");
        assert_eq!(keep(&host), [id(DRR), id(HOOKS)]);
        assert!(host.with(|host| find(host, &id(DRR))).is_none());
        // That of a drrctl that was killed.
        host.put(&format!("{KEPT}/new/dm-drr.ko"), "x");
        host.remove(&format!("{MODULES}/updates/dkms/dm-drr.ko"));
        assert_eq!(keep(&host), [id(DRR), id(HOOKS)]);
    }

    #[test]
    fn other_builds_are_read_once() {
        let host = Fake::loaded();
        host.load("dm_drr", 9);
        let path = "updates/dkms/dm-drr.ko.xz";
        host.put(&format!("{MODULES}/{path}"), "packed");
        host.put(&format!("{MODULES}/modules.dep"), format!("{path}:\n"));
        let (reads, build) = (Cell::new(0), Cell::new(DRR));
        let unpack = |_: &str, _: &[&str], _: &str| {
            reads.set(reads.get() + 1);
            Some(Ran {
                ok: true,
                out: module(RELEASE, build.get(), b""),
                err: String::new(),
            })
        };
        let keep = || {
            keep_of(&Host::new(&host.root, None, &unpack), room);
            (reads.get(), kept(&host))
        };
        let other = format!("{}{OTHER}", id(9));
        for _ in 0..2 {
            assert_eq!(keep(), (1, vec![other.clone()]));
        }
        // Another file, of the build that is loaded.
        build.set(9);
        host.put(&format!("{MODULES}/{path}"), "packed again");
        assert_eq!(keep(), (2, vec![id(9)]));
        assert_eq!(keep().0, 2);
        // What is said of builds that aren't loaded any more goes.
        host.put(&format!("{KEPT}/{other}"), "");
        host.load("dm_drr", DRR);
        build.set(DRR);
        assert_eq!(keep(), (3, vec![id(DRR)]));
    }
}
