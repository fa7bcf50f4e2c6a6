// SPDX-License-Identifier: GPL-2.0

//! Private bios: I/O on behalf of a bio, which completes when the private bio has ended.
//!
//! Nothing here waits for memory: below a file system, that could deadlock.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use core::ptr::NonNull;

use kernel::{
    alloc::{flags::*, KVec},
    bindings::{bio, bio_vec, blk_status_t, bvec_iter, page, work_struct},
    ffi::c_void,
    prelude::*,
    types::Opaque,
};

use crate::{
    bindings,
    block::bio::{advance, piece, Bio, Mapped, Writer},
    block::device::BlockDevice,
    compat::passed,
    pagecache::folio::PAGE_SHIFT,
    pagecache::page_store::StorablePage,
    sync::work_queue::WorkQueue,
    target::Target,
};

pub(crate) const PAGE_SIZE: u32 = 1 << PAGE_SHIFT;

/// A private page.
///
/// # Invariants
///
/// We own a reference to the page.
pub(crate) struct OwnPage(NonNull<page>);

impl OwnPage {
    fn new() -> Option<Self> {
        // SAFETY: May be called in any context.
        // INVARIANT: The allocation returns a reference, which is ours.
        NonNull::new(unsafe { bindings::dm_rust_alloc_page_nowait() }).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut page {
        self.0.as_ptr()
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dm_rust_free_page(self.0.as_ptr()) };
    }
}

/// A private bio, with its memory.
///
/// # Invariants
///
/// The bio is allocated, and is ours until it is sent and again after it has ended. Its data is in
/// `pages`, each of which is full, except perhaps the last.
///
/// # Examples
///
/// A read of the data of `bio` into private memory. `compared` is called when both are there,
/// before `bio` completes.
///
/// ```ignore
/// let size = bio.iter().bi_size;
/// let Some(own) = PrivateBio::new(&bio, device, bindings::DM_RUST_OP_READ, size) else {
///     return Err(bio);
/// };
/// own.send_for(bio, target, sector, Done::at_once(compared::<T>))
/// ```
pub(crate) struct PrivateBio {
    bio: NonNull<bio>,
    pages: KVec<OwnPage>,
    bytes: u32,
}

impl PrivateBio {
    /// Allocates a bio with operation `flags` on `device` and `bytes` bytes of uninitialised
    /// memory, with the I/O priority and write hint of `bio`.
    ///
    /// Returns `None` if there is no memory, or if a bio has no room for `bytes`.
    pub(crate) fn new<T: Target>(
        bio: &Bio<'_, T>,
        device: BlockDevice<'_>,
        flags: u32,
        bytes: u32,
    ) -> Option<Self> {
        let count = bytes.div_ceil(PAGE_SIZE);
        if count > bindings::DM_RUST_BIO_MAX_VECS {
            return None;
        }
        let nowait = GFP_NOWAIT | __GFP_NOWARN;
        // CAST: A `u32` fits.
        let mut pages = KVec::with_capacity(count as usize, nowait).ok()?;
        for _ in 0..count {
            pages.push(OwnPage::new()?, nowait).ok()?;
        }
        // SAFETY: `device` is open, and `bio` is valid.
        let own = unsafe {
            bindings::dm_rust_bio_alloc_nowait(bio.as_ptr(), device.as_ptr(), count, flags)
        };
        // INVARIANT: Just allocated. The pages are added below.
        let this = Self {
            bio: NonNull::new(own)?,
            pages,
            bytes,
        };
        let mut left = bytes;
        for page in &this.pages {
            let len = left.min(PAGE_SIZE);
            // SAFETY: The bio has room for `count` pages.
            unsafe { kernel::bindings::__bio_add_page(own, page.0.as_ptr(), len, 0) };
            // RANGE: `len` is at most `left`.
            left -= len;
        }
        Some(this)
    }

    /// Returns the address of byte `at` of the memory, which is contiguous up to the end of the
    /// page.
    ///
    /// # Panics
    ///
    /// If `at` is beyond the last page of the memory.
    // CAST: `u32`s fit.
    pub(crate) fn address(&self, at: u32) -> *mut u8 {
        let page = &self.pages[(at >> PAGE_SHIFT) as usize];
        // SAFETY: We own the page, and `at` is within it.
        unsafe {
            bindings::dm_rust_page_address(page.0.as_ptr())
                .cast::<u8>()
                .add((at & (PAGE_SIZE - 1)) as usize)
        }
    }

