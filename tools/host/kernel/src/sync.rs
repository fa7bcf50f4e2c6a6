// SPDX-License-Identifier: GPL-2.0

//! Locks, counted references, atomics.

pub mod atomic;
pub mod barrier;

pub use crate::rcu;

use crate::{
    error::{Error, Result},
    init::PinInit,
};

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

/// A lock whose holders may sleep.
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// Initialises an unlocked one.
    pub fn new(value: T) -> impl PinInit<Self, Error> {
        move || -> Result<Self> { Ok(Self(imp::Mutex::new(value))) }
    }

    /// Locks it.
    pub fn lock(&self) -> imp::MutexGuard<'_, T> {
        self.0.lock().expect("no holder panicked")
    }
}

/// As in the kernel crate.
#[macro_export]
macro_rules! new_mutex {
    ($value:expr, $name:literal) => {
        $crate::sync::Mutex::new($value)
    };
}

/// A counted reference.
pub struct Arc<T>(std::sync::Arc<T>);

impl<T> Arc<T> {
    /// Fails with `ENOMEM`.
    pub fn new(value: T, _flags: crate::alloc::Flags) -> crate::error::Result<Self> {
        Ok(Self(std::sync::Arc::new(value)))
    }

    /// Another, of std's.
    pub fn to_std(&self) -> std::sync::Arc<T> {
        self.0.clone()
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

/// A value that is set once.
pub struct SetOnce<T>(std::sync::OnceLock<T>);

impl<T> SetOnce<T> {
    /// Not yet.
    pub const fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }

    /// Sets it; returns whether nobody else was first.
    pub fn populate(&self, value: T) -> bool {
        self.0.set(value).is_ok()
    }

    /// The value, once it is set.
    pub fn as_ref(&self) -> Option<&T> {
        self.0.get()
    }
}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}
