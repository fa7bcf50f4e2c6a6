// SPDX-License-Identifier: GPL-2.0

//! A table of entries that are found under either of two keys.
//!
//! Both sides are hash tables of a fixed size, made once: a look-up costs a cache line for the
//! bucket and one for each entry, and nothing ever moves. Readers hold RCU and take no lock.
//! Writers may be in any context but NMI, with interrupts on or off.
//!
//! Lock order, inside whatever the caller holds (the page cache's `i_pages` lock among others):
//!
//! 1. a stripe of the reverse side,
//! 2. a stripe of the forward side.
//!
//! # What a reader can rely on
//!
//! An entry that a reader comes across was linked at some moment after the reader's RCU critical
//! section began. For suppose that it had been unlinked before. The reader came to it from the
//! bucket's head or from another entry's `next`. The head, and the `next` of each entry that was
//! still linked then, was changed by the unlinking; an entry that had been unlinked even earlier
//! falls under the same argument itself.
//!
//! An entry that is found by its reverse key, and isn't removed, is found by its forward key from then
//! on, also by others who learn of it: it is linked on the forward side first.

use core::{cell::UnsafeCell, marker::PhantomData, ops::Deref, ptr};

use kernel::{
    alloc::{flags::*, Flags, KVVec},
    bindings::kvfree_rcu_head,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        rcu, SpinLockIrq,
    },
};

use crate::{bindings, sched, sync::cells::cells};

/// What can be put into an [`Index`].
///
/// The keys are hashes: a look-up yields the entries with the same hash, and often some with
/// another; the caller compares.
pub trait Keyed: Send + Sync {
    /// Hash of the forward key; must never change.
    fn forward(&self) -> u64;
    /// Hash of the reverse key; must never change.
    fn reverse(&self) -> u64;
}

/// Mixes `value`, so that its upper bits depend on all of it.
#[inline]
pub fn hash(value: u64) -> u64 {
    // 2^64 divided by the golden ratio, as in include/linux/hash.h, twice for the upper half.
    let value = value.wrapping_mul(0x61C8_8646_80B5_83EB);
    (value ^ (value >> 32)).wrapping_mul(0x61C8_8646_80B5_83EB)
}

/// Heads of buckets in a cache line.
const NEAR: u64 = 8;

/// Hash of place `at` of what `whose` stands for. Eight consecutive places have their buckets in one
/// cache line, which pays if they are looked up one after the other.
#[inline]
pub fn hash_near(whose: u64, at: u64) -> u64 {
    hash(whose ^ hash(at / NEAR)) & !(NEAR - 1) | at % NEAR
}

type Slot<T> = Atomic<*mut Entry<T>>;

/// The slot that points to an entry on one side, or null if nothing does; guarded by the bucket's
/// stripe.
type Back<T> = UnsafeCell<*const Slot<T>>;

/// An entry of an [`Index`].
///
/// What a look-up needs comes first, so that it is in one cache line if the value is small.
///
/// # Invariants
///
/// While `reverse_back` is not null, both sides' links are part of a bucket of one index.
#[repr(C)]
pub struct Entry<T> {
    forward: Slot<T>,
    reverse: Slot<T>,
    value: T,
    forward_back: Back<T>,
    reverse_back: Back<T>,
    rcu: UnsafeCell<kvfree_rcu_head>,
}

// SAFETY: The cells are only touched under the locks named there; `value` is `Sync` if `T` is.
unsafe impl<T: Sync> Sync for Entry<T> {}

impl<T> Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

const STRIPES: usize = 64;

// lockdep compares the names of a class by address, so all instances of `Index` share these.
static FORWARD: &CStr = c"dm_index_forward";
static REVERSE: &CStr = c"dm_index_reverse";

#[pin_data]
struct Stripes {
    #[pin]
    locks: [SpinLockIrq<()>; STRIPES],
}

