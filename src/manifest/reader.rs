//! TOML as written: tables whose keys are known, values with their place, wrong types reported.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Fault, Mistake, Mistakes, Objection, Place, Source, Span};
use super::variables::Variables;
use crate::error::similar;
use crate::plan::{Origin, Sourced};

/// Reads the text of a manifest.
pub fn open(path: &Path) -> std::io::Result<Arc<Source>> {
    Ok(Arc::new(Source::new(path, std::fs::read_to_string(path)?)))
}

/// Parses a manifest; all its syntax errors are reported.
pub fn parse<'a>(source: &'a Arc<Source>, mistakes: &Mistakes) -> Option<DeTable<'a>> {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    for error in &errors {
        // a span that is none of this text would panic when the mistake is drawn
        let span = error.span().filter(|span| source.text().get(span.clone()).is_some()).unwrap_or(0..0);
        let place = Place { source: Arc::clone(source), span: span.clone().into() };
        mistakes.push(Mistake::new(syntax_error(error.message(), &source.text()[span]), place));
    }
    errors.is_empty().then(|| document.into_inner())
}

/// TOML's complaint about a bare word speaks of numbers; what is missing are quotes.
fn syntax_error(message: &str, offending: &str) -> Objection {
    let is_word = offending.starts_with(|c: char| c.is_alphabetic())
        && offending.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    match is_word {
        true => Objection::new(message).hint(format!("a text is put in quotes: \"{offending}\"")),
        false => Objection::new(message),
    }
}

/// What every value of a file needs to speak for itself.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub source: &'a Arc<Source>,
    pub variables: &'a Variables,
    pub mistakes: &'a Mistakes,
    /// Keys of the file's root table, which TOML lets stand only above the first table.
    pub root_keys: &'static [&'static str],
}

impl<'a> Reader<'a> {
    fn report(&self, span: Span, objection: impl Into<Objection>) {
        let place = Place { source: Arc::clone(self.source), span };
        self.mistakes.push(Mistake::new(objection, place));
    }

    /// A text of a file that is not TOML.
    pub fn text(self, value: &str, span: Span) -> Text<'a> {
        Text { reader: self, value: value.to_owned(), span }
    }

    /// The whole document as a table.
    pub fn document(self, document: &'a DeTable<'a>) -> Table<'a> {
        Table::new(self, "", document, (0..0).into(), self.root_keys)
    }
}

/// A table, its unknown keys already reported.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    pub reader: Reader<'a>,
    name: &'a str,
    table: &'a DeTable<'a>,
    span: Span,
    keys: &'static [&'static str],
}

