// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of several pieces at once, through io_uring.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;

use io_uring::{opcode, types, IoUring};

const ENTRIES: usize = 16;

/// A thread's ring.
pub struct Ring(IoUring);

impl Ring {
    /// A ring, if the kernel has it.
    pub fn new() -> Result<Self> {
        Ok(Ring(IoUring::new(ENTRIES as u32)?))
    }

    /// Reads, in pieces that are under way together.
    pub fn read(
        &mut self,
        file: &File,
        buffer: &mut [u8],
        offset: u64,
        flags: i32,
        piece: usize,
    ) -> Result<()> {
        let base = buffer.as_mut_ptr();
        self.transfer(buffer.len(), piece, |at, len| {
            // SAFETY: Within the buffer.
            let start = unsafe { base.add(at) };
            opcode::Read::new(types::Fd(file.as_raw_fd()), start, len as u32)
                .offset(offset + at as u64)
                .rw_flags(flags)
                .build()
        })
    }

    /// Writes, in pieces that are under way together.
    pub fn write(
        &mut self,
        file: &File,
        buffer: &[u8],
        offset: u64,
        flags: i32,
        piece: usize,
    ) -> Result<()> {
        let base = buffer.as_ptr();
        self.transfer(buffer.len(), piece, |at, len| {
            // SAFETY: Within the buffer.
            let start = unsafe { base.add(at) };
            opcode::Write::new(types::Fd(file.as_raw_fd()), start, len as u32)
                .offset(offset + at as u64)
                .rw_flags(flags)
                .build()
        })
    }

    /// Submits an entry for each piece and waits for all. What is left of a piece that was
    /// transferred in part is submitted again.
    fn transfer(
        &mut self,
        len: usize,
        piece: usize,
        entry: impl Fn(usize, usize) -> io_uring::squeue::Entry,
    ) -> Result<()> {
        let mut queue: Vec<(usize, usize)> = (0..len)
            .step_by(piece)
            .map(|at| (at, piece.min(len - at)))
            .collect();
        queue.reverse();
        let mut failed = None;
        while !queue.is_empty() && failed.is_none() {
            let batch: Vec<_> = (0..ENTRIES).map_while(|_| queue.pop()).collect();
            for (index, &(at, len)) in batch.iter().enumerate() {
                let entry = entry(at, len).user_data(index as u64);
                // SAFETY: The buffer outlives the wait below, which always comes.
                unsafe { self.0.submission().push(&entry) }.expect("room for a batch");
            }
            let mut submitted = 0;
            let mut done = 0;
            while done < batch.len() {
                match self.0.submit_and_wait(1) {
                    Ok(count) => submitted += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if submitted == 0 => return Err(error),
                    Err(_) => {}
                }
                for completion in self.0.completion() {
                    done += 1;
                    let (at, len) = batch[completion.user_data() as usize];
                    match usize::try_from(completion.result()) {
                        Ok(0) => failed = Some(ErrorKind::UnexpectedEof.into()),
                        Ok(count) if count < len => queue.push((at + count, len - count)),
                        Ok(_) => {}
                        Err(_) => {
                            failed = Some(Error::from_raw_os_error(-completion.result()));
                        }
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