/// The side of an index, and with it the link that an entry uses there.
trait Side<T> {
    fn next(entry: &Entry<T>) -> &Slot<T>;
    fn back(entry: &Entry<T>) -> &Back<T>;
    fn hash(value: &T) -> u64;
}

struct Forward;
struct Reverse;

impl<T: Keyed> Side<T> for Forward {
    fn next(entry: &Entry<T>) -> &Slot<T> {
        &entry.forward
    }

    fn back(entry: &Entry<T>) -> &Back<T> {
        &entry.forward_back
    }

    fn hash(value: &T) -> u64 {
        value.forward()
    }
}

impl<T: Keyed> Side<T> for Reverse {
    fn next(entry: &Entry<T>) -> &Slot<T> {
        &entry.reverse
    }

    fn back(entry: &Entry<T>) -> &Back<T> {
        &entry.reverse_back
    }

    fn hash(value: &T) -> u64 {
        value.reverse()
    }
}

/// A hash table of one side.
struct Table<T, S> {
    heads: KVVec<Slot<T>>,
    stripes: Pin<KBox<Stripes>>,
    shift: u32,
    side: PhantomData<S>,
}

impl<T: Keyed, S: Side<T>> Table<T, S> {
    // RANGE: `bits` is from 1 to 32, as the caller of `Index::new` promises.
    fn new(bits: u32, stripes: impl PinInit<Stripes, Error>) -> Result<Self> {
        let size = 1usize << bits;
        Ok(Self {
            heads: cells(size, || Atomic::new(ptr::null_mut()))?,
            stripes: KBox::pin_init(stripes, GFP_KERNEL)?,
            shift: u64::BITS - bits,
            side: PhantomData,
        })
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        // RANGE: The shift is less than 64, as `bits` was not 0. The mask leaves less than the number of heads, a power
        // of two.
        ((hash >> self.shift & !(NEAR - 1) | hash & (NEAR - 1)) as usize) & (self.heads.len() - 1)
    }

    fn stripe(&self, hash: u64) -> &SpinLockIrq<()> {
        &self.stripes.locks[self.bucket(hash) % STRIPES]
    }

    /// The entries of a bucket; `'g` is the RCU critical section, or a lock that keeps them.
    #[inline]
    fn iter<'g>(&self, hash: u64) -> Iter<'g, T, S> {
        Iter {
            next: self.heads[self.bucket(hash)].load(Acquire),
            side: PhantomData,
        }
    }

    /// # Safety
    ///
    /// The caller holds the stripe of `entry`, which is valid and not linked on this side.
    unsafe fn link(&self, entry: *mut Entry<T>) {
        // SAFETY: Valid by the safety requirements.
        let this = unsafe { &*entry };
        let head = &self.heads[self.bucket(S::hash(this))];
        let first = head.load(Relaxed);
        S::next(this).store(first, Relaxed);
        // SAFETY: Guarded by the stripe, which the caller holds.
        unsafe { *S::back(this).get() = head };
        if !first.is_null() {
            // SAFETY: Linked entries are valid; same bucket, so the same stripe guards it.
            unsafe { *S::back(&*first).get() = S::next(this) };
        }
        // Readers that see the entry see what it holds.
        head.store(entry, Release);
    }

    /// # Safety
    ///
    /// The caller holds the stripe of `entry`, which is linked on this side.
    unsafe fn unlink(&self, entry: &Entry<T>) {
        let next = S::next(entry).load(Relaxed);
        // SAFETY: Guarded by the stripe; of a linked entry it points to a head or to a linked
        // entry's slot.
        let back = unsafe { &**S::back(entry).get() };
        back.store(next, Release);
        if !next.is_null() {
            // SAFETY: As in `link`.
            unsafe { *S::back(&*next).get() = back };
        }
        // SAFETY: As above.
        unsafe { *S::back(entry).get() = ptr::null() };
        // `next` stays: readers may stand on the entry until their grace period ends.
    }
}

