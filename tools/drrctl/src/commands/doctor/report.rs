// SPDX-License-Identifier: GPL-2.0

//! The report: a finding for each check, as lines for users and as JSON.

use serde::Serialize;

use crate::commands::doctor::pools::Pool;
use crate::commands::doctor::provider::Provider;

/// What a finding means for the use of DRR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// DRR can be used, but something should be looked at, or couldn't be seen.
    Warn,
    /// DRR can't be used as long as this is so.
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    pub found: String,
    /// What to do about it; `None` if nothing has to be done.
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, State::Ok, found.into(), None)
    }

    pub fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, State::Warn, found.into(), Some(remedy.into()))
    }

    pub fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, State::Fail, found.into(), Some(remedy.into()))
    }

    /// Keeps control characters out, as texts may come from other programs and from files.
    fn new(check: &'static str, state: State, found: String, remedy: Option<String>) -> Self {
        let plain = |text: String| text.replace(char::is_control, " ");
        Self {
            check,
            state,
            found: plain(found),
            remedy: remedy.map(plain),
        }
    }
}

/// All findings, and the facts that programs ask for.
#[derive(Serialize)]
pub struct Report {
    version: u32,
    drrctl: &'static str,
    kernel: String,
    /// Whether no check has failed.
    usable: bool,
    /// The provider of dm-thin's interface; `None` for a kernel that isn't running.
    provider: Option<Provider>,
    pools: Vec<Pool>,
    checks: Vec<Finding>,
}

impl Report {
    pub fn new(
        kernel: &str,
        provider: Option<Provider>,
        pools: Vec<Pool>,
        checks: Vec<Finding>,
    ) -> Self {
        Self {
            version: 1,
            drrctl: env!("CARGO_PKG_VERSION"),
            kernel: kernel.to_string(),
            usable: checks.iter().all(|finding| finding.state != State::Fail),
            provider,
            pools,
            checks,
        }
    }

    /// Returns the number of checks that have failed.
    pub fn failed(&self) -> usize {
        let failed = |finding: &&Finding| finding.state == State::Fail;
        self.checks.iter().filter(failed).count()
    }

    /// Returns a line for each finding: the state, the check, what was found, and behind " : " the
    /// remedy.
    pub fn lines(&self) -> String {
        let width = self.checks.iter().map(|finding| finding.check.len()).max();
        let width = width.unwrap_or(0);
        self.checks
            .iter()
            .map(|finding| {
                let (state, check, found) = (finding.state.word(), finding.check, &finding.found);
                match &finding.remedy {
                    None => format!("{state:4}  {check:width$}  {found}\n"),
                    Some(remedy) => format!("{state:4}  {check:width$}  {found} : {remedy}\n"),
                }
            })
            .collect()
    }
}

#[cfg(test)]
impl Report {
    /// Returns the findings of a check.
    pub fn of<'a>(&'a self, check: &'a str) -> impl Iterator<Item = &'a Finding> {
        self.checks.iter().filter(move |it| it.check == check)
    }

    pub fn usable(&self) -> bool {
        self.usable
    }

    pub fn provider(&self) -> Option<Provider> {
        self.provider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_one_for_each_finding() {
        let checks = vec![
            Finding::ok("kernel", "7.3"),
            Finding::warn("watch", "odd\nline\x1b", "do this"),
        ];
        let report = Report::new("7.3", None, Vec::new(), checks);
        assert_eq!(
            report.lines(),
            "ok    kernel  7.3\nwarn  watch   odd line  : do this\n"
        );
        assert_eq!((report.failed(), report.usable), (0, true));
    }

    #[test]
    fn what_has_failed_is_counted() {
        let checks = vec![Finding::fail("a", "b", "c"), Finding::fail("d", "e", "f")];
        let report = Report::new("7.3", None, Vec::new(), checks);
        assert_eq!((report.failed(), report.usable), (2, false));
    }
}
