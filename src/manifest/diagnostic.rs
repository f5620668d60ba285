//! Mistakes: what is wrong, the text that is wrong, what to do about it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
    ThemeCharacters, ThemeStyles,
};

use crate::plan::Origin;

/// A range of bytes in a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A span and the file it is in, for mistakes that show only after the file is closed.
#[derive(Clone, Debug)]
pub struct Place {
    pub source: Arc<Source>,
    pub span: Span,
}

/// The text of one manifest.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: NamedSource<String>,
}

impl Source {
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text: NamedSource::new(path.display().to_string(), text) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that paths in this file are relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub fn text(&self) -> &str {
        self.text.inner()
    }

    pub fn origin(&self, at: usize) -> Origin {
        let before = &self.text().as_bytes()[..at.min(self.text().len())];
        Origin { file: self.path.clone(), line: 1 + before.iter().filter(|&&b| b == b'\n').count() }
    }
}

/// One mistake, shown by miette.
#[derive(Debug)]
pub struct Mistake {
    message: String,
    help: Option<String>,
    place: Option<Place>,
}

impl Mistake {
    /// A mistake that is in no file, such as a missing one.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None }
    }

    /// Says which text is wrong.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// Draws the mistake; without colour in plain ASCII.
    pub fn render(&self, color: bool) -> String {
        let (mut characters, styles) = match color {
            true => (ThemeCharacters::unicode(), ThemeStyles::ansi()),
            false => (ThemeCharacters::ascii(), ThemeStyles::none()),
        };
        characters.error = "error:".to_owned();
        let mut text = String::new();
        // writing to a string does not fail, and spans are within their source
        let _ = GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles })
            .with_wrap_lines(false)
            .without_syntax_highlighting()
            .render_report(&mut text, self);
        // miette pads the gutter of empty lines
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    fn order(&self) -> (Option<(&Path, Span)>, &str) {
        let place = self.place.as_ref().map(|place| (place.source.path(), place.span));
        (place, &self.message)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| &place.source.text as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Span { start, end } = self.place.as_ref()?.span;
        Some(Box::new(std::iter::once(LabeledSpan::underline(start..end))))
    }
}

/// Where mistakes are gathered, so that one run tells them all.
#[derive(Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    pub fn push(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    /// The mistakes by file and position. A file included by two layers is read twice: each mistake is told once.
    pub fn into_sorted(self) -> Vec<Mistake> {
        let mut mistakes = self.0.into_inner();
        mistakes.sort_by(|a, b| a.order().cmp(&b.order()));
        mistakes.dedup_by(|a, b| a.order() == b.order());
        mistakes
    }
}

/// Advice that names the candidate most like `word`, or else lists them all.
pub fn suggest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    let candidates: Vec<_> = candidates.into_iter().collect();
    if let Some(similar) = similar(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{similar}`?"));
    }
    let list: Vec<_> = candidates.iter().map(|c| format!("`{c}`")).collect();
    (!list.is_empty()).then(|| format!("expected one of {}", list.join(", ")))
}

/// The candidate that `word` may be a slip of.
pub fn similar<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distance = |c: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &c.to_lowercase());
    let (distance, nearest) = candidates.into_iter().map(|c| (distance(c), c)).min()?;
    // a third of the letters may be wrong, so that `os` is not taken for `id`
    (distance * 3 <= word.chars().count().max(3)).then_some(nearest)
}
