// SPDX-License-Identifier: GPL-2.0

//! The configuration of `watch`: which devices drr is attached to, and with which features.

use std::fs;
use std::path::Path;

use glob::Pattern;
use serde::Deserialize;
use toml::Spanned;

use crate::error::{Code, Error, Result};

/// Path of the configuration file.
pub const PATH: &str = "/etc/drrctl/drrctl.toml";
const FEATURES: [&str; 5] = [
    "no_donate",
    "no_receive",
    "paranoid",
    "keep_copies",
    "no_meta_cache",
];

/// The content of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pools: Vec<Spanned<String>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    #[serde(default)]
    features: Vec<Spanned<String>>,
}

/// The configuration.
#[derive(Debug, Default)]
pub struct Config {
    /// Names of the pools whose thin devices drr is attached to.
    pools: Vec<Pattern>,
    /// Names of thin devices that are left alone.
    exclude: Vec<Pattern>,
    pub features: Vec<&'static str>,
}

impl Config {
    /// Reads the configuration file. Fails with [`Code::NotThere`] if there is none, and with
    /// [`Code::Usage`] and the number of the line if its content is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            Error::new(
                match error.kind() {
                    std::io::ErrorKind::NotFound => Code::NotThere,
                    _ => Code::Failed,
                },
                path.display().to_string(),
                error.to_string(),
                "write one, e.g. with the line: pools = [\"NAME\"]",
            )
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(file: &str, text: &str) -> Result<Self> {
        let at = |start: usize, why: String, remedy: &str| {
            let before = text.get(..start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            Error::new(Code::Usage, format!("{file}:{line}"), why, remedy)
        };
        let read: File = toml::from_str(text).map_err(|error| {
            at(
                error.span().map_or(0, |span| span.start),
                error.message().to_string(),
                "use pools, exclude and features, each a list of texts: [\"a\", \"b\"]",
            )
        })?;
        let patterns = |list: Vec<Spanned<String>>| -> Result<Vec<Pattern>> {
            list.into_iter()
                .map(|item| {
                    Pattern::new(item.get_ref()).map_err(|error| {
                        at(
                            item.span().start,
                            format!("'{}' is no pattern: {error}", item.get_ref()),
                            "use a name, in which * stands for anything, ? for one character",
                        )
                    })
                })
                .collect()
        };
        let mut features = Vec::new();
        for item in read.features {
            let known = FEATURES.into_iter().find(|it| it == item.get_ref());
            match known.filter(|feature| !features.contains(feature)) {
                Some(feature) => features.push(feature),
                None => return Err(at(
                    item.span().start,
                    format!("'{}' is no feature, or there twice", item.get_ref()),
                    "use no_donate, no_receive, paranoid, keep_copies and no_meta_cache, each once",
                )),
            }
        }
        Ok(Self {
            pools: patterns(read.pools)?,
            exclude: patterns(read.exclude)?,
            features,
        })
    }

    pub fn has_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Returns whether drr is to be attached to the thin device `device` of `pool`.
    pub fn wants(&self, pool: &str, device: &str) -> bool {
        let any = |list: &[Pattern], name| list.iter().any(|pattern| pattern.matches(name));
        any(&self.pools, pool) && !any(&self.exclude, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = Config::parse("x.toml", text).err();
        error.map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wanted() {
        let config = Config::parse(
            "x.toml",
            "pools = ['a', 'vm-*']\nexclude = ['*-base']\nfeatures = ['paranoid']\n",
        )
        .expect("understood");
        assert!(config.has_pools());
        assert_eq!(config.features, ["paranoid"]);
        assert!(config.wants("a", "x"));
        assert!(config.wants("vm-1", "x"));
        assert!(!config.wants("a1", "x"));
        assert!(!config.wants("a", "image-base"));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, wanted) in [
            ("", "x.toml:1: missing field `pools`"),
            ("pools = []\npols = []\n", "x.toml:2: unknown field `pols`"),
            ("pools = [\n'a',\n7]\n", "x.toml:3: "),
            ("pools = 'a'\n", "x.toml:1: "),
            ("pools = ['a'\n", "x.toml:"),
            ("\npools = ['a[']\n", "x.toml:2: 'a[' is no pattern"),
            (
                "pools = []\nfeatures = ['fast']\n",
                "x.toml:2: 'fast' is no feature",
            ),
            (
                "pools = []\nfeatures = ['paranoid', 'paranoid']\n",
                "x.toml:2: 'paranoid' is no feature, or there twice",
            ),
        ] {
            let error = refused(text);
            assert!(error.starts_with(wanted), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let none = Config::read(Path::new("/nowhere/x")).err();
        assert_eq!(none.map(|error| error.code), Some(Code::NotThere));
    }

    #[test]
    fn the_default_is_understood() {
        let text = include_str!("../../../system/drrctl.toml");
        let config = Config::parse("drrctl.toml", text).expect("understood");
        assert!(!config.has_pools());
        // The lines that its comments propose are understood, too.
        let proposed: String = text
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| line.contains(" = [") && !line.starts_with(' '))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse("drrctl.toml", &proposed).expect("understood");
        assert!(config.has_pools(), "{proposed}");
    }
}