    /// Takes the pages that were read as a whole out of the bio.
    ///
    /// # Safety
    ///
    /// The bio was a read and has ended successfully.
    pub(crate) unsafe fn take_pages(&mut self) -> impl Iterator<Item = StorablePage> + use<> {
        let (pages, mut left) = (core::mem::take(&mut self.pages), self.bytes);
        pages.into_iter().map_while(move |page| {
            left = left.checked_sub(PAGE_SIZE)?;
            // SAFETY: The page was filled, by the safety requirements, and the device does not
            // write to it any more.
            Some(unsafe { StorablePage::new(page) })
        })
    }

    /// Returns a writer that starts at page `first`.
    pub(crate) fn writer(&mut self, first: u32) -> Writer<'_> {
        // SAFETY: Valid by the type invariant.
        let bio = unsafe { self.bio.as_ref() };
        // SAFETY: The data is exclusively ours while `self` is borrowed.
        // RANGE: The pages have fewer than 2^32 bytes.
        unsafe { Writer::new(bio.bi_io_vec, bio.bi_iter, first << PAGE_SHIFT) }
    }

    /// Sends the private bio to sector `sector` of its device, charged to the submitter of `bio`.
    /// When it has ended, calls `done`, from the queue that `done` names if any, and then completes
    /// `bio` with the same status.
    ///
    /// Gives `bio` back if there is no memory.
    pub(crate) fn send_for<'a, T: Target>(
        self,
        bio: Bio<'a, T>,
        target: &'a T,
        sector: u64,
        done: Done<T>,
    ) -> core::result::Result<Mapped, Bio<'a, T>> {
        let private = self.bio;
        // SAFETY: The pointer of a bio is not null.
        let above = unsafe { NonNull::new_unchecked(bio.as_ptr()) };
        let io = PrivateIo::<T> {
            work: Opaque::uninit(),
            status: 0,
            private: self,
            bio: above,
            target: NonNull::from(target),
            extent: bio.iter(),
            done,
        };
        let Ok(io) = KBox::new(io, GFP_NOWAIT | __GFP_NOWARN) else {
            return Err(bio);
        };
        // SAFETY: We own the private bio, which is complete. `ended` takes the box back.
        unsafe {
            let private = private.as_ptr();
            (*private).bi_iter.bi_sector = sector;
            (*private).bi_private = KBox::into_raw(io).cast();
            (*private).bi_end_io = Some(ended::<T>);
        }
        Ok(Mapped::send(above, private))
    }
}

impl Drop for PrivateBio {
    fn drop(&mut self) {
        // SAFETY: Ours by the type invariant: the bio was never sent, or has ended.
        unsafe { kernel::bindings::bio_put(self.bio.as_ptr()) };
    }
}

/// A function that is called when a private bio has ended, with whether it ended successfully.
pub(crate) struct Done<T: Target> {
    call: fn(&mut PrivateIo<T>, bool),
    /// The queue of the target that calls the function, if any.
    queue: Option<fn(&T) -> &WorkQueue>,
}

impl<T: Target> Done<T> {
    /// Has `call` called at once, in any context.
    pub(crate) fn at_once(call: fn(&mut PrivateIo<T>, bool)) -> Self {
        Self { call, queue: None }
    }

    /// Has `call` called by a work item in the target's `queue`.
    pub(crate) fn in_task(queue: fn(&T) -> &WorkQueue, call: fn(&mut PrivateIo<T>, bool)) -> Self {
        Self {
            call,
            queue: Some(queue),
        }
    }
}

/// A private bio that was sent, and the bio on whose behalf it was sent.
///
/// # Invariants
///
/// `bio` is ours, and is completed after `done` was called; `extent` describes its data. `target`
/// outlives the value, as device-mapper destroys no target with I/O in flight.
#[repr(C)]
pub(crate) struct PrivateIo<T: Target> {
    // First, so that the address of this field is that of the structure.
    work: Opaque<work_struct>,
    private: PrivateBio,
    bio: NonNull<bio>,
    target: NonNull<T>,
    extent: bvec_iter,
    done: Done<T>,
    /// Status with which the private bio has ended.
    status: blk_status_t,
}

