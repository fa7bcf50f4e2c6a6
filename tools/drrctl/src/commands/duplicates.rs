// SPDX-License-Identifier: GPL-2.0

//! `duplicates`: shows how much of a pool's shared blocks is in memory more than once, and in which
//! layers' page caches.

use std::collections::HashMap;

use serde::Serialize;

use crate::answers::text::{self, Bucket, Copy};
use crate::commands::layers::Layers;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::error::Result;
use crate::views::histogram;
use crate::views::units::{fit, short};

/// The copies of a pool's pages.
#[derive(Debug, Serialize)]
pub struct Duplicates {
    version: u32,
    pool: String,
    page_bytes: u64,
    /// Number of different pages.
    pages: u64,
    /// Number of copies beyond the first of each page.
    extra_pages: u64,
    #[serde(serialize_with = "histogram::pages")]
    by_copies: Vec<Bucket>,
    by_layer: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<Vec<Copy>>,
}

/// The pages of one layer.
#[derive(Debug, Serialize)]
struct Share {
    serial: Option<u64>,
    thin_id: Option<u64>,
    label: String,
    pages: u64,
    extra_pages: u64,
}

/// Width of a layer's name in a table, in columns.
const NAME: usize = 36;

impl Duplicates {
    /// Asks for the copies of a pool's pages; if `list`, also for the list of them.
    pub fn collect(
        control: &Control,
        inventory: &Inventory,
        pool: &str,
        list: bool,
    ) -> Result<Self> {
        let layers = Layers::collect(control, inventory, pool)?;
        let (device, answer) = inventory.tell_pool(control, pool, "duplicates")?;
        let found = text::duplicates(&device, &answer)?;
        let copies = list
            .then(|| Self::list(control, inventory, pool))
            .transpose()?;
        Ok(Self::new(pool, found, &layers.labels(), copies))
    }

    /// Asks for the list of all pages that are cached more than once, which comes in several
    /// answers.
    fn list(control: &Control, inventory: &Inventory, pool: &str) -> Result<Vec<Copy>> {
        let (mut all, mut next) = (Vec::new(), Some(0));
        while let Some(place) = next {
            let message = format!("duplicates list {place}");
            let (device, answer) = inventory.tell_pool(control, pool, &message)?;
            let (copies, rest) = text::copies(&device, &answer)?;
            all.extend(copies);
            next = rest;
        }
        all.sort_by_key(|copy| (copy.block, copy.first_page));
        Ok(all)
    }

    fn new(
        pool: &str,
        found: text::Duplicates,
        labels: &HashMap<u64, String>,
        copies: Option<Vec<Copy>>,
    ) -> Self {
        let mut by_layer: Vec<Share> = found
            .layers
            .iter()
            .map(|holding| Share {
                serial: holding.layer.map(|layer| layer.0),
                thin_id: holding.layer.map(|layer| layer.1),
                label: match holding.layer {
                    None => "others".to_string(),
                    Some((serial, thin_id)) => labels
                        .get(&serial)
                        .cloned()
                        .unwrap_or_else(|| format!("thin {thin_id}")),
                },
                pages: holding.pages,
                extra_pages: holding.extra,
            })
            .collect();
        by_layer.sort_by_key(|share| (u64::MAX - share.extra_pages, share.serial));
        Self {
            version: 1,
            pool: pool.to_string(),
            page_bytes: found.page_bytes,
            pages: found.copies.iter().map(|bucket| bucket.count).sum(),
            extra_pages: by_layer.iter().map(|share| share.extra_pages).sum(),
            by_copies: found.copies,
            by_layer,
            copies,
        }
    }

    /// Returns the bytes of different pages, and of copies beyond the first of each.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.pages * self.page_bytes,
            self.extra_pages * self.page_bytes,
        )
    }

    /// Formats a number of pages in MiB.
    fn mib(&self, pages: u64) -> String {
        short(pages as f64 * self.page_bytes as f64 / f64::from(1 << 20))
    }

    pub fn draw(&self) -> String {
        if self.pages == 0 {
            return format!("{}: nothing of its shared blocks is in memory\n", self.pool);
        }
        let mut text = format!(
            "{}: {} MiB of its shared blocks are in memory, and {} MiB of further copies\n",
            self.pool,
            self.mib(self.pages),
            self.mib(self.extra_pages)
        );
        let mib = |pages| self.mib(pages);
        text += &histogram::draw("TIMES CACHED", "PAGES", &self.by_copies, mib);
        text.push_str(&format!(
            "\n{:<NAME$} {:>10} {:>10}\n",
            "LAYER", "MIB", "FURTHER"
        ));
        for share in &self.by_layer {
            text.push_str(&format!(
                "{:<NAME$} {:>10} {:>10}\n",
                fit(&share.label, NAME),
                self.mib(share.pages),
                self.mib(share.extra_pages)
            ));
        }
        if let Some(copies) = &self.copies {
            let names: HashMap<u64, &str> = self
                .by_layer
                .iter()
                .filter_map(|share| Some((share.serial?, share.label.as_str())))
                .collect();
            text.push_str(&format!(
                "\n{:>12} {:>8} {:>6}  LAYER\n",
                "DATA BLOCK", "PAGE", "PAGES"
            ));
            for copy in copies {
                let thin = format!("thin {}", copy.thin_id);
                let name = names.get(&copy.serial).copied().unwrap_or(&thin);
                text.push_str(&format!(
                    "{:>12} {:>8} {:>6}  {}\n",
                    copy.block,
                    copy.first_page,
                    copy.pages,
                    fit(name, NAME)
                ));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(list: bool) -> Duplicates {
        let answer = "drr-duplicates 1 pool=7 page_bytes=4096\ncopies 1 1 512\ncopies 2 2 256\n\
            copies 16 - 1\nlayer 3 103 256 100\nlayer 2 102 769 171\nlayer - - 10 0\n";
        let copies = "drr-copies 1 pool=7\ncopy 9 0 4 2 102\ncopy 9 0 4 3 103\n\
            copy 12 8 1 9 109\nnext -\n";
        let labels = HashMap::from([(2, "c1".to_string())]);
        let found = text::duplicates("c1", answer).expect("understood");
        let copies = text::copies("c1", copies).expect("understood").0;
        Duplicates::new("pool", found, &labels, list.then_some(copies))
    }

    #[test]
    fn the_tables() {
        let text = sample(true).draw();
        for line in [
            "pool: 3.0 MiB of its shared blocks are in memory, and 1.1 MiB of further copies",
            "2                    256        1.0  ████████████████████",
            "16 or more             1      <0.01  █",
            "c1                                          3.0       0.67",
            "thin 103                                    1.0       0.39",
            "others                                     0.04          0",
            "           9        0      4  c1",
            "          12        8      1  thin 109",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line:?} in\n{text}");
        }
        assert!(text.find("c1 ") < text.find("thin 103"));
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(!sample(false).draw().contains("DATA BLOCK"));
        let nothing = text::duplicates("c1", "drr-duplicates 1 page_bytes=4096\n");
        let nothing = Duplicates::new("p", nothing.expect("understood"), &HashMap::new(), None);
        assert!(nothing.draw().contains("nothing"));
    }

    #[test]
    fn json_is_what_the_schema_says() {
        crate::schema::check("duplicates", &sample(true));
        crate::schema::check("duplicates", &sample(false));
    }
}
