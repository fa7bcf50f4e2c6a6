// SPDX-License-Identifier: GPL-2.0

//! The arguments in the tables of drr devices and of the thin devices below them.

use serde::Serialize;

/// The arguments of a drr target: `<thin device> [<#feature args> <feature arg>...]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrrTable {
    /// The number of the thin device, as the kernel writes it: major:minor.
    pub thin: String,
    pub features: Vec<String>,
}

/// Parses the arguments of a drr target. Returns `None` if they are wrong.
pub fn drr(arguments: &str) -> Option<DrrTable> {
    let mut words = arguments.split_ascii_whitespace();
    let thin = words.next()?.to_string();
    let count: usize = match words.next() {
        Some(word) => word.parse().ok()?,
        None => 0,
    };
    let features: Vec<_> = words.take(count).map(str::to_string).collect();
    (features.len() == count).then_some(DrrTable { thin, features })
}

/// Parses the arguments of a thin target, `<pool device> <thin id> [<external origin>]`. Returns
/// the pool and the id, or `None` if they are wrong.
pub fn thin(arguments: &str) -> Option<(String, u64)> {
    let mut words = arguments.split_ascii_whitespace();
    Some((words.next()?.to_string(), words.next()?.parse().ok()?))
}

/// Returns the arguments of a drr target on the device `thin`.
pub fn drr_arguments(thin: &str, features: &[&str]) -> String {
    if features.is_empty() {
        return thin.to_string();
    }
    format!("{thin} {} {}", features.len(), features.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drr_tables() {
        let table = drr("253:4").expect("a table");
        assert_eq!((table.thin.as_str(), table.features.len()), ("253:4", 0));
        let table = drr("253:4 2 no_donate paranoid").expect("a table");
        assert_eq!(table.features, ["no_donate", "paranoid"]);
        assert_eq!(drr(""), None);
        assert_eq!(drr("253:4 x"), None);
        assert_eq!(drr("253:4 3 paranoid"), None);
    }

    #[test]
    fn thin_tables() {
        assert_eq!(thin("253:2 7"), Some(("253:2".into(), 7)));
        assert_eq!(thin("253:2 7 8:1"), Some(("253:2".into(), 7)));
        assert_eq!(thin("253:2"), None);
        assert_eq!(thin("253:2 seven"), None);
    }

    #[test]
    fn what_is_made_is_understood() {
        for features in [
            &[][..],
            &["no_donate"],
            &[
                "no_donate",
                "no_receive",
                "paranoid",
                "keep_copies",
                "no_meta_cache",
            ],
        ] {
            let table = drr(&drr_arguments("253:9", features)).expect("a table");
            assert_eq!(table.features, features);
        }
    }
}
