// SPDX-License-Identifier: GPL-2.0

//! Removes devices and tables that killed processes of drrctl have left behind.

use drr_dm::{Device, Flags, Line};

use crate::commands::attach::device::{only, second_of};
use crate::commands::attach::second::forget_links;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::SECOND;
use crate::device_mapper::requests::Audience;
use crate::device_mapper::runtime::{self, Lock};
use crate::error::{Code, Result};

/// Removes devices and tables that killed processes of drrctl have left behind, unless they are in
/// use. Returns the names of the devices concerned.
///
/// The caller holds the lock for changing devices, so no other process is working with these
/// devices. All devices are asked, as only the device itself tells of a loaded table.
pub fn clean_up(control: &Control, lock: &Lock) -> Result<Vec<String>> {
    runtime::forget_gone();
    forget_links();
    let (mut found, mut all_clean) = (Vec::new(), true);
    let devices: Vec<_> = control
        .devices()?
        .into_iter()
        .filter_map(|(name, _)| control.device(&name).ok())
        .collect();
    for device in devices.iter().filter(|device| device.staged) {
        let Ok(staged) = control.staged(&device.name) else {
            continue; // The device has gone.
        };
        if is_ours(&devices, device, &staged) {
            match control.clear(&device.name) {
                Ok(()) => found.push(device.name.clone()),
                Err(error) => all_clean &= error.code == Code::NotThere,
            }
        }
    }
    for device in devices {
        // `resize` was killed while the kernel swapped the tables. No other program suspends a
        // second device.
        if device.uuid.starts_with(SECOND) && device.suspended {
            let _ = control.resume(&device.name, Flags::NONE, Audience::Nobody);
            found.push(device.name.clone());
        }
        if device.uuid.starts_with(SECOND) && !device.open {
            control.remove_later(&device.name).or_else(|error| {
                // The device may be going by itself.
                (error.code == Code::NotThere).then_some(()).ok_or(error)
            })?;
            found.push(device.name);
        }
    }
    if all_clean {
        runtime::set_clean(lock);
    }
    Ok(found)
}

/// Calls [`clean_up`], unless all processes since the last call have noted that they left nothing
/// behind.
pub fn clean_up_if_need_be(control: &Control, lock: &Lock) -> Result<()> {
    runtime::forget_if_many();
    match runtime::is_clean(lock) {
        true => forget_links(),
        false => drop(clean_up(control, lock)?),
    }
    Ok(())
}

/// Returns whether a table that is loaded into `device` and not active is drrctl's. It is if it
/// belongs to a second device, or is on one. A thin table that equals that of the second device
/// below counts as drrctl's, too: `detach` loads it, and if another program has loaded it, clearing
/// it does no harm.
fn is_ours(devices: &[Device], device: &Device, staged: &[Line]) -> bool {
    let on_second = only(staged, "drr").is_some_and(|line| second_of(line).is_some());
    if on_second || device.uuid.starts_with(SECOND) {
        return true;
    }
    let below = only(&device.table, "drr").and_then(second_of);
    let second = devices.iter().find(|it| Some(&it.name) == below.as_ref());
    let thin = only(staged, "thin");
    thin.is_some() && thin == second.and_then(|second| only(&second.table, "thin"))
}
