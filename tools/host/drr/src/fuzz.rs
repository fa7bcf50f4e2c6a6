// SPDX-License-Identifier: GPL-2.0

//! What fuzzing calls: bytes become input, and what comes of it is compared with rules that are
//! written here once more, in another way.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
};

use dm::{
    bits,
    directory::{Donor, End, ReadRange},
    event::Event,
    folio::{EventFolio, MappingId, ReadPages},
    target::Printer,
    tracepoint::FolioEvents,
    truncation::{TruncatedPages, TruncationEvents},
};
use kernel::sync::rcu;

use crate::{
    access::{AccessTable, Block},
    args::{Args, Features},
    layer::Who,
    message::{Answer, Message, MessageError},
};

/// The words of a line: what zero bytes are between.
fn words(data: &[u8]) -> Vec<CString> {
    data.split(|byte| *byte == 0)
        .map(|word| CString::new(word).expect("no zero byte in it"))
        .collect()
}

/// What [`Args::parse`] should say: whether the line is right, and the features by name.
fn right_features<'a>(args: &[&'a CStr]) -> Option<Vec<&'a [u8]>> {
    let [_device, rest @ ..] = args else {
        return None;
    };
    let [count, names @ ..] = rest else {
        return Some(Vec::new());
    };
    let mut number = 0usize;
    for digit in count.to_bytes() {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(usize::from(digit - b'0'))?;
    }
    let mut names: Vec<&[u8]> = names.iter().map(|name| name.to_bytes()).collect();
    let known: [&[u8]; 3] = [b"no_donate", b"no_receive", b"paranoid"];
    if count.is_empty() || number != names.len() || names.iter().any(|name| !known.contains(name)) {
        return None;
    }
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    (names.len() == all).then_some(names)
}

fn print(features: Features, room: usize) -> Vec<u8> {
    let mut buffer = vec![0xff; room];
    let _ = features.print(&mut Printer::new(&mut buffer));
    CStr::from_bytes_until_nul(&buffer)
        .expect("what is printed ends")
        .to_bytes()
        .to_vec()
}

/// A table line's arguments.
pub fn table_line(data: &[u8]) {
    let owned = words(data);
    let args: Vec<&CStr> = owned.iter().map(|word| word.as_c_str()).collect();
    // As of a line without words.
    let args = if data.is_empty() { &[][..] } else { &args };
    let right = right_features(args);
    match Args::parse(args) {
        Ok(parsed) => {
            let names = right.expect("a wrong line was taken");
            assert_eq!(parsed.device, args[0]);
            let on = parsed.features.iter().filter(|(_, on)| *on);
            assert!(on.map(|(name, _)| name.as_bytes()).eq(names));

            let text = print(parsed.features, 256);
            for room in 1..text.len() {
                assert!(text.starts_with(&print(parsed.features, room)));
            }
            let again: Vec<CString> = [args[0].to_owned()]
                .into_iter()
                .chain(
                    text.split(|byte| *byte == b' ')
                        .skip(1)
                        .map(|word| CString::new(word).expect("no zero byte")),
                )
                .collect();
            let again: Vec<&CStr> = again.iter().map(|word| word.as_c_str()).collect();
            assert_eq!(Args::parse(&again), Ok(parsed));
        }
        Err(error) => {
            assert!(right.is_none(), "a right line was refused: {error:?}");
            assert!(!error.text().is_empty() && !error.remedy().is_empty());
            if let Some(culprit) = error.culprit() {
                assert!(args.iter().any(|arg| core::ptr::eq(*arg, culprit)));
            }
        }
    }
}

fn number(word: &[u8], below: u64) -> Option<u32> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let value = word.iter().try_fold(0u64, add)?;
    (value < below).then_some(value as u32)
}

fn who(serial: u32) -> Who {
    Who {
        serial,
        thin_id: serial,
    }
}

