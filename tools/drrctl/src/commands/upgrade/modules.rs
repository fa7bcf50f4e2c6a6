// SPDX-License-Identifier: GPL-2.0

//! The modules: checks those on disk, unloads those that are loaded, and loads those on disk.

use std::path::PathBuf;

use crate::commands::attach::step::step;
use crate::commands::doctor::host::Host;
use crate::commands::doctor::module_file::{folder, Place};
use crate::commands::doctor::modules::{loaded, Module, Modules};
use crate::commands::doctor::package::rebuild;
use crate::commands::doctor::provider::made_for_other;
use crate::commands::doctor::report::State;
use crate::commands::doctor::trust;
use crate::commands::upgrade::kept;
use crate::error::{Code, Error, Result};

/// A module that is loaded in another build than that on disk.
struct Outdated {
    name: &'static str,
    path: String,
    /// A copy of the file of the build that is loaded, if there is one.
    old: Option<PathBuf>,
}

/// What is to be changed.
pub struct Change {
    /// In the order in which they are unloaded: dm-drr, and then what it uses.
    outdated: Vec<Outdated>,
    /// Whether dm-thin-hooks has to be there for dm-drr.
    with_hooks: bool,
    /// What to say if nothing is to be changed.
    nothing: &'static str,
}

/// Why a change has failed.
pub struct Failed {
    pub error: Error,
    /// Whether a dm-drr is loaded, so that devices can have their tables back.
    pub drr_is_loaded: bool,
    pub outcome: String,
}

impl Failed {
    /// Returns the error for devices that go on without drr.
    pub fn without_drr(&self, names: &str) -> Error {
        let so = match names {
            "" => String::new(),
            names => format!("; these are without drr, and work so: {names}"),
        };
        Error::new(
            Code::Failed,
            self.error.what(),
            format!("{}; {}{so}", self.error.why(), self.outcome),
            "mend that, and then: drrctl upgrade, which attaches them again",
        )
    }
}

/// Returns an error that leaves all as it is.
fn refused(what: &str, why: String, remedy: String) -> Error {
    Error::new(Code::Failed, what, why, remedy)
}

impl Change {
    /// Compares what is loaded with what is on disk. Fails if the latter can't be loaded.
    pub fn new(host: &Host, modules: &Modules) -> Result<Self> {
        let mut change = Self {
            outdated: Vec::new(),
            with_hooks: modules.hooks.loaded.is_some(),
            nothing: "nothing to do: what is loaded is what is on disk\n",
        };
        if modules.drr.loaded.is_none() {
            change.nothing = "nothing to do: dm-drr isn't loaded\n";
            return Ok(change);
        }
        let ours = [&modules.drr, &modules.hooks];
        let is_used = |module: &&&Module| module.loaded.is_some();
        if !ours
            .iter()
            .filter(is_used)
            .any(|module| module.is_outdated())
        {
            // A file that is missing can't be compared.
            check(host, &modules.drr)?;
            return Ok(change);
        }
        for module in ours.iter().filter(is_used) {
            check(host, module)?;
            // To unload dm-thin-hooks, dm-drr has to be unloaded, too.
            if module.name == "dm-drr" || module.is_outdated() {
                change.outdated.push(Outdated {
                    name: module.name,
                    path: module
                        .file
                        .as_ref()
                        .map_or_else(String::new, |file| file.path.clone()),
                    old: module
                        .loaded
                        .as_ref()
                        .and_then(|it| kept::find(host, it.build_id.as_ref()?)),
                });
            }
        }
        if let Some(finding) = trust::look(host, modules).filter(|it| it.state == State::Fail) {
            return Err(refused(
                "dm-drr",
                format!("it couldn't be loaded: {}", finding.found),
                finding.remedy.unwrap_or_default(),
            ));
        }
        let hooks = modules.hooks.file.as_ref().filter(|_| change.with_hooks);
        if let Some(other) = hooks.and_then(|hooks| made_for_other(host, modules, hooks)) {
            return Err(refused(
                "dm-thin-hooks",
                format!("the one on disk was made for another build of {other}"),
                rebuild(host),
            ));
        }
        Ok(change)
    }

