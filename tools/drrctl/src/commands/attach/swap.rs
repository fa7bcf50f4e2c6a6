// SPDX-License-Identifier: GPL-2.0

//! Swaps a device's table, as a whole or not at all.

use std::time::Duration;

use drr_dm::{Device, Flags, Line};
use nix::sys::mman::{mlockall, munlockall, MlockAllFlags};
use nix::sys::signal::{
    self, SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::commands::attach::device::{gone, only, ready};
use crate::commands::attach::second::hide_number;
use crate::commands::attach::step::step;
use crate::device_mapper::control::{explain, Control};
use crate::device_mapper::inventory::SECOND;
use crate::device_mapper::requests::Audience;
use crate::error::{Code, Error, Result};

/// How long a swap waits for I/O in flight, and so the longest time for which it delays other I/O.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A timer that interrupts a request that takes longer than [`PATIENCE`]. The kernel then undoes
/// the request.
struct Limit(#[allow(dead_code)] Timer);

extern "C" fn nothing(_: libc::c_int) {}

impl Limit {
    fn new() -> nix::Result<Self> {
        // Without SA_RESTART, so that the request is interrupted.
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: The handler does nothing.
        unsafe { signal::sigaction(Signal::SIGALRM, &action) }?;
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        // Repeated, as the first signal may come before the request waits.
        timer.set(
            Expiration::IntervalDelayed(
                TimeSpec::from_duration(PATIENCE),
                TimeSpec::from_duration(Duration::from_secs(1)),
            ),
            TimerSetTimeFlags::empty(),
        )?;
        Ok(Self(timer))
    }
}

/// Keeps in memory what drrctl may need while a device is suspended, which can be the one with the root
/// file system. A request suspends and resumes the device, so there is something to do in between only
/// if the kernel refuses the new table after it has suspended the device.
struct InMemory;

impl InMemory {
    fn new() -> Self {
        // Fails if the memory is limited: then it is as likely to be there as any other program's.
        let _ = mlockall(MlockAllFlags::MCL_CURRENT);
        Self
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = munlockall();
    }
}

/// Loads a table into a device and makes it the active one, if the device's table still is that of
/// `before`. `steps` are the names of the steps after loading and after activating.
pub fn swap(control: &Control, before: &Device, line: &Line, steps: [&str; 2]) -> Result<()> {
    let name = &before.name;
    let audience = if before.uuid.starts_with(SECOND) {
        Audience::Nobody
    } else {
        Audience::All
    };
    control.load(name, line, before.read_only)?;
    step(steps[0]);
    let undo = |error: Error| {
        let _ = control.clear(name);
        error
    };
    // Checked as late as possible: a program that suspends the device takes a snapshot, and the
    // swap must not resume the device.
    let now = control.device(name).map_err(undo)?;
    if now.suspended {
        return Err(undo(ready(&now).err().unwrap_or_else(|| gone(name))));
    }
    if now.table != before.table || now.number != before.number {
        return Err(undo(Error::new(
            Code::InUse,
            name,
            "somebody else changed its table meanwhile",
            "try again when that is done",
        )));
    }
    let _in_memory = InMemory::new();
    let limit = Limit::new();
    let done = control.resume(name, Flags::SKIP_LOCKFS, audience);
    drop(limit);
    if before.uuid.starts_with(SECOND) {
        hide_number(before.number);
    }
    step(steps[1]);
    let Err(error) = done else {
        return Ok(());
    };
    let Ok(after) = control.device(name) else {
        return Err(gone(name));
    };
    if same(&after.table, line) && !after.suspended {
        return Ok(()); // The table was swapped, but udev did not answer.
    }
    let _ = control.clear(name);
    if after.suspended {
        // The kernel has refused the table after it had suspended the device.
        if after.table != before.table {
            if let [old] = &before.table[..] {
                let _ = control.load(name, old, before.read_only);
            }
        }
        let _ = control.resume(name, Flags::NONE, audience);
    }
    Err(match error.number {
        Some(libc::EINTR) => Error::new(
            Code::InUse,
            name,
            format!("its I/O did not end within {} seconds", PATIENCE.as_secs()),
            "look whether its pool is out of space: dmsetup status --target thin-pool",
        ),
        _ => explain(name, "swap the table of", &error),
    })
}

/// Returns whether a table has a single line, with the target, the length and the first argument of
/// `line`. The kernel may write feature arguments in another way.
fn same(table: &[Line], line: &Line) -> bool {
    only(table, &line.target).is_some_and(|is| {
        let first = |text: &str| text.split(' ').next().map(str::to_string);
        is.length == line.length && first(&is.arguments) == first(&line.arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::attach::device::tests::line;

    #[test]
    fn tables_are_compared() {
        assert!(same(
            &[line("drr", "253:9 1 paranoid")],
            &line("drr", "253:9")
        ));
        assert!(!same(&[line("drr", "253:8")], &line("drr", "253:9")));
        let longer = Line {
            length: 16,
            ..line("drr", "253:9")
        };
        assert!(!same(&[line("drr", "253:9")], &longer));
        assert!(!same(&[line("thin", "253:9 1")], &line("drr", "253:9")));
    }
}
