// SPDX-License-Identifier: GPL-2.0

//! Formats numbers with their units, and parses those that users type.

/// Converts sectors of 512 bytes to MiB.
pub fn mib(sectors: u64) -> f64 {
    sectors as f64 / 2048.0
}

/// Converts a size that the user gave, like 1073741824, 1024M or 1GiB, to sectors of 512 bytes.
/// Fails if the size is no whole number of sectors, or longer than a device can be.
pub fn sectors(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err("use bytes, or K, M, G, T or P, as in 20G".to_string()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "use a whole number, as in 20G".to_string())?;
    // The kernel's type for positions in a device, `loff_t`, is an `i64`.
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or("no device can be that large")?;
    if bytes % 512 != 0 {
        return Err("use a multiple of 512 bytes".to_string());
    }
    Ok(bytes / 512)
}

/// Formats a number with two decimal places below 1, one below 100, and none above: 0, <0.01, 0.50,
/// 12.3, 104.
pub fn short(mib: f64) -> String {
    if mib == 0.0 {
        "0".to_string()
    } else if mib < 0.01 {
        "<0.01".to_string()
    } else if mib < 1.0 {
        format!("{mib:.2}")
    } else if mib < 100.0 {
        format!("{mib:.1}")
    } else {
        format!("{mib:.0}")
    }
}

/// Formats sectors of 512 bytes in MiB, as [`short`] does.
pub fn short_mib(sectors: u64) -> String {
    short(mib(sectors))
}

/// Formats a part of a whole in percent, or as "-" if there is no whole.
pub fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_string(), |rate| format!("{:.1}%", rate * 100.0))
}

/// Shortens `text` in its middle to at most `width` characters.
pub fn fit(text: &str, width: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= width {
        return text.to_string();
    }
    // Names often differ only in the numbers at their ends.
    let tail = width.saturating_sub(1).div_ceil(2);
    let head = width.saturating_sub(1) - tail;
    let mut fitted: String = chars[..head].iter().collect();
    fitted.push('…');
    fitted.extend(&chars[chars.len() - tail..]);
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let texts: Vec<_> = [0, 1, 1024, 2048 * 12, 2048 * 104]
            .map(short_mib)
            .into_iter()
            .collect();
        assert_eq!(texts, ["0", "<0.01", "0.50", "12.0", "104"]);
        assert_eq!(percent(None), "-");
        assert_eq!(percent(Some(0.756)), "75.6%");
    }

    #[test]
    fn sizes() {
        for (text, wanted) in [
            ("0", 0),
            ("512", 1),
            ("1k", 2),
            ("20G", 41_943_040),
            ("3MiB", 6144),
            ("8191P", 8191 << 41),
        ] {
            assert_eq!(sectors(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "G",
            "-1G",
            "+1G",
            "1.5G",
            "513",
            "1GB",
            "ib",
            "1ib",
            "1 G",
            "8192P",
            "99999999999999999999",
        ] {
            assert!(sectors(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_keep_their_ends() {
        assert_eq!(fit("short", 8), "short");
        assert_eq!(fit("containerd-pool-snap-17", 10).chars().count(), 10);
        assert!(fit("containerd-pool-snap-17", 10).ends_with("-17"));
        assert_eq!(fit("", 3), "");
    }
}