    /// Returns whether another build is to be loaded.
    pub fn is_needed(&self) -> bool {
        !self.outdated.is_empty()
    }

    pub fn describe(&self) -> String {
        if !self.is_needed() {
            return self.nothing.to_string();
        }
        let mut text = String::new();
        for module in &self.outdated {
            text.push_str(&format!("module  {}  {}\n", module.name, module.path));
        }
        text
    }

    /// Unloads what is to be changed, and loads what is needed and isn't there. If that fails,
    /// loads what was loaded before, where copies of its files were kept.
    pub fn carry_out(&self, host: &Host) -> std::result::Result<(), Failed> {
        for (count, module) in self.outdated.iter().enumerate() {
            let Err(error) = unload(host, module.name) else {
                continue;
            };
            let is_old = self.load_old(host, &self.outdated[..count]);
            // An old dm-thin-hooks may do for a new dm-drr.
            let is_new = !is_old && load(host, "modprobe", "dm-drr", "dm-drr").is_ok();
            return Err(Failed {
                error,
                drr_is_loaded: is_old || is_new,
                outcome: match (is_old, is_new) {
                    (true, _) => "all is as before".to_string(),
                    (_, true) => "the new dm-drr was loaded nevertheless".to_string(),
                    _ => "dm-drr couldn't be loaded again".to_string(),
                },
            });
        }
        if self.is_needed() {
            step("modules-unloaded");
        }
        let Err(error) = self.load(host) else {
            return Ok(());
        };
        let drr_is_loaded = self.load_old(host, &self.outdated);
        Err(Failed {
            error,
            drr_is_loaded,
            outcome: outcome_of(drr_is_loaded),
        })
    }

    /// Returns whether there are copies of all that was loaded.
    pub fn has_copies(&self) -> bool {
        self.is_needed() && self.outdated.iter().all(|it| it.old.is_some())
    }

    /// Loads the old modules again after [`Self::carry_out`], for the reason `error`; the new ones
    /// if that fails.
    pub fn go_back(&self, host: &Host, error: Error) -> Failed {
        let is_back = self.load_old(host, &self.outdated);
        let drr_is_loaded = is_back || loaded(host, "dm-drr").is_some() || self.load(host).is_ok();
        Failed {
            error,
            drr_is_loaded,
            outcome: outcome_of(is_back),
        }
    }

    /// Loads the modules on disk, and looks whether they are.
    fn load(&self, host: &Host) -> Result<()> {
        let hooks = self.with_hooks.then_some("dm-thin-hooks");
        for name in hooks.into_iter().chain(["dm-drr"]) {
            load(host, "modprobe", name, name)?;
            if Module::look(host, name).is_outdated() {
                return Err(refused(
                    name,
                    "modprobe has loaded another build than that on disk".to_string(),
                    "see what dmesg says".to_string(),
                ));
            }
        }
        Ok(())
    }

    /// Loads the old builds of modules that were unloaded. Returns whether dm-drr is loaded then.
    fn load_old(&self, host: &Host, unloaded: &[Outdated]) -> bool {
        // All or none: an old dm-drr may not fit a new dm-thin-hooks.
        let files: Option<Vec<_>> = unloaded.iter().map(|it| it.old.as_ref()).collect();
        let Some(files) = files else {
            return false;
        };
        for module in unloaded {
            if loaded(host, module.name).is_some() && unload(host, module.name).is_err() {
                return false;
            }
        }
        let all = files.iter().zip(unloaded).rev().all(|(file, module)| {
            let file = file.to_string_lossy();
            load(host, "insmod", module.name, &file).is_ok()
        });
        // Without a module to load, it says nothing that all were.
        all && loaded(host, "dm-drr").is_some()
    }
}

/// Returns what came of loading the old modules again.
fn outcome_of(is_back: bool) -> String {
    match is_back {
        true => "the old modules were loaded again, and all is as before".to_string(),
        false => "the old modules can't be loaded again".to_string(),
    }
}

