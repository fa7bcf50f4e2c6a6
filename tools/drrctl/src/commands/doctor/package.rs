// SPDX-License-Identifier: GPL-2.0

//! The packages, and what DKMS has made of them.

use crate::commands::doctor::host::Host;
use crate::commands::doctor::modules::Modules;
use crate::commands::doctor::report::Finding;
use crate::device_mapper::inventory::natural;

/// What brings the modules.
const INSTALL: &str = "install the package dm-drr-dkms (Documentation/admin-guide/install.rst)";
/// The package's program that has DKMS build and install the modules.
const INSTALL_MODULES: &str = "/usr/libexec/dm-drr/install-modules";
/// Where DKMS keeps a folder for each version of the package.
const DKMS: &str = "/var/lib/dkms/dm-drr";

/// Returns the versions of dm-drr whose sources DKMS can build, the newest last.
fn sources(host: &Host) -> Vec<String> {
    let mut versions: Vec<_> = host
        .names("/usr/src")
        .iter()
        .filter_map(|name| name.strip_prefix("dm-drr-").map(str::to_string))
        .collect();
    versions.sort_by_key(|version| natural(version));
    versions
}

/// Returns the command that builds the modules for the kernel, if that hasn't been done, and
/// installs them.
fn build(host: &Host, version: &str) -> String {
    let release = &host.release;
    match host.exists(INSTALL_MODULES) {
        true => format!("{INSTALL_MODULES} {release}"),
        false => format!("dkms install dm-drr/{version} -k {release}"),
    }
}

/// Returns the remedy for modules that have to be built again. DKMS would install what it has built
/// before.
pub fn rebuild(host: &Host) -> String {
    match sources(host).last() {
        Some(version) => format!(
            "build it again: dkms unbuild dm-drr/{version} -k {} && {}",
            host.release,
            build(host, version)
        ),
        None => INSTALL.to_string(),
    }
}

/// Which kernels the package supports.
pub enum Supported {
    Yes,
    /// Not this one, but these.
    No(String),
    /// No package is installed that could tell.
    Unknown,
}

/// Looks whether the package supports the kernel. Its file has lines for a shell: SUPPORTED, a
/// regular expression of releases, and KERNELS, in words.
pub fn supported(host: &Host) -> Supported {
    let mut kernels = None;
    for version in sources(host) {
        let text = host.text(&format!("/usr/src/dm-drr-{version}/supported"));
        let text = text.unwrap_or_default();
        let value = |key: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(value.trim_matches('\''))
        };
        if let Some(expression) = value("SUPPORTED") {
            if host.matches(&host.release, expression) {
                return Supported::Yes;
            }
            kernels = Some(value("KERNELS").unwrap_or("another kernel").to_string());
        }
    }
    kernels.map_or(Supported::Unknown, Supported::No)
}

/// Takes a line of the package's apart, "dm-drr: WHAT : REMEDY".
fn parts(line: &str) -> Option<(String, String)> {
    let (what, remedy) = line.strip_prefix("dm-drr: ")?.split_once(" : ")?;
    Some((what.to_string(), remedy.to_string()))
}

/// Returns the last line of the package's in the log of a build for this kernel that failed.
fn failed_build(host: &Host, version: &str) -> Option<(String, String)> {
    let path = format!("{DKMS}/{version}/build/make.log");
    let log = host.text(&path)?;
    // The first line names the kernel.
    let first = log.lines().next().unwrap_or_default();
    if first.contains("for kernel ") && !first.contains(&format!("for kernel {} ", host.release)) {
        return None;
    }
    let line = log.lines().rev().find_map(parts);
    Some(line.unwrap_or_else(|| ("the build failed".to_string(), format!("read {path}"))))
}

/// Returns why there are no modules for the kernel, and the remedy.
pub fn why_missing(host: &Host) -> (String, String) {
    let versions = sources(host);
    let Some(version) = versions.last() else {
        let why = "dm-drr-dkms isn't installed".to_string();
        return (why, INSTALL.to_string());
    };
    if let Supported::No(kernels) = supported(host) {
        let why = "this kernel isn't supported".to_string();
        return (why, format!("install {kernels} with its headers"));
    }
    let check = format!("/usr/src/dm-drr-{version}/build-modules");
    let check = host.path(&check);
    let says = host
        .run(&check.to_string_lossy(), &["--check", &host.release])
        .filter(|ran| !ran.ok);
    says.and_then(|ran| ran.err.lines().rev().find_map(parts))
        .or_else(|| failed_build(host, version))
        .unwrap_or_else(|| ("they haven't been built".to_string(), build(host, version)))
}

/// Returns the version of an installed package.
fn version(host: &Host, package: &str) -> Option<String> {
    let format = "${db:Status-Status} ${Version}";
    let text = host.printed("dpkg-query", &["-W", "-f", format, package])?;
    text.strip_prefix("installed ").map(str::to_string)
}

/// Checks the packages.
pub fn packages(host: &Host, modules: &Modules) -> Vec<Finding> {
    const CHECK: &str = "package";
    let (tool, dkms) = (version(host, "drrctl"), version(host, "dm-drr-dkms"));
    let program = env!("CARGO_PKG_VERSION");
    let tool_is = match &tool {
        Some(version) => format!("drrctl {program}, of the package {version}"),
        None => format!("drrctl {program}, of no package"),
    };
    let mut findings = vec![Finding::ok(CHECK, tool_is)];
    findings.push(match (&tool, &dkms) {
        (Some(tool), Some(dkms)) if tool != dkms => Finding::warn(
            CHECK,
            format!("dm-drr-dkms {dkms} is of another version than drrctl"),
            "install both of one version",
        ),
        (_, Some(dkms)) => Finding::ok(CHECK, format!("dm-drr-dkms {dkms}")),
        (_, None) if modules.drr.is_there() || modules.drr.loaded.is_some() => Finding::ok(
            CHECK,
            "dm-drr-dkms isn't installed; dm-drr is there without it",
        ),
        (_, None) => Finding::warn(CHECK, "dm-drr-dkms isn't installed", INSTALL),
    });
    findings
}

/// Checks what DKMS says of the kernel, if the package is there.
pub fn dkms(host: &Host, modules: &Modules) -> Option<Finding> {
    const CHECK: &str = "dkms";
    let newest = sources(host).pop()?;
    let Some(status) = host.printed("dkms", &["status", "-m", "dm-drr"]) else {
        let remedy = "run 'dkms status dm-drr', as root, and see what it says";
        return Some(Finding::warn(CHECK, "dkms can't be asked", remedy));
    };
    // "dm-drr/VERSION, RELEASE, ARCHITECTURE: STATE", or "dm-drr/VERSION: added"
    let wanted = format!(", {}, ", host.release);
    let lines: Vec<_> = status.lines().filter(|it| it.contains(&wanted)).collect();
    let installed = lines.iter().find(|line| line.ends_with(": installed"));
    Some(match installed.or(lines.last()) {
        Some(line) if installed.is_some() => Finding::ok(CHECK, *line),
        // DKMS warns behind the state if another file is in the place of the one that it has built.
        Some(line) if line.contains("WARNING") => Finding::warn(CHECK, *line, rebuild(host)),
        Some(line) => Finding::warn(CHECK, *line, build(host, &newest)),
        None => {
            let found = format!("nothing is built for {}", host.release);
            match modules.drr.is_there() {
                true => Finding::ok(CHECK, found),
                false => {
                    let (why, remedy) = why_missing(host);
                    Finding::warn(CHECK, format!("{found}: {why}"), remedy)
                }
            }
        }
    })
}
