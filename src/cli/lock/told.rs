//! What locking tells on the way.

use std::sync::{Mutex, PoisonError};

use crate::progress::{Progress, Unit};

/// Passes everything on to the screen, and keeps the warnings for the document.
pub struct Told {
    screen: Box<dyn Progress>,
    warnings: Mutex<Vec<String>>,
}

impl Told {
    /// Nothing has been told yet.
    pub fn to(screen: Box<dyn Progress>) -> Self {
        Self { screen, warnings: Mutex::default() }
    }

    /// The warnings so far, in their order.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Progress for Told {
    fn start(&self, what: &str, total: u64, unit: Unit) {
        self.screen.start(what, total, unit);
    }

    fn advance(&self, n: u64) {
        self.screen.advance(n);
    }

    fn finish(&self, summary: &str) {
        self.screen.finish(summary);
    }

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_owned());
        self.screen.warn(message);
    }
}
