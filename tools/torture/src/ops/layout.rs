// SPDX-License-Identifier: GPL-2.0

//! Operations that change a file's size, or where its content is.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::read::{bytes, UNITS};
use super::write::{create, MOST};
use crate::content::{Key, UNIT};
use crate::layer::{File, Layer};
use crate::pool::run;
use crate::run::Trouble;
use crate::sys;
use crate::worker::Worker;

type Done = Result<(), Trouble>;

/// Changes the expected content, unless nothing is known of it anyway.
fn expect(layer: &Layer, file: &File, change: impl FnOnce(&mut Vec<Key>)) {
    if !Worker::is_loose(layer, file) {
        change(file.shadow.lock().unwrap().change());
    }
}

/// What was changed is often looked at right away, while it is in the page cache.
fn look(worker: &mut Worker<'_>, layer: &Layer, file: &File, handle: &fs::File) -> Done {
    if worker.rng.bool() {
        return Ok(());
    }
    if worker.rng.u8(..4) == 0 {
        handle.sync_data()?;
        sys::fadvise(handle, 0, 0, libc::POSIX_FADV_DONTNEED)?;
    }
    let Some(units) = worker.part(file.units(), 1) else {
        return Ok(());
    };
    let (at, len) = bytes(&units);
    worker.read(layer, file, units, |worker| {
        sys::pread(handle, worker.buffer.bytes_mut(len), at, 0)
    })
}

/// Makes a file shorter.
pub fn truncate_down(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let units = worker.rng.usize(file.units() / 2..=file.units()).max(1);
    handle.set_len((units * UNIT) as u64)?;
    expect(layer, file, |keys| keys.truncate(units));
    look(worker, layer, file, &handle)
}

/// Makes a file longer, with a hole.
pub fn truncate_up(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let units = (file.units() + worker.rng.usize(1..=64 * UNITS)).min(MOST.max(file.units()));
    handle.set_len((units * UNIT) as u64)?;
    expect(layer, file, |keys| keys.resize(units, Key::ZERO));
    look(worker, layer, file, &handle)
}

/// Both at once: what was cut off must not come back.
pub fn truncate_down_up(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let old = file.units();
    let units = old - worker.rng.usize(0..=old.min(40 * UNITS) - 1);
    handle.set_len((units * UNIT) as u64)?;
    expect(layer, file, |keys| keys.truncate(units));
    handle.set_len((old * UNIT) as u64)?;
    expect(layer, file, |keys| keys.resize(old, Key::ZERO));
    look(worker, layer, file, &handle)
}

/// Zeroes a part, in the way of one of fallocate()'s modes.
fn zeroed(worker: &mut Worker<'_>, layer: &Layer, file: &File, mode: i32) -> Done {
    let align = if worker.rng.bool() { 1 } else { UNITS };
    let alone = worker.rng.bool();
    let _exclusive = alone.then(|| file.layout.write().unwrap());
    let _shared = (!alone).then(|| file.layout.read().unwrap());
    let Some(units) = worker.part(file.units(), align) else {
        return Ok(());
    };
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let (at, len) = bytes(&units);
    // nothing was changed where the file system doesn't have it
    let mut unsupported = None;
    worker.zero(layer, file, units, || {
        match sys::fallocate(&handle, mode, at, len as u64) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                unsupported = Some(error);
                sys::pwrite(&handle, &vec![0; len], at, 0)
            }
            result => result,
        }
    })?;
    if let Some(error) = unsupported {
        return Err(error.into());
    }
    look(worker, layer, file, &handle)
}

/// Punches a hole.
pub fn punch(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    zeroed(
        worker,
        layer,
        file,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
    )
}

/// Zeroes a range.
pub fn zero(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    zeroed(worker, layer, file, libc::FALLOC_FL_ZERO_RANGE)
}