/// Checks that a module's file is one for this kernel.
fn check(host: &Host, module: &Module) -> Result<()> {
    let name = module.name;
    match (&module.place, &module.file) {
        (Place::BuiltIn, _) => Ok(()),
        (Place::File(_), Some(file)) => match file.release() {
            Some(release) if release == host.release => Ok(()),
            other => Err(refused(
                name,
                format!(
                    "{} was built for kernel {}",
                    file.path,
                    other.as_deref().unwrap_or("of no name")
                ),
                rebuild(host),
            )),
        },
        _ => Err(refused(
            name,
            format!("modprobe finds no file of it in {}", folder(host)),
            format!("'drrctl doctor' says why; {}", rebuild(host)),
        )),
    }
}

/// Runs a program on a module.
fn run(host: &Host, name: &str, doing: &str, program: &str, argument: &str) -> Result<()> {
    let why = match host.run(program, &[argument]) {
        Some(ran) if ran.ok => return Ok(()),
        Some(ran) => ran.err.trim().to_string(),
        None => format!("{program} can't be run"),
    };
    Err(refused(
        name,
        format!("can't {doing} it: {why}"),
        "see what dmesg says, and try again".to_string(),
    ))
}

/// Loads a module, and looks whether it is.
fn load(host: &Host, program: &str, name: &str, argument: &str) -> Result<()> {
    run(host, name, "load", program, argument)?;
    loaded(host, name).map(|_| ()).ok_or_else(|| {
        refused(
            name,
            format!("{program} has loaded no module"),
            "see what dmesg says".to_string(),
        )
    })
}

