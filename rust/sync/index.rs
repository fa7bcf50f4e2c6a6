// SPDX-License-Identifier: GPL-2.0

//! A table of entries that can be looked up by either of two keys.
//!
//! Each side is a hash table of a fixed size: a lookup costs a cache line for the bucket and one
//! for each entry, and entries never move. Readers hold RCU and take no lock. Writers may be in any
//! context but NMI, with interrupts on or off.
//!
//! Lock order, below any lock that the caller holds (for example the page cache's `i_pages` lock):
//!
//! 1. a stripe of the reverse side,
//! 2. a stripe of the forward side.
//!
//! # What a reader can rely on
//!
//! An entry that a reader finds was linked at some moment after the reader's RCU critical section
//! began. Proof: suppose the entry was unlinked before. The reader got to it from the head of the
//! bucket or from the `next` of another entry. Unlinking changed the head, and the `next` of each
//! entry that was still linked then. For an entry that was unlinked even earlier, the same argument
//! holds.
//!
//! An entry that is found by its reverse key, and has not been removed, is found by its forward key
//! from then on, by all CPUs that learn of the entry: it is linked on the forward side first.

use core::{cell::UnsafeCell, marker::PhantomData, ops::Deref, ptr};

use kernel::{
    alloc::{flags::*, Flags, KVVec},
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        rcu,
    },
};

use crate::{
    bindings,
    compat::kvfree_rcu_head,
    sched,
    sync::{cells::cells, irq_lock::IrqLock},
};

/// A value that can be put into an [`Index`].
///
/// The keys are hashes. A lookup yields all entries with the same hash, and may yield entries with
/// other hashes, so the caller has to compare.
///
/// # Examples
///
/// A target that is found by its number, and has no other key.
///
/// ```ignore
/// struct Donor {
///     number: u32,
///     donated: StripedCounter,
/// }
///
/// impl Keyed for Donor {
///     fn forward(&self) -> u64 {
///         hash(self.number.into())
///     }
///
///     fn reverse(&self) -> u64 {
///         self.forward()
///     }
/// }
/// ```
pub trait Keyed: Send + Sync {
    /// Returns the hash of the forward key, which must never change.
    fn forward(&self) -> u64;
    /// Returns the hash of the reverse key, which must never change.
    fn reverse(&self) -> u64;
}

/// Hashes `value`. The upper bits of the result depend on all bits of `value`.
#[inline]
pub fn hash(value: u64) -> u64 {
    // GOLDEN_RATIO_64 of include/linux/hash.h. Multiplied twice, with a fold in between, so that
    // the upper half of `value` counts as well.
    let value = value.wrapping_mul(0x61C8_8646_80B5_83EB);
    (value ^ (value >> 32)).wrapping_mul(0x61C8_8646_80B5_83EB)
}

/// Returns which of `slots` slots, a power of two that isn't 1, the upper bits of `hash` choose.
///
/// # Panics
///
/// If `slots` is 1, with `CONFIG_RUST_OVERFLOW_CHECKS`.
#[inline]
pub fn slot(hash: u64, slots: usize) -> usize {
    // RANGE: The shift is less than 64.
    // CAST: Less than `slots`.
    (hash >> (u64::BITS - slots.trailing_zeros())) as usize
}

/// Number of bucket heads in a cache line of 64 bytes.
const NEAR: u64 = 8;

/// Returns the hash of place `at` of the object that `whose` stands for. Eight consecutive places
/// have their buckets in one cache line, which pays if they are looked up one after the other.
#[inline]
pub fn hash_near(whose: u64, at: u64) -> u64 {
    hash(whose ^ hash(at / NEAR)) & !(NEAR - 1) | at % NEAR
}

type Slot<T> = Atomic<*mut Entry<T>>;

/// The slot that points to an entry on one side, or null if the entry is not linked there.
/// Protected by the stripe of the bucket.
type Back<T> = UnsafeCell<*const Slot<T>>;

/// An entry of an [`Index`].
///
/// The fields that a lookup reads come first, so that they share a cache line if the value is
/// small.
///
/// # Invariants
///
/// While `reverse_back` is not null, the links of both sides are part of a bucket of one index.
#[repr(C)]
pub struct Entry<T> {
    forward: Slot<T>,
    reverse: Slot<T>,
    value: T,
    forward_back: Back<T>,
    reverse_back: Back<T>,
    rcu: UnsafeCell<kvfree_rcu_head>,
}

// SAFETY: The cells are accessed only under the locks named there; `value` is `Sync` if `T` is.
unsafe impl<T: Sync> Sync for Entry<T> {}

impl<T> Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Locks of a side, each for one bucket in 64: more than the CPUs that create or end entries at the
/// same moment.
const STRIPES: usize = 64;

// lockdep compares the names of a class by address, so all instances of `Index` share these.
static FORWARD: &CStr = c"dm_index_forward";
static REVERSE: &CStr = c"dm_index_reverse";

