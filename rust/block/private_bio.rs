// SPDX-License-Identifier: GPL-2.0

//! I/O of our own on behalf of a bio, which completes when that has ended.
//!
//! Nothing here waits for memory: below a file system that could wait for ever.
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
    pagecache::folio::PAGE_SHIFT,
    pagecache::page_store::StorablePage,
    sync::work_queue::WorkQueue,
    target::Target,
};

pub(crate) const PAGE_SIZE: u32 = 1 << PAGE_SHIFT;

/// A page of our own.
///
/// # Invariants
///
/// A reference to the page is ours.
pub(crate) struct OwnPage(NonNull<page>);

impl OwnPage {
    fn new() -> Option<Self> {
        // SAFETY: Allocates a page.
        // INVARIANT: Nobody else knows it.
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

/// A bio of our own, with its memory.
///
/// # Invariants
///
/// The bio is allocated and nobody else's until it is sent, and again when it has ended. Its data is
/// in `pages`, each of them full but perhaps the last.
pub(crate) struct PrivateBio {
    bio: NonNull<bio>,
    pages: KVec<OwnPage>,
    bytes: u32,
}

impl PrivateBio {
    /// To do what `flags` say with `bytes` bytes of `device`, for whom `bio` is for. Its memory isn't
    /// initialised. Nothing if there is no memory, or if that is more than a bio
    /// has room for.
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
        // SAFETY: The device is open, and the other bio has one, too.
        let own = unsafe {
            bindings::dm_rust_bio_alloc_nowait(bio.as_ptr(), device.as_ptr(), count, flags)
        };
        // INVARIANT: Just allocated, and filled up with the pages.
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
            // RANGE: `len` was cut to that.
            left -= len;
        }
        Some(this)
    }

    /// Its memory from byte `at` on, of which so many bytes are contiguous at least as there are to
    /// the end of the page.
    // CAST: `u32`s fit.
    pub(crate) fn address(&self, at: u32) -> *mut u8 {
        let page = &self.pages[(at >> PAGE_SHIFT) as usize];
        // SAFETY: The page is ours, and `at` within it.
        unsafe {
            bindings::dm_rust_page_address(page.0.as_ptr())
                .cast::<u8>()
                .add((at & (PAGE_SIZE - 1)) as usize)
        }
    }

    /// Takes out the pages that were read as a whole.
    ///
    /// # Safety
    ///
    /// It has read, and ended well.
    pub(crate) unsafe fn take_pages(&mut self) -> impl Iterator<Item = StorablePage> + use<> {
        let (pages, mut left) = (core::mem::take(&mut self.pages), self.bytes);
        pages.into_iter().map_while(move |page| {
            left = left.checked_sub(PAGE_SIZE)?;
            // SAFETY: It was filled, by the safety requirements, and the disk writes to it no more.
            Some(unsafe { StorablePage::new(page) })
        })
    }

    /// A writer that starts at its page `first`.
    pub(crate) fn writer(&mut self, first: u32) -> Writer<'_> {
        // SAFETY: Ours, by the type invariant.
        let bio = unsafe { self.bio.as_ref() };
        // SAFETY: The data is ours for as long as `self` is borrowed.
        // RANGE: The pages have fewer than 2^32 bytes.
        unsafe { Writer::new(bio.bi_io_vec, bio.bi_iter, first << PAGE_SHIFT) }
    }

    /// Has it sent to sector `sector` of its device. When it has ended `done` is called, in a kernel thread if it has a
    /// queue, and then `bio` completes as it has. Gives the bio back if there is no memory.
    pub(crate) fn send_for<'a, T: Target>(
        self,
        bio: Bio<'a, T>,
        target: &'a T,
        sector: u64,
        done: Done<T>,
    ) -> core::result::Result<Mapped, Bio<'a, T>> {
        let private = self.bio;
        // SAFETY: A bio's pointer is not null.
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
        // SAFETY: The private bio is ours and complete; `ended` gets the box back.
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
        // SAFETY: Ours, by the type invariant: it was never sent, or has ended.
        unsafe { kernel::bindings::bio_put(self.bio.as_ptr()) };
    }
}

/// What is done when a bio of our own has ended; it is told whether well.
pub(crate) struct Done<T: Target> {
    call: fn(&mut PrivateIo<T>, bool),
    /// The target's queue, if that is to do it.
    queue: Option<fn(&T) -> &WorkQueue>,
}

