// SPDX-License-Identifier: GPL-2.0

//! The swap of a device's table, which happens as a whole or not at all.

use std::time::Duration;

use drr_dm::{Device, Flags, Line};
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

/// How long others' I/O may hold up the swap, and the swap others' I/O.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Interrupts a request that doesn't come to its end. The kernel then takes it back.
struct Limit(#[allow(dead_code)] Timer);

extern "C" fn nothing(_: libc::c_int) {}

impl Limit {
    fn new() -> nix::Result<Self> {
        // without SA_RESTART
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing
        unsafe { signal::sigaction(Signal::SIGALRM, &action) }?;
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        // again and again, as the first may come when nothing waits yet
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

/// Loads a table into a device and makes it the active one, if the device still has `before`. The
/// steps are those after the one and the other.
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
    // as late as can be: who suspends it takes a snapshot, and it must not be resumed by us
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
        return Ok(()); // it's udev that didn't answer
    }
    let _ = control.clear(name);
    if after.suspended {
        // the kernel refused the table when it had suspended the device already
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

fn same(table: &[Line], line: &Line) -> bool {
    only(table, &line.target).is_some_and(|is| {
        let first = |text: &str| text.split(' ').next().map(str::to_string);
        is.length == line.length && first(&is.arguments) == first(&line.arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, arguments: &str) -> Line {
        Line {
            start: 0,
            length: 8,
            target: target.into(),
            arguments: arguments.into(),
        }
    }

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