/// A part in whole file-system blocks.
fn blocks(worker: &mut Worker<'_>, layer: &Layer, units: usize) -> Option<Range<usize>> {
    debug_assert!(!layer.raw);
    worker.part(units, worker.config.fs.block() / UNIT)
}

/// Takes a part out.
pub fn collapse(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    // the part must end before the file does
    let Some(units) = blocks(worker, layer, file.units().saturating_sub(1)) else {
        return Ok(());
    };
    let units = units.start..units.end.min(units.start + 32 * UNITS);
    let (at, len) = bytes(&units);
    sys::fallocate(&handle, libc::FALLOC_FL_COLLAPSE_RANGE, at, len as u64)?;
    expect(layer, file, |keys| drop(keys.drain(units)));
    look(worker, layer, file, &handle)
}

/// Puts a hole in between.
pub fn insert(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let Some(units) = blocks(worker, layer, file.units().saturating_sub(1)) else {
        return Ok(());
    };
    let units = units.start..units.end.min(units.start + 32 * UNITS);
    if file.units() + units.len() > MOST {
        return Ok(());
    }
    let (at, len) = bytes(&units);
    sys::fallocate(&handle, libc::FALLOC_FL_INSERT_RANGE, at, len as u64)?;
    expect(layer, file, |keys| {
        keys.splice(units.start..units.start, units.map(|_| Key::ZERO));
    });
    look(worker, layer, file, &handle)
}

/// Allocates blocks beyond the end.
pub fn allocate(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let units = file.units() + worker.rng.usize(1..=32 * UNITS);
    if units > MOST {
        return Ok(());
    }
    sys::fallocate(&handle, 0, 0, (units * UNIT) as u64)?;
    expect(layer, file, |keys| keys.resize(units, Key::ZERO));
    look(worker, layer, file, &handle)
}

/// Puts a new file in the old one's place.
pub fn rename(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let path = layer.path(file);
    let new = path.with_extension("new");
    let _layout = file.layout.write().unwrap();
    let count = worker.rng.usize(1..=128 * UNITS);
    let keys = create(worker, layer, file, &new, count)?;
    fs::rename(&new, &path)?;
    expect(layer, file, |old| *old = keys);
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    look(worker, layer, file, &handle)
}

/// Removes a file and makes a new one.
pub fn unlink(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let path = layer.path(file);
    let _layout = file.layout.write().unwrap();
    let count = worker.rng.usize(1..=128 * UNITS);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let keys = create(worker, layer, file, &path, count)?;
    expect(layer, file, |old| *old = keys);
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    look(worker, layer, file, &handle)
}

/// Discards what the file system has free.
pub fn trim(worker: &mut Worker<'_>, layer: &Layer, _: &File) -> Done {
    if worker.rng.u8(..4) == 0 {
        sys::trim(&fs::File::open(layer.root())?)?;
    }
    Ok(())
}

/// Defragments some of a file, as e4defrag does, while others use it.
pub fn move_extents(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.read().unwrap();
    let Some(units) = blocks(worker, layer, file.units()) else {
        return Ok(());
    };
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let name = format!("donor-{:x}", worker.rng.u64(..));
    let path = layer.root().join(name);
    let donor = sys::open(&path, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR)?;
    let removed = fs::remove_file(&path);
    let (at, len) = bytes(&units);
    sys::fallocate(&donor, 0, at, len as u64)?;
    let block = worker.config.fs.block() as u64;
    match sys::move_extents(&handle, &donor, at / block, len as u64 / block) {
        // holes, and pages that are in use
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EBUSY)) => {}
        result => drop(result?),
    }
    removed?;
    look(worker, layer, file, &handle)
}

