// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::watch::config;
use crate::views::units;

pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the kernel refused, or the answer was not understood; doctor: DRR can't be used
  2  usage: unknown options, a name or a size that can't be, or a bad configuration
  3  not there: no such device, pool or drr device
  4  not permitted: not root
  5  not loaded: dm-drr, or device-mapper
  6  in use: the device, its name, or by somebody at work on it
  7  wrong kind: not a drr, thin or pool device, or one of LVM

Errors are one line on stderr, with what failed, why, and what to do about it.";

/// Sets up dm-drr devices, and shows who reads whose data, and who serves whom
#[derive(Parser)]
#[command(name = "drrctl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
pub struct Json {
    /// Print JSON, as the schemas in Documentation/drrctl describe it
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Pool {
    /// Thin pool, by name or path; may be left out if only one has drr devices
    pub pool: Option<String>,
}

#[derive(Args)]
pub struct Features {
    /// Never serve others from this device's page cache
    #[arg(long)]
    no_donate: bool,
    /// Never serve this device from others
    #[arg(long)]
    no_receive: bool,
    /// Compare every hit with the disk
    #[arg(long)]
    paranoid: bool,
    /// Never drop pages of this device's page cache because others have them
    #[arg(long)]
    keep_copies: bool,
    /// Never keep metadata that this device has read
    #[arg(long)]
    no_meta_cache: bool,
}

impl Features {
    /// Returns the features as the words of a table line.
    pub fn words(&self) -> Vec<&'static str> {
        [
            (self.no_donate, "no_donate"),
            (self.no_receive, "no_receive"),
            (self.paranoid, "paranoid"),
            (self.keep_copies, "keep_copies"),
            (self.no_meta_cache, "no_meta_cache"),
        ]
        .iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, feature)| *feature)
        .collect()
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Put a drr device on top of a thin device
    Create {
        /// Name of the new device, in /dev/mapper
        name: String,
        /// Active thin device, by name or path
        thin_device: String,
        #[command(flatten)]
        features: Features,
    },
    /// Remove a drr device; its thin device stays
    Remove {
        /// drr device, by name or path
        name: String,
    },
    /// Put drr under an active thin device, mounted and busy as it may be
    Attach {
        /// Thin device, by name or path; it keeps both
        name: String,
        #[command(flatten)]
        features: Features,
    },
    /// Take drr out from under a thin device again; `watch` then leaves it alone
    Detach {
        /// Thin device that drr is attached to, by name or path
        name: String,
    },
    /// Grow a drr device that is in use, and an attached one's thin device with it
    Resize {
        /// drr device, by name or path
        name: String,
        /// New size in bytes, or with K, M, G, T or P: 20G (default: that of the thin device below)
        #[arg(value_parser = units::sectors)]
        size: Option<u64>,
    },
    /// Attach drr to the thin devices of some pools, as they appear; the configuration says which
    Watch {
        /// Read this configuration; SIGHUP has it read again
        #[arg(short, long, value_name = "FILE", default_value = config::PATH)]
        config: PathBuf,
    },
    /// Wait until what was below an attached device that was removed is gone (for udev's rules)
    #[command(hide = true)]
    Settle {
        /// Sequence number of the disk that was removed
        sequence: u64,
    },
    /// List drr devices with their thin devices and pools
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Show what was read from where, and why not from drr
    Status {
        /// drr device, by name or path (default: all)
        name: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Draw the tree of a pool's layers
    Layers {
        #[command(flatten)]
        pool: Pool,
        #[command(flatten)]
        json: Json,
    },
    /// Show which layer read whose blocks, from the disk and from drr
    Heatmap {
        #[command(flatten)]
        pool: Pool,
        /// Write a picture or a table instead: FILE.svg, FILE.png or FILE.csv
        #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
        output: Option<PathBuf>,
        #[command(flatten)]
        json: Json,
    },
    /// Show how often a pool's shared blocks were read, and by how many layers
    Blocks {
        #[command(flatten)]
        pool: Pool,
        /// Begin to count, in all pools
        #[arg(long, conflicts_with_all = ["off", "json"])]
        on: bool,
        /// Stop counting and forget, in all pools
        #[arg(long, conflicts_with = "json")]
        off: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Show how much of a pool is in memory more than once, and who has it
    Duplicates {
        #[command(flatten)]
        pool: Pool,
        /// List the pages that are
        #[arg(long)]
        list: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Give the figures of all drr devices to Prometheus: over HTTP, in a file, or printed
    Export(crate::commands::export::Export),
    /// Watch drr devices live; q, Esc or Ctrl-C ends it
    Top {
        /// Seconds from one look to the next
        #[arg(short, long, default_value_t = 1.0, value_parser = seconds)]
        interval: f64,
    },
    /// Start the counters of drr devices anew at zero
    Reset {
        /// drr device, by name or path (default: all)
        name: Option<String>,
    },
    /// Replace the loaded modules with the installed ones, while devices are in use
    Upgrade {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Have dm-linear in between where `attach` hasn't made the drr table
        #[arg(long)]
        force: bool,
    },
    /// Say what of DRR is installed, built, signed and loaded, what is missing, and what to do
    Doctor {
        /// Look at this kernel (default: the one that runs)
        #[arg(long, value_name = "RELEASE", value_parser = release)]
        kernel: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Print a completion script for a shell
    Completion { shell: Shell },
    /// Write the man pages into a folder
    Man { folder: PathBuf },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("use 0.1 to 3600 seconds".to_string()),
    }
}

fn release(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('.') || text.contains('/') {
        false => Ok(text.to_string()),
        true => Err("use a kernel's release, as 'uname -r' prints it".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn odd_ones_are_refused() {
        for line in [
            "drrctl",
            "drrctl nothing",
            "drrctl create c1",
            "drrctl attach",
            "drrctl detach c1 --paranoid",
            "drrctl resize",
            "drrctl resize c1 1000",
            "drrctl resize c1 +1G",
            "drrctl top --interval 0",
            "drrctl top --interval NaN",
            "drrctl blocks --on --off",
            "drrctl duplicates --on",
            "drrctl heatmap --json -o x.svg",
            "drrctl doctor --kernel ../x",
            "drrctl doctor c1",
            "drrctl upgrade c1",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        for line in [
            "drrctl create c1 t1 --no-donate",
            "drrctl attach c1 --no-receive --paranoid",
            "drrctl resize c1",
            "drrctl resize c1 20G",
            "drrctl watch --config x.toml",
            "drrctl upgrade --dry-run --force",
            "drrctl doctor --kernel 7.3.4+deb13-cloud-amd64 --json",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
