// SPDX-License-Identifier: GPL-2.0

//! Tables of a fixed size.

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
};

use crate::sched;

/// Creates a table of `count` cells, each initialised by `new`. Process context. Fails with
/// `ENOMEM`.
pub fn cells<T>(count: usize, new: impl Fn() -> T) -> Result<KVVec<T>> {
    let mut cells = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        cells.push(new(), GFP_KERNEL)?;
    }
    Ok(cells)
}

/// Returns a number of cells that suits the machine: the largest power of two that leaves each cell
/// at least `pages` pages of memory, limited to `least..=most`. Both limits must be powers of two.
///
/// # Panics
///
/// If `pages` is 0, or `least` is greater than `most`.
pub fn by_memory(pages: usize, least: usize, most: usize) -> usize {
    let count = (sched::total_ram_pages() / pages).clamp(least, most);
    // RANGE: Not above `count`.
    1 << count.ilog2()
}

#[kunit_tests(dm_cells)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_asked_for() -> Result {
        assert_eq!(cells(3, || 7)?[..], [7; 3]);
        assert!(cells(0, || 7)?.is_empty());
        Ok(())
    }

    #[test]
    fn as_many_as_there_is_memory_for() {
        let pages = sched::total_ram_pages();
        let count = by_memory(4, 1, 1 << 40);
        assert!(count.is_power_of_two());
        assert!(count * 4 <= pages && count * 8 > pages);
        assert_eq!(by_memory(4, 1, 16), 16);
        assert_eq!(by_memory(pages, 1 << 20, 1 << 21), 1 << 20);
    }
}
