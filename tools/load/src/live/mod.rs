//! What a run shows while it goes on: a screen where standard output is a terminal, lines on standard error elsewhere.
//!
//! All of it happens on a thread of its own that lets every other thread go first, so that a slow terminal or a reader
//! that has stopped delays nothing that is measured. The run only puts [`Update`]s into a channel, one a second.

mod lines;
mod progress;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::sys;
use lines::Lines;
use progress::Progress;
pub use progress::{Outline, Update};

/// How often the keyboard is asked.
const KEYS_EVERY: Duration = Duration::from_millis(100);
/// Runs that are not longer than this tell each second, others each fifth.
const SHORT: Duration = Duration::from_secs(60);
/// As a shell tells of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Where and how much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The whole terminal.
    Screen,
    /// A line each second, or each fifth of a long run, on standard error.
    Lines,
    Quiet,
}

impl Style {
    /// A screen if standard output is a terminal that can show one.
    pub fn fitting() -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if io::stdout().is_terminal() && !is_dumb { Self::Screen } else { Self::Lines }
    }
}

/// The thread that shows; the terminal is as it was when this is dropped, and when any thread panics.
#[derive(Debug)]
pub struct Live {
    updates: Option<Sender<Update>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Begins to show.
    ///
    /// - takes: `stop`, set when somebody at the terminal wants the run to end in order (`q`, Ctrl-C)
    /// - errors: the terminal refuses; no thread
    pub fn start(outline: Outline, style: Style, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let (updates, received) = channel();
        let progress = Progress::new(outline);
        let shows: Box<dyn FnOnce() + Send> = match style {
            Style::Quiet => return Ok(Self { updates: None, thread: None }),
            Style::Lines => Box::new(move || lines(progress, &received)),
            Style::Screen => {
                let terminal = ratatui::try_init()?;
                Box::new(move || {
                    // A terminal that is gone takes the screen with it; the run is not the worse for it.
                    let _ = screen(terminal, progress, &received, &stop);
                    ratatui::restore();
                })
            }
        };
        let thread = std::thread::Builder::new().name("live view".to_owned()).spawn(|| {
            sys::yield_to_others();
            shows();
        });
        match thread {
            Ok(thread) => Ok(Self { updates: Some(updates), thread: Some(thread) }),
            Err(error) => {
                if style == Style::Screen {
                    ratatui::restore();
                }
                Err(error)
            }
        }
    }

    /// Shows what is new. Never waits.
    pub fn update(&self, update: Update) {
        if let Some(updates) = &self.updates {
            // The thread has ended with its terminal.
            let _ = updates.send(update);
        }
    }

    /// Whether an update would be shown at all.
    pub fn is_shown(&self) -> bool {
        self.updates.is_some()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.updates = None;
        if let Some(thread) = self.thread.take() {
            // It panicked: the hook has told.
            let _ = thread.join();
        }
    }
}

fn lines(mut progress: Progress, updates: &Receiver<Update>) {
    let every = if progress.outline.length() <= SHORT { 1 } else { 5 };
    let mut lines = Lines::new(every);
    // Nobody reads: nothing to be done about it.
    let write = |line: &str| {
        let _ = writeln!(io::stderr(), "{line}");
    };
    while let Ok(update) = updates.recv() {
        for line in lines.take(&progress, &update) {
            write(&line);
        }
        progress.take(update);
        if lines.is_due() {
            write(&lines.line(&progress));
        }
    }
    if !lines.is_empty() {
        write(&lines.line(&progress));
    }
}

fn screen(
    mut terminal: ratatui::DefaultTerminal,
    mut progress: Progress,
    updates: &Receiver<Update>,
    stop: &AtomicBool,
) -> io::Result<()> {
    terminal.draw(|frame| screen::draw(frame, &progress))?;
    loop {
        let mut is_new = false;
        // Updates wait while the keyboard is asked, at most a tenth of a second.
        match updates.recv_timeout(Duration::ZERO) {
            Ok(update) => {
                progress.take(update);
                is_new = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                if event::poll(KEYS_EVERY)? {
                    is_new |= key(&event::read()?, &mut progress, stop);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if is_new {
            terminal.draw(|frame| screen::draw(frame, &progress))?;
        }
    }
}

/// - gives: whether the screen has to be drawn again
fn key(event: &Event, progress: &mut Progress, stop: &AtomicBool) -> bool {
    match event {
        Event::Key(key) if wants_end(key) => {
            if stop.swap(true, Ordering::Relaxed) {
                // Asked twice: at once.
                ratatui::restore();
                std::process::exit(INTERRUPTED);
            }
            progress.take(Update::Note("ending in order; once more: at once".to_owned()));
            true
        }
        Event::Resize(..) => true,
        _ => false,
    }
}

fn wants_end(key: &KeyEvent) -> bool {
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_interrupt || key.code == KeyCode::Char('q'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::progress::tests::{outline, second};
    use super::*;

    #[test]
    fn q_and_an_interrupt_ask_for_the_end_and_other_keys_do_not() {
        let (mut progress, stop) = (Progress::new(outline()), AtomicBool::new(false));
        let press = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        for other in [
            press(KeyCode::Char('c'), KeyModifiers::NONE),
            press(KeyCode::Esc, KeyModifiers::NONE),
            Event::FocusGained,
        ] {
            assert!(!key(&other, &mut progress, &stop));
            assert!(!stop.load(Ordering::Relaxed));
        }
        for end in [
            press(KeyCode::Char('c'), KeyModifiers::CONTROL),
            press(KeyCode::Char('q'), KeyModifiers::NONE),
        ] {
            stop.store(false, Ordering::Relaxed);
            assert!(key(&end, &mut progress, &stop));
            assert!(stop.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn the_thread_ends_with_the_run_and_quiet_shows_nothing() {
        let stop = Arc::new(AtomicBool::new(false));
        let live = Live::start(outline(), Style::Lines, Arc::clone(&stop)).unwrap();
        assert!(live.is_shown());
        live.update(second(0, 0, 10, 300));
        drop(live);
        let quiet = Live::start(outline(), Style::Quiet, stop).unwrap();
        assert!(!quiet.is_shown());
        quiet.update(second(0, 0, 10, 300));
    }
}
