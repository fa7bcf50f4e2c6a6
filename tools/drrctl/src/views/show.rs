// SPDX-License-Identifier: GPL-2.0

//! The output of `list` and `status`: tables for users, and JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::answers::status::Status;
use crate::device_mapper::inventory::DrrDevice;
use crate::views::units::{percent, short_mib};

#[derive(Serialize)]
pub struct ListJson<'a> {
    version: u32,
    devices: Vec<DeviceJson<'a>>,
}

#[derive(Serialize)]
struct DeviceJson<'a> {
    name: &'a str,
    device: &'a str,
    sectors: u64,
    thin_device: Option<&'a str>,
    thin_id: Option<u64>,
    pool: Option<&'a str>,
    attached: bool,
    features: &'a [String],
}

#[derive(Serialize)]
pub struct StatusJson<'a> {
    version: u32,
    devices: Vec<DeviceStatusJson<'a>>,
}

#[derive(Serialize)]
struct DeviceStatusJson<'a> {
    #[serde(flatten)]
    device: DeviceJson<'a>,
    disk_sectors: u64,
    hit_rate: Option<f64>,
    status: &'a Status,
}

fn device_json(device: &DrrDevice) -> DeviceJson<'_> {
    DeviceJson {
        name: &device.name,
        device: &device.number,
        sectors: device.sectors,
        thin_device: device.thin.as_deref(),
        thin_id: device.thin_id,
        pool: device.pool.as_deref(),
        attached: device.attached,
        features: &device.table.features,
    }
}

/// Returns the answer to `list --json`.
pub fn list_json(devices: &[DrrDevice]) -> ListJson<'_> {
    ListJson {
        version: 1,
        devices: devices.iter().map(device_json).collect(),
    }
}

