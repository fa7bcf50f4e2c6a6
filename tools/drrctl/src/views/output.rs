// SPDX-License-Identifier: GPL-2.0

//! Writes to standard output.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::error::{Code, Error, Result};

/// Returns whether to print colours: only to a terminal that has them, and not if `NO_COLOR` is set
/// (https://no-color.org).
pub fn colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && !unwanted && !dumb
}

/// Prints `text`.
pub fn print(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text)
        .and_then(|()| out.flush())
        .map_err(|error| {
            Error::new(
                Code::Failed,
                "standard output",
                error.to_string(),
                "give it a place that can be written to",
            )
        })
}

/// Prints `value` as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(
            Code::Failed,
            "JSON",
            error.to_string(),
            "report this with the output of 'dmsetup status'",
        )
    })?;
    text.push('\n');
    print(text.as_bytes())
}
