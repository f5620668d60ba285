//! The structure both of a package's headers and an rpmdb blob have: an index of typed entries and their data.
//!
//! ```text
//! il: u32  dl: u32          big-endian; entries in the index, bytes of data
//! il x { tag, type, offset, count: u32 }
//! dl bytes of data          integers big-endian and aligned, strings ended by NUL
//! ```
//!
//! Entry 0 describes the *region*: the entries and data that were signed when the package was built. In a
//! package file it covers everything; an rpmdb appends *dribbles* after it (rpm: `docs/manual/format_header.md`).
//!
//! This is not the rpm crate's parser because that one trusts the offsets it reads, searches rpmdb blobs'
//! region before their dribbles, and gives no access to the region's bytes, which an rpmdb keeps verbatim.

use std::fmt::Display;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use rpm::IndexTag as Tag;

/// Bytes of an index entry.
pub const ENTRY_SIZE: usize = 16;

/// Limits of librpm (`lib/header_internal.h`).
const MAX_ENTRIES: usize = 0xffff;
const MAX_DATA: usize = 0x0fff_ffff;

/// The type of an entry's data, by its number in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    Null = 0,
    Char = 1,
    Int8 = 2,
    Int16 = 3,
    Int32 = 4,
    Int64 = 5,
    String = 6,
    Bin = 7,
    StringArray = 8,
    I18nString = 9,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::*;
        [Null, Char, Int8, Int16, Int32, Int64, String, Bin, StringArray, I18nString]
            .get(number as usize)
            .copied()
    }

    /// Bytes of one item, which is also its alignment; none for strings.
    pub fn width(self) -> Option<usize> {
        match self {
            Kind::Null => Some(0),
            Kind::Char | Kind::Int8 | Kind::Bin => Some(1),
            Kind::Int16 => Some(2),
            Kind::Int32 => Some(4),
            Kind::Int64 => Some(8),
            Kind::String | Kind::StringArray | Kind::I18nString => None,
        }
    }
}

/// An index entry whose data is known to lie inside the header.
#[derive(Clone, Debug)]
pub struct Entry {
    pub tag: u32,
    pub kind: Kind,
    pub count: usize,
    /// Where its bytes are, counted from the start of the data.
    pub data: Range<usize>,
}

/// A parsed header structure.
pub struct Blob {
    /// Index and data, as they were read.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// How many of the entries the region has, its own among them; 0 without a region.
    region: usize,
}

/// Sizes announced before an index.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub entries: usize,
    pub data: usize,
}

impl Sizes {
    /// Reads `il` and `dl`.
    pub fn parse(bytes: &[u8; 8]) -> Result<Self> {
        let [entries, data] = [be32(bytes, 0), be32(bytes, 4)].map(|n| n as usize);
        ensure!(
            (1..=MAX_ENTRIES).contains(&entries) && data <= MAX_DATA,
            "a header of {entries} entries and {data} bytes, expected 1 to {MAX_ENTRIES} and at most {MAX_DATA}"
        );
        Ok(Self { entries, data })
    }

    /// Bytes of index and data together.
    pub fn total(self) -> usize {
        self.entries * ENTRY_SIZE + self.data
    }
}

impl Blob {
    /// Parses index and data.
    pub fn parse(sizes: Sizes, bytes: Vec<u8>) -> Result<Self> {
        ensure!(
            bytes.len() == sizes.total(),
            "the header has {} bytes, expected {}",
            bytes.len(),
            sizes.total()
        );
        let (index, data) = bytes.split_at(sizes.entries * ENTRY_SIZE);
        let mut used = 0;
        let mut entries = Vec::with_capacity(sizes.entries);
        for raw in index.chunks_exact(ENTRY_SIZE) {
            let entry = parse_entry(raw, data).with_context(|| format!("reading tag {}", be32(raw, 0)))?;
            // entries do not overlap, so that a small header can't unfold into a huge one
            used += entry.data.len();
            ensure!(used <= data.len(), "the header's entries overlap");
            entries.push(entry);
        }
        let region = check_region(&entries, data)?;
        Ok(Self { bytes, entries, region })
    }

    /// Whether there is a region.
    pub fn has_region(&self) -> bool {
        self.region > 0
    }

    /// Whether the region covers the whole header, as it does in a package file.
    pub fn is_all_region(&self) -> bool {
        self.region == self.entries.len() && self.entries[0].data.end == self.data().len()
    }

    /// The region, index and data; all of a header that has none.
    pub fn region(&self) -> (&[u8], &[u8]) {
        match self.region {
            0 => (self.index(), self.data()),
            entries => (&self.index()[..entries * ENTRY_SIZE], &self.data()[..self.entries[0].data.end]),
        }
    }

    /// The entries that are not of the region.
    pub fn dribbles(&self) -> &[Entry] {
        &self.entries[self.region..]
    }

    /// The index as stored.
    pub fn index(&self) -> &[u8] {
        &self.bytes[..self.entries.len() * ENTRY_SIZE]
    }

