// SPDX-License-Identifier: GPL-2.0

//! Signatures: whether the kernel wants them, and whether it knows the key of the modules.

use crate::commands::doctor::host::Host;
use crate::commands::doctor::module_file::{folder, ModuleFile};
use crate::commands::doctor::modules::Modules;
use crate::commands::doctor::report::Finding;

const CHECK: &str = "signature";
const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The certificate of the key that DKMS signs with.
const CERTIFICATE: &str = "/var/lib/dkms/mok.pub";
const ENROL: &str = "mokutil --import /var/lib/dkms/mok.pub, and reboot";

/// Whether the firmware boots only what is signed; `None` if it can't be seen. The variable has
/// four bytes of attributes, and then a byte.
fn secure_boot(host: &Host) -> Option<bool> {
    if !host.exists("/sys/firmware/efi") {
        return Some(false);
    }
    host.bytes(SECURE_BOOT)
        .map(|value| value.get(4) == Some(&1))
}

/// Returns why the kernel refuses modules without a valid signature; `None` if it takes them.
fn enforced(host: &Host) -> Option<String> {
    let lockdown = host
        .text("/sys/kernel/security/lockdown")
        .unwrap_or_default();
    let mode = lockdown.split(' ').find_map(|word| word.strip_prefix('['));
    let mode = mode
        .map(|mode| mode.trim_end_matches(']'))
        .filter(|mode| *mode != "none");
    if let Some(mode) = mode {
        return Some(format!("lockdown: {mode}"));
    }
    let enforced = host.text("/sys/module/module/parameters/sig_enforce");
    enforced
        .filter(|value| value == "Y")
        .map(|_| "module.sig_enforce".to_string())
}

/// Returns whether the kernel has the key of `signer`; `None` if it can't be seen.
fn is_enrolled(host: &Host, signer: &str) -> Option<bool> {
    // "ID FLAGS USES TIME PERMISSIONS UID GID TYPE DESCRIPTION", cut after eight characters of TYPE
    let keys = host.text("/proc/keys").unwrap_or_default();
    let mut certificates = keys
        .lines()
        .filter(|line| line.contains(" asymmetri"))
        .peekable();
    if certificates.peek().is_some() {
        return Some(certificates.any(|line| line.contains(signer)));
    }
    let says = host.run("mokutil", &["--test-key", CERTIFICATE])?;
    let says = String::from_utf8_lossy(&says.out).into_owned() + &says.err;
    if says.contains("already enrolled") {
        Some(true)
    } else {
        says.contains("not enrolled").then_some(false)
    }
}

/// Checks the signatures of the modules that DRR brings.
pub fn look(host: &Host, modules: &Modules) -> Option<Finding> {
    let ours = [
        Some(&modules.drr),
        Some(&modules.hooks),
        modules.pool_is_replaced().then_some(&modules.pool),
    ];
    let files: Vec<&ModuleFile> = ours
        .iter()
        .flatten()
        .filter_map(|it| it.file.as_ref())
        .collect();
    let unsigned = files.iter().find(|file| !file.is_signed());
    let drr = modules.drr.file.as_ref();
    let signer = drr.filter(|file| file.is_signed()).and_then(|file| {
        let path = host.path(&format!("{}/{}", folder(host), file.path));
        let signer = host.printed("modinfo", &["-F", "signer", path.to_str()?])?;
        (!signer.is_empty()).then_some(signer)
    });
    let is_by = match (&signer, unsigned) {
        (_, Some(file)) => format!("{} isn't signed", file.path),
        (Some(signer), None) => format!("the modules are signed by '{signer}'"),
        (None, None) => "the modules are signed".to_string(),
    };
    let Some(reason) = enforced(host) else {
        let boot = match secure_boot(host) {
            Some(true) => "Secure Boot is on, but the kernel doesn't enforce signatures",
            Some(false) => "Secure Boot is off, and signatures don't matter",
            None => "the kernel doesn't enforce signatures",
        };
        return Some(match files.is_empty() {
            true => Finding::ok(CHECK, boot),
            false => Finding::ok(CHECK, format!("{boot}; {is_by}")),
        });
    };
    let wants = format!("the kernel wants signatures ({reason})");
    if files.is_empty() {
        return Some(Finding::ok(CHECK, wants));
    }
    if unsigned.is_some() {
        return Some(Finding::fail(
            CHECK,
            format!("{wants}, and {is_by}"),
            "have DKMS build it again: it signs; see \"Secure Boot\" in install.rst",
        ));
    }
    let known = match (&modules.drr.loaded, &signer) {
        (Some(_), _) if !modules.drr.is_outdated() => Some(true),
        (_, Some(signer)) => is_enrolled(host, signer),
        (_, None) => None,
    };
    Some(match known {
        Some(true) => Finding::ok(CHECK, format!("{wants}, {is_by}, and the key is enrolled")),
        Some(false) => Finding::fail(
            CHECK,
            format!("{wants}, {is_by}, and the key isn't enrolled"),
            ENROL,
        ),
        None => Finding::warn(
            CHECK,
            format!("{wants}, {is_by}; whether the key is enrolled can't be seen"),
            format!("run this as root; if modprobe says \"Key was rejected\": {ENROL}"),
        ),
    })
}