/// What a message means, or nothing if it is wrong.
fn right_message(words: &[&[u8]]) -> Option<Message> {
    let parent = |word: &[u8]| match word {
        b"-" => Some(None),
        word => number(word, 1 << 24).map(Some),
    };
    Some(match words {
        [b"reset_stats"] => Message::ResetStats,
        [b"layers"] => Message::Tell(Answer::Layers),
        [b"heat"] => Message::Tell(Answer::Heat),
        [b"blocks"] => Message::Tell(Answer::Blocks),
        [b"blocks", b"on"] => Message::CountBlocks(true),
        [b"blocks", b"off"] => Message::CountBlocks(false),
        [b"duplicates"] => Message::Tell(Answer::Duplicates),
        [b"duplicates", b"list"] => Message::Tell(Answer::Copies(0)),
        [b"duplicates", b"list", from] => Message::Tell(Answer::Copies(number(from, 1 << 32)?)),
        [b"layer", id, from] => Message::Declare {
            thin_id: number(id, 1 << 24)?,
            parent: parent(from)?,
            created: None,
        },
        [b"layer", id, from, time] => Message::Declare {
            thin_id: number(id, 1 << 24)?,
            parent: parent(from)?,
            created: Some(number(time, 1 << 32)?),
        },
        _ => return None,
    })
}

/// The words of a message.
pub fn message(data: &[u8]) {
    let owned = words(data);
    let args: Vec<&CStr> = owned.iter().map(|word| word.as_c_str()).collect();
    let args = if data.is_empty() { &[][..] } else { &args };
    let bytes: Vec<&[u8]> = args.iter().map(|word| word.to_bytes()).collect();
    let right = right_message(&bytes);
    match Message::parse(args) {
        Ok(parsed) => assert_eq!(Some(parsed), right),
        Err(error) => {
            assert!(right.is_none(), "a right message was refused: {error:?}");
            assert!(!error.text().is_empty() && !error.remedy().is_empty());
            let at = args
                .iter()
                .position(|arg| core::ptr::eq(*arg, error.culprit()));
            match error {
                MessageError::Unknown(_) => assert!(at == Some(0) || args.is_empty()),
                MessageError::Missing(_) => assert_eq!(at, Some(0)),
                _ => assert!(at > Some(0)),
            }
        }
    }
}

/// Takes numbers from bytes; zeroes when there are none left.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    fn below(&mut self, limit: u64) -> u64 {
        u64::from(self.byte()) % limit
    }

    fn u64(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Often near an end of the range, and near other numbers.
    fn index(&mut self) -> u64 {
        let near = [0, 32, 64, u64::MAX, 1 << 63, 1 << 52][self.below(6) as usize];
        match self.byte() {
            0..=199 => near.wrapping_add(self.below(100)).wrapping_sub(50),
            _ => self.u64(),
        }
    }
}

/// The arithmetic of runs.
pub fn run_bits(data: &[u8]) {
    let mut source = Source(data);
    let (first, count) = (source.below(70) as u32, source.below(256) as u32);
    let mask = bits::mask(first, count);
    for page in 0..bits::PAGES {
        let inside = (first..first + count).contains(&page);
        assert_eq!(mask >> page & 1 == 1, inside);
    }

    // A file index is a page's, and files have at most 2^63 bytes; only bases wrap.
    let (base, first) = (source.index(), source.index() >> 12);
    let last = first + source.below(200);
    let mask = bits::overlap(base, first, last);
    for page in 0..bits::PAGES {
        let index = base.wrapping_add(u64::from(page));
        // A base far from any file index never comes about; for it there is nothing to say.
        if (base as i64) >= -32 && (base as i64) < 1 << 60 {
            assert_eq!(mask >> page & 1 == 1, (first..=last).contains(&index));
            let windows = [bits::window(index), bits::window(index).wrapping_sub(1)];
            assert!(windows.contains(&bits::window(base)));
        }
    }
}

const DEVICES: u64 = 3;
const MAPPINGS: u64 = 3;
const BLOCKS: u64 = 4;
const POOLS: u64 = 2;
/// Two stretches and a half.
const BLOCK_PAGES: u64 = 80;

