// SPDX-License-Identifier: GPL-2.0

//! Parses the status of a drr device, which Documentation/admin-guide/device-mapper/drr.rst
//! describes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Code, Error, Result};

/// The data that one donor has served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct From {
    /// `None` for all donors that were too many to be told apart.
    pub thin_id: Option<u64>,
    pub sectors: u64,
}

/// The status of a drr device.
///
/// Unknown words of a newer module are skipped, and numbers that an older module doesn't have are
/// zero. All reasons of the module are taken, known or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub thin_id: Option<u64>,
    pub mapped_sectors: Option<u64>,
    pub highest_mapped_sector: Option<u64>,
    pub reads: u64,
    pub read_sectors: u64,
    pub hits: u64,
    pub hit_sectors: u64,
    /// Reads that missed, by the reason: the word in the status without "miss_".
    pub misses: BTreeMap<String, u64>,
    pub followed_sectors: u64,
    pub recorded_sectors: u64,
    /// Sectors of all reads that a file system has marked as metadata.
    pub meta_read_sectors: u64,
    /// The number of these sectors that were served.
    pub meta_hit_sectors: u64,
    /// Copies of donors' pages that didn't have the digest.
    pub unproven_pages: u64,
    /// Pages read from the disk that were compared with an earlier read of the same content.
    pub compared_pages: u64,
    /// The number of these pages that differed.
    pub differed_pages: u64,
    pub whole_writes: u64,
    /// Writes that waited for a whole-block write.
    pub parked_writes: u64,
    pub donated_sectors: u64,
    /// Pages whose records have ended, by the reason: the word in the status without "ended_".
    pub ended: BTreeMap<String, u64>,
    pub thinned_pages: u64,
    pub records: u64,
    pub tracked_pages: u64,
    pub table_bytes: u64,
    /// Pages of metadata in the pool's store.
    pub meta_cache_pages: u64,
    pub verified: u64,
    pub mismatches: u64,
    /// Names of limits of the device.
    pub limits: Vec<String>,
    pub from: Vec<From>,
}

impl Status {
    /// Parses the status line of `device`.
    pub fn new(device: &str, line: &str) -> Result<Self> {
        let odd = |word: &str| {
            Error::new(
                Code::Failed,
                device,
                format!("its status is not understood: '{word}'"),
                "use the drrctl that came with the module",
            )
        };
        let number = |word: &str| word.parse::<u64>().map_err(|_| odd(word));
        let maybe = |word: &str| match word {
            "-" => Ok(None),
            _ => number(word).map(Some),
        };
        let mut words = line.split_ascii_whitespace();
        let mut status = Self {
            mapped_sectors: maybe(words.next().ok_or_else(|| odd(line))?)?,
            highest_mapped_sector: maybe(words.next().ok_or_else(|| odd(line))?)?,
            ..Self::default()
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let field = match key {
                "thin" => {
                    status.thin_id = maybe(value)?;
                    continue;
                }
                "from" => {
                    status.from = from(value).ok_or_else(|| odd(word))?;
                    continue;
                }
                "limits" => {
                    let words = value.split(',').filter(|word| *word != "-");
                    status.limits = words.map(str::to_string).collect();
                    continue;
                }
                "reads" => &mut status.reads,
                "read_sectors" => &mut status.read_sectors,
                "hits" => &mut status.hits,
                "hit_sectors" => &mut status.hit_sectors,
                "followed_sectors" => &mut status.followed_sectors,
                "recorded_sectors" => &mut status.recorded_sectors,
                "meta_read_sectors" => &mut status.meta_read_sectors,
                "meta_hit_sectors" => &mut status.meta_hit_sectors,
                "unproven_pages" => &mut status.unproven_pages,
                "compared_pages" => &mut status.compared_pages,
                "differed_pages" => &mut status.differed_pages,
                "whole_writes" => &mut status.whole_writes,
                "parked_writes" => &mut status.parked_writes,
                "donated_sectors" => &mut status.donated_sectors,
                "thinned_pages" => &mut status.thinned_pages,
                "records" => &mut status.records,
                "tracked_pages" => &mut status.tracked_pages,
                "table_bytes" => &mut status.table_bytes,
                "meta_cache_pages" => &mut status.meta_cache_pages,
                "verified" => &mut status.verified,
                "mismatches" => &mut status.mismatches,
                _ => match key.split_once('_') {
                    Some(("miss", reason)) => status.misses.entry(reason.into()).or_default(),
                    Some(("ended", reason)) => status.ended.entry(reason.into()).or_default(),
                    _ => continue,
                },
            };
            *field = number(value)?;
        }
        Ok(status)
    }

    /// Returns the number of sectors that were read from the disk.
    pub fn disk_sectors(&self) -> u64 {
        self.read_sectors.saturating_sub(self.hit_sectors)
    }

    /// Returns the part of the sectors read that drr has served; `None` before the first read.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.read_sectors > 0).then(|| self.hit_sectors as f64 / self.read_sectors as f64)
    }

    /// Returns a text for each figure that stays 0 on a sound machine, but isn't 0.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.differed_pages > 0 {
            faults.push(format!(
                "pages that differed from an earlier read of the same blocks: {}",
                self.differed_pages
            ));
        }
        if self.mismatches > 0 {
            faults.push(format!(
                "hits that differed from the disk: {}",
                self.mismatches
            ));
        }
        faults
    }
}

