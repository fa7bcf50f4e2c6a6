// SPDX-License-Identifier: GPL-2.0

//! Operations that write within a file, append to it, or write it back.

use std::fs;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::read::{bytes, pages, SECTOR, UNITS};
use crate::content::{Key, UNIT};
use crate::layer::{File, Layer};
use crate::run::Trouble;
use crate::shadow::NewKeys;
use crate::sys::{self, Map, RWF_DONTCACHE};
use crate::worker::Worker;

/// How large a file may grow, in units.
pub const MOST: usize = 4 << 20 >> 6;

/// Overwrites some of a file, in the way that `write` does: alone, or while others read.
fn part(
    worker: &mut Worker<'_>,
    layer: &Layer,
    file: &File,
    align: usize,
    flags: i32,
    write: impl FnOnce(&mut Worker<'_>, &fs::File, u64, usize) -> io::Result<()>,
) -> Result<(), Trouble> {
    let alone = worker.rng.bool();
    let _exclusive = alone.then(|| file.layout.write().unwrap());
    let _shared = (!alone).then(|| file.layout.read().unwrap());
    let Some(units) = worker.part(file.units(), align) else {
        return Ok(());
    };
    // large writes are rarer, so that enough stays shared
    let units = if worker.rng.u8(..4) > 0 {
        units.start..units.end.min(units.start + 16 * UNITS)
    } else {
        units
    };
    let handle = worker.open(layer, file, libc::O_RDWR | flags)?;
    let (at, len) = bytes(&units);
    worker.write(layer, file, units, |worker| write(worker, &handle, at, len))?;
    if worker.rng.u8(..4) == 0 {
        handle.sync_data()?;
    }
    Ok(())
}

/// Through the page cache.
pub fn buffered(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let align = if worker.rng.bool() { 1 } else { UNITS };
    part(worker, layer, file, align, 0, |worker, handle, at, len| {
        sys::pwrite(handle, worker.buffer.bytes_mut(len), at, 0)
    })
}

/// Past the page cache.
pub fn direct(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let align = if worker.rng.bool() { SECTOR } else { UNITS };
    directly(worker, layer, file, align)
}

fn directly(
    worker: &mut Worker<'_>,
    layer: &Layer,
    file: &File,
    align: usize,
) -> Result<(), Trouble> {
    part(
        worker,
        layer,
        file,
        align,
        libc::O_DIRECT,
        |worker, handle, at, len| sys::pwrite(handle, worker.buffer.bytes_mut(len), at, 0),
    )
}

/// Past the page cache, and whole blocks of the pool, if the file system has put the file so: raw devices are.
pub fn blocks(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let align = UNITS * [16, 32][worker.rng.usize(..2)];
    directly(worker, layer, file, align)
}

/// Leaves nothing in the page cache.
pub fn dontcache(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        sys::pwrite(handle, worker.buffer.bytes_mut(len), at, RWF_DONTCACHE)
    })
}

/// Through io_uring.
pub fn uring(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, 1, 0, through_ring)
}

/// Through io_uring, past the page cache.
pub fn uring_direct(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, SECTOR, libc::O_DIRECT, through_ring)
}

fn through_ring(worker: &mut Worker<'_>, handle: &fs::File, at: u64, len: usize) -> io::Result<()> {
    let piece = [4096, 65536, 131072][worker.rng.usize(..3)].max(len / 64 / 512 * 512);
    let ring = worker
        .ring
        .as_mut()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    ring.write(handle, worker.buffer.bytes_mut(len), at, 0, piece)
}

/// Through a shared mapping.
pub fn mapped(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    if layer.faulty.load(Relaxed) {
        return Ok(()); // an error would be a signal
    }
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        let (first, long, within) = pages(at, len);
        let map = Map::new(handle, first, long, true, true)?;
        map.write(within, worker.buffer.bytes_mut(len));
        if worker.rng.bool() {
            map.sync()
        } else {
            Ok(())
        }
    })
}

/// Writes back what is dirty.
pub fn sync(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let _layout = file.layout.read().unwrap();
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    match worker.rng.u8(..3) {
        0 => handle.sync_all()?,
        1 => handle.sync_data()?,
        _ => sys::sync_file_range(&handle, 0, 0)?,
    }
    Ok(())
}

/// Makes a file longer.
pub fn append(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let _layout = file.layout.write().unwrap();
    let old = file.units();
    let count = worker.rng.usize(1..=32 * UNITS);
    if old + count > MOST {
        return Ok(());
    }
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let new = NewKeys::Data(
        layer.author,
        file.number,
        file.shadow.lock().unwrap().next_version(),
    );
    let units = old..old + count;
    let (at, len) = bytes(&units);
    worker.fill(units.clone(), new);
    sys::pwrite(&handle, worker.buffer.bytes_mut(len), at, 0)?;
    if !Worker::is_loose(layer, file) {
        file.shadow
            .lock()
            .unwrap()
            .change()
            .extend(units.map(|unit| new.at(unit)));
    }
    Ok(())
}

/// Zeroes some of a device.
pub fn zero_out(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let _layout = file.layout.write().unwrap();
    let Some(units) = worker.part(file.units(), SECTOR) else {
        return Ok(());
    };
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let (at, len) = bytes(&units);
    worker.zero(layer, file, units, || {
        sys::zero_out(&handle, at, len as u64)
    })
}

/// Discards some data blocks of a device. Without zeroing, a block that is written in part
/// afterwards would have anybody's data in the rest.
pub fn discard(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    if !worker.config.zeroing {
        return Ok(());
    }
    let _layout = file.layout.write().unwrap();
    let block = worker.config.block_sectors as usize * 512 / UNIT;
    let Some(units) = worker.part(file.units(), block) else {
        return Ok(());
    };
    let units = units.start..units.end.min(units.start + 4 * block);
    let handle = worker.open(layer, file, libc::O_RDWR)?;
    let (at, len) = bytes(&units);
    worker.zero(layer, file, units, || sys::discard(&handle, at, len as u64))
}

/// New data for all of a new file.
pub fn create(
    worker: &mut Worker<'_>,
    layer: &Layer,
    file: &File,
    path: &std::path::Path,
    count: usize,
) -> Result<Vec<Key>, Trouble> {
    let new = NewKeys::Data(
        layer.author,
        file.number,
        file.shadow.lock().unwrap().next_version(),
    );
    let handle = sys::open(path, libc::O_CREAT | libc::O_TRUNC | libc::O_RDWR)?;
    let piece = worker.buffer.len() / UNIT;
    for start in (0..count).step_by(piece) {
        let units = start..count.min(start + piece);
        let (at, len) = bytes(&units);
        worker.fill(units, new);
        sys::pwrite(&handle, worker.buffer.bytes_mut(len), at, 0)?;
    }
    if worker.rng.bool() {
        handle.sync_all()?;
    }
    Ok((0..count).map(|unit| new.at(unit)).collect())
}
