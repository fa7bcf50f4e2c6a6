// SPDX-License-Identifier: GPL-2.0

//! Bios on their way through a target.
//!
//! A [`Bio`] handed to [`Target::map`] is owned by the target. All ways to be rid of it take it and return the
//! [`Mapped`] that `map` has to return: it is sent down, completed, has to wait, or is given back. An [`EndedBio`]
//! has ended, and is only looked at.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::bindings::{bio, bio_vec, bvec_iter};

use crate::{
    bindings,
    block::device::BlockDevice,
    pagecache::folio::{FilledPages, PAGE_SHIFT},
    target::{per_bio, Target},
};

/// log2 of the size of a sector.
pub const SECTOR_SHIFT: u32 = 9;

/// The operation of a bio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Read (`REQ_OP_READ`).
    Read,
    /// Write data (`REQ_OP_WRITE`).
    Write,
    /// Write zeroes (`REQ_OP_WRITE_ZEROES`).
    WriteZeroes,
    /// Discard (`REQ_OP_DISCARD`).
    Discard,
    /// Discard so that nothing can be recovered (`REQ_OP_SECURE_ERASE`).
    SecureErase,
    /// Flush the device's write cache (an empty write with `REQ_PREFLUSH`).
    Flush,
    /// Any other.
    Other,
}

impl Op {
    /// Returns whether the bio's sectors may read differently afterwards.
    pub fn changes_sectors(self) -> bool {
        matches!(
            self,
            Self::Write | Self::WriteZeroes | Self::Discard | Self::SecureErase
        )
    }
}

/// What becomes of a bio that a target was given. Only made from a [`Bio`], which it takes.
///
/// It is done when the target's function has returned: once the bio has ended, the target may be gone.
#[must_use]
pub struct Mapped(Action);

enum Action {
    /// It goes to the device that it has been remapped to.
    Remapped(NonNull<bio>),
    /// It has ended, with its status.
    Complete(NonNull<bio>),
    /// A private bio is sent for it.
    Send {
        bio: NonNull<bio>,
        private: NonNull<bio>,
    },
    /// It waits; another context may have it already.
    Parked,
    /// Device-mapper maps it again later.
    Requeue(NonNull<bio>),
    /// Device-mapper fails it.
    Kill(NonNull<bio>),
}

impl Mapped {
    /// The bio waits in a list of this crate's, and goes on by [`Self::carry_out`].
    pub(crate) fn parked() -> Self {
        Self(Action::Parked)
    }

    /// The private bio is sent, and completes the other.
    pub(crate) fn send(bio: NonNull<bio>, private: NonNull<bio>) -> Self {
        Self(Action::Send { bio, private })
    }

    /// Does what there is to be done, in [`Target::map`]'s caller. Returns the code for device-mapper (`DM_MAPIO_*`),
    /// and whether the clone is given back without having ended.
    ///
    /// # Safety
    ///
    /// Called once, by device-mapper's map function for the bio.
    pub(crate) unsafe fn carry_out_in_map(self) -> (u32, bool) {
        match self.0 {
            Action::Remapped(_) => (bindings::DM_RUST_MAPIO_REMAPPED, false),
            Action::Requeue(_) => (bindings::DM_RUST_MAPIO_REQUEUE, true),
            Action::Kill(_) => (bindings::DM_RUST_MAPIO_KILL, true),
            Action::Complete(_) | Action::Send { .. } | Action::Parked => {
                // SAFETY: By the safety requirements.
                unsafe { self.carry_out() };
                (bindings::DM_RUST_MAPIO_SUBMITTED, false)
            }
        }
    }

    /// Does what there is to be done with a bio that was parked.
    ///
    /// # Safety
    ///
    /// Called once; the bio's target type is one whose bios are sent later.
    pub(crate) unsafe fn carry_out(self) {
        // SAFETY: Each of them is ours until then, as the `Bio` was. A bio that is sent is charged to the submitter of the
        // bio above, whoever's task this is.
        unsafe {
            match self.0 {
                Action::Remapped(bio) => {
                    bindings::dm_submit_bio_remap(bio.as_ptr(), core::ptr::null_mut());
                }
                Action::Send { bio, private } => {
                    bindings::dm_submit_bio_remap(bio.as_ptr(), private.as_ptr());
                }
                Action::Complete(bio) => kernel::bindings::bio_endio(bio.as_ptr()),
                Action::Requeue(bio) => end(bio, bindings::DM_RUST_STS_REQUEUE),
                Action::Kill(bio) => end(bio, bindings::DM_RUST_STS_IOERR),
                Action::Parked => {}
            }
        }
    }
}

