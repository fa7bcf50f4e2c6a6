// SPDX-License-Identifier: GPL-2.0

//! `export`: gives the figures of all drr devices to Prometheus, over HTTP, in a file, or printed.
//!
//! [`metrics`] formats the figures, [`http`] serves them, and the tests in `dashboard` check that
//! all figures in the dashboard for Grafana exist.

#[cfg(test)]
pub mod dashboard;
pub mod http;
pub mod metrics;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Args;

use crate::commands::duplicates::Duplicates;
use crate::commands::export::metrics::{Cached, Found, LayerCount};
use crate::commands::layers::Layers;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::{self, Inventory};
use crate::error::{Code, Error, Result};

#[derive(Args)]
pub struct Export {
    /// Serve http://ADDRESS:PORT/metrics until ended; 127.0.0.1:9776 if no address is given
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:9776",
        value_parser = http::address,
        conflicts_with = "textfile"
    )]
    listen: Option<SocketAddr>,
    /// Listen on an address that others reach, too: whoever does can read the figures
    #[arg(long, requires = "listen")]
    allow_remote: bool,
    /// Write a file for node_exporter's textfile collector, FILE.prom, in one go
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
    /// Tell how much of the pools is in memory more than once; each answer takes a walk through
    /// all records
    #[arg(long)]
    duplicates: bool,
    /// Don't tell the donors of each device apart: there may be 128
    #[arg(long)]
    no_donors: bool,
}

/// Asks for all figures, once for each answer.
struct Collector {
    control: Control,
    duplicates: bool,
    donors: bool,
}

impl Collector {
    /// Returns the figures of all devices and pools that could be asked, and the first error.
    fn look(&self) -> (Found, Option<Error>) {
        let start = Instant::now();
        let mut found = Found::default();
        let mut trouble = Trouble(None);
        if let Some(inventory) = trouble.note(Inventory::new(&self.control)) {
            self.devices(&inventory, &mut found, &mut trouble);
            self.pools(&inventory, &mut found, &mut trouble);
        }
        found.complete = trouble.0.is_none();
        found.seconds = start.elapsed().as_secs_f64();
        (found, trouble.0)
    }

    /// Adds the figures of the devices to `found`.
    fn devices(&self, inventory: &Inventory, found: &mut Found, trouble: &mut Trouble) {
        for device in &inventory.drr {
            let status = inventory::status_of(&self.control, &device.name);
            if let Some(Some(status)) = trouble.note(status) {
                found.devices.push((device.clone(), status));
            }
        }
    }

    /// Adds the figures of the pools to `found`.
    fn pools(&self, inventory: &Inventory, found: &mut Found, trouble: &mut Trouble) {
        for pool in inventory.pools() {
            let name = || pool.to_string();
            let layers = Layers::collect(&self.control, inventory, pool);
            if let Some(layers) = trouble.note_unless_gone(layers) {
                let live = layers.layers.iter().filter(|layer| layer.live()).count();
                found.layers.push(LayerCount {
                    pool: name(),
                    live: live as u64,
                    deleted: (layers.layers.len() - live) as u64,
                });
            }
            if !self.duplicates {
                continue;
            }
            let cached = Duplicates::collect(&self.control, inventory, pool, false);
            if let Some(cached) = trouble.note_unless_gone(cached) {
                let (bytes, extra_bytes) = cached.bytes();
                found.cached.push(Cached {
                    pool: name(),
                    bytes,
                    extra_bytes,
                });
            }
        }
    }

    /// Returns the figures in Prometheus' text format, and the first error.
    fn text(&self) -> Result<(String, Option<Error>)> {
        let (found, trouble) = self.look();
        let text = metrics::text(&found, self.donors).map_err(|error| {
            Error::new(
                Code::Failed,
                "metrics",
                error.to_string(),
                "report this with the output of 'dmsetup status'",
            )
        })?;
        Ok((text, trouble))
    }
}

/// The first error.
struct Trouble(Option<Error>);

impl Trouble {
    /// Returns the value of a result. Keeps the error if it is the first.
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.0.get_or_insert(error).code)
            .ok()
    }

    /// As [`Self::note`], but ignores that the last drr device of a pool has gone meanwhile.
    fn note_unless_gone<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Err(error) if error.code == Code::NotThere => None,
            result => self.note(result),
        }
    }
}