impl<'a> Table<'a> {
    fn new(
        reader: Reader<'a>,
        name: &'a str,
        table: &'a DeTable<'a>,
        span: Span,
        keys: &'static [&'static str],
    ) -> Self {
        let this = Self { reader, name, table, span, keys };
        for item in this.items().into_iter().filter(|item| !keys.contains(&item.key)) {
            item.report_key(this.unknown(item.key));
        }
        this
    }

    fn whose(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" of `{}`", self.name) }
    }

    fn unknown(&self, key: &str) -> Objection {
        let unknown = Objection::new(format!("unknown key `{key}`{}", self.whose()));
        match key {
            "from" if self.keys.contains(&"include") => {
                unknown.hint("it may stand only in the layer's own file")
            }
            _ if !self.name.is_empty() && self.reader.root_keys.contains(&key) => {
                unknown.hint("it belongs to the file: write it above the first [table]")
            }
            _ => unknown.suggest(key, self.keys.iter().copied()),
        }
    }

    pub fn origin(&self) -> Origin {
        self.reader.source.origin(self.span.start)
    }

    /// Reports something about the table as a whole.
    pub fn report(&self, objection: impl Into<Objection>) {
        self.reader.report(self.span, objection);
    }

    pub fn sourced<T>(&self, value: T) -> Sourced<T> {
        Sourced { value, origin: self.origin() }
    }

    /// All entries in the order they are written.
    fn items(&self) -> Vec<Item<'a>> {
        items(self.reader, self.table)
    }

    pub fn get(&self, key: &'static str) -> Option<Item<'a>> {
        debug_assert!(self.keys.contains(&key), "`{key}` is read but not allowed");
        self.items().into_iter().find(|item| item.key == key)
    }

    /// Like [`Table::get`], but reports a missing key.
    pub fn require(&self, key: &'static str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            let what = if self.name.is_empty() { "the file".to_owned() } else { format!("`{}`", self.name) };
            self.report(format!("{what} lacks the key `{key}`"));
        }
        item
    }

    /// A string, with variables expanded.
    pub fn text(&self, key: &'static str) -> Option<Text<'a>> {
        self.get(key)?.text()
    }

    /// The strings of a list, with variables expanded; none without the key.
    pub fn texts(&self, key: &'static str) -> Vec<Text<'a>> {
        self.get(key).map(|item| item.texts()).unwrap_or_default()
    }

    /// The strings of a list, or the one that stands in its place.
    pub fn one_or_more(&self, key: &'static str) -> Vec<Text<'a>> {
        self.get(key).map(|item| item.one_or_more()).unwrap_or_default()
    }

    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.boolean()
    }

    pub fn integer<T: TryFrom<i64>>(&self, key: &'static str) -> Option<T> {
        self.get(key)?.integer()
    }

    /// `[key]`
    pub fn table(&self, key: &'static str, keys: &'static [&'static str]) -> Option<Table<'a>> {
        self.get(key)?.table(keys)
    }

    /// `[[key]]`, each table
    pub fn tables(&self, key: &'static str, keys: &'static [&'static str]) -> Vec<Table<'a>> {
        self.get(key).map(|item| item.tables(keys)).unwrap_or_default()
    }
}

/// The entries of a table in the order they are written.
fn items<'a>(reader: Reader<'a>, table: &'a DeTable<'a>) -> Vec<Item<'a>> {
    let mut items: Vec<Item<'a>> = Vec::new();
    for (key, value) in table {
        items.push(Item { reader, key: key.get_ref().as_ref(), key_span: key.span().into(), value });
    }
    items.sort_by_key(|item| item.key_span);
    items
}

/// A key and its value.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub reader: Reader<'a>,
    pub key: &'a str,
    key_span: Span,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    pub fn origin(&self) -> Origin {
        self.reader.source.origin(self.key_span.start)
    }

    pub fn report(&self, objection: impl Into<Objection>) {
        self.reader.report(self.value.span().into(), objection);
    }

    pub fn report_key(&self, objection: impl Into<Objection>) {
        self.reader.report(self.key_span, objection);
    }

    /// The key as a text, for tables whose keys are the user's.
    pub fn key_text(&self) -> Text<'a> {
        Text { reader: self.reader, span: self.key_span, value: self.key.to_owned() }
    }

    /// The mistake that the value is not of the type `expected`.
    fn mismatch(&self, expected: &str) -> Objection {
        let found = describe(self.value.get_ref());
        Objection::new(format!("`{}` is {found}, expected {expected}", self.key))
    }

    /// The value as the user wrote it.
    fn written(&self) -> &'a str {
        &self.reader.source.text()[self.value.span()]
    }

    fn as_text(&self, value: impl Into<String>) -> Text<'a> {
        Text { reader: self.reader, span: self.value.span().into(), value: value.into() }
    }

    /// A string exactly as written, perhaps empty.
    pub fn verbatim(&self) -> Option<Text<'a>> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(self.as_text(&**text)),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                self.report(
                    self.mismatch("a string").hint(format!("put it in quotes: \"{}\"", self.written())),
                );
                None
            }
            DeValue::Array(_) | DeValue::Table(_) => {
                self.report(self.mismatch("a string"));
                None
            }
        }
    }

    /// A string with variables expanded, perhaps empty.
    pub fn text_or_empty(&self) -> Option<Text<'a>> {
        self.verbatim()?.expand()
    }

    /// A string with variables expanded.
    pub fn text(&self) -> Option<Text<'a>> {
        let text = self.text_or_empty()?;
        if text.value.trim().is_empty() {
            self.report(format!("`{}` is empty", self.key));
            return None;
        }
        Some(text)
    }

    pub fn texts(&self) -> Vec<Text<'a>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            let mismatch = self.mismatch("a list of strings");
            self.report(match self.value.get_ref() {
                DeValue::String(_) => mismatch.hint(format!("put it in brackets: [{}]", self.written())),
                _ => mismatch,
            });
            return Vec::new();
        };
        array.iter().filter_map(|value| Item { value, ..*self }.text()).collect()
    }

    /// The strings of a list that has some.
    pub fn some_texts(&self) -> Vec<Text<'a>> {
        if self.value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            self.report(format!("`{}` is empty", self.key));
        }
        self.texts()
    }

    /// The strings of a list, or the one that stands in its place.
    pub fn one_or_more(&self) -> Vec<Text<'a>> {
        match self.value.get_ref() {
            DeValue::String(_) => self.text().into_iter().collect(),
            DeValue::Array(_) => self.texts(),
            _ => {
                self.report(self.mismatch("a string or a list of strings"));
                Vec::new()
            }
        }
    }

    pub fn is_boolean(&self) -> bool {
        self.value.get_ref().is_bool()
    }

    pub fn boolean(&self) -> Option<bool> {
        let boolean = self.value.get_ref().as_bool();
        if boolean.is_none() {
            self.report(self.mismatch("true or false"));
        }
        boolean
    }

    pub fn integer<T: TryFrom<i64>>(&self) -> Option<T> {
        let Some(integer) = self.value.get_ref().as_integer() else {
            self.report(self.mismatch("an integer"));
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|n| T::try_from(n).ok());
        if number.is_none() {
            self.report(format!("`{}` is out of range", self.key));
        }
        number
    }

    /// A string, or a date as TOML writes it, without quotes.
    pub fn date(&self) -> Option<Text<'a>> {
        match self.value.get_ref() {
            DeValue::Datetime(date) => Some(self.as_text(date.to_string())),
            _ => self.text(),
        }
    }

    /// A string, number or boolean, as text.
    pub fn scalar(&self) -> Option<Text<'a>> {
        match self.value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                Some(self.as_text(self.written()))
            }
            DeValue::String(_) => self.verbatim(),
            _ => {
                self.report(self.mismatch("a string, a number, true or false"));
                None
            }
        }
    }

    pub fn table(&self, keys: &'static [&'static str]) -> Option<Table<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => {
                Some(Table::new(self.reader, self.key, table, self.value.span().into(), keys))
            }
            DeValue::Array(_) => {
                self.report(
                    self.mismatch("a table").hint(format!("write `[{}]` with single brackets", self.key)),
                );
                None
            }
            _ => {
                self.report(
                    self.mismatch("a table").hint(format!("write `[{}]` on a line of its own", self.key)),
                );
                None
            }
        }
    }

    /// A table whose keys are the user's.
    pub fn entries(&self) -> Vec<Item<'a>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            self.report(self.mismatch("a table"));
            return Vec::new();
        };
        items(self.reader, table)
    }

    pub fn tables(&self, keys: &'static [&'static str]) -> Vec<Table<'a>> {
        match self.value.get_ref() {
            DeValue::Array(array) => {
                array.iter().filter_map(|value| Item { value, ..*self }.table(keys)).collect()
            }
            _ => {
                let hint = format!("write `[[{}]]` with double brackets", self.key);
                self.report(self.mismatch("a list of tables").hint(hint));
                Vec::new()
            }
        }
    }
}