/// Ends a bio.
///
/// # Safety
///
/// The bio is the caller's, and not used after this.
unsafe fn end(bio: NonNull<bio>, status: u32) {
    // SAFETY: By the safety requirements.
    unsafe {
        // CAST: A `blk_status_t` has eight bits.
        (*bio.as_ptr()).bi_status = status as u8;
        kernel::bindings::bio_endio(bio.as_ptr());
    }
}

/// A bio in the hands of a target.
///
/// # Invariants
///
/// The pointer is a valid bio that device-mapper cloned for a `T` and passed to its `map`
/// function, not yet completed or sent down. Its per-bio data is initialised.
pub struct Bio<'a, T: Target> {
    bio: NonNull<bio>,
    begin: u64,
    target: PhantomData<&'a T>,
}

// SAFETY: A bio may be handled by any task, and per-bio data is `Send`.
unsafe impl<T: Target> Send for Bio<'_, T> {}

impl<'a, T: Target> Bio<'a, T> {
    /// # Safety
    ///
    /// As the type invariant says, for a target that begins at sector `begin` of its device and
    /// lives for `'a`; nobody else uses the bio.
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>, begin: u64) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            bio,
            begin,
            target: PhantomData,
        }
    }

    fn raw(&self) -> &bio {
        // SAFETY: Valid by the type invariant.
        unsafe { self.bio.as_ref() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bio {
        self.bio.as_ptr()
    }

    /// Returns its operation.
    #[inline]
    pub fn op(&self) -> Op {
        let opf = self.raw().bi_opf;
        match opf & bindings::DM_RUST_OP_MASK {
            bindings::DM_RUST_OP_READ => Op::Read,
            bindings::DM_RUST_OP_WRITE
                if opf & bindings::DM_RUST_OP_FLUSH != 0 && self.sectors() == 0 =>
            {
                Op::Flush
            }
            bindings::DM_RUST_OP_WRITE => Op::Write,
            bindings::DM_RUST_OP_WRITE_ZEROES => Op::WriteZeroes,
            bindings::DM_RUST_OP_DISCARD => Op::Discard,
            bindings::DM_RUST_OP_SECURE_ERASE => Op::SecureErase,
            _ => Op::Other,
        }
    }

    /// Its data is encrypted or protected on the way, so what is in its pages is not what is on
    /// the disk.
    pub fn transformed(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::dm_rust_bio_is_transformed(self.bio.as_ptr()) }
    }

    /// Whole pages of page caches that it is about to fill; others are passed over.
    pub fn pages(&self) -> Pages<'_> {
        // INVARIANT: The bio's own; it is borrowed, so it isn't completed.
        Pages {
            vecs: self.vecs(),
            iter: self.iter(),
            done: 0,
            bio: PhantomData,
        }
    }

    /// First sector, counted from the target's start. An empty flush isn't remapped to the target, so its sector may
    /// be in front of that: 0 then.
    #[inline]
    pub fn sector(&self) -> u64 {
        let iter = self.raw().bi_iter;
        iter.bi_sector.saturating_sub(self.begin)
    }

    /// Length in sectors.
    #[inline]
    pub fn sectors(&self) -> u32 {
        let iter = self.raw().bi_iter;
        iter.bi_size >> SECTOR_SHIFT
    }

    /// It writes data that may be written together with other data, at any time before it completes.
    pub fn writes_plainly(&self) -> bool {
        let opf = self.raw().bi_opf;
        opf & bindings::DM_RUST_OP_MASK == bindings::DM_RUST_OP_WRITE
            && opf & bindings::DM_RUST_SPECIAL_WRITE == 0
            && !self.transformed()
    }

    pub(crate) fn flags(&self) -> u32 {
        self.raw().bi_opf
    }

    pub(crate) fn iter(&self) -> bvec_iter {
        self.raw().bi_iter
    }

    pub(crate) fn vecs(&self) -> *mut bio_vec {
        self.raw().bi_io_vec
    }

    pub(crate) fn begin(&self) -> u64 {
        self.begin
    }

    /// Its submitter polls for its end.
    pub fn polled(&self) -> bool {
        self.raw().bi_opf & bindings::DM_RUST_POLLED != 0
    }

    /// It is for a file system's metadata, as the file system says.
    pub fn metadata(&self) -> bool {
        self.raw().bi_opf & bindings::DM_RUST_META != 0
    }

    /// Data of the target's own that travels with the bio.
    pub fn data(&mut self) -> &mut T::PerBio {
        // SAFETY: Initialised by the type invariant; `&mut self` makes the access exclusive.
        unsafe { &mut *per_bio_data::<T>(self.bio.as_ptr()) }
    }

    /// A writer that starts at the first byte of the bio's data.
    pub fn writer(&mut self) -> Writer<'_> {
        // SAFETY: The bio is ours for as long as it is borrowed.
        unsafe { Writer::new(self.vecs(), self.iter(), 0) }
    }

    /// Whoever polls for its end finds nothing to poll, and gets it by interrupt: it is to be sent by another task.
    pub(crate) fn stop_polling(&mut self) {
        // SAFETY: Ours, by the type invariant, and not sent yet.
        unsafe { (*self.bio.as_ptr()).bi_opf &= !bindings::DM_RUST_POLLED };
    }

    /// Takes no more of it than its first `sectors`; device-mapper comes again with the rest.
    ///
    /// To be called before anything else is done with it, once, of a read.
    pub fn accept(&mut self, sectors: u32) {
        if sectors == 0 || sectors >= self.sectors() {
            return;
        }
        // SAFETY: Ours, and in `map`, by the type invariant; fewer sectors than it has. Only writes
        // are atomic, and only what is no read or write is duplicated.
        unsafe { bindings::dm_accept_partial_bio(self.bio.as_ptr(), sectors) };
    }

    /// Sends it to `device` as it is: an empty flush, which has no place.
    pub fn redirect(self, device: BlockDevice<'_>) -> Mapped {
        // SAFETY: Valid and ours, by the type invariant.
        unsafe { bindings::dm_rust_bio_set_dev(self.bio.as_ptr(), device.as_ptr()) };
        Mapped(Action::Remapped(self.bio))
    }

    /// Sends it to `device`, at `sector` there.
    pub fn remap(self, device: BlockDevice<'_>, sector: u64) -> Mapped {
        // SAFETY: Valid and ours, by the type invariant.
        unsafe {
            bindings::dm_rust_bio_set_dev(self.bio.as_ptr(), device.as_ptr());
            (*self.bio.as_ptr()).bi_iter.bi_sector = sector;
        }
        Mapped(Action::Remapped(self.bio))
    }

    /// Completes it successfully: if it reads, its data has been written by a [`Writer`].
    pub fn complete(self) -> Mapped {
        self.end(bindings::DM_RUST_STS_OK)
    }

    /// Completes it with an I/O error (`BLK_STS_IOERR`).
    pub fn fail(self) -> Mapped {
        self.end(bindings::DM_RUST_STS_IOERR)
    }

    fn end(self, status: u32) -> Mapped {
        // SAFETY: Ours, by the type invariant.
        // CAST: A `blk_status_t` has eight bits.
        unsafe { (*self.bio.as_ptr()).bi_status = status as u8 };
        Mapped(Action::Complete(self.bio))
    }

    /// Gives it back to be mapped again later. Device-mapper does so when the device has been suspended and resumed,
    /// and fails it if the device isn't being suspended without flushing (`DM_MAPIO_REQUEUE`).
    pub fn requeue(self) -> Mapped {
        Mapped(Action::Requeue(self.bio))
    }

    /// Gives it back to be failed with an I/O error, without [`Target::end_io`] (`DM_MAPIO_KILL`).
    pub fn kill(self) -> Mapped {
        Mapped(Action::Kill(self.bio))
    }

    /// Of a flush, discard, secure erase or write-zeroes bio that device-mapper sends to a target several times, tells
    /// which one it is, from 0 on ([`Constructor::set_flush_bios`](crate::target::Constructor::set_flush_bios)).
    pub fn duplicate_nr(&self) -> u32 {
        // SAFETY: A clone, by the type invariant.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }
}

