// SPDX-License-Identifier: GPL-2.0

//! Parses a table line's arguments.
//!
//! `<thin device> [<#feature args> [<feature>]*]`

use core::fmt::{self, Write};

use kernel::prelude::*;

/// The features that a table line may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Features {
    /// Never serve other devices from this device's page cache.
    pub(crate) no_donate: bool,
    /// Never serve this device from other page caches.
    pub(crate) no_receive: bool,
    /// Compare every hit with the disk.
    pub(crate) paranoid: bool,
    /// Never drop pages of this device's page cache because other page caches have copies.
    pub(crate) keep_copies: bool,
    /// Never keep metadata that this device has read.
    pub(crate) no_meta_cache: bool,
}

/// The names of the features, in canonical order.
const NAMES: [&CStr; 5] = [
    c"no_donate",
    c"no_receive",
    c"paranoid",
    c"keep_copies",
    c"no_meta_cache",
];

impl Features {
    /// Returns whether each feature is set, in the order of [`NAMES`].
    fn flags(&self) -> [bool; 5] {
        [
            self.no_donate,
            self.no_receive,
            self.paranoid,
            self.keep_copies,
            self.no_meta_cache,
        ]
    }

    fn flag_mut(&mut self, name: &CStr) -> Option<&mut bool> {
        let [no_donate, no_receive, paranoid, keep_copies, no_meta_cache] = NAMES;
        match name {
            _ if name == no_donate => Some(&mut self.no_donate),
            _ if name == no_receive => Some(&mut self.no_receive),
            _ if name == paranoid => Some(&mut self.paranoid),
            _ if name == keep_copies => Some(&mut self.keep_copies),
            _ if name == no_meta_cache => Some(&mut self.no_meta_cache),
            _ => None,
        }
    }

    /// Returns an iterator over the names and values of all features.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, bool)> {
        NAMES
            .iter()
            .map(|name| name.to_str().unwrap_or_default())
            .zip(self.flags())
    }

    /// Prints the feature arguments as a table has them, with a leading space; prints nothing if no
    /// feature is set.
    pub(crate) fn print(&self, out: &mut dyn Write) -> fmt::Result {
        let count = self.flags().iter().filter(|set| **set).count();
        if count != 0 {
            write!(out, " {count}")?;
        }
        for (name, set) in self.iter() {
            if set {
                write!(out, " {name}")?;
            }
        }
        Ok(())
    }
}

/// An error in a table line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ArgError<'a> {
    /// The device is missing.
    Count,
    /// This is not the number of features that follow.
    FeatureCount(&'a CStr),
    /// The feature is not known.
    Unknown(&'a CStr),
    /// The feature is named twice.
    Twice(&'a CStr),
}

impl ArgError<'_> {
    /// Returns the text for the constructor's error.
    pub(crate) fn text(&self) -> &'static CStr {
        match self {
            ArgError::Count => c"Invalid argument count",
            ArgError::FeatureCount(_) => c"Wrong number of feature arguments",
            ArgError::Unknown(_) => c"Unknown feature argument",
            ArgError::Twice(_) => c"Feature argument given twice",
        }
    }

    /// Returns the argument that is wrong, if it is one.
    pub(crate) fn culprit(&self) -> Option<&CStr> {
        match self {
            ArgError::Count => None,
            ArgError::FeatureCount(arg) | ArgError::Unknown(arg) | ArgError::Twice(arg) => {
                Some(arg)
            }
        }
    }

    /// Returns what to write instead.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            ArgError::Count => "write <thin device> [<#feature args> [<feature>]*]",
            ArgError::FeatureCount(_) => "write the number of features that follow it",
            ArgError::Unknown(_) => {
                "the features are no_donate, no_receive, paranoid, keep_copies, no_meta_cache"
            }
            ArgError::Twice(_) => "name it once",
        }
    }
}

/// A table line's arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Args<'a> {
    /// Path or number of the thin device.
    pub(crate) device: &'a CStr,
    /// The features that the line asks for.
    pub(crate) features: Features,
}

impl<'a> Args<'a> {
    /// Parses the arguments of a table line.
    pub(crate) fn parse(args: &[&'a CStr]) -> Result<Self, ArgError<'a>> {
        let (device, rest) = args.split_first().ok_or(ArgError::Count)?;
        let mut features = Features::default();
        if let Some((count, names)) = rest.split_first() {
            // Digits only: `parse` alone would accept a plus sign, which device-mapper doesn't.
            let digits = count.to_str().ok().filter(|text| !text.starts_with('+'));
            if digits.and_then(|text| text.parse().ok()) != Some(names.len()) {
                return Err(ArgError::FeatureCount(count));
            }
            for name in names {
                let flag = features.flag_mut(name).ok_or(ArgError::Unknown(name))?;
                if core::mem::replace(flag, true) {
                    return Err(ArgError::Twice(name));
                }
            }
        }
        Ok(Self { device, features })
    }
}

#[kunit_tests(drr_args)]
mod tests {
    use super::*;
    use dm::target::status_buffer::StatusBuffer;

    #[test]
    fn good_lines_print_canonically() -> Result {
        let cases: [(&[&CStr], &str); 6] = [
            (&[c"253:1"], ""),
            (&[c"/dev/mapper/t", c"0"], ""),
            (&[c"253:1", c"1", c"paranoid"], " 1 paranoid"),
            (
                &[c"253:1", c"2", c"no_receive", c"no_donate"],
                " 2 no_donate no_receive",
            ),
            (
                &[c"1", c"3", c"paranoid", c"no_receive", c"no_donate"],
                " 3 no_donate no_receive paranoid",
            ),
            (&[c"1", c"1", c"keep_copies"], " 1 keep_copies"),
        ];
        for (args, want) in cases {
            let parsed = Args::parse(args).map_err(|_| EINVAL)?;
            assert_eq!(parsed.device, args[0]);
            let mut buffer = [0xff; 64];
            parsed
                .features
                .print(&mut StatusBuffer::new(&mut buffer))
                .map_err(|_| EINVAL)?;
            let text = CStr::from_bytes_until_nul(&buffer).map_err(|_| EINVAL)?;
            assert_eq!(text.to_bytes(), want.as_bytes());
        }
        Ok(())
    }

    #[test]
    fn bad_lines_name_the_culprit() -> Result {
        let cases: [(&[&CStr], ArgError<'_>); 11] = [
            (&[], ArgError::Count),
            (&[c"d", c""], ArgError::FeatureCount(c"")),
            (&[c"d", c"x"], ArgError::FeatureCount(c"x")),
            (&[c"d", c"1"], ArgError::FeatureCount(c"1")),
            (&[c"d", c"-1"], ArgError::FeatureCount(c"-1")),
            (&[c"d", c"+1", c"paranoid"], ArgError::FeatureCount(c"+1")),
            (
                &[c"d", c"18446744073709551616"],
                ArgError::FeatureCount(c"18446744073709551616"),
            ),
            (&[c"d", c"0", c"paranoid"], ArgError::FeatureCount(c"0")),
            (&[c"d", c"1", c"Paranoid"], ArgError::Unknown(c"Paranoid")),
            (&[c"d", c"1", c""], ArgError::Unknown(c"")),
            (
                &[c"d", c"2", c"paranoid", c"paranoid"],
                ArgError::Twice(c"paranoid"),
            ),
        ];
        for (args, want) in cases {
            assert_eq!(Args::parse(args), Err(want));
        }
        Ok(())
    }
}
