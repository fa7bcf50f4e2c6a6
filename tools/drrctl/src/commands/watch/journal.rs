// SPDX-License-Identifier: GPL-2.0

//! Writes `watch`'s lines to stderr, with priorities if systemd's journal reads them, and limits
//! their rate.

use std::time::{Duration, Instant};

/// Most lines at once; after these, one more is allowed each [`PAUSE`].
const BURST: u32 = 50;
/// The time after which one more line is allowed.
const PAUSE: Duration = Duration::from_secs(1);

/// The priority of a line, as syslog numbers it.
#[derive(Clone, Copy)]
pub enum Level {
    Warning = 4,
    Info = 6,
}

/// The writer of lines.
pub struct Journal {
    /// Whether lines begin with their priority.
    priorities: bool,
    /// Number of lines that may be written now.
    left: u32,
    /// When `left` was increased.
    filled: Instant,
    /// Number of lines that were dropped since the last one was written.
    dropped: u64,
}

impl Journal {
    pub fn new() -> Self {
        Self {
            priorities: std::env::var_os("JOURNAL_STREAM").is_some(),
            left: BURST,
            filled: Instant::now(),
            dropped: 0,
        }
    }

    /// Returns the number of lines that were dropped before this one, or `None` if this one is to
    /// be dropped.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let passed = now.duration_since(self.filled).as_millis() / PAUSE.as_millis();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(BURST);
            self.left = self.left.saturating_add(more).min(BURST);
            self.filled = now;
        }
        if self.left == 0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.dropped))
    }

    /// Writes a line, unless too many have been written lately.
    pub fn say(&mut self, level: Level, text: &str) {
        match self.admit(Instant::now()) {
            None => {}
            Some(0) => self.write(level, text),
            Some(dropped) => {
                self.write(Level::Warning, &format!("{dropped} lines were left out"));
                self.write(level, text);
            }
        }
    }

    fn write(&self, level: Level, text: &str) {
        let text = text.replace('\n', " ");
        if self.priorities {
            eprintln!("<{}>{text}", level as u8);
        } else {
            eprintln!("drrctl: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut() {
        let mut journal = Journal::new();
        let start = journal.filled;
        for _ in 0..BURST {
            assert_eq!(journal.admit(start), Some(0));
        }
        assert_eq!(journal.admit(start), None);
        assert_eq!(journal.admit(start), None);
        assert_eq!(journal.admit(start + PAUSE), Some(2));
        assert_eq!(journal.admit(start + PAUSE), None);
        assert_eq!(journal.admit(start + PAUSE * 10), Some(1));
    }
}
