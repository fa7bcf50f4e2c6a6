// SPDX-License-Identifier: GPL-2.0

//! drrctl: sets up dm-drr devices, and shows which devices read whose data, and which serve others.
//!
//! [`cli`] defines the command line, and [`commands`] carries the commands out. [`device_mapper`]
//! sends requests to the kernel, [`answers`] parses the kernel's texts, and [`views`] prints
//! results.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

mod answers;
mod cli;
mod commands;
mod device_mapper;
mod error;
mod pages;
#[cfg(test)]
mod schema;
mod views;

use cli::{Cli, Command};
use commands::heat::{paint, plot, HeatMap};
use commands::{
    attach, blocks, doctor, duplicates, export, layers, resize, setup, top, upgrade, watch,
};
use device_mapper::control::Control;
use device_mapper::inventory::{self, Inventory};
use error::Result;
use views::output::{colour, print, print_json};
use views::show;

fn main() -> ExitCode {
    // `drrctl list | head` is to end without an error message, as other tools do.
    // SAFETY: Installs no handler, but the default action.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drrctl: {error}");
            ExitCode::from(error.code as u8)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "drrctl", &mut script);
            return print(&script);
        }
        Command::Man { folder } => return pages::write(&folder),
        // It has to work without device-mapper, too.
        Command::Doctor { kernel, json } => return doctor::run(kernel.as_deref(), json.json),
        _ => {}
    }
    let control = Control::new()?;
    match command {
        Command::Create {
            name,
            thin_device,
            features,
        } => setup::create(&control, &name, &thin_device, &features.words()),
        Command::Remove { name } => setup::remove(&control, &name),
        Command::Reset { name } => setup::reset(&control, name.as_deref()),
        Command::Attach { name, features } => attach::attach(&control, &name, &features.words()),
        Command::Detach { name } => attach::detach(&control, &name),
        Command::Resize { name, size } => resize::resize(&control, &name, size),
        Command::Upgrade { dry_run, force } => upgrade::run(&control, dry_run, force),
        Command::Settle { sequence } => attach::settle(&control, sequence),
        Command::Watch { config } => watch::run(&control, &config),
        Command::List { json } => {
            let inventory = Inventory::new(&control)?;
            if json.json {
                return print_json(&show::list_json(&inventory.drr));
            }
            print(show::list(&inventory.drr).as_bytes())
        }
        Command::Status { name, json } => status(&control, name.as_deref(), json.json),
        Command::Layers { pool, json } => {
            let (inventory, pool) = of_pool(&control, pool.pool.as_deref())?;
            let layers = layers::Layers::collect(&control, &inventory, &pool)?;
            if json.json {
                return print_json(&layers);
            }
            print(layers.draw().as_bytes())
        }
        Command::Heatmap { pool, output, json } => {
            let (inventory, pool) = of_pool(&control, pool.pool.as_deref())?;
            let map = HeatMap::collect(&control, &inventory, &pool)?;
            match output {
                Some(path) => plot::write(&map, &path),
                None if json.json => print_json(&map),
                None => print(paint::heatmap(&map, colour()).as_bytes()),
            }
        }
        Command::Blocks {
            pool,
            on,
            off,
            json,
        } => {
            let (inventory, pool) = of_pool(&control, pool.pool.as_deref())?;
            if on || off {
                return blocks::switch(&control, &inventory, &pool, on);
            }
            let blocks = blocks::Blocks::collect(&control, &inventory, &pool)?;
            if json.json {
                return print_json(&blocks);
            }
            print(blocks.draw().as_bytes())
        }
        Command::Duplicates { pool, list, json } => {
            let (inventory, pool) = of_pool(&control, pool.pool.as_deref())?;
            let found = duplicates::Duplicates::collect(&control, &inventory, &pool, list)?;
            if json.json {
                return print_json(&found);
            }
            print(found.draw().as_bytes())
        }
        Command::Export(options) => export::run(control, &options),
        Command::Top { interval } => top::live::run(&control, interval),
        Command::Completion { .. } | Command::Man { .. } | Command::Doctor { .. } => Ok(()), // Handled above.
    }
}

/// Returns the inventory, and the name of the pool that the user means.
fn of_pool(control: &Control, pool: Option<&str>) -> Result<(Inventory, String)> {
    let inventory = Inventory::new(control)?;
    let pool = inventory.pool(pool)?;
    Ok((inventory, pool))
}

/// Carries out `status`, for one drr device or for all.
fn status(control: &Control, name: Option<&str>, json: bool) -> Result<()> {
    let inventory = Inventory::new(control)?;
    let wanted = match name {
        Some(name) => vec![inventory.find_drr(name)?],
        None => inventory.drr.iter().collect(),
    };
    let mut devices = Vec::new();
    for device in wanted {
        if let Some(status) = inventory::status_of(control, &device.name)? {
            devices.push((device, status));
        }
    }
    if json {
        return print_json(&show::status_json(&devices));
    }
    print(show::status(&devices).as_bytes())
}
