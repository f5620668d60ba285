//! Progress on standard error: a bar on a terminal, a line per finished step elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::progress::{Progress, Silent, Unit};

/// The progress that suits this process's standard error.
pub fn progress(quiet: bool) -> Box<dyn Progress> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(Silent),
        (false, true) => Box::new(Bars { bar: Mutex::new(None) }),
        (false, false) => Box::new(Lines { step: Mutex::new(None) }),
    }
}

struct Bars {
    /// That of the step under way.
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Puts another bar in the place of the one shown, and takes that off the screen.
    fn swap(&self, bar: Option<ProgressBar>) -> Option<ProgressBar> {
        // a poisoned lock only means that another thread panicked while swapping bars
        let old = std::mem::replace(&mut *self.bar.lock().unwrap_or_else(|e| e.into_inner()), bar);
        old.inspect(ProgressBar::finish_and_clear)
    }

    fn bar(&self) -> Option<ProgressBar> {
        self.bar.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl Progress for Bars {
    fn start(&self, what: &str, total: u64, unit: Unit) {
        let (bar, template) = match (total, unit) {
            (0, _) => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
            (_, Unit::Bytes) => (ProgressBar::new(total), "{msg:32} {bar:30} {bytes}/{total_bytes} {eta}"),
            (_, Unit::Items) => (ProgressBar::new(total), "{msg:32} {bar:30} {pos}/{len} {eta}"),
        };
        // the templates above are constants
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        self.swap(Some(bar.clone()));
        bar.enable_steady_tick(Duration::from_millis(100));
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = self.bar() {
            bar.inc(n);
        }
    }

    fn finish(&self, summary: &str) {
        eprint_line(&(summary.to_owned() + &took(self.swap(None).map(|bar| bar.elapsed()))));
    }

    fn warn(&self, message: &str) {
        let line = || eprint_line(&format!("warning: {message}"));
        match self.bar() {
            Some(bar) => bar.suspend(line),
            None => line(),
        }
    }
}

struct Lines {
    step: Mutex<Option<Instant>>,
}

impl Progress for Lines {
    fn start(&self, _what: &str, _total: u64, _unit: Unit) {
        *self.step.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
    }

    fn advance(&self, _: u64) {}

    fn finish(&self, summary: &str) {
        let started = self.step.lock().unwrap_or_else(|e| e.into_inner()).take();
        eprint_line(&(summary.to_owned() + &took(started.map(|started| started.elapsed()))));
    }

    fn warn(&self, message: &str) {
        eprint_line(&format!("warning: {message}"));
    }
}

/// How long a step took, if one was under way.
fn took(time: Option<Duration>) -> String {
    time.map(|time| format!(" ({:.1}s)", time.as_secs_f32())).unwrap_or_default()
}

/// Standard error may be closed; progress is not worth failing for.
pub fn eprint_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
