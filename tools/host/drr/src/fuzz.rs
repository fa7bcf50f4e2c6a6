// SPDX-License-Identifier: GPL-2.0

//! What fuzzing calls: bytes become input, and what comes of it is compared with rules that are
//! written here once more, in another way.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString},
};

use dm::{
    pagecache::cached_pages::CachedPages,
    pagecache::content::Digest,
    pagecache::directory::End,
    pagecache::folio::{EventFolio, MappingId, ReadPages},
    pagecache::page_bitmap,
    target::status_buffer::StatusBuffer,
};
use kernel::{
    prelude::GFP_KERNEL,
    sync::{rcu, Arc},
};

use crate::{
    access::donor_target::TargetRegistry,
    access::name::{Block, Holder},
    access::table::{AccessTable, Counted},
    args::{Args, Features},
    layers::id::LayerId,
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
    let known: [&[u8]; 5] = [
        b"no_donate",
        b"no_receive",
        b"paranoid",
        b"keep_copies",
        b"no_meta_cache",
    ];
    if count.is_empty() || number != names.len() || names.iter().any(|name| !known.contains(name)) {
        return None;
    }
    // In the order in which they are printed, and each once.
    names.sort_unstable_by_key(|name| known.iter().position(|it| it == name));
    let all = names.len();
    names.dedup();
    (names.len() == all).then_some(names)
}

