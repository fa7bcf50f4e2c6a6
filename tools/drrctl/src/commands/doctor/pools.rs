// SPDX-License-Identifier: GPL-2.0

//! Device-mapper: the target drr, the pools, and which of their thin devices have drr.

use std::collections::BTreeSet;

use drr_dm::Version;
use serde::Serialize;

use crate::answers::table;
use crate::commands::doctor::report::Finding;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::error::{Code, Error, Result};

/// A thin pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    pub name: String,
    /// As the pool's status has it: rw, ro, out_of_data_space, Fail or Error.
    pub mode: String,
    /// Active thin devices, by their ids in the pool.
    pub thin_devices: usize,
    /// How many of these are below a drr device.
    pub with_drr: usize,
}

/// What device-mapper tells.
pub struct Devices {
    /// `None` if the target drr isn't registered.
    pub target: Option<Version>,
    pub pools: Vec<Pool>,
}

impl Devices {
    /// Asks device-mapper.
    pub fn collect() -> Result<Self> {
        let control = Control::new()?;
        let inventory = Inventory::all(&control)?;
        let status = |name: &str| {
            let lines = control.status(name).unwrap_or_default();
            lines.into_iter().next().map(|line| line.arguments)
        };
        Ok(Self {
            target: control.drr_version()?,
            pools: pools(&inventory, status),
        })
    }
}

/// Returns the mode in a pool's status: `Fail` or `Error`, or `<transaction id> <metadata blocks>
/// <data blocks> <held root> <mode>...`.
fn mode(status: &str) -> String {
    let mut words = status.split(' ');
    let first = words.next().unwrap_or_default();
    words.nth(3).unwrap_or(first).to_string()
}

/// Returns the pools; `status` asks for the status of one.
fn pools(inventory: &Inventory, status: impl Fn(&str) -> Option<String>) -> Vec<Pool> {
    let of = |target: &str| {
        let target = target.to_string();
        inventory
            .nodes
            .iter()
            .filter_map(move |node| match &node.table[..] {
                [line] if line.target == target => Some((node, line)),
                _ => None,
            })
    };
    let mut pools = Vec::new();
    for (pool, _) in of("thin-pool") {
        let thins: BTreeSet<u64> = of("thin")
            .filter_map(|(_, line)| table::thin(&line.arguments))
            .filter(|(number, _)| *number == pool.number)
            .map(|(_, id)| id)
            .collect();
        let with_drr: BTreeSet<u64> = inventory
            .drr_of(&pool.name)
            .filter_map(|device| device.thin_id)
            .collect();
        pools.push(Pool {
            name: pool.name.clone(),
            mode: status(&pool.name).map_or_else(|| "unknown".to_string(), |text| mode(&text)),
            thin_devices: thins.len(),
            with_drr: with_drr.len(),
        });
    }
    pools
}

/// Checks what device-mapper has told.
pub fn look(devices: &Result<Devices>) -> Vec<Finding> {
    const CHECK: &str = "device-mapper";
    let devices = match devices {
        Ok(devices) => devices,
        Err(error) => return vec![unseen(error)],
    };
    let mut findings = vec![match devices.target {
        Some((major, minor, patch)) => {
            Finding::ok(CHECK, format!("has the target drr {major}.{minor}.{patch}"))
        }
        None => Finding::warn(CHECK, "doesn't have the target drr yet", "modprobe dm-drr"),
    }];
    if devices.pools.is_empty() {
        findings.push(Finding::ok("pool", "there is none"));
    }
    for pool in &devices.pools {
        let Pool {
            name,
            mode,
            thin_devices,
            with_drr,
        } = pool;
        let found =
            format!("{name}: {mode}, {thin_devices} active thin devices, {with_drr} with drr");
        findings.push(match mode.as_str() {
            "rw" => Finding::ok("pool", found),
            _ => Finding::warn("pool", found, format!("dmsetup status {name}, and dmesg")),
        });
    }
    findings
}

/// Returns the finding for devices that couldn't be asked for.
fn unseen(error: &Error) -> Finding {
    const CHECK: &str = "device-mapper";
    match error.code {
        Code::NotPermitted => Finding::warn(
            CHECK,
            "only root sees pools and devices",
            "run this as root, e.g. with sudo",
        ),
        Code::NotLoaded => Finding::warn(
            CHECK,
            "there is no /dev/mapper/control",
            "modprobe dm-drr; in a container, run this on the host",
        ),
        _ => Finding::fail(
            CHECK,
            format!("{}: {}", error.what(), error.why()),
            error.remedy(),
        ),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::device_mapper::inventory::tests::node;
    use crate::device_mapper::inventory::SECOND;

    #[test]
    fn thin_devices_are_counted_once() {
        let mut nodes = vec![
            node("pool", "253:2", "thin-pool", "253:0 253:1 128 0"),
            node("other", "253:9", "thin-pool", "253:0 253:1 128 0"),
            node("t1", "253:3", "thin", "253:2 1"),
            node("c1", "253:4", "drr", "253:3"),
            node("t2", "253:5", "drr", "253:6"),
            node("drr-t2", "253:6", "thin", "253:2 2"),
            node("t3", "253:7", "thin", "253:2 3"),
        ];
        nodes[5].uuid = format!("{SECOND}7-0");
        let inventory = Inventory::from_nodes(nodes);
        let found = pools(&inventory, |name| {
            (name == "pool").then(|| "0 4/1024 3/4096 - ro discard_passdown".to_string())
        });
        let pool = |name: &str, mode: &str, thin_devices, with_drr| Pool {
            name: name.into(),
            mode: mode.into(),
            thin_devices,
            with_drr,
        };
        assert_eq!(
            found,
            [pool("other", "unknown", 0, 0), pool("pool", "ro", 3, 2)]
        );
    }

    #[test]
    fn modes() {
        assert_eq!(mode("0 4/1024 3/4096 - rw no_discard_passdown"), "rw");
        assert_eq!(
            mode("0 4/1024 3/4096 - out_of_data_space x"),
            "out_of_data_space"
        );
        assert_eq!(mode("Fail"), "Fail");
    }

    #[test]
    fn what_cannot_be_seen_has_a_remedy() {
        let error = |code| Err(Error::new(code, "what", "why", "remedy"));
        for (code, wanted) in [
            (Code::NotPermitted, "run this as root"),
            (Code::NotLoaded, "modprobe dm-drr"),
            (Code::Failed, "remedy"),
        ] {
            let lines = look(&error(code));
            let remedy = lines[0].remedy.clone().unwrap_or_default();
            assert!(remedy.contains(wanted), "{remedy}");
        }
    }
}
