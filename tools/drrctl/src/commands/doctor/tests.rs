// SPDX-License-Identifier: GPL-2.0

//! Examinations of hosts that the tests make up.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::commands::doctor::module_file::tests::{interface, module};
use crate::commands::doctor::package::rebuild;
use crate::commands::doctor::provider::Provider;
use crate::commands::doctor::report::State;
use crate::device_mapper::runtime;
use crate::error::{Code, Error};

pub mod fake;

use fake::{a_pool, hooks, Fake, DRR, HOOKS, MODULES, POOL, RELEASE, SIGNED};

#[test]
fn a_host_that_is_well() {
    let host = Fake::loaded();
    let report = host.examine();
    assert!(report.usable(), "{}", report.lines());
    assert_eq!(report.provider(), Some(Provider::Stock));
    assert!(!report.lines().contains(" : "), "{}", report.lines());
    host.has(
        "kernel",
        State::Ok,
        "7.3.4+deb13-cloud-amd64, x86_64: supported",
        "-",
    );
    host.has("package", State::Ok, "dm-drr-dkms 0.1.0", "-");
    host.has("dkms", State::Ok, "x86_64: installed", "-");
    host.has(
        "module",
        State::Ok,
        "dm-thin-hooks: updates/dkms/dm-thin-hooks.ko",
        "-",
    );
    host.has(
        "loaded",
        State::Ok,
        "dm-drr is loaded, build id 030303030303",
        "-",
    );
    host.has("provider", State::Ok, "stock: dm-thin-hooks", "-");
    host.has("ftrace", State::Ok, "can be traced", "-");
    host.has("device-mapper", State::Ok, "the target drr 1.2.3", "-");
    host.has(
        "pool",
        State::Ok,
        "pool: rw, 3 active thin devices, 2 with drr",
        "-",
    );
    host.has("watch", State::Ok, "doesn't run", "-");
}

#[test]
fn installed_and_not_loaded() {
    let host = Fake::installed();
    let report = host.examine();
    assert!(report.usable(), "{}", report.lines());
    assert_eq!(report.provider(), None);
    host.has(
        "loaded",
        State::Warn,
        "dm-drr isn't loaded",
        "modprobe dm-drr",
    );
    host.has("provider", State::Ok, "stock, once", "-");
    host.has(
        "device-mapper",
        State::Warn,
        "no /dev/mapper/control",
        "modprobe dm-drr",
    );
}

#[test]
fn nothing_of_drr() {
    let host = Fake::bare();
    assert!(!host.examine().usable());
    host.has(
        "kernel",
        State::Ok,
        "only dm-drr-dkms knows whether it is supported",
        "-",
    );
    host.has(
        "package",
        State::Warn,
        "dm-drr-dkms isn't installed",
        "install.rst",
    );
    host.has(
        "module",
        State::Fail,
        "dm-drr isn't in",
        "install the package dm-drr-dkms",
    );
    host.has(
        "provider",
        State::Fail,
        "no dm-thin-hooks",
        "install the package dm-drr-dkms",
    );
    host.put(
        &format!("{MODULES}/config"),
        "CONFIG_RUST_IS_AVAILABLE=y\n# CONFIG_RUST is not set\n",
    );
    host.has("kernel", State::Fail, "without CONFIG_RUST", "install.rst");
}

#[test]
fn a_container() {
    let host = Fake::bare();
    host.put("/run/systemd/container", "lxc\n");
    host.remove(MODULES);
    host.has("place", State::Warn, "a container (lxc)", "on the host");
    host.has(
        "module",
        State::Fail,
        "there is no /lib/modules/7.3.4",
        "in a container",
    );
    host.remove("/run/systemd/container");
    host.put("/.dockerenv", "");
    host.has(
        "place",
        State::Warn,
        "a container (docker or podman)",
        "on the host",
    );
}

#[test]
fn nothing_at_all() {
    let host = Fake::bare();
    host.remove("/proc");
    host.remove("/lib");
    assert!(!host.examine().usable());
}

