// SPDX-License-Identifier: GPL-2.0

//! Parses dm-drr's answers to messages, which include/uapi/linux/dm-drr.h describes.

use std::collections::HashMap;

use crate::error::{Code, Error, Result};

/// The version of all answers that this module understands.
const VERSION: u64 = 1;

/// A layer of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub serial: u64,
    pub thin_id: u64,
    pub parent: Option<u64>,
    pub created: u64,
    pub live: bool,
    pub devices: u64,
}

/// The reads of one owner's blocks by a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Serial number and thin id of the layer; `None` if it isn't known.
    pub owner: Option<(u64, u64)>,
    pub disk_ios: u64,
    pub disk_sectors: u64,
    pub drr_ios: u64,
    pub drr_sectors: u64,
}

/// The data that a device got from one donor's page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Donor {
    /// Serial number and thin id; `None` for all donors that were too many to be told apart.
    pub layer: Option<(u64, u64)>,
    pub sectors: u64,
}

/// The answer to the message `heat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heat {
    pub layer: u64,
    pub thin_id: u64,
    pub reads: Vec<Read>,
    pub donors: Vec<Donor>,
    pub write_ios: u64,
    pub write_sectors: u64,
}

/// The number of blocks that were read `low` to `high` times, or by `low` to `high` layers; or of
/// pages that are cached `low` to `high` times. Without `high`, `low` or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub low: u64,
    pub high: Option<u64>,
    pub count: u64,
}

/// The answer to the message `blocks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    pub on: bool,
    pub blocks: u64,
    pub block_sectors: u64,
    pub missed: u64,
    pub reads: Vec<Bucket>,
    pub layers: Vec<Bucket>,
}

/// The pages in a layer's page caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Serial number and thin id; `None` for all layers that were too many to be told apart.
    pub layer: Option<(u64, u64)>,
    pub pages: u64,
    /// The number of these pages of which there is a newer copy.
    pub extra: u64,
}

/// The answer to the message `duplicates`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duplicates {
    pub page_bytes: u64,
    pub copies: Vec<Bucket>,
    pub layers: Vec<Holding>,
}

/// Pages of a data block that a layer's page caches hold, and others, too.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Copy {
    pub block: u64,
    pub first_page: u64,
    pub pages: u64,
    pub serial: u64,
    pub thin_id: u64,
}

/// An answer: the keys in its title, and the words of its records.
struct Answer<'a> {
    device: &'a str,
    name: &'a str,
    keys: HashMap<&'a str, &'a str>,
    records: Vec<Vec<&'a str>>,
}

