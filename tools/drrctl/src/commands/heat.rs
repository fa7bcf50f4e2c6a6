// SPDX-License-Identifier: GPL-2.0

//! `heatmap`: shows which layer has read whose blocks, for all drr devices of a pool.
//!
//! [`paint`] draws the map in a terminal, and [`plot`] writes it to a file.

pub mod paint;
pub mod plot;

use std::collections::HashMap;

use serde::Serialize;

use crate::answers::text::{self, Heat};
use crate::commands::layers::Layers;
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::Inventory;
use crate::error::{Code, Result};

/// The source of the sectors to show: the disk, or drr.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Disk,
    Drr,
}

/// A row or a column. Serial number and thin id are `None` if the owner isn't known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    pub label: String,
    pub serial: Option<u64>,
    pub thin_id: Option<u64>,
}

/// The reads of one owner's blocks by one reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Index in `readers`.
    pub reader: usize,
    /// Index in `owners`.
    pub owner: usize,
    pub disk_ios: u64,
    pub disk_sectors: u64,
    pub drr_ios: u64,
    pub drr_sectors: u64,
}

/// The data that one reader got from one donor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Index in `readers`.
    pub reader: usize,
    /// `None` for all donors that were too many to be told apart.
    pub donor_serial: Option<u64>,
    pub donor_thin_id: Option<u64>,
    pub sectors: u64,
}

/// The writes by one reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Index in `readers`.
    pub reader: usize,
    pub ios: u64,
    pub sectors: u64,
}

/// The heatmap of a pool.
#[derive(Clone, Debug, Serialize)]
pub struct HeatMap {
    version: u32,
    pub pool: String,
    pub readers: Vec<Party>,
    pub owners: Vec<Party>,
    pub reads: Vec<Cell>,
    pub donors: Vec<Copied>,
    pub writes: Vec<Written>,
}

impl HeatMap {
    /// Asks all drr devices of a pool for their reads.
    pub fn collect(control: &Control, inventory: &Inventory, pool: &str) -> Result<Self> {
        let layers = Layers::collect(control, inventory, pool)?;
        let mut heats = Vec::new();
        for device in inventory.drr_of(pool) {
            match control.ask(&device.name, "heat") {
                Ok(answer) => heats.push(text::heat(&device.name, &answer)?),
                Err(error) if error.code == Code::NotThere => {} // The device has gone meanwhile.
                Err(error) => return Err(error),
            }
        }
        Ok(Self::new(&layers, &heats))
    }

