// SPDX-License-Identifier: GPL-2.0

//! `upgrade`: replaces the loaded modules with the installed ones, while devices are in use.
//!
//! Each device with a drr table gets a table without drr, the modules are unloaded and loaded, and
//! each device gets its drr table back. In between, the devices work as they do without DRR. All
//! is checked that can be checked before the first device is changed. Whatever fails, drrctl puts
//! back what it can: first the modules, then the tables.
//!
//! `upgrade` holds the lock for changing devices all the while, so `watch` and other processes wait
//! for it. [`journal`] keeps what has to be put back, should drrctl be killed, and [`kept`] the
//! files of the modules that are loaded. [`devices`] changes tables, and [`modules`] unloads and
//! loads.

pub mod devices;
pub mod journal;
pub mod kept;
pub mod modules;

use nix::sys::signal::{SigSet, Signal};

use crate::commands::attach::clean_up::clean_up_if_need_be;
use crate::commands::attach::step::step;
use crate::commands::doctor::host::{programs_apart, Host};
use crate::commands::doctor::modules::Modules;
use crate::commands::upgrade::devices::{put_back, take_out, Held, Left};
use crate::commands::upgrade::modules::{Change, Failed};
use crate::device_mapper::control::Control;
use crate::device_mapper::runtime::{self, Lock};
use crate::error::{Code, Error, Result};
use crate::views::output::print;

/// What to change, the devices that this concerns, and whether an earlier `upgrade` has begun it.
struct Plan {
    change: Change,
    held: Vec<Held>,
    /// Whether devices are to be put back that an interrupted `upgrade` has taken drr from.
    interrupted: bool,
}

impl Plan {
    /// Looks at modules and devices. Fails if they can't be changed; nothing has been changed then.
    fn new(control: &Control, host: &Host, force: bool) -> Result<Self> {
        let change = Change::new(host, &Modules::look(host))?;
        let journal = journal::read()?;
        let interrupted = !journal.is_empty();
        let found = match change.is_needed() {
            true => devices::with_drr(control, force)?,
            false => Vec::new(),
        };
        Ok(Self {
            change,
            held: devices::with_earlier(found, journal),
            interrupted,
        })
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        if self.change.is_needed() || !self.interrupted {
            text.push_str(&self.change.describe());
        }
        for device in &self.held {
            text.push_str(&format!(
                "device  {}  {}\n",
                device.name,
                device.how.describe()
            ));
        }
        if self.interrupted {
            text.push_str("an earlier upgrade was interrupted: this one ends it\n");
        }
        text
    }
}

/// Upgrades the modules. With `dry_run`, only says what would be done. With `force`, also takes drr
/// out from tables that `attach` hasn't made.
pub fn run(control: &Control, dry_run: bool, force: bool) -> Result<()> {
    let lock = runtime::lock()?;
    clean_up_if_need_be(control, &lock)?;
    let host = Host::new("/", None, &programs_apart);
    if !dry_run {
        // What is loaded may still be on disk, and may not have been loaded by drrctl.
        kept::keep(&lock);
    }
    let plan = Plan::new(control, &host, force)?;
    print(plan.describe().as_bytes())?;
    if dry_run || !(plan.change.is_needed() || plan.interrupted) {
        return Ok(());
    }
    put_off_signals();
    journal::write(&plan.held)?;
    carry_out(control, &lock, &host, &plan)?;
    kept::keep(&lock);
    print(b"done\n")
}

/// Puts off the signals that end programs or stop them, until this one has ended: half of an
/// upgrade helps nobody. SIGALRM stays, as it ends requests to the kernel that take too long.
fn put_off_signals() {
    let mut set = SigSet::all();
    set.remove(Signal::SIGALRM);
    let _ = set.thread_block();
}

/// Carries out a plan. If it fails, the journal keeps the devices that may be without drr.
fn carry_out(control: &Control, lock: &Lock, host: &Host, plan: &Plan) -> Result<()> {
    if plan.change.is_needed() {
        for device in &plan.held {
            if let Err(error) = take_out(control, lock, device) {
                let outcome = "nothing has changed";
                return Err(undone(control, lock, &plan.held, &error, outcome));
            }
            step("taken-out");
        }
    }
    if let Err(failed) = plan.change.carry_out(host) {
        return Err(ended(control, lock, &plan.held, &failed));
    }
    step("modules-loaded");
    match put_back(control, lock, &plan.held) {
        None => Ok(()),
        Some(left) if left.is_refused && plan.change.has_copies() => {
            Err(go_back(control, lock, host, &plan.change, left))
        }
        Some(Left { held, error, .. }) => Err(Error::new(
            Code::Failed,
            devices::names(&held),
            format!(
                "the modules are new, but drr couldn't be attached again: {}",
                error.why()
            ),
            "mend that, and then: drrctl upgrade, which attaches it",
        )),
    }
}

/// Loads the old modules again, as the new dm-drr refuses tables that the old one took. Returns the
/// error with what came of it.
fn go_back(control: &Control, lock: &Lock, host: &Host, change: &Change, left: Left) -> Error {
    let error = Error::new(
        Code::Failed,
        devices::names(&left.held),
        format!("the new dm-drr can't be attached: {}", left.error.why()),
        "see what dmesg says, and install another version of dm-drr-dkms",
    );
    // The new dm-drr may have been attached to others.
    let held = devices::with_drr(control, true).and_then(|found| {
        let held = devices::with_earlier(found, left.held);
        journal::write(&held).map(|()| held)
    });
    let stay = |why: &Error| {
        format!(
            "the new modules stay, as {} keeps them: {}",
            why.what(),
            why.why()
        )
    };
    let held = match held {
        Ok(held) => held,
        Err(why) => return error.but(&format!("; {}", stay(&why))),
    };
    for device in &held {
        if let Err(why) = take_out(control, lock, device) {
            return undone(control, lock, &held, &error, &stay(&why));
        }
    }
    step("going-back");
    ended(control, lock, &held, &change.go_back(host, error))
}

/// Puts the devices back after a failed change of modules, if there is a dm-drr for them. Returns
/// the error with what came of it.
fn ended(control: &Control, lock: &Lock, held: &[Held], failed: &Failed) -> Error {
    match failed.drr_is_loaded {
        true => undone(control, lock, held, &failed.error, &failed.outcome),
        false => failed.without_drr(&devices::names(held)),
    }
}

/// Puts the devices back after an error, and returns the error with what came of it.
fn undone(control: &Control, lock: &Lock, held: &[Held], error: &Error, outcome: &str) -> Error {
    match put_back(control, lock, held) {
        None => error.but(&format!("; {outcome}")),
        Some(left) => error.but(&format!(
            "; {outcome}, but these are without drr now, and work so: {} ({})",
            devices::names(&left.held),
            left.error.why()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_wait() {
        // In a thread of its own, as the others go on.
        let blocked = std::thread::spawn(|| {
            put_off_signals();
            SigSet::thread_get_mask()
        });
        let blocked = blocked.join().expect("joined").expect("a mask");
        for signal in Signal::iterator() {
            let is_free = matches!(signal, Signal::SIGALRM | Signal::SIGKILL | Signal::SIGSTOP);
            assert_eq!(blocked.contains(signal), !is_free, "{signal}");
        }
    }
}
