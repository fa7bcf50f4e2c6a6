// SPDX-License-Identifier: GPL-2.0

//! Formats the figures of all drr devices as metrics for Prometheus.
//!
//! Names and units follow Prometheus' conventions: base units, and the suffix `_total` for
//! counters. Each series of a device has the same three labels, and some have more. The number of
//! series is bounded: the reasons come from the module's short lists, and a device has at most 128
//! donors. A device has 34 series at most, and one more for each donor.

use std::fmt;
use std::sync::atomic::AtomicU64;

use nix::unistd::{sysconf, SysconfVar};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

use crate::answers::status::Status;
use crate::device_mapper::inventory::DrrDevice;

/// The bytes of a pool that are in memory.
#[derive(Debug)]
pub struct Cached {
    pub pool: String,
    /// Bytes of different pages.
    pub bytes: u64,
    /// Bytes of copies beyond the first of each page.
    pub extra_bytes: u64,
}

/// The numbers of a pool's layers, by their states.
#[derive(Debug)]
pub struct LayerCount {
    pub pool: String,
    pub live: u64,
    pub deleted: u64,
}

/// The figures of all devices and pools.
#[derive(Default)]
pub struct Found {
    pub devices: Vec<(DrrDevice, Status)>,
    pub layers: Vec<LayerCount>,
    /// Empty unless asked for, as the module walks its whole table for these figures.
    pub cached: Vec<Cached>,
    /// Whether all devices and pools could be asked.
    pub complete: bool,
    /// Time that asking took.
    pub seconds: f64,
}

/// Size of the kernel's sectors in bytes, which doesn't depend on the disk.
const SECTOR: u64 = 512;

/// Returns the size of the kernel's pages in bytes.
fn page() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// A metric, and how it is computed from a device's status.
struct Figure {
    name: &'static str,
    help: &'static str,
    of: fn(&Status) -> u64,
}

/// Counters of each device, since its table was loaded or they were reset.
const COUNTERS: [Figure; 18] = [
    Figure {
        name: "drr_reads_total",
        help: "Reads, after splitting at data blocks and where donors begin or end",
        of: |status| status.reads,
    },
    Figure {
        name: "drr_read_bytes_total",
        help: "Bytes read, from the disk or served from donors",
        of: |status| status.read_sectors * SECTOR,
    },
    Figure {
        name: "drr_hits_total",
        help: "Reads that were served from donors",
        of: |status| status.hits,
    },
    Figure {
        name: "drr_hit_bytes_total",
        help: "Bytes that were served from donors",
        of: |status| status.hit_sectors * SECTOR,
    },
    Figure {
        name: "drr_disk_read_bytes_total",
        help: "Bytes that were read from the disk",
        of: |status| status.disk_sectors() * SECTOR,
    },
    Figure {
        name: "drr_followed_bytes_total",
        help: "Of the bytes served, those got with another device's read that was under way",
        of: |status| status.followed_sectors * SECTOR,
    },
    Figure {
        name: "drr_recorded_bytes_total",
        help: "Bytes of the page cache that reads of the device made donors",
        of: |status| status.recorded_sectors * SECTOR,
    },
    Figure {
        name: "drr_meta_read_bytes_total",
        help: "Bytes read for the file system's metadata, as far as it says so",
        of: |status| status.meta_read_sectors * SECTOR,
    },
    Figure {
        name: "drr_meta_hit_bytes_total",
        help: "Of these, the bytes that were served",
        of: |status| status.meta_hit_sectors * SECTOR,
    },
    Figure {
        name: "drr_unproven_pages_total",
        help: "Copies of donors' pages that didn't have the digest, and were of no use",
        of: |status| status.unproven_pages,
    },
    Figure {
        name: "drr_compared_pages_total",
        help: "Pages from the disk that were compared with an earlier read of the same blocks",
        of: |status| status.compared_pages,
    },
    Figure {
        name: "drr_differed_pages_total",
        help: "Pages from the disk that differed: the disk or the memory is faulty",
        of: |status| status.differed_pages,
    },
    Figure {
        name: "drr_donated_bytes_total",
        help: "Bytes that others were served from the device's page cache",
        of: |status| status.donated_sectors * SECTOR,
    },
    Figure {
        name: "drr_thinned_bytes_total",
        help: "Bytes of the device's page cache that were dropped as others had them",
        of: |status| status.thinned_pages * page(),
    },
    Figure {
        name: "drr_whole_writes_total",
        help: "Writes of a part of a shared block that became writes of all of it",
        of: |status| status.whole_writes,
    },
    Figure {
        name: "drr_parked_writes_total",
        help: "Writes that waited for a write of all of the same block",
        of: |status| status.parked_writes,
    },
    Figure {
        name: "drr_verified_hits_total",
        help: "Hits that were compared with the disk (paranoid)",
        of: |status| status.verified,
    },
    Figure {
        name: "drr_mismatches_total",
        help: "Hits that differed from the disk (paranoid): see the kernel log",
        of: |status| status.mismatches,
    },
];

