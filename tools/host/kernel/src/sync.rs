// SPDX-License-Identifier: GPL-2.0

//! Locks, counted references, atomics.

pub mod atomic;
pub mod barrier;

pub use crate::rcu;

use crate::{
    error::{Error, Result},
    init::PinInit,
};
use core::ffi::CStr;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

/// A lock; there are no interrupts here. A mutex, since a spinlock among more threads than CPUs
/// would wait for one that does not run.
pub struct SpinLockIrq<T>(Mutex<T>);

impl<T> SpinLockIrq<T> {
    /// Initialises an unlocked one.
    pub fn new(value: T, _name: &'static CStr, _class: ()) -> impl PinInit<Self, Error> {
        move || -> Result<Self> { Ok(Self(Mutex::new(value))) }
    }

    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no holder panicked")
    }
}

/// A counted reference.
pub struct Arc<T>(std::sync::Arc<T>);

impl<T> Arc<T> {
    /// Fails with `ENOMEM`.
    pub fn new(value: T, _flags: crate::alloc::Flags) -> crate::error::Result<Self> {
        Ok(Self(std::sync::Arc::new(value)))
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> core::ops::Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
