// SPDX-License-Identifier: GPL-2.0

//! Tables whose size is known when they are made.

use kernel::{
    alloc::{flags::*, KVVec},
    prelude::*,
};

use crate::sched;

/// `count` cells, each as `new` makes it. Process context; fails with `ENOMEM`.
pub fn cells<T>(count: usize, new: impl Fn() -> T) -> Result<KVVec<T>> {
    let mut cells = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        cells.push(new(), GFP_KERNEL)?;
    }
    Ok(cells)
}

/// How many cells suit the machine: one for each `pages` pages of its memory or fewer, a power of two
/// from `least` to `most`, which are such themselves.
pub fn by_memory(pages: usize, least: usize, most: usize) -> usize {
    let count = (sched::total_ram_pages() / pages).clamp(least, most);
    // RANGE: Not above the count.
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
