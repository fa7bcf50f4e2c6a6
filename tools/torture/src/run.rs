// SPDX-License-Identifier: GPL-2.0

//! What all threads share: totals, the end of the run, and who does what since when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Why an operation did not end well.
pub enum Trouble {
    /// A system call failed.
    Io(std::io::Error),
    /// Something was wrong, and has been reported.
    Wrong,
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Trouble::Io(error)
    }
}

/// How often an operation was done.
#[derive(Default, Clone, Copy)]
pub struct Count {
    /// It succeeded.
    pub done: u64,
    /// The file system doesn't have it.
    pub unsupported: u64,
    /// It failed while the pool failed.
    pub failed: u64,
    /// How long all of them took.
    pub time: Duration,
}

/// What somebody is doing.
struct Doing {
    who: String,
    what: String,
    since: Instant,
}

/// The run.
pub struct Run {
    /// When it began.
    pub start: Instant,
    /// The round's threads are to end.
    pub stop: AtomicBool,
    /// The run is to end: something was wrong.
    failed: AtomicBool,
    /// Bytes compared with the shadow.
    pub verified: AtomicU64,
    /// Wrong units.
    pub wrong: AtomicU64,
    reports: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<&'static str, Count>>,
    doing: Mutex<BTreeMap<usize, Doing>>,
}

impl Run {
    /// Begins.
    pub fn new() -> Self {
        Run {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            verified: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            reports: Mutex::default(),
            counts: Mutex::default(),
            doing: Mutex::default(),
        }
    }

    /// Prints a line with the time.
    pub fn say(&self, text: impl fmt::Display) {
        println!("[{:7.2}] {text}", self.start.elapsed().as_secs_f64());
    }

    /// Something was wrong: the run ends.
    pub fn fail(&self, text: String) {
        self.say(format_args!("FAILED: {text}"));
        let mut reports = self.reports.lock().unwrap();
        if reports.len() < 100 {
            reports.push(text);
        }
        self.failed.store(true, Relaxed);
        self.stop.store(true, Relaxed);
    }

    /// What is known of the files doesn't hold any more, for a reason that is none of drr's: the round ends.
    pub fn end_round(&self, text: String) {
        self.say(format_args!("this round ends: {text}"));
        self.stop.store(true, Relaxed);
    }

    /// Whether something was wrong.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// What was wrong.
    pub fn reports(&self) -> Vec<String> {
        self.reports.lock().unwrap().clone()
    }

    /// Whether the round's threads are to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Counts an operation.
    pub fn count(&self, name: &'static str, time: Duration, count: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.lock().unwrap();
        let entry = counts.entry(name).or_default();
        entry.time += time;
        count(entry);
    }

    /// The counts of all operations.
    pub fn counts(&self) -> BTreeMap<&'static str, Count> {
        self.counts.lock().unwrap().clone()
    }

    /// A thread begins something that must end.
    pub fn begin(&self, thread: usize, who: &str, what: &str) {
        let doing = Doing {
            who: who.to_owned(),
            what: what.to_owned(),
            since: Instant::now(),
        };
        self.doing.lock().unwrap().insert(thread, doing);
    }

    /// It has ended: how long it took.
    pub fn end(&self, thread: usize) -> Duration {
        let doing = self.doing.lock().unwrap().remove(&thread);
        doing.map_or(Duration::ZERO, |doing| doing.since.elapsed())
    }

    /// What takes longer than that, if anything.
    pub fn hanging(&self, seconds: u64) -> Vec<String> {
        let doing = self.doing.lock().unwrap();
        let slow = doing
            .values()
            .filter(|doing| doing.since.elapsed().as_secs() > seconds);
        slow.map(|doing| {
            format!(
                "{} {}: {} s",
                doing.who,
                doing.what,
                doing.since.elapsed().as_secs()
            )
        })
        .collect()
    }
}
