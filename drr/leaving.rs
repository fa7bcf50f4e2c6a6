// SPDX-License-Identifier: GPL-2.0

//! Thin devices that are about to be closed, as their last target has gone.
//!
//! A target that is attached to a thin device in use has a device of its own with the same thin id,
//! which is removed with the target (`DM_DEFERRED_REMOVE`). A worker does this shortly after
//! `dmsetup remove` has returned, and container managers then have the pool delete the thin id,
//! which fails if the device is open. So dm-thin sends an event before it deletes a thin device,
//! and if the last target has just left this device, the event's handler waits here until it is
//! closed.
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

/// How long a deletion waits, in milliseconds, and for how long a target counts as having just
/// left.
const PATIENCE_MS: u32 = 500;

/// A layer that its last target has left.
struct Left {
    layer: ThinId,
    since: Since,
}

/// The layers whose last target has just left, see the [module](self).
#[pin_data]
pub(crate) struct Leaving {
    #[pin]
    list: Mutex<KVec<Left>>,
    #[pin]
    changed: CondVar,
}

impl Leaving {
    /// Creates an empty list.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "drr_leaving"),
            changed <- new_condvar!("drr_leaving"),
        })
    }

    /// Adds a layer that its last target has left. Process context; without memory, no deletion
    /// waits for it.
    pub(crate) fn left(&self, layer: ThinId) {
        let (mut list, since) = (self.list.lock(), Since::now());
        list.retain(|left| left.layer != layer && !left.since.over(since, PATIENCE_MS));
        let _ = list.push(Left { layer, since }, GFP_NOWAIT | __GFP_NOWARN);
    }

    /// Removes a layer: a thin device of it was closed, or a target was made on it. Process
    /// context.
    pub(crate) fn closed(&self, layer: ThinId) {
        self.list.lock().retain(|left| left.layer != layer);
        self.changed.notify_all();
    }

    /// Waits until the thin device of `layer` is closed, if a target has just left it. Gives up
    /// after [`PATIENCE_MS`], or when the task gets a signal. Process context.
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
