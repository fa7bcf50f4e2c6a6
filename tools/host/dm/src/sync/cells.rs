// SPDX-License-Identifier: GPL-2.0

//! Stand-in for models: tables of which a model uses few cells.

use core::cell::Cell;

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
    sync::atomic::lazily,
};

std::thread_local! {
    /// A table with more cells has its atomics made when they are used first.
    pub static MANY: Cell<usize> = const { Cell::new(64) };
}

/// As in the module.
pub fn cells<T>(count: usize, new: impl Fn() -> T) -> Result<KVVec<T>> {
    let mut cells = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        let cell = if count > MANY.get() {
            lazily(&new)
        } else {
            new()
        };
        cells.push(cell, GFP_KERNEL)?;
    }
    Ok(cells)
}

/// As in the module, on a small machine.
pub fn by_memory(_pages: usize, least: usize, _most: usize) -> usize {
    least
}
