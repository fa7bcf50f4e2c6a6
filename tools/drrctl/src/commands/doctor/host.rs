// SPDX-License-Identifier: GPL-2.0

//! The host that is looked at: its files, below a root that tests make up, and its programs.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a program has printed.
pub struct Ran {
    /// Whether its exit status was 0.
    pub ok: bool,
    pub out: Vec<u8>,
    pub err: String,
}

/// Runs a program with arguments and a text as its input; `None` if it can't be run.
pub type Programs<'a> = &'a dyn Fn(&str, &[&str], &str) -> Option<Ran>;

/// Runs a program of the host.
pub fn programs(name: &str, arguments: &[&str], input: &str) -> Option<Ran> {
    run(name, arguments, input, |_| ())
}

/// Runs a program in a process group of its own, which the terminal's signals don't reach.
pub fn programs_apart(name: &str, arguments: &[&str], input: &str) -> Option<Ran> {
    run(name, arguments, input, |command| {
        command.process_group(0);
    })
}

/// Runs a program, after `prepare`. The paths of users other than root lack /usr/sbin.
fn run(name: &str, arguments: &[&str], input: &str, prepare: impl Fn(&mut Command)) -> Option<Ran> {
    let start = |path: &str| {
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prepare(&mut command);
        command.spawn()
    };
    let started = start(name).or_else(|error| match name.contains('/') {
        true => Err(error),
        false => start(&format!("/usr/sbin/{name}")),
    });
    let mut child = started.ok()?;
    // The program may end without reading its input.
    let _ = child.stdin.take()?.write_all(input.as_bytes());
    let output = child.wait_with_output().ok()?;
    Some(Ran {
        ok: output.status.success(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

pub struct Host<'a> {
    root: PathBuf,
    programs: Programs<'a>,
    /// Release of the kernel that is looked at.
    pub release: String,
    /// Whether this is the kernel that runs.
    pub is_running: bool,
}

impl<'a> Host<'a> {
    /// Looks at the kernel `release`; by default at the one that runs.
    pub fn new(root: impl Into<PathBuf>, release: Option<&str>, programs: Programs<'a>) -> Self {
        let mut host = Self {
            root: root.into(),
            programs,
            release: String::new(),
            is_running: true,
        };
        let running = host.text("/proc/sys/kernel/osrelease");
        host.is_running = release.is_none() || release == running.as_deref();
        host.release = release.map(str::to_string).or(running).unwrap_or_default();
        host
    }

    /// Returns where a file of the host is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Returns the content of a file; `None` if it can't be read.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.path(path)).ok()
    }

    /// Returns the content of a file as text, without white space at its end.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.bytes(path)?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_string())
    }

    /// Returns the names in a folder, sorted; none if it can't be read.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// Runs a program with arguments; `None` if it can't be run.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Option<Ran> {
        (self.programs)(name, arguments, "")
    }

    /// Returns what a program prints if it succeeds, without white space at its end.
    pub fn printed(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let ran = self.run(name, arguments).filter(|ran| ran.ok)?;
        Some(String::from_utf8_lossy(&ran.out).trim_end().to_string())
    }

    /// Returns whether `text` matches an extended regular expression.
    pub fn matches(&self, text: &str, expression: &str) -> bool {
        let ran = (self.programs)("grep", &["-Eqe", expression], &format!("{text}\n"));
        ran.is_some_and(|ran| ran.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_run() {
        let ran = programs("cat", &[], "text").expect("run");
        assert_eq!((ran.ok, &ran.out[..]), (true, &b"text"[..]));
        // Fields 1 and 5 are the process and its group.
        let fields = |stat: &str| {
            let mut fields = stat.split(' ').map(str::to_string);
            fields.next().zip(fields.nth(3)).expect("fields")
        };
        let group = |run: Programs| {
            let ran = run("cat", &["/proc/self/stat"], "").expect("run");
            fields(&String::from_utf8_lossy(&ran.out))
        };
        let (_, own) = fields(&fs::read_to_string("/proc/self/stat").expect("read"));
        assert_eq!(group(&programs).1, own);
        let (process, apart) = group(&programs_apart);
        assert!(apart == process && apart != own, "{process} {apart} {own}");
        assert!(programs("/nowhere/program", &[], "").is_none());
        let host = Host::new("/nowhere", None, &programs);
        assert!(host.matches("7.3.4+deb13-a", r"^7\.3\.[0-9]+\+deb[0-9]+-(a|b)$"));
        assert!(!host.matches("7.2.4+deb13-a", r"^7\.3\."));
        assert!(host.printed("false", &[]).is_none());
        assert!(host.names("/x").is_empty() && host.text("/x").is_none());
    }
}
