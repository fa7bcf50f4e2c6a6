// SPDX-License-Identifier: GPL-2.0

//! `watch`: attaches drr to the thin devices of the configured pools as they become active.
//!
//! Each program that makes a device also resumes it, of which the kernel sends an event; `watch`
//! sleeps until one comes. It looks at a device without opening it, so that no request of another
//! program fails with `EBUSY`. A device that is suspended, or whose pool is, is attached at the
//! event of the resumption. Where an event may have been missed, `watch` looks at all devices: at
//! its start, when events were lost, when a pool changes, and with a new configuration.
//!
//! [`config`] reads the configuration, and [`journal`] writes messages.

pub mod config;
pub mod journal;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use drr_dm::Device;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sd_notify::NotifyState;

use crate::answers::table;
use crate::commands::attach::attach_to;
use crate::commands::attach::clean_up::{clean_up, clean_up_if_need_be};
use crate::commands::attach::device::number_of;
use crate::commands::attach::second::forget_links;
use crate::commands::upgrade::kept;
use crate::commands::watch::config::Config;
use crate::commands::watch::journal::{Journal, Level};
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::SECOND;
use crate::device_mapper::runtime::{self, Mark};
use crate::device_mapper::uevent::{Action, Received, Socket};
use crate::error::{Code, Error, Result};

/// Watches until SIGTERM or SIGINT. `path` is that of the configuration.
pub fn run(control: &Control, path: &Path) -> Result<()> {
    let config = Config::read(path)?;
    let _only_one = runtime::lock_watch()?;
    let failed = |what: &str, error: Errno| {
        Error::new(
            Code::Failed,
            what,
            error.to_string(),
            "run it as root, in the machine's own network namespace",
        )
    };
    let signals = signals().map_err(|error| failed("signals", error))?;
    // Before the first look at all devices, so that changes during the look cause events.
    let events = Socket::new().map_err(|error| failed("events of the kernel", error))?;
    let mut watch = Watch {
        control,
        path: path.to_path_buf(),
        config,
        journal: Journal::new(),
        said: HashMap::new(),
    };
    watch.begin()?;
    tell(&[NotifyState::Ready]);
    loop {
        let mut ready = [
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(failed("poll", error)),
        }
        while let Ok(Some(info)) = signals.read_signal() {
            if info.ssi_signo == Signal::SIGHUP as u32 {
                watch.reload();
            } else {
                tell(&[NotifyState::Stopping]);
                watch
                    .journal
                    .say(Level::Info, "stops; what is attached stays attached");
                return Ok(());
            }
        }
        watch
            .drain(&events)
            .map_err(|error| failed("events of the kernel", error))?;
    }
}

/// Returns a descriptor for the signals that end `watch` or reload its configuration. They are
/// blocked, and read between two devices.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Notifies systemd, if it runs.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(false, states);
}

/// The state of `watch`.
struct Watch<'a> {
    control: &'a Control,
    path: PathBuf,
    config: Config,
    journal: Journal,
    /// The last message why drr isn't attached to a disk, by the disk's sequence number. It is not
    /// repeated.
    said: HashMap<u64, String>,
}