/// The entries of a bucket of the forward side, the newest first.
pub struct Chain<'g, T>(Iter<'g, T, Forward>);

impl<T> Clone for Chain<'_, T> {
    fn clone(&self) -> Self {
        Self(Iter {
            next: self.0.next,
            side: PhantomData,
        })
    }
}

impl<'g, T: Keyed + 'g> Iterator for Chain<'g, T> {
    type Item = &'g Entry<T>;

    fn next(&mut self) -> Option<&'g Entry<T>> {
        self.0.next()
    }
}

/// Iterates over a bucket.
struct Iter<'g, T, S> {
    next: *mut Entry<T>,
    side: PhantomData<(&'g Entry<T>, S)>,
}

impl<'g, T: Keyed + 'g, S: Side<T>> Iterator for Iter<'g, T, S> {
    type Item = &'g Entry<T>;

    #[inline]
    fn next(&mut self) -> Option<&'g Entry<T>> {
        // SAFETY: Entries are freed a grace period after they were unlinked, and `'g` is an RCU
        // critical section or the stripe's lock.
        let entry = unsafe { self.next.as_ref() }?;
        self.next = S::next(entry).load(Acquire);
        Some(entry)
    }
}

/// See the [module](self).
pub struct Index<T: Keyed> {
    forward: Table<T, Forward>,
    reverse: Table<T, Reverse>,
}

// SAFETY: All access is by RCU and the stripes; entries are `Send` and `Sync` as `Keyed` is.
unsafe impl<T: Keyed> Send for Index<T> {}
// SAFETY: As above.
unsafe impl<T: Keyed> Sync for Index<T> {}

impl<T: Keyed> Index<T> {
    /// Bytes of memory that an entry takes; kmalloc's sizes up to 128 are multiples of 32.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>().next_multiple_of(32);
    /// Bytes of an entry that a look-up reads; in one cache line if there are no more than 64.
    pub const LOOK_UP_BYTES: usize = core::mem::offset_of!(Entry<T>, forward_back);

    /// Makes an index with 2^`bits` buckets on each side. Fails with `ENOMEM`.
    pub fn new(bits: u32) -> Result<Self> {
        const {
            assert!(
                !core::mem::needs_drop::<T>(),
                "entries are freed, not dropped"
            )
        };
        // Two classes, so that lockdep knows the sides apart and the order between them.
        let forward = try_pin_init!(Stripes {
            locks <- pin_init::pin_init_array_from_fn(
                |_| SpinLockIrq::new((), FORWARD, static_lock_class!())),
        });
        let reverse = try_pin_init!(Stripes {
            locks <- pin_init::pin_init_array_from_fn(
                |_| SpinLockIrq::new((), REVERSE, static_lock_class!())),
        });
        Ok(Self {
            forward: Table::new(bits, forward)?,
            reverse: Table::new(bits, reverse)?,
        })
    }

    /// Bytes of memory that the empty index takes.
    pub fn table_bytes(&self) -> usize {
        // RANGE: A size in memory.
        2 * (self.forward.heads.len() * size_of::<Slot<T>>() + size_of::<Stripes>())
    }

