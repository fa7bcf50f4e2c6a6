// SPDX-License-Identifier: GPL-2.0

//! A device-mapper target that passes all I/O on, as dm-linear does:
//! `START LENGTH passthrough DEVICE FIRST_SECTOR`

#![forbid(unsafe_code)]

use core::{convert::Infallible, fmt::Write, iter};
use dm::block::{bio::Bio, bio::Mapped, device::Device};
use dm::target::{status_buffer::StatusBuffer, Constructor, DeviceRange, StatusType, Target};
use kernel::{prelude::*, sync::Arc};

dm::module_target! {
    type: PassThrough,
    name: "dm_passthrough",
    authors: ["DRR developers"],
    description: "device-mapper target that hands all I/O on",
    license: "GPL v2",
}

struct PassThrough(Device, u64);

#[vtable]
impl Target for PassThrough {
    type PerBio = ();
    type InFlight = ();
    type Shared = ();
    type Reply = Infallible;

    const NAME: &'static CStr = c"passthrough";
    const VERSION: [u32; 3] = [1, 0, 0];

    fn new(ctor: &Constructor<'_>, _: &Arc<()>, args: &[&CStr]) -> Result<KBox<Self>> {
        let [path, first] = args else {
            return Err(ctor.fail(c"Two arguments are wanted: a device and a sector", EINVAL));
        };
        let first = first.to_str().ok().and_then(|first| first.parse().ok());
        let first = first.ok_or_else(|| ctor.fail(c"Invalid sector", EINVAL))?;
        let device = ctor.open(path)?;
        ctor.set_flush_bios(1);
        ctor.set_discard_bios(1);
        Ok(KBox::new(Self(device, first), GFP_KERNEL)?)
    }

    fn map<'a>(&'a self, bio: Bio<'a, Self>) -> Mapped {
        let sector = self.1.wrapping_add(bio.sector());
        bio.remap(self.0.bdev(), sector)
    }

    fn devices(&self, sectors: u64) -> impl Iterator<Item = DeviceRange<'_>> {
        iter::once(self.0.range(self.1, sectors))
    }

    fn status(&self, kind: StatusType, out: &mut StatusBuffer<'_>) -> Result {
        match kind {
            StatusType::Table => write!(out, "{} {}", self.0.name(), self.1).map_err(|_| EIO),
            _ => Ok(()),
        }
    }
}
