// SPDX-License-Identifier: GPL-2.0

//! Allocations. Boxes come from `malloc`, so that they can be freed by address alone, as the
//! kernel's can.

use core::{
    ops::{Deref, DerefMut},
    pin::Pin,
    ptr::NonNull,
};

use crate::{
    error::{code::ENOMEM, Result},
    init::{InPlaceInit, PinInit},
};

/// Allocation flags, which mean nothing here.
#[derive(Clone, Copy)]
pub struct Flags;

impl core::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, _other: Self) -> Self {
        self
    }
}

/// The flags that are used.
pub mod flags {
    use super::Flags;

    /// May sleep.
    pub const GFP_KERNEL: Flags = Flags;
    /// May not.
    pub const GFP_ATOMIC: Flags = Flags;
    /// May not, and makes do with less.
    pub const GFP_NOWAIT: Flags = Flags;
    /// Says nothing.
    pub const __GFP_NOWARN: Flags = Flags;
}

/// A box.
pub struct KBox<T>(NonNull<T>);

impl<T> KBox<T> {
    /// Fails with `ENOMEM`.
    pub fn new(value: T, _flags: Flags) -> Result<Self> {
        assert!(align_of::<T>() <= 16);
        // SAFETY: Any size will do.
        let room = unsafe { libc::malloc(size_of::<T>().max(1)) };
        let room = NonNull::new(room.cast::<T>()).ok_or(ENOMEM)?;
        // SAFETY: Large enough, and aligned for anything up to 16.
        unsafe { room.write(value) };
        Ok(Self(room))
    }

    /// Gives the allocation away.
    pub fn into_raw(this: Self) -> *mut T {
        let raw = this.0.as_ptr();
        core::mem::forget(this);
        raw
    }

    /// Takes it back.
    ///
    /// # Safety
    ///
    /// `raw` is from [`Self::into_raw`], and nobody else's.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: Not null by the safety requirements.
        Self(unsafe { NonNull::new_unchecked(raw) })
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: Ours, and initialised.
        unsafe {
            self.0.drop_in_place();
            libc::free(self.0.as_ptr().cast());
        }
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Ours, and initialised.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for KBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: Ours, and initialised.
        unsafe { self.0.as_mut() }
    }
}

// SAFETY: It owns its value.
unsafe impl<T: Send> Send for KBox<T> {}
// SAFETY: As above.
unsafe impl<T: Sync> Sync for KBox<T> {}

impl<T> InPlaceInit<T> for KBox<T> {
    fn pin_init(init: impl PinInit<T>, flags: Flags) -> Result<Pin<Self>> {
        let value = Self::new(init.make()?, flags)?;
        // SAFETY: What is in a box doesn't move.
        Ok(unsafe { Pin::new_unchecked(value) })
    }
}

/// A box of any size.
pub type KVBox<T> = KBox<T>;

/// A vector.
pub struct KVec<T>(Vec<T>);

/// A vector that may be large.
pub type KVVec<T> = KVec<T>;

impl<T> KVec<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty one with room. Fails with `ENOMEM`.
    pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self> {
        let mut items = Vec::new();
        items.try_reserve_exact(capacity).map_err(|_| ENOMEM)?;
        Ok(Self(items))
    }

    /// Makes room for so many more. Fails with `ENOMEM`.
    pub fn reserve(&mut self, more: usize, _flags: Flags) -> Result {
        self.0.try_reserve(more).map_err(|_| ENOMEM)
    }

    /// Takes the last out.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// So many copies of `value`. Fails with `ENOMEM`.
    pub fn from_elem(value: T, count: usize, flags: Flags) -> Result<Self>
    where
        T: Clone,
    {
        let mut items = Self::with_capacity(count, flags)?;
        items.0.resize(count, value);
        Ok(items)
    }

    /// Fails with `ENOMEM`.
    pub fn push(&mut self, item: T, _flags: Flags) -> Result {
        self.0.try_reserve(1).map_err(|_| ENOMEM)?;
        self.0.push(item);
        Ok(())
    }
}

impl<T> Default for KVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for KVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for KVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'a, T> IntoIterator for &'a KVec<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
