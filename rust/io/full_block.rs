// SPDX-License-Identifier: GPL-2.0

//! Writes of full blocks instead of a part of them.
//!
//! Nothing here keeps other writes to the block from intervening: that is the job of
//! [`crate::io::block_lock`].

use core::result::Result;

use crate::{
    bindings,
    block::bio::{advance, piece, Bio, Mapped, Writer, SECTOR_SHIFT},
    block::device::BlockDevice,
    block::private_bio::{Done, PrivateBio, PAGE_SIZE},
    compat::passed,
    target::Target,
};

/// Returns the size in sectors of the longest block of `device` that one bio can write without
/// being split.
pub fn most_sectors(device: BlockDevice<'_>) -> u32 {
    const ONE_BIO: u32 = bindings::DM_RUST_BIO_MAX_VECS * (PAGE_SIZE >> SECTOR_SHIFT);
    // SAFETY: The device is open.
    unsafe { bindings::dm_rust_bdev_max_sectors(device.as_ptr()) }.min(ONE_BIO)
}

/// A private bio that is to write a full block on behalf of a bio that writes a part of it.
///
/// # Examples
///
/// A write of block `block` instead of `bio`: `pages`, overlaid with the data of `bio` from sector
/// `at` of the block on. `forward` sends a bio down.
///
/// ```ignore
/// let Some(mut full) = FullBlockWrite::new(&bio, self.disk.bdev(), self.block_sectors) else {
///     return self.forward(bio);
/// };
/// let mut writer = full.writer(0);
/// for words in pages {
///     writer.write(bytes(words));
/// }
/// full.overlay(&bio, at);
/// full.write_for(bio, self, block * u64::from(self.block_sectors))
///     .unwrap_or_else(|bio| self.forward(bio))
/// ```
pub struct FullBlockWrite(PrivateBio);

impl FullBlockWrite {
    /// Allocates the write of a block of `sectors` sectors of `device`, with the flags of `bio`.
    /// Returns `None` if there is no memory.
    pub fn new<T: Target>(bio: &Bio<'_, T>, device: BlockDevice<'_>, sectors: u32) -> Option<Self> {
        let flags = bindings::DM_RUST_OP_WRITE | bio.flags() & bindings::DM_RUST_WRITE_FLAGS;
        // RANGE: A block has at most 1 GiB.
        PrivateBio::new(bio, device, flags, sectors << SECTOR_SHIFT).map(Self)
    }

    /// Returns a writer that starts at page `first` of the block.
    pub fn writer(&mut self, first: u32) -> Writer<'_> {
        self.0.writer(first)
    }

    /// Copies the data of `bio` to sector `at` of the block.
    ///
    /// # Panics
    ///
    /// If the data ends beyond the last page of the block.
    // RANGE: The caller has checked that `bio` ends within the block, which has at most 1 GiB.
    pub fn overlay<T: Target>(&mut self, bio: &Bio<'_, T>, at: u32) {
        let mut iter = bio.iter();
        let mut to = at << SECTOR_SHIFT;
        while iter.bi_size != 0 {
            // SAFETY: `iter` describes data of the bio.
            let (vec, len) = unsafe { piece(bio.vecs(), &iter) };
            let len = len.min(PAGE_SIZE - to % PAGE_SIZE);
            // SAFETY: Within the bio_vec, whose pages the bio holds, and within the private page.
            unsafe {
                let from = bindings::dm_rust_page_address(vec.bv_page)
                    .cast::<u8>()
                    // Wraps as in `bvec_iter_offset()`.
                    .add(vec.bv_offset.wrapping_add(passed(&iter)) as usize);
                core::ptr::copy_nonoverlapping(from, self.0.address(to), len as usize);
            }
            to += len;
            advance(&vec, &mut iter, len);
        }
    }

    /// Writes the block to sector `sector` of its device, and then completes `bio` with the same
    /// status.
    ///
    /// The whole block must have been filled with [`Self::writer`] and [`Self::overlay`]. Gives
    /// `bio` back if there is no memory.
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