/// A page of a page cache: the page cache's number, the page's index.
type CachePage = (u64, u64);

/// What a page holds: pool, block, page of the block, and by which device it was read.
type Content = (u64, u64, u64, u32);

/// The access table and a map that should say the same.
struct Both {
    table: AccessTable,
    model: HashMap<CachePage, Content>,
}

impl Both {
    fn step(&mut self, source: &mut Source<'_>) {
        let (mapping, first) = (source.below(MAPPINGS), source.below(120));
        let id = MappingId::made_up(mapping + 1);
        let (pool, block) = (source.below(POOLS), source.below(BLOCKS));
        let event = |last| EventFolio::made_up(id, (first, last));
        match source.below(16) {
            0..=7 => self.record(source, mapping, first, pool, block),
            8 | 9 => {
                let last = first + source.below(64);
                self.table.directory().removed(event(last));
                self.forget(|page, _| page.0 == mapping && (first..=last).contains(&page.1));
            }
            11 => {
                let last = first + source.below(64);
                let pages = TruncatedPages::made_up(id, (first, last));
                self.table.truncates(&pages);
                self.forget(|page, _| page.0 == mapping && (first..=last).contains(&page.1));
            }
            10 => {
                let last = first + source.below(4);
                self.table.directory().dirtied(event(last));
                self.forget(|page, _| page.0 == mapping && (first..=last).contains(&page.1));
            }
            12 | 13 => {
                self.table.event(Event::Allocated { pool, block });
                self.forget(|_, content| (content.0, content.1) == (pool, block));
            }
            14 => {
                let device = source.below(DEVICES) as u32;
                self.table.forget_device(device, End::Claimed);
                self.forget(|_, content| content.3 == device);
            }
            _ => {
                if source.byte() < 32 {
                    self.table.event(Event::Aborted { pool });
                    self.forget(|_, content| content.0 == pool);
                }
            }
        }
    }

    fn forget(&mut self, gone: impl Fn(&CachePage, &Content) -> bool) {
        self.model.retain(|page, content| !gone(page, content));
    }

    fn record(&mut self, source: &mut Source<'_>, mapping: u64, first: u64, pool: u64, block: u64) {
        let page = source.below(BLOCK_PAGES);
        let count = 1 + source.below((BLOCK_PAGES - page).min(40));
        let device = source.below(DEVICES) as u32;
        let run = u64::from(bits::PAGES);
        // Each stretch is recorded, or not, by itself.
        let mut done = 0;
        while done < count {
            let part = (run - (page + done) % run).min(count - done);
            let content = (pool, block, page + done, device);
            self.record_stretch((mapping, first + done), content, part);
            done += part;
        }
    }

    fn record_stretch(&mut self, (mapping, first): CachePage, content: Content, count: u64) {
        let (pool, block, page, device) = content;
        let folio = |at: u64, count: u64| {
            let mapping = MappingId::made_up(mapping + 1);
            ReadPages::new(mapping, first + at, count as u32, at as u32)
        };
        // A large folio, and small ones.
        let large = count / 2 + 1;
        let mut range = ReadRange::new(&folio(0, large));
        for at in large..count {
            assert!(!range.extend(&folio(at + 1, 1)) && range.extend(&folio(at, 1)));
        }
        let name = Block::new(pool, block).expect("small numbers");
        let recorded = self
            .table
            .record(&name, page as u32, range, device, who(device + 100));
        let range = first..first + count;
        let holds = |model: &HashMap<_, Content>, (mapping, at), page| {
            let held: Option<&Content> = model.get(&(mapping, at));
            held.is_some_and(|held| (held.0, held.1, held.2) == (pool, block, page))
        };
        if recorded == 0 {
            self.forget(|it, _| it.0 == mapping && range.contains(&it.1));
            // Only if there are donors enough.
            let starts = self.model.keys().filter(|(cache, at)| {
                (0..count).all(|step| holds(&self.model, (*cache, at + step), page + step))
            });
            assert!(starts.count() >= 16, "a page was not recorded");
            return;
        }
        assert_eq!(u64::from(recorded), count);
        for (step, at) in range.enumerate() {
            // A run keeps the device that it was made for.
            let page = page + step as u64;
            if !holds(&self.model, (mapping, at), page) {
                self.model
                    .insert((mapping, at), (pool, block, page, device));
            }
        }
    }