fn describe(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A string of a manifest and its place.
#[derive(Clone)]
pub struct Text<'a> {
    pub reader: Reader<'a>,
    pub value: String,
    pub span: Span,
}

impl<'a> Text<'a> {
    pub fn origin(&self) -> Origin {
        self.reader.source.origin(self.span.start)
    }

    pub fn sourced(&self) -> Sourced<String> {
        Sourced { value: self.value.clone(), origin: self.origin() }
    }

    pub fn report(&self, objection: impl Into<Objection>) {
        self.reader.report(self.span, objection);
    }

    /// Reports a part of the text, or all of it if escapes hide where the part is.
    pub fn report_part(&self, Fault { part, objection }: Fault) {
        let written = &self.reader.source.text()[self.span.start..self.span.end];
        let span = match written.find(&self.value).map(|at| self.span.start + at) {
            Some(start) => Span { start: start + part.start, end: start + part.end },
            None => self.span,
        };
        self.reader.report(span, objection);
    }

    /// Parses the text, reporting what `parse` objects to.
    pub fn check<T>(&self, parse: impl FnOnce(&str) -> Result<T, Objection>) -> Option<T> {
        parse(&self.value).map_err(|objection| self.report(objection)).ok()
    }

    pub fn place(&self) -> Place {
        Place { source: Arc::clone(self.reader.source), span: self.span }
    }

    /// The text, if `check` finds nothing wrong.
    pub fn checked(self, check: impl FnOnce(&str) -> Result<(), Objection>) -> Option<Self> {
        self.check(check).map(|()| self)
    }

    /// Replaces variables.
    pub fn expand(self) -> Option<Self> {
        match self.reader.variables.expand(&self.value) {
            Ok(value) => Some(Self { value, ..self }),
            Err(unknown) => {
                self.report_part(unknown);
                None
            }
        }
    }

    /// The text as a path, relative to the folder of its file.
    pub fn path(&self) -> PathBuf {
        self.beside(Path::new(&self.value))
    }

    /// A path, relative to the folder of the text's file.
    pub fn beside(&self, path: &Path) -> PathBuf {
        clean(&self.reader.source.folder().join(path))
    }

    /// The path of a file that must exist.
    pub fn existing_file(&self) -> Option<PathBuf> {
        self.existing("file", Path::is_file)
    }

    /// The path of a folder that must exist.
    pub fn existing_folder(&self) -> Option<PathBuf> {
        self.existing("directory", Path::is_dir)
    }

    fn existing(&self, what: &str, exists: fn(&Path) -> bool) -> Option<PathBuf> {
        let path = self.path();
        if !exists(&path) {
            self.report(missing_file(format!("there is no {what} {}", path.display()), &path));
            return None;
        }
        Some(path)
    }
}

/// Removes `.` and `NAME/..` from a path without asking the file system.
pub fn clean(path: &Path) -> PathBuf {
    use std::path::Component::{CurDir, Normal, ParentDir};
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            CurDir => {}
            ParentDir if matches!(clean.components().next_back(), Some(Normal(_))) => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// An objection that names a neighbour of a missing file.
pub fn missing_file(message: String, missing: &Path) -> Objection {
    let names = missing.parent().map(neighbours).unwrap_or_default();
    let name = missing.file_name().unwrap_or_default().to_string_lossy();
    let objection = Objection::new(message);
    match similar(&name, names.iter().map(String::as_str)) {
        Some(near) => objection.hint(format!("did you mean `{near}`?")),
        None => objection,
    }
}

/// The names in a folder, sorted; none if it cannot be read.
pub fn neighbours(folder: &Path) -> Vec<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}
