//! Mistakes: what is wrong, the text that is wrong, what to do about it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::similar;
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

/// Of a long line, the characters shown in front of the offending text, of it, and after it.
const MAX_SHOWN: usize = 100;

impl Place {
    /// Draws the line, or the first of several, with the offending text underlined.
    fn render(&self, color: bool) -> String {
        let (blue, red, off) = if color { ("\x1b[34m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
        let (text, Span { start, end }) = (self.source.text(), self.span);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let column = 1 + text[line_start..start].chars().count();
        let end = end.min(line_end);
        let before: String = tail(&shown(&text[line_start..start])).collect();
        let [marked, after] = [start..end, end..line_end]
            .map(|part| shown(&text[part]).chars().take(MAX_SHOWN).collect::<String>());
        let origin = self.source.origin(start);
        let (line, margin) = (origin.line, " ".repeat(origin.line.to_string().len()));
        let indent = " ".repeat(before.chars().count());
        let underline = "^".repeat(marked.chars().count().max(1));
        format!(
            "{margin}{blue}-->{off} {origin}:{column}\n\
             {margin} {blue}|{off}\n\
             {blue}{line} |{off} {}\n\
             {margin} {blue}|{off} {indent}{red}{underline}{off}\n",
            format!("{before}{marked}{after}").trim_end()
        )
    }
}

fn tail(text: &str) -> impl Iterator<Item = char> {
    text.chars().skip(text.chars().count().saturating_sub(MAX_SHOWN))
}

/// A line as a terminal can show it, a column per character.
fn shown(line: &str) -> String {
    line.replace('\t', "    ").replace(|c: char| c.is_control(), " ")
}

/// The text of one manifest.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that paths in this file are relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn origin(&self, at: usize) -> Origin {
        Origin { file: self.path.clone(), line: 1 + self.text[..at].matches('\n').count() }
    }
}

/// What is wrong with something, and what to do about it.
#[derive(Debug, PartialEq)]
pub struct Objection {
    pub message: String,
    hint: Option<String>,
}

impl Objection {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: printable(&message.into()), hint: None }
    }

    /// Says what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(printable(&hint.into())), ..self }
    }

    /// Names the candidate that `word` is a slip of, or else lists them all.
    pub fn suggest<'c>(self, word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Self {
        let candidates: Vec<_> = candidates.into_iter().collect();
        let list: Vec<_> = candidates.iter().map(|c| format!("`{c}`")).collect();
        match similar(word, candidates) {
            Some(similar) => self.hint(format!("did you mean `{similar}`?")),
            None if list.is_empty() => self,
            None => self.hint(format!("expected one of {}", list.join(", "))),
        }
    }
}

impl<T: Into<String>> From<T> for Objection {
    fn from(message: T) -> Self {
        Objection::new(message)
    }
}

/// An objection to a part of a text.
#[derive(Debug)]
pub struct Fault {
    /// In bytes of the text.
    pub part: Range<usize>,
    pub objection: Objection,
}

/// One mistake.
#[derive(Debug)]
pub struct Mistake {
    objection: Objection,
    place: Option<Place>,
}

impl Mistake {
    /// A mistake that is in no file, such as a missing one, if there is no place.
    pub fn new(objection: impl Into<Objection>, place: impl Into<Option<Place>>) -> Self {
        Self { objection: objection.into(), place: place.into() }
    }

    /// Draws the mistake as [`crate::cli`] draws errors, and the line it is in.
    pub fn render(&self, color: bool) -> String {
        let (red, bold, off) = if color { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error:{off} {bold}{}{off}\n", self.objection.message);
        if let Some(place) = &self.place {
            text += &place.render(color);
        }
        if let Some(hint) = &self.objection.hint {
            text += &format!("  hint: {hint}\n");
        }
        text
    }

    fn order(&self) -> (Option<(&Path, Span)>, &str) {
        let place = self.place.as_ref().map(|place| (place.source.path(), place.span));
        (place, &self.objection.message)
    }
}

/// Texts of a manifest are quoted in messages, and may hold line breaks or terminal control.
fn printable(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.objection.message)
    }
}

impl std::error::Error for Mistake {}

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
