// SPDX-License-Identifier: GPL-2.0

//! Device-mapper and its devices: requests, events, the inventory of devices, and the state that
//! drrctl keeps in /run.

pub mod control;
pub mod inventory;
pub mod requests;
pub mod runtime;
pub mod uevent;
pub mod with_udev;
pub mod without_udev;
