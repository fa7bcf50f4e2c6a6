// SPDX-License-Identifier: GPL-2.0

//! Errors, as the user sees them: what failed, why, and what to do about it, in one line.

use std::fmt;

/// Exit codes; `cli::EXIT_CODES` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Failed = 1,
    Usage = 2,
    NotThere = 3,
    NotPermitted = 4,
    NotLoaded = 5,
    InUse = 6,
    WrongKind = 7,
}

#[derive(Debug)]
pub struct Error {
    pub code: Code,
    what: String,
    why: String,
    remedy: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(
        code: Code,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            what: what.into(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }

    /// Returns the error with more behind why it happened.
    pub fn but(&self, more: &str) -> Self {
        Self::new(
            self.code,
            &self.what,
            format!("{}{more}", self.why),
            &self.remedy,
        )
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    pub fn why(&self) -> &str {
        &self.why
    }

    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

/// Prints one line, even if a part has several.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}: {}: {}", self.what, self.why, self.remedy);
        f.write_str(&text.replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_line() {
        let error = Error::new(Code::Failed, "c1", "odd\nanswer", "do this");
        assert_eq!(error.to_string(), "c1: odd answer: do this");
    }
}
