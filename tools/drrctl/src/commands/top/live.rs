// SPDX-License-Identifier: GPL-2.0

//! `top`: the screen, the keys and the time. The terminal is restored however `top` ends.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::commands::top::{Look, State};
use crate::device_mapper::control::Control;
use crate::device_mapper::inventory::{status_of, Inventory};
use crate::error::{Code, Error, Result};

/// Whether a signal has ended `top`.
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_signal: libc::c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

fn failed(error: io::Error) -> Error {
    Error::new(
        Code::Failed,
        "top",
        format!("the terminal: {error}"),
        "use 'drrctl status' instead",
    )
}

/// Shows the screen until a key or a signal ends it. `interval` is the time between two looks, in
/// seconds.
pub fn run(control: &Control, interval: f64) -> Result<()> {
    if !io::stdout().is_terminal() {
        return Err(Error::new(
            Code::Usage,
            "top",
            "standard output is not a terminal",
            "use 'drrctl status --json' in scripts",
        ));
    }
    // Permanent errors are reported before the screen is taken.
    let mut state = State::new(crate::views::output::colour());
    state.look(look(control)?, interval);
    // SAFETY: The handler only stores to an atomic.
    unsafe {
        let handler = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::signal(libc::SIGTERM, handler);
        libc::signal(libc::SIGHUP, handler);
        libc::signal(libc::SIGINT, handler);
    }
    // Restores the terminal also after a panic.
    let mut terminal = ratatui::try_init().map_err(|error| {
        ratatui::restore();
        failed(error)
    })?;
    let result = watch(control, interval, &mut state, &mut terminal);
    ratatui::restore();
    result.map_err(failed)
}

/// Returns the statuses of all drr devices.
fn look(control: &Control) -> Result<Look> {
    let mut look = Look::new();
    for device in Inventory::new(control)?.drr {
        if let Some(status) = status_of(control, &device.name)? {
            look.push((device.name, status));
        }
    }
    Ok(look)
}

fn watch(
    control: &Control,
    interval: f64,
    state: &mut State,
    terminal: &mut ratatui::DefaultTerminal,
) -> io::Result<()> {
    let period = Duration::from_secs_f64(interval);
    let mut last = Instant::now();
    loop {
        terminal.draw(|frame| state.draw(frame, interval))?;
        // A key ends the wait at once, while a signal may only be seen at its end.
        let wait = period
            .saturating_sub(last.elapsed())
            .min(Duration::from_millis(500));
        match event::poll(wait) {
            Ok(true) => match event::read()? {
                Event::Key(key) if quits(key) => return Ok(()),
                Event::Key(key) => scroll(state, key),
                _ => {} // The screen is drawn anew above, for example in another size.
            },
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if ENDED.load(Ordering::Relaxed) {
            return Ok(());
        }
        if last.elapsed() >= period {
            let seconds = last.elapsed().as_secs_f64();
            last = Instant::now();
            match look(control) {
                Ok(look) => state.look(look, seconds),
                Err(error) => state.trouble = Some(error.to_string()),
            }
        }
    }
}

fn quits(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('q') | KeyCode::Esc => true,
            KeyCode::Char('c' | 'd') => control,
            _ => false,
        }
}

fn scroll(state: &mut State, key: KeyEvent) {
    let last = state.rates.len().saturating_sub(1);
    state.scroll = match key.code {
        KeyCode::Up | KeyCode::Char('k') => state.scroll.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => (state.scroll + 1).min(last),
        KeyCode::PageUp => state.scroll.saturating_sub(10),
        KeyCode::PageDown => (state.scroll + 10).min(last),
        KeyCode::Home => 0,
        _ => state.scroll,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_quit() {
        let key = |code, modifiers| quits(KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!key(KeyCode::Up, KeyModifiers::NONE));
    }
}
