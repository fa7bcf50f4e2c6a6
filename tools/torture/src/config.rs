// SPDX-License-Identifier: GPL-2.0

//! What a round is made of, all of it derived from the seed; and the command line.

use std::fmt;

use fastrand::Rng;

/// What stands on the thin devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// What is tested.
    Drr,
    /// For comparison: a wrong byte with this is one of the torture's own.
    Linear,
}

/// How ext4 keeps its journal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// Metadata, ordered.
    Ordered,
    /// Data too.
    Data,
    /// None.
    None,
    /// None, and no extents: ext2, by ext4's driver.
    Ext2,
}

/// A file system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fs {
    /// ext4: block size and journal.
    Ext4(u32, Journal),
    /// xfs with reflink: block size.
    Xfs(u32),
}

/// Those of a run, in this order; each round takes the next.
pub const FILE_SYSTEMS: [Fs; 7] = [
    Fs::Ext4(4096, Journal::Ordered),
    Fs::Xfs(4096),
    Fs::Ext4(4096, Journal::Data),
    Fs::Ext4(1024, Journal::Ordered),
    Fs::Ext4(4096, Journal::None),
    Fs::Ext4(4096, Journal::Ext2),
    Fs::Xfs(1024),
];

impl Fs {
    /// Its type, for mount.
    pub fn kind(self) -> &'static str {
        match self {
            Fs::Ext4(..) => "ext4",
            Fs::Xfs(_) => "xfs",
        }
    }

    /// Bytes of a block.
    pub fn block(self) -> usize {
        let (Fs::Ext4(block, _) | Fs::Xfs(block)) = self;
        block as usize
    }

    /// Mount options.
    pub fn options(self) -> &'static str {
        match self {
            Fs::Ext4(_, Journal::Data) => "data=journal",
            Fs::Ext4(..) => "",
            Fs::Xfs(_) => "nouuid",
        }
    }

    /// Mount options that change nothing on the device.
    pub fn read_only_options(self) -> &'static str {
        match self {
            Fs::Ext4(..) => "ro,noload",
            Fs::Xfs(_) => "ro,norecovery,nouuid",
        }
    }
}

impl fmt::Display for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = match *self {
            Fs::Ext4(_, Journal::Ordered) => "-ordered",
            Fs::Ext4(_, Journal::Data) => "-journal",
            Fs::Ext4(_, Journal::None) => "-nojournal",
            Fs::Ext4(_, Journal::Ext2) => "-ext2",
            Fs::Xfs(_) => "",
        };
        write!(f, "{}-{}k{journal}", self.kind(), self.block() / 1024)
    }
}

/// A round.
#[derive(Clone)]
pub struct Config {
    /// What stands on the thin devices.
    pub target: Target,
    /// The containers' file system.
    pub fs: Fs,
    /// Siblings with a file system.
    pub containers: usize,
    /// Siblings that are used as raw devices.
    pub raws: usize,
    /// Threads for each sibling with a file system.
    pub threads: usize,
    /// The pool's data block.
    pub block_sectors: u64,
    /// Whether the pool zeroes new blocks.
    pub zeroing: bool,
    /// Whether the pool passes discards down.
    pub passdown: bool,
    /// The disk's size.
    pub disk_mib: u64,
    /// How much of it the pool has at first.
    pub pool_mib: u64,
    /// Whether the pool will have no space, fail writes, or be made read-only.
    pub faults: bool,
    /// Operations that are left out.
    pub without: Vec<String>,
}

impl Config {
    /// The configuration of a round.
    pub fn of_round(rng: &mut Rng, options: &Options, round: usize) -> Self {
        let list = &options.file_systems;
        Config {
            target: options.target,
            fs: list[round % list.len()],
            containers: rng.usize(3..=5),
            raws: 2,
            threads: 2,
            block_sectors: [128, 128, 128, 256][rng.usize(..4)],
            zeroing: rng.bool(),
            passdown: rng.u8(..4) > 0,
            disk_mib: 512,
            pool_mib: 80,
            faults: options.faults && rng.bool(),
            without: options.without.clone(),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            fs,
            containers,
            raws,
            block_sectors,
            ..
        } = self;
        write!(
            f,
            "{fs}, {containers} containers, {raws} raw, blocks of {block_sectors} sectors"
        )?;
        for (on, text) in [
            (self.zeroing, "zeroing"),
            (!self.passdown, "no discard passdown"),
            (self.faults, "pool faults"),
            (self.target == Target::Linear, "without drr"),
        ] {
            if on {
                write!(f, ", {text}")?;
            }
        }
        Ok(())
    }
}

/// The command line.
pub struct Options {
    /// Repeats a run, as far as threads let it.
    pub seed: u64,
    /// How long to run.
    pub seconds: u64,
    /// How long a round is.
    pub round_seconds: u64,
    /// drr or not.
    pub target: Target,
    /// Which file systems.
    pub file_systems: Vec<Fs>,
    /// Whether the pool may fail.
    pub faults: bool,
    /// Operations that are left out.
    pub without: Vec<String>,
    /// An operation that takes longer is a hang.
    pub patience: u64,
    /// Where the result goes.
    pub output: String,
    /// What to call the kernel in it.
    pub kernel: String,
}

const USAGE: &str = "usage: drr-torture [--seed N] [--time SECONDS] [--round SECONDS]
	[--target drr|linear] [--fs NAME[,NAME]...] [--no-faults] [--without OPERATION]... [--patience SECONDS]
	[--output FILE] [--kernel NAME]";

impl Options {
    /// Parses the command line.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Options {
            seed: 1,
            seconds: 60,
            round_seconds: 30,
            target: Target::Drr,
            file_systems: FILE_SYSTEMS.to_vec(),
            faults: true,
            without: Vec::new(),
            patience: 120,
            output: "/out/result.json".to_owned(),
            kernel: "unknown".to_owned(),
        };
        while let Some(word) = words.next() {
            if word == "--no-faults" {
                options.faults = false;
                continue;
            }
            let value = words.next().ok_or(USAGE)?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{word}: no number: {value}"))
            };
            match word.as_str() {
                "--seed" => options.seed = number()?,
                "--time" => options.seconds = number()?,
                "--round" => options.round_seconds = number()?,
                "--patience" => options.patience = number()?,
                "--target" if value == "drr" => options.target = Target::Drr,
                "--target" if value == "linear" => options.target = Target::Linear,
                "--fs" => options.file_systems = named(&value)?,
                "--without" => options.without.push(value),
                "--output" => options.output = value,
                "--kernel" => options.kernel = value,
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(options)
    }
}

fn named(names: &str) -> Result<Vec<Fs>, String> {
    let one = |name: &str| {
        let mut all = FILE_SYSTEMS.iter().copied();
        all.find(|fs| fs.to_string() == name).ok_or_else(|| {
            let names: Vec<String> = FILE_SYSTEMS.iter().map(Fs::to_string).collect();
            format!("--fs: no '{name}' : use some of {}", names.join(" "))
        })
    };
    names.split(',').map(one).collect()
}
