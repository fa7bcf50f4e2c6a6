// SPDX-License-Identifier: GPL-2.0

//! What a drrctl left behind that was killed.

use drr_dm::{Device, Flags, Line};

use crate::commands::attach::device::{only, second_of};
use crate::commands::attach::second::forget_links;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::SECOND;
use crate::device_mapper::requests::Audience;
use crate::device_mapper::runtime::{self, Lock};
use crate::error::{Code, Result};

/// Removes what a drrctl left behind that was killed; nothing that is in use. What it finds is
/// nobody's, as who makes it holds the lock. Returns the names of the devices concerned.
///
/// A loaded table is seen by asking its device only, so this asks all that there are.
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
            continue; // it's gone
        };
        if is_ours(&devices, device, &staged) {
            match control.clear(&device.name) {
                Ok(()) => found.push(device.name.clone()),
                Err(error) => all_clean &= error.code == Code::NotThere,
            }
        }
    }
    for device in devices {
        // a drrctl that was killed while the kernel swapped its tables, for `resize`; nobody else suspends it
        if device.uuid.starts_with(SECOND) && device.suspended {
            let _ = control.resume(&device.name, Flags::NONE, Audience::Nobody);
            found.push(device.name.clone());
        }
        if device.uuid.starts_with(SECOND) && !device.open {
            control.remove_later(&device.name).or_else(|error| {
                // it may be going by itself
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

/// The same, unless every drrctl since then has said that it left nothing.
pub fn clean_up_if_need_be(control: &Control, lock: &Lock) -> Result<()> {
    runtime::forget_if_many();
    match runtime::is_clean(lock) {
        true => forget_links(),
        false => drop(clean_up(control, lock)?),
    }
    Ok(())
}

/// A table that is loaded and not active: is it drrctl's? One of or on a second device is. One that
/// makes the device what the second below it is would change nothing that matters.
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