    /// The entries whose forward hash is, or may be, `hash`, the newest first.
    #[inline]
    pub fn by_forward<'g>(
        &'g self,
        _guard: &'g rcu::Guard,
        hash: u64,
    ) -> impl Iterator<Item = &'g Entry<T>> {
        self.forward.iter(hash)
    }

    /// The entries whose reverse hash is, or may be, `hash`, the newest first.
    #[inline]
    pub fn by_reverse<'g>(
        &'g self,
        _guard: &'g rcu::Guard,
        hash: u64,
    ) -> impl Iterator<Item = &'g Entry<T>> {
        self.reverse.iter(hash)
    }

    /// Inserts `value` unless `same` says of an entry with its reverse hash that it will do.
    ///
    /// `same` runs with interrupts off; no two callers with the same reverse hash run it at once.
    /// Returns whether the value was inserted. Fails with `ENOMEM`.
    pub fn insert_unless(
        &self,
        value: T,
        flags: Flags,
        mut same: impl FnMut(&T) -> bool,
    ) -> Result<bool> {
        let (forward, reverse) = (value.forward(), value.reverse());
        let entry = KBox::new(
            Entry {
                forward: Atomic::new(ptr::null_mut()),
                reverse: Atomic::new(ptr::null_mut()),
                value,
                forward_back: UnsafeCell::new(ptr::null()),
                reverse_back: UnsafeCell::new(ptr::null()),
                rcu: UnsafeCell::new(kvfree_rcu_head::default()),
            },
            flags,
        )?;
        let _reverse = self.reverse.stripe(reverse).lock();
        if self.reverse.iter(reverse).any(|old| same(old)) {
            return Ok(false);
        }
        let entry = KBox::into_raw(entry);
        // The forward side first: who finds the entry by the reverse key may add to it, and whoever
        // then ends what stands under the forward key has to find it.
        {
            let _forward = self.forward.stripe(forward).lock();
            // SAFETY: The stripe of the forward side is held; the entry is new.
            unsafe { self.forward.link(entry) };
        }
        // SAFETY: The stripe of the reverse side is held; the entry is new on this side. It can't
        // have been removed meanwhile, as that takes the reverse side's stripe.
        unsafe { self.reverse.link(entry) };
        Ok(true)
    }

    /// Removes `entry`; nothing happens if it has been removed already.
    ///
    /// Readers that hold RCU now may go on using it.
    pub fn remove(&self, entry: &Entry<T>) -> bool {
        {
            let _reverse = self.reverse.stripe(entry.reverse()).lock();
            // SAFETY: Guarded by the stripe, which is held.
            if unsafe { *entry.reverse_back.get() }.is_null() {
                return false;
            }
            // SAFETY: The stripe is held, and the entry is linked.
            unsafe { self.reverse.unlink(entry) };
            let _forward = self.forward.stripe(entry.forward()).lock();
            // SAFETY: As above.
            unsafe { self.forward.unlink(entry) };
        }
        // SAFETY: The entry is no longer linked and was allocated by `KBox::new`. The caller's
        // reference is an RCU reader's. The check above makes sure that this happens once.
        unsafe {
            bindings::kvfree_call_rcu(entry.rcu.get(), ptr::from_ref(entry).cast_mut().cast())
        };
        true
    }

    /// Calls `visit` for each chain of the forward side, from number `from` on, until it wants no
    /// more; returns the number of the next one then. Every entry that is there all the while comes.
    /// Process context.
    pub fn each_chain(
        &self,
        from: usize,
        places: usize,
        mut visit: impl FnMut(&rcu::Guard, Chain<'_, T>) -> bool,
    ) -> Option<usize> {
        let heads = &self.forward.heads;
        let end = from.saturating_add(places).min(heads.len());
        for at in from..end {
            let head = &heads[at];
            if !head.load(Relaxed).is_null() {
                let guard = rcu::read_lock();
                let chain = Chain(Iter {
                    next: head.load(Acquire),
                    side: PhantomData,
                });
                if !visit(&guard, chain) {
                    // RANGE: At most the number of heads.
                    return Some(at + 1);
                }
            }
            sched::cond_resched();
        }
        (end < heads.len()).then_some(end)
    }

    /// Calls `visit` for every entry that is there all the while. Process context.
    pub fn for_each(&self, mut visit: impl FnMut(&Entry<T>)) {
        self.each_chain(0, usize::MAX, |_, chain| {
            chain.for_each(&mut visit);
            true
        });
    }
}

