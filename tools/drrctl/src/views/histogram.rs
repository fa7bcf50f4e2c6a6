// SPDX-License-Identifier: GPL-2.0

//! Histograms, as tables with bars and as JSON.

use serde::{ser::SerializeMap, Serialize, Serializer};

use crate::answers::text::Bucket;

/// Length of the longest bar, in columns.
const BAR: f64 = 40.0;

/// Draws a table with the headings `title` and `unit`, and a bar for each bucket. `mib` formats a
/// count in MiB.
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

/// A bucket, and the name of what it counts.
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

/// Serializes buckets that count blocks.
pub fn blocks<S: Serializer>(buckets: &[Bucket], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(buckets.iter().map(|bucket| Of(bucket, "blocks")))
}

/// Serializes buckets that count pages.
pub fn pages<S: Serializer>(buckets: &[Bucket], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(buckets.iter().map(|bucket| Of(bucket, "pages")))
}