impl<T: Target> PrivateIo<T> {
    /// Returns the private bio, which has ended.
    pub(crate) fn own(&self) -> &PrivateBio {
        &self.private
    }

    /// Returns the private bio, which has ended, for taking its memory.
    pub(crate) fn own_mut(&mut self) -> &mut PrivateBio {
        &mut self.private
    }

    /// Returns the bio on whose behalf the private bio was sent, which is not completed yet, and
    /// the iterator that describes its data.
    pub(crate) fn bio(&self) -> (NonNull<bio>, bvec_iter) {
        (self.bio, self.extent)
    }

    /// Returns the target that the bio passes through.
    pub(crate) fn target(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.target.as_ref() }
    }
}

/// Calls `visit` for each piece of the bio's data that is contiguous in memory and lies in one
/// private page, until `visit` returns false.
///
/// The arguments are the offset of the piece in the data, its address in the bio, the address of
/// the same part of the private pages, and its length, all in bytes.
///
/// # Panics
///
/// If the private bio has fewer pages than the data, or [`PrivateBio::take_pages`] has taken them.
///
/// # Examples
///
/// A search for the first piece that differs from the private memory; `equal` compares memory.
///
/// ```ignore
/// let mut differs = None;
/// pieces(second, |done, theirs, ours, len| {
///     let same = equal(theirs, ours, len);
///     differs = (!same).then_some(done);
///     same
/// });
/// ```
// RANGE: `done` counts bytes of the data of a bio, which has fewer than 2^32.
pub(crate) fn pieces<T: Target>(
    errand: &PrivateIo<T>,
    mut visit: impl FnMut(u32, *mut u8, *const u8, usize) -> bool,
) {
    let (bio, mut iter) = errand.bio();
    // SAFETY: The bio is ours until it is completed.
    let vecs: *const bio_vec = unsafe { bio.as_ref() }.bi_io_vec;
    let mut done = 0u32;
    while iter.bi_size != 0 {
        // SAFETY: `iter` describes data of the bio.
        let (vec, len) = unsafe { piece(vecs, &iter) };
        let len = len.min(PAGE_SIZE - done % PAGE_SIZE);
        // SAFETY: The piece is within the bio_vec.
        let theirs = unsafe {
            bindings::dm_rust_page_address(vec.bv_page)
                .cast::<u8>()
                // Wraps as in `bvec_iter_offset()`.
                .add(vec.bv_offset.wrapping_add(passed(&iter)) as usize)
        };
        if !visit(done, theirs, errand.own().address(done), len as usize) {
            return;
        }
        done += len;
        advance(&vec, &mut iter, len);
    }
}

/// # Safety
///
/// Called by the block layer for a bio that [`PrivateBio::send_for`] submitted.
unsafe extern "C" fn ended<T: Target>(own: *mut bio) {
    // SAFETY: By the safety requirements.
    let mut errand = unsafe {
        let private: *mut c_void = (*own).bi_private;
        KBox::from_raw(private.cast::<PrivateIo<T>>())
    };
    // SAFETY: As above.
    errand.status = unsafe { (*own).bi_status };
    match errand.done.queue {
        Some(queue) => {
            let errand = KBox::into_raw(errand);
            // SAFETY: The box lives until `done_later` takes it back, and so does the target, whose
            // queue this is.
            unsafe {
                let work = Opaque::cast_into(&raw const (*errand).work);
                let pending = queue((*errand).target.as_ref()).prepare(work, done_later::<T>);
                pending.queue();
            }
        }
        None => finish(errand),
    }
}

/// # Safety
///
/// Called by a workqueue, with work that [`ended`] has queued.
unsafe extern "C" fn done_later<T: Target>(work: *mut work_struct) {
    // SAFETY: The work is the first field of a boxed `PrivateIo<T>`.
    finish(unsafe { KBox::from_raw(work.cast::<PrivateIo<T>>()) });
}

fn finish<T: Target>(mut errand: KBox<PrivateIo<T>>) {
    let (bio, status) = (errand.bio.as_ptr(), errand.status);
    let ok = u32::from(status) == bindings::DM_RUST_STS_OK;
    (errand.done.call)(&mut errand, ok);
    // Free the memory first: after the last bio has completed, the target may be destroyed.
    drop(errand);
    // SAFETY: The bio is ours and not used afterwards.
    unsafe {
        (*bio).bi_status = status;
        kernel::bindings::bio_endio(bio);
    }
}
