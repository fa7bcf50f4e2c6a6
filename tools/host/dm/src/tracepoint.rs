// SPDX-License-Identifier: GPL-2.0

//! Stand-in: what page-cache events are told to.

use crate::folio::EventFolio;

/// As in the module.
pub trait FolioEvents: Send + Sync {
    /// `folio` is about to leave the page cache; it is locked.
    fn removed(&self, folio: EventFolio<'_>);
    /// `folio` was clean and is now dirty.
    fn dirtied(&self, folio: EventFolio<'_>);
}