impl<'a> Answer<'a> {
    /// Parses the answer of `device` to the message `name`.
    fn new(device: &'a str, name: &'a str, text: &'a str) -> Result<Self> {
        let mut lines = text.lines();
        let mut title = lines.next().unwrap_or_default().split(' ');
        let mut answer = Self {
            device,
            name,
            keys: HashMap::new(),
            records: Vec::new(),
        };
        if title.next().and_then(|word| word.strip_prefix("drr-")) != Some(name) {
            return Err(answer.odd("its title is not that of the message"));
        }
        let version: u64 = title
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| answer.odd("it has no version"))?;
        if version != VERSION {
            return Err(Error::new(
                Code::Failed,
                device,
                format!("dm-drr answers '{name}' in version {version}, and only version {VERSION} is known here"),
                "use the drrctl that came with the module",
            ));
        }
        // Words that are not KEY=VALUE come from a newer module, and are skipped like unknown keys.
        answer.keys = title.filter_map(|word| word.split_once('=')).collect();
        answer.records = lines
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| !words[0].is_empty())
            .collect();
        Ok(answer)
    }

    /// Returns the error for an answer that can't be parsed.
    fn odd(&self, why: &str) -> Error {
        Error::new(
            Code::Failed,
            self.device,
            format!("the answer to '{}' is not understood: {why}", self.name),
            "use the drrctl that came with the module",
        )
    }

    /// Returns the number of a key in the title.
    fn key(&self, key: &str) -> Result<u64> {
        self.keys
            .get(key)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| self.odd(&format!("no number for {key}=")))
    }

    /// Returns word `at` of a record.
    fn word(&self, record: &[&'a str], at: usize) -> Result<&'a str> {
        record
            .get(at)
            .copied()
            .ok_or_else(|| self.odd(&format!("'{}' is too short", record.join(" "))))
    }

    /// Returns word `at` of a record, a number; `None` if the word is "-".
    fn maybe(&self, record: &[&'a str], at: usize) -> Result<Option<u64>> {
        let word = self.word(record, at)?;
        if word == "-" {
            return Ok(None);
        }
        word.parse()
            .map(Some)
            .map_err(|_| self.odd(&format!("'{word}' in '{}'", record.join(" "))))
    }

    /// Returns word `at` of a record, which has to be a number.
    fn number(&self, record: &[&'a str], at: usize) -> Result<u64> {
        self.maybe(record, at)?
            .ok_or_else(|| self.odd(&format!("'-' in '{}'", record.join(" "))))
    }

    /// Returns the bucket in words 1 to 3 of a record.
    fn bucket(&self, record: &[&'a str]) -> Result<Bucket> {
        Ok(Bucket {
            low: self.number(record, 1)?,
            high: self.maybe(record, 2)?,
            count: self.number(record, 3)?,
        })
    }

    /// Returns the serial number and the thin id in words `at` and `at + 1` of a record; `None` if
    /// one of the words is "-".
    fn layer(&self, record: &[&'a str], at: usize) -> Result<Option<(u64, u64)>> {
        Ok(self.maybe(record, at)?.zip(self.maybe(record, at + 1)?))
    }
}

/// Parses the answer of `device` to `layers`. Returns the layers in the order of their serial
/// numbers.
pub fn layers(device: &str, text: &str) -> Result<Vec<Layer>> {
    let answer = Answer::new(device, "layers", text)?;
    let mut layers = Vec::new();
    for record in answer.records.iter().filter(|record| record[0] == "layer") {
        layers.push(Layer {
            serial: answer.number(record, 1)?,
            thin_id: answer.number(record, 2)?,
            parent: answer.maybe(record, 3)?,
            created: answer.number(record, 4)?,
            live: answer.word(record, 5)? != "deleted",
            devices: answer.number(record, 6)?,
        });
    }
    layers.sort_by_key(|layer| layer.serial);
    Ok(layers)
}

/// Parses the answer of `device` to `heat`.
pub fn heat(device: &str, text: &str) -> Result<Heat> {
    let answer = Answer::new(device, "heat", text)?;
    let mut heat = Heat {
        layer: answer.key("layer")?,
        thin_id: answer.key("thin")?,
        ..Heat::default()
    };
    for record in &answer.records {
        match record[0] {
            "read" => heat.reads.push(Read {
                owner: answer.layer(record, 1)?,
                disk_ios: answer.number(record, 3)?,
                disk_sectors: answer.number(record, 4)?,
                drr_ios: answer.number(record, 5)?,
                drr_sectors: answer.number(record, 6)?,
            }),
            "write" => {
                heat.write_ios = answer.number(record, 1)?;
                heat.write_sectors = answer.number(record, 2)?;
            }
            "donor" => heat.donors.push(Donor {
                layer: answer.layer(record, 1)?,
                sectors: answer.number(record, 3)?,
            }),
            _ => {}
        }
    }
    Ok(heat)
}

/// Parses the answer of `device` to `blocks`.
pub fn blocks(device: &str, text: &str) -> Result<Blocks> {
    let answer = Answer::new(device, "blocks", text)?;
    let mut blocks = Blocks {
        on: answer.keys.get("state") == Some(&"on"),
        blocks: answer.key("blocks")?,
        block_sectors: answer.key("block_sectors")?,
        missed: answer.key("missed")?,
        ..Blocks::default()
    };
    for record in &answer.records {
        let list = match record[0] {
            "reads" => &mut blocks.reads,
            "layers" => &mut blocks.layers,
            _ => continue,
        };
        list.push(answer.bucket(record)?);
    }
    Ok(blocks)
}

/// Parses the answer of `device` to `duplicates`.
pub fn duplicates(device: &str, text: &str) -> Result<Duplicates> {
    let answer = Answer::new(device, "duplicates", text)?;
    let mut duplicates = Duplicates {
        page_bytes: answer.key("page_bytes")?,
        ..Duplicates::default()
    };
    for record in &answer.records {
        match record[0] {
            "copies" => duplicates.copies.push(answer.bucket(record)?),
            "layer" => duplicates.layers.push(Holding {
                layer: answer.layer(record, 1)?,
                pages: answer.number(record, 3)?,
                extra: answer.number(record, 4)?,
            }),
            _ => {}
        }
    }
    Ok(duplicates)
}

/// Parses an answer of `device` to `duplicates list`. Returns the copies, and where the next answer
/// begins if there is more to list.
pub fn copies(device: &str, text: &str) -> Result<(Vec<Copy>, Option<u64>)> {
    let answer = Answer::new(device, "copies", text)?;
    let mut copies = Vec::new();
    let mut next = None;
    for record in &answer.records {
        match record[0] {
            "copy" => copies.push(Copy {
                block: answer.number(record, 1)?,
                first_page: answer.number(record, 2)?,
                pages: answer.number(record, 3)?,
                serial: answer.number(record, 4)?,
                thin_id: answer.number(record, 5)?,
            }),
            "next" => next = answer.maybe(record, 1)?,
            _ => {}
        }
    }
    Ok((copies, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: &str =
        "drr-layers 1 pool=253:2\nlayer 3 7 1 12 live 2\nlayer 1 0 - 0 deleted 0\n";
    const HEAT: &str = "drr-heat 1 pool=253:2 layer=3 thin=7\n\
        read 1 0 10 80 20 160\nread - - 1 8 0 0\nwrite 5 40\ndonor 2 6 150\ndonor - - 10\n";
    const BLOCKS: &str = "drr-blocks 1 pool=253:2 state=on blocks=19 block_sectors=128 missed=2\n\
        reads 1 1 16\nreads 2 3 3\nlayers 1 1 17\nlayers 9 - 2\n";

    fn why<T>(result: Result<T>) -> String {
        result
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn layers_are_sorted() {
        let layers = layers("c1", LAYERS).expect("understood");
        assert_eq!(layers.len(), 2);
        assert_eq!((layers[0].serial, layers[0].parent), (1, None));
        assert!(!layers[0].live);
        assert_eq!((layers[1].parent, layers[1].devices), (Some(1), 2));
    }

    #[test]
    fn heat_is_taken_apart() {
        let heat = heat("c1", HEAT).expect("understood");
        assert_eq!((heat.layer, heat.thin_id), (3, 7));
        assert_eq!(heat.reads[0].owner, Some((1, 0)));
        assert_eq!(heat.reads[0].drr_sectors, 160);
        assert_eq!(heat.reads[1].owner, None);
        assert_eq!(heat.donors[1].layer, None);
        assert_eq!((heat.write_ios, heat.write_sectors), (5, 40));
    }

    #[test]
    fn blocks_are_taken_apart() {
        let blocks = blocks("c1", BLOCKS).expect("understood");
        assert!(blocks.on);
        assert_eq!(
            (blocks.blocks, blocks.block_sectors, blocks.missed),
            (19, 128, 2)
        );
        assert_eq!(blocks.reads[1].high, Some(3));
        assert_eq!(blocks.layers[1].high, None);
    }

    #[test]
    fn duplicates_are_taken_apart() {
        let text = "drr-duplicates 1 pool=7 page_bytes=4096\ncopies 1 1 33\ncopies 16 - 1\n\
            layer 2 102 34 2\nlayer - - 1 0\n";
        let found = duplicates("c1", text).expect("understood");
        assert_eq!(found.page_bytes, 4096);
        assert_eq!((found.copies[0].count, found.copies[1].high), (33, None));
        assert_eq!((found.layers[0].pages, found.layers[0].extra), (34, 2));
        assert_eq!(found.layers[1].layer, None);

        let text = "drr-copies 1 pool=7\ncopy 81 16 4 2 102\nnext 4711\n";
        let (found, next) = copies("c1", text).expect("understood");
        let copy = &found[0];
        assert_eq!((copy.block, copy.first_page, copy.pages), (81, 16, 4));
        assert_eq!((copy.serial, copy.thin_id, next), (2, 102, Some(4711)));
        let text = text.replace("4711", "-");
        assert_eq!(copies("c1", &text).expect("understood").1, None);
        assert!(why(copies("c1", "drr-copies 1\ncopy 81 16")).contains("too short"));
    }

    #[test]
    fn what_is_added_is_skipped() {
        let text = "drr-layers 1 pool=253:2 new=1 odd\nshape 1 2\nlayer 3 7 - 12 live 2 more 5\n\n";
        assert_eq!(layers("c1", text).expect("understood").len(), 1);
        let text = HEAT.replace("write", "erase 1\nwrite");
        assert_eq!(heat("c1", &text).expect("understood").reads.len(), 2);
    }

    #[test]
    fn another_version_is_refused() {
        let text = LAYERS.replace("layers 1", "layers 2");
        assert!(why(layers("c1", &text)).contains("version 2"));
        assert!(why(layers("c1", "drr-layers")).contains("no version"));
        assert!(why(layers("c1", "")).contains("title"));
        assert!(why(heat("c1", LAYERS)).contains("title"));
    }

    #[test]
    fn odd_records_are_refused() {
        let text = "drr-layers 1 pool=x\nlayer 3 7 -";
        assert!(why(layers("c1", text)).contains("too short"));
        let text = "drr-layers 1 pool=x\nlayer 3 7 - twelve live 1";
        assert!(why(layers("c1", text)).contains("'twelve'"));
        let text = "drr-layers 1 pool=x\nlayer - 7 - 12 live 1";
        assert!(why(layers("c1", text)).contains("'-'"));
        assert!(why(heat("c1", "drr-heat 1 pool=x layer=1")).contains("thin="));
        let text = "drr-blocks 1 state=on blocks=-1 block_sectors=8 missed=0";
        assert!(why(blocks("c1", text)).contains("blocks="));
    }
}
