// SPDX-License-Identifier: GPL-2.0

//! Bios on their way through a target.
//!
//! A [`Bio`] passed to [`Target::map`] is owned by the target. Every method that disposes of the
//! bio consumes it and returns the [`Mapped`] that `map` has to return: the bio is sent down,
//! completed, parked, or given back. An [`EndedBio`] has ended, and can only be read.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::bindings::{bio, bio_vec, bvec_iter};

use crate::{
    bindings,
    block::device::BlockDevice,
    compat::{passed, set_passed},
    pagecache::folio::{FilledPages, PAGE_SHIFT},
    target::{per_bio, Target},
};

/// Binary logarithm of the sector size in bytes.
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
    /// Any other operation.
    Other,
}

impl Op {
    /// Returns whether the operation may change what the bio's sectors read as.
    pub fn changes_sectors(self) -> bool {
        matches!(
            self,
            Self::Write | Self::WriteZeroes | Self::Discard | Self::SecureErase
        )
    }
}

/// What is to be done with a bio that a target was given. Created only by consuming a [`Bio`].
///
/// It is carried out after the target's function has returned: once the bio has ended, the target
/// may be destroyed.
#[must_use]
pub struct Mapped(Action);

enum Action {
    /// Send the bio to the device it was remapped to.
    Remapped(NonNull<bio>),
    /// Complete the bio with the status it has.
    Complete(NonNull<bio>),
    /// Send a private bio on behalf of the bio.
    Send {
        bio: NonNull<bio>,
        private: NonNull<bio>,
    },
    /// Do nothing: the bio is parked, and another context may already own it.
    Parked,
    /// Have device-mapper map the bio again later.
    Requeue(NonNull<bio>),
    /// Have device-mapper fail the bio.
    Kill(NonNull<bio>),
}

impl Mapped {
    /// Creates the value for a bio that is in a list of this crate and is continued by
    /// [`Self::carry_out`].
    pub(crate) fn parked() -> Self {
        Self(Action::Parked)
    }

    /// Creates the value for a bio on whose behalf a private bio is sent, which completes the bio
    /// when it has ended.
    pub(crate) fn send(bio: NonNull<bio>, private: NonNull<bio>) -> Self {
        Self(Action::Send { bio, private })
    }

    /// Carries out the action in the caller of [`Target::map`]. Returns the code for device-mapper
    /// (`DM_MAPIO_*`), and whether the clone is given back without having ended.
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
                // SAFETY: By the safety requirements, and the target's function has returned.
                unsafe { self.carry_out() };
                (bindings::DM_RUST_MAPIO_SUBMITTED, false)
            }
        }
    }

    /// Carries out the action, in `map` or for a bio that was parked. Any context.
    ///
    /// # Safety
    ///
    /// Called once, when the target's function has returned.
    pub(crate) unsafe fn carry_out(self) {
        // SAFETY: The action owns its bios, as the `Bio` did. A bio that is sent is charged to the
        // submitter of the original bio, whatever the current task.
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

/// Ends a bio with the given status.
///
/// # Safety
///
/// The caller owns the bio and does not use it afterwards.
unsafe fn end(bio: NonNull<bio>, status: u32) {
    // SAFETY: By the safety requirements.
    unsafe {
        // CAST: A `blk_status_t` has eight bits.
        (*bio.as_ptr()).bi_status = status as u8;
        kernel::bindings::bio_endio(bio.as_ptr());
    }
}

/// A bio that a target owns.
///
/// # Invariants
///
/// The pointer is a valid bio that device-mapper cloned for a `T` and passed to its `map` function,
/// and that has neither been completed nor sent down. Its per-bio data is initialised. If `in_map`,
/// that function has not returned.
pub struct Bio<'a, T: Target> {
    bio: NonNull<bio>,
    begin: u64,
    in_map: bool,
    target: PhantomData<&'a T>,
}

// SAFETY: A bio may be handled by any task, and per-bio data is `Send`.
unsafe impl<T: Target> Send for Bio<'_, T> {}