/// Unloads a module. It is no error if somebody else has done so.
fn unload(host: &Host, name: &str) -> Result<()> {
    run(host, name, "unload", "rmmod", &name.replace('-', "_")).or_else(|error| {
        match loaded(host, name) {
            Some(_) => Err(error),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::module_file::tests::module;
    use crate::commands::doctor::tests::fake::{hooks, Fake, DRR, HOOKS, MODULES, RELEASE};

    /// Returns what is to be done, or the error.
    fn change(fake: &Fake) -> String {
        fake.with(|host| match Change::new(host, &Modules::look(host)) {
            Ok(change) => change.describe(),
            Err(error) => error.to_string(),
        })
    }

    #[test]
    fn what_is_different_is_changed() {
        let host = Fake::loaded();
        assert!(change(&host).starts_with("nothing to do: what is loaded"));
        host.load("dm_drr", 9);
        assert_eq!(change(&host), "module  dm-drr  updates/dkms/dm-drr.ko\n");
        // dm-drr uses dm-thin-hooks, and goes before it.
        host.load("dm_drr", DRR);
        host.load("dm_thin_hooks", 9);
        let both = "module  dm-drr  updates/dkms/dm-drr.ko\n\
                    module  dm-thin-hooks  updates/dkms/dm-thin-hooks.ko\n";
        assert_eq!(change(&host), both);
        assert!(change(&Fake::installed()).starts_with("nothing to do: dm-drr isn't loaded"));
    }

    #[test]
    fn files_that_cannot_be_loaded_are_refused() {
        let host = Fake::loaded();
        host.load("dm_drr", 9);
        host.load("dm_thin_hooks", 9);
        host.module("dm-thin-hooks", hooks(9));
        let text = change(&host);
        assert!(
            text.contains("made for another build of dm-thin-pool"),
            "{text}"
        );
        host.module("dm-thin-hooks", module("7.3.3", HOOKS, b""));
        let text = change(&host);
        assert!(text.starts_with("dm-thin-hooks: updates/dkms"), "{text}");
        assert!(
            text.contains("built for kernel 7.3.3: build it again: dkms"),
            "{text}"
        );
        host.put("/sys/module/module/parameters/sig_enforce", "Y\n");
        host.module("dm-thin-hooks", module(RELEASE, HOOKS, b""));
        let text = change(&host);
        assert!(text.contains("isn't signed"), "{text}");
        host.put(&format!("{MODULES}/modules.dep"), "");
        let text = change(&host);
        assert!(
            text.starts_with("dm-drr: modprobe finds no file of it"),
            "{text}"
        );
    }

    #[test]
    fn copies_of_old_builds_are_found() {
        let host = Fake::loaded();
        host.load("dm_drr", 9);
        let copies = |host: &Fake| {
            host.with(|host| {
                let change = Change::new(host, &Modules::look(host)).expect("a change");
                change.outdated.iter().filter(|it| it.old.is_some()).count()
            })
        };
        assert_eq!(copies(&host), 0);
        host.put(
            &format!("/run/drrctl/modules/{}/dm-drr.ko.xz", "09".repeat(20)),
            "x",
        );
        assert_eq!(copies(&host), 1);
    }

    #[test]
    fn nothing_is_as_before_without_dm_drr() {
        let mut host = Fake::loaded();
        host.load("dm_drr", 9);
        let plan = |host: &Fake| host.with(|host| Change::new(host, &Modules::look(host)));
        let change = plan(&host).expect("a change");
        // It can't be unloaded.
        let failed = host
            .with(|host| change.carry_out(host))
            .expect_err("failed");
        assert!(failed.drr_is_loaded);
        assert_eq!(failed.outcome, "all is as before");
        // Somebody else has unloaded it, and it can't be loaded.
        host.remove("/sys/module/dm_drr");
        let failed = host
            .with(|host| change.carry_out(host))
            .expect_err("failed");
        assert!(!failed.drr_is_loaded);
        assert_eq!(failed.outcome, "the old modules can't be loaded again");
        // What modprobe says isn't enough.
        host.program("modprobe dm-thin-hooks", true, "");
        host.program("modprobe dm-drr", true, "");
        let failed = host
            .with(|host| change.carry_out(host))
            .expect_err("failed");
        assert!(!failed.drr_is_loaded);
        let error = failed.error.to_string();
        assert!(
            error.contains("dm-drr: modprobe has loaded no module"),
            "{error}"
        );
        // Of two modules, the second can't be unloaded, and the first can't be loaded again.
        host.load("dm_drr", 9);
        host.load("dm_thin_hooks", 9);
        let change = plan(&host).expect("a change");
        host.remove("/sys/module/dm_drr");
        let failed = host
            .with(|host| change.carry_out(host))
            .expect_err("failed");
        assert!(!failed.drr_is_loaded);
        assert_eq!(failed.outcome, "dm-drr couldn't be loaded again");
    }

    #[test]
    fn old_builds_are_loaded_again() {
        let mut host = Fake::loaded();
        host.load("dm_drr", 9);
        let plan = |host: &Fake| host.with(|host| Change::new(host, &Modules::look(host)));
        assert!(!plan(&host).expect("a change").has_copies());
        let copy = format!("/run/drrctl/modules/{}/dm-drr.ko", "09".repeat(20));
        host.put(&copy, "x");
        let change = plan(&host).expect("a change");
        assert!(change.has_copies());
        let go_back = |host: &Fake| {
            let error = refused("c1", "x".to_string(), "y".to_string());
            let failed = host.with(|host| change.go_back(host, error));
            (failed.drr_is_loaded, failed.outcome)
        };
        // The new one can't be unloaded, and stays.
        host.load("dm_drr", DRR);
        let fails = "the old modules can't be loaded again".to_string();
        assert_eq!(go_back(&host), (true, fails.clone()));
        host.program("rmmod dm_drr", true, "");
        host.program(&format!("insmod {copy}"), true, "");
        let (is_loaded, outcome) = go_back(&host);
        assert!(
            is_loaded && outcome.ends_with("all is as before"),
            "{outcome}"
        );
        // Neither the old one can be loaded nor the new one.
        host.remove("/sys/module/dm_drr");
        assert_eq!(go_back(&host), (false, fails));
    }
}
