// SPDX-License-Identifier: GPL-2.0

//! Writes the man pages that clap generates: one for drrctl, and one for each command.

use std::fs;
use std::io::Result as IoResult;
use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::error::{Code, Error, Result};

/// Writes the man pages into a folder, which is created if need be.
pub fn write(folder: &Path) -> Result<()> {
    render(folder).map_err(|error| {
        Error::new(
            Code::Failed,
            folder.display().to_string(),
            error.to_string(),
            "name a folder that can be written to",
        )
    })
}

fn render(folder: &Path) -> IoResult<()> {
    fs::create_dir_all(folder)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    clap_mangen::generate_to(command, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_commands_and_exit_codes() {
        let folder = std::env::temp_dir().join(format!("drrctl-man-{}", std::process::id()));
        write(&folder).expect("written");
        let page = fs::read_to_string(folder.join("drrctl.1")).expect("a page");
        assert!(page.contains("Exit codes"));
        let page = fs::read_to_string(folder.join("drrctl-heatmap.1")).expect("a page");
        assert!(page.contains("output"));
        fs::remove_dir_all(&folder).expect("removed");
        assert!(write(Path::new("/dev/null/x")).is_err());
    }
}
