// SPDX-License-Identifier: GPL-2.0

//! The lines of a table or a status, and their encoding in requests and answers.

use std::io::{Error, ErrorKind, Result};
use std::mem::offset_of;
use std::str::FromStr;

use crate::layout::{text_at, u32_at, u64_at, TargetSpec};

/// Size of a `struct dm_target_spec`, in bytes.
const SPEC: usize = size_of::<TargetSpec>();
/// Longest name of a target, in bytes.
const TARGET: usize = 15;

/// A line of a table or a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// First sector.
    pub start: u64,
    /// Length, in sectors.
    pub length: u64,
    /// Name of the target.
    pub target: String,
    /// The target's arguments in a table, or its text in a status.
    pub arguments: String,
}

/// Parses `START LENGTH TARGET ARGUMENTS`, as dmsetup does. Fails with `InvalidInput` if the text
/// has fewer words, or if START or LENGTH isn't a number.
impl FromStr for Line {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        let odd = || Error::new(ErrorKind::InvalidInput, format!("odd table line: {text}"));
        let [start, length, target, arguments] = words[..] else {
            return Err(odd());
        };
        Ok(Self {
            start: start.parse().map_err(|_| odd())?,
            length: length.parse().map_err(|_| odd())?,
            target: target.to_string(),
            arguments: arguments.to_string(),
        })
    }
}

/// Returns the data of a request that loads a table. Fails with `InvalidInput` if a target's name
/// is longer than [`TARGET`].
pub(crate) fn to_bytes(table: &[Line]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in table {
        if line.target.len() > TARGET {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{}: no target has a name of more than {TARGET} bytes",
                    line.target
                ),
            ));
        }
        let mut spec = vec![0; SPEC];
        let mut put = |at: usize, value: &[u8]| spec[at..at + value.len()].copy_from_slice(value);
        // Lines are aligned to eight bytes, and `next` is the offset from this line to the next.
        let end = (SPEC + line.arguments.len() + 1).next_multiple_of(8);
        put(
            offset_of!(TargetSpec, sector_start),
            &line.start.to_ne_bytes(),
        );
        put(offset_of!(TargetSpec, length), &line.length.to_ne_bytes());
        put(offset_of!(TargetSpec, next), &(end as u32).to_ne_bytes());
        put(offset_of!(TargetSpec, target_type), line.target.as_bytes());
        spec.extend(line.arguments.as_bytes());
        spec.resize(end, 0);
        bytes.extend(spec);
    }
    Ok(bytes)
}

/// Returns the lines in the data of an answer, at most `count`.
pub(crate) fn from_bytes(data: &[u8], count: u32) -> Vec<Line> {
    let (mut at, mut lines) = (0, Vec::new());
    while lines.len() < count as usize && at < data.len() {
        let spec = &data[at..];
        lines.push(Line {
            start: u64_at(spec, offset_of!(TargetSpec, sector_start)),
            length: u64_at(spec, offset_of!(TargetSpec, length)),
            target: text_at(
                &spec[..spec.len().min(SPEC)],
                offset_of!(TargetSpec, target_type),
            ),
            arguments: text_at(spec, SPEC).trim_end().to_string(),
        });
        // Unlike in a request, the offset counts from the beginning of the data.
        at = u32_at(spec, offset_of!(TargetSpec, next)) as usize;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_from_text() {
        let line: Line = "8 16 thin 253:1 7".parse().expect("a line");
        assert_eq!((line.start, line.length), (8, 16));
        assert_eq!(
            (line.target.as_str(), line.arguments.as_str()),
            ("thin", "253:1 7")
        );
        for odd in ["", "0 8 zero", "0 x thin 253:1 7", "-1 8 thin 253:1 7"] {
            let error = odd.parse::<Line>().expect_err("an odd line");
            assert!(error.to_string().ends_with(odd), "{error}");
        }
    }

    #[test]
    fn tables_are_loaded() {
        let table =
            ["0 8 linear 8:1 0", "8 16 thin 253:1 7"].map(|text| text.parse().expect("a line"));
        let bytes = to_bytes(&table).expect("bytes");
        assert_eq!(bytes.len(), 96);
        // The lines follow each other, each with its own length.
        for (at, line) in [0, 48].into_iter().zip(&table) {
            assert_eq!(from_bytes(&bytes[at..], 1), [line.clone()]);
            assert_eq!(u32_at(&bytes, at + 20), 48);
        }
        let long = format!("0 8 {} x", "t".repeat(16)).parse().expect("a line");
        assert!(to_bytes(&[long]).is_err());
    }

    #[test]
    fn tables_are_told() {
        let table =
            ["0 8 linear 8:1 0", "8 16 thin 253:1 7"].map(|text| text.parse().expect("a line"));
        let mut bytes = to_bytes(&table).expect("bytes");
        bytes[48 + 20..48 + 24].copy_from_slice(&96u32.to_ne_bytes());
        assert_eq!(from_bytes(&bytes, 2), table);
        // An answer that breaks off causes no panic.
        assert_eq!(from_bytes(&bytes[..52], 2).len(), 2);
        assert_eq!(from_bytes(&bytes, 9).len(), 2);
        assert!(from_bytes(&[], 1).is_empty());
    }
}