    /// The data as stored.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.entries.len() * ENTRY_SIZE..]
    }

    /// An entry's bytes.
    pub fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.data()[entry.data.clone()]
    }

    /// The entry of a tag. A dribble hides the region's entry of the same tag, as in librpm.
    pub fn find(&self, tag: impl Into<u32>) -> Option<&Entry> {
        let tag = tag.into();
        self.entries.iter().rev().find(|e| e.tag == tag)
    }

    /// Integers of any width; empty when the tag is absent.
    pub fn numbers(&self, tag: Tag) -> Result<Vec<u64>> {
        let Some(entry) = self.find(tag) else { return Ok(Vec::new()) };
        match entry.kind {
            Kind::Char | Kind::Int8 | Kind::Int16 | Kind::Int32 | Kind::Int64 => {}
            kind => bail!("{tag} holds {kind:?}, expected integers"),
        }
        let width = entry.data.len().checked_div(entry.count).unwrap_or(1).max(1);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        Ok(self.bytes_of(entry).chunks_exact(width).map(number).collect())
    }

    /// Integers of at most 32 bits; empty when the tag is absent.
    pub fn u32s(&self, tag: Tag) -> Result<Vec<u32>> {
        let narrow = |n| u32::try_from(n).with_context(|| format!("{tag} holds {n}"));
        self.numbers(tag)?.into_iter().map(narrow).collect()
    }

    /// The first integer of a tag.
    pub fn number(&self, tag: Tag) -> Result<Option<u64>> {
        Ok(self.numbers(tag)?.first().copied())
    }

    /// Strings as bytes; empty when the tag is absent. A single string is an array of one.
    pub fn strings(&self, tag: impl Into<u32> + Display + Copy) -> Result<Vec<&[u8]>> {
        let Some(entry) = self.find(tag) else { return Ok(Vec::new()) };
        ensure!(entry.kind.width().is_none(), "{tag} holds {:?}, expected strings", entry.kind);
        Ok(self.bytes_of(entry).split_inclusive(|b| *b == 0).map(|s| &s[..s.len() - 1]).collect())
    }

    /// Strings that must be UTF-8; empty when the tag is absent.
    pub fn texts(&self, tag: impl Into<u32> + Display + Copy) -> Result<Vec<&str>> {
        let text = |s| std::str::from_utf8(s).with_context(|| format!("{tag} is not UTF-8"));
        self.strings(tag)?.into_iter().map(text).collect()
    }

    /// The first string of a tag (of a translated one: the C locale's), which must be UTF-8.
    pub fn text(&self, tag: Tag) -> Result<Option<&str>> {
        Ok(self.texts(tag)?.first().copied())
    }

    /// The bytes of a binary tag.
    pub fn binary(&self, tag: Tag) -> Result<Option<&[u8]>> {
        let Some(entry) = self.find(tag) else { return Ok(None) };
        ensure!(entry.kind == Kind::Bin, "{tag} holds {:?}, expected bytes", entry.kind);
        Ok(Some(self.bytes_of(entry)))
    }
}

fn parse_entry(raw: &[u8], data: &[u8]) -> Result<Entry> {
    let [tag, kind, offset, count] = [0, 4, 8, 12].map(|at| be32(raw, at));
    let (offset, count) = (offset as usize, count as usize);
    let kind = Kind::from_number(kind).with_context(|| format!("the type is {kind}, expected 0 to 9"))?;
    let rest = data.get(offset..).with_context(|| format!("the offset {offset} is outside the header"))?;
    let length = match kind.width() {
        Some(width) => width.checked_mul(count).filter(|n| *n <= rest.len()),
        None if kind == Kind::String && count != 1 => None,
        None => strings_length(rest, count),
    };
    let length = length.with_context(|| format!("{count} items at offset {offset} do not fit the header"))?;
    Ok(Entry { tag, kind, count, data: offset..offset + length })
}

/// Bytes of `count` strings with their NULs; none if there are fewer.
fn strings_length(bytes: &[u8], count: usize) -> Option<usize> {
    match count {
        0 => Some(0),
        n => bytes.iter().enumerate().filter(|(_, b)| **b == 0).nth(n - 1).map(|(at, _)| at + 1),
    }
}

/// Checks the region that entry 0 describes, and counts its entries; 0 without a region. Its trailer, the last
/// thing in its data, looks like an entry whose offset is minus the size of the region's index.
fn check_region(entries: &[Entry], data: &[u8]) -> Result<usize> {
    let first = &entries[0];
    let regions = [Tag::RPMTAG_HEADERIMAGE, Tag::RPMTAG_HEADERSIGNATURES, Tag::RPMTAG_HEADERIMMUTABLE];
    if !regions.map(u32::from).contains(&first.tag) {
        return Ok(0);
    }
    ensure!(first.kind == Kind::Bin && first.count == ENTRY_SIZE, "the header's region has no trailer");
    let offset = be32(&data[first.data.clone()], 8).cast_signed();
    let size = offset.checked_neg().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    ensure!(
        size.is_multiple_of(ENTRY_SIZE) && (1..=entries.len()).contains(&(size / ENTRY_SIZE)),
        "the header's region begins at {offset}, expected a multiple of {ENTRY_SIZE} within the index"
    );
    Ok(size / ENTRY_SIZE)
}

/// A big-endian integer. The caller has checked that there are four bytes.
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