/// Present figures of the module, which each device's status has.
const GAUGES: [Figure; 3] = [
    Figure {
        name: "drr_records",
        help: "Records of all devices",
        of: |status| status.records,
    },
    Figure {
        name: "drr_tracked_bytes",
        help: "Bytes of the page cache that the records stand for",
        of: |status| status.tracked_pages * page(),
    },
    Figure {
        name: "drr_table_bytes",
        help: "Memory that the records take, with their table",
        of: |status| status.table_bytes,
    },
];

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge<u64, AtomicU64>>;

/// A registry for a single answer, so that devices that have gone leave no series.
#[derive(Default)]
struct Answer(Registry);

impl Answer {
    /// Adds a counter. `name` ends in `_total`, which is removed, as the library adds it again.
    fn counters(&mut self, name: &str, help: &str) -> Counters {
        let family = Counters::default();
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.0.register(name, help, family.clone());
        family
    }

    /// Adds a gauge with labels.
    fn gauges(&mut self, name: &str, help: &str) -> Gauges {
        let family = Gauges::default();
        self.0.register(name, help, family.clone());
        family
    }

    /// Adds a gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        set(&self.gauges(name, help), vec![], value);
    }

    /// Adds a gauge in seconds without labels.
    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// Returns all metrics in the text format.
    fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// Sets the value of a series.
fn set(family: &Gauges, labels: Labels, value: u64) {
    family.get_or_create(&labels).set(value);
}

/// Adds to the value of a series.
fn add(family: &Counters, labels: Labels, count: u64) {
    family.get_or_create(&labels).inc_by(count);
}

