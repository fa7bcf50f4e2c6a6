// SPDX-License-Identifier: GPL-2.0

//! Draws the heatmap in a terminal.

use crate::commands::heat::{HeatMap, Scale, Side};
use crate::views::units::{fit, short, short_mib};

/// Backgrounds from few sectors to many, and the colours of the figures on them: black or white.
/// Numbers are those of a terminal's 256 colours.
const COLOURS: [(u8, u8); 8] = [
    (230, 0),
    (229, 0),
    (222, 0),
    (215, 0),
    (209, 0),
    (203, 0),
    (161, 15),
    (89, 15),
];
/// Width of a column, without the space before it.
const COLUMN: usize = 11;

/// Draws the map, in colours if `colour`.
pub fn heatmap(map: &HeatMap, colour: bool) -> String {
    if map.reads.is_empty() {
        return format!("{}: nothing was read yet\n", map.pool);
    }
    let map = &map.folded();
    let width = match ratatui::crossterm::terminal::size() {
        Ok((width, _)) if colour => usize::from(width),
        _ => 80,
    };
    let panels = [
        panel(map, Side::Disk, "From the disk", colour),
        panel(map, Side::Drr, "Served by DRR", colour),
    ];
    let titles = panels.iter().map(|panel| panel[0].1);
    let panel_width =
        (label_width(map) + map.owners.len() * (COLUMN + 1)).max(titles.max().unwrap_or(0));
    let mut text = format!(
        "{}: who (rows) read whose blocks (columns), in MiB\n\n",
        map.pool
    );
    if panel_width * 2 + 3 <= width {
        for (left, right) in panels[0].iter().zip(&panels[1]) {
            let padding = " ".repeat(panel_width + 3 - left.1);
            text.push_str(&format!("{}{padding}{}\n", left.0, right.0));
        }
    } else {
        for panel in &panels {
            for (line, _) in panel {
                text.push_str(line.trim_end());
                text.push('\n');
            }
            text.push('\n');
        }
    }
    if colour {
        text.push_str(&legend(map.scale()));
    }
    text
}

fn label_width(map: &HeatMap) -> usize {
    let labels = map
        .readers
        .iter()
        .map(|reader| reader.label.chars().count());
    labels.max().unwrap_or(0).clamp(6, 24)
}

/// Draws one side of the map. Returns lines with their widths on the screen.
fn panel(map: &HeatMap, side: Side, title: &str, colour: bool) -> Vec<(String, usize)> {
    let left = label_width(map);
    let scale = map.scale();
    let full = left + map.owners.len() * (COLUMN + 1);
    let title = format!("{title}: {} MiB", short_mib(map.total(side)));
    let shown = title.chars().count();
    let mut lines = vec![(title, shown)];
    // Names stand above ids, so that both fit into a column.
    let heads = map
        .owners
        .iter()
        .map(|owner| match owner.label.rsplit_once(' ') {
            Some((name, id)) => (name.to_string(), id.to_string()),
            None => (owner.label.clone(), String::new()),
        });
    let (mut names, mut ids) = (" ".repeat(left), " ".repeat(left));
    for (name, id) in heads {
        names.push_str(&format!(" {:>COLUMN$}", fit(&name, COLUMN)));
        ids.push_str(&format!(" {id:>COLUMN$}"));
    }
    lines.push((names, full));
    lines.push((ids, full));
    for (reader, row) in map.readers.iter().zip(map.matrix(side)) {
        let mut line = format!("{:<left$}", fit(&reader.label, left));
        for sectors in row {
            let figure = match sectors {
                0 => "·".to_string(),
                _ => short_mib(sectors),
            };
            let figure = format!("{figure:>COLUMN$}");
            line.push(' ');
            line.push_str(&match scale.place(sectors) {
                Some(place) if colour => painted(place, &figure),
                _ => figure,
            });
        }
        lines.push((line, full));
    }
    lines
}

/// Gives a text the background for `place` on the scale.
fn painted(place: f64, text: &str) -> String {
    let at = ((place * COLOURS.len() as f64) as usize).min(COLOURS.len() - 1);
    let (back, front) = COLOURS[at];
    format!("\x1b[48;5;{back};38;5;{front}m{text}\x1b[0m")
}

/// Draws the scale with its colours.
fn legend(scale: Scale) -> String {
    let mut text = String::from("\nMiB ");
    for power in scale.low..=scale.high {
        let place = f64::from(power - scale.low) / f64::from(scale.high - scale.low);
        let figure = format!(" {} ", short(10f64.powi(power)));
        text.push_str(&painted(place, &figure));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::heat::tests::ten_by_four;

    #[test]
    fn plain() {
        let text = heatmap(&ten_by_four(), false);
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.contains("From the disk: "), "{text}");
        assert!(text.contains("Served by DRR: "), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let row = text.lines().find(|line| line.starts_with("c1 (3)"));
        let words: Vec<_> = row.unwrap_or_default().split_whitespace().collect();
        assert_eq!(
            words,
            ["c1", "(3)", "30.0", "11.7", "104", "0.02"],
            "{text}"
        );
    }

    #[test]
    fn titles_wider_than_the_columns() {
        let mut map = ten_by_four();
        map.owners.truncate(1);
        map.reads.retain(|cell| cell.owner == 0);
        let text = heatmap(&map, false);
        assert!(text.contains("MiB   Served by DRR: "), "{text}");
        assert!(
            text.contains("\nc1 (3)          30.0      c1 (3)  "),
            "{text}"
        );
    }

    #[test]
    fn coloured() {
        let text = heatmap(&ten_by_four(), true);
        assert!(text.contains("\x1b[48;5;89;38;5;15m"), "{text}");
        assert_eq!(
            text.matches("\x1b[48").count(),
            text.matches("\x1b[0m").count()
        );
    }
}