/// Returns the answer to `status --json`.
pub fn status_json<'a>(devices: &'a [(&'a DrrDevice, Status)]) -> StatusJson<'a> {
    StatusJson {
        version: 1,
        devices: devices
            .iter()
            .map(|(device, status)| DeviceStatusJson {
                device: device_json(device),
                disk_sectors: status.disk_sectors(),
                hit_rate: status.hit_rate(),
                status,
            })
            .collect(),
    }
}

/// Draws a table with columns as wide as their longest cell. The first `left` columns are aligned
/// to the left, the others to the right.
pub fn columns(rows: &[Vec<String>], left: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|at| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[at] - cell.chars().count());
            if at > 0 {
                line.push_str("  ");
            }
            if at < left {
                line.push_str(cell);
                line.push_str(&padding);
            } else {
                line.push_str(&padding);
                line.push_str(cell);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

/// Draws the answer to `list`.
pub fn list(devices: &[DrrDevice]) -> String {
    let heading = ["NAME", "THIN DEVICE", "ID", "POOL", "MIB", "FEATURES"];
    let mut rows = vec![heading.map(str::to_string).to_vec()];
    for device in devices {
        rows.push(vec![
            device.name.clone(),
            match device.attached {
                true => "(attached)".to_string(),
                false => or_dash(device.thin.as_ref()),
            },
            or_dash(device.thin_id),
            or_dash(device.pool.as_ref()),
            short_mib(device.sectors),
            match &device.table.features[..] {
                [] => "-".to_string(),
                features => features.join(","),
            },
        ]);
    }
    columns(&rows, usize::MAX)
}

/// Lists the reasons that have occurred and their counts, the most frequent first.
pub fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let mut reasons: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    if reasons.is_empty() {
        return "-".to_string();
    }
    reasons
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Draws the answer to `status`.
pub fn status(devices: &[(&DrrDevice, Status)]) -> String {
    let heading = [
        "NAME",
        "HIT RATE",
        "DISK MIB",
        "DRR MIB",
        "DONATED MIB",
        "READS",
        "HITS",
        "MISSES",
    ];
    let mut rows = vec![heading.map(str::to_string).to_vec()];
    for (device, status) in devices {
        rows.push(vec![
            device.name.clone(),
            percent(status.hit_rate()),
            short_mib(status.disk_sectors()),
            short_mib(status.hit_sectors),
            short_mib(status.donated_sectors),
            status.reads.to_string(),
            status.hits.to_string(),
            status.reads.saturating_sub(status.hits).to_string(),
        ]);
    }
    let mut text = columns(&rows, 1);
    let mut why = vec![vec!["MISSES".to_string(), "REASONS (READS)".to_string()]];
    let heading = ["DONORS", "WHOLE WRITES", "FOLLOWED MIB", "RECORDED MIB"];
    let mut rows = vec![heading.map(str::to_string).to_vec()];
    let proofs_heading = ["PAGES", "UNPROVEN", "COMPARED", "DIFFERED"];
    let mut proofs = vec![proofs_heading.map(str::to_string).to_vec()];
    let mut ends = vec![vec!["ENDED".to_string(), "REASONS (PAGES)".to_string()]];
    for (device, status) in devices {
        let name = || device.name.clone();
        why.push(vec![name(), reasons(&status.misses)]);
        rows.push(vec![
            name(),
            status.whole_writes.to_string(),
            short_mib(status.followed_sectors),
            short_mib(status.recorded_sectors),
        ]);
        proofs.push(vec![
            name(),
            status.unproven_pages.to_string(),
            status.compared_pages.to_string(),
            status.differed_pages.to_string(),
        ]);
        ends.push(vec![name(), reasons(&status.ended)]);
    }
    if !devices.is_empty() {
        for table in [
            columns(&why, 2),
            columns(&rows, 1),
            columns(&proofs, 1),
            columns(&ends, 2),
        ] {
            text.push('\n');
            text.push_str(&table);
        }
    }
    for (device, status) in devices {
        for fault in status.faults() {
            text.push_str(&format!("\n{}: {fault}; see the kernel log\n", device.name));
        }
        if status.limits.iter().any(|limit| limit == "disk_requests") {
            text.push_str(&format!(
                "\n{}: no whole writes: blocks are longer than the disk's requests\n",
                device.name
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::status::tests::{LINE, OLD_LINE};
    use crate::device_mapper::inventory::tests::sample;

    #[test]
    fn tables() {
        let inventory = sample();
        let text = list(&inventory.drr);
        assert!(
            text.contains("c2    t2           7   vg-pool-tpool  1.0  no_donate"),
            "{text}"
        );
        let text_of = |line: &str| {
            let status_of = Status::new("c2", line).expect("understood");
            status(&[(&inventory.drr[0], status_of)])
        };
        let text = text_of(LINE);
        assert!(text.contains("75.0%"), "{text}");
        assert!(text.contains("norecord 13, unshared 5, stale 2"), "{text}");
        assert!(text.contains("removed 40, changed 3, read 2"), "{text}");
        for figures in [["c2", "9", "0.50", "2.0"], ["c2", "6", "32", "0"]] {
            let has = |line: &str| line.split_whitespace().eq(figures);
            assert!(text.lines().any(has), "{text}");
        }
        assert!(!text.contains("kernel log"), "{text}");
        assert!(
            text.contains("c2: no whole writes: blocks are longer"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let text = text_of(&LINE.replace("differed_pages=0", "differed_pages=4"));
        assert!(text.contains("c2: pages that differed from an"), "{text}");
        let text = text_of(OLD_LINE);
        assert!(text.contains("norecord 12, unshared 5, busy 3"), "{text}");
    }

    #[test]
    fn json_is_what_the_schemas_say() {
        let inventory = sample();
        crate::schema::check("list", &list_json(&inventory.drr));
        let status_of = |line| Status::new("c2", line).expect("understood");
        let devices = [
            (&inventory.drr[0], status_of(LINE)),
            (&inventory.drr[1], status_of("- - thin=3 from=-")),
            (&inventory.drr[1], status_of(OLD_LINE)),
        ];
        crate::schema::check("status", &status_json(&devices));
    }
}