#[test]
fn another_kernel() {
    let mut host = Fake::bare();
    host.source();
    host.put("/proc/sys/kernel/osrelease", "6.12.1-arm64\n");
    host.put("/proc/sys/kernel/arch", "aarch64\n");
    host.put("/lib/modules/6.12.1-arm64/modules.dep", "");
    let remedy = "install Debian kernel 7.3 (cloud-amd64) with its headers";
    host.has(
        "kernel",
        State::Fail,
        "6.12.1-arm64, aarch64: isn't supported",
        remedy,
    );
    host.has("module", State::Fail, "this kernel isn't supported", remedy);
    host.has(
        "module",
        State::Fail,
        "dm-thin-pool isn't in",
        "CONFIG_DM_THIN_PROVISIONING",
    );
    // That of the package, while another one runs.
    host.release = Some(RELEASE);
    let report = host.examine();
    assert_eq!(
        report.of("device-mapper").count() + report.of("loaded").count(),
        0
    );
    host.has(
        "kernel",
        State::Ok,
        "which isn't the running one: supported",
        "-",
    );
    let mut host = Fake::installed();
    host.put("/proc/sys/kernel/osrelease", "6.12.1-arm64\n");
    host.release = Some(RELEASE);
    let report = host.examine();
    assert!(report.usable(), "{}", report.lines());
    assert_eq!(report.of("loaded").count(), 0);
    host.has("provider", State::Ok, "stock, once", "-");
    let mut host = Fake::loaded();
    host.release = Some("7.3.5+deb13-cloud-amd64");
    host.has(
        "module",
        State::Fail,
        "there is no /lib/modules/7.3.5",
        "install the kernel's package",
    );
    assert_eq!(host.examine().provider(), None);
}

#[test]
fn builds_that_are_missing() {
    let mut host = Fake::bare();
    host.source();
    host.dkms("dm-drr/0.1.0: added");
    host.has(
        "dkms",
        State::Warn,
        "nothing is built",
        "dkms install dm-drr/0.1.0 -k 7.3.4",
    );
    host.has(
        "module",
        State::Fail,
        "haven't been built",
        "dkms install dm-drr/0.1.0 -k 7.3.4",
    );
    let log = |release| {
        format!(
            "DKMS make.log for dm-drr-0.1.0 for kernel {release} (x86_64)\nmake\n\
                 dm-drr: out of space : make room\nmake: *** Error 1\n"
        )
    };
    host.put("/var/lib/dkms/dm-drr/0.1.0/build/make.log", log("7.3.3"));
    host.has("module", State::Fail, "haven't been built", "dkms install");
    host.put("/var/lib/dkms/dm-drr/0.1.0/build/make.log", log(RELEASE));
    host.has("module", State::Fail, "out of space", "make room");
    host.has("dkms", State::Warn, "out of space", "make room");
    host.put("/var/lib/dkms/dm-drr/0.1.0/build/make.log", "error: x\n");
    host.has(
        "module",
        State::Fail,
        "the build failed",
        "read /var/lib/dkms",
    );
    let check = format!("/usr/src/dm-drr-0.1.0/build-modules --check {RELEASE}");
    host.program(
        &check,
        false,
        "dm-drr: no source : install linux-source-7.3\n",
    );
    host.has(
        "module",
        State::Fail,
        "no source",
        "install linux-source-7.3",
    );
    host.dkms(&format!("dm-drr/0.1.0, {RELEASE}, x86_64: built"));
    host.has(
        "dkms",
        State::Warn,
        "x86_64: built",
        "dkms install dm-drr/0.1.0",
    );
    host.programs.clear();
    host.has("dkms", State::Warn, "can't be asked", "dkms status");
}

#[test]
fn releases_of_debian() {
    let mut host = Fake::installed();
    for (release, state, found) in [
        ("7.3.4+deb13+1-cloud-amd64", State::Ok, "supported"),
        ("7.3.4+deb13+12-cloud-amd64", State::Ok, "supported"),
        ("7.3.4.1+deb14-cloud-amd64", State::Ok, "supported"),
        ("7.3.4+deb13+-cloud-amd64", State::Fail, "isn't supported"),
        ("7.3.4+deb13+1-amd64", State::Fail, "isn't supported"),
        (
            "7.3.4+deb13+1-cloud-amd64-x",
            State::Fail,
            "isn't supported",
        ),
    ] {
        let remedy = match state {
            State::Ok => "-",
            _ => "install Debian kernel 7.3",
        };
        host.release = Some(release);
        host.has("kernel", state, &format!(": {found}"), remedy);
        // As the kernel that runs.
        host.release = None;
        host.put("/proc/sys/kernel/osrelease", format!("{release}\n"));
        host.has(
            "kernel",
            state,
            &format!("{release}, x86_64: {found}"),
            remedy,
        );
    }
}

