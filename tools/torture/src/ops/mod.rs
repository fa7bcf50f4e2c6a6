// SPDX-License-Identifier: GPL-2.0

//! The operations, and how often each is done.

mod layout;
mod read;
mod write;

use fastrand::Rng;

use crate::config::{Config, Fs};
use crate::layer::{File, Layer};
use crate::run::Trouble;
use crate::worker::Worker;

/// An operation on one file.
pub struct Operation {
    /// For counts and reports.
    pub name: &'static str,
    /// It changes content: not to be done on fixed files, nor during a snapshot.
    pub changes: bool,
    /// Does it.
    pub run: fn(&mut Worker<'_>, &Layer, &File) -> Result<(), Trouble>,
    weight: u32,
    on: On,
}

/// Where an operation makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    All,
    Files,
    Raw,
    Ext4,
    Xfs,
}

macro_rules! operations {
    ($($weight:literal $on:ident $changes:literal $name:literal $run:path;)*) => {
        &[$(Operation {
            name: $name, changes: $changes, run: $run, weight: $weight, on: On::$on,
        }),*]
    };
}

#[rustfmt::skip]
const OPERATIONS: &[Operation] = operations! {
    60 All   false "read cold"               read::cold;
    10 All   false "read"                    read::warm;
     6 All   false "preadv"                  read::vector;
    20 All   false "O_DIRECT read"           read::direct;
    16 All   false "mmap read"               read::mapped;
    12 All   false "io_uring read"           read::uring;
     8 All   false "io_uring O_DIRECT read"  read::uring_direct;
     8 All   false "RWF_DONTCACHE read"      read::dontcache;
     8 All   false "readahead"               read::ahead;
    10 Files false "read without locks"      read::unlocked;
     4 All   false "mmap private write"      read::private;
     4 All   false "fsync"                   write::sync;
    10 All   true  "write"                   write::buffered;
     8 All   true  "O_DIRECT write"          write::direct;
     6 All   true  "O_DIRECT write of blocks" write::blocks;
     8 All   true  "mmap write"              write::mapped;
     4 All   true  "io_uring write"          write::uring;
     4 All   true  "io_uring O_DIRECT write" write::uring_direct;
     3 All   true  "RWF_DONTCACHE write"     write::dontcache;
     3 Files true  "append"                  write::append;
     3 Raw   true  "BLKZEROOUT"              write::zero_out;
     3 Raw   true  "BLKDISCARD"              write::discard;
     3 Files true  "truncate down"           layout::truncate_down;
     3 Files true  "truncate up"             layout::truncate_up;
     4 Files true  "truncate down and up"    layout::truncate_down_up;
     4 Files true  "punch hole"              layout::punch;
     4 Files true  "zero range"              layout::zero;
     3 Files true  "collapse range"          layout::collapse;
     3 Files true  "insert range"            layout::insert;
     2 Files true  "allocate"                layout::allocate;
     3 Files true  "rename over"             layout::rename;
     3 Files true  "unlink and create"       layout::unlink;
     2 Files false "MADV_COLLAPSE"           layout::huge;
     1 Files true  "FITRIM"                  layout::trim;
     3 Ext4  true  "EXT4_IOC_MOVE_EXT"       layout::move_extents;
     6 Xfs   true  "FICLONERANGE"            layout::clone;
     4 Xfs   true  "FIDEDUPERANGE"           layout::dedupe;
     1 Xfs   true  "xfs_fsr"                 layout::reorganise;
};

impl Operation {
    fn fits(&self, config: &Config, raw: bool) -> bool {
        if config.without.iter().any(|name| name == self.name) {
            return false;
        }
        match self.on {
            On::All => true,
            On::Files => !raw,
            On::Raw => raw,
            On::Ext4 => !raw && matches!(config.fs, Fs::Ext4(..)),
            On::Xfs => !raw && matches!(config.fs, Fs::Xfs(_)),
        }
    }
}

/// Picks an operation by weight.
pub fn pick(rng: &mut Rng, config: &Config, raw: bool) -> &'static Operation {
    let fitting = || {
        OPERATIONS
            .iter()
            .filter(|operation| operation.fits(config, raw))
    };
    let sum: u32 = fitting().map(|operation| operation.weight).sum();
    let mut rest = rng.u32(..sum);
    fitting()
        .find(|operation| {
            let found = rest < operation.weight;
            rest = rest.saturating_sub(operation.weight);
            found
        })
        .unwrap_or(&OPERATIONS[0])
}
