// SPDX-License-Identifier: GPL-2.0

//! Names of layers: a thin id for as long as the layer exists, and a serial number for good.

use kernel::prelude::*;

/// A thin device of any pool: the pool's number and the thin id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ThinId(u64);

impl ThinId {
    /// Bits of a thin id.
    const THIN_ID_BITS: u32 = 24;

    /// Returns the thin device `thin_id` of `pool`.
    pub(crate) fn new(pool: u64, thin_id: u32) -> Self {
        // RANGE: Pools are numbered from 1 on: 2^40 are never made.
        Self(pool << Self::THIN_ID_BITS | u64::from(thin_id))
    }

    /// Converts to a number, for an atomic.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// Converts back from [`Self::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the number of the pool.
    pub(crate) fn pool(self) -> u64 {
        self.0 >> Self::THIN_ID_BITS
    }

    /// Returns the thin id.
    pub(crate) fn thin_id(self) -> u32 {
        // CAST: 24 bits.
        (self.0 & ((1 << Self::THIN_ID_BITS) - 1)) as u32
    }
}

/// A serial number: names a layer for as long as the module is loaded. 0 is none.
pub(crate) type Serial = u32;

/// A layer in figures and records, which may be deleted by the time these are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LayerId {
    /// The layer's serial number; 0 if the layer isn't known, as there was no memory for it.
    pub(crate) serial: Serial,
    /// The layer's thin id, for printing; the pool may have given it to another layer by then.
    pub(crate) thin_id: u32,
}

impl LayerId {
    /// Converts to a number, for an atomic.
    pub(crate) fn to_bits(self) -> u64 {
        // RANGE: Both halves are `u32`s.
        u64::from(self.serial) << 32 | u64::from(self.thin_id)
    }

    /// Converts back from [`Self::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            // CAST: The halves.
            serial: (bits >> 32) as Serial,
            thin_id: bits as u32,
        }
    }

    /// Returns the layer, or [`None`] if its serial number isn't known.
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
