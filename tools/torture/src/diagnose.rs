// SPDX-License-Identifier: GPL-2.0

//! Where a wrong unit comes from: the page cache, the disk, or already the image?

use std::fs;
use std::io::{ErrorKind, Result};
use std::path::Path;

use crate::config::Config;
use crate::content::{Key, PAGE, WORDS};
use crate::dm;
use crate::layer::Layer;
use crate::sys::{self, Buffer};

/// What a file or device has at byte `offset`.
fn unit_at(path: &Path, flags: i32, offset: u64) -> String {
    let mut buffer = Buffer::new(PAGE);
    buffer.words_mut().fill(0);
    let page = offset / PAGE as u64 * PAGE as u64;
    let read =
        sys::open(path, flags).and_then(|file| sys::pread(&file, buffer.bytes_mut(PAGE), page, 0));
    let words = &buffer.words()[(offset - page) as usize / 8..][..WORDS];
    match (Key::of(words), read) {
        (_, Err(error)) if error.kind() != ErrorKind::UnexpectedEof => error.to_string(),
        (Some(key), _) => key.to_string(),
        (None, _) => format!("no unit: {words:016x?}"),
    }
}

fn physical(path: &Path, offset: u64) -> Option<u64> {
    let file = sys::open(path, libc::O_RDONLY).ok()?;
    sys::physical(&file, offset).ok()?
}

const DIRECT: i32 = libc::O_RDONLY | libc::O_DIRECT;

/// What other ways of reading the unit at byte `offset` of `path` give.
pub fn diagnose(config: &Config, layer: &Layer, path: &Path, offset: usize) -> String {
    let offset = offset as u64;
    let mut text = String::new();
    let mut say = |how: &str, what: String| text += &format!("\n  {how}: {what}");
    say("read again", unit_at(path, libc::O_RDONLY, offset));
    say("O_DIRECT", unit_at(path, DIRECT, offset));
    let place = match layer.raw {
        true => Some(offset),
        false => physical(path, offset),
    };
    if let Some(place) = place {
        let thin = format!("/dev/mapper/t-{}", layer.name);
        let how = format!("thin device, at {place:#x}");
        say(&how, unit_at(sys::path(&thin), DIRECT, place));
    }
    let origin = with_origin(layer, |device| {
        if let Some(place) = place {
            say("there in the image", unit_at(device, DIRECT, place));
        }
        if layer.raw {
            return Ok(());
        }
        let root = sys::path("/mnt/origin");
        fs::create_dir_all(root)?;
        sys::mount(
            device,
            root,
            config.fs.kind(),
            config.fs.read_only_options(),
        )?;
        if let Some(name) = path.file_name() {
            let file = root.join(name);
            let place = physical(&file, offset);
            let how = format!("this file in the image, at {place:#x?}");
            say(&how, unit_at(&file, DIRECT, offset));
        }
        sys::umount(root)
    });
    if let Err(error) = origin {
        say("the image", error.to_string());
    }
    text
}

/// Activates the thin device that the layer was made of, if it is still there.
fn with_origin(layer: &Layer, look: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let sectors = Layer::sectors(layer.raw);
    let table = format!("0 {sectors} thin /dev/mapper/pool {}", layer.origin);
    dm::create("t-origin", &table)?;
    let looked = look(sys::path("/dev/mapper/t-origin"));
    dm::remove("t-origin")?;
    looked
}
