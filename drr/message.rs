// SPDX-License-Identifier: GPL-2.0

//! Parses the messages to a target; `include/uapi/linux/dm-drr.h` says what they mean.

use kernel::prelude::*;

/// A message to a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// Zero the device's counters.
    ResetStats,
    /// Declare a layer that the module can't know of.
    Declare {
        /// The layer's thin id.
        thin_id: u32,
        /// Thin id of the parent, if the layer is a snapshot.
        parent: Option<u32>,
        /// The pool's time when the layer was created.
        created: Option<u32>,
    },
    /// Start or stop counting reads of shared blocks.
    CountBlocks(bool),
    /// Answer a question.
    Tell(Answer),
}

/// A question that a message asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The layers of the pool.
    Layers,
    /// Whose data is read through the device.
    Heatmap,
    /// How often blocks of the pool are read.
    Blocks,
    /// How many pages of the pool's blocks are cached how often.
    Duplicates,
    /// Which pages are cached more than once, from a place that an earlier answer named.
    Copies(u32),
}

/// An error in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MessageError<'a> {
    /// The message is not known.
    Unknown(&'a CStr),
    /// The message takes fewer arguments: this is the first one too many.
    Superfluous(&'a CStr),
    /// The message takes more arguments.
    Missing(&'a CStr),
    /// This is not a thin id.
    ThinId(&'a CStr),
    /// This is not a pool's time.
    Time(&'a CStr),
    /// The message "blocks" doesn't take this argument.
    Argument(&'a CStr),
    /// The message "duplicates" doesn't take this argument.
    List(&'a CStr),
    /// This is not a place in the list of duplicates.
    Place(&'a CStr),
}

impl<'a> MessageError<'a> {
    /// Returns the text of the error.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            MessageError::Unknown(_) => "unknown message",
            MessageError::Superfluous(_) => "superfluous argument",
            MessageError::Missing(_) => "arguments are missing",
            MessageError::ThinId(_) => "not a thin id",
            MessageError::Time(_) => "not a pool's time",
            MessageError::Argument(_) | MessageError::List(_) => "unknown argument",
            MessageError::Place(_) => "not a place in the list",
        }
    }

    /// Returns the word that is wrong.
    pub(crate) fn culprit(&self) -> &'a CStr {
        match self {
            MessageError::Unknown(word)
            | MessageError::Superfluous(word)
            | MessageError::Missing(word)
            | MessageError::ThinId(word)
            | MessageError::Time(word)
            | MessageError::Argument(word)
            | MessageError::List(word)
            | MessageError::Place(word) => word,
        }
    }

    /// Returns what to write instead.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            MessageError::Unknown(_) => {
                "known are layers, heat, blocks, duplicates, layer and reset_stats"
            }
            MessageError::Superfluous(_) => "leave it out",
            MessageError::Missing(_) => "layer <thin id> <parent's thin id or -> [<time>]",
            MessageError::ThinId(_) => "a number below 2^24, or - for no parent",
            MessageError::Time(_) => "a number below 2^32",
            MessageError::Argument(_) => "on or off, or nothing",
            MessageError::List(_) => "list, or nothing",
            MessageError::Place(_) => "the number at the end of the answer before",
        }
    }
}

fn number(word: &CStr, below: u64) -> Option<u32> {
    let text = word.to_str().ok()?;
    // Digits only, without a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = text.parse().ok()?;
    u32::try_from(number).ok().filter(|_| number < below)
}

fn thin_id(word: &CStr) -> Result<u32, MessageError<'_>> {
    number(word, 1 << 24).ok_or(MessageError::ThinId(word))
}

