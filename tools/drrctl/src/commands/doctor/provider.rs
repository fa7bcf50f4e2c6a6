// SPDX-License-Identifier: GPL-2.0

//! The provider of dm-thin's interface for stacked targets, which DRR asks for mappings.

use std::fs::File;
use std::io::{BufRead, BufReader};

use serde::Serialize;

use crate::commands::doctor::host::Host;
use crate::commands::doctor::kernel::{has_configuration, lacks};
use crate::commands::doctor::module_file::{ModuleFile, INTERFACE};
use crate::commands::doctor::modules::{loaded, Module, Modules};
use crate::commands::doctor::package::{rebuild, why_missing};
use crate::commands::doctor::report::Finding;

const CHECK: &str = "provider";
/// What dm-thin-hooks needs of the kernel.
const TRACER: [&str; 3] = [
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_DYNAMIC_FTRACE_WITH_ARGS",
    "CONFIG_KPROBES",
];

/// A provider of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// dm-thin-hooks, for the kernel's own dm-thin-pool.
    Stock,
    /// A patched dm-thin-pool.
    Patched,
}

/// Returns the provider that is loaded.
pub fn provider(host: &Host, modules: &Modules) -> Option<Provider> {
    if modules.hooks.loaded.is_none() && modules.pool.loaded.is_none() {
        return None;
    }
    // Lines are "ADDRESS TYPE NAME", and "[MODULE]" where it isn't the kernel itself. Names are
    // shown to all users.
    let Ok(file) = File::open(host.path("/proc/kallsyms")) else {
        return guess(modules);
    };
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let module = lines.find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        (words.next() == Some(INTERFACE)).then(|| words.next().unwrap_or_default().to_string())
    })?;
    Some(match module.as_str() {
        "[dm_thin_hooks]" => Provider::Stock,
        _ => Provider::Patched,
    })
}

/// Returns the provider that is loaded, by what is loaded and what is on disk.
fn guess(modules: &Modules) -> Option<Provider> {
    let pool = &modules.pool;
    let patched = pool.file.as_ref().is_some_and(ModuleFile::has_interface);
    if modules.hooks.loaded.is_some() {
        Some(Provider::Stock)
    } else {
        (patched && pool.loaded.is_some() && !pool.is_outdated()).then_some(Provider::Patched)
    }
}

/// Returns whether dm-thin-hooks has left functions of dm-thin-pool as they are. Only root sees
/// which are redirected.
fn is_unhooked(host: &Host, modules: &Modules) -> bool {
    let functions = host.text("/sys/kernel/tracing/enabled_functions");
    let hooked = |text: String| text.contains("[dm_thin_pool]");
    modules.pool.loaded.is_some() && functions.is_some_and(|text| !hooked(text))
}

/// Returns the name of a module that `hooks` was made for another build of.
pub fn made_for_other(host: &Host, modules: &Modules, hooks: &ModuleFile) -> Option<&'static str> {
    // The file has the build ids of both, in hexadecimal digits.
    let is_other = |build_id: Option<String>| build_id.is_some_and(|id| !hooks.contains(&id));
    let of = |module: &Module| match &module.loaded {
        Some(loaded) => loaded.build_id.clone(),
        None => module.file.as_ref().and_then(ModuleFile::build_id),
    };
    let mapper = match loaded(host, "dm-mod") {
        Some(loaded) => loaded.build_id,
        None => of(&Module::look(host, "dm-mod")),
    };
    if is_other(of(&modules.pool)) {
        Some("dm-thin-pool")
    } else if is_other(mapper) {
        Some("dm-mod")
    } else {
        None
    }
}

/// Checks the provider: the one that is loaded, or else the one that would be.
pub fn look(host: &Host, modules: &Modules, provider: Option<Provider>) -> Finding {
    let pool = &modules.pool;
    let patched = pool.file.as_ref().is_some_and(ModuleFile::has_interface);
    match provider {
        Some(Provider::Stock) if is_unhooked(host, modules) => {
            return Finding::fail(
                CHECK,
                "dm-thin-hooks is loaded, but dm-thin-pool isn't hooked",
                "dmesg has the reason; then: modprobe -r dm-drr, modprobe dm-drr",
            )
        }
        Some(Provider::Stock) => {
            return Finding::ok(
                CHECK,
                "stock: dm-thin-hooks, on the kernel's own dm-thin-pool",
            )
        }
        Some(Provider::Patched) => return Finding::ok(CHECK, "patched: a dm-thin-pool of DRR's"),
        None => {}
    }
    if patched && pool.loaded.is_none() {
        return Finding::ok(CHECK, "patched, once dm-thin-pool is loaded");
    }
    if let (true, Some(hooks)) = (modules.hooks.is_there(), &modules.hooks.file) {
        if let Some(other) = made_for_other(host, modules, hooks) {
            return Finding::fail(
                CHECK,
                format!("dm-thin-hooks was made for another build of {other}"),
                rebuild(host),
            );
        }
    }
    if modules.hooks.is_there() {
        return match (&modules.drr.loaded, &modules.hooks.loaded) {
            (None, None) => Finding::ok(CHECK, "stock, once dm-drr and dm-thin-hooks are loaded"),
            _ => Finding::fail(
                CHECK,
                "dm-drr is loaded without dm-thin-hooks, or this without dm-thin-pool",
                "modprobe -a dm-thin-pool dm-thin-hooks; if that fails, dmesg has the reason",
            ),
        };
    }
    if patched {
        return Finding::fail(
            CHECK,
            "the dm-thin-pool that is loaded isn't the patched one on disk",
            "reboot; or deactivate all pools, modprobe -r dm-thin-pool, and activate them",
        );
    }
    let (why, remedy) = match modules.drr.is_there() {
        true => ("only dm-drr is installed".to_string(), rebuild(host)),
        false => why_missing(host),
    };
    Finding::fail(CHECK, format!("there is no dm-thin-hooks: {why}"), remedy)
}

/// Checks that functions can be traced, which dm-thin-hooks needs.
pub fn tracer(host: &Host, modules: &Modules, provider: Option<Provider>) -> Option<Finding> {
    const CHECK: &str = "ftrace";
    if provider == Some(Provider::Patched) || !modules.hooks.is_there() {
        return None;
    }
    let missing = lacks(host, &TRACER);
    if !missing.is_empty() {
        return Some(Finding::fail(
            CHECK,
            format!("the kernel was built without {}", missing.join(", ")),
            "use a kernel that has it, or the patched dm-thin-pool",
        ));
    }
    if !host.is_running {
        return None;
    }
    Some(
        match host.text("/proc/sys/kernel/ftrace_enabled").as_deref() {
            Some("1") => Finding::ok(CHECK, "functions can be traced"),
            Some(_) => Finding::fail(
                CHECK,
                "functions can't be traced, which dm-thin-hooks needs",
                "sysctl kernel.ftrace_enabled=1",
            ),
            // Newer kernels may do without this file, as it can't turn the tracer off any more.
            None if has_configuration(host) => Finding::ok(CHECK, "functions can be traced"),
            None => Finding::warn(
                CHECK,
                "whether functions can be traced, which dm-thin-hooks needs, can't be seen",
                "if modprobe dm-thin-hooks fails, dmesg has the reason",
            ),
        },
    )
}