/// Has the page cache of a file made one of huge pages, where the kernel can.
pub fn huge(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    const HUGE: usize = 2 << 20;
    let _layout = file.layout.read().unwrap();
    let len = file.units() * UNIT / HUGE * HUGE;
    if len == 0 || layer.faulty.load(Relaxed) {
        return Ok(()); // too short; or an error would be a signal
    }
    let handle = worker.open(layer, file, libc::O_RDONLY)?;
    let map = sys::Map::new(&handle, 0, len, true, false)?;
    match map.advise(libc::MADV_COLLAPSE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP).into());
        }
        // pages that are dirty or in use
        _ => {}
    }
    look(worker, layer, file, &handle)
}

/// Defragments a file with xfs's own program, which copies it and exchanges the extents, if the file's time of change
/// is what it was before. Nobody writes meanwhile: that time comes from bulkstat, which doesn't mark it as queried, so
/// that a write in the same tick of the clock leaves it as it is, and is lost (`xfs_bulkstat_one_int()`,
/// `inode_set_ctime_current()`, `xfs_exchange_check_freshness()`).
pub fn reorganise(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let _layout = file.layout.write().unwrap();
    let path = layer.path(file);
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    run("xfs_fsr", &[&path.to_string_lossy()])?;
    look(worker, layer, file, &handle)
}

/// Locks two files' layouts, lower number first.
macro_rules! lock_both {
    ($one:ident, $other:ident) => {
        if $one.number < $other.number {
            let first = $one.layout.write().unwrap();
            (first, $other.layout.write().unwrap())
        } else {
            let first = $other.layout.write().unwrap();
            (first, $one.layout.write().unwrap())
        }
    };
}

/// Lets a file share blocks of another.
pub fn clone(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let Some(from) = worker.other_file(layer, file) else {
        return Ok(());
    };
    let _layouts = lock_both!(file, from);
    let Some(units) = blocks(worker, layer, from.units()) else {
        return Ok(());
    };
    let block = worker.config.fs.block() / UNIT;
    let to = worker.rng.usize(0..=file.units() / block) * block;
    if to + units.len() > MOST {
        return Ok(());
    }
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let source = worker.open(layer, from, libc::O_RDONLY)?;
    let (at, len) = bytes(&units);
    sys::clone_range(&source, at, len as u64, &handle, (to * UNIT) as u64)?;
    let copied = from.shadow.lock().unwrap().keys()[units].to_vec();
    expect(layer, file, |keys| {
        let end = to + copied.len();
        keys.resize(keys.len().max(end), Key::ZERO);
        keys[to..end].copy_from_slice(&copied);
    });
    look(worker, layer, file, &handle)
}

/// Asks for blocks to be shared that have the same content, or that don't.
pub fn dedupe(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Done {
    let Some(from) = worker.other_file(layer, file) else {
        return Ok(());
    };
    let _layouts = lock_both!(file, from);
    let shorter = file.units().min(from.units());
    let Some(units) = blocks(worker, layer, shorter) else {
        return Ok(());
    };
    let (at, len) = bytes(&units);
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let source = worker.open(layer, from, libc::O_RDWR)?;
    if worker.rng.bool() {
        // make them equal first
        let copied = from.shadow.lock().unwrap().keys()[units.clone()].to_vec();
        crate::content::fill(worker.buffer.words_mut(), &copied);
        if !copied.contains(&Key::ANY) {
            sys::pwrite(&handle, worker.buffer.bytes_mut(len), at, 0)?;
            expect(layer, file, |keys| {
                keys[units.clone()].copy_from_slice(&copied)
            });
        }
    }
    let equal = {
        let (one, other) = (
            file.shadow.lock().unwrap().keys(),
            from.shadow.lock().unwrap().keys(),
        );
        one[units.clone()] == other[units.clone()]
    };
    let same = sys::dedupe_range(&source, at, len as u64, &handle, at)?;
    if same != equal && !Worker::is_loose(layer, file) {
        let text = format!("FIDEDUPERANGE found {same}, should be {equal}");
        worker
            .run
            .fail(format!("{}: {text}", layer.path(file).display()));
        return Err(Trouble::Wrong);
    }
    look(worker, layer, file, &handle)
}
