// SPDX-License-Identifier: GPL-2.0

//! Copies of the files of loaded modules, in /run: a new package removes the files of the old one,
//! and the kernel doesn't give a module back.

use std::fs;
use std::path::PathBuf;

use crate::commands::doctor::host::{programs, Host};
use crate::commands::doctor::module_file::folder;
use crate::commands::doctor::modules::{loaded, Module};
use crate::device_mapper::runtime::Lock;

/// Has a folder for each build that is loaded, named by the build id.
const KEPT: &str = "/run/drrctl/modules";
/// The modules that `upgrade` changes.
const OURS: [&str; 2] = ["dm-drr", "dm-thin-hooks"];

/// Copies the files of the modules that are loaded, for [`find`], unless this was done. If it
/// fails, `upgrade` can't load them again, which is no reason for other commands to fail.
pub fn keep(_lock: &Lock) {
    let host = Host::new("/", None, &programs);
    let build_ids: Vec<_> = OURS
        .iter()
        .map(|name| loaded(&host, name).and_then(|it| it.build_id))
        .collect();
    let mut has_changed = false;
    for (name, build_id) in OURS.iter().zip(&build_ids) {
        match build_id {
            Some(id) if !host.exists(&format!("{KEPT}/{id}")) => {
                has_changed |= copy(&host, name, id).is_some();
            }
            _ => {}
        }
    }
    if has_changed {
        for old in host.names(KEPT) {
            if !build_ids.contains(&Some(old.clone())) {
                let _ = fs::remove_dir_all(host.path(&format!("{KEPT}/{old}")));
            }
        }
    }
}

/// Copies the file of a module, if it is of the build that is loaded.
fn copy(host: &Host, name: &'static str, build_id: &str) -> Option<()> {
    let file = Module::look(host, name).file?;
    if file.build_id()? != build_id {
        return None;
    }
    let from = host.path(&format!("{}/{}", folder(host), file.path));
    // As a whole, or not at all.
    let new = host.path(&format!("{KEPT}/new"));
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).ok()?;
    fs::copy(&from, new.join(from.file_name()?)).ok()?;
    fs::rename(new, host.path(&format!("{KEPT}/{build_id}"))).ok()
}

/// Returns the copy of the file of a build; `None` if there is none.
pub fn find(host: &Host, build_id: &str) -> Option<PathBuf> {
    let folder = format!("{KEPT}/{build_id}");
    let name = host.names(&folder).into_iter().next()?;
    Some(host.path(&folder).join(name))
}