impl<'a, T: Target> Bio<'a, T> {
    /// # Safety
    ///
    /// `bio` meets the type invariant for a target that begins at sector `begin` of its device and
    /// lives for `'a`, and nothing else uses the bio.
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>, begin: u64, in_map: bool) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            bio,
            begin,
            in_map,
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

    /// Returns the operation.
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

    /// Returns whether the data is encrypted or protected on the way, so that the bio's pages and
    /// the disk hold different bytes.
    pub fn transformed(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::dm_rust_bio_is_transformed(self.bio.as_ptr()) }
    }

    /// Iterates over the whole pages of page caches that the bio is about to fill. Other memory is
    /// skipped.
    pub fn pages(&self) -> Pages<'_> {
        // INVARIANT: Both are the bio's own; the bio is borrowed, so it does not complete.
        Pages {
            vecs: self.vecs(),
            iter: self.iter(),
            done: 0,
            bio: PhantomData,
        }
    }

    /// Returns the first sector, counted from the start of the target.
    ///
    /// An empty flush is not remapped to the target, so its sector may be before the target's
    /// start. Then 0 is returned.
    #[inline]
    pub fn sector(&self) -> u64 {
        let iter = self.raw().bi_iter;
        iter.bi_sector.saturating_sub(self.begin)
    }

    /// Returns the length in sectors.
    #[inline]
    pub fn sectors(&self) -> u32 {
        let iter = self.raw().bi_iter;
        iter.bi_size >> SECTOR_SHIFT
    }

    /// Returns whether the bio writes data that may be written together with other data, at any
    /// time before it completes.
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

    /// Returns whether the submitter polls for completion (`REQ_POLLED`).
    pub fn polled(&self) -> bool {
        self.raw().bi_opf & bindings::DM_RUST_POLLED != 0
    }

    /// Returns whether the file system has marked the bio as metadata (`REQ_META`).
    pub fn metadata(&self) -> bool {
        self.raw().bi_opf & bindings::DM_RUST_META != 0
    }

    /// Returns the target's private data for this bio.
    pub fn data(&mut self) -> &mut T::PerBio {
        // SAFETY: Initialised by the type invariant; `&mut self` makes the access exclusive.
        unsafe { &mut *per_bio_data::<T>(self.bio.as_ptr()) }
    }

    /// Returns a writer that starts at the first byte of the bio's data.
    pub fn writer(&mut self) -> Writer<'_> {
        // SAFETY: We own the bio while it is borrowed.
        unsafe { Writer::new(self.vecs(), self.iter(), 0) }
    }

    /// Turns polled completion off: the bio is going to be sent by another task, so its submitter
    /// would have nothing to poll.
    pub(crate) fn stop_polling(&mut self) {
        // SAFETY: We own the bio by the type invariant, and it has not been sent.
        unsafe { (*self.bio.as_ptr()).bi_opf &= !bindings::DM_RUST_POLLED };
    }

    /// Limits a read to its first `sectors` sectors; device-mapper maps the rest again. Returns
    /// whether it is limited now: not if `sectors` is 0 or not less than the bio's length, for no
    /// other operation, nor once [`Target::map`] has returned.
    ///
    /// # Examples
    ///
    /// Serves the first page of a read from `words`.
    ///
    /// ```ignore
    /// if bio.sectors() == PAGE_SECTORS || bio.accept(PAGE_SECTORS) {
    ///     bio.writer().write(bytes(words));
    ///     return bio.complete();
    /// }
    /// ```
    #[must_use]
    pub fn accept(&mut self, sectors: u32) -> bool {
        let fewer = sectors != 0 && sectors < self.sectors();
        let can = fewer && self.in_map && self.op() == Op::Read;
        if can {
            // SAFETY: We own the bio, and are in `map`, by the type invariant. It has more than
            // `sectors` sectors. Only writes are atomic, and only bios that are neither reads nor
            // writes are duplicates.
            unsafe { bindings::dm_accept_partial_bio(self.bio.as_ptr(), sectors) };
        }
        can
    }

    /// Sends the bio to `device` without changing its sector: for an empty flush, which has none.
    pub fn redirect(self, device: BlockDevice<'_>) -> Mapped {
        // SAFETY: Valid and owned, by the type invariant.
        unsafe { bindings::dm_rust_bio_set_dev(self.bio.as_ptr(), device.as_ptr()) };
        Mapped(Action::Remapped(self.bio))
    }

    /// Sends the bio to `device`, at sector `sector` of that device.
    pub fn remap(self, device: BlockDevice<'_>, sector: u64) -> Mapped {
        // SAFETY: Valid and owned, by the type invariant.
        unsafe {
            bindings::dm_rust_bio_set_dev(self.bio.as_ptr(), device.as_ptr());
            (*self.bio.as_ptr()).bi_iter.bi_sector = sector;
        }
        Mapped(Action::Remapped(self.bio))
    }

    /// Completes the bio successfully. The data of a read must have been written with a [`Writer`].
    pub fn complete(self) -> Mapped {
        self.end(bindings::DM_RUST_STS_OK)
    }

    /// Completes the bio with an I/O error (`BLK_STS_IOERR`).
    pub fn fail(self) -> Mapped {
        self.end(bindings::DM_RUST_STS_IOERR)
    }

    fn end(self, status: u32) -> Mapped {
        // SAFETY: Owned, by the type invariant.
        // CAST: A `blk_status_t` has eight bits.
        unsafe { (*self.bio.as_ptr()).bi_status = status as u8 };
        Mapped(Action::Complete(self.bio))
    }

    /// Gives the bio back to be mapped again when the device has been suspended and resumed
    /// (`DM_MAPIO_REQUEUE`). Device-mapper fails the bio unless the device is being suspended
    /// without flushing.
    pub fn requeue(self) -> Mapped {
        Mapped(Action::Requeue(self.bio))
    }

    /// Gives the bio back to be failed with an I/O error (`DM_MAPIO_KILL`). In `map`,
    /// [`Target::end_io`] is not called for the bio.
    pub fn kill(self) -> Mapped {
        Mapped(Action::Kill(self.bio))
    }

    /// Returns the number, from 0 on, of a flush, discard, secure erase or write-zeroes bio among
    /// those that device-mapper sends to the target for one bio
    /// ([`Constructor::set_flush_bios`](crate::target::Constructor::set_flush_bios)).
    pub fn duplicate_nr(&self) -> u32 {
        // SAFETY: The bio is a clone, by the type invariant.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }
}

