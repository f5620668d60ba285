//! What long work tells whoever is watching. The library calls; [`crate::cli`] draws.

/// A receiver of progress. Steps do not nest: `start` ends the step before it.
pub trait Progress: Send + Sync {
    /// A step begins. `total` is in `unit`; 0 when it is not known.
    fn start(&self, what: &str, total: u64, unit: Unit);
    /// `n` more units are done. May be called from any thread.
    fn advance(&self, n: u64);
    /// The step is over; `summary` is a line worth keeping, such as `412 packages installed`.
    fn finish(&self, summary: &str);
    /// A warning about the input or a package, worth a line of its own.
    fn warn(&self, message: &str);
}

/// What a step counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packages, files, blobs.
    Items,
}

/// Tells of work for one of several things: every line begins with its name.
pub struct Prefixed<'a> {
    /// The name.
    pub name: &'a str,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

impl Progress for Prefixed<'_> {
    fn start(&self, what: &str, total: u64, unit: Unit) {
        self.progress.start(&format!("{}: {what}", self.name), total, unit);
    }

    fn advance(&self, n: u64) {
        self.progress.advance(n);
    }

    fn finish(&self, summary: &str) {
        self.progress.finish(&format!("{}: {summary}", self.name));
    }

    fn warn(&self, message: &str) {
        self.progress.warn(&format!("{}: {message}", self.name));
    }
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64, _: Unit) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