impl Message {
    /// Parses the words of a message.
    pub(crate) fn parse<'a>(words: &[&'a CStr]) -> Result<Self, MessageError<'a>> {
        let Some((name, arguments)) = words.split_first() else {
            return Err(MessageError::Unknown(c""));
        };
        let (message, rest) = match (name.to_bytes(), arguments) {
            (b"reset_stats", rest) => (Message::ResetStats, rest),
            (b"layers", rest) => (Message::Tell(Answer::Layers), rest),
            (b"heat", rest) => (Message::Tell(Answer::Heatmap), rest),
            (b"blocks", []) => (Message::Tell(Answer::Blocks), arguments),
            (b"blocks", [what, rest @ ..]) => match what.to_bytes() {
                b"on" => (Message::CountBlocks(true), rest),
                b"off" => (Message::CountBlocks(false), rest),
                _ => return Err(MessageError::Argument(what)),
            },
            (b"duplicates", []) => (Message::Tell(Answer::Duplicates), arguments),
            (b"duplicates", [list, rest @ ..]) if list.to_bytes() == b"list" => match rest {
                [] => (Message::Tell(Answer::Copies(0)), rest),
                [place, rest @ ..] => {
                    let from = number(place, 1 << 32).ok_or(MessageError::Place(place))?;
                    (Message::Tell(Answer::Copies(from)), rest)
                }
            },
            (b"duplicates", [what, ..]) => return Err(MessageError::List(what)),
            (b"layer", [id, parent, rest @ ..]) => {
                let parent = match parent.to_bytes() {
                    b"-" => None,
                    _ => Some(thin_id(parent)?),
                };
                let created = match rest {
                    [] => None,
                    [time, ..] => Some(number(time, 1 << 32).ok_or(MessageError::Time(time))?),
                };
                let message = Message::Declare {
                    thin_id: thin_id(id)?,
                    parent,
                    created,
                };
                (message, rest.get(1..).unwrap_or_default())
            }
            (b"layer", _) => return Err(MessageError::Missing(name)),
            _ => return Err(MessageError::Unknown(name)),
        };
        match rest.first() {
            Some(word) => Err(MessageError::Superfluous(word)),
            None => Ok(message),
        }
    }
}

#[kunit_tests(drr_message)]
mod tests {
    use super::*;

    #[test]
    fn messages() -> Result {
        use MessageError::{Argument, List, Missing, Place, Superfluous, ThinId, Time, Unknown};

        let declare = |thin_id, parent, created| {
            Ok(Message::Declare {
                thin_id,
                parent,
                created,
            })
        };
        let copies = |from| Ok(Message::Tell(Answer::Copies(from)));
        let cases: [(&[&CStr], Result<Message, MessageError<'_>>); 34] = [
            (&[c"reset_stats"], Ok(Message::ResetStats)),
            (&[c"layers"], Ok(Message::Tell(Answer::Layers))),
            (&[c"heat"], Ok(Message::Tell(Answer::Heatmap))),
            (&[c"blocks"], Ok(Message::Tell(Answer::Blocks))),
            (&[c"blocks", c"on"], Ok(Message::CountBlocks(true))),
            (&[c"blocks", c"off"], Ok(Message::CountBlocks(false))),
            (&[c"blocks", c"On"], Err(Argument(c"On"))),
            (&[c"duplicates"], Ok(Message::Tell(Answer::Duplicates))),
            (&[c"duplicates", c"list"], copies(0)),
            (&[c"duplicates", c"list", c"67"], copies(67)),
            (&[c"duplicates", c"lists"], Err(List(c"lists"))),
            (&[c"duplicates", c"list", c"-"], Err(Place(c"-"))),
            (
                &[c"duplicates", c"list", c"4294967296"],
                Err(Place(c"4294967296")),
            ),
            (
                &[c"duplicates", c"list", c"1", c"2"],
                Err(Superfluous(c"2")),
            ),
            (&[c"blocks", c"on", c"off"], Err(Superfluous(c"off"))),
            (&[], Err(Unknown(c""))),
            (&[c""], Err(Unknown(c""))),
            (&[c"reset_stat"], Err(Unknown(c"reset_stat"))),
            (&[c"RESET_STATS", c"x"], Err(Unknown(c"RESET_STATS"))),
            (&[c"reset_stats", c"now", c"x"], Err(Superfluous(c"now"))),
            (&[c"heat", c"all"], Err(Superfluous(c"all"))),
            (&[c"layer", c"5", c"0"], declare(5, Some(0), None)),
            (&[c"layer", c"5", c"-"], declare(5, None, None)),
            (&[c"layer", c"5", c"-", c"0"], declare(5, None, Some(0))),
            (
                &[c"layer", c"16777215", c"007", c"4294967295"],
                declare(16_777_215, Some(7), Some(u32::MAX)),
            ),
            (&[c"layer"], Err(Missing(c"layer"))),
            (&[c"layer", c"5"], Err(Missing(c"layer"))),
            (&[c"layer", c"16777216", c"0"], Err(ThinId(c"16777216"))),
            (&[c"layer", c"-", c"0"], Err(ThinId(c"-"))),
            (&[c"layer", c"5", c"+1"], Err(ThinId(c"+1"))),
            (&[c"layer", c"5", c""], Err(ThinId(c""))),
            (
                &[c"layer", c"5", c"0", c"4294967296"],
                Err(Time(c"4294967296")),
            ),
            (&[c"layer", c"5", c"0", c"-1"], Err(Time(c"-1"))),
            (&[c"layer", c"5", c"0", c"1", c"2"], Err(Superfluous(c"2"))),
        ];
        for (words, result) in cases {
            assert_eq!(Message::parse(words), result);
        }
        Ok(())
    }
}