fn print(features: Features, room: usize) -> Vec<u8> {
    let mut buffer = vec![0xff; room];
    let _ = features.print(&mut StatusBuffer::new(&mut buffer));
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

fn who(serial: u32) -> LayerId {
    LayerId {
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
        [b"heat"] => Message::Tell(Answer::Heatmap),
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
        let near = [0, 16, 32, u64::MAX, 1 << 63, 1 << 52][self.below(6) as usize];
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
    let mask = page_bitmap::mask(first, count);
    for page in 0..page_bitmap::PAGES {
        let inside = (first..first + count).contains(&page);
        assert_eq!(mask >> page & 1 == 1, inside);
    }

    // A file index is a page's, and files have at most 2^63 bytes; only bases wrap.
    let (base, first) = (source.index(), source.index() >> 12);
    let last = first + source.below(200);
    let mask = page_bitmap::overlap(base, first, last);
    for page in 0..page_bitmap::PAGES {
        let index = base.wrapping_add(u64::from(page));
        // A base far from any file index never comes about; for it there is nothing to say.
        if (base as i64) >= -i64::from(page_bitmap::PAGES) && (base as i64) < 1 << 60 {
            assert_eq!(mask >> page & 1 == 1, (first..=last).contains(&index));
            let windows = [
                page_bitmap::window(index),
                page_bitmap::window(index).wrapping_sub(1),
            ];
            assert!(windows.contains(&page_bitmap::window(base)));
        }
    }
}

const DEVICES: u64 = 3;
const MAPPINGS: u64 = 5;
const BLOCKS: u64 = 3;
const POOLS: u64 = 2;
const TIMES: u64 = 2;
/// Two stretches and a half.
const BLOCK_PAGES: u64 = 40;
const RUN: u64 = page_bitmap::PAGES as u64;
/// Runs with the same pages that the table wants, of all devices and of one.
const MOST_ALIKE: usize = 16;
const MOST_OF_A_DEVICE: usize = 4;

/// A page of a page cache: the page cache's number, the page's index.
type CachePage = (u64, u64);

/// A block's content, by pool, block and time.
type Name = (u64, u64, u64);

/// A stretch of it, by the stretch's number.
type Part = (Name, u64);

/// What a page holds: which page of a block's content, and by which device it was read.
#[derive(Clone, Copy)]
struct Held {
    name: Name,
    page: u64,
    device: u32,
}

impl Held {
    fn is(&self, name: Name, page: u64) -> bool {
        self.name == name && self.page == page
    }

    fn part(&self) -> Part {
        (self.name, self.page / RUN)
    }
}

/// What is known of the digest of a page of a stretch.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Digest(Digest),
    /// There were two.
    Discord,
}

fn block((pool, block, time): Name) -> Block {
    Block::new(pool, block, time as u32).expect("small numbers")
}

/// The digest of a page's content, or one that differs.
fn digest((pool, block, time): Name, page: u64, wrong: bool) -> Digest {
    Digest::from_bits((((pool << 8 | block) << 8 | time) << 8 | page) << 1 | u64::from(wrong) | 2)
}

/// Makes a table without records.
pub(crate) fn empty_table() -> AccessTable {
    let targets = Arc::new(TargetRegistry::new().expect("memory"), GFP_KERNEL);
    AccessTable::new(targets.expect("memory")).expect("memory")
}

/// The access table and maps that should say the same.
struct Both {
    table: AccessTable,
    pages: HashMap<CachePage, Held>,
    /// By stretch and page of the block.
    digests: HashMap<(Part, u64), Known>,
    /// Bytes of the empty table.
    empty: u64,
}

/// Pages that are about to be recorded.
struct Read {
    mapping: u64,
    first: u64,
    name: Name,
    page: u64,
    count: u64,
    device: u32,
}

impl Both {
    fn new() -> Self {
        let table = empty_table();
        let (_, _, empty) = table.usage();
        Self {
            table,
            pages: HashMap::new(),
            digests: HashMap::new(),
            empty,
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let (mapping, first) = (source.below(MAPPINGS), source.below(120));
        let name = (
            source.below(POOLS),
            source.below(BLOCKS),
            source.below(TIMES),
        );
        match source.below(16) {
            0..=7 => {
                let page = source.below(BLOCK_PAGES);
                let read = Read {
                    mapping,
                    first,
                    name,
                    page,
                    count: 1 + source.below((RUN - page % RUN).min(BLOCK_PAGES - page)),
                    device: source.below(DEVICES) as u32,
                };
                match source.below(8) {
                    0 => self.compare(&read, source),
                    1 | 2 => self.inherit(&read),
                    _ => self.record(&read, source),
                }
            }
            8..=11 => {
                let last = first + source.below(64);
                let id = MappingId::made_up(mapping + 1);
                let folio = EventFolio::made_up(id, (first, last));
                let gone = self.table.directory().folio_removed(&folio);
                let before = self.pages.len();
                self.forget(|page, _| page.0 == mapping && (first..=last).contains(&page.1));
                assert_eq!(gone as usize, before - self.pages.len());
            }
            12 | 13 => self.fail_to_prove(name, source.below(BLOCK_PAGES)),
            14 => {
                let device = source.below(DEVICES) as u32;
                self.table.forget_target(device, End::Gone);
                self.forget(|_, held| held.device == device);
            }
            _ => self.table.forget_target(u32::MAX, End::Gone),
        }
        self.forget_digests();
    }

    /// A stretch's digests are known for as long as somebody has a page of it.
    fn forget_digests(&mut self) {
        let parts: HashSet<Part> = self.pages.values().map(Held::part).collect();
        self.digests.retain(|(part, _), _| parts.contains(part));
    }

    fn forget(&mut self, gone: impl Fn(&CachePage, &Held) -> bool) {
        self.pages.retain(|page, held| !gone(page, held));
    }

    /// A copy of the newest donor's page doesn't have the digest.
    fn fail_to_prove(&mut self, name: Name, page: u64) {
        let guard = rcu::read_lock();
        let at = (page % RUN) as u32;
        let name = block(name);
        let Some(donor) = self.table.donors(&guard, &name, page as u32).next() else {
            return;
        };
        self.table.directory().end_changed(&donor, at);
        let place = (donor.mapping().hash_key() - 1, donor.index(at));
        let held = self.pages.remove(&place).expect("a page that is known");
        assert!(block(held.name) == name && held.page == page);
    }

    fn pages_of<'a>(read: &Read) -> CachedPages<'a> {
        let folio = |at: u64, count: u64| {
            let mapping = MappingId::made_up(read.mapping + 1);
            CachedPages::read(&ReadPages::new(
                mapping,
                read.first + at,
                count as u32,
                at as u32,
            ))
        };
        // A large folio, and small ones.
        let large = read.count / 2 + 1;
        let mut pages = folio(0, large);
        for at in large..read.count {
            assert!(!pages.extend(&folio(at + 1, 1)) && pages.extend(&folio(at, 1)));
        }
        pages
    }

    fn holder(read: &Read) -> Holder {
        Holder {
            target_id: read.device,
            layer: who(read.device + 100),
        }
    }

    /// Few of them are wrong.
    fn digests_of(read: &Read, source: &mut Source<'_>) -> Vec<Digest> {
        let pages = read.page..read.page + read.count;
        pages
            .map(|page| digest(read.name, page, source.below(64) == 63))
            .collect()
    }

    fn record(&mut self, read: &Read, source: &mut Source<'_>) {
        let digests = Self::digests_of(read, source);
        let counted = self.table.record(
            &block(read.name),
            read.page as u32,
            &Self::pages_of(read),
            &digests,
            Self::holder(read),
        );
        let mut expected = Counted::default();
        let differed = self.learn(read, &digests, true, &mut expected);
        expected.recorded += self.insert(read, |page| !differed.contains(&page));
        self.forget_digests();
        assert_eq!(counted, expected);
    }

    fn inherit(&mut self, read: &Read) {
        let pages = Self::pages_of(read);
        let (name, holder) = (block(read.name), Self::holder(read));
        let recorded = self.table.inherit(&name, read.page as u32, &pages, holder);
        let expected = self.insert(read, |_| true);
        self.forget_digests();
        assert_eq!(recorded, expected);
    }

    fn compare(&mut self, read: &Read, source: &mut Source<'_>) {
        let digests = Self::digests_of(read, source);
        let name = block(read.name);
        let counted = self.table.compare(&name, read.page as u32, &digests);
        let mut expected = Counted::default();
        self.learn(read, &digests, false, &mut expected);
        self.forget_digests();
        assert_eq!(counted, expected);
    }

    /// Compares digests with those that are known, or takes them for known if they are `new`. Returns the pages that
    /// differ.
    fn learn(
        &mut self,
        read: &Read,
        digests: &[Digest],
        new: bool,
        counted: &mut Counted,
    ) -> HashSet<u64> {
        let stretch = (read.name, read.page / RUN);
        let mut differed = HashSet::new();
        for (page, digest) in (read.page..read.page + read.count).zip(digests) {
            match self.digests.get(&(stretch, page)) {
                None if !new => {}
                None => {
                    let known = Known::Digest(*digest);
                    self.digests.insert((stretch, page), known);
                }
                Some(Known::Discord) if !new => {}
                Some(Known::Discord) => {
                    differed.insert(page);
                }
                Some(Known::Digest(known)) => {
                    counted.compared += 1;
                    if known != digest {
                        differed.insert(page);
                    }
                }
            }
        }
        for page in &differed {
            self.digests.insert((stretch, *page), Known::Discord);
            self.forget(|_, held| held.is(read.name, *page));
        }
        counted.differed += differed.len() as u32;
        differed
    }

    /// What is on record afterwards, and how many of the pages.
    fn insert(&mut self, read: &Read, wanted: impl Fn(u64) -> bool) -> u32 {
        let stretch = (read.name, read.page / RUN);
        let known =
            |page: u64| matches!(self.digests.get(&(stretch, page)), Some(Known::Digest(_)));
        let pages: Vec<u64> = (read.page..read.page + read.count)
            .filter(|page| wanted(*page) && known(*page))
            .collect();
        // What the same pages of the page cache were known as ends, unless it is this.
        let place = |page: u64| (read.mapping, read.first + (page - read.page));
        let range = read.first..read.first + read.count;
        self.forget(|it, held| {
            it.0 == read.mapping
                && range.contains(&it.1)
                && !held.is(read.name, read.page + (it.1 - read.first))
        });
        // Runs by page cache and where the block would begin in it: their device and pages.
        let mut runs: HashMap<(u64, u64), (u32, HashSet<u64>)> = HashMap::new();
        for (it, held) in self.pages.iter().filter(|(_, held)| held.part() == stretch) {
            let run = runs.entry((it.0, it.1.wrapping_sub(held.page)));
            let (_, its) = run.or_insert((held.device, HashSet::new()));
            its.insert(held.page);
        }
        let its = runs.get(&(read.mapping, read.first.wrapping_sub(read.page)));
        let new: Vec<u64> = match its {
            Some((_, its)) => pages
                .iter()
                .filter(|it| !its.contains(it))
                .copied()
                .collect(),
            None => pages.clone(),
        };
        let alike = runs
            .values()
            .filter(|(_, its)| new.iter().all(|page| its.contains(page)));
        let own = alike.clone().filter(|(device, _)| *device == read.device);
        let enough = alike.count() >= MOST_ALIKE || own.count() >= MOST_OF_A_DEVICE;
        if new.is_empty() || enough {
            return (pages.len() - new.len()) as u32;
        }
        // A run keeps the device that it was made for.
        let device = its.map_or(read.device, |(device, _)| *device);
        for page in &new {
            self.pages.insert(
                place(*page),
                Held {
                    name: read.name,
                    page: *page,
                    device,
                },
            );
        }
        pages.len() as u32
    }

    /// Donors of every page of every block.
    fn check(&self) {
        let guard = rcu::read_lock();
        let mut found = 0;
        for number in 0..POOLS * BLOCKS * TIMES {
            let name = (
                number % POOLS,
                number / POOLS % BLOCKS,
                number / POOLS / BLOCKS,
            );
            for page in 0..BLOCK_PAGES {
                let at = (page % RUN) as u32;
                for donor in self.table.donors(&guard, &block(name), page as u32) {
                    let place = (donor.mapping().hash_key() - 1, donor.index(at));
                    let held = self.pages.get(&place);
                    let held = held.expect("a page that was forgotten donates");
                    assert!(held.is(name, page), "a page donates for another");
                    assert_eq!(donor.holder().target_id, held.device);
                    assert_eq!(donor.holder().layer, who(held.device + 100));
                    let known = self.digests.get(&(held.part(), page));
                    let digest = donor.digest(at).map(Known::Digest);
                    assert!(digest.is_some() && digest.as_ref() == known);
                    found += 1;
                }
            }
        }
        assert_eq!(
            found,
            self.pages.len(),
            "a page that is known was not found"
        );
        let (records, pages, bytes) = self.table.usage();
        assert_eq!(pages, self.pages.len() as u64);
        let runs: HashSet<_> = self
            .pages
            .iter()
            .map(|(it, held)| (it.0, it.1.wrapping_sub(held.page), held.part()))
            .collect();
        let parts: HashSet<_> = self.pages.values().map(Held::part).collect();
        assert_eq!(records, runs.len() as u64);
        // In the kernel's slabs.
        assert_eq!(bytes - self.empty, 96 * records + 192 * parts.len() as u64);
    }
}

/// A sequence of what happens to the access table.
pub fn access_table(data: &[u8]) {
    let mut both = Both::new();
    let mut source = Source(data);
    let mut steps = 0;
    while !source.0.is_empty() {
        both.step(&mut source);
        steps += 1;
        both.check();
        if steps == 64 {
            break;
        }
    }
    for mapping in 0..MAPPINGS {
        let id = MappingId::made_up(mapping + 1);
        both.table
            .directory()
            .folio_removed(&EventFolio::made_up(id, (0, 1000)));
    }
    both.pages.clear();
    both.check();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// As a fuzzer's start: bytes by chance, and pieces of right input.
    fn try_with(seed: u64, count: usize, target: fn(&[u8])) {
        let pieces: [&[u8]; 14] = [
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
            b"keep_copies",
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
                    data.extend(pieces[random.below(14) as usize]);
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

    /// Whichever of many holders let go, others are known.
    #[test]
    fn a_crowd() {
        const HOLDERS: u64 = 300;
        let name = (0, 0, 0);
        let read = |mapping| Read {
            mapping,
            first: 0,
            name,
            page: 0,
            count: 1,
            device: mapping as u32,
        };
        for gone in [0..200, 16..HOLDERS, 100..HOLDERS] {
            let table = empty_table();
            let known = || {
                let guard = rcu::read_lock();
                table.donors(&guard, &block(name), 0).count()
            };
            for mapping in 0..HOLDERS {
                let read = read(mapping);
                let (pages, holder) = (Both::pages_of(&read), Both::holder(&read));
                table.record(&block(name), 0, &pages, &[digest(name, 0, false)], holder);
                assert_eq!(known() as u64, (mapping + 1).min(MOST_ALIKE as u64));
            }
            let all = gone.clone();
            for mapping in gone {
                let id = MappingId::made_up(mapping + 1);
                let folio = EventFolio::made_up(id, (0, 0));
                table.directory().folio_removed(&folio);
            }
            assert!(known() > 0, "none are known when {all:?} are gone");
        }
    }

    /// A holder that reads its page again and again is known after a few readings, whichever it is, and whoever
    /// reads in between; and of all readings of holders that aren't known, about one in eight is entered.
    #[test]
    fn a_crowd_lets_in_who_comes_again() {
        const HOLDERS: u64 = 32;
        const ROUNDS: u64 = 500;
        let name = (0, 0, 0);
        let table = empty_table();
        let known = |device: u64| {
            let guard = rcu::read_lock();
            let mut donors = table.donors(&guard, &block(name), 0);
            donors.any(|donor| donor.holder().target_id == device as u32)
        };
        let (mut readings, mut entered) = (0, 0);
        let mut losses = [0; HOLDERS as usize];
        for mapping in (0..ROUNDS).flat_map(|_| 0..HOLDERS) {
            let read = Read {
                mapping,
                first: 0,
                name,
                page: 0,
                count: 1,
                device: mapping as u32,
            };
            if known(mapping) {
                continue;
            }
            let (pages, holder) = (Both::pages_of(&read), Both::holder(&read));
            table.record(&block(name), 0, &pages, &[digest(name, 0, false)], holder);
            let (won, lost) = (known(mapping), &mut losses[mapping as usize]);
            *lost = if won { 0 } else { *lost + 1 };
            assert!(*lost < 100, "holder {mapping} loses every draw");
            readings += 1;
            entered += u64::from(won);
        }
        assert!(
            (readings / 10..readings / 6).contains(&entered),
            "{entered} of {readings}"
        );
    }

    /// However pages are spread over extents, one name has no more of these than a search may walk.
    #[test]
    fn a_crowd_of_parts() {
        let table = empty_table();
        let mut random = Random(5);
        for mapping in 0..20_000 {
            let whole = mapping < 300;
            let page = if whole { 0 } else { random.below(RUN) };
            let left = RUN - page;
            let read = Read {
                mapping,
                first: page,
                name: (0, 0, 0),
                page,
                count: if whole { left } else { 1 + random.below(left) },
                device: mapping as u32,
            };
            let digests: Vec<_> = (page..page + read.count)
                .map(|page| digest(read.name, page, false))
                .collect();
            let (pages, holder) = (Both::pages_of(&read), Both::holder(&read));
            table.record(&block(read.name), page as u32, &pages, &digests, holder);
            assert!(table.usage().0 <= 256, "{} extents", table.usage().0);
        }
    }

    #[test]
    fn access_tables() {
        let mut random = Random(3);
        for _ in 0..1000 {
            access_table(&random.bytes(400));
        }
    }
}
