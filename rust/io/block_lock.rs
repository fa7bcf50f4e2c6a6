// SPDX-License-Identifier: GPL-2.0

//! Locks for blocks of devices: shared by writes, or exclusively one write's.
//!
//! A write shares the locks of its blocks from when it comes until it has ended. One that wants to write more than
//! it was asked to, with what the block has held so far, has to be alone with the block, from before it looks at
//! that until it has ended: [`BlockLocks::make_exclusive`]. Writes that come to the block meanwhile are parked. No
//! task waits: a bio that is parked holds nothing but its own memory.
//!
//! The locks have a limited number of *cells*, many blocks the same. A cell counts those that share any of its
//! blocks, and has a bit that says that one of the blocks is exclusive. So a write that wants to be alone is denied
//! that by a write to another block of the cell; but no write waits for another block. One that finds the bit set looks
//! under the cell's lock which block it is, and goes on if it isn't one of its own.
//!
//! Each change of a counter is one fully ordered operation. So either the one that wants to be alone sees the
//! other, or the other sees the bit, and then the block: the two are set under the cell's lock.
//!
//! A block goes by several [names](BlockRange). Whoever shares it does so under all of them, and has it exclusively
//! under all of them, or not.
//!
//! This is what dm-bio-prison's cells are for, without memory or a tree for each write.
//!
//! Lock order: a cell's lock is taken with interrupts off and is a leaf.

use core::{ops::Range, result::Result};

use kernel::{
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        SpinLockIrq, SpinLockIrqGuard,
    },
};

use crate::{
    block::bio::{Bio, Mapped},
    drr::rule::Rule,
    io::in_flight::{BioLink, Follow, InFlightList},
    sync::index::hash,
};

const EXCLUSIVE: u32 = 1 << 31;

/// How many names a block goes by.
const NAMES: usize = 2;

static CELL: &CStr = c"dm_block";

/// Consecutive blocks of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockRange {
    /// What stands for the device.
    names: [u64; NAMES],
    first: u64,
    count: u64,
}

impl BlockRange {
    /// `blocks` of the device that each of `names` stands for. A name is compared with those at the same place
    /// only.
    pub fn new(names: [u64; NAMES], blocks: Range<u64>) -> Self {
        Self {
            names,
            first: blocks.start,
            count: blocks.end.saturating_sub(blocks.start),
        }
    }
}

/// What a write has locked.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Locked {
    blocks: BlockRange,
    exclusive: bool,
}

impl Locked {
    /// There is no other write to the same blocks.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// There is nothing to be unlocked.
    pub fn is_empty(&self) -> bool {
        self.blocks.count == 0
    }
}

/// A block that one write has exclusively, under the name that leads to the cell.
struct Alone {
    name: u64,
    block: u64,
}

impl Alone {
    /// It is one of `blocks`, whose name this is.
    fn is_of(&self, name: u64, blocks: BlockRange) -> bool {
        self.name == name && self.block.wrapping_sub(blocks.first) < blocks.count
    }
}

/// What a cell's lock guards.
struct Guarded {
    /// There if [`EXCLUSIVE`] is set.
    alone: Option<Alone>,
    /// Bios that come to that block.
    waiting: InFlightList,
}

#[pin_data]
struct Cell {
    /// How many share a block of the cell, and [`EXCLUSIVE`].
    state: Atomic<u32>,
    #[pin]
    guarded: SpinLockIrq<Guarded>,
}

impl Cell {
    fn new() -> impl PinInit<Self, Error> {
        let state = Atomic::new(0);
        let guarded = Guarded {
            alone: None,
            waiting: InFlightList::EMPTY,
        };
        try_pin_init!(Self {
            state,
            guarded <- SpinLockIrq::new(guarded, CELL, static_lock_class!()),
        })
    }
}

#[pin_data]
struct Cells<const COUNT: usize> {
    #[pin]
    cells: [Cell; COUNT],
}

impl<const COUNT: usize> Cells<COUNT> {
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            cells <- pin_init::pin_init_array_from_fn(|_| Cell::new()),
        })
    }
}

/// The locks, which have `COUNT` cells, a power of two, and at least one for each name.
pub struct BlockLocks<const COUNT: usize>(Pin<KVBox<Cells<COUNT>>>);