/// Returns the target's private data for a clone.
///
/// # Safety
///
/// `bio` was cloned by device-mapper for a `T`, or is about to be passed to one.
pub(crate) unsafe fn per_bio_data<T: Target>(bio: *mut bio) -> *mut T::PerBio {
    // SAFETY: The constructor made device-mapper reserve room for a `PerBio<T>`.
    unsafe { &raw mut (*per_bio::<T>(bio)).data }
}

/// A bio that has ended below the target, or was completed by the target itself.
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
    /// `bio` meets the type invariant, was cloned for a `T` and went through its `map`.
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

    /// Returns whether the bio has ended without an error.
    pub fn ok(&self) -> bool {
        self.ok
    }

    /// Returns the target's private data for this bio.
    pub fn data(&self) -> &T::PerBio {
        // SAFETY: Initialised in `map`, and dropped only after the target's `end_io`.
        unsafe { &*per_bio_data::<T>(self.bio.as_ptr()) }
    }

    fn vecs(&self) -> *const bio_vec {
        // SAFETY: Valid by the type invariant.
        unsafe { self.bio.as_ref() }.bi_io_vec
    }

    /// Iterates over the whole pages of page caches in `iter`, which describes the bio's data.
    /// Other memory is skipped.
    pub(crate) fn pages(&self, iter: bvec_iter) -> Pages<'_> {
        // INVARIANT: Both are the bio's own, and the bio does not complete.
        Pages {
            vecs: self.vecs(),
            iter,
            done: 0,
            bio: PhantomData,
        }
    }
}

/// Where a bio's data was before it was sent, for [`Filled::pages`].
///
/// # Invariants
///
/// The iterator describes data of the bio that the vector belonged to when the value was made.
///
/// # Examples
///
/// A target that remembers in `map` where the data of a read goes, and visits the pages in
/// `end_io`.
///
/// ```ignore
/// // In `map`:
/// bio.data().filled = Filled::by(&bio);
///
/// // In `end_io`:
/// for pages in bio.data().filled.pages(&bio) {
///     if let FilledPages::Alone(pages) = pages {
///         self.record(&CachedPages::read(&pages));
///     }
/// }
/// ```
#[derive(Clone, Copy, Default)]
pub struct Filled(Option<(NonNull<bio_vec>, bvec_iter)>);

// SAFETY: The vector belongs to the bio, which may be handled by any task.
unsafe impl Send for Filled {}
// SAFETY: As above.
unsafe impl Sync for Filled {}

impl Filled {
    /// Remembers the memory that `bio` is going to fill.
    pub fn by<T: Target>(bio: &Bio<'_, T>) -> Self {
        // INVARIANT: Both are the bio's own.
        Self(NonNull::new(bio.raw().bi_io_vec).map(|vecs| (vecs, bio.iter())))
    }

