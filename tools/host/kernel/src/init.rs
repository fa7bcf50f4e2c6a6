// SPDX-License-Identifier: GPL-2.0

//! Initialisers. Nothing here minds being moved, so a value is made and then put in its place.

use crate::error::{Error, Result};

/// Makes a value.
pub trait PinInit<T, E = Error> {
    /// Makes it.
    fn make(self) -> Result<T, E>;
}

impl<T, E, F: FnOnce() -> Result<T, E>> PinInit<T, E> for F {
    fn make(self) -> Result<T, E> {
        self()
    }
}

/// Makes an array.
pub fn pin_init_array_from_fn<T, E, I: PinInit<T, E>, const N: usize>(
    mut make: impl FnMut(usize) -> I,
) -> impl PinInit<[T; N], E> {
    move || {
        let values: Result<Vec<T>, E> = (0..N).map(|at| make(at).make()).collect();
        Ok(values?
            .try_into()
            .unwrap_or_else(|_| unreachable!("N values")))
    }
}

/// Allocates and initialises.
pub trait InPlaceInit<T>: Sized {
    /// Fails with what the initialiser fails with.
    fn pin_init(init: impl PinInit<T>, flags: crate::alloc::Flags) -> Result<core::pin::Pin<Self>>;
}

/// A structure's initialiser.
#[macro_export]
macro_rules! pin_init {
    ($($what:tt)*) => { $crate::try_pin_init!($($what)*) };
}

/// A structure's initialiser.
#[macro_export]
macro_rules! try_pin_init {
    (@value $field:ident) => { $field };
    (@value $field:ident $init:expr) => { $crate::init::PinInit::make($init)? };
    ($name:ident { $($field:ident $(<- $init:expr)?),* $(,)? }) => {
        move || {
            Ok::<_, $crate::error::Error>($name {
                $($field: $crate::try_pin_init!(@value $field $($init)?)),*
            })
        }
    };
}

/// A lock's class, for lockdep: there is none here.
#[macro_export]
macro_rules! static_lock_class {
    () => {
        ()
    };
}