/// Another write has one of the blocks exclusively, and keeps it for as long as this is there.
#[must_use]
pub struct Taken<'a, const COUNT: usize> {
    guarded: SpinLockIrqGuard<'a, Guarded>,
    /// Dropped after the lock, as there may be thousands.
    _shares: Shares<'a, COUNT>,
}

/// The first `count` shares of `blocks`, given back when dropped.
struct Shares<'a, const COUNT: usize> {
    locks: &'a BlockLocks<COUNT>,
    blocks: BlockRange,
    count: usize,
}

impl<const COUNT: usize> Drop for Shares<'_, COUNT> {
    fn drop(&mut self) {
        self.locks.unshare(self.blocks, self.count);
    }
}

impl<const COUNT: usize> Taken<'_, COUNT> {
    /// Parks `bio` until that write has ended, or shares the block again. It goes on by [`Follow::resume_bio`], and
    /// keeps its target alive, as device-mapper destroys none with I/O in flight.
    pub fn park<T: Follow>(mut self, mut bio: Bio<'_, T>, target: &T) -> Mapped {
        bio.stop_polling();
        // SAFETY: The bio is ours, and nobody knows of its flight.
        unsafe { self.guarded.waiting.push(BioLink::deferred(&bio, target)) };
        Mapped::parked()
    }
}

impl<const COUNT: usize> BlockLocks<COUNT> {
    /// Nothing is locked. Fails with `ENOMEM`.
    pub fn new() -> kernel::error::Result<Self> {
        const {
            assert!(COUNT.is_power_of_two() && COUNT >= NAMES);
        }
        Ok(Self(KVBox::pin_init(Cells::new(), GFP_KERNEL)?))
    }

    /// The cells of `blocks`, each with the name that leads to it. Names at different places have different cells, or a
    /// write could be in its own way.
    fn of(&self, blocks: BlockRange) -> impl Iterator<Item = (&Cell, u64)> {
        let most = (COUNT / NAMES) as u64;
        (0..NAMES).flat_map(move |place| {
            let name = blocks.names[place];
            let first = hash(name).wrapping_add(blocks.first);
            (0..blocks.count.min(most)).map(move |step| {
                // CAST: The remainder is an index.
                let at = (first.wrapping_add(step) % most) as usize;
                // RANGE: Less than `COUNT`.
                (&self.0.cells[place * (COUNT / NAMES) + at], name)
            })
        })
    }

    /// Undoes the first `count` of what sharing `blocks` does.
    fn unshare(&self, blocks: BlockRange, count: usize) {
        for (cell, _) in self.of(blocks).take(count) {
            cell.state.fetch_add(1u32.wrapping_neg(), Full);
        }
    }

    /// Shares the locks of `blocks`, unless a write has one of these blocks exclusively.
    pub fn share(&self, blocks: BlockRange) -> Result<Locked, Taken<'_, COUNT>> {
        for (done, (cell, name)) in self.of(blocks).enumerate() {
            if cell.state.fetch_add(1, Full) & EXCLUSIVE == 0 || !Rule::AloneAfter.on() {
                continue;
            }
            let guarded = cell.guarded.lock();
            let alone = guarded.alone.as_ref();
            if alone.is_some_and(|alone| alone.is_of(name, blocks)) {
                return Err(Taken {
                    guarded,
                    _shares: Shares {
                        locks: self,
                        blocks,
                        // RANGE: At most the number of cells.
                        count: done + 1,
                    },
                });
            }
        }
        Ok(Locked {
            blocks,
            exclusive: false,
        })
    }

    /// Whether nobody else shares the lock of the one block that is `locked`. If so, nobody comes to the block
    /// until it is unlocked or made shared again.
    pub fn make_exclusive(&self, locked: &mut Locked) -> bool {
        let blocks = locked.blocks;
        if blocks.count != 1 || locked.exclusive {
            return false;
        }
        for (done, (cell, name)) in self.of(blocks).enumerate() {
            let mut guarded = cell.guarded.lock();
            let sharers = if Rule::AloneBefore.on() {
                1
            } else {
                cell.state.load(Relaxed) & !EXCLUSIVE
            };
            let set = cell.state.cmpxchg(sharers, EXCLUSIVE | sharers, Full);
            if set.is_err() {
                drop(guarded);
                self.let_in(blocks, done);
                return false;
            }
            guarded.alone = Some(Alone {
                name,
                block: blocks.first,
            });
        }
        locked.exclusive = true;
        true
    }

    /// Lets others share the first `count` cells of `blocks` again, and has the bios that wait there go on. Any context.
    fn let_in(&self, blocks: BlockRange, count: usize) {
        for (cell, _) in self.of(blocks).take(count) {
            let mut guarded = cell.guarded.lock();
            cell.state.fetch_add(EXCLUSIVE.wrapping_neg(), Full);
            guarded.alone = None;
            let waiting = guarded.waiting.take();
            drop(guarded);
            waiting.go_on();
        }
    }

    /// Others may share what was exclusively `locked`. Any context.
    pub fn make_shared(&self, locked: &mut Locked) {
        if locked.exclusive {
            self.let_in(locked.blocks, NAMES);
        }
        locked.exclusive = false;
    }

    /// Unlocks what is `locked`. Any context.
    pub fn unlock(&self, mut locked: Locked) {
        self.make_shared(&mut locked);
        self.unshare(locked.blocks, usize::MAX);
    }
}