#[test]
fn how_modules_are_built() {
    let mut host = Fake::bare();
    host.source();
    let script = "/usr/libexec/dm-drr/install-modules";
    let unbuild = format!("build it again: dkms unbuild dm-drr/0.1.0 -k {RELEASE} && ");
    host.dkms(&format!("dm-drr/0.1.0, {RELEASE}, x86_64: built"));
    // Without the package's program, and with it.
    for build in [
        format!("dkms install dm-drr/0.1.0 -k {RELEASE}"),
        format!("{script} {RELEASE}"),
    ] {
        host.has("module", State::Fail, "haven't been built", &build);
        host.has("dkms", State::Warn, "x86_64: built", &build);
        let again = host.with(rebuild);
        assert_eq!(again, format!("{unbuild}{build}"));
        host.put(script, "");
    }
}

#[test]
fn what_dkms_says_of_several_versions() {
    let mut host = Fake::loaded();
    let line = |version, state| format!("dm-drr/{version}, {RELEASE}, x86_64: {state}\n");
    host.dkms(&(line("0.0.9", "built") + &line("0.1.0", "installed")));
    host.has("dkms", State::Ok, "dm-drr/0.1.0", "-");
    let differs = "installed (WARNING! Diff between built and installed module!)";
    host.dkms(&line("0.1.0", differs));
    host.has(
        "dkms",
        State::Warn,
        "Diff between",
        "dkms unbuild dm-drr/0.1.0",
    );
}

#[test]
fn packages_of_two_versions() {
    let mut host = Fake::loaded();
    let query = "dpkg-query -W -f ${db:Status-Status} ${Version} dm-drr-dkms";
    host.program(query, true, "installed 0.2.0");
    host.has(
        "package",
        State::Warn,
        "0.2.0 is of another version",
        "install both",
    );
    host.program(query, true, "config-files 0.2.0");
    host.has("package", State::Ok, "dm-drr is there without it", "-");
}

#[test]
fn files_that_do_not_fit() {
    let host = Fake::installed();
    host.module("dm-drr", module("7.3.3", DRR, b""));
    host.has(
        "module",
        State::Fail,
        "was built for kernel 7.3.3",
        "dkms unbuild dm-drr/0.1.0",
    );
    host.load("dm_drr", DRR);
    host.has(
        "module",
        State::Warn,
        "it is loaded, though",
        "dkms unbuild",
    );
    let host = Fake::installed();
    host.put(
        &format!("{MODULES}/modules.dep"),
        "kernel/drivers/md/dm-thin-pool.ko:\n",
    );
    host.has(
        "module",
        State::Fail,
        "modprobe doesn't know it",
        "depmod 7.3.4",
    );
    // A file that no program unpacks.
    host.put(&format!("{MODULES}/updates/dm-drr.ko.xz"), "");
    host.put(&format!("{MODULES}/modules.dep"), "updates/dm-drr.ko.xz:\n");
    host.has(
        "module",
        State::Warn,
        "updates/dm-drr.ko.xz can't be read",
        "xz-utils",
    );
}

#[test]
fn compressed_files_are_read() {
    let mut host = Fake::installed();
    host.put(&format!("{MODULES}/updates/dm-drr.ko.xz"), "");
    host.put(&format!("{MODULES}/modules.dep"), "updates/dm-drr.ko.xz:\n");
    let unpacked = String::from_utf8(module("7.3.3", DRR, b"")).expect("text");
    host.program(
        &format!("xz -dc {MODULES}/updates/dm-drr.ko.xz"),
        true,
        &unpacked,
    );
    host.has(
        "module",
        State::Fail,
        "updates/dm-drr.ko.xz was built for kernel 7.3.3",
        "dkms",
    );
}

#[test]
fn other_builds_are_loaded() {
    let host = Fake::loaded();
    host.load("dm_drr", 9);
    host.has(
        "loaded",
        State::Warn,
        "dm-drr is loaded in another build",
        "drrctl upgrade",
    );
    host.load("dm_thin_pool", 9);
    host.has(
        "loaded",
        State::Warn,
        "dm-thin-pool is loaded in another build",
        "next boot",
    );
    assert!(host.examine().usable());
    // A module without a file works until the next boot.
    let host = Fake::bare();
    host.load("dm_drr", DRR);
    host.load("dm_thin_pool", 9);
    host.symbol("[dm_thin_pool]");
    host.has(
        "module",
        State::Warn,
        "it is loaded, though",
        "install the package",
    );
    assert_eq!(host.examine().provider(), Some(Provider::Patched));
}