#[pin_data]
struct Stripes {
    #[pin]
    locks: [IrqLock<()>; STRIPES],
}

/// One side of an index, which selects the link that an entry uses there.
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

/// The hash table of one side.
struct Table<T, S> {
    heads: KVVec<Slot<T>>,
    stripes: Pin<KBox<Stripes>>,
    shift: u32,
    side: PhantomData<S>,
}

impl<T: Keyed, S: Side<T>> Table<T, S> {
    // RANGE: `bits` is from 1 to 32, as callers of `Index::new` guarantee.
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
        // RANGE: The shift is less than 64, as `bits` is not 0. The mask leaves less than the
        // number of heads, a power of two.
        ((hash >> self.shift & !(NEAR - 1) | hash & (NEAR - 1)) as usize) & (self.heads.len() - 1)
    }

    fn stripe(&self, hash: u64) -> &IrqLock<()> {
        &self.stripes.locks[self.bucket(hash) % STRIPES]
    }

    /// Iterates over the entries of a bucket. `'g` is an RCU critical section, or a lock that keeps
    /// the entries linked.
    #[inline]
    fn iter<'g>(&self, hash: u64) -> Iter<'g, T, S> {
        Iter {
            next: self.heads[self.bucket(hash)].load(Acquire),
            side: PhantomData,
        }
    }

    /// Links `entry` as the first of its bucket.
    ///
    /// # Safety
    ///
    /// The caller holds the stripe of `entry`, which is valid and not linked on this side.
    unsafe fn link(&self, entry: *mut Entry<T>) {
        // SAFETY: Valid by the safety requirements.
        let this = unsafe { &*entry };
        let head = &self.heads[self.bucket(S::hash(this))];
        let first = head.load(Relaxed);
        S::next(this).store(first, Relaxed);
        // SAFETY: Protected by the stripe, which the caller holds.
        unsafe { *S::back(this).get() = head };
        if !first.is_null() {
            // SAFETY: Linked entries are valid. `first` is in the same bucket, so the same stripe
            // protects it.
            unsafe { *S::back(&*first).get() = S::next(this) };
        }
        // Release: readers that see the entry also see its content.
        head.store(entry, Release);
    }

    /// Unlinks `entry` from its bucket.
    ///
    /// # Safety
    ///
    /// The caller holds the stripe of `entry`, which is linked on this side.
    unsafe fn unlink(&self, entry: &Entry<T>) {
        let next = S::next(entry).load(Relaxed);
        // SAFETY: Protected by the stripe. The back pointer of a linked entry points to a head or
        // to the slot of a linked entry.
        let back = unsafe { &**S::back(entry).get() };
        back.store(next, Release);
        if !next.is_null() {
            // SAFETY: As in `link`.
            unsafe { *S::back(&*next).get() = back };
        }
        // SAFETY: As above.
        unsafe { *S::back(entry).get() = ptr::null() };
        // `next` is kept: readers may be at the entry until their grace period ends.
    }
}

/// Iterator over the entries of a bucket of the forward side, the newest first.
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

/// Iterator over the entries of a bucket of one side, the newest first.
struct Iter<'g, T, S> {
    next: *mut Entry<T>,
    side: PhantomData<(&'g Entry<T>, S)>,
}

impl<'g, T: Keyed + 'g, S: Side<T>> Iterator for Iter<'g, T, S> {
    type Item = &'g Entry<T>;

    #[inline]
    fn next(&mut self) -> Option<&'g Entry<T>> {
        // SAFETY: Entries are freed a grace period after they were unlinked, and `'g` is an RCU
        // critical section or the time for which the stripe is locked.
        let entry = unsafe { self.next.as_ref() }?;
        self.next = S::next(entry).load(Acquire);
        Some(entry)
    }
}

/// A hash table with two keys; see the [module](self).
///
/// # Examples
///
/// Inserts a `Donor`, which [`Keyed`] shows, looks it up by its number, and removes it.
///
/// ```ignore
/// let index = Index::<Donor>::new(8)?;
/// let donor = Donor { number: 7, donated: StripedCounter::default() };
/// index.insert_unless(donor, GFP_KERNEL, |old| old.number == 7)?;
///
/// let guard = rcu::read_lock();
/// let mut found = index.by_forward(&guard, hash(7));
/// if let Some(donor) = found.find(|donor| donor.number == 7) {
///     donor.donated.add(8);
///     index.remove(donor);
/// }
/// ```
pub struct Index<T: Keyed> {
    forward: Table<T, Forward>,
    reverse: Table<T, Reverse>,
}

// SAFETY: All accesses use RCU and the stripes; entries are `Send` and `Sync`, as `Keyed` requires.
unsafe impl<T: Keyed> Send for Index<T> {}
// SAFETY: As above.
unsafe impl<T: Keyed> Sync for Index<T> {}

