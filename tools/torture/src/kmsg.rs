// SPDX-License-Identifier: GPL-2.0

//! What the kernel's log says: some errors are the file system's own, and it says so there.

use std::fs::{read_to_string, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// `/dev/kmsg` gives one record a read, and none is longer.
const LONGEST: usize = 8192;

/// Whether a record of `/dev/kmsg`, `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`, is no older than
/// `since` after the boot, and has `words`.
fn matches(record: &str, words: &str, since: Duration) -> bool {
    let Some((head, text)) = record.split_once(';') else {
        return false;
    };
    let time = head.split(',').nth(2).and_then(|time| time.parse().ok());
    time.is_some_and(|time| Duration::from_micros(time) >= since) && text.contains(words)
}

fn uptime() -> Option<Duration> {
    let text = read_to_string("/proc/uptime").ok()?;
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs_f64(seconds))
}

/// Whether the kernel said `words` within the last `period`.
pub fn said(words: &str, period: Duration) -> bool {
    let log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg");
    let (Ok(mut log), Some(now)) = (log, uptime()) else {
        return false;
    };
    let since = now.saturating_sub(period);
    let mut record = [0; LONGEST];
    loop {
        match log.read(&mut record) {
            Ok(0) => return false,
            Ok(len) => {
                if matches(&String::from_utf8_lossy(&record[..len]), words, since) {
                    return true;
                }
            }
            // overwritten before it was read: the next read goes on with the oldest
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => return false,
        }
    }
}

/// Words that count once they were said, also when the log has lost them since.
pub struct Ever {
    words: &'static str,
    said: AtomicBool,
}

impl Ever {
    pub const fn new(words: &'static str) -> Self {
        let said = AtomicBool::new(false);
        Self { words, said }
    }

    /// Whether the kernel has said them since it booted, as far as the log goes.
    pub fn was_said(&self) -> bool {
        if !self.said.load(Relaxed) && said(self.words, Duration::MAX) {
            self.said.store(true, Relaxed);
        }
        self.said.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_by_age_and_words() {
        let record = "4,339,5140900,-;Direct I/O collision with buffered writes! File: /f2/f003\n";
        let words = "Direct I/O collision";
        assert!(matches(record, words, Duration::from_secs(5)));
        assert!(!matches(record, words, Duration::from_secs(6)));
        assert!(!matches(record, "Page cache", Duration::ZERO));
        assert!(!matches(" CONTINUATION=1", words, Duration::ZERO));
    }
}
