// SPDX-License-Identifier: GPL-2.0

//! Thin devices that are about to be closed, as the target on them has gone.
//!
//! A target that is attached to a thin device in use has a device of its own with the same thin id, which goes with
//! the target (`DM_DEFERRED_REMOVE`). It goes in a worker, a moment after `dmsetup remove` has returned, and
//! what managers of containers do next is to have the pool delete the thin id. That fails if the device is open. So
//! dm-thin tells that it is about to delete one, and if a target has just left that, it waits here for the device
//! to be closed.
//!
//! Lock order: the list's lock is a leaf; dm-thin's table of pools may be locked outside it.

use kernel::{
    alloc::flags::*,
    new_condvar, new_mutex,
    prelude::*,
    sync::{CondVar, CondVarTimeoutResult, Mutex},
    time::msecs_to_jiffies,
};

use dm::io::in_flight::Since;

use crate::layers::id::ThinId;

/// How long a deletion waits, in milliseconds, and for how long a target has just left.
const PATIENCE_MS: u32 = 500;

/// A layer that a target has left.
struct Left {
    layer: ThinId,
    since: Since,
}

/// See the [module](self).
#[pin_data]
pub(crate) struct Leaving {
    #[pin]
    list: Mutex<KVec<Left>>,
    #[pin]
    changed: CondVar,
}

impl Leaving {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "drr_leaving"),
            changed <- new_condvar!("drr_leaving"),
        })
    }

    /// The last target on a layer has gone. Process context; without memory nobody waits.
    pub(crate) fn left(&self, layer: ThinId) {
        let (mut list, since) = (self.list.lock(), Since::now());
        list.retain(|left| left.layer != layer && !left.since.over(since, PATIENCE_MS));
        let _ = list.push(Left { layer, since }, GFP_NOWAIT | __GFP_NOWARN);
    }

    /// A thin device of this layer was closed, or there is a target on it.
    pub(crate) fn closed(&self, layer: ThinId) {
        self.list.lock().retain(|left| left.layer != layer);
        self.changed.notify_all();
    }

    /// Waits until the device that a target has just left is closed, not for long, or the task gets a signal.
    pub(crate) fn wait_for(&self, layer: ThinId) {
        let mut list = self.list.lock();
        let mut patience = msecs_to_jiffies(PATIENCE_MS);
        loop {
            let now = Since::now();
            let leaves = |left: &Left| left.layer == layer && !left.since.over(now, PATIENCE_MS);
            if !list.iter().any(leaves) {
                return;
            }
            match self.changed.wait_interruptible_timeout(&mut list, patience) {
                CondVarTimeoutResult::Woken { jiffies } => patience = jiffies,
                CondVarTimeoutResult::Timeout | CondVarTimeoutResult::Signal { .. } => return,
            }
        }
    }
}
