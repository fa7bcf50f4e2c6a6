// SPDX-License-Identifier: GPL-2.0

//! The page cache: folios, the event that ends what is known of them, and a directory of pages by their content.
//!
//! Nothing here takes a reference on an inode. A page that is found may be gone or modified a moment later: only a copy
//! that has the content's digest counts.

pub mod content;
pub mod directory;
pub mod folio;
pub mod page_bitmap;
pub mod page_store;
pub mod removal;
