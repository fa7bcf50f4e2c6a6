// SPDX-License-Identifier: GPL-2.0

//! `drrctl watch`: whether it runs, and whether its configuration can be read; and whether `drrctl
//! upgrade` was interrupted.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::commands::doctor::host::Host;
use crate::commands::doctor::report::Finding;
use crate::commands::upgrade::devices::names;
use crate::commands::upgrade::journal;
use crate::commands::watch::config::{self, Config};
use crate::device_mapper::runtime;
use crate::error::Code;

/// Returns the number of the process that holds the lock of `watch`. A line of /proc/locks is
/// "N: FLOCK ADVISORY WRITE PROCESS MAJOR:MINOR:INODE START END".
fn process(host: &Host) -> Option<u32> {
    let file = fs::metadata(host.path(runtime::WATCH)).ok()?;
    let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.ino());
    host.text("/proc/locks")?.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, process, place, ..] if place == wanted => process.parse().ok(),
            _ => None,
        }
    })
}

/// Returns a finding if an `upgrade` was interrupted.
pub fn upgrade(host: &Host) -> Option<Finding> {
    let devices = journal::parse(&host.text(journal::PATH)?).unwrap_or_default();
    Some(Finding::warn(
        "upgrade",
        format!(
            "one was interrupted; these may be without drr: {}",
            names(&devices)
        ),
        "drrctl upgrade",
    ))
}

/// Checks `watch`.
pub fn look(host: &Host) -> Finding {
    const CHECK: &str = "watch";
    let process = process(host);
    let runs = match process {
        Some(process) => format!("drrctl watch runs, as process {process}"),
        None => "drrctl watch doesn't run".to_string(),
    };
    match (process, Config::read(&host.path(config::PATH))) {
        (Some(_), Ok(config)) if config.has_pools() => Finding::ok(CHECK, runs),
        (Some(_), Ok(_)) => Finding::warn(
            CHECK,
            format!("{runs}, and no pools are configured"),
            format!(
                "name some in {}, and: systemctl reload drrctl-watch",
                config::PATH
            ),
        ),
        (None, Ok(config)) if config.has_pools() => Finding::warn(
            CHECK,
            format!("{runs}, though pools are configured"),
            "systemctl enable --now drrctl-watch",
        ),
        // It may have been started with another file.
        (_, Err(error)) if error.code == Code::NotThere => Finding::ok(CHECK, runs),
        (None, Ok(_)) => Finding::ok(CHECK, format!("{runs}, and no pools are configured")),
        (_, Err(error)) => Finding::warn(
            CHECK,
            format!("{runs}: {}: {}", error.what(), error.why()),
            error.remedy(),
        ),
    }
}