    /// Puts the answers of devices together. Adds up the figures of devices that are on the same
    /// layer.
    pub fn new(layers: &Layers, heats: &[Heat]) -> Self {
        let labels = layers.labels();
        let label = |serial: u64, thin_id: u64| {
            labels
                .get(&serial)
                .cloned()
                .unwrap_or_else(|| format!("gone ({thin_id})"))
        };
        let party = |layer: Option<(u64, u64)>| Party {
            label: layer.map_or_else(|| "unknown".to_string(), |(serial, id)| label(serial, id)),
            serial: layer.map(|(serial, _)| serial),
            thin_id: layer.map(|(_, id)| id),
        };
        // Ancestors are older, and have smaller numbers. The unknown owner comes last.
        let mut found: Vec<_> = heats
            .iter()
            .flat_map(|heat| heat.reads.iter().map(|read| read.owner))
            .collect();
        found.sort_unstable_by_key(|owner| (owner.is_none(), *owner));
        found.dedup();
        let owner_at: HashMap<_, _> = found
            .iter()
            .enumerate()
            .map(|(at, owner)| (*owner, at))
            .collect();

        let mut map = Self {
            version: 1,
            pool: layers.pool.clone(),
            readers: Vec::new(),
            owners: found.iter().map(|owner| party(*owner)).collect(),
            reads: Vec::new(),
            donors: Vec::new(),
            writes: Vec::new(),
        };
        let mut reader_at = HashMap::new();
        let mut cell_at = HashMap::new();
        for heat in heats {
            let layer = (heat.layer, heat.thin_id);
            let reader = *reader_at.entry(layer).or_insert(map.readers.len());
            if reader == map.readers.len() {
                map.readers.push(party(Some(layer)));
                map.writes.push(Written {
                    reader,
                    ios: 0,
                    sectors: 0,
                });
            }
            map.writes[reader].ios += heat.write_ios;
            map.writes[reader].sectors += heat.write_sectors;
            for read in &heat.reads {
                let owner = owner_at[&read.owner];
                let at = *cell_at.entry((reader, owner)).or_insert(map.reads.len());
                if at == map.reads.len() {
                    map.reads.push(Cell {
                        reader,
                        owner,
                        disk_ios: 0,
                        disk_sectors: 0,
                        drr_ios: 0,
                        drr_sectors: 0,
                    });
                }
                let cell = &mut map.reads[at];
                cell.disk_ios += read.disk_ios;
                cell.disk_sectors += read.disk_sectors;
                cell.drr_ios += read.drr_ios;
                cell.drr_sectors += read.drr_sectors;
            }
            for donor in &heat.donors {
                map.donors.push(Copied {
                    reader,
                    donor_serial: donor.layer.map(|(serial, _)| serial),
                    donor_thin_id: donor.layer.map(|(_, id)| id),
                    sectors: donor.sectors,
                });
            }
        }
        map
    }

    /// Returns the map as it is drawn: owners whose blocks only they themselves have read share one
    /// column, "own", instead of one column for each container.
    pub fn folded(&self) -> Self {
        let own = |cell: &Cell| {
            let (reader, owner) = (&self.readers[cell.reader], &self.owners[cell.owner]);
            owner.serial.is_some() && owner.serial == reader.serial
        };
        let alone = |owner: usize| {
            let mut cells = self.reads.iter().filter(|cell| cell.owner == owner);
            cells.all(own)
        };
        let kept: Vec<usize> = (0..self.owners.len())
            .filter(|owner| !alone(*owner))
            .collect();
        let mut map = self.clone();
        if kept.len() + 1 >= self.owners.len() {
            return map;
        }
        map.owners = kept.iter().map(|at| self.owners[*at].clone()).collect();
        // The column comes before the unknown owner, which is the last.
        let last = map.owners.iter().position(|owner| owner.serial.is_none());
        let at_own = last.unwrap_or(map.owners.len());
        let own = Party {
            label: "own".to_string(),
            serial: None,
            thin_id: None,
        };
        map.owners.insert(at_own, own);
        for cell in &mut map.reads {
            cell.owner = match kept.iter().position(|at| *at == cell.owner) {
                Some(at) if at >= at_own => at + 1,
                Some(at) => at,
                None => at_own,
            };
        }
        map
    }

    /// Returns the sectors that each reader (row) has read of each owner (column).
    pub fn matrix(&self, side: Side) -> Vec<Vec<u64>> {
        let mut matrix = vec![vec![0; self.owners.len()]; self.readers.len()];
        for cell in &self.reads {
            matrix[cell.reader][cell.owner] = cell.sectors(side);
        }
        matrix
    }

    /// Returns the sum of all sectors.
    pub fn total(&self, side: Side) -> u64 {
        self.reads.iter().map(|cell| cell.sectors(side)).sum()
    }

    /// Returns a scale for all cells.
    pub fn scale(&self) -> Scale {
        let all = self
            .reads
            .iter()
            .flat_map(|cell| [cell.disk_sectors, cell.drr_sectors])
            .filter(|sectors| *sectors > 0);
        Scale::new(all)
    }