/// The target's own part of what travels with a clone.
///
/// # Safety
///
/// `bio` was cloned by device-mapper for a `T`, or is about to be handed to one.
pub(crate) unsafe fn per_bio_data<T: Target>(bio: *mut bio) -> *mut T::PerBio {
    // SAFETY: The registration makes room for a `PerBio<T>`.
    unsafe { &raw mut (*per_bio::<T>(bio)).data }
}

/// A bio that comes back from below, or has been completed by the target itself.
///
/// # Invariants
///
/// The bio is valid and does not complete towards its submitter during `'a`.
pub struct EndedBio<'a, T: Target> {
    bio: NonNull<bio>,
    ok: bool,
    target: PhantomData<&'a T>,
}

impl<'a, T: Target> EndedBio<'a, T> {
    /// # Safety
    ///
    /// As the type invariant says; `bio` was cloned for a `T` and went through its `map`.
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>, ok: bool) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            bio,
            ok,
            target: PhantomData,
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut bio {
        self.bio.as_ptr()
    }

    /// Returns whether it has ended without an error.
    pub fn ok(&self) -> bool {
        self.ok
    }

    /// Data of the target's own that travelled with the bio.
    pub fn data(&self) -> &T::PerBio {
        // SAFETY: Initialised in `map`; dropped only after the target has looked at it.
        unsafe { &*per_bio_data::<T>(self.bio.as_ptr()) }
    }

    fn vecs(&self) -> *const bio_vec {
        // SAFETY: Valid by the type invariant.
        unsafe { self.bio.as_ref() }.bi_io_vec
    }

    /// Whole pages of page caches in `iter`, which is where the bio's data is; others are passed over.
    pub(crate) fn pages(&self, iter: bvec_iter) -> Pages<'_> {
        // INVARIANT: The bio's own; it doesn't complete.
        Pages {
            vecs: self.vecs(),
            iter,
            done: 0,
            bio: PhantomData,
        }
    }
}

