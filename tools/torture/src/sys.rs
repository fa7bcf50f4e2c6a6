// SPDX-License-Identifier: GPL-2.0

//! System calls that return results. All `unsafe` code of the program is here.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use crate::content::{PAGE, UNIT};

/// The flag for uncached buffered I/O (linux/fs.h), which the libc crate doesn't have yet.
pub const RWF_DONTCACHE: i32 = 0x80;

/// Converts the result of a system call. Fails with the error in `errno` if it is negative.
fn check(result: i64) -> Result<usize> {
    usize::try_from(result).map_err(|_| Error::last_os_error())
}

/// Converts a path to a C string. Fails with `InvalidInput` if it contains a zero byte.
fn path_of(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidInput.into())
}

/// A page-aligned buffer.
pub struct Buffer {
    words: *mut u64,
    bytes: usize,
}

// SAFETY: The buffer owns its memory.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Allocates a buffer of zeroes with `bytes` bytes, rounded up to pages.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(PAGE).max(PAGE);
        // SAFETY: A new anonymous mapping overlaps no other memory.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(address != libc::MAP_FAILED, "no memory for a buffer");
        Buffer {
            words: address.cast(),
            bytes,
        }
    }

    /// Returns the content.
    pub fn words(&self) -> &[u64] {
        // SAFETY: The buffer owns the mapping, which has `bytes` bytes and is page-aligned.
        unsafe { std::slice::from_raw_parts(self.words, self.bytes / 8) }
    }

    /// Returns the content for writing.
    pub fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: The buffer owns the mapping, which has `bytes` bytes and is page-aligned.
        unsafe { std::slice::from_raw_parts_mut(self.words, self.bytes / 8) }
    }

    /// Returns the first `len` bytes for writing.
    pub fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: The buffer owns the mapping, which has `bytes` bytes.
        unsafe { &mut std::slice::from_raw_parts_mut(self.words.cast(), self.bytes)[..len] }
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: The buffer owns the mapping, and is not borrowed any more.
        unsafe { libc::munmap(self.words.cast(), self.bytes) };
    }
}

/// Opens a file. If `flags` has `O_CREAT`, a new file gets mode 0600.
pub fn open(path: &Path, flags: i32) -> Result<File> {
    let path = path_of(path)?;
    // SAFETY: The path ends with a zero.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }.into())?;
    // SAFETY: The descriptor is new, so it is ours.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// Returns the error for a transfer that has moved nothing: the file is shorter than it should be.
fn short() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "ended early")
}

/// Fills the buffer with preadv2(), in as many calls as it takes. Fails with `UnexpectedEof` if the
/// file ends before.
pub fn pread(file: &File, buffer: &mut [u8], offset: u64, flags: i32) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let iov = libc::iovec {
            iov_base: rest.as_mut_ptr().cast(),
            iov_len: rest.len(),
        };
        let at = (offset + done as u64) as i64;
        // SAFETY: The vector describes memory that is borrowed mutably.
        match check(unsafe { libc::preadv2(file.as_raw_fd(), &iov, 1, at, flags) } as i64)? {
            0 => return Err(short()),
            count => done += count,
        }
    }
    Ok(())
}

/// Fills the buffer with one call of preadv(), as pieces of `piece` bytes, and what the call leaves
/// with [`pread`].
pub fn preadv(file: &File, buffer: &mut [u8], piece: usize, offset: u64) -> Result<()> {
    let len = buffer.len();
    let iovs: Vec<libc::iovec> = buffer
        .chunks_mut(piece)
        .map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect();
    let count = iovs.len() as i32;
    // SAFETY: The vectors describe memory that is borrowed mutably.
    let done = unsafe { libc::preadv(file.as_raw_fd(), iovs.as_ptr(), count, offset as i64) };
    match check(done as i64)? {
        done if done == len => Ok(()),
        0 => Err(short()),
        done => pread(file, &mut buffer[done..], offset + done as u64, 0),
    }
}

/// Writes all bytes with pwritev2(), in as many calls as it takes.
pub fn pwrite(file: &File, buffer: &[u8], offset: u64, flags: i32) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &buffer[done..];
        let iov = libc::iovec {
            iov_base: rest.as_ptr().cast_mut().cast(),
            iov_len: rest.len(),
        };
        let at = (offset + done as u64) as i64;
        // SAFETY: The vector describes memory that is borrowed, and only read.
        match check(unsafe { libc::pwritev2(file.as_raw_fd(), &iov, 1, at, flags) } as i64)? {
            0 => return Err(short()),
            count => done += count,
        }
    }
    Ok(())
}

/// A mapping of a part of a file.
pub struct Map {
    address: *mut u8,
    len: usize,
}