#[test]
fn providers() {
    let host = Fake::installed();
    host.module("dm-thin-hooks", hooks(9));
    let build = "dkms unbuild dm-drr/0.1.0";
    host.has(
        "provider",
        State::Fail,
        "made for another build of dm-thin-pool",
        build,
    );
    let host = Fake::installed();
    host.load("dm_mod", 9);
    host.has(
        "provider",
        State::Fail,
        "made for another build of dm-mod",
        build,
    );
    // Loaded, and not in their places.
    let host = Fake::loaded();
    host.remove("/sys/module/dm_thin_hooks");
    host.remove("/proc/kallsyms");
    host.has(
        "provider",
        State::Fail,
        "dm-drr is loaded without dm-thin-hooks",
        "dmesg",
    );
    host.remove("/sys/module/dm_drr");
    host.load("dm_thin_hooks", HOOKS);
    assert_eq!(host.examine().provider(), Some(Provider::Stock));
    // They have been refused their places.
    let functions = "/sys/kernel/tracing/enabled_functions";
    host.put(functions, "thin_dtr [dm_thin_pool] (1) I\n");
    host.has("provider", State::Ok, "stock", "-");
    host.put(functions, "schedule (1)\n");
    host.has(
        "provider",
        State::Fail,
        "dm-thin-pool isn't hooked",
        "dmesg",
    );
    // Only a part of the package.
    let host = Fake::installed();
    host.put(
        &format!("{MODULES}/modules.dep"),
        "updates/dkms/dm-drr.ko:\n",
    );
    host.has("provider", State::Fail, "only dm-drr is installed", build);
}

#[test]
fn patched_ones() {
    let host = Fake::installed();
    host.put(
        &format!("{MODULES}/modules.dep"),
        "updates/dkms/dm-drr.ko:\n",
    );
    host.module("dm-thin-pool", module(RELEASE, 7, &interface()));
    host.has(
        "provider",
        State::Ok,
        "patched, once dm-thin-pool is loaded",
        "-",
    );
    let remedy = "rm /lib/modules/7.3.4+deb13-cloud-amd64/updates/dkms/dm-thin-pool.ko";
    host.has(
        "module",
        State::Warn,
        "replaces the kernel's own dm-thin-pool: a patched",
        remedy,
    );
    host.load("dm_thin_pool", POOL);
    host.put("/proc/kallsyms", "0 T schedule\n");
    host.has(
        "provider",
        State::Fail,
        "isn't the patched one on disk",
        "reboot",
    );
    host.symbol("[dm_thin_pool]");
    host.load("dm_thin_pool", 7);
    host.has("provider", State::Ok, "patched: ", "-");
    assert_eq!(host.examine().of("ftrace").count(), 0);
    host.module("dm-thin-pool", module(RELEASE, 7, b""));
    host.has("module", State::Warn, "without what DRR needs", "depmod");
}

#[test]
fn functions_that_cannot_be_traced() {
    let host = Fake::installed();
    host.put("/proc/sys/kernel/ftrace_enabled", "0\n");
    host.has(
        "ftrace",
        State::Fail,
        "can't be traced",
        "sysctl kernel.ftrace_enabled=1",
    );
    host.remove("/proc/sys/kernel/ftrace_enabled");
    host.has(
        "ftrace",
        State::Warn,
        "can't be seen",
        "dmesg has the reason",
    );
    let all = "CONFIG_FUNCTION_TRACER=y\nCONFIG_DYNAMIC_FTRACE_WITH_ARGS=y\nCONFIG_KPROBES=y\n";
    host.put(&format!("/boot/config-{RELEASE}"), all);
    host.has("ftrace", State::Ok, "can be traced", "-");
    let set = "CONFIG_FUNCTION_TRACER=y\nCONFIG_KPROBES=y\n";
    host.put(&format!("/boot/config-{RELEASE}"), set);
    let found = "built without CONFIG_DYNAMIC_FTRACE_WITH_ARGS";
    host.has("ftrace", State::Fail, found, "the patched dm-thin-pool");
}

