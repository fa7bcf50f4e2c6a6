// SPDX-License-Identifier: GPL-2.0

//! Stand-in: dm-thin's chain of notifiers.

use std::sync::Arc;

use kernel::{prelude::*, sync};

use crate::target::thin_event::{Event, Events};

#[cfg(loom)]
use loom::{lazy_static, sync::Mutex};
#[cfg(not(loom))]
use std::sync::Mutex;

type Chain = Vec<(u64, Arc<dyn Events>)>;

#[cfg(not(loom))]
static CHAIN: Mutex<(u64, Chain)> = Mutex::new((0, Vec::new()));

#[cfg(loom)]
lazy_static! {
    static ref CHAIN: Mutex<(u64, Chain)> = Mutex::new((0, Vec::new()));
}

/// Tells those who have subscribed by now.
pub fn tell(event: Event) {
    let chain = CHAIN.lock().expect("no panic").1.clone();
    for (_, target) in chain {
        target.event(event);
    }
}

/// Sends events to a `T` for as long as it lives.
pub struct Subscription<T: Events> {
    number: u64,
    _target: sync::Arc<T>,
}

impl<T: Events + 'static> Subscription<T> {
    /// From now on.
    pub fn new(target: sync::Arc<T>) -> Result<Self> {
        let mut chain = CHAIN.lock().expect("no panic");
        chain.0 += 1;
        let number = chain.0;
        chain.1.push((number, target.to_std()));
        Ok(Self {
            number,
            _target: target,
        })
    }
}

impl<T: Events> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut chain = CHAIN.lock().expect("no panic");
        chain.1.retain(|(number, _)| *number != self.number);
    }
}
