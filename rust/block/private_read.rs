// SPDX-License-Identifier: GPL-2.0

//! Private reads: reads into private pages, from which the data is copied to the reader.
//!
//! If other code may write to the reader's memory during the read, the content of that memory does
//! not show what the disk had. The content of a private page does, and the page can be stored.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::{
    bindings,
    block::bio::{fill, per_bio_data, Bio, EndedBio, Mapped},
    block::device::BlockDevice,
    block::private_bio::{pieces, Done, PrivateBio, PrivateIo},
    pagecache::folio::{BufferPage, FilledPages},
    pagecache::page_store::{PageStore, StorablePage},
    target::Target,
};

/// A target that does some reads privately.
///
/// # Examples
///
/// A target that reads privately, and keeps the pages; [`PageStore`] shows `keep_page`.
///
/// ```ignore
/// fn page_read(
///     &self,
///     data: &ReadData,
///     at: u32,
///     page: StorablePage,
///     _buffer: Option<BufferPage<'_>>,
/// ) {
///     self.keep_page(data, at, page);
/// }
///
/// // In `map`, with `disk` and `sector` as for `Bio::remap`:
/// read_privately(bio, self, disk, sector).unwrap_or_else(|bio| bio.remap(disk, sector))
/// ```
pub trait PrivateReads: Target {
    /// Returns the store that may keep the pages, and whose queue completes private reads.
    fn store(&self) -> &PageStore;

    /// Called when `page` was read from the disk, as page `at` of a read, and copied to the
    /// reader's memory, which is `buffer` if it is a page with buffers. Process context.
    ///
    /// `data` is the target's private data for the bio.
    fn page_read(
        &self,
        data: &Self::PerBio,
        at: u32,
        page: StorablePage,
        buffer: Option<BufferPage<'_>>,
    );
}

/// Reads the data of `bio` from sector `sector` of `device` into private pages, copies them to the
/// bio, and passes them to [`PrivateReads::page_read`] before the bio completes.
///
/// Gives `bio` back if there is no memory.
pub fn read_privately<'a, T: PrivateReads>(
    bio: Bio<'a, T>,
    target: &'a T,
    device: BlockDevice<'_>,
    sector: u64,
) -> core::result::Result<Mapped, Bio<'a, T>> {
    let size = bio.iter().bi_size;
    let Some(own) = PrivateBio::new(&bio, device, bio.read_flags(), size) else {
        return Err(bio);
    };
    let done = Done::in_task(|target: &T| &target.store().queue, has_come::<T>);
    own.send_for(bio, target, sector, done)
}

fn has_come<T: PrivateReads>(read: &mut PrivateIo<T>, ok: bool) {
    if !ok {
        return;
    }
    pieces(read, |_, theirs, ours, len| {
        // SAFETY: Both are valid for `len` bytes, and do not overlap: one of them is in a private
        // page.
        unsafe { fill(theirs, ours, len) };
        true
    });
    // SAFETY: The private bio was a read and has ended successfully.
    let pages = unsafe { read.own_mut().take_pages() };
    show_pages(read, pages);
}

/// Calls [`PrivateReads::page_read`] for each of `pages`. The bio's memory may be of any kind, as
/// in direct I/O.
fn show_pages<T: PrivateReads>(read: &PrivateIo<T>, pages: impl Iterator<Item = StorablePage>) {
    let (bio, extent) = read.bio();
    // SAFETY: The bio is ours until it is completed, and has been through `map`.
    let (ended, data) = unsafe {
        (
            EndedBio::<T>::from_raw(bio, true),
            &*per_bio_data::<T>(bio.as_ptr()),
        )
    };
    let buffers = ended.pages(extent).filter_map(|pages| match pages {
        FilledPages::Buffers(buffer) => Some(buffer),
        FilledPages::Alone(_) => None,
    });
    let mut buffers = buffers.peekable();
    for (at, page) in (0..).zip(pages) {
        let buffer = buffers.next_if(|buffer| buffer.offset() == at);
        read.target().page_read(data, at, page, buffer);
    }
}

impl<T: Target> Bio<'_, T> {
    /// Returns the operation and flags of a read on behalf of this bio.
    fn read_flags(&self) -> u32 {
        bindings::DM_RUST_OP_READ | self.flags() & bindings::DM_RUST_READ_FLAGS
    }
}