impl<T: Target> Done<T> {
    /// Calls `call`, in any context.
    pub(crate) fn at_once(call: fn(&mut PrivateIo<T>, bool)) -> Self {
        Self { call, queue: None }
    }

    /// Has the target's `queue` call `call`, in a kernel thread.
    pub(crate) fn in_task(queue: fn(&T) -> &WorkQueue, call: fn(&mut PrivateIo<T>, bool)) -> Self {
        Self {
            call,
            queue: Some(queue),
        }
    }
}

/// What a bio of our own is sent for.
///
/// # Invariants
///
/// `bio` is owned, and completed when the errand is done; `extent` is that of its data. `target`
/// outlives it, as device-mapper destroys no target with I/O in flight.
#[repr(C)]
pub(crate) struct PrivateIo<T: Target> {
    // First, so that its address is the errand's.
    work: Opaque<work_struct>,
    private: PrivateBio,
    bio: NonNull<bio>,
    target: NonNull<T>,
    extent: bvec_iter,
    done: Done<T>,
    /// How the bio of our own has ended.
    status: blk_status_t,
}

impl<T: Target> PrivateIo<T> {
    /// The bio of our own, which has ended.
    pub(crate) fn own(&self) -> &PrivateBio {
        &self.private
    }

    /// The same, to take its memory.
    pub(crate) fn own_mut(&mut self) -> &mut PrivateBio {
        &mut self.private
    }

    /// The bio on whose behalf it is, not completed yet, and where its data is.
    pub(crate) fn bio(&self) -> (NonNull<bio>, bvec_iter) {
        (self.bio, self.extent)
    }

    /// The target that the bio passes.
    pub(crate) fn target(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.target.as_ref() }
    }
}

/// Calls `visit` with each piece of the bio's data, which is contiguous in memory and in one page of our own, as
/// its first byte in the data, its address, that of the same in our own pages, and its length; until that
/// returns false.
// RANGE: `done` counts the bytes of a bio's data, which are fewer than 2^32.
pub(crate) fn pieces<T: Target>(
    errand: &PrivateIo<T>,
    mut visit: impl FnMut(u32, *mut u8, *const u8, usize) -> bool,
) {
    let (bio, mut iter) = errand.bio();
    // SAFETY: The bio is ours until the errand is done.
    let vecs: *const bio_vec = unsafe { bio.as_ref() }.bi_io_vec;
    let mut done = 0u32;
    while iter.bi_size != 0 {
        // SAFETY: The extent is the bio's.
        let (vec, len) = unsafe { piece(vecs, &iter) };
        let len = len.min(PAGE_SIZE - done % PAGE_SIZE);
        // SAFETY: Within the bio_vec.
        let theirs = unsafe {
            bindings::dm_rust_page_address(vec.bv_page)
                .cast::<u8>()
                // As `bvec_iter_offset()` adds them.
                .add(vec.bv_offset.wrapping_add(iter.bi_offset) as usize)
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
            // SAFETY: The errand is there until `done_later` gets the box back, and with it its target, whose
            // queue it is. Once that has run these may be gone before this returns; the kernel frees a workqueue
            // after a grace period, and queues under RCU.
            unsafe {
                let work = Opaque::cast_into(&raw const (*errand).work);
                queue((*errand).target.as_ref()).queue(work, done_later::<T>);
            }
        }
        None => finish(errand),
    }
}

/// # Safety
///
/// Called by a queue, with the work of an errand that [`ended`] has put there.
unsafe extern "C" fn done_later<T: Target>(work: *mut work_struct) {
    // SAFETY: The work is the first field of an errand, which is in a box.
    finish(unsafe { KBox::from_raw(work.cast::<PrivateIo<T>>()) });
}

fn finish<T: Target>(mut errand: KBox<PrivateIo<T>>) {
    let (bio, status) = (errand.bio.as_ptr(), errand.status);
    let ok = u32::from(status) == bindings::DM_RUST_STS_OK;
    (errand.done.call)(&mut errand, ok);
    // The memory goes first: the bio may be the last that keeps the target from going.
    drop(errand);
    // SAFETY: The bio is ours and not used after this.
    unsafe {
        (*bio).bi_status = status;
        kernel::bindings::bio_endio(bio);
    }
}