#[kunit_tests(drr_blocklock)]
mod tests {
    use super::*;

    const COUNT: usize = 128;
    /// Cells of each name.
    const EACH: u64 = (COUNT / NAMES) as u64;

    fn blocks(begin: u64, end: u64) -> BlockRange {
        BlockRange::new([77, 7], begin..end)
    }

    fn share(locks: &BlockLocks<COUNT>, blocks: BlockRange) -> kernel::error::Result<Locked> {
        locks.share(blocks).map_err(|_| EINVAL)
    }

    #[test]
    fn one_is_alone_or_many_share() -> kernel::error::Result {
        let locks = BlockLocks::<COUNT>::new()?;
        let mut first = share(&locks, blocks(7, 8))?;
        let second = share(&locks, blocks(7, 8))?;
        assert!(!locks.make_exclusive(&mut first));
        locks.unlock(second);
        assert!(locks.make_exclusive(&mut first));
        assert!(first.is_exclusive());
        for (begin, end, free) in [
            (7, 8, false),
            (8, 9, true),
            (0, 7, true),
            (0, 8, false),
            (6, u64::MAX, false),
            (8, 7 + EACH, true),
            // The cell is the same, the block is not.
            (8, 8 + EACH, true),
            (7 + EACH, 8 + EACH, true),
            (8, u64::MAX, true),
        ] {
            let locked = locks.share(blocks(begin, end)).ok();
            assert_eq!(locked.is_some(), free);
            locked.into_iter().for_each(|locked| locks.unlock(locked));
        }
        locks.make_shared(&mut first);
        locks.unlock(share(&locks, blocks(7, 8))?);
        assert!(locks.make_exclusive(&mut first));
        locks.unlock(first);
        // Nothing is left.
        for block in 0..EACH {
            let mut locked = share(&locks, blocks(block, block + 1))?;
            assert!(locks.make_exclusive(&mut locked));
            locks.unlock(locked);
        }
        Ok(())
    }

    #[test]
    fn a_block_is_known_by_each_of_its_names() -> kernel::error::Result {
        let locks = BlockLocks::<COUNT>::new()?;
        let one = |names| BlockRange::new(names, 7..8);
        let mut first = share(&locks, one([1, 2]))?;
        for names in [[1, 2], [1, 9], [9, 2]] {
            let other = share(&locks, one(names))?;
            assert!(!locks.make_exclusive(&mut first));
            locks.unlock(other);
        }
        assert!(locks.make_exclusive(&mut first));
        for (names, free) in [
            ([1, 2], false),
            ([1, 9], false),
            ([9, 2], false),
            ([2, 1], true),
            ([9, 9], true),
        ] {
            assert_eq!(
                share(&locks, one(names)).map(|it| locks.unlock(it)).is_ok(),
                free
            );
        }
        locks.unlock(first);
        Ok(())
    }

    #[test]
    fn only_one_block_can_be_exclusive() -> kernel::error::Result {
        let locks = BlockLocks::<COUNT>::new()?;
        for (begin, end) in [(3, 3), (3, 5), (0, u64::MAX)] {
            let mut locked = share(&locks, blocks(begin, end))?;
            assert!(!locks.make_exclusive(&mut locked));
            assert_eq!(locked.is_empty(), begin == end);
            locks.unlock(locked);
        }
        Ok(())
    }
}