/// Serves, writes or prints the figures.
pub fn run(control: Control, options: &Export) -> Result<()> {
    let collector = Collector {
        control,
        duplicates: options.duplicates,
        donors: !options.no_donors,
    };
    if let Some(address) = options.listen {
        return listen(collector, address, options.allow_remote);
    }
    // Written even after an error, as an old file would be believed.
    let (text, trouble) = collector.text()?;
    match &options.textfile {
        Some(path) => write(path, &text)?,
        None => crate::views::output::print(text.as_bytes())?,
    }
    trouble.map_or(Ok(()), Err)
}

/// Serves the figures over HTTP. Returns only errors.
fn listen(collector: Collector, address: SocketAddr, allow_remote: bool) -> Result<()> {
    if !address.ip().is_loopback() && !allow_remote {
        return Err(Error::new(
            Code::Usage,
            address.to_string(),
            "others reach this address, and could read the figures",
            "use 127.0.0.1 or [::1], or --allow-remote",
        ));
    }
    let refused = |error: std::io::Error| {
        let code = match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Code::InUse,
            Some(libc::EACCES) => Code::NotPermitted,
            _ => Code::Failed,
        };
        Error::new(
            code,
            address.to_string(),
            format!("can't listen there: {error}"),
            "choose another address or port",
        )
    };
    let listener = TcpListener::bind(address).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    crate::views::output::print(format!("http://{address}{}\n", http::PATH).as_bytes())?;
    // Pages are made one at a time. Errors are logged only if they differ from the last one.
    let state = Mutex::new((collector, None::<String>));
    let page = move || {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, trouble) = state.0.text().map_err(|error| error.to_string())?;
        let trouble = trouble.map(|error| error.to_string());
        if trouble != state.1 {
            match &trouble {
                Some(trouble) => eprintln!("drrctl: {trouble}"),
                None => eprintln!("drrctl: all is well again"),
            }
            state.1 = trouble;
        }
        Ok(text)
    };
    Err(refused(http::serve(
        listener,
        Arc::new(page),
        http::PATIENCE,
    )))
}

/// Replaces the file at `path` by one with `text`, as a whole: a program that reads it sees either
/// the old or the new content.
fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |why: String, remedy: &str| {
        Error::new(Code::Failed, path.display().to_string(), why, remedy)
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| name.ends_with(".prom")) else {
        return Err(Error::new(
            Code::Usage,
            path.display().to_string(),
            "node_exporter reads only files whose names end with .prom",
            "use e.g. /var/lib/prometheus/node-exporter/drr.prom",
        ));
    };
    // The new file has a name that node_exporter doesn't read. The name is always the same, so that
    // killed processes don't leave more and more files behind.
    let new = path.with_file_name(format!(".{name}.new"));
    let _ = fs::remove_file(&new);
    File::create_new(&new)
        .and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(
                format!("can't write it: {error}"),
                "name a file in a folder that can be written to",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn options(line: &str) -> Option<Export> {
        match Cli::try_parse_from(line.split(' ')).ok()?.command {
            crate::cli::Command::Export(options) => Some(options),
            _ => None,
        }
    }

    #[test]
    fn the_address_is_loopback_unless_wanted() {
        let listen = |line| options(line).and_then(|it| it.listen);
        let address = listen("drrctl export --listen").expect("an address");
        assert!(address.ip().is_loopback());
        assert!(listen("drrctl export").is_none());
        let address = listen("drrctl export --listen [::1]:1").expect("an address");
        assert_eq!(address.port(), 1);
        for line in [
            "drrctl export --listen 80",
            "drrctl export --allow-remote",
            "drrctl export --listen --textfile x.prom",
        ] {
            assert!(options(line).is_none(), "{line}");
        }
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("drrctl-prom-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("drr.prom");
        // A crash has left half a file.
        fs::write(folder.join(".drr.prom.new"), "half").expect("written");
        for text in ["drr_up 1\n", "drr_up 0\n"] {
            write(&path, text).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
            assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
        }
        let error = write(&folder.join("drr.txt"), "").expect_err("refused");
        assert_eq!(error.code, Code::Usage);
        // A folder can't be replaced, and the attempt leaves no file behind.
        fs::create_dir(folder.join("x.prom")).expect("a folder");
        assert!(write(&folder.join("x.prom"), "").is_err());
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2);
        fs::remove_dir_all(&folder).expect("removed");
        assert!(write(&path, "").is_err());
    }
}
