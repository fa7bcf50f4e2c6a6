// SPDX-License-Identifier: GPL-2.0

//! Writes the heatmap as a picture, or as a table for a spreadsheet. A PNG is made from the SVG,
//! with a font that is part of the program, so that no fonts of the system are needed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::FontTransform;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{fontdb, Options, Tree};

use crate::commands::heat::{HeatMap, Scale, Side};
use crate::error::{Code, Error, Result};
use crate::views::units::{fit, short, short_mib};

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const SOFT: RGBColor = RGBColor(0x66, 0x66, 0x66);
const NOTHING: RGBColor = RGBColor(0xf0, 0xf0, 0xf0);
/// Colours from few sectors to many. Each is darker than the one before, so that pictures in grey
/// can be read, too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0xff, 0xf3, 0xb8),
    RGBColor(0xfe, 0xcc, 0x6b),
    RGBColor(0xfd, 0x96, 0x3f),
    RGBColor(0xe8, 0x4a, 0x2c),
    RGBColor(0xaa, 0x10, 0x37),
    RGBColor(0x4c, 0x06, 0x2c),
];

type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Writes the map to a file, in the format that the name's ending tells.
pub fn write(map: &HeatMap, path: &Path) -> Result<()> {
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or("");
    let seen = &map.folded();
    let written = match extension.to_ascii_lowercase().as_str() {
        "csv" => fs::write(path, map.csv()).map_err(Into::into),
        "svg" => svg(seen).and_then(|text| Ok(fs::write(path, text)?)),
        "png" => svg(seen).and_then(|text| Ok(fs::write(path, png(&text)?)?)),
        _ => {
            return Err(Error::new(
                Code::Usage,
                path.display().to_string(),
                "what to write is told by the file's ending, and this one is not known",
                "use .svg, .png or .csv",
            ))
        }
    };
    written.map_err(|error| {
        Error::new(
            Code::Failed,
            path.display().to_string(),
            format!("can't write it: {error}"),
            "name a file that can be written to",
        )
    })
}

/// The layout of a picture, in pixels.
struct Layout {
    size: (u32, u32),
    /// Width of a cell.
    width: i32,
    /// Height of a cell.
    height: i32,
    /// Width of the labels to the left of the cells.
    left: i32,
    /// Height of the labels above the cells.
    above: i32,
    /// Whether the labels of columns stand upright, as columns are narrow.
    upright: bool,
    /// Width of a panel.
    panel: i32,
}

const MARGIN: i32 = 24;
const HEAD: i32 = 92;
const LEGEND: i32 = 96;
const GAP: i32 = 48;
const LETTER: i32 = 9;
const LABEL: usize = 26;

impl Layout {
    fn new(map: &HeatMap) -> Self {
        let longest = |labels: &mut dyn Iterator<Item = &str>| {
            let longest = labels.map(|label| label.chars().count()).max();
            longest.unwrap_or(0).clamp(6, LABEL) as i32
        };
        let columns = map.owners.len().max(1) as i32;
        let rows = map.readers.len().max(1) as i32;
        let width = (800 / columns).clamp(18, 104);
        let height = (1200 / rows).clamp(14, 34);
        let upright = width < 88;
        let of_readers = longest(&mut map.readers.iter().map(|it| it.label.as_str()));
        let of_owners = longest(&mut map.owners.iter().map(|it| it.label.as_str()));
        let left = of_readers * LETTER + 16;
        let above = if upright { of_owners * LETTER + 12 } else { 44 };
        // The titles of the panels and the legend need some room, too.
        let panel = (left + width * columns).max(380);
        let size = (
            (2 * MARGIN + 2 * panel + GAP) as u32,
            (MARGIN + HEAD + above + height * rows + LEGEND) as u32,
        );
        Self {
            size,
            width,
            height,
            left,
            above,
            upright,
            panel,
        }
    }
}

fn svg(map: &HeatMap) -> Drawn<String> {
    let layout = Layout::new(map);
    let mut text = String::new();
    draw(
        SVGBackend::with_string(&mut text, layout.size),
        map,
        &layout,
    )?;
    Ok(text)
}

