// SPDX-License-Identifier: GPL-2.0

//! Reads that go to pages of our own first, and are copied from there.
//!
//! Where others may write to a reader's memory while the disk does, what the disk had can't be told from what
//! is in that memory. In a page of our own it can; and the page can be kept.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::{
    bindings,
    block::bio::{per_bio_data, Bio, EndedBio, Mapped},
    block::device::BlockDevice,
    block::private_bio::{pieces, Done, PrivateBio, PrivateIo},
    pagecache::folio::{BufferPage, FilledPages},
    pagecache::page_store::{PageStore, StorablePage},
    target::Target,
};

/// A target some of whose reads go to pages of our own first.
pub trait PrivateReads: Target {
    /// Where such pages may be kept, and whose worker completes such reads.
    fn store(&self) -> &PageStore;

    /// `page` came from the disk, as page `at` of a read, and has been copied to the reader's memory: to `buffer`, if that
    /// is a page with buffers. Process context.
    ///
    /// `data` is what travels with the bio that is read for.
    fn page_read(
        &self,
        data: &Self::PerBio,
        at: u32,
        page: StorablePage,
        buffer: Option<BufferPage<'_>>,
    );
}

/// Reads for `bio` from sector `sector` of `device`: into pages of our own, which are copied to the bio, and
/// shown to the target ([`PrivateReads::page_read`]) before it completes. Gives the bio back if there is no memory.
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
        // SAFETY: Both are good for `len` bytes, and don't overlap: one of them is our own.
        unsafe { core::ptr::copy_nonoverlapping(ours, theirs, len) };
        true
    });
    // SAFETY: It has read, and ended well.
    let pages = unsafe { read.own_mut().take_pages() };
    show_pages(read, pages);
}

/// Shows the target each of `pages`. A direct reader's bio may have memory of all kinds.
fn show_pages<T: PrivateReads>(read: &PrivateIo<T>, pages: impl Iterator<Item = StorablePage>) {
    let (bio, extent) = read.bio();
    // SAFETY: The bio is ours until the errand is done, and has been through `map`.
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
    /// It reads with these flags.
    fn read_flags(&self) -> u32 {
        bindings::DM_RUST_OP_READ | self.flags() & bindings::DM_RUST_READ_FLAGS
    }
}
