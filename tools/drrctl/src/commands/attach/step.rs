// SPDX-License-Identifier: GPL-2.0

//! Steps at which tests can stop drrctl.

use nix::sys::signal::{self, Signal};

/// Stops the process if a test has named this step, so that the test can kill or continue it. Does
/// no harm outside of tests, as the process may be killed at any step anyway.
pub fn step(name: &str) {
    if std::env::var("DRRCTL_STOP_AT").is_ok_and(|wanted| wanted == name) {
        let _ = signal::raise(Signal::SIGSTOP);
    }
}