/// Returns the labels that all series of a device have, and `more`.
fn labels(device: &DrrDevice, status: &Status, more: &[(&'static str, &str)]) -> Labels {
    let thin_id = status.thin_id.or(device.thin_id);
    let mut labels = vec![
        ("device", device.name.clone()),
        ("pool", device.pool.clone().unwrap_or_default()),
        (
            "thin_id",
            thin_id.map(|id| id.to_string()).unwrap_or_default(),
        ),
    ];
    labels.extend(more.iter().map(|(name, value)| (*name, value.to_string())));
    labels
}

/// Returns the figures in the text format, version 0.0.4; without the donors of devices if `donors`
/// is false, as these may be many.
pub fn text(found: &Found, donors: bool) -> Result<String, fmt::Error> {
    let mut answer = Answer::default();
    answer.gauge(
        "drr_up",
        "1 if dm-drr is loaded, and all that there is could be asked",
        found.complete.into(),
    );
    answer.seconds(
        "drr_collect_duration_seconds",
        "Time that this answer took",
        found.seconds,
    );
    let build = answer.gauges("drr_build_info", "The exporter's version");
    let version = env!("CARGO_PKG_VERSION").to_string();
    set(&build, vec![("version", version)], 1);
    of_devices(&mut answer, &found.devices, donors);
    if let Some((_, status)) = found.devices.first() {
        for figure in GAUGES {
            answer.gauge(figure.name, figure.help, (figure.of)(status));
        }
    }
    of_pools(&mut answer, found);
    answer.text()
}

/// Adds the metrics of devices.
fn of_devices(answer: &mut Answer, devices: &[(DrrDevice, Status)], donors: bool) {
    let info = answer.gauges(
        "drr_device_info",
        "What a device is: its number, the thin device below, feature arguments",
    );
    let size = answer.gauges("drr_device_size_bytes", "Length of a device");
    let mapped = answer.gauges(
        "drr_mapped_bytes",
        "Bytes of the thin device that are mapped; none while its pool can't be asked",
    );
    let misses = answer.counters(
        "drr_misses_total",
        "Reads that went to the disk, by the reason",
    );
    let ended = answer.counters(
        "drr_ended_pages_total",
        "Pages that donate no longer, by the reason",
    );
    let from = answer.counters(
        "drr_received_bytes_total",
        "Bytes that a device was served, by the donor's thin id; others: not told apart",
    );
    for (device, status) in devices {
        let with = |more: &[(&'static str, &str)]| labels(device, status, more);
        let what = [
            ("number", device.number.as_str()),
            ("thin_device", device.thin.as_deref().unwrap_or_default()),
            ("features", &device.table.features.join(",")),
        ];
        set(&info, with(&what), 1);
        set(&size, with(&[]), device.sectors * SECTOR);
        if let Some(sectors) = status.mapped_sectors {
            set(&mapped, with(&[]), sectors * SECTOR);
        }
        for (family, counts) in [(&misses, &status.misses), (&ended, &status.ended)] {
            for (reason, count) in counts {
                add(family, with(&[("reason", reason)]), *count);
            }
        }
        for donor in status.from.iter().filter(|_| donors) {
            let id = donor.thin_id.map(|id| id.to_string());
            let id = id.as_deref().unwrap_or("others");
            // A thin id is listed twice if it was used again for another layer.
            add(&from, with(&[("donor", id)]), donor.sectors * SECTOR);
        }
    }
    for figure in COUNTERS {
        let family = answer.counters(figure.name, figure.help);
        for (device, status) in devices {
            add(&family, labels(device, status, &[]), (figure.of)(status));
        }
    }
}

/// Adds the metrics of pools.
fn of_pools(answer: &mut Answer, found: &Found) {
    let layers = answer.gauges(
        "drr_layers",
        "Layers of a pool that the module knows; deleted ones have descendants",
    );
    let pool = |name: &str| ("pool", name.to_string());
    for count in &found.layers {
        for (state, number) in [("live", count.live), ("deleted", count.deleted)] {
            let labels = vec![pool(&count.pool), ("state", state.to_string())];
            set(&layers, labels, number);
        }
    }
    let cached = answer.gauges(
        "drr_cached_bytes",
        "Different bytes of a pool's shared blocks that are in memory",
    );
    let extra = answer.gauges(
        "drr_duplicate_bytes",
        "Memory that further copies of them take",
    );
    for found in &found.cached {
        set(&cached, vec![pool(&found.pool)], found.bytes);
        set(&extra, vec![pool(&found.pool)], found.extra_bytes);
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::answers::status::tests::{LINE, OLD_LINE};
    use crate::device_mapper::inventory::tests::sample;

    fn found() -> Found {
        let odd = LINE.replace("1:12000,others:288", "1:8,1:16,7:1,others:3");
        let lines = [LINE.to_string(), odd.replace("4096 262143", "- -")];
        let devices = sample().drr.into_iter().zip(lines);
        Found {
            devices: devices
                .map(|(device, line)| (device, Status::new("c", &line).expect("understood")))
                .collect(),
            layers: vec![LayerCount {
                pool: "p".into(),
                live: 3,
                deleted: 1,
            }],
            cached: vec![Cached {
                pool: "p".into(),
                bytes: 4096,
                extra_bytes: 8192,
            }],
            complete: true,
            seconds: 0.25,
        }
    }

    /// Returns whether a text can be the name of a metric or of a label.
    fn is_name(text: &str) -> bool {
        let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
        text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
    }

    /// Parses `{name="value",...}` at the start of a text. Returns the labels, and the rest of the
    /// text.
    fn label_set(text: &str) -> (BTreeMap<String, String>, &str) {
        let mut labels = BTreeMap::new();
        let Some(mut rest) = text.strip_prefix('{') else {
            return (labels, text);
        };
        loop {
            let (name, value) = rest.split_once("=\"").expect("a label");
            assert!(is_name(name), "{name}");
            let (mut unescaped, mut chars) = (String::new(), value.char_indices());
            let end = loop {
                match chars.next().expect("an end") {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().expect("what is escaped").1 {
                        'n' => unescaped.push('\n'),
                        c @ ('"' | '\\') => unescaped.push(c),
                        c => panic!("\\{c} in {text}"),
                    },
                    (_, c) => unescaped.push(c),
                }
            };
            let twice = labels.insert(name.to_string(), unescaped);
            assert!(twice.is_none(), "{name} twice in {text}");
            rest = &value[end + 1..];
            if let Some(after) = rest.strip_prefix('}') {
                return (labels, after);
            }
            rest = rest.strip_prefix(',').expect("a comma");
        }
    }

    /// Values of series, by name and labels.
    type Series = BTreeMap<(String, BTreeMap<String, String>), f64>;

    /// Parses a text by the grammar of the format, and checks the format's rules for whole texts.
    pub fn parse(text: &str) -> Series {
        let mut series = Series::new();
        let (mut types, mut helped) = (BTreeMap::new(), BTreeSet::new());
        let mut family = "";
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let mut word = || words.next().expect("a word");
                let (kind, name, rest) = (word(), word(), word());
                assert!(is_name(name) && !name.contains(':'), "{line}");
                match kind {
                    "HELP" => assert!(helped.insert(name) && !rest.is_empty(), "{line}"),
                    "TYPE" => {
                        assert!(helped.contains(name), "HELP after {line}");
                        assert!(["counter", "gauge"].contains(&rest), "{line}");
                        assert!(types.insert(name, rest).is_none(), "{line}");
                        assert_eq!(rest == "counter", name.ends_with("_total"), "{line}");
                        family = name;
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let end = line.find(['{', ' ']).expect("a value");
            let (name, rest) = line.split_at(end);
            assert_eq!(name, family, "between others: {line}");
            let (labels, rest) = label_set(rest);
            let value = rest.strip_prefix(' ').expect("a blank");
            let value: f64 = value.parse().expect("a number");
            assert!(value >= 0.0, "{line}");
            let twice = series.insert((name.to_string(), labels), value);
            assert!(twice.is_none(), "twice: {line}");
        }
        for name in types.keys() {
            assert!(series.keys().any(|(it, _)| it == name), "{name} is empty");
        }
        series
    }

    /// Returns the names of all metrics, and the labels that each has.
    pub fn names() -> BTreeMap<String, BTreeSet<String>> {
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, labels) in parse(&text(&found(), true).expect("a text")).into_keys() {
            names.entry(name).or_default().extend(labels.into_keys());
        }
        names
    }

    /// Returns the value of the only series with this name and these labels, among others.
    fn value(series: &Series, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let mut fitting = series.iter().filter(|((it, labels), _)| {
            let has =
                |(label, value): &(&str, &str)| labels.get(*label).is_some_and(|it| it == value);
            it == name && wanted.iter().all(has)
        });
        let value = *fitting.next()?.1;
        assert!(fitting.next().is_none(), "several {name} {wanted:?}");
        Some(value)
    }

    #[test]
    fn the_text_is_what_was_found() {
        let text = text(&found(), true).expect("a text");
        assert!(text.contains("\ndrr_up 1\n"), "{text}");
        let series = parse(&text);
        let of = |name, wanted: &[_]| value(&series, name, wanted);
        let c2 = ("device", "c2");
        assert_eq!(of("drr_up", &[]), Some(1.0));
        assert_eq!(of("drr_collect_duration_seconds", &[]), Some(0.25));
        let labels = [c2, ("pool", "vg-pool-tpool"), ("thin_id", "3")];
        assert_eq!(of("drr_read_bytes_total", &labels), Some(16384.0 * 512.0));
        assert_eq!(of("drr_hit_bytes_total", &[c2]), Some(12288.0 * 512.0));
        assert_eq!(of("drr_disk_read_bytes_total", &[c2]), Some(4096.0 * 512.0));
        assert_eq!(of("drr_whole_writes_total", &[c2]), Some(9.0));
        assert_eq!(of("drr_parked_writes_total", &[c2]), Some(4.0));
        assert_eq!(of("drr_unproven_pages_total", &[c2]), Some(6.0));
        assert_eq!(of("drr_compared_pages_total", &[c2]), Some(32.0));
        assert_eq!(of("drr_differed_pages_total", &[c2]), Some(0.0));
        assert_eq!(of("drr_mapped_bytes", &[c2]), Some(4096.0 * 512.0));
        assert_eq!(of("drr_mapped_bytes", &[("device", "c10")]), None);
        assert_eq!(of("drr_tracked_bytes", &[]), Some(512.0 * 4096.0));
        let reason = |name, reason| of(name, &[c2, ("reason", reason)]);
        assert_eq!(reason("drr_misses_total", "norecord"), Some(13.0));
        assert_eq!(reason("drr_misses_total", "changed"), Some(0.0));
        assert_eq!(reason("drr_ended_pages_total", "removed"), Some(40.0));
        assert_eq!(reason("drr_ended_pages_total", "changed"), Some(3.0));
        let donor = |donor| {
            of(
                "drr_received_bytes_total",
                &[("device", "c10"), ("donor", donor)],
            )
        };
        assert_eq!(donor("1"), Some(24.0 * 512.0));
        assert_eq!(donor("7"), Some(512.0));
        assert_eq!(donor("others"), Some(3.0 * 512.0));
        let info = [c2, ("features", "no_donate"), ("thin_device", "t2")];
        assert_eq!(of("drr_device_info", &info), Some(1.0));
        assert_eq!(of("drr_layers", &[("state", "deleted")]), Some(1.0));
        assert_eq!(of("drr_duplicate_bytes", &[("pool", "p")]), Some(8192.0));
    }

    #[test]
    fn an_older_module_has_what_it_counts() {
        let mut found = found();
        found.devices[0].1 = Status::new("c", OLD_LINE).expect("understood");
        let series = parse(&text(&found, true).expect("a text"));
        let of = |name, more| value(&series, name, &[("device", "c2"), more]);
        let pool = ("pool", "vg-pool-tpool");
        assert_eq!(of("drr_misses_total", ("reason", "busy")), Some(3.0));
        assert_eq!(of("drr_misses_total", ("reason", "stale")), None);
        assert_eq!(of("drr_differed_pages_total", pool), Some(0.0));
        assert_eq!(of("drr_whole_writes_total", pool), Some(9.0));
    }

    #[test]
    fn donors_are_left_out_if_unwanted() {
        let text = text(&found(), false).expect("a text");
        parse(&text);
        assert!(!text.contains("donor="), "{text}");
    }

    #[test]
    fn without_devices_there_is_little() {
        let series = parse(&text(&Found::default(), true).expect("a text"));
        assert_eq!(value(&series, "drr_up", &[]), Some(0.0));
        assert_eq!(series.len(), 3);
    }

    #[test]
    fn odd_names_are_escaped() {
        let mut found = found();
        found.devices[0].0.name = "a\"b\\c\nd}=,".into();
        let series = parse(&text(&found, true).expect("a text"));
        let name = [("device", "a\"b\\c\nd}=,")];
        assert_eq!(value(&series, "drr_hits_total", &name), Some(100.0));
    }

    #[test]
    fn a_device_has_few_series() {
        let of_one = |text: &str| text.lines().filter(|line| line.contains("\"c2\"")).count();
        let text = text(&found(), false).expect("a text");
        assert!(of_one(&text) <= 34, "{text}");
    }
}
