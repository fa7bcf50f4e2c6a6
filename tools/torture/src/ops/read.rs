// SPDX-License-Identifier: GPL-2.0

//! Operations that read.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use crate::content::{PAGE, UNIT};
use crate::layer::{File, Layer};
use crate::run::Trouble;
use crate::sys::{self, Map, RWF_DONTCACHE};
use crate::worker::{Worker, BUFFER_UNITS};

/// Units of a sector.
pub const SECTOR: usize = 512 / UNIT;
/// Units of a page.
pub const UNITS: usize = PAGE / UNIT;

/// Where units begin and how long they are, in bytes.
pub fn bytes(units: &Range<usize>) -> (u64, usize) {
    ((units.start * UNIT) as u64, units.len() * UNIT)
}

/// Drops a file's clean pages, then reads it from its beginning to its end: what siblings do
/// that start one after the other.
pub fn cold(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let piece = BUFFER_UNITS >> worker.rng.u32(..6);
    let advice = [
        libc::POSIX_FADV_NORMAL,
        libc::POSIX_FADV_RANDOM,
        libc::POSIX_FADV_SEQUENTIAL,
    ];
    let advice = advice[worker.rng.usize(..3)];
    let mut start = 0;
    while !worker.hurried() {
        let _layout = file.layout.read().unwrap();
        let units = start..file.units().min(start + piece);
        if units.is_empty() {
            break;
        }
        // opened anew: the file may have been replaced
        let handle = worker.open(layer, file, libc::O_RDONLY)?;
        if start == 0 {
            sys::fadvise(&handle, 0, 0, libc::POSIX_FADV_DONTNEED)?;
        }
        sys::fadvise(&handle, 0, 0, advice)?;
        let (at, len) = bytes(&units);
        start = units.end;
        worker.read(layer, file, units, |worker| {
            sys::pread(&handle, worker.buffer.bytes_mut(len), at, 0)
        })?;
    }
    Ok(())
}

/// Reads some of a file, in the way that `read` does.
fn part(
    worker: &mut Worker<'_>,
    layer: &Layer,
    file: &File,
    align: usize,
    flags: i32,
    read: impl FnOnce(&mut Worker<'_>, &std::fs::File, u64, usize) -> io::Result<()>,
) -> Result<(), Trouble> {
    let _layout = file.layout.read().unwrap();
    let Some(units) = worker.part(file.units(), align) else {
        return Ok(());
    };
    let handle = worker.open(layer, file, libc::O_RDONLY | flags)?;
    let (at, len) = bytes(&units);
    if flags & libc::O_DIRECT == 0 && worker.rng.bool() {
        sys::fadvise(&handle, at, len as u64, libc::POSIX_FADV_DONTNEED)?;
    }
    worker.read(layer, file, units, |worker| read(worker, &handle, at, len))
}

/// Reads from the page cache, where it is there.
pub fn warm(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        sys::pread(handle, worker.buffer.bytes_mut(len), at, 0)
    })
}

/// Reads into many pieces.
pub fn vector(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        let piece = (len / 100).max(worker.rng.usize(500..20000));
        sys::preadv(handle, worker.buffer.bytes_mut(len), piece, at)
    })
}

/// Reads past the page cache.
pub fn direct(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let align = if worker.rng.bool() { SECTOR } else { UNITS };
    part(
        worker,
        layer,
        file,
        align,
        libc::O_DIRECT,
        |worker, handle, at, len| sys::pread(handle, worker.buffer.bytes_mut(len), at, 0),
    )
}

/// Reads without keeping it in the page cache.
pub fn dontcache(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        sys::pread(handle, worker.buffer.bytes_mut(len), at, RWF_DONTCACHE)
    })
}

/// Reads through io_uring, several pieces at once.
pub fn uring(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let flags = if worker.rng.u8(..4) == 0 {
        RWF_DONTCACHE
    } else {
        0
    };
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        through_ring(worker, handle, at, len, flags)
    })
}

/// The same, past the page cache.
pub fn uring_direct(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(
        worker,
        layer,
        file,
        SECTOR,
        libc::O_DIRECT,
        |worker, handle, at, len| through_ring(worker, handle, at, len, 0),
    )
}

fn through_ring(
    worker: &mut Worker<'_>,
    handle: &std::fs::File,
    at: u64,
    len: usize,
    flags: i32,
) -> io::Result<()> {
    let piece = [512, 4096, 65536, 131072][worker.rng.usize(..4)].max(len / 64 / 512 * 512);
    let ring = worker
        .ring
        .as_mut()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    ring.read(handle, worker.buffer.bytes_mut(len), at, flags, piece)
}

/// Pages of a part, for a mapping: the first page's offset, the length, where the part begins.
pub fn pages(at: u64, len: usize) -> (u64, usize, usize) {
    let within = at as usize % PAGE;
    (
        at - within as u64,
        (within + len).next_multiple_of(PAGE),
        within,
    )
}

/// Reads through a mapping.
pub fn mapped(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    if layer.faulty.load(Relaxed) {
        return Ok(()); // an error would be a signal
    }
    let advice = [
        libc::MADV_NORMAL,
        libc::MADV_RANDOM,
        libc::MADV_SEQUENTIAL,
        libc::MADV_WILLNEED,
        libc::MADV_POPULATE_READ,
    ];
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        let (first, long, within) = pages(at, len);
        let map = Map::new(handle, first, long, worker.rng.bool(), false)?;
        map.advise(advice[worker.rng.usize(..advice.len())])?;
        map.read(within, worker.buffer.bytes_mut(len));
        Ok(())
    })
}

/// Writes to a private mapping: nobody else may see it.
pub fn private(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    if layer.faulty.load(Relaxed) {
        return Ok(());
    }
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        let (first, long, within) = pages(at, len);
        let map = Map::new(handle, first, long, false, true)?;
        map.read(within, worker.buffer.bytes_mut(len));
        map.write(within, &vec![0xa5; len.min(PAGE)]);
        Ok(())
    })
}

/// Reads ahead, later reads.
pub fn ahead(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    part(worker, layer, file, 1, 0, |worker, handle, at, len| {
        if worker.rng.bool() {
            sys::readahead(handle, at, len)?;
        } else {
            sys::fadvise(handle, at, len as u64, libc::POSIX_FADV_WILLNEED)?;
        }
        sys::pread(handle, worker.buffer.bytes_mut(len), at, 0)
    })
}

/// Reads while the file is truncated, punched and moved: only the data's origin is known.
pub fn unlocked(worker: &mut Worker<'_>, layer: &Layer, file: &File) -> Result<(), Trouble> {
    let Some(units) = worker.part(file.units(), 1) else {
        return Ok(());
    };
    let (at, len) = bytes(&units);
    let handle = match worker.open(layer, file, libc::O_RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        handle => handle?,
    };
    if worker.rng.bool() {
        sys::fadvise(&handle, at, len as u64, libc::POSIX_FADV_DONTNEED)?;
    }
    worker.buffer.bytes_mut(len).fill(0);
    match sys::pread(&handle, worker.buffer.bytes_mut(len), at, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        result => result?,
    }
    worker.judge_origin(layer, file, units)
}
