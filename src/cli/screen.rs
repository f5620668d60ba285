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
        (false, true) => Box::new(Bars { bar: Mutex::new(ProgressBar::hidden()) }),
        (false, false) => Box::new(Lines { step: Mutex::new(None) }),
    }
}

struct Bars {
    bar: Mutex<ProgressBar>,
}

impl Bars {
    fn bar(&self) -> ProgressBar {
        // a poisoned lock only means that another thread panicked while swapping bars
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
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar().finish_and_clear();
        *self.bar.lock().unwrap_or_else(|e| e.into_inner()) = bar;
    }

    fn advance(&self, n: u64) {
        self.bar().inc(n);
    }

    fn finish(&self, summary: &str) {
        let bar = self.bar();
        bar.finish_and_clear();
        bar.suspend(|| eprint_line(&format!("{summary} ({:.1}s)", bar.elapsed().as_secs_f32())));
    }

    fn warn(&self, message: &str) {
        self.bar().suspend(|| eprint_line(&format!("warning: {message}")));
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
        let took = started.map(|s| format!(" ({:.1}s)", s.elapsed().as_secs_f32())).unwrap_or_default();
        eprint_line(&format!("{summary}{took}"));
    }

    fn warn(&self, message: &str) {
        eprint_line(&format!("warning: {message}"));
    }
}

/// Standard error may be closed; progress is not worth failing for.
fn eprint_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
