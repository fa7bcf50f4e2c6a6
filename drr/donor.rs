// SPDX-License-Identifier: GPL-2.0

//! Which page-cache pages may donate.
//!
//! The rules below are about content that can change, or differ from the block's, without the
//! page being dirtied or leaving the cache. Each is looked at when a page is recorded and, where
//! it can come to be broken later, when it is copied.

use kernel::prelude::*;

use dm::{
    device::BlockDevice,
    folio::{Inode, ReadPages, State, PAGE_SHIFT},
    guard::Guard,
};

/// The file systems that may donate: they change a clean page only by truncating the page cache, or
/// make it dirty under the same folio lock, and leave in a page what they read into it. Argued for
/// in Documentation/design.rst; block devices are the other kind.
const FILE_SYSTEMS: [&CStr; 2] = [c"ext4", c"xfs"];

/// Rules for the inode that hold whenever one of its pages is a donor.
fn inode_donates(inode: &Inode<'_>) -> bool {
    // With blocks smaller than a page, a page can be written without having been read as a whole.
    let whole_pages = inode.block_bits() >= PAGE_SHIFT || !Guard::BlockSize.on();
    // Decrypted in place when the read completes.
    let plain = !inode.encrypted() || !Guard::Encrypted.on();
    whole_pages && plain && (inode.is_block_device() || known_file_system(inode))
}

fn known_file_system(inode: &Inode<'_>) -> bool {
    !Guard::FileSystem.on() || FILE_SYSTEMS.contains(&inode.fs_name())
}

/// A claimed device's own pages are a file system's buffers: changed without the folio lock, and
/// without becoming dirty before the change.
fn claimed(inode: &Inode<'_>) -> bool {
    Guard::ClaimedDevice.on()
        && inode.is_block_device()
        && inode.device().is_some_and(BlockDevice::claimed)
}

/// Whether `pages`, just read through the device `own`, may be recorded.
pub(crate) fn recordable(pages: &ReadPages<'_>, own: BlockDevice<'_>) -> bool {
    let inode = pages.inode();
    // Something between the file system and us (dm-crypt, say) may change in place what we read.
    let direct = !Guard::DirectlyMounted.on() || inode.device() == Some(own);
    direct && !claimed(&inode) && inode_donates(&inode)
}

/// Whether pages of a locked folio that are on record may be copied.
pub(crate) fn copyable(state: State, inode: &Inode<'_>) -> bool {
    // Dirty it can't be, as its record has ended then; it costs nothing to look.
    state.uptodate()
        && !state.dirty_or_writeback()
        && !state.poisoned()
        && inode_donates(inode)
        && !claimed(inode)
}

/// To be asked after the copy: a device that was claimed meanwhile may have been changed.
pub(crate) fn copy_holds(inode: &Inode<'_>) -> bool {
    !claimed(inode)
}
