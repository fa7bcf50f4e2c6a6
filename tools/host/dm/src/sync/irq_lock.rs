// SPDX-License-Identifier: GPL-2.0

//! Stand-in: locks, in a machine without interrupts.

use core::ffi::CStr;

use kernel::{
    error::{Error, Result},
    init::PinInit,
};

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

/// What holds an [`IrqLock`].
pub type IrqGuard<'a, T> = imp::MutexGuard<'a, T>;

/// A mutex, since a spinlock among more threads than CPUs would wait for one that does not run.
pub struct IrqLock<T>(imp::Mutex<T>);

impl<T> IrqLock<T> {
    /// Initialises an unlocked one.
    pub fn new(value: T, _name: &'static CStr, _class: ()) -> impl PinInit<Self, Error> {
        move || -> Result<Self> { Ok(Self(imp::Mutex::new(value))) }
    }

    /// Locks it.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        self.0.lock().expect("no holder panicked")
    }
}
