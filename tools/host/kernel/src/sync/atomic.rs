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
    #[cfg(loom)]
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

            #[cfg(loom)]
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
#[cfg(loom)]
pub struct Atomic<T: AtomicType> {
    initial: T,
    cell: core::cell::OnceCell<T::Cell>,
}

#[cfg(loom)]
std::thread_local! {
    static LAZY: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

/// Makes something whose atomics are made for loom only when they are used first.
///
/// loom's atomics are costly to make, and of those in a large table few are used. But loom wants an atomic to be made
/// before all uses, so a model has to use what its threads share before it makes them; it fails if it doesn't.
#[cfg(loom)]
pub fn lazily<T>(new: impl Fn() -> T) -> T {
    LAZY.set(true);
    let made = new();
    LAZY.set(false);
    made
}

// SAFETY: All of a model's threads are one of the machine's, and none gives way while a cell is made.
#[cfg(loom)]
unsafe impl<T: AtomicType> Send for Atomic<T> where T::Cell: Send {}
// SAFETY: As above.
#[cfg(loom)]
unsafe impl<T: AtomicType> Sync for Atomic<T> where T::Cell: Sync {}

/// An atomic value.
///
/// # Invariants
///
/// The cell is only used as a `T::Cell`, which has the layout of a `T`.
#[cfg(not(loom))]
pub struct Atomic<T: AtomicType>(core::cell::UnsafeCell<T>);

// SAFETY: It is used as a `T::Cell`.
#[cfg(not(loom))]
unsafe impl<T: AtomicType> Send for Atomic<T> where T::Cell: Send {}
// SAFETY: As above.
#[cfg(not(loom))]
unsafe impl<T: AtomicType> Sync for Atomic<T> where T::Cell: Sync {}

impl<T: AtomicType> Atomic<T> {
    /// Makes one.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        let this = Self {
            initial: value,
            cell: core::cell::OnceCell::new(),
        };
        if !LAZY.get() {
            this.cell();
        }
        this
    }

    /// Makes one.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        const {
            assert!(size_of::<T>() == size_of::<T::Cell>());
            assert!(align_of::<T>() == align_of::<T::Cell>());
        }
        Self(core::cell::UnsafeCell::new(value))
    }

    #[cfg(loom)]
    fn cell(&self) -> &T::Cell {
        self.cell.get_or_init(|| T::cell(self.initial))
    }

    #[cfg(not(loom))]
    #[inline]
    fn cell(&self) -> &T::Cell {
        // SAFETY: By the type invariant.
        unsafe { &*self.0.get().cast() }
    }

    /// Loads it.
    #[inline]
    pub fn load<O: Ordering>(&self, _order: O) -> T {
        T::load(self.cell(), O::LOAD)
    }

    /// Stores to it.
    #[inline]
    pub fn store<O: Ordering>(&self, value: T, _order: O) {
        T::store(self.cell(), value, O::STORE);
    }

    /// Exchanges it if it is `old`; returns what it was. Not ordered if it fails.
    #[inline]
    pub fn cmpxchg<O: Ordering>(&self, old: T, new: T, _order: O) -> Result<T, T> {
        around::<O, _>(|| T::exchange(self.cell(), old, new, O::BOTH))
    }
}

impl<T: AtomicAdd> Atomic<T> {
    /// Adds to it.
    #[inline]
    pub fn add(&self, value: T, _order: Relaxed) {
        T::fetch_add(self.cell(), value, Order::Relaxed);
    }

    /// Adds to it; returns what it was.
    #[inline]
    pub fn fetch_add<O: Ordering>(&self, value: T, _order: O) -> T {
        around::<O, _>(|| T::fetch_add(self.cell(), value, O::BOTH))
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
