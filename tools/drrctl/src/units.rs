// SPDX-License-Identifier: GPL-2.0

//! Figures for people.

/// MiB of so many sectors of 512 bytes.
pub fn mib(sectors: u64) -> f64 {
    sectors as f64 / 2048.0
}

/// About three digits that count: 0, 0.01, 0.5, 12.3, 104, 12345.
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

pub fn short_mib(sectors: u64) -> String {
    short(mib(sectors))
}

/// A part of the whole, "-" if there is no whole.
pub fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_string(), |rate| format!("{:.1}%", rate * 100.0))
}

/// The text, shortened in its middle to so many characters.
pub fn fit(text: &str, width: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= width {
        return text.to_string();
    }
    // numbers at the end are what tells names apart
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
    fn names_keep_their_ends() {
        assert_eq!(fit("short", 8), "short");
        assert_eq!(fit("containerd-pool-snap-17", 10).chars().count(), 10);
        assert!(fit("containerd-pool-snap-17", 10).ends_with("-17"));
        assert_eq!(fit("", 3), "");
    }
}
