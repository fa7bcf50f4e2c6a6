// SPDX-License-Identifier: GPL-2.0

//! What all targets share.
//!
//! Lock order: `pools`, in constructors and destructors only, then dm-thin's chain of notifiers.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};

use dm::{device::BlockDevice, thin::Subscription};

use crate::access::AccessTable;

/// The events of the pools, subscribed to while there is a target: without one, dm-thin-pool may
/// be unloaded, and there is no record that could end.
struct Pools {
    targets: usize,
    events: Option<Subscription<AccessTable>>,
}

/// Shared by all targets.
#[pin_data]
pub(crate) struct Core {
    /// The one access table.
    pub(crate) table: Arc<AccessTable>,
    next_device: Atomic<u32>,
    #[pin]
    pools: Mutex<Pools>,
}

impl Core {
    /// For an empty `table`.
    pub(crate) fn new(table: Arc<AccessTable>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                table,
                next_device: Atomic::new(1),
                pools <- new_mutex!(Pools { targets: 0, events: None }, "drr_pools"),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes a target of `bdev` a member. Fails with `ENOMEM`, or `ENOENT` without a patched dm-thin-pool.
    pub(crate) fn join(self: &Arc<Self>, bdev: BlockDevice<'_>) -> Result<Membership> {
        let mut pools = self.pools.lock();
        if pools.targets == 0 {
            pools.events = Some(Subscription::new(self.table.clone())?);
        }
        pools.targets += 1;
        let member = Membership {
            core: self.clone(),
            // Wraps after four billion targets; the number only has to differ from those of
            // targets that have records.
            device: self.next_device.fetch_add(1, Relaxed),
        };
        drop(pools);
        // If this fails, the membership goes again.
        self.table.add_giver(member.device, bdev.id())?;
        Ok(member)
    }
}

/// A target's membership; its records end with it.
pub(crate) struct Membership {
    core: Arc<Core>,
    /// Number of the target.
    pub(crate) device: u32,
}

impl Membership {
    /// The one access table.
    pub(crate) fn table(&self) -> &AccessTable {
        &self.core.table
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if dm::guard::Guard::Teardown.on() {
            self.table().forget_device(self.device);
        }
        self.table().remove_giver(self.device);
        let mut pools = self.core.pools.lock();
        pools.targets -= 1;
        if pools.targets == 0 {
            pools.events = None;
        }
    }
}
