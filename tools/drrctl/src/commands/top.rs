// SPDX-License-Identifier: GPL-2.0

//! The content of `top`'s screen: rates from two successive statuses of the devices, and the
//! layout. [`live`] handles the terminal and the time.

pub mod live;

use std::collections::BTreeMap;

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};
use ratatui::Frame;

use crate::answers::status::Status;
use crate::views::units::{fit, mib, percent};

/// The names and statuses of all drr devices at one time, in the order in which they are shown.
pub type Look = Vec<(String, Status)>;

/// What a device has done between two looks. Figures are per second, except misses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    pub name: String,
    /// The part of the data read that drr has served; `None` if nothing was read.
    pub hit_rate: Option<f64>,
    pub disk_mib: f64,
    pub drr_mib: f64,
    pub reads: f64,
    /// Reads that missed, by the reason.
    pub misses: BTreeMap<String, u64>,
}

/// The state of `top`.
#[derive(Default)]
pub struct State {
    /// The statuses at the last look.
    last: BTreeMap<String, Status>,
    /// The error of the last look, if it failed.
    pub trouble: Option<String>,
    pub rates: Vec<Rates>,
    pub total: Rates,
    /// Texts about faults of the devices, since their counters were reset.
    faults: Vec<String>,
    /// Number of devices that are scrolled out at the top.
    pub scroll: usize,
    colour: bool,
}

/// Returns by how much a counter has grown since `before`, or since it was reset in between.
fn since(now: u64, before: u64) -> u64 {
    if now >= before {
        now - before
    } else {
        now
    }
}

/// Returns the rates between two statuses of a device.
fn rates(name: &str, now: &Status, before: &Status, seconds: f64) -> Rates {
    let disk = since(now.disk_sectors(), before.disk_sectors());
    let drr = since(now.hit_sectors, before.hit_sectors);
    let mut misses = BTreeMap::new();
    for (reason, count) in &now.misses {
        let count = since(*count, before.misses.get(reason).copied().unwrap_or(0));
        misses.insert(reason.clone(), count);
    }
    Rates {
        name: name.to_string(),
        hit_rate: (disk + drr > 0).then(|| drr as f64 / (disk + drr) as f64),
        disk_mib: mib(disk) / seconds,
        drr_mib: mib(drr) / seconds,
        reads: since(now.reads, before.reads) as f64 / seconds,
        misses,
    }
}

