// SPDX-License-Identifier: GPL-2.0

//! Locks for blocks of devices: shared by writes, or exclusively one write's.
//!
//! They are only tried. A write shares the locks of its blocks from when it comes until it has ended.
//! One that wants to write more than it was asked to, with what the block has held so far, has to be
//! alone with it, from before it looks at that until it has ended: [`BlockLocks::make_exclusive`].
//!
//! A lock is a counter of those that share it, with a bit for the one that has it exclusively. Many
//! blocks have the same lock, which only makes for writes that aren't alone without need. As every
//! change of a counter is one fully ordered operation, either the one that wants to be alone sees the
//! other, or the other sees the bit.
//!
//! This is what dm-bio-prison's cells are for, without memory or a tree for each write.

use core::ops::Range;

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{Atomic, Full},
};

use crate::{cells::cells, guard::Guard, index::hash};

const EXCLUSIVE: u32 = 1 << 31;

/// The locks.
pub struct BlockLocks(KVVec<Atomic<u32>>);

/// Blocks of one device, and so the locks from number `first` on, which wrap around.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Blocks {
    first: u64,
    count: u64,
}

impl Blocks {
    /// `blocks` of the device that `device` stands for.
    pub fn new(device: u64, blocks: Range<u64>) -> Self {
        Self {
            first: hash(device).wrapping_add(blocks.start),
            count: blocks.end.saturating_sub(blocks.start),
        }
    }
}

/// What a write has locked.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Locked {
    blocks: Blocks,
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

impl BlockLocks {
    /// So many, a power of two, and nothing is locked. Fails with `ENOMEM`.
    pub fn new(count: usize) -> Result<Self> {
        Ok(Self(cells(count, || Atomic::new(0))?))
    }

    /// The locks of `blocks`, each once.
    fn of(&self, blocks: Blocks) -> impl Iterator<Item = &Atomic<u32>> {
        let count = self.0.len() as u64;
        // CAST: The remainder is an index.
        (0..blocks.count.min(count))
            .map(move |step| &self.0[(blocks.first.wrapping_add(step) % count) as usize])
    }

    /// Shares the locks of `blocks`; nothing if somebody has one of them for himself.
    pub fn share(&self, blocks: Blocks) -> Option<Locked> {
        for (done, lock) in self.of(blocks).enumerate() {
            if lock.fetch_add(1, Full) & EXCLUSIVE != 0 && Guard::AloneAfter.on() {
                for lock in self.of(blocks).take(done + 1) {
                    lock.fetch_add(1u32.wrapping_neg(), Full);
                }
                return None;
            }
        }
        Some(Locked {
            blocks,
            exclusive: false,
        })
    }

    /// Whether nobody else shares the lock of the one block that is `locked`, and nobody comes to
    /// until it is unlocked or made shared again.
    pub fn make_exclusive(&self, locked: &mut Locked) -> bool {
        if locked.blocks.count != 1 || locked.exclusive {
            return false;
        }
        let mut locks = self.of(locked.blocks);
        let alone = |lock: &Atomic<u32>| {
            let sharers = if Guard::AloneBefore.on() {
                1
            } else {
                lock.fetch_add(0, Full) & !EXCLUSIVE
            };
            lock.cmpxchg(sharers, EXCLUSIVE | sharers, Full).is_ok()
        };
        locked.exclusive = locks.next().is_some_and(alone);
        locked.exclusive
    }

    /// Others may share what was exclusively `locked`. Who waits for that has to be told.
    pub fn make_shared(&self, locked: &mut Locked) {
        if locked.exclusive {
            for lock in self.of(locked.blocks) {
                lock.fetch_add(EXCLUSIVE.wrapping_neg(), Full);
            }
        }
        locked.exclusive = false;
    }

    /// Unlocks what is `locked`. If it was exclusively, who waits for that has to be told.
    pub fn unlock(&self, mut locked: Locked) {
        self.make_shared(&mut locked);
        for lock in self.of(locked.blocks) {
            lock.fetch_add(1u32.wrapping_neg(), Full);
        }
    }

    /// Somebody has one of the locks of `blocks` for himself.
    pub fn exclusive(&self, blocks: Blocks) -> bool {
        let mut locks = self.of(blocks);
        locks.any(|lock| lock.fetch_add(0, Full) & EXCLUSIVE != 0)
    }
}

#[kunit_tests(drr_blocklock)]
mod tests {
    use super::*;

    const COUNT: usize = 64;

    fn blocks(begin: u64, end: u64) -> Blocks {
        Blocks::new(77, begin..end)
    }

    fn share(locks: &BlockLocks, begin: u64, end: u64) -> Result<Locked> {
        locks.share(blocks(begin, end)).ok_or(EINVAL)
    }

    #[test]
    fn one_is_alone_or_many_share() -> Result {
        let locks = BlockLocks::new(COUNT)?;
        let mut first = share(&locks, 7, 8)?;
        let second = share(&locks, 7, 8)?;
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
            (8, 7 + COUNT as u64, true),
            (8, 8 + COUNT as u64, false),
        ] {
            let locked = locks.share(blocks(begin, end));
            assert_eq!(locked.is_some(), free);
            assert_eq!(locks.exclusive(blocks(begin, end)), !free);
            locked.into_iter().for_each(|locked| locks.unlock(locked));
        }
        locks.make_shared(&mut first);
        locks.unlock(share(&locks, 7, 8)?);
        assert!(locks.make_exclusive(&mut first));
        locks.unlock(first);
        // Nothing is left.
        for block in 0..COUNT as u64 {
            let mut locked = share(&locks, block, block + 1)?;
            assert!(locks.make_exclusive(&mut locked));
            locks.unlock(locked);
        }
        Ok(())
    }

    #[test]
    fn only_one_block_can_be_exclusive() -> Result {
        let locks = BlockLocks::new(COUNT)?;
        for (begin, end) in [(3, 3), (3, 5), (0, u64::MAX)] {
            let mut locked = share(&locks, begin, end)?;
            assert!(!locks.make_exclusive(&mut locked));
            assert_eq!(locked.is_empty(), begin == end);
            locks.unlock(locked);
        }
        Ok(())
    }
}
