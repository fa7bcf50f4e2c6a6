// SPDX-License-Identifier: GPL-2.0

//! Reads that go to pages of our own first, and are copied from there.
//!
//! Where others may write to a reader's memory while the disk does, what the disk had can't be told from what
//! is in that memory. In a page of our own it can.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::{
    bindings,
    bio::{per_bio_data, Bio, EndedBio, Mapped},
    device::BlockDevice,
    folio::{BufferPage, FilledPages, PageWords, PAGE_SHIFT},
    own::{pieces, Errand, OwnBio},
    target::Target,
};

/// A target some of whose reads go to pages of our own first.
pub trait PrivateReads: Target {
    /// `words` came from the disk for `page`, to which they are copied after this; any context.
    ///
    /// `data` is what travels with the bio that is read for.
    fn page_read(&self, data: &Self::PerBio, page: &BufferPage<'_>, words: &PageWords);
}

/// Reads for `bio` from sector `sector` of `device`: into pages of our own, which are shown to the target
/// ([`PrivateReads::page_read`]) and then copied to the bio, which completes.
///
/// Gives the bio back if there is no memory; else calls `before` when it can't fail any more, and when this has
/// returned the target may be gone, unless something else keeps it.
pub fn read_privately<'a, T: PrivateReads>(
    bio: Bio<'a, T>,
    target: &'a T,
    device: BlockDevice<'_>,
    sector: u64,
    before: impl FnOnce(),
) -> core::result::Result<Mapped, Bio<'a, T>> {
    let size = bio.iter().bi_size;
    let Some(own) = OwnBio::new(&bio, device, bio.read_flags(), size) else {
        return Err(bio);
    };
    own.send_for(bio, target, sector, has_come::<T>, before)
}

fn has_come<T: PrivateReads>(read: &Errand<T>, ok: bool) {
    if !ok {
        return;
    }
    show_pages(read);
    pieces(read, |_, theirs, ours, len| {
        // SAFETY: Both are good for `len` bytes, and don't overlap: one of them is our own.
        unsafe { core::ptr::copy_nonoverlapping(ours, theirs, len) };
        true
    });
}

/// Shows the target each page that has been read for a whole page with buffers. A direct reader's bio may have
/// memory of all kinds; the rest is copied all the same.
fn show_pages<T: PrivateReads>(read: &Errand<T>) {
    // SAFETY: The bio is ours until the errand is done, and has been through `map`.
    let (ended, data) = unsafe {
        let (bio, _) = read.bio();
        (
            EndedBio::<T>::from_raw(bio),
            &*per_bio_data::<T>(bio.as_ptr()),
        )
    };
    for page in ended.pages(read.bio().1) {
        if let FilledPages::Buffers(page) = page {
            if let Some(words) = read.own().words(page.offset() << PAGE_SHIFT) {
                read.target().page_read(data, &page, words);
            }
        }
    }
}

impl<T: Target> Bio<'_, T> {
    /// It reads with these flags.
    fn read_flags(&self) -> u32 {
        bindings::DM_RUST_OP_READ | self.flags() & bindings::DM_RUST_READ_FLAGS
    }
}