impl Watch<'_> {
    /// Removes what killed processes have left behind, and looks at all devices.
    fn begin(&mut self) -> Result<()> {
        let lock = runtime::lock()?;
        for name in clean_up(self.control, &lock)? {
            let text = format!("{name}: a drrctl that was killed left something behind: removed");
            self.journal.say(Level::Warning, &text);
        }
        drop(lock);
        if !self.config.has_pools() {
            let text = format!(
                "no pools are configured: name some in {}, and reload",
                self.path.display()
            );
            self.journal.say(Level::Warning, &text);
        }
        self.look_at_all();
        kept::keep(&runtime::lock()?);
        Ok(())
    }

    /// Reads the configuration again. If it is wrong, keeps the old one.
    fn reload(&mut self) {
        match Config::read(&self.path) {
            Ok(config) => {
                self.config = config;
                self.said.clear();
                let text = format!("has read {} again", self.path.display());
                self.journal.say(Level::Info, &text);
                self.look_at_all();
            }
            Err(error) => {
                let text = format!("goes on with the configuration it had: {error}");
                self.journal.say(Level::Warning, &text);
            }
        }
    }

    /// Handles all events that have come. Looks at each device only once.
    fn drain(&mut self, events: &Socket) -> nix::Result<()> {
        let (mut changed, mut lost) = (BTreeSet::new(), false);
        loop {
            match events.receive()? {
                Received::Event(event) => match event.action {
                    Action::Change => {
                        changed.insert(event.number);
                    }
                    Action::Remove => {
                        if let Some(sequence) = event.sequence {
                            self.said.remove(&sequence);
                            runtime::removed(sequence);
                            forget_links();
                        }
                    }
                },
                Received::Other => {}
                Received::Lost => lost = true,
                Received::Nothing => break,
            }
        }
        if lost {
            let text = "events were lost: looks at all devices";
            self.journal.say(Level::Warning, text);
            runtime::forget_gone();
            self.look_at_all();
            return Ok(());
        }
        for number in changed {
            // The device has gone, or is not device-mapper's.
            let Some(name) = runtime::name(number) else {
                continue;
            };
            let Ok(device) = self.control.device(&name) else {
                continue;
            };
            if device.table.iter().any(|line| line.target == "thin-pool") {
                self.look_at_all();
            } else {
                self.look_at(&device);
            }
        }
        Ok(())
    }

    /// Looks at all devices.
    fn look_at_all(&mut self) {
        let devices = match self.control.devices() {
            Ok(devices) => devices,
            Err(error) => {
                self.journal.say(Level::Warning, &error.to_string());
                return;
            }
        };
        for (name, _) in devices {
            if let Ok(device) = self.control.device(&name) {
                self.look_at(&device);
            }
        }
    }

    /// Returns the pool of a thin device that drr is to be attached to, and is not yet; `None` for
    /// other devices.
    fn is_wanted(&self, device: &Device) -> Option<String> {
        let [line] = &device.table[..] else {
            return None;
        };
        let ours = device.uuid.starts_with(SECOND);
        // LVM's devices are left alone. If another program is changing the device, its resumption
        // will cause an event.
        if ours || device.uuid.starts_with("LVM-") || device.suspended || device.staged {
            return None;
        }
        if line.target != "thin" {
            return None;
        }
        let (pool, _) = table::thin(&line.arguments)?;
        let pool = runtime::attribute(number_of(&pool)?, "dm/name")?;
        self.config.wants(&pool, &device.name).then_some(pool)
    }

    /// Attaches drr to a device if it is to be attached.
    fn look_at(&mut self, device: &Device) {
        let Some(pool) = self.is_wanted(device) else {
            return;
        };
        let Some(sequence) = runtime::sequence(device.number) else {
            return;
        };
        if Mark::Detached.is_on(sequence) {
            return;
        }
        match self.attach(device) {
            Ok(true) => {
                self.said.remove(&sequence);
                let text = format!("{}: attached, of pool {pool}", device.name);
                self.journal.say(Level::Info, &text);
            }
            Ok(false) => {}
            // The device was removed meanwhile.
            Err(error) if error.code == Code::NotThere => {}
            // The device was suspended, or another table was loaded, meanwhile. The resumption will
            // cause an event.
            Err(error) if error.code == Code::InUse && !self.is_still_wanted(device) => {}
            Err(error) => {
                let text = error.to_string();
                if self.said.get(&sequence) != Some(&text) {
                    let line = format!("not attached: {text}");
                    self.journal.say(Level::Warning, &line);
                    self.said.insert(sequence, text);
                }
            }
        }
    }

    /// Returns whether drr is still to be attached to the device.
    fn is_still_wanted(&self, device: &Device) -> bool {
        self.control
            .device(&device.name)
            .is_ok_and(|now| now.number == device.number && self.is_wanted(&now).is_some())
    }

    /// Attaches drr to a device. Returns `false` if it is not to be attached any more, as another
    /// process has changed the device before this one got the lock.
    fn attach(&self, device: &Device) -> Result<bool> {
        let lock = runtime::lock()?;
        clean_up_if_need_be(self.control, &lock)?;
        let now = self.control.device(&device.name)?;
        if now.number != device.number || self.is_wanted(&now).is_none() {
            return Ok(false);
        }
        let marked = runtime::sequence(now.number).is_none_or(|it| Mark::Detached.is_on(it));
        if marked {
            return Ok(false);
        }
        attach_to(self.control, &lock, &now, &self.config.features)?;
        Ok(true)
    }
}
