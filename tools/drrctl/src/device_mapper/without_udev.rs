// SPDX-License-Identifier: GPL-2.0

//! Requests where no udev runs: plain ioctls.

use std::slice;

use drr_dm::{Control, Device, Flags, Line, Number, Version};

use crate::device_mapper::requests::{Asked, Audience, Requests};

/// Device-mapper's control device.
pub struct WithoutUdev(Control);

impl WithoutUdev {
    /// Opens the control device.
    pub fn new() -> Asked<Self> {
        Ok(Self(Control::open()?))
    }
}

impl Requests for WithoutUdev {
    fn targets(&self) -> Asked<Vec<(String, Version)>> {
        Ok(self.0.targets()?)
    }

    fn devices(&self, uuid: &str) -> Asked<Vec<(String, Number)>> {
        Ok(self.0.devices(uuid)?)
    }

    fn device(&self, name: &str) -> Asked<Device> {
        Ok(self.0.device(name)?)
    }

    fn lines(&self, name: &str, flags: Flags) -> Asked<Vec<Line>> {
        Ok(self.0.lines(name, flags)?)
    }

    fn message(&self, name: &str, message: &str) -> Asked<Option<String>> {
        Ok(self.0.message(name, message)?)
    }

    fn create(&self, name: &str, uuid: &str) -> Asked<Number> {
        Ok(self.0.create(name, uuid)?)
    }

    fn load(&self, name: &str, line: &Line, flags: Flags) -> Asked<()> {
        Ok(self.0.load(name, slice::from_ref(line), flags)?)
    }

    /// Resumes the device. The audience doesn't matter, as no udev runs.
    fn resume(&self, name: &str, flags: Flags, _: Audience) -> Asked<()> {
        Ok(self.0.resume(name, flags)?)
    }

    fn clear(&self, name: &str) -> Asked<()> {
        Ok(self.0.clear(name)?)
    }

    fn remove(&self, name: &str, flags: Flags) -> Asked<()> {
        Ok(self.0.remove(name, flags)?)
    }
}
