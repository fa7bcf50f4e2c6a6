// SPDX-License-Identifier: GPL-2.0

//! Files of modules: where modprobe finds them, and what is in them.

use crate::commands::doctor::host::Host;

/// Ends the file of a signed module.
const SIGNED: &[u8] = b"~Module signature appended~\n";
/// Begins the note with a build id: the sizes of the name and of the id, the type, and the name.
/// Its numbers are in the order of bytes of the machine that the module is for.
const NOTE: [[u8; 16]; 2] = [
    *b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0",
    *b"\0\0\0\x04\0\0\0\x14\0\0\0\x03GNU\0",
];
/// Length of a build id in bytes.
const BUILD_ID: usize = 20;
/// A function that each provider of the interface for stacked targets exports.
pub const INTERFACE: &str = "dm_thin_register_notifier";

/// Where modprobe finds a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this file, below the folder of the kernel's modules.
    File(String),
    /// The kernel has it built in.
    BuiltIn,
    /// In this file, but depmod hasn't listed it.
    NotListed(String),
    Nowhere,
}

/// Returns the folder of the kernel's modules.
pub fn folder(host: &Host) -> String {
    format!("/lib/modules/{}", host.release)
}

/// Returns the name of the module in a file, as modprobe takes it; `None` for other files.
fn module_in(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('_', "-"))
}

/// Returns where modprobe finds the module `name`.
pub fn find(host: &Host, name: &str) -> Place {
    let folder = folder(host);
    let is_it = |path: &str| module_in(path).as_deref() == Some(name);
    // A line is "PATH: PATHS OF WHAT IT NEEDS".
    let listed = host.text(&format!("{folder}/modules.dep"));
    let listed = listed.unwrap_or_default();
    let mut paths = listed.lines().filter_map(|line| line.split_once(':'));
    let is_there = |path: &str| host.exists(&format!("{folder}/{path}"));
    if let Some((path, _)) = paths.find(|(path, _)| is_it(path) && is_there(path)) {
        return Place::File(path.to_string());
    }
    let built_in = host.text(&format!("{folder}/modules.builtin"));
    if built_in.unwrap_or_default().lines().any(is_it) {
        return Place::BuiltIn;
    }
    for below in ["updates/dkms", "updates", "extra"] {
        let names = host.names(&format!("{folder}/{below}"));
        if let Some(file) = names.iter().find(|name| is_it(name)) {
            return Place::NotListed(format!("{below}/{file}"));
        }
    }
    Place::Nowhere
}

/// The content of a module's file.
pub struct ModuleFile {
    /// Path below the folder of the kernel's modules.
    pub path: String,
    content: Vec<u8>,
}

impl ModuleFile {
    /// Reads a file of the kernel's, and unpacks it if it is compressed; `None` if this can't be
    /// done.
    pub fn read(host: &Host, path: &str) -> Option<Self> {
        let whole = format!("{}/{path}", folder(host));
        Self::at(host, &whole).map(|file| Self {
            path: path.to_string(),
            ..file
        })
    }

    /// Reads a file anywhere, as [`Self::read`] does.
    pub fn at(host: &Host, path: &str) -> Option<Self> {
        let unpacker = match path.rsplit('.').next() {
            Some("xz") => Some("xz"),
            Some("zst") => Some("zstd"),
            Some("gz") => Some("gzip"),
            _ => None,
        };
        let content = match unpacker {
            None => host.bytes(path)?,
            Some(program) => {
                let file = host.path(path);
                let ran = host.run(program, &["-dc", file.to_str()?]);
                ran.filter(|ran| ran.ok)?.out
            }
        };
        Some(Self {
            path: path.to_string(),
            content,
        })
    }

    pub fn build_id(&self) -> Option<String> {
        build_id(&self.content)
    }

    pub fn is_signed(&self) -> bool {
        self.content.ends_with(SIGNED)
    }

    /// Returns the release of the kernel that the module was built for.
    pub fn release(&self) -> Option<String> {
        let key = b"\0vermagic=";
        let at = place_of(&self.content, key)? + key.len();
        let end = self.content[at..]
            .iter()
            .position(|byte| matches!(byte, b' ' | 0))?;
        let release = &self.content[at..at + end];
        Some(String::from_utf8_lossy(release).into_owned())
    }

    /// Returns whether the module exports dm-thin's interface for stacked targets.
    pub fn has_interface(&self) -> bool {
        self.contains(&format!("\0__ksymtab_{INTERFACE}\0"))
    }

    pub fn contains(&self, text: &str) -> bool {
        place_of(&self.content, text.as_bytes()).is_some()
    }
}

/// Returns the first place of `wanted` in `bytes`.
fn place_of(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

/// Returns the build id in a note, or in a file that contains one, in hexadecimal digits.
pub fn build_id(bytes: &[u8]) -> Option<String> {
    let at = NOTE.iter().find_map(|note| place_of(bytes, note))? + NOTE[0].len();
    let id = bytes.get(at..at + BUILD_ID)?;
    let digits: Vec<_> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(digits.concat())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns the parts of a module's file that are looked at.
    pub fn module(release: &str, id: u8, more: &[u8]) -> Vec<u8> {
        let vermagic = format!("\0vermagic={release} SMP preempt \0");
        let parts = [b"ELF", vermagic.as_bytes(), &note(id), more];
        parts.concat()
    }

    /// Returns a note with a build id whose bytes are all `id`.
    pub fn note(id: u8) -> Vec<u8> {
        [&NOTE[0][..], &[id; BUILD_ID]].concat()
    }

    pub fn interface() -> Vec<u8> {
        format!("\0__ksymtab_{INTERFACE}\0").into_bytes()
    }

    #[test]
    fn content_is_found() {
        let file = |content| ModuleFile {
            path: String::new(),
            content,
        };
        let plain = file(module("7.3.4", 0xab, b""));
        assert_eq!(plain.build_id(), Some("ab".repeat(20)));
        assert_eq!(plain.release().as_deref(), Some("7.3.4"));
        assert!(!plain.is_signed() && !plain.has_interface());
        let signed = file(module("7.3.4", 1, &[&interface(), SIGNED].concat()));
        assert!(signed.is_signed() && signed.has_interface());
        let odd = file(b"\0vermagic=7".to_vec());
        assert!(odd.release().is_none() && odd.build_id().is_none());
        assert!(build_id(&NOTE[1]).is_none());
        assert_eq!(
            build_id(&[&NOTE[1][..], &[0; 20]].concat()).map(|id| id.len()),
            Some(40)
        );
    }

    #[test]
    fn names_of_files() {
        assert_eq!(
            module_in("updates/dkms/dm-drr.ko.xz").as_deref(),
            Some("dm-drr")
        );
        assert_eq!(module_in("dm_drr.ko").as_deref(), Some("dm-drr"));
        assert_eq!(module_in("dm-drr.ko.key"), None);
        assert_eq!(module_in("dm-drr.txt"), None);
    }
}