    /// Returns the map as CSV, with a line for each cell.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "reader,reader_thin_id,owner,owner_thin_id,disk_ios,disk_sectors,drr_ios,drr_sectors\n",
        );
        let id = |party: &Party| party.thin_id.map_or(String::new(), |id| id.to_string());
        for cell in &self.reads {
            let (reader, owner) = (&self.readers[cell.reader], &self.owners[cell.owner]);
            text.push_str(&format!(
                "{},{},{},{},{},{},{},{}\n",
                quoted(&reader.label),
                id(reader),
                quoted(&owner.label),
                id(owner),
                cell.disk_ios,
                cell.disk_sectors,
                cell.drr_ios,
                cell.drr_sectors
            ));
        }
        text
    }
}

impl Cell {
    pub fn sectors(&self, side: Side) -> u64 {
        match side {
            Side::Disk => self.disk_sectors,
            Side::Drr => self.drr_sectors,
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A logarithmic scale in MiB, by whole powers of ten, at most five of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub low: i32,
    pub high: i32,
}

impl Scale {
    fn new(sectors: impl Iterator<Item = u64> + Clone) -> Self {
        let log = |sectors: Option<u64>| crate::views::units::mib(sectors.unwrap_or(2048)).log10();
        let high = log(sectors.clone().max()).ceil() as i32;
        let low = (log(sectors.min()).floor() as i32).clamp(high - 5, high - 1);
        Self { low, high }
    }

    /// Returns the place of a number of sectors on the scale, from 0 to 1; `None` for 0 sectors.
    pub fn place(self, sectors: u64) -> Option<f64> {
        if sectors == 0 {
            return None;
        }
        let log = crate::views::units::mib(sectors).log10();
        let place = (log - f64::from(self.low)) / f64::from(self.high - self.low);
        Some(place.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::device_mapper::inventory::{tests::node, Inventory};

    /// Returns the map of ten containers of an image with three layers. One has read first, and the
    /// others were served.
    pub fn ten_by_four() -> HeatMap {
        let mut nodes = vec![node("pool", "253:1", "thin-pool", "")];
        let mut layers = String::from("drr-layers 1 pool=253:1\n");
        for (at, name) in ["debian", "python", "model"].iter().enumerate() {
            let number = format!("253:{}", 10 + at);
            nodes.push(node(name, &number, "thin", &format!("253:1 {at}")));
            let parent = if at == 0 { "-".into() } else { at.to_string() };
            layers += &format!("layer {} {at} {parent} {at} live 0\n", at + 1);
        }
        let mut heats = Vec::new();
        for at in 1..=10 {
            let (thin, serial) = (at + 2, at + 3);
            nodes.push(node(
                &format!("t{at}"),
                &format!("253:{}", 20 + at),
                "thin",
                &format!("253:1 {thin}"),
            ));
            nodes.push(node(
                &format!("c{at}"),
                &format!("253:{}", 40 + at),
                "drr",
                &format!("253:{}", 20 + at),
            ));
            layers += &format!("layer {serial} {thin} 3 9 live 1\n");
            let first = at == 1;
            let read = |owner: u64, sectors: u64| {
                let disk = if first { sectors } else { sectors / 90 * at };
                format!("read {owner} {} 9 {disk} 9 {}\n", owner - 1, sectors - disk)
            };
            let text = format!(
                "drr-heat 1 pool=253:1 layer={serial} thin={thin}\n{}{}{}read - - 4 {} 0 0\n\
                 write 12 4000\ndonor 4 3 1000\n",
                read(1, 61_440),
                read(2, 24_000),
                read(3, 213_000),
                at * 40
            );
            heats.push(text::heat("c", &text).expect("understood"));
        }
        let inventory = Inventory::from_nodes(nodes);
        let layers = text::layers("c", &layers).expect("understood");
        HeatMap::new(&Layers::new(&inventory, "pool", layers), &heats)
    }

    #[test]
    fn figures_are_put_together() {
        let map = ten_by_four();
        assert_eq!((map.readers.len(), map.owners.len()), (10, 4));
        assert_eq!(map.readers[0].label, "c1 (3)");
        assert_eq!(map.owners[0].label, "debian (0)");
        assert_eq!(map.owners[3].label, "unknown");
        assert_eq!(map.matrix(Side::Disk)[0][2], 213_000);
        assert_eq!(map.matrix(Side::Drr)[0][2], 0);
        assert!(map.total(Side::Drr) > map.total(Side::Disk));
    }

    #[test]
    fn devices_on_one_layer_are_added_up() {
        let layers = Layers::new(&Inventory::from_nodes(Vec::new()), "p", Vec::new());
        let text = "drr-heat 1 pool=1:1 layer=4 thin=3\nread 1 0 1 8 2 16\nwrite 1 8\n";
        let heat = text::heat("c", text).expect("understood");
        let map = HeatMap::new(&layers, &[heat.clone(), heat]);
        assert_eq!(map.readers.len(), 1);
        assert_eq!(map.readers[0].label, "gone (3)");
        assert_eq!(map.reads.len(), 1);
        assert_eq!((map.reads[0].disk_sectors, map.reads[0].drr_ios), (16, 4));
        assert_eq!(map.writes[0].sectors, 16);
    }

    #[test]
    fn own_blocks_share_a_column() {
        let layers = Layers::new(&Inventory::from_nodes(Vec::new()), "p", Vec::new());
        let heats: Vec<_> = (4..7)
            .map(|serial| {
                let text = format!(
                    "drr-heat 1 pool=1:1 layer={serial} thin={serial}\n\
                     read 1 0 1 80 0 0\nread {serial} {serial} 1 8 0 0\nread - - 1 16 0 0\n\
                     write 0 0\n"
                );
                text::heat("c", &text).expect("understood")
            })
            .collect();
        let map = HeatMap::new(&layers, &heats);
        assert_eq!(map.owners.len(), 5);
        let folded = map.folded();
        let labels: Vec<_> = folded.owners.iter().map(|it| it.label.as_str()).collect();
        assert_eq!(labels, ["gone (0)", "own", "unknown"]);
        assert_eq!(folded.matrix(Side::Disk), vec![vec![80, 8, 16]; 3]);
        // A layer whose blocks another layer has read, too, has a column of its own.
        let text = "drr-heat 1 pool=1:1 layer=9 thin=9\nread 5 5 1 8 0 0\nwrite 0 0\n";
        let mut heats = heats;
        heats.push(text::heat("c", text).expect("understood"));
        let folded = HeatMap::new(&layers, &heats).folded();
        let labels: Vec<_> = folded.owners.iter().map(|it| it.label.as_str()).collect();
        assert_eq!(labels, ["gone (0)", "gone (5)", "own", "unknown"]);
        assert_eq!(folded.total(Side::Disk), map.total(Side::Disk) + 8);
    }

    #[test]
    fn the_scale_is_logarithmic() {
        let scale = Scale::new([2048, 2048 * 1000].into_iter());
        assert_eq!(scale, Scale { low: 0, high: 3 });
        assert_eq!(scale.place(0), None);
        let middle = scale.place(2048 * 100).unwrap_or_default();
        assert!((middle - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(scale.place(1), Some(0.0));
        // Scales of no figure, and of one.
        assert_eq!(Scale::new([].into_iter()), Scale { low: -1, high: 0 });
        assert!(Scale::new([2048].into_iter()).place(2048).is_some());
    }

    #[test]
    fn csv_and_json() {
        let map = ten_by_four();
        let csv = map.csv();
        assert_eq!(csv.lines().count(), 41);
        assert!(
            csv.contains("\"c1 (3)\",3,\"model (2)\",2,9,213000,9,0\n"),
            "{csv}"
        );
        assert!(csv.contains("\"unknown\",,4,"), "{csv}");
        crate::schema::check("heatmap", &map);
    }
}
