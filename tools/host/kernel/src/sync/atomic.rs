// SPDX-License-Identifier: GPL-2.0

//! Atomics with the kernel's orderings.
//!
//! `Full` is a full memory barrier before and after the operation. C11 has no such operation: it
//! is one with `AcqRel` between two `SeqCst` fences. Where the kernel's model orders more than
//! C11's, as by address dependencies, this is the weaker one, so what holds here holds there.

#[cfg(loom)]
use loom::sync::atomic as imp;
#[cfg(not(loom))]
use std::sync::atomic as imp;

use imp::{fence, Ordering as Order};

/// An ordering.
pub trait Ordering {
    /// For a load.
    const LOAD: Order;
    /// For a store.
    const STORE: Order;
    /// For an operation that does both.
    const BOTH: Order;
    /// Fences around the operation.
    const FULL: bool = false;
}

macro_rules! ordering {
    ($name:ident, $load:ident, $store:ident, $both:ident, $full:literal, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy)]
        pub struct $name;

        impl Ordering for $name {
            const LOAD: Order = Order::$load;
            const STORE: Order = Order::$store;
            const BOTH: Order = Order::$both;
            const FULL: bool = $full;
        }
    };
}

ordering!(Relaxed, Relaxed, Relaxed, Relaxed, false, "Not ordered.");
ordering!(
    Acquire,
    Acquire,
    Relaxed,
    Acquire,
    false,
    "Before what follows."
);
ordering!(
    Release,
    Relaxed,
    Release,
    Release,
    false,
    "After what precedes."
);
ordering!(
    Full,
    Acquire,
    Release,
    AcqRel,
    true,
    "A full barrier on both sides."
);

/// What can be atomic.
pub trait AtomicType: Copy {
    /// The atomic.
    type Cell;
    /// Makes one.
    fn cell(value: Self) -> Self::Cell;
    /// Loads.
    fn load(cell: &Self::Cell, order: Order) -> Self;
    /// Stores.
    fn store(cell: &Self::Cell, value: Self, order: Order);
    /// Compares and exchanges.
    fn exchange(cell: &Self::Cell, old: Self, new: Self, order: Order) -> Result<Self, Self>;
}

/// What can be counted with.
pub trait AtomicAdd: AtomicType {
    /// Adds, and returns what was there.
    fn fetch_add(cell: &Self::Cell, value: Self, order: Order) -> Self;
}

macro_rules! atomic_type {
    ($type:ty, $cell:ident $(, $generic:ident)?) => {
        impl$(<$generic>)? AtomicType for $type {
            type Cell = imp::$cell$(<$generic>)?;

            fn cell(value: Self) -> Self::Cell {
                imp::$cell::new(value)
            }

            #[inline]
            fn load(cell: &Self::Cell, order: Order) -> Self {
                cell.load(order)
            }

            #[inline]
            fn store(cell: &Self::Cell, value: Self, order: Order) {
                cell.store(value, order);
            }

            #[inline]
            fn exchange(
                cell: &Self::Cell,
                old: Self,
                new: Self,
                order: Order,
            ) -> Result<Self, Self> {
                cell.compare_exchange(old, new, order, Order::Relaxed)
            }
        }
    };
}

macro_rules! atomic_number {
    ($type:ty, $cell:ident) => {
        atomic_type!($type, $cell);

        impl AtomicAdd for $type {
            #[inline]
            fn fetch_add(cell: &Self::Cell, value: Self, order: Order) -> Self {
                cell.fetch_add(value, order)
            }
        }
    };
}

atomic_number!(u32, AtomicU32);
atomic_number!(u64, AtomicU64);
atomic_type!(bool, AtomicBool);
atomic_type!(*mut T, AtomicPtr, T);

/// An atomic value.
pub struct Atomic<T: AtomicType>(T::Cell);

impl<T: AtomicType> Atomic<T> {
    /// Makes one.
    pub fn new(value: T) -> Self {
        Self(T::cell(value))
    }

    /// Loads it.
    #[inline]
    pub fn load<O: Ordering>(&self, _order: O) -> T {
        T::load(&self.0, O::LOAD)
    }

    /// Stores to it.
    #[inline]
    pub fn store<O: Ordering>(&self, value: T, _order: O) {
        T::store(&self.0, value, O::STORE);
    }

    /// Exchanges it if it is `old`; returns what it was. Not ordered if it fails.
    #[inline]
    pub fn cmpxchg<O: Ordering>(&self, old: T, new: T, _order: O) -> Result<T, T> {
        around::<O, _>(|| T::exchange(&self.0, old, new, O::BOTH))
    }
}

impl<T: AtomicAdd> Atomic<T> {
    /// Adds to it.
    #[inline]
    pub fn add(&self, value: T, _order: Relaxed) {
        T::fetch_add(&self.0, value, Order::Relaxed);
    }

    /// Adds to it; returns what it was.
    #[inline]
    pub fn fetch_add<O: Ordering>(&self, value: T, _order: O) -> T {
        around::<O, _>(|| T::fetch_add(&self.0, value, O::BOTH))
    }
}

#[inline]
fn around<O: Ordering, R>(operation: impl FnOnce() -> R) -> R {
    if O::FULL {
        fence(Order::SeqCst);
    }
    let result = operation();
    if O::FULL {
        fence(Order::SeqCst);
    }
    result
}
