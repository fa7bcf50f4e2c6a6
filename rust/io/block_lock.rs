// SPDX-License-Identifier: GPL-2.0

//! Locks of blocks of devices: shared by several writes, or exclusive to one write.
//!
//! A write shares the locks of its blocks from its arrival until it has ended. A write that is to
//! be extended by what the block holds needs the block's lock exclusively, from before the old
//! content is looked up until the write has ended: [`BlockLocks::make_exclusive`]. Writes to the
//! block that arrive in the meantime are parked. No task waits, and a parked bio holds nothing but
//! its own memory.
//!
//! The locks are in a limited number of *cells*, each of which many blocks share. A cell counts the
//! sharers of all its blocks, and has a bit that says that one of its blocks is locked exclusively.
//! So a write may be denied the exclusive lock because of a write to another block of the cell; but
//! no write waits for another block. A write that finds the bit set checks under the cell's lock
//! which block is locked exclusively, and proceeds if it is not one of its own.
//!
//! Each change of a counter is one fully ordered operation. So either the write that wants the
//! block exclusively sees the other write, or the other sees the bit and then the block, both of
//! which are set under the cell's lock.
//!
//! A block has several [names](BlockRange). Its lock is shared under all of its names, and is held
//! exclusively under all of them or none.
//!
//! This does what the cells of dm-bio-prison are for, without memory or a tree for each write.
//!
//! Lock order: the lock of a cell is taken with interrupts off and is a leaf.

use core::{ops::Range, result::Result};

use kernel::{
    prelude::*,
    static_lock_class,
    sync::atomic::{Atomic, Full, Relaxed},
};

use crate::{
    block::bio::{Bio, Mapped},
    drr::rule::Rule,
    io::parked::{BioLink, Follow, InFlightList},
    sync::{
        index::hash,
        irq_lock::{IrqGuard, IrqLock},
    },
};

/// The bit of a cell's state that says that one of its blocks is locked exclusively; the bits below
/// count the sharers.
const EXCLUSIVE: u32 = 1 << 31;

/// Number of names of a block: one by which a device is known, and one that several devices share.
const NAMES: usize = 2;

static CELL: &CStr = c"dm_block";

/// Consecutive blocks of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockRange {
    /// Names that stand for the device.
    names: [u64; NAMES],
    first: u64,
    count: u64,
}

impl BlockRange {
    /// Creates a range of `blocks` of the device that each of `names` stands for. Names are only
    /// compared with names at the same position.
    pub fn new(names: [u64; NAMES], blocks: Range<u64>) -> Self {
        Self {
            names,
            first: blocks.start,
            count: blocks.end.saturating_sub(blocks.start),
        }
    }
}

/// The locks that a write holds.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Locked {
    blocks: BlockRange,
    exclusive: bool,
}

impl Locked {
    /// Returns whether the lock is exclusive.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Returns whether no lock is held.
    pub fn is_empty(&self) -> bool {
        self.blocks.count == 0
    }
}

/// A block that is locked exclusively, under the name that leads to the cell.
struct Alone {
    name: u64,
    block: u64,
}

impl Alone {
    /// Returns whether the block is one of `blocks`, under `name`.
    fn is_of(&self, name: u64, blocks: BlockRange) -> bool {
        self.name == name && self.block.wrapping_sub(blocks.first) < blocks.count
    }
}

/// The data that the lock of a cell protects.
struct Guarded {
    /// The exclusively locked block; present if [`EXCLUSIVE`] is set.
    alone: Option<Alone>,
    /// Bios that wait for the exclusively locked block.
    waiting: InFlightList,
}

