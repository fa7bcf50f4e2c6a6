// SPDX-License-Identifier: GPL-2.0

//! The words of a message to the target.

use kernel::prelude::*;

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// Statistics of the device start anew.
    ResetStats,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MessageError<'a> {
    /// There is no such message.
    Unknown(&'a CStr),
    /// The message takes no arguments, and this is one.
    Superfluous(&'a CStr),
}

impl MessageError<'_> {
    /// What it is.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            MessageError::Unknown(_) => "unknown message",
            MessageError::Superfluous(_) => "superfluous argument",
        }
    }

    /// The word that is wrong.
    pub(crate) fn culprit(&self) -> &CStr {
        match self {
            MessageError::Unknown(word) | MessageError::Superfluous(word) => word,
        }
    }

    /// What to write instead.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            MessageError::Unknown(_) => "the one that is known is reset_stats",
            MessageError::Superfluous(_) => "reset_stats takes none",
        }
    }
}

impl Message {
    /// Parses the words of a message.
    pub(crate) fn parse<'a>(words: &[&'a CStr]) -> Result<Self, MessageError<'a>> {
        match words {
            [name] if *name == c"reset_stats" => Ok(Message::ResetStats),
            [name, argument, ..] if *name == c"reset_stats" => {
                Err(MessageError::Superfluous(argument))
            }
            _ => Err(MessageError::Unknown(
                words.first().copied().unwrap_or_default(),
            )),
        }
    }
}

#[kunit_tests(drr_message)]
mod tests {
    use super::*;

    #[test]
    fn messages() -> Result {
        let cases: [(&[&CStr], Result<Message, MessageError<'_>>); 6] = [
            (&[c"reset_stats"], Ok(Message::ResetStats)),
            (&[], Err(MessageError::Unknown(c""))),
            (&[c""], Err(MessageError::Unknown(c""))),
            (&[c"reset_stat"], Err(MessageError::Unknown(c"reset_stat"))),
            (
                &[c"RESET_STATS", c"x"],
                Err(MessageError::Unknown(c"RESET_STATS")),
            ),
            (
                &[c"reset_stats", c"now", c"x"],
                Err(MessageError::Superfluous(c"now")),
            ),
        ];
        for (words, result) in cases {
            assert_eq!(Message::parse(words), result);
        }
        Ok(())
    }
}