    /// Donors of every page of every block.
    fn compare(&mut self) {
        let guard = rcu::read_lock();
        let mut found = 0;
        for pool in 0..POOLS {
            for block in 0..BLOCKS {
                let name = Block::new(pool, block).expect("small numbers");
                for page in 0..BLOCK_PAGES {
                    let (donors, at) = self.table.donors(&guard, &name, page as u32);
                    for donor in donors.filter(|donor| donor.pages_from(at) != 0) {
                        let held = self.model.get_mut(&place(&donor, at));
                        let held = held.expect("a page that was forgotten donates");
                        assert_eq!((held.0, held.1, held.2), (pool, block, page));
                        // Whose run it became part of is the table's to choose.
                        held.3 = donor.key().device;
                        assert_eq!(donor.key().layer, who(held.3 + 100));
                        found += 1;
                    }
                }
            }
        }
        assert_eq!(
            found,
            self.model.len(),
            "a page that is known was not found"
        );
        let (_, pages, _) = self.table.usage();
        assert_eq!(pages, self.model.len() as u64);
    }
}

fn place<K: dm::directory::Key>(donor: &Donor<'_, K>, at: u32) -> CachePage {
    (donor.mapping().number() - 1, donor.index(at))
}

/// A sequence of what happens to the access table.
pub fn access_table(data: &[u8]) {
    let mut both = Both {
        table: AccessTable::new().expect("memory"),
        model: HashMap::new(),
    };
    both.table.expect_blocks_of(BLOCK_PAGES as u32);
    let mut source = Source(data);
    let mut steps = 0;
    while !source.0.is_empty() {
        both.step(&mut source);
        steps += 1;
        // Which run a page is part of matters only to what ends a device's: look before.
        both.compare();
        if steps == 64 {
            break;
        }
    }
    both.table
        .directory()
        .removed(EventFolio::made_up(MappingId::made_up(1), (0, 1000)));
    both.forget(|page, _| page.0 == 0);
    both.compare();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::random::Random;

    /// As a fuzzer's start: bytes by chance, and pieces of right input.
    fn try_with(seed: u64, count: usize, target: fn(&[u8])) {
        let pieces: [&[u8]; 13] = [
            b"253:1",
            b"0",
            b"1",
            b"2",
            b"3",
            b"+1",
            b"01",
            b"no_donate",
            b"no_receive",
            b"paranoid",
            b"",
            b"\0",
            b"reset_stats",
        ];
        let mut random = Random(seed);
        for _ in 0..count {
            let mut data = Vec::new();
            for _ in 0..random.below(6) {
                if random.below(8) == 0 {
                    let len = random.below(20) as usize;
                    data.extend(random.bytes(len));
                } else {
                    data.extend(pieces[random.below(13) as usize]);
                }
                data.push(0);
            }
            if random.below(8) != 0 {
                data.pop();
            }
            target(&data);
        }
    }

    #[test]
    fn table_lines() {
        try_with(1, 200_000, table_line);
    }

    #[test]
    fn messages() {
        try_with(4, 200_000, message);
        message(b"");
        message(b"reset_stats");
        message(b"reset_stats\0now");
    }

    #[test]
    fn bits_of_runs() {
        let mut random = Random(2);
        for _ in 0..200_000 {
            run_bits(&random.bytes(30));
        }
    }

    #[test]
    fn access_tables() {
        let mut random = Random(3);
        for _ in 0..100 {
            access_table(&random.bytes(400));
        }
    }
}
