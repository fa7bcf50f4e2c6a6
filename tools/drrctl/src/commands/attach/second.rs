// SPDX-License-Identifier: GPL-2.0

//! The second device: the thin device below a device that drr is attached to. It has no node, and
//! goes by itself.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drr_dm::{Device, Flags, Line, Number};

use crate::commands::attach::device::gone;
use crate::commands::attach::step::step;
use crate::device_mapper::control::{self, explain, Control};
use crate::device_mapper::inventory::SECOND;
use crate::device_mapper::requests::Audience;
use crate::device_mapper::runtime;
use crate::error::{Code, Error, Result};

/// How long to wait until a second device that is not needed has gone.
const GOING: Duration = Duration::from_secs(1);

/// A second device, which goes when both this value and the table above are gone.
pub struct Second<'a> {
    control: &'a Control,
    pub name: String,
    pub number: Number,
    /// Keeps the device that is marked to be removed; `None` before.
    open: Option<File>,
}

impl<'a> Second<'a> {
    /// Creates and activates the second device of `above`, with the thin table `line`. `sequence`
    /// is the sequence number of `above`'s disk.
    pub fn new(control: &'a Control, above: &Device, sequence: u64, line: &Line) -> Result<Self> {
        // Second devices of earlier attachments may not have gone yet.
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

    /// Opens the device, and removes its node from /dev.
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
        // No other device gets the number while this one is open, but one may have it already.
        if runtime::attribute(self.number, "dm/name").as_deref() != Some(self.name.as_str()) {
            return Err(gone(&self.name));
        }
        fs::remove_file(&node).map_err(failed)?;
        // Only lsblk needs an entry, see `attach`.
        let link = control::node(&self.name);
        let _ = fs::remove_file(&link);
        let _ = symlink(runtime::sys(self.number), link);
        Ok(file)
    }
}

/// Replaces udev's link to a second device, in /dev/block, by one to the device's folder in /sys.
///
/// Udev's link leads nowhere, as the device has no node. libvirt gives a virtual machine access to
/// all devices below its disk, which it finds by these links, and refuses to start the machine if
/// one leads nowhere. It ignores links to folders. Udev makes its link anew with each event of the
/// device; udev's rule then replaces the link in the same way.
pub fn hide_number((major, minor): Number) {
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
            _ => continue, // A node, or a link to one.
        };
        let name = fs::read_to_string(folder.join("dm/name")).unwrap_or_default();
        if link.file_name() != Some(OsStr::new(name.trim_end_matches('\n'))) {
            let _ = fs::remove_file(link);
        }
    }
}

impl Second<'_> {
    /// Gives up the device, as the attachment has failed. Waits up to [`GOING`] until it has gone,
    /// so that the thin device can be deleted from its pool. The device's name and UUID go before
    /// the thin device is closed, its folder in /sys after that.
    pub fn give_up(self) {
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
        // The device is not marked to be removed if it was not completed.
        if self.open.take().is_none() {
            let _ = self.control.remove_later(&self.name);
        }
    }
}

/// Returns a name for a second device that tells the device above, without characters that tools
/// can't handle.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_second_devices() {
        assert_eq!(second_name("pool-snap-1", 7, 0), "drr-pool-snap-1-7.0");
        assert_eq!(second_name("my\\x20dev", 7, 1), "drr-my_x20dev-7.1");
        let long = second_name(&"ä".repeat(127), u64::MAX, 999);
        assert!(long.len() < 128 && long.is_ascii(), "{long}");
    }
}
