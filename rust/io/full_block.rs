// SPDX-License-Identifier: GPL-2.0

//! Writes of whole blocks instead of smaller ones.
//!
//! Nothing here keeps other writes to the block from coming in between: that is the task of
//! [`crate::io::block_lock`].

use core::result::Result;

use crate::{
    bindings,
    block::bio::{advance, piece, Bio, Mapped, Writer, SECTOR_SHIFT},
    block::device::BlockDevice,
    block::private_bio::{Done, PrivateBio, PAGE_SIZE},
    target::Target,
};

/// The longest block of `device` that can be written at once, in sectors.
pub fn most_sectors(device: BlockDevice<'_>) -> u32 {
    const ONE_BIO: u32 = bindings::DM_RUST_BIO_MAX_VECS * (PAGE_SIZE >> SECTOR_SHIFT);
    // SAFETY: The device is open.
    unsafe { bindings::dm_rust_bdev_max_sectors(device.as_ptr()) }.min(ONE_BIO)
}

/// A block that is to be written for a bio that writes a part of it.
pub struct FullBlockWrite(PrivateBio);

impl FullBlockWrite {
    /// `sectors` long, of `device`; nothing if there is no memory.
    pub fn new<T: Target>(bio: &Bio<'_, T>, device: BlockDevice<'_>, sectors: u32) -> Option<Self> {
        let flags = bindings::DM_RUST_OP_WRITE | bio.flags() & bindings::DM_RUST_WRITE_FLAGS;
        // RANGE: A block has 1 GiB at most.
        PrivateBio::new(bio, device, flags, sectors << SECTOR_SHIFT).map(Self)
    }

    /// A writer that starts at page `first`.
    pub fn writer(&mut self, first: u32) -> Writer<'_> {
        self.0.writer(first)
    }

    /// Copies the data of `bio` to sector `at` of the block.
    ///
    /// # Panics
    ///
    /// If it ends beyond the block.
    // RANGE: The caller has checked that `bio` ends within the block, which has 1 GiB at most.
    pub fn overlay<T: Target>(&mut self, bio: &Bio<'_, T>, at: u32) {
        let mut iter = bio.iter();
        let mut to = at << SECTOR_SHIFT;
        while iter.bi_size != 0 {
            // SAFETY: The extent is the bio's own.
            let (vec, len) = unsafe { piece(bio.vecs(), &iter) };
            let len = len.min(PAGE_SIZE - to % PAGE_SIZE);
            // SAFETY: Within the bio_vec, whose pages the bio holds, and within our page.
            unsafe {
                let from = bindings::dm_rust_page_address(vec.bv_page)
                    .cast::<u8>()
                    // As `bvec_iter_offset()` adds them.
                    .add(vec.bv_offset.wrapping_add(iter.bi_offset) as usize);
                core::ptr::copy_nonoverlapping(from, self.0.address(to), len as usize);
            }
            to += len;
            advance(&vec, &mut iter, len);
        }
    }

    /// Has it written to sector `sector` of the device; then `bio` completes, as that has ended.
    ///
    /// All of it must have been written, with [`Self::writer`] and [`Self::overlay`]. Gives the bio
    /// back if there is no memory.
    pub fn write_for<'a, T: Target>(
        self,
        bio: Bio<'a, T>,
        target: &'a T,
        sector: u64,
    ) -> Result<Mapped, Bio<'a, T>> {
        self.0
            .send_for(bio, target, sector, Done::at_once(|_, _| {}))
    }
}
