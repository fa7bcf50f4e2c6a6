// SPDX-License-Identifier: GPL-2.0

//! The modules: their files for the kernel that is looked at, and what is loaded.

use crate::commands::doctor::host::Host;
use crate::commands::doctor::module_file::{build_id, find, folder, ModuleFile, Place};
use crate::commands::doctor::package::{rebuild, why_missing};
use crate::commands::doctor::report::Finding;

/// A module that is loaded.
pub struct Loaded {
    /// `None` if the kernel doesn't tell.
    pub build_id: Option<String>,
}

/// A module: its file, and whether it is loaded.
pub struct Module {
    pub name: &'static str,
    pub place: Place,
    /// `None` if there is no file, or if it can't be read.
    pub file: Option<ModuleFile>,
    pub loaded: Option<Loaded>,
}

/// Returns what is loaded under the name of a module; `None` if nothing is.
pub fn loaded(host: &Host, name: &str) -> Option<Loaded> {
    let folder = format!("/sys/module/{}", name.replace('-', "_"));
    if !host.is_running || !host.exists(&folder) {
        return None;
    }
    let note = host.bytes(&format!("{folder}/notes/.note.gnu.build-id"));
    Some(Loaded {
        build_id: build_id(&note.unwrap_or_default()),
    })
}

impl Module {
    pub fn look(host: &Host, name: &'static str) -> Self {
        let place = find(host, name);
        let file = match &place {
            Place::File(path) => ModuleFile::read(host, path),
            _ => None,
        };
        Self {
            name,
            place,
            file,
            loaded: loaded(host, name),
        }
    }

    /// Returns whether modprobe finds the module.
    pub fn is_there(&self) -> bool {
        matches!(self.place, Place::File(_) | Place::BuiltIn)
    }

    /// Returns whether another build of the module is loaded than that of the file.
    pub fn is_outdated(&self) -> bool {
        let loaded = self.loaded.as_ref().and_then(|it| it.build_id.as_ref());
        let file = self.file.as_ref().and_then(ModuleFile::build_id);
        loaded.zip(file).is_some_and(|(a, b)| *a != b)
    }
}

/// The modules that DRR consists of, or is loaded beside.
pub struct Modules {
    pub drr: Module,
    pub hooks: Module,
    pub pool: Module,
}

impl Modules {
    pub fn look(host: &Host) -> Self {
        Self {
            drr: Module::look(host, "dm-drr"),
            hooks: Module::look(host, "dm-thin-hooks"),
            pool: Module::look(host, "dm-thin-pool"),
        }
    }

    /// Returns whether `dm-thin-pool` isn't the kernel's own, but replaces it.
    pub fn pool_is_replaced(&self) -> bool {
        matches!(&self.pool.place, Place::File(path) if !path.starts_with("kernel/"))
    }
}

/// Checks the files.
pub fn files(host: &Host, modules: &Modules) -> Vec<Finding> {
    const CHECK: &str = "module";
    let folder = folder(host);
    if !host.exists(&folder) && modules.drr.loaded.is_none() {
        return vec![Finding::fail(
            CHECK,
            format!("there is no {folder}"),
            "install the kernel's package; in a container, run this on the host",
        )];
    }
    let mut findings = vec![file(host, &modules.drr)];
    if modules.hooks.place != Place::Nowhere {
        findings.push(file(host, &modules.hooks));
    }
    if modules.pool.place == Place::Nowhere && modules.pool.loaded.is_none() {
        findings.push(Finding::fail(
            CHECK,
            format!("dm-thin-pool isn't in {folder}"),
            "install the kernel's modules, or a kernel with CONFIG_DM_THIN_PROVISIONING",
        ));
    }
    if let (true, Place::File(path)) = (modules.pool_is_replaced(), &modules.pool.place) {
        let interface = match &modules.pool.file {
            Some(file) if file.has_interface() => "a patched one, or of an older dm-drr-dkms",
            Some(_) => "without what DRR needs of it",
            None => "and it can't be read",
        };
        findings.push(Finding::warn(
            CHECK,
            format!("{path} replaces the kernel's own dm-thin-pool: {interface}"),
            format!(
                "if that isn't meant: rm {folder}/{path}, depmod {}, reboot",
                host.release
            ),
        ));
    }
    findings
}

/// Checks the file of a module of DRR.
fn file(host: &Host, module: &Module) -> Finding {
    const CHECK: &str = "module";
    let (name, release) = (module.name, &host.release);
    let bad = |found: String, remedy: String| match module.loaded {
        Some(_) => Finding::warn(CHECK, format!("{found}; it is loaded, though"), remedy),
        None => Finding::fail(CHECK, found, remedy),
    };
    match (&module.place, &module.file) {
        (Place::BuiltIn, _) => Finding::ok(CHECK, format!("{name} is built into the kernel")),
        (Place::NotListed(path), _) => bad(
            format!("{path} is there, but modprobe doesn't know it"),
            format!("depmod {release}"),
        ),
        (Place::File(path), None) => Finding::warn(
            CHECK,
            format!("{path} can't be read"),
            "look at its permissions, and install xz-utils or zstd if it is compressed",
        ),
        (Place::File(path), Some(file)) => match file.release() {
            Some(built) if built != *release => bad(
                format!("{path} was built for kernel {built}"),
                rebuild(host),
            ),
            _ => Finding::ok(CHECK, format!("{name}: {path}")),
        },
        (Place::Nowhere, _) => {
            let (why, remedy) = why_missing(host);
            bad(format!("{name} isn't in {}: {why}", folder(host)), remedy)
        }
    }
}

/// Checks what is loaded.
pub fn what_is_loaded(modules: &Modules) -> Vec<Finding> {
    const CHECK: &str = "loaded";
    let mut findings = Vec::new();
    for module in [&modules.drr, &modules.hooks, &modules.pool] {
        let name = module.name;
        let mut is_loaded = format!("{name} is loaded");
        match &module.loaded {
            None if name == "dm-drr" && module.is_there() => {
                findings.push(Finding::warn(
                    CHECK,
                    "dm-drr isn't loaded",
                    "modprobe dm-drr",
                ));
            }
            None => {}
            Some(_) if module.is_outdated() => {
                let path = module.file.as_ref().map_or("?", |file| &file.path);
                findings.push(Finding::warn(
                    CHECK,
                    format!("{name} is loaded in another build than {path}"),
                    match name {
                        "dm-thin-pool" => "the file is used from the next boot on",
                        _ => "drrctl upgrade loads that one",
                    },
                ));
            }
            Some(it) => {
                if let Some(id) = &it.build_id {
                    is_loaded.push_str(&format!(", build id {}", &id[..12]));
                }
                findings.push(Finding::ok(CHECK, is_loaded));
            }
        }
    }
    findings
}