fn png(svg: &str) -> Drawn<Vec<u8>> {
    let mut fonts = fontdb::Database::new();
    for font in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_data(font.to_vec());
    }
    // The picture asks for "sans-serif", for which viewers of SVG take a font of their own.
    fonts.set_sans_serif_family("DejaVu Sans");
    let options = Options {
        fontdb: Arc::new(fonts),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("it is too large")?;
    resvg::render(&tree, Transform::default(), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}

fn text(size: i32, colour: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .color(&colour)
        .pos(Pos::new(horizontal, vertical))
}

fn bold(size: i32) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .style(FontStyle::Bold)
        .color(&INK)
        .pos(Pos::new(HPos::Left, VPos::Top))
}

fn colour_at(place: f64) -> RGBColor {
    let scaled = place.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let at = (scaled as usize).min(COLOURS.len() - 2);
    let part = scaled - at as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    let (a, b) = (COLOURS[at], COLOURS[at + 1]);
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

fn draw<B: DrawingBackend>(backend: B, map: &HeatMap, layout: &Layout) -> Drawn
where
    B::ErrorType: 'static,
{
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("Who read whose data: pool {}", fit(&map.pool, 40));
    area.draw(&Text::new(title, (MARGIN, MARGIN), bold(22)))?;
    let served = map.total(Side::Drr) as f64;
    let all = served + map.total(Side::Disk) as f64;
    let subtitle = if all > 0.0 {
        format!(
            "{} MiB were read; DRR served {:.0} % of it. Rows: readers. Columns: owners of the blocks.",
            short(all / 2048.0),
            served / all * 100.0
        )
    } else {
        "Nothing was read yet.".to_string()
    };
    let style = text(14, SOFT, HPos::Left, VPos::Top);
    area.draw(&Text::new(subtitle, (MARGIN, MARGIN + 30), style))?;
    for (at, side) in [Side::Disk, Side::Drr].into_iter().enumerate() {
        let x = MARGIN + at as i32 * (layout.panel + GAP);
        draw_panel(&area, map, layout, side, x)?;
    }
    let (_, height) = layout.size;
    draw_legend(&area, map.scale(), height as i32 - LEGEND + 30)?;
    area.present()?;
    Ok(())
}

fn draw_panel<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    map: &HeatMap,
    layout: &Layout,
    side: Side,
    x: i32,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let name = match side {
        Side::Disk => "From the disk",
        Side::Drr => "Served by DRR",
    };
    let title = format!("{name}: {} MiB", short_mib(map.total(side)));
    area.draw(&Text::new(title, (x, MARGIN + 62), bold(17)))?;
    let (left, top) = (x + layout.left, MARGIN + HEAD + layout.above);
    for (at, owner) in map.owners.iter().enumerate() {
        let middle = left + at as i32 * layout.width + layout.width / 2;
        if layout.upright {
            let style = text(15, INK, HPos::Left, VPos::Center).transform(FontTransform::Rotate270);
            area.draw(&Text::new(
                fit(&owner.label, LABEL),
                (middle, top - 6),
                style,
            ))?;
            continue;
        }
        // The name stands above the id.
        let (name, id) = owner.label.rsplit_once(' ').unwrap_or((&owner.label, ""));
        let letters = (layout.width / LETTER) as usize;
        for (word, y) in [(fit(name, letters), top - 32), (id.to_string(), top - 14)] {
            let style = text(15, INK, HPos::Center, VPos::Center);
            area.draw(&Text::new(word, (middle, y), style))?;
        }
    }
    let scale = map.scale();
    for (row, (reader, line)) in map.readers.iter().zip(map.matrix(side)).enumerate() {
        let y = top + row as i32 * layout.height;
        let middle = y + layout.height / 2;
        let style = text((layout.height - 2).min(15), INK, HPos::Right, VPos::Center);
        area.draw(&Text::new(
            fit(&reader.label, LABEL),
            (left - 8, middle),
            style,
        ))?;
        for (column, sectors) in line.into_iter().enumerate() {
            let x = left + column as i32 * layout.width;
            let place = scale.place(sectors);
            let colour = place.map_or(NOTHING, colour_at);
            let corners = [(x, y), (x + layout.width - 1, y + layout.height - 1)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            // Figures are left out where they would be too small to be read.
            if sectors > 0 && layout.width >= 44 && layout.height >= 18 {
                let ink = if place > Some(0.55) { WHITE } else { INK };
                let style = text(15, ink, HPos::Center, VPos::Center);
                let at = (x + layout.width / 2, middle);
                area.draw(&Text::new(short_mib(sectors), at, style))?;
            }
        }
    }
    Ok(())
}

fn draw_legend<B: DrawingBackend>(area: &DrawingArea<B, Shift>, scale: Scale, y: i32) -> Drawn
where
    B::ErrorType: 'static,
{
    const WIDTH: i32 = 420;
    const HEIGHT: i32 = 16;
    let left = MARGIN + 110;
    let style = text(15, INK, HPos::Left, VPos::Center);
    area.draw(&Text::new(
        "MiB, log scale",
        (MARGIN, y + HEIGHT / 2),
        style,
    ))?;
    for at in 0..WIDTH {
        let colour = colour_at(f64::from(at) / f64::from(WIDTH - 1));
        let corners = [(left + at, y), (left + at + 1, y + HEIGHT)];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
    }
    for power in scale.low..=scale.high {
        let x = left + WIDTH * (power - scale.low) / (scale.high - scale.low);
        area.draw(&PathElement::new(
            [(x, y + HEIGHT), (x, y + HEIGHT + 5)],
            INK,
        ))?;
        let figure = format!("{}", 10f64.powi(power));
        let style = text(15, INK, HPos::Center, VPos::Top);
        area.draw(&Text::new(figure, (x, y + HEIGHT + 9), style))?;
    }
    let x = left + WIDTH + 40;
    let corners = [(x, y), (x + HEIGHT, y + HEIGHT)];
    area.draw(&Rectangle::new(corners, NOTHING.filled()))?;
    let style = text(15, INK, HPos::Left, VPos::Center);
    area.draw(&Text::new(
        "nothing",
        (x + HEIGHT + 8, y + HEIGHT / 2),
        style,
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::heat::tests::ten_by_four;

    /// Returns the folder for pictures: `$DRRCTL_PICTURES`, for looking at them, or a temporary
    /// one.
    fn folder() -> std::path::PathBuf {
        std::env::var_os("DRRCTL_PICTURES").map_or_else(std::env::temp_dir, Into::into)
    }

    #[test]
    fn pictures_are_written() {
        let map = ten_by_four();
        let path = folder().join("drrctl-heatmap.svg");
        write(&map, &path).expect("written");
        let svg = fs::read_to_string(&path).expect("a picture");
        for word in [
            "From the disk",
            "Served by DRR",
            "c10 (12)",
            "python",
            "MiB",
        ] {
            assert!(svg.contains(word), "{word}");
        }
        let path = folder().join("drrctl-heatmap.png");
        write(&map, &path).expect("written");
        let png = fs::read(&path).expect("a picture");
        assert!(png.starts_with(b"\x89PNG"));
        // A picture without letters would be far smaller.
        assert!(png.len() > 10_000, "{}", png.len());
    }

    #[test]
    fn large_ones_and_empty_ones_are_drawn() {
        let mut map = ten_by_four();
        for at in 0..120 {
            let mut party = map.readers[0].clone();
            party.label = format!("containerd-pool-snap-{at} ({at})");
            map.readers.push(party.clone());
            map.owners.push(party);
        }
        write(&map, &folder().join("drrctl-large.png")).expect("written");
        map.readers.clear();
        map.owners.clear();
        map.reads.clear();
        write(&map, &folder().join("drrctl-empty.png")).expect("written");
    }

    #[test]
    fn what_can_not_be_written() {
        let map = ten_by_four();
        for (name, code) in [
            ("/tmp/x.jpeg", Code::Usage),
            ("/tmp/x", Code::Usage),
            ("/nowhere/x.svg", Code::Failed),
            ("/nowhere/x.png", Code::Failed),
            ("/nowhere/x.csv", Code::Failed),
        ] {
            let error = write(&map, Path::new(name)).err();
            assert_eq!(error.map(|it| it.code), Some(code), "{name}");
        }
    }
}
