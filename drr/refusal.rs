// SPDX-License-Identifier: GPL-2.0

//! Logs why a table line or a message was refused.

use kernel::prelude::*;

use dm::target::MappedDevice;

use crate::{args::ArgError, layers::tree::DeclareError, message::MessageError};

/// The part of a table line or a message that is wrong.
enum Culprit<'a> {
    /// A word of the line or message.
    Word(&'a CStr),
    /// The layer with this thin id.
    Layer(u32),
}

/// The reason why a table line or a message is refused.
pub(crate) struct Refusal<'a> {
    text: &'static str,
    culprit: Culprit<'a>,
    remedy: &'static str,
}

impl Refusal<'_> {
    /// Logs the reason, and what to write or do instead, as an error of the device `md`.
    pub(crate) fn log(&self, md: &MappedDevice) {
        let (name, text, remedy) = (md.name(), self.text, self.remedy);
        match self.culprit {
            Culprit::Word(word) => pr_err!("{name}: {text} \"{word}\": {remedy}\n"),
            Culprit::Layer(thin_id) => pr_err!("{name}: layer {thin_id}: {text}: {remedy}\n"),
        }
    }

    /// Creates the reason why the declaration of layer `thin_id` is refused.
    pub(crate) fn of_layer(thin_id: u32, error: DeclareError) -> Self {
        Self {
            text: error.text(),
            culprit: Culprit::Layer(thin_id),
            remedy: error.remedy(),
        }
    }
}

impl<'a> From<&'a ArgError<'_>> for Refusal<'a> {
    fn from(error: &'a ArgError<'_>) -> Self {
        Self {
            text: error.text().to_str().unwrap_or_default(),
            culprit: Culprit::Word(error.culprit().unwrap_or_default()),
            remedy: error.remedy(),
        }
    }
}

impl<'a> From<&MessageError<'a>> for Refusal<'a> {
    fn from(error: &MessageError<'a>) -> Self {
        Self {
            text: error.text(),
            culprit: Culprit::Word(error.culprit()),
            remedy: error.remedy(),
        }
    }
}