impl State {
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            ..Self::default()
        }
    }

    /// Updates the state with another look, `seconds` after the last. A device that was not there
    /// before has rates of 0.
    pub fn look(&mut self, look: Look, seconds: f64) {
        let seconds = seconds.max(0.001);
        self.trouble = None;
        self.rates = look
            .iter()
            .map(|(name, status)| {
                let before = self.last.get(name).unwrap_or(status);
                rates(name, status, before, seconds)
            })
            .collect();
        let mut total = Rates {
            name: "all".to_string(),
            ..Rates::default()
        };
        for rates in &self.rates {
            total.disk_mib += rates.disk_mib;
            total.drr_mib += rates.drr_mib;
            total.reads += rates.reads;
            for (reason, count) in &rates.misses {
                *total.misses.entry(reason.clone()).or_default() += count;
            }
        }
        let all = total.disk_mib + total.drr_mib;
        total.hit_rate = (all > 0.0).then(|| total.drr_mib / all);
        self.total = total;
        self.faults = look
            .iter()
            .flat_map(|(name, status)| {
                let faults = status.faults().into_iter();
                faults.map(move |fault| format!("{name}: {fault}"))
            })
            .collect();
        self.last = look.into_iter().collect();
        self.scroll = self.scroll.min(self.rates.len().saturating_sub(1));
    }

    /// Draws the screen. `interval` is the time between two looks, in seconds.
    pub fn draw(&self, frame: &mut Frame, interval: f64) {
        let reasons = self.total.misses.len().clamp(1, 8) as u16;
        let [head, devices, misses, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Length(reasons + 1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let title = format!(
            "drrctl top: {} devices   from the disk {:.1} MiB/s   from drr {:.1} MiB/s   hits {}",
            self.rates.len(),
            self.total.disk_mib,
            self.total.drr_mib,
            percent(self.total.hit_rate)
        );
        let mut lines = vec![Line::styled(title, self.style(Color::Cyan))];
        if !self.faults.is_empty() {
            let faults = format!("SEE THE KERNEL LOG: {}", self.faults.join(", "));
            lines.push(Line::styled(faults, self.style(Color::Red)));
        }
        frame.render_widget(Paragraph::new(lines), head);
        if let Some(trouble) = &self.trouble {
            frame.render_widget(Paragraph::new(trouble.as_str()), devices);
        } else if self.rates.is_empty() {
            frame.render_widget(Paragraph::new("There is no drr device now."), devices);
        } else {
            self.draw_devices(frame, devices);
        }
        self.draw_misses(frame, misses, interval);
        let keys = format!("q quit   ↑↓ scroll   every {interval} s");
        frame.render_widget(
            Paragraph::new(keys).style(self.style(Color::DarkGray)),
            foot,
        );
    }

    /// Returns the style for `colour`, or the default style if colours are off.
    fn style(&self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn draw_devices(&self, frame: &mut Frame, area: Rect) {
        const FIGURES: [u16; 4] = [7, 10, 10, 9];
        let name_width = usize::from(area.width.saturating_sub(58)).max(12);
        let rows = self.rates.iter().skip(self.scroll).map(|rates| {
            Row::new([
                fit(&rates.name, name_width),
                format!("{:>7}", percent(rates.hit_rate)),
                format!("{:>10.1}", rates.disk_mib),
                format!("{:>10.1}", rates.drr_mib),
                format!("{:>9.0}", rates.reads),
                most(&rates.misses),
            ])
        });
        let mut widths = vec![Constraint::Length(name_width as u16)];
        widths.extend(FIGURES.map(Constraint::Length));
        widths.push(Constraint::Min(14));
        let heading = Row::new([
            "NAME".to_string(),
            format!("{:>7}", "HITS"),
            format!("{:>10}", "DISK MiB/s"),
            format!("{:>10}", "DRR MiB/s"),
            format!("{:>9}", "READS/s"),
            "MISSES".to_string(),
        ])
        .style(Style::new().add_modifier(Modifier::BOLD));
        frame.render_widget(Table::new(rows, widths).header(heading), area);
    }

    fn draw_misses(&self, frame: &mut Frame, area: Rect, interval: f64) {
        let all: u64 = self.total.misses.values().sum();
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut lines = vec![Line::styled(
            format!("MISSES OF ALL DEVICES, IN {interval} s"),
            bold,
        )];
        let mut sorted: Vec<_> = self.total.misses.iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let room = f64::from(area.width.saturating_sub(26));
        for (reason, count) in sorted {
            let part = *count as f64 / all.max(1) as f64;
            let bar = "█".repeat((part * room).ceil() as usize);
            lines.push(Line::raw(format!("{reason:<13} {count:>9}  {bar}")));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }
}

/// Returns the most frequent reason and its count, or "-" if there are none.
fn most(misses: &BTreeMap<String, u64>) -> String {
    match misses.iter().max_by_key(|(_, count)| **count) {
        Some((reason, count)) if *count > 0 => format!("{reason} {count}"),
        _ => "-".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::status::tests::{LINE, OLD_LINE};
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;

    fn status() -> Status {
        Status::new("c1", LINE).expect("understood")
    }

    fn screen(state: &State) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal
            .draw(|frame| state.draw(frame, 1.0))
            .expect("a screen");
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        for row in buffer.content().chunks(80) {
            for cell in row {
                text.push_str(cell.symbol());
            }
            text.push('\n');
        }
        text
    }

    fn watched() -> State {
        let mut state = State::default();
        state.look(vec![("c1".into(), status()), ("c2".into(), status())], 1.0);
        let mut later = status();
        later.reads += 100;
        later.read_sectors += 8 * 2048;
        later.hit_sectors += 6 * 2048;
        *later.misses.entry("stale".into()).or_default() += 20;
        state.look(vec![("c1".into(), later), ("c2".into(), status())], 2.0);
        state
    }

    #[test]
    fn rates_are_per_second() {
        let state = watched();
        let rates = &state.rates[0];
        assert_eq!((rates.disk_mib, rates.drr_mib), (1.0, 3.0));
        assert_eq!((rates.hit_rate, rates.reads), (Some(0.75), 50.0));
        assert_eq!(rates.misses["stale"], 20);
        assert_eq!(state.rates[1].hit_rate, None);
        assert_eq!(state.total.drr_mib, 3.0);
    }

    #[test]
    fn counters_that_were_reset_don_t_jump() {
        let mut state = watched();
        let zero = Status::new(
            "c1",
            "1 2 reads=8 read_sectors=16 hit_sectors=0 miss_stale=1",
        );
        state.look(vec![("c1".into(), zero.expect("understood"))], 1.0);
        assert_eq!(state.rates[0].reads, 8.0);
        assert_eq!(state.rates[0].misses["stale"], 1);
    }

    #[test]
    fn the_module_may_be_replaced() {
        let of = |line| {
            vec![(
                "c1".to_string(),
                Status::new("c1", line).expect("understood"),
            )]
        };
        let mut state = State::default();
        for line in [OLD_LINE, LINE, OLD_LINE] {
            state.look(of(line), 1.0);
            assert_eq!(state.rates[0].reads, 0.0);
        }
        // The older module has counted these since it was loaded.
        assert_eq!(state.rates[0].misses["busy"], 3);
        assert!(!state.rates[0].misses.contains_key("stale"));
        screen(&state);
    }

    #[test]
    fn faults_are_shown() {
        assert!(!screen(&watched()).contains("KERNEL LOG"));
        let mut state = State::default();
        let line = LINE.replace("differed_pages=0", "differed_pages=4");
        let faulty = Status::new("c2", &line).expect("understood");
        state.look(vec![("c1".into(), status()), ("c2".into(), faulty)], 1.0);
        let text = screen(&state);
        assert!(
            text.contains("SEE THE KERNEL LOG: c2: pages that differed"),
            "{text}"
        );
    }

    #[test]
    fn fits_80_by_24() {
        let text = screen(&watched());
        for word in [
            "c1",
            "75.0%",
            "stale 20",
            "from drr 3.0 MiB/s",
            "q quit",
            "unshared",
        ] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }

    #[test]
    fn many_devices_and_none() {
        let mut state = State::default();
        let look: Look = (0..200)
            .map(|at| (format!("containerd-pool-snap-{at}"), status()))
            .collect();
        state.look(look, 1.0);
        assert!(screen(&state).contains("pool-snap-3"));
        state.scroll = 150;
        assert!(screen(&state).contains("-snap-150"));
        state.look(Vec::new(), 1.0);
        assert_eq!(state.scroll, 0);
        assert!(screen(&state).contains("no drr device"));
        state.trouble = Some("dm-drr: the module is not loaded".into());
        assert!(screen(&state).contains("not loaded"));
    }
}