/// Parses a list of donors: `ID:SECTORS,...,others:SECTORS`, or "-" if it is empty.
fn from(list: &str) -> Option<Vec<From>> {
    if list == "-" {
        return Some(Vec::new());
    }
    list.split(',')
        .map(|entry| {
            let (id, sectors) = entry.split_once(':')?;
            Some(From {
                thin_id: match id {
                    "others" => None,
                    _ => Some(id.parse().ok()?),
                },
                sectors: sectors.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const LINE: &str = "4096 262143 thin=3 reads=120 read_sectors=16384 hits=100 \
        hit_sectors=12288 miss_unshared=5 miss_metadata=0 miss_norecord=13 miss_changed=0 \
        miss_stale=2 miss_layout=0 miss_left=0 followed_sectors=1024 recorded_sectors=4096 \
        meta_read_sectors=800 meta_hit_sectors=720 unproven_pages=6 compared_pages=32 \
        differed_pages=0 whole_writes=9 parked_writes=4 donated_sectors=256 \
        ended_removed=40 ended_read=2 ended_changed=3 ended_dropped=0 ended_differed=0 \
        ended_replaced=0 thinned_pages=7 records=512 tracked_pages=512 table_bytes=65536 \
        meta_cache_pages=25 verified=0 mismatches=0 limits=disk_requests from=1:12000,others:288";

    /// A status line of an older module, which did not prove its copies yet.
    pub const OLD_LINE: &str = "4096 262143 thin=3 reads=120 read_sectors=16384 hits=100 \
        hit_sectors=12288 miss_unshared=5 miss_metadata=0 miss_norecord=12 miss_busy=3 \
        miss_changed=0 miss_layout=0 miss_left=0 followed_sectors=1024 recorded_sectors=4096 \
        whole_writes=9 donated_sectors=256 ended_removed=40 ended_dirtied=2 ended_read=0 \
        ended_reallocated=0 ended_dropped=0 ended_zeroed=3 thinned_pages=7 records=512 \
        tracked_pages=512 table_bytes=65536 verified=0 mismatches=0 from=1:12000,others:288";

    #[test]
    fn is_taken_apart() {
        let status = Status::new("c1", LINE).expect("understood");
        assert_eq!(status.thin_id, Some(3));
        assert_eq!((status.misses["norecord"], status.misses["stale"]), (13, 2));
        assert_eq!(status.misses.len(), 7);
        assert_eq!((status.followed_sectors, status.whole_writes), (1024, 9));
        assert_eq!(status.parked_writes, 4);
        assert_eq!(status.limits, ["disk_requests"]);
        assert_eq!((status.unproven_pages, status.compared_pages), (6, 32));
        assert_eq!(
            (status.meta_read_sectors, status.meta_hit_sectors),
            (800, 720)
        );
        assert_eq!(status.meta_cache_pages, 25);
        assert_eq!((status.ended["removed"], status.ended["changed"]), (40, 3));
        assert_eq!(status.ended.len(), 6);
        assert_eq!(status.thinned_pages, 7);
        assert_eq!(status.disk_sectors(), 4096);
        assert_eq!(status.hit_rate(), Some(0.75));
        assert_eq!(status.from[1].thin_id, None);
        assert_eq!(status.from[0].sectors, 12000);
    }

    #[test]
    fn nothing_yet_and_nothing_known() {
        let status = Status::new("c1", "- - thin=3 reads=0 from=-").expect("understood");
        assert_eq!(status.mapped_sectors, None);
        assert_eq!(status.hit_rate(), None);
        assert!(status.from.is_empty());
    }

    #[test]
    fn an_older_module_is_understood() {
        let status = Status::new("c1", OLD_LINE).expect("understood");
        assert_eq!((status.misses["busy"], status.ended["dirtied"]), (3, 2));
        assert!(!status.misses.contains_key("stale") && !status.ended.contains_key("changed"));
        let new = [
            status.unproven_pages,
            status.compared_pages,
            status.differed_pages,
        ];
        assert_eq!(new, [0; 3]);
        assert_eq!(status.table_bytes, 65536);
    }

    #[test]
    fn faults_are_told() {
        assert!(Status::new("c1", LINE)
            .expect("understood")
            .faults()
            .is_empty());
        let line = LINE.replace("differed_pages=0", "differed_pages=4");
        let line = line.replace("mismatches=0", "mismatches=2");
        let faults = Status::new("c1", &line).expect("understood").faults();
        assert_eq!(
            faults,
            [
                "pages that differed from an earlier read of the same blocks: 4",
                "hits that differed from the disk: 2"
            ]
        );
    }

    #[test]
    fn what_is_added_is_skipped() {
        let line = format!("{LINE} shape=round word miss_moon=7 ended_all_well=8");
        let status = Status::new("c1", &line).expect("understood");
        assert_eq!(status.misses["moon"], 7);
        assert_eq!(status.ended["all_well"], 8);
    }

    #[test]
    fn odd_ones_are_refused() {
        for line in [
            "",
            "1",
            "1 x",
            "1 2 reads=many",
            "1 2 reads=-1",
            "1 2 from=1",
            "1 2 from=a:b",
        ] {
            assert!(Status::new("c1", line).is_err(), "{line}");
        }
    }
}
