// SPDX-License-Identifier: GPL-2.0

//! Steps at which a test may stop drrctl.

use nix::sys::signal::{self, Signal};

/// For tests: stops itself at this step, to be killed or continued. Harmless, as any step may be
/// its last anyway.
pub fn step(name: &str) {
    if std::env::var("DRRCTL_STOP_AT").is_ok_and(|wanted| wanted == name) {
        let _ = signal::raise(Signal::SIGSTOP);
    }
}