/// Remembers where a bio's data was, for [`Filled::pages`].
///
/// # Invariants
///
/// The iterator describes data of the bio that the vector belonged to when the value was made.
#[derive(Clone, Copy, Default)]
pub struct Filled(Option<(NonNull<bio_vec>, bvec_iter)>);

// SAFETY: The vector belongs to the bio, and with it to whoever handles the bio.
unsafe impl Send for Filled {}
// SAFETY: As above.
unsafe impl Sync for Filled {}

impl Filled {
    /// What `bio` is going to fill.
    pub fn by<T: Target>(bio: &Bio<'_, T>) -> Self {
        // INVARIANT: Both are the bio's own.
        Self(NonNull::new(bio.raw().bi_io_vec).map(|vecs| (vecs, bio.iter())))
    }

    /// Whole pages of page caches that `bio` was to fill; others are passed over, and all of them if `self` is
    /// of another bio.
    pub fn pages<'a, T: Target>(&self, bio: &'a EndedBio<'_, T>) -> Pages<'a> {
        let (vecs, iter) = match self.0 {
            Some((vecs, iter)) if core::ptr::eq(vecs.as_ptr(), bio.vecs()) => {
                (vecs.as_ptr().cast_const(), iter)
            }
            _ => (core::ptr::null(), bvec_iter::default()),
        };
        Pages {
            vecs,
            iter,
            done: 0,
            bio: PhantomData,
        }
    }
}

/// A piece of a bio's data that is contiguous in memory.
///
/// # Safety
///
/// `vecs` and `iter` describe a live bio's data, with `bi_size` bytes left.
// RANGE: By the safety requirements `iter` is within the bio_vec; a `u32` fits.
pub(crate) unsafe fn piece(vecs: *const bio_vec, iter: &bvec_iter) -> (bio_vec, u32) {
    // SAFETY: By the safety requirements.
    let vec = unsafe { *vecs.add(iter.bi_idx as usize) };
    let (offset, size) = (iter.bi_offset, iter.bi_size);
    (vec, (vec.bv_len - offset).min(size))
}