#[test]
fn signatures() {
    let mut host = Fake::installed();
    let signed = |host: &Fake| {
        host.module("dm-drr", module(RELEASE, DRR, SIGNED));
        host.module("dm-thin-hooks", [&hooks(POOL), SIGNED].concat());
    };
    let boot = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    host.has("signature", State::Ok, "Secure Boot is off", "-");
    host.put(boot, b"\x06\0\0\0\x01");
    host.has("signature", State::Ok, "Secure Boot is on, but", "-");
    host.put(
        "/sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    let found = "lockdown: integrity), and updates/dkms/dm-drr.ko isn't signed";
    host.has("signature", State::Fail, found, "Secure Boot");
    signed(&host);
    let found = "whether the key is enrolled can't be seen";
    host.has("signature", State::Warn, found, "mokutil --import");
    host.program(
        &format!("modinfo -F signer {MODULES}/updates/dkms/dm-drr.ko"),
        true,
        "DKMS key\n",
    );
    host.has(
        "signature",
        State::Warn,
        "signed by 'DKMS key'; whether",
        "run this as root",
    );
    host.program(
        "mokutil --test-key /var/lib/dkms/mok.pub",
        false,
        "x is not enrolled\n",
    );
    host.has(
        "signature",
        State::Fail,
        "the key isn't enrolled",
        "mokutil --import",
    );
    host.program(
        "mokutil --test-key /var/lib/dkms/mok.pub",
        false,
        "x is already enrolled\n",
    );
    host.has("signature", State::Ok, "the key is enrolled", "-");
    let key = |name| format!("1 I--Q--- 1 perm 1f0b0000 0 0 asymmetri {name}: X509.rsa 12 []\n");
    host.put("/proc/keys", key("Debian"));
    host.has(
        "signature",
        State::Fail,
        "the key isn't enrolled",
        "mokutil --import",
    );
    host.put("/proc/keys", key("Debian") + &key("DKMS key"));
    host.has("signature", State::Ok, "the key is enrolled", "-");
    // A module that is loaded has been accepted; not so another build.
    host.put("/proc/keys", key("Debian"));
    host.load("dm_drr", DRR);
    host.has("signature", State::Ok, "the key is enrolled", "-");
    host.load("dm_drr", 9);
    host.has(
        "signature",
        State::Fail,
        "the key isn't enrolled",
        "mokutil --import",
    );
    host.put(
        "/sys/kernel/security/lockdown",
        "[none] integrity confidentiality\n",
    );
    host.has("signature", State::Ok, "doesn't enforce signatures", "-");
    host.put("/sys/module/module/parameters/sig_enforce", "Y\n");
    host.has(
        "signature",
        State::Fail,
        "(module.sig_enforce)",
        "mokutil --import",
    );
}

#[test]
fn pools_that_are_ill() {
    let mut host = Fake::loaded();
    host.devices = || {
        a_pool().map(|mut devices| {
            devices.pools[0].mode = "out_of_data_space".into();
            devices.target = None;
            devices
        })
    };
    host.has(
        "pool",
        State::Warn,
        "pool: out_of_data_space",
        "dmsetup status pool",
    );
    host.has(
        "device-mapper",
        State::Warn,
        "doesn't have the target",
        "modprobe dm-drr",
    );
    host.devices = || Err(Error::new(Code::NotPermitted, "a", "b", "c"));
    host.has(
        "device-mapper",
        State::Warn,
        "only root",
        "run this as root",
    );
    assert!(host.examine().usable());
}

#[test]
fn an_upgrade_that_was_interrupted() {
    let host = Fake::loaded();
    assert_eq!(host.examine().of("upgrade").count(), 0);
    host.put("/run/drrctl/upgrade", "7\tattached\tc1\t253:4\n");
    host.has(
        "upgrade",
        State::Warn,
        "may be without drr: c1",
        "drrctl upgrade",
    );
}

#[test]
fn watching() {
    let host = Fake::loaded();
    let config = "/etc/drrctl/drrctl.toml";
    host.put(config, "pools = []\n");
    host.has("watch", State::Ok, "no pools are configured", "-");
    host.put(config, "pools = ['a']\n");
    host.has(
        "watch",
        State::Warn,
        "though pools are configured",
        "systemctl enable --now",
    );
    host.put(config, "pools = [\n");
    host.has(
        "watch",
        State::Warn,
        "drrctl.toml:",
        "use pools, exclude and features",
    );
    host.put(runtime::WATCH, "");
    let path = host.root.join(runtime::WATCH.trim_start_matches('/'));
    let file = File::open(path)
        .and_then(|file| file.metadata())
        .expect("a file");
    let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
    let lock = |inode| {
        format!(
            "1: POSIX  ADVISORY  READ 1 00:01:1 0 EOF\n\
                 2: FLOCK  ADVISORY  WRITE 77 {major:02x}:{minor:02x}:{inode} 0 EOF\n"
        )
    };
    host.put("/proc/locks", lock(file.ino() + 1));
    host.has("watch", State::Warn, "doesn't run", "use pools");
    host.put("/proc/locks", lock(file.ino()));
    host.has("watch", State::Warn, "runs, as process 77: ", "use pools");
    host.put(config, "pools = ['a']\n");
    host.has("watch", State::Ok, "runs, as process 77", "-");
    host.put(config, "pools = []\n");
    host.has(
        "watch",
        State::Warn,
        "no pools are configured",
        "systemctl reload",
    );
    host.remove(config);
    host.has("watch", State::Ok, "runs, as process 77", "-");
}
