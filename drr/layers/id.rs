// SPDX-License-Identifier: GPL-2.0

//! What names a layer: its thin id while it is there, a serial number for good.

use kernel::prelude::*;

/// A thin device of a pool, among all pools: the pool's number and the thin id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ThinId(u64);

impl ThinId {
    /// Thin ids have 24 bits.
    const THIN_ID_BITS: u32 = 24;

    /// The thin device `thin_id` of `pool`.
    pub(crate) fn new(pool: u64, thin_id: u32) -> Self {
        // RANGE: Pools are numbered from 1 on: 2^40 are never made.
        Self(pool << Self::THIN_ID_BITS | u64::from(thin_id))
    }

    /// As a number, for an atomic.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// From [`Self::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The pool.
    pub(crate) fn pool(self) -> u64 {
        self.0 >> Self::THIN_ID_BITS
    }

    /// The thin id.
    pub(crate) fn thin_id(self) -> u32 {
        // CAST: 24 bits.
        (self.0 & ((1 << Self::THIN_ID_BITS) - 1)) as u32
    }
}

/// A serial number: names a layer for as long as the module is loaded. 0 is none.
pub(crate) type Serial = u32;

/// A layer in figures and records: one that may be gone by the time they are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LayerId {
    /// 0 if there was no memory to know it.
    pub(crate) serial: Serial,
    /// For those who read the figures; the layer may be gone then.
    pub(crate) thin_id: u32,
}

impl LayerId {
    /// As a number, for an atomic.
    pub(crate) fn to_bits(self) -> u64 {
        // RANGE: Both halves are `u32`s.
        u64::from(self.serial) << 32 | u64::from(self.thin_id)
    }

    /// From [`Self::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            // CAST: The halves.
            serial: (bits >> 32) as Serial,
            thin_id: bits as u32,
        }
    }

    /// Nothing for a layer whose serial number isn't known.
    pub(crate) fn known(self) -> Option<Self> {
        (self.serial != 0).then_some(self)
    }
}

#[kunit_tests(drr_layer)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_two_pools_differ() -> Result {
        assert!(ThinId::new(1, 5) != ThinId::new(2, 5));
        assert!(ThinId::new(1, 5) != ThinId::new(1, 6));
        assert_eq!(ThinId::new(9, 0xff_ffff).thin_id(), 0xff_ffff);
        assert_eq!(
            ThinId::from_bits(ThinId::new(9, 1).to_bits()),
            ThinId::new(9, 1)
        );
        Ok(())
    }
}
