// SPDX-License-Identifier: GPL-2.0

//! The page cache: folios, the event of a folio's removal, and a directory of pages by their
//! content.
//!
//! Nothing here takes a reference on an inode. A page that was found may be removed or modified a
//! moment later: a copy is valid only if it has the content's digest.

pub mod cached_extent;
pub mod cached_pages;
pub mod content;
mod crowd;
pub mod directory;
pub mod folio;
pub mod page_bitmap;
pub mod page_store;
pub mod removal;
