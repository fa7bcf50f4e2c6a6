// SPDX-License-Identifier: GPL-2.0

//! `doctor`: says what of DRR is installed, built, signed and loaded, what is missing, and the
//! remedy for each. It works, and says what it couldn't see, on a host without DRR, in a
//! container, and for users other than root.
//!
//! [`host`] has the files and programs of the host, [`report`] the findings. Each of the others has
//! checks: [`kernel`], [`package`], [`modules`] with [`module_file`], [`trust`] for signatures,
//! [`provider`] for dm-thin's interface, [`pools`] and [`watch`].

pub mod host;
pub mod kernel;
pub mod module_file;
pub mod modules;
pub mod package;
pub mod pools;
pub mod provider;
pub mod report;
#[cfg(test)]
pub mod tests;
pub mod trust;
pub mod watch;

use crate::commands::doctor::host::{programs, Host};
use crate::commands::doctor::modules::Modules;
use crate::commands::doctor::pools::Devices;
use crate::commands::doctor::report::Report;
use crate::error::{Code, Error, Result};
use crate::views::output::{print, print_json};

/// Examines the host, and prints the report. Fails if DRR can't be used.
pub fn run(release: Option<&str>, json: bool) -> Result<()> {
    let host = Host::new("/", release, &programs);
    let report = examine(&host, Devices::collect());
    match json {
        true => print_json(&report)?,
        false => print(report.lines().as_bytes())?,
    }
    match report.failed() {
        0 => Ok(()),
        failed => Err(Error::new(
            Code::Failed,
            "DRR",
            format!("can't be used here, as {failed} checks have failed"),
            "do what the lines with fail say",
        )),
    }
}

/// Examines a host. `devices` is what device-mapper tells of the running kernel.
fn examine(host: &Host, devices: Result<Devices>) -> Report {
    let modules = Modules::look(host);
    let provider = provider::provider(host, &modules);
    let mut checks = Vec::new();
    checks.extend(kernel::container(host));
    checks.push(kernel::kernel(host, &modules));
    checks.extend(package::packages(host, &modules));
    checks.extend(package::dkms(host, &modules));
    checks.extend(modules::files(host, &modules));
    checks.extend(trust::look(host, &modules));
    if host.is_running {
        checks.extend(modules::what_is_loaded(&modules));
    }
    checks.push(provider::look(host, &modules, provider));
    checks.extend(provider::tracer(host, &modules, provider));
    let mut pools = Vec::new();
    if host.is_running {
        checks.extend(pools::look(&devices));
        pools = devices.map(|devices| devices.pools).unwrap_or_default();
        checks.push(watch::look(host));
        checks.extend(watch::upgrade(host));
    }
    Report::new(&host.release, provider, pools, checks)
}