impl Map {
    /// Maps `len` bytes of a file from byte `offset` on.
    pub fn new(file: &File, offset: u64, len: usize, shared: bool, write: bool) -> Result<Self> {
        let protection = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let kind = if shared {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE
        };
        let at = offset as i64;
        // SAFETY: The kernel picks the address, so nothing else is unmapped.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, kind, file.as_raw_fd(), at) };
        if address == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Map {
            address: address.cast(),
            len,
        })
    }

    /// Copies from byte `from` of the mapping to the buffer. The mapping is not a slice, as the
    /// file may be written to meanwhile.
    pub fn read(&self, from: usize, buffer: &mut [u8]) {
        assert!(from + buffer.len() <= self.len);
        // SAFETY: Both have `buffer.len()` bytes there.
        unsafe {
            ptr::copy_nonoverlapping(self.address.add(from), buffer.as_mut_ptr(), buffer.len());
        }
    }

    /// Copies the buffer to the mapping from byte `to` on.
    pub fn write(&self, to: usize, buffer: &[u8]) {
        assert!(to + buffer.len() <= self.len);
        // SAFETY: Both have `buffer.len()` bytes there; callers map for writing.
        unsafe {
            ptr::copy_nonoverlapping(buffer.as_ptr(), self.address.add(to), buffer.len());
        }
    }

    /// Writes the mapped pages back, and waits for this (msync()).
    pub fn sync(&self) -> Result<()> {
        // SAFETY: The value owns the mapping.
        check(unsafe { libc::msync(self.address.cast(), self.len, libc::MS_SYNC) }.into())?;
        Ok(())
    }

    /// Calls madvise() for the whole mapping.
    pub fn advise(&self, advice: i32) -> Result<()> {
        // SAFETY: The value owns the mapping, and callers give no advice that changes content.
        check(unsafe { libc::madvise(self.address.cast(), self.len, advice) }.into())?;
        Ok(())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: The value owns the mapping, which is not used any more.
        unsafe { libc::munmap(self.address.cast(), self.len) };
    }
}

/// Calls fallocate(); `offset` and `len` are in bytes.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result<()> {
    // SAFETY: No pointers.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) }.into())?;
    Ok(())
}

/// Calls posix_fadvise(); a `len` of 0 means up to the end of the file.
pub fn fadvise(file: &File, offset: u64, len: u64, advice: i32) -> Result<()> {
    // SAFETY: No pointers.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), offset as i64, len as i64, advice) };
    match error {
        0 => Ok(()),
        error => Err(Error::from_raw_os_error(error)),
    }
}

/// Calls readahead(); `offset` and `len` are in bytes.
pub fn readahead(file: &File, offset: u64, len: usize) -> Result<()> {
    // SAFETY: No pointers.
    check(unsafe { libc::readahead(file.as_raw_fd(), offset as i64, len) } as i64)?;
    Ok(())
}

/// Writes a range of a file back, and waits for this (sync_file_range()).
pub fn sync_file_range(file: &File, offset: u64, len: u64) -> Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let fd = file.as_raw_fd();
    // SAFETY: No pointers.
    check(unsafe { libc::sync_file_range(fd, offset as i64, len as i64, flags) }.into())?;
    Ok(())
}

/// Writes back the file system that `file` is on (syncfs()).
pub fn syncfs(file: &File) -> Result<()> {
    // SAFETY: No pointers.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }.into())?;
    Ok(())
}

/// Returns the `_IOC` number of a request that the libc crate doesn't have.
const fn request(direction: u64, kind: u8, number: u64, size: usize) -> u64 {
    (direction << 30) | ((size as u64) << 16) | ((kind as u64) << 8) | number
}

/// Sends a request whose argument is a `T`.
fn ioctl<T>(file: &File, request: u64, argument: &mut T) -> Result<usize> {
    let argument: *mut T = argument;
    // SAFETY: Each caller below passes an argument of the size that its request takes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) }.into())
}

/// Writes a file system back, and keeps it from changing anything on its device until [`thaw`]
/// (FIFREEZE).
pub fn freeze(root: &File) -> Result<()> {
    ioctl(root, request(3, b'X', 119, 4), &mut 0i32)?;
    Ok(())
}

/// Lets a frozen file system change its device again (FITHAW).
pub fn thaw(root: &File) -> Result<()> {
    ioctl(root, request(3, b'X', 120, 4), &mut 0i32)?;
    Ok(())
}

/// Lets `to` share blocks of `from`; `at`, `len` and `to_at` are in bytes (FICLONERANGE).
pub fn clone_range(from: &File, at: u64, len: u64, to: &File, to_at: u64) -> Result<()> {
    let mut argument = [from.as_raw_fd() as u64, at, len, to_at];
    ioctl(to, request(1, 0x94, 13, 32), &mut argument)?;
    Ok(())
}

/// Lets `to` share blocks of `from` if their content is equal, and returns whether it was
/// (FIDEDUPERANGE).
pub fn dedupe_range(from: &File, at: u64, len: u64, to: &File, to_at: u64) -> Result<bool> {
    #[repr(C)]
    struct Argument {
        offset: u64,
        len: u64,
        count: u16,
        reserved: [u16; 3],
        to: i64,
        to_offset: u64,
        deduped: u64,
        status: i32,
        reserved2: u32,
    }
    let mut argument = Argument {
        offset: at,
        len,
        count: 1,
        reserved: [0; 3],
        to: to.as_raw_fd().into(),
        to_offset: to_at,
        deduped: 0,
        status: 0,
        reserved2: 0,
    };
    ioctl(from, request(3, 0x94, 54, 24), &mut argument)?;
    match argument.status {
        0 => Ok(true),
        1 => Ok(false),
        error => Err(Error::from_raw_os_error(-error)),
    }
}

