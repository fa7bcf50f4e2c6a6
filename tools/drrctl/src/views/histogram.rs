// SPDX-License-Identifier: GPL-2.0

//! How many there are of which kind, with bars.

use serde::{ser::SerializeMap, Serialize, Serializer};

use crate::answers::text::Bucket;

/// Columns of the longest bar.
const BAR: f64 = 40.0;

/// A table with `title` and `unit` above it, and a bar for each bucket; `mib` is what so many are.
pub fn draw(title: &str, unit: &str, buckets: &[Bucket], mib: impl Fn(u64) -> String) -> String {
    let most = buckets.iter().map(|bucket| bucket.count).max();
    let most = most.unwrap_or(0).max(1);
    let mut text = format!("\n{title:<13} {unit:>10} {:>10}\n", "MIB");
    for Bucket { low, high, count } in buckets {
        let range = match high {
            Some(high) if high == low => low.to_string(),
            Some(high) => format!("{low} to {high}"),
            None => format!("{low} or more"),
        };
        let length = (*count as f64 / most as f64 * BAR).ceil() as usize;
        text.push_str(&format!(
            "{range:<13} {count:>10} {:>10}  {}\n",
            mib(*count),
            "█".repeat(length)
        ));
    }
    text
}

/// A bucket, and what is counted.
struct Of<'a>(&'a Bucket, &'static str);

impl Serialize for Of<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Of(bucket, what) = self;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("low", &bucket.low)?;
        map.serialize_entry("high", &bucket.high)?;
        map.serialize_entry(what, &bucket.count)?;
        map.end()
    }
}

/// For JSON, as a list of buckets with numbers of blocks.
pub fn blocks<S: Serializer>(buckets: &[Bucket], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(buckets.iter().map(|bucket| Of(bucket, "blocks")))
}

/// For JSON, as a list of buckets with numbers of pages.
pub fn pages<S: Serializer>(buckets: &[Bucket], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(buckets.iter().map(|bucket| Of(bucket, "pages")))
}