    /// Iterates over the whole pages of page caches that `bio` was to fill. Other memory is
    /// skipped. Yields nothing if `self` is of another bio.
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

/// Returns the first piece of `iter` that is contiguous in memory: its bio_vec, and its length in
/// bytes.
///
/// # Safety
///
/// `vecs` and `iter` describe data of a live bio, with `bi_size` bytes left.
// RANGE: By the safety requirements `iter` is within the bio_vec; a `u32` fits.
pub(crate) unsafe fn piece(vecs: *const bio_vec, iter: &bvec_iter) -> (bio_vec, u32) {
    // SAFETY: By the safety requirements.
    let vec = unsafe { *vecs.add(iter.bi_idx as usize) };
    let (offset, size) = (passed(iter), iter.bi_size);
    (vec, (vec.bv_len - offset).min(size))
}

/// Copies `len` bytes to a bio's memory. If these may be executed later, an architecture whose
/// instruction cache doesn't see them learns that it has to make them visible when they are mapped.
///
/// # Safety
///
/// `from` is valid for reads, and `to`, in the linear mapping, for writes of `len` bytes. They do
/// not overlap.
pub(crate) unsafe fn fill(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: By the safety requirements.
    unsafe { core::ptr::copy_nonoverlapping(from, to, len) };
    if bindings::DM_RUST_FLUSHES_DCACHE != 0 {
        // SAFETY: By the safety requirements.
        unsafe { bindings::dm_rust_flush_dcache(to.cast(), len) };
    }
}

/// Advances `iter` by `bytes` bytes of the piece that [`piece`] has returned.
// RANGE: The piece has at least `bytes`, and both the bio_vec and the bio contain the piece.
pub(crate) fn advance(vec: &bio_vec, iter: &mut bvec_iter, bytes: u32) {
    iter.bi_size -= bytes;
    let now = passed(iter) + bytes;
    if now == vec.bv_len {
        set_passed(iter, 0);
        iter.bi_idx += 1;
    } else {
        set_passed(iter, now);
    }
}

/// Iterator over the page-cache pages that a read fills as a whole.
///
/// # Invariants
///
/// `vecs` and `iter` describe data of a bio that does not complete during `'a`.
pub struct Pages<'a> {
    vecs: *const bio_vec,
    iter: bvec_iter,
    done: u32,
    bio: PhantomData<&'a ()>,
}

impl<'a> Iterator for Pages<'a> {
    type Item = FilledPages<'a>;

    // RANGE: The data of a bio has fewer than 2^32 bytes, which `done` counts.
    fn next(&mut self) -> Option<FilledPages<'a>> {
        const PAGE_MASK: u32 = (1 << PAGE_SHIFT) - 1;

        while self.iter.bi_size != 0 {
            // SAFETY: By the type invariant.
            let (vec, len) = unsafe { piece(self.vecs, &self.iter) };
            // Wraps as in `bvec_iter_offset()`.
            let start = vec.bv_offset.wrapping_add(passed(&self.iter));
            if (start | len | self.done) & PAGE_MASK != 0 {
                // Skip parts of pages.
                advance(&vec, &mut self.iter, len);
                self.done += len;
                continue;
            }
            let page = vec.bv_page.wrapping_add((start >> PAGE_SHIFT) as usize);
            // SAFETY: The bio holds all pages of its data.
            let (count, pages) =
                unsafe { FilledPages::new(page, len >> PAGE_SHIFT, self.done >> PAGE_SHIFT) };
            if count == 0 {
                // The memory is not page cache, for example that of direct I/O, and neither is the
                // rest.
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
/// `vecs` and `iter` describe data of a bio that is exclusively ours for `'a`.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    vecs: *const bio_vec,
    iter: bvec_iter,
    bio: PhantomData<&'a ()>,
}

impl Writer<'_> {
    /// Creates a writer that starts at byte `skip` of the data.
    ///
    /// # Safety
    ///
    /// `vecs` and `iter` meet the type invariant.
    pub(crate) unsafe fn new(vecs: *const bio_vec, mut iter: bvec_iter, mut skip: u32) -> Self {
        while skip != 0 && iter.bi_size != 0 {
            // SAFETY: By the safety requirements.
            let (vec, len) = unsafe { piece(vecs, &iter) };
            let len = len.min(skip);
            advance(&vec, &mut iter, len);
            // RANGE: `len` is at most `skip`.
            skip -= len;
        }
        // INVARIANT: By the safety requirements.
        Self {
            vecs,
            iter,
            bio: PhantomData,
        }
    }

    /// Copies `data` to the current position and advances. Bytes that do not fit are left out.
    pub fn write(&mut self, data: &[u8]) {
        let mut left = data;
        while !left.is_empty() && self.iter.bi_size != 0 {
            // SAFETY: By the type invariant.
            let (vec, len) = unsafe { piece(self.vecs, &self.iter) };
            // CAST: A `u32` fits.
            let (now, later) = left.split_at(left.len().min(len as usize));
            // SAFETY: The bio holds its pages, whose memory is contiguous within a bio_vec and
            // always mapped. `data` does not overlap it, as the bio's data is exclusively ours.
            unsafe {
                let to = bindings::dm_rust_page_address(vec.bv_page)
                    .cast::<u8>()
                    // RANGE: As in `Pages::next`.
                    .add((vec.bv_offset + passed(&self.iter)) as usize);
                fill(to, now.as_ptr(), now.len());
            }
            // CAST: At most `len`.
            advance(&vec, &mut self.iter, now.len() as u32);
            left = later;
        }
    }
}