impl<T: Keyed> Index<T> {
    /// Bytes of memory that an entry takes: kmalloc's sizes up to 128 are rounded up to a multiple
    /// of 32.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>().next_multiple_of(32);
    /// Bytes of an entry that a lookup reads. If they are at most 64, they can share a cache line.
    pub const LOOK_UP_BYTES: usize = core::mem::offset_of!(Entry<T>, forward_back);

    /// Creates an index with 2^`bits` buckets on each side. `bits` must be from 1 to 32. Process
    /// context. Fails with `ENOMEM`.
    ///
    /// # Panics
    ///
    /// With `CONFIG_RUST_OVERFLOW_CHECKS`: if `bits` is 64 or more. If `bits` is 0, each lookup and
    /// each insertion panics instead.
    pub fn new(bits: u32) -> Result<Self> {
        const {
            assert!(
                !core::mem::needs_drop::<T>(),
                "entries are freed, not dropped"
            )
        };
        // Two lock classes, so that lockdep can tell the sides apart and check the order between
        // them.
        let forward = try_pin_init!(Stripes {
            locks <- pin_init::pin_init_array_from_fn(
                |_| IrqLock::new((), FORWARD, static_lock_class!())),
        });
        let reverse = try_pin_init!(Stripes {
            locks <- pin_init::pin_init_array_from_fn(
                |_| IrqLock::new((), REVERSE, static_lock_class!())),
        });
        Ok(Self {
            forward: Table::new(bits, forward)?,
            reverse: Table::new(bits, reverse)?,
        })
    }

    /// Returns the bytes of memory that the index takes without entries.
    pub fn table_bytes(&self) -> usize {
        // RANGE: A size in memory.
        2 * (self.forward.heads.len() * size_of::<Slot<T>>() + size_of::<Stripes>())
    }

    /// Iterates over the entries in the bucket of the forward hash `hash`, the newest first.
    #[inline]
    pub fn by_forward<'g>(
        &'g self,
        _guard: &'g rcu::Guard,
        hash: u64,
    ) -> impl Iterator<Item = &'g Entry<T>> {
        self.forward.iter(hash)
    }

    /// Iterates over the entries in the bucket of the reverse hash `hash`, the newest first.
    #[inline]
    pub fn by_reverse<'g>(
        &'g self,
        _guard: &'g rcu::Guard,
        hash: u64,
    ) -> impl Iterator<Item = &'g Entry<T>> {
        self.reverse.iter(hash)
    }

    /// Inserts `value` unless `same` returns true for an entry in the bucket of its reverse hash.
    ///
    /// `same` runs with interrupts off, and never concurrently for one reverse hash. Returns
    /// whether `value` was inserted. Fails with `ENOMEM`.
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
        // The forward side first: code that finds the entry by the reverse key may add to it, and
        // code that then ends everything under the forward key must find the entry.
        {
            let _forward = self.forward.stripe(forward).lock();
            // SAFETY: The stripe of the forward side is held, and the entry is not linked yet.
            unsafe { self.forward.link(entry) };
        }
        // SAFETY: The stripe of the reverse side is held, and the entry is not linked on this side
        // yet. It can't have been removed meanwhile, as removal takes the stripe of the reverse
        // side.
        unsafe { self.reverse.link(entry) };
        Ok(true)
    }

    /// Removes `entry`, unless it was removed before. Returns whether this call removed it.
    ///
    /// Readers that are in an RCU critical section may go on using the entry.
    pub fn remove(&self, entry: &Entry<T>) -> bool {
        {
            let _reverse = self.reverse.stripe(entry.reverse()).lock();
            // SAFETY: Protected by the stripe, which is held.
            if unsafe { *entry.reverse_back.get() }.is_null() {
                return false;
            }
            // SAFETY: The stripe is held, and the entry is linked.
            unsafe { self.reverse.unlink(entry) };
            let _forward = self.forward.stripe(entry.forward()).lock();
            // SAFETY: As above.
            unsafe { self.forward.unlink(entry) };
        }
        // SAFETY: The entry is not linked any more and was allocated by `KBox::new`. The caller's
        // reference is that of an RCU reader. The check above ensures that this runs once for each
        // entry.
        unsafe {
            bindings::kvfree_call_rcu(entry.rcu.get(), ptr::from_ref(entry).cast_mut().cast())
        };
        true
    }

    /// Calls `visit` with each non-empty chain of the forward side, for `places` buckets from
    /// number `from` on, until `visit` returns false. Process context.
    ///
    /// Returns the number of the next bucket, or `None` after the last bucket. Every entry that
    /// stays linked during the walk is visited.
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

    /// Calls `visit` with every entry that stays linked during the walk. Process context.
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
                // SAFETY: `&mut self` excludes other accesses. Linked entries are valid and were
                // allocated by `KBox::new`.
                let entry = unsafe { KBox::from_raw(next) };
                next = entry.reverse.load(Relaxed);
                // RANGE: All entries fit in memory.
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
        // 2 and 64 buckets, so that long and short chains are tested.
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
        // Readable until the guard is dropped.
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