#[pin_data]
struct Cell {
    /// Number of sharers of the cell's blocks, and [`EXCLUSIVE`].
    state: Atomic<u32>,
    #[pin]
    guarded: IrqLock<Guarded>,
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
            guarded <- IrqLock::new(guarded, CELL, static_lock_class!()),
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

/// Locks of blocks, in `COUNT` cells. `COUNT` must be a power of two, and at least the number of
/// names.
///
/// # Examples
///
/// A write that is parked while another write has one of its blocks exclusively, and that is
/// extended to its full block if no other write shares the block. `forward` sends a bio down.
///
/// ```ignore
/// let blocks = BlockRange::new([device.into(), thin_id.into()], first..end);
/// bio.data().locked = match self.locks.share(blocks) {
///     Ok(locked) => locked,
///     Err(taken) => return taken.park(bio, self),
/// };
/// if !self.locks.make_exclusive(&mut bio.data().locked) {
///     return self.forward(bio);
/// }
/// self.write_full_block(bio)
///
/// // When the bio has ended:
/// self.locks.unlock(bio.data().locked);
/// ```
pub struct BlockLocks<const COUNT: usize>(Pin<KVBox<Cells<COUNT>>>);

/// The outcome of [`BlockLocks::share`] if another write holds one of the blocks exclusively. That
/// write holds the block at least as long as this value exists.
#[must_use]
pub struct Taken<'a, const COUNT: usize> {
    guarded: IrqGuard<'a, Guarded>,
    /// Dropped after the lock is released, as there may be thousands of shares.
    _shares: Shares<'a, COUNT>,
}

/// The first `count` shares of `blocks`, which are released when the value is dropped.
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
    /// Parks `bio` until the other write has ended or shares the block again. `bio` then continues
    /// with [`Follow::resume_bio`]. It keeps its target alive, as device-mapper destroys none with
    /// I/O in flight.
    pub fn park<T: Follow>(mut self, mut bio: Bio<'_, T>, target: &T) -> Mapped {
        bio.stop_polling();
        // SAFETY: We own the bio, and its link is in no list.
        unsafe { self.guarded.waiting.push(BioLink::deferred(&bio, target)) };
        Mapped::parked()
    }
}

impl<const COUNT: usize> BlockLocks<COUNT> {
    /// Creates `COUNT` cells with nothing locked. Process context. Fails with `ENOMEM`.
    pub fn new() -> kernel::error::Result<Self> {
        const {
            assert!(COUNT.is_power_of_two() && COUNT >= NAMES);
        }
        Ok(Self(KVBox::pin_init(Cells::new(), GFP_KERNEL)?))
    }

    /// Iterates over the cells of `blocks`, each with the name that leads to it. Names at different
    /// positions have different cells, as otherwise a write could block itself.
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

    /// Releases the first `count` shares of `blocks`.
    fn unshare(&self, blocks: BlockRange, count: usize) {
        for (cell, _) in self.of(blocks).take(count) {
            cell.state.fetch_add(1u32.wrapping_neg(), Full);
        }
    }

    /// Shares the locks of `blocks`. Fails if another write holds one of the blocks exclusively.
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

    /// Makes the lock of one block exclusive if nothing else shares its cells. Returns whether it
    /// did; false as well if `locked` is not one block, or is exclusive already.
    ///
    /// No other write gets the lock of the block until [`Self::unlock`] or [`Self::make_shared`].
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

    /// Ends the exclusive use of the first `count` cells of `blocks`, and lets the bios that wait
    /// there continue. Any context.
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

    /// Makes the lock shared again if `locked` is exclusive. Any context.
    pub fn make_shared(&self, locked: &mut Locked) {
        if locked.exclusive {
            self.let_in(locked.blocks, NAMES);
        }
        locked.exclusive = false;
    }

    /// Releases the locks. Any context.
    pub fn unlock(&self, mut locked: Locked) {
        self.make_shared(&mut locked);
        self.unshare(locked.blocks, usize::MAX);
    }
}

#[kunit_tests(drr_blocklock)]
mod tests {
    use super::*;

    const COUNT: usize = 128;
    /// Number of cells for each name.
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
            // The same cell, but another block.
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
        // No lock is left.
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