/// Steps over `bytes` of the piece that [`piece`] returned.
// RANGE: The piece has `bytes`, and both the bio_vec and the bio have the piece.
pub(crate) fn advance(vec: &bio_vec, iter: &mut bvec_iter, bytes: u32) {
    iter.bi_size -= bytes;
    iter.bi_offset += bytes;
    if iter.bi_offset == vec.bv_len {
        iter.bi_offset = 0;
        iter.bi_idx += 1;
    }
}

/// Iterates over the page-cache pages that a read fills as a whole.
///
/// # Invariants
///
/// `vecs` and `iter` describe data of a bio that doesn't complete during `'a`.
pub struct Pages<'a> {
    vecs: *const bio_vec,
    iter: bvec_iter,
    done: u32,
    bio: PhantomData<&'a ()>,
}

impl<'a> Iterator for Pages<'a> {
    type Item = FilledPages<'a>;

    // RANGE: A bio's data has fewer than 2^32 bytes, which `done` counts.
    fn next(&mut self) -> Option<FilledPages<'a>> {
        const PAGE_MASK: u32 = (1 << PAGE_SHIFT) - 1;

        while self.iter.bi_size != 0 {
            // SAFETY: By the type invariant.
            let (vec, len) = unsafe { piece(self.vecs, &self.iter) };
            // As `bvec_iter_offset()` adds them.
            let start = vec.bv_offset.wrapping_add(self.iter.bi_offset);
            if (start | len | self.done) & PAGE_MASK != 0 {
                // A part of a page is no page.
                advance(&vec, &mut self.iter, len);
                self.done += len;
                continue;
            }
            let page = vec.bv_page.wrapping_add((start >> PAGE_SHIFT) as usize);
            // SAFETY: The bio holds all pages of its data.
            let (count, pages) =
                unsafe { FilledPages::new(page, len >> PAGE_SHIFT, self.done >> PAGE_SHIFT) };
            if count == 0 {
                // Memory of another kind, a direct reader's say; the rest is no page cache either.
                self.iter.bi_size = 0;
            } else {
                advance(&vec, &mut self.iter, count << PAGE_SHIFT);
            }
            self.done += count << PAGE_SHIFT;
            if pages.is_some() {
                return pages;
            }
        }
        None
    }
}

/// Writes into the data of a read, from its first byte on.
///
/// # Invariants
///
/// `vecs` and `iter` describe data of a bio that is ours for `'a`.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    vecs: *const bio_vec,
    iter: bvec_iter,
    bio: PhantomData<&'a ()>,
}

impl Writer<'_> {
    /// Starts at byte `skip` of the data.
    ///
    /// # Safety
    ///
    /// As the type invariant says.
    pub(crate) unsafe fn new(vecs: *const bio_vec, mut iter: bvec_iter, mut skip: u32) -> Self {
        while skip != 0 && iter.bi_size != 0 {
            // SAFETY: By the safety requirements.
            let (vec, len) = unsafe { piece(vecs, &iter) };
            let len = len.min(skip);
            advance(&vec, &mut iter, len);
            // RANGE: `len` was cut to that.
            skip -= len;
        }
        // INVARIANT: By the safety requirements.
        Self {
            vecs,
            iter,
            bio: PhantomData,
        }
    }

    /// Copies `data`, as much as there is room for.
    pub fn write(&mut self, data: &[u8]) {
        let mut left = data;
        while !left.is_empty() && self.iter.bi_size != 0 {
            // SAFETY: By the type invariant.
            let (vec, len) = unsafe { piece(self.vecs, &self.iter) };
            // CAST: A `u32` fits.
            let (now, later) = left.split_at(left.len().min(len as usize));
            // SAFETY: The bio holds its pages, whose memory is contiguous in a bio_vec and
            // always mapped. The two don't overlap: the data is ours.
            unsafe {
                let to = bindings::dm_rust_page_address(vec.bv_page)
                    .cast::<u8>()
                    // RANGE: As in `Pages::next`.
                    .add((vec.bv_offset + self.iter.bi_offset) as usize);
                core::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len());
            }
            // CAST: Not more than `len`.
            advance(&vec, &mut self.iter, now.len() as u32);
            left = later;
        }
    }
}
