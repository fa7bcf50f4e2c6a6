// SPDX-License-Identifier: GPL-2.0

//! Receives all events: those of the page cache, and those of dm-thin's pools.
//!
//! Both kinds of handlers run under locks of the kernel's; [`FolioEvents`] and [`Events`] say what
//! they may do.

use kernel::{prelude::*, sync::Arc};

use dm::{
    drr::hold_point::HoldPoint,
    pagecache::{folio::EventFolio, removal::FolioEvents},
    sync::periodic_work::PeriodicWork,
    target::thin_event::{Event, Events},
};

use crate::{
    access::donor_target::TargetRegistry,
    access::table::AccessTable,
    access::unshared::UnsharedBlocks,
    layers::{id::ThinId, tree::Tree},
    reclaim::{self, Reclaim},
};

/// How the UUID of a device begins that drrctl makes for a target on a thin device in use, with the
/// same thin id. The device is removed with the target. Part of the interface of drrctl.
const BELOW_TARGET: &[u8] = b"DRR-";

/// The receiver of the events of all page caches.
pub(crate) struct PageCacheEvents {
    table: Arc<AccessTable>,
    reclaim: PeriodicWork<Reclaim>,
}

impl PageCacheEvents {
    /// Creates the receiver. Fails with `ENOMEM`.
    pub(crate) fn new(table: Arc<AccessTable>, targets: Arc<TargetRegistry>) -> Result<Self> {
        let reclaim = Reclaim::new(table.clone(), targets);
        Ok(Self {
            table,
            reclaim: PeriodicWork::new(c"drr_reclaim", reclaim::EVERY_MS, reclaim)?,
        })
    }
}

impl FolioEvents for PageCacheEvents {
    /// Ends the records of the folio's pages. If reclaim takes the folio, extra copies may be
    /// dropped, too.
    fn removed(&self, folio: EventFolio<'_>) {
        let pages = self.table.directory().folio_removed(&folio);
        if pages == 0 {
            return;
        }
        if let Some(group) = folio.reclaimed_from() {
            if self.reclaim.reclaimed(group, pages) {
                self.reclaim.start();
            }
        }
    }
}

/// The receiver of the events of all pools that concern layers. Events that concern the mappings of
/// a pool go to its [`Pool`](crate::pool::Pool).
pub(crate) struct PoolEvents {
    pub(crate) unshared: Arc<UnsharedBlocks>,
    pub(crate) tree: Arc<Tree>,
}

impl Events for PoolEvents {
    fn event(&self, event: Event) {
        self.unshared.event(event);
        match event {
            Event::Created {
                pool,
                thin_id,
                origin,
                time,
            } => {
                let origin = origin.map(|origin| ThinId::new(pool, origin));
                self.tree.created(ThinId::new(pool, thin_id), origin, time);
                HoldPoint::LayerCreated.pass();
            }
            Event::Deleted { pool, thin_id } => self.tree.deleted(ThinId::new(pool, thin_id)),
            Event::Aborted { pool } | Event::Gone { pool } => self.tree.forget_pool(pool),
            Event::MappingChanges(_) | Event::MappingChanged(_) => {}
        }
    }

    /// A device below an attached target goes with it, or when drrctl notices that the device above
    /// is gone.
    fn closes_soon(&self, pool: u64, thin_id: u32, uuid: &[u8]) -> bool {
        uuid.starts_with(BELOW_TARGET) && !self.tree.is_open(ThinId::new(pool, thin_id))
    }
}