impl<T: Keyed> Drop for Index<T> {
    fn drop(&mut self) {
        let mut rest = 0u64;
        for head in &self.reverse.heads {
            let mut next = head.load(Relaxed);
            while !next.is_null() {
                // SAFETY: `&mut self` means that nobody else has access; linked entries are
                // valid and were allocated by `KBox::new`.
                let entry = unsafe { KBox::from_raw(next) };
                next = entry.reverse.load(Relaxed);
                // RANGE: Each is in memory.
                rest += 1;
            }
        }
        if rest != 0 {
            pr_debug!("index dropped with {rest} entries\n");
        }
    }
}

#[kunit_tests(dm_index)]
mod tests {
    use super::*;

    struct Pair(u64, u64);

    impl Keyed for Pair {
        fn forward(&self) -> u64 {
            hash(self.0)
        }

        fn reverse(&self) -> u64 {
            hash(self.1)
        }
    }

    fn forward(index: &Index<Pair>, key: u64) -> KVec<u64> {
        let guard = rcu::read_lock();
        let mut found = KVec::new();
        for pair in index.by_forward(&guard, hash(key)) {
            if pair.0 == key {
                found.push(pair.1, GFP_ATOMIC).unwrap();
            }
        }
        found
    }

    fn remove(index: &Index<Pair>, key: u64) -> usize {
        let guard = rcu::read_lock();
        index
            .by_reverse(&guard, hash(key))
            .filter(|pair| pair.1 == key)
            .filter(|pair| index.remove(pair))
            .count()
    }

    #[test]
    fn found_on_both_sides_newest_first() -> Result {
        // One bucket, so that every link is exercised.
        for bits in [1, 6] {
            let index = Index::new(bits)?;
            for key in 0..40 {
                assert!(index.insert_unless(Pair(key / 4, key), GFP_KERNEL, |_| false)?);
            }
            assert_eq!(&forward(&index, 3)[..], &[15, 14, 13, 12]);
            assert_eq!(remove(&index, 13), 1);
            assert_eq!(&forward(&index, 3)[..], &[15, 14, 12]);
            assert_eq!(remove(&index, 15), 1);
            assert_eq!(remove(&index, 12), 1);
            assert_eq!(&forward(&index, 3)[..], &[14]);
            assert_eq!(remove(&index, 12), 0);
            assert_eq!(&forward(&index, 10)[..], &[0u64; 0]);
        }
        Ok(())
    }

    #[test]
    fn insert_unless_there() -> Result {
        let index = Index::new(4)?;
        let same = |pair: &Pair| pair.0 == 7;
        assert!(index.insert_unless(Pair(7, 1), GFP_KERNEL, same)?);
        assert!(!index.insert_unless(Pair(7, 1), GFP_KERNEL, same)?);
        assert!(index.insert_unless(Pair(7, 1), GFP_KERNEL, |_| false)?);
        assert_eq!(forward(&index, 7).len(), 2);
        Ok(())
    }

    #[test]
    fn removed_once() -> Result {
        let index = Index::new(4)?;
        index.insert_unless(Pair(1, 2), GFP_KERNEL, |_| false)?;
        let guard = rcu::read_lock();
        let entry = index.by_reverse(&guard, hash(2)).next().ok_or(ENOENT)?;
        assert!(index.remove(entry));
        assert!(!index.remove(entry));
        // Still readable until the guard goes.
        assert_eq!(entry.0, 1);
        Ok(())
    }

    #[test]
    fn for_each_sees_all() -> Result {
        let index = Index::new(5)?;
        for key in 0..100 {
            index.insert_unless(Pair(key, key * 3), GFP_KERNEL, |_| false)?;
        }
        let (mut count, mut sum) = (0, 0);
        index.for_each(|pair| {
            count += 1;
            sum += pair.0;
        });
        assert_eq!((count, sum), (100, 4950));
        index.for_each(|pair| {
            index.remove(pair);
        });
        index.for_each(|_| count += 1);
        assert_eq!(count, 100);
        Ok(())
    }
}
