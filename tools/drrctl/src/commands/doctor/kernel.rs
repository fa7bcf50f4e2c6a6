// SPDX-License-Identifier: GPL-2.0

//! The kernel: whether it is one that DRR is made for, and where drrctl runs.

use crate::commands::doctor::host::Host;
use crate::commands::doctor::modules::Modules;
use crate::commands::doctor::package::{supported, Supported};
use crate::commands::doctor::report::Finding;

/// Returns a finding if drrctl runs in a container, where it sees only a part of the host.
pub fn container(host: &Host) -> Option<Finding> {
    let kind = host.text("/run/systemd/container").or_else(|| {
        let marks = ["/.dockerenv", "/run/.containerenv"];
        let is_one = marks.iter().any(|mark| host.exists(mark));
        is_one.then(|| "docker or podman".to_string())
    })?;
    Some(Finding::warn(
        "place",
        format!("this is a container ({kind}), which sees a part of the host only"),
        "run drrctl doctor on the host",
    ))
}

/// Returns the kernel's configuration; `None` if it isn't there.
fn config(host: &Host) -> Option<String> {
    let release = &host.release;
    let paths = [
        format!("/lib/modules/{release}/config"),
        format!("/boot/config-{release}"),
    ];
    paths.iter().find_map(|path| host.text(path))
}

/// Returns whether the kernel's configuration is there.
pub fn has_configuration(host: &Host) -> bool {
    config(host).is_some()
}

/// Returns those of `options` that the kernel was built without; none if its configuration isn't
/// there.
pub fn lacks(host: &Host, options: &[&'static str]) -> Vec<&'static str> {
    let Some(config) = config(host) else {
        return Vec::new();
    };
    let is_set = |option: &str| {
        let mut lines = config.lines();
        lines.any(|line| line.strip_prefix(option) == Some("=y"))
    };
    let missing = options.iter().filter(|option| !is_set(option));
    missing.copied().collect()
}

/// Checks the kernel.
pub fn kernel(host: &Host, modules: &Modules) -> Finding {
    const CHECK: &str = "kernel";
    let arch = host.text("/proc/sys/kernel/arch");
    let mut kernel = match arch {
        Some(arch) if host.is_running => format!("{}, {arch}", host.release),
        _ => host.release.clone(),
    };
    if !host.is_running {
        kernel.push_str(", which isn't the running one");
    }
    let is_there = modules.drr.is_there() || modules.drr.loaded.is_some();
    match supported(host) {
        Supported::Yes => Finding::ok(CHECK, format!("{kernel}: supported")),
        _ if is_there => Finding::ok(CHECK, format!("{kernel}: dm-drr was built for it")),
        Supported::No(kernels) => Finding::fail(
            CHECK,
            format!("{kernel}: isn't supported"),
            format!("install {kernels} with its headers, from backports"),
        ),
        Supported::Unknown if !lacks(host, &["CONFIG_RUST"]).is_empty() => Finding::fail(
            CHECK,
            format!("{kernel}: was built without CONFIG_RUST"),
            "install one that Documentation/admin-guide/install.rst names",
        ),
        Supported::Unknown => Finding::ok(
            CHECK,
            format!("{kernel}; only dm-drr-dkms knows whether it is supported"),
        ),
    }
}
