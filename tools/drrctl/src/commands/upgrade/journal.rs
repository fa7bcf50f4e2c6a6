// SPDX-License-Identifier: GPL-2.0

//! The journal: the devices whose drr tables have to be put back, in a file in /run, for the next
//! `upgrade` if this one is killed or fails.

use std::fs;
use std::io::ErrorKind;

use crate::answers::table;
use crate::commands::upgrade::devices::{Held, How, Thin};
use crate::error::{Code, Error, Result};

/// Path of the journal. It is there only while devices may be without drr.
pub const PATH: &str = "/run/drrctl/upgrade";

fn failed(why: String) -> Error {
    Error::new(
        Code::Failed,
        PATH,
        why,
        "remove it, and attach the devices by hand: drrctl attach NAME",
    )
}

/// Returns the devices of the journal; none if there is no journal.
pub fn read() -> Result<Vec<Held>> {
    match fs::read_to_string(PATH) {
        Ok(text) => parse(&text).ok_or_else(|| failed("isn't understood".to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Writes the journal as a whole, or leaves it as it is. Without devices, there is none.
pub fn write(held: &[Held]) -> Result<()> {
    if held.is_empty() {
        let _ = fs::remove_file(PATH);
        return Ok(());
    }
    let new = format!("{PATH}.new");
    fs::write(&new, text(held))
        .and_then(|()| fs::rename(&new, PATH))
        .map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(error.to_string())
        })
}

/// Returns a line for each device: the sequence number, how it is held, the name, and the arguments
/// of its table. They are separated by tabs, which names don't contain. How a device on top is held
/// tells its thin device: "on-top SEQUENCE POOL ID".
fn text(held: &[Held]) -> String {
    let mut text = String::new();
    for device in held {
        let Held {
            sequence,
            name,
            how,
            arguments,
        } = device;
        let how = match how {
            How::Attached => "attached".to_string(),
            How::OnTop(Thin { sequence, pool, id }) => format!("on-top {sequence} {pool} {id}"),
        };
        text.push_str(&format!("{sequence}\t{how}\t{name}\t{arguments}\n"));
    }
    text
}

/// Parses how a device is held; `None` if it is wrong.
fn how(text: &str) -> Option<How> {
    if text == "attached" {
        return Some(How::Attached);
    }
    let numbers = text.strip_prefix("on-top ")?.split(' ');
    let numbers: Vec<u64> = numbers.map(|it| it.parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [sequence, pool, id] => Some(How::OnTop(Thin { sequence, pool, id })),
        _ => None,
    }
}

/// Parses a journal; `None` if it is wrong.
pub fn parse(text: &str) -> Option<Vec<Held>> {
    text.lines()
        .map(|line| {
            let mut words = line.splitn(4, '\t');
            Some(Held {
                sequence: words.next()?.parse().ok()?,
                how: how(words.next()?)?,
                name: words.next()?.to_string(),
                arguments: words
                    .next()
                    .filter(|arguments| table::drr(arguments).is_some())?
                    .to_string(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let held = vec![
            Held {
                sequence: 7,
                name: "a \\x20b".into(),
                how: How::Attached,
                arguments: "253:4 1 paranoid".into(),
            },
            Held {
                sequence: u64::MAX,
                name: "c".into(),
                how: How::OnTop(Thin {
                    sequence: 9,
                    pool: 1,
                    id: 7,
                }),
                arguments: "253:4".into(),
            },
        ];
        assert_eq!(parse(&text(&held)), Some(held));
        assert_eq!(parse(""), Some(Vec::new()));
        for odd in [
            "x",
            "7\tother\tc\t253:4",
            "7\ton-top 9 1 7\tc",
            "x\ton-top 9 1 7\tc\t253:4",
            "7\ton-top\tc\t253:4",
            "7\ton-top 9 1\tc\t253:4",
            "7\ton-top 9 1 7 2\tc\t253:4",
            "7\tattached\tc\t253:4 paranoid",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
