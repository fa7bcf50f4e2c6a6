// SPDX-License-Identifier: GPL-2.0

//! A host that a test makes up.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::commands::doctor::examine;
use crate::commands::doctor::host::{programs, Host, Ran};
use crate::commands::doctor::module_file::tests::{interface, module, note};
use crate::commands::doctor::pools::{Devices, Pool};
use crate::commands::doctor::report::{Report, State};
use crate::error::{Code, Error, Result};
use crate::schema;

pub const RELEASE: &str = "7.3.4+deb13-cloud-amd64";
pub const MODULES: &str = "/lib/modules/7.3.4+deb13-cloud-amd64";
/// The bytes of the build ids of modules.
pub const POOL: u8 = 1;
pub const MAPPER: u8 = 2;
pub const DRR: u8 = 3;
pub const HOOKS: u8 = 4;
pub const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A host: a folder with its files, and what its programs print: whether they succeed, and the
/// text.
pub struct Fake {
    pub root: PathBuf,
    pub programs: Vec<(String, bool, String)>,
    pub release: Option<&'static str>,
    pub devices: fn() -> Result<Devices>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn no_devices() -> Result<Devices> {
    Err(Error::new(
        Code::NotLoaded,
        "/dev/mapper/control",
        "none",
        "modprobe dm-mod",
    ))
}

pub fn a_pool() -> Result<Devices> {
    Ok(Devices {
        target: Some((1, 2, 3)),
        pools: vec![Pool {
            name: "pool".into(),
            mode: "rw".into(),
            thin_devices: 3,
            with_drr: 2,
        }],
    })
}

impl Fake {
    /// A host with the kernel alone.
    pub fn bare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("drrctl-doctor-{}-{count}", std::process::id());
        let host = Self {
            root: std::env::temp_dir().join(name),
            programs: Vec::new(),
            release: None,
            devices: no_devices,
        };
        host.put("/proc/sys/kernel/osrelease", format!("{RELEASE}\n"));
        host.put("/proc/sys/kernel/arch", "x86_64\n");
        host.put("/proc/sys/kernel/ftrace_enabled", "1\n");
        let own = "kernel/drivers/md/dm-thin-pool.ko";
        let mapper = "kernel/drivers/md/dm-mod.ko";
        host.put(&format!("{MODULES}/{own}"), module(RELEASE, POOL, b""));
        host.put(&format!("{MODULES}/{mapper}"), module(RELEASE, MAPPER, b""));
        host.put(
            &format!("{MODULES}/modules.dep"),
            format!("{own}: {mapper}\n{mapper}:\n"),
        );
        host
    }

    /// A host with both packages, whose modules are built and not loaded.
    pub fn installed() -> Self {
        let mut host = Self::bare();
        host.source();
        for package in ["drrctl", "dm-drr-dkms"] {
            host.program(
                &format!("dpkg-query -W -f ${{db:Status-Status}} ${{Version}} {package}"),
                true,
                "installed 0.1.0",
            );
        }
        host.dkms(&format!("dm-drr/0.1.0, {RELEASE}, x86_64: installed"));
        host.module("dm-drr", module(RELEASE, DRR, b""));
        host.module("dm-thin-hooks", hooks(POOL));
        host
    }

    /// Such a host whose modules are loaded.
    pub fn loaded() -> Self {
        let mut host = Self::installed();
        for (name, id) in [
            ("dm_drr", DRR),
            ("dm_thin_hooks", HOOKS),
            ("dm_thin_pool", POOL),
            ("dm_mod", MAPPER),
        ] {
            host.load(name, id);
        }
        host.symbol("[dm_thin_hooks]");
        host.devices = a_pool;
        host
    }

    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub fn remove(&self, path: &str) {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir_all(&path))
            .expect("removed");
    }

    /// The package's sources.
    pub fn source(&self) {
        self.put(
            "/usr/src/dm-drr-0.1.0/supported",
            "KERNELS='Debian kernel 7.3 (cloud-amd64)'\n\
             SUPPORTED='^(7\\.3)\\.[0-9.]+\\+deb[0-9]+(\\+[0-9]+)?-(cloud-amd64)$'\n",
        );
    }

    /// A module's file, as DKMS installs it.
    pub fn module(&self, name: &str, content: Vec<u8>) {
        let path = format!("updates/dkms/{name}.ko");
        self.put(&format!("{MODULES}/{path}"), content);
        let list = self
            .root
            .join(format!("{MODULES}/modules.dep").trim_start_matches('/'));
        let old = fs::read_to_string(&list).expect("a list");
        let others = old
            .lines()
            .filter(|line| !line.contains(&format!("/{name}.ko:")));
        let list = others.collect::<Vec<_>>().join("\n");
        self.put(
            &format!("{MODULES}/modules.dep"),
            format!("{path}: \n{list}"),
        );
    }

    pub fn load(&self, name: &str, id: u8) {
        self.put(
            &format!("/sys/module/{name}/notes/.note.gnu.build-id"),
            note(id),
        );
    }

    /// The symbol of the interface, and whose it is.
    pub fn symbol(&self, module: &str) {
        let text = format!(
            "0 T schedule\n0 t dm_thin_register_notifier_x\t[x]\n0 T dm_thin_register_notifier\t{module}\n"
        );
        self.put("/proc/kallsyms", text);
    }

    pub fn program(&mut self, line: &str, ok: bool, text: &str) {
        self.programs.retain(|(known, ..)| known != line);
        self.programs.push((line.into(), ok, text.into()));
    }

    pub fn dkms(&mut self, status: &str) {
        self.program("dkms status -m dm-drr", true, status);
    }

    /// Calls `look` with the host.
    pub fn with<T>(&self, look: impl FnOnce(&Host) -> T) -> T {
        let root = self.root.display().to_string();
        let programs = |name: &str, arguments: &[&str], input: &str| {
            if name == "grep" {
                return programs(name, arguments, input);
            }
            let line = [&[name], arguments].concat().join(" ").replace(&root, "");
            let (_, ok, text) = self.programs.iter().find(|(known, ..)| *known == line)?;
            Some(Ran {
                ok: *ok,
                out: text.clone().into_bytes(),
                err: text.clone(),
            })
        };
        look(&Host::new(&self.root, self.release, &programs))
    }

    pub fn examine(&self) -> Report {
        let report = self.with(|host| examine(host, (self.devices)()));
        schema::check("doctor", &report);
        report
    }

    /// Asserts that the check has a finding with this state and these parts of its texts. `-`
    /// stands for no remedy.
    pub fn has(&self, check: &str, state: State, found: &str, remedy: &str) {
        let report = self.examine();
        let is_it = report.of(check).any(|it| {
            let is_remedy = match &it.remedy {
                None => remedy == "-",
                Some(text) => text.contains(remedy),
            };
            it.state == state && it.found.contains(found) && is_remedy
        });
        assert!(
            is_it,
            "no {state:?} {check} '{found} : {remedy}' in\n{}",
            report.lines()
        );
    }
}

/// Returns the file of a dm-thin-hooks for a dm-thin-pool with this build id.
pub fn hooks(pool: u8) -> Vec<u8> {
    let hex = |id: u8| format!("\0{id:02x}").replace('\0', "").repeat(20);
    let ids = format!("\0{}\0{}\0", hex(pool), hex(MAPPER));
    module(RELEASE, HOOKS, &[ids.as_bytes(), &interface()].concat())
}