/// Moves blocks of a file to those that are allocated for `donor`, and returns how many were moved
/// (EXT4_IOC_MOVE_EXT).
pub fn move_extents(file: &File, donor: &File, start: u64, blocks: u64) -> Result<u64> {
    let mut argument = [(donor.as_raw_fd() as u64) << 32, start, start, blocks, 0];
    ioctl(file, request(3, b'f', 15, 40), &mut argument)?;
    Ok(argument[4])
}

/// Discards the free space of a file system, and returns the number of bytes (FITRIM).
pub fn trim(directory: &File) -> Result<u64> {
    let mut argument = [0, u64::MAX, 0];
    ioctl(directory, request(3, b'X', 121, 24), &mut argument)?;
    Ok(argument[1])
}

/// Discards a range of a device, in bytes (BLKDISCARD).
pub fn discard(device: &File, offset: u64, len: u64) -> Result<()> {
    ioctl(device, request(0, 0x12, 119, 0), &mut [offset, len])?;
    Ok(())
}

/// Writes zeroes to a range of a device, in bytes (BLKZEROOUT).
pub fn zero_out(device: &File, offset: u64, len: u64) -> Result<()> {
    ioctl(device, request(0, 0x12, 127, 0), &mut [offset, len])?;
    Ok(())
}

/// Writes back and drops a device's page cache (BLKFLSBUF).
pub fn flush_buffers(device: &File) -> Result<()> {
    ioctl(device, request(0, 0x12, 97, 0), &mut 0u64)?;
    Ok(())
}

/// Returns where on its device the unit at `offset` of a file is, in bytes, or `None` if it isn't
/// mapped (FIEMAP).
pub fn physical(file: &File, offset: u64) -> Result<Option<u64>> {
    // The header with one extent: start, length, flags, mapped, count, reserved; logical,
    // physical, length, 2 reserved, flags, 3 reserved.
    let mut map = [0u64; 11];
    map[0] = offset;
    map[1] = UNIT as u64;
    map[3] = 1;
    ioctl(file, request(3, b'f', 11, 32), &mut map)?;
    let mapped = map[2] >> 32;
    Ok((mapped > 0).then(|| map[5] + (offset - map[4])))
}

/// Mounts a file system of type `kind`, with `MS_NOATIME` (mount()).
pub fn mount(device: &Path, directory: &Path, kind: &str, options: &str) -> Result<()> {
    let (device, directory) = (path_of(device)?, path_of(directory)?);
    let (kind, options) = (CString::new(kind)?, CString::new(options)?);
    // SAFETY: All strings end with a zero.
    let result = unsafe {
        libc::mount(
            device.as_ptr(),
            directory.as_ptr(),
            kind.as_ptr(),
            libc::MS_NOATIME,
            options.as_ptr().cast(),
        )
    };
    check(result.into())?;
    Ok(())
}

/// Unmounts a file system (umount2()). Tries for 30 seconds while it is busy: io_uring may close a
/// file a while after its last request has ended.
pub fn umount(directory: &Path) -> Result<()> {
    let path = path_of(directory)?;
    for _ in 0..600 {
        // SAFETY: The string ends with a zero.
        match check(unsafe { libc::umount2(path.as_ptr(), 0) }.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            result => return result.map(drop),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let busy = format!("{} is still busy", directory.display());
    Err(Error::new(ErrorKind::ResourceBusy, busy))
}

/// Creates a pipe, and returns its reading end and its writing end.
pub fn pipe() -> Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: The array has room for both.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    // SAFETY: The descriptors are new, so they are ours.
    Ok(unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) })
}

/// Forks a process that has one thread, and returns the child's id, or 0 in the child.
pub fn fork() -> Result<usize> {
    // SAFETY: There is one thread, so the child inherits no lock that another thread holds.
    check(unsafe { libc::fork() }.into())
}

/// Ends the process at once, even if threads hang (_exit()).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: The call doesn't return.
    unsafe { libc::_exit(status) }
}

/// Installs a handler of SIGBUS, which means that a mapped page could not be read. The handler
/// reports the signal on standard error, and ends the process with status 3.
pub fn report_sigbus() {
    extern "C" fn handler(_: i32) {
        let text = b"drr-torture: SIGBUS: a mapped page could not be read\n";
        // SAFETY: Both calls are allowed in a signal handler.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(3);
        }
    }
    // SAFETY: The handler only makes calls that are allowed in one.
    unsafe { libc::signal(libc::SIGBUS, handler as *const () as libc::sighandler_t) };
}

/// Converts text to a path.
pub fn path(text: &str) -> &Path {
    Path::new(OsStr::new(text))
}
