//! Dribbles: what is appended to a header after its region.

use rpm::IndexTag as Tag;

use super::blob::{Blob, ENTRY_SIZE, Entry, Kind};

/// An entry after the region. It hides the region's entry of the same tag.
pub struct Dribble {
    tag: u32,
    kind: Kind,
    count: usize,
    bytes: Vec<u8>,
}

impl Dribble {
    pub fn numbers(tag: Tag, values: &[u32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        Self { tag: tag.into(), kind: Kind::Int32, count: values.len(), bytes }
    }

    pub fn string(tag: Tag, value: &str) -> Self {
        let bytes = [value.as_bytes(), b"\0"].concat();
        Self { tag: tag.into(), kind: Kind::String, count: 1, bytes }
    }

    pub fn strings(tag: Tag, values: &[&[u8]]) -> Self {
        let bytes = values.iter().flat_map(|value| [value, &b"\0"[..]].concat()).collect();
        Self { tag: tag.into(), kind: Kind::StringArray, count: values.len(), bytes }
    }

    pub fn chars(tag: Tag, values: &[u8]) -> Self {
        Self { tag: tag.into(), kind: Kind::Char, count: values.len(), bytes: values.to_vec() }
    }

    /// A copy of a blob's entry.
    pub fn copy(blob: &Blob, entry: &Entry) -> Self {
        let bytes = blob.bytes_of(entry).to_vec();
        Self { tag: entry.tag, kind: entry.kind, count: entry.count, bytes }
    }

    /// The same under another tag.
    pub fn renamed(self, tag: impl Into<u32>) -> Self {
        Self { tag: tag.into(), ..self }
    }
}

/// A header as an rpmdb stores it: the region of `blob` verbatim, then its dribbles and `more`, sorted by tag, each
/// aligned for its type.
pub fn append(blob: &Blob, more: Vec<Dribble>) -> Vec<u8> {
    let mut dribbles: Vec<_> = blob.dribbles().iter().map(|entry| Dribble::copy(blob, entry)).collect();
    dribbles.extend(more);
    dribbles.sort_by_key(|dribble| dribble.tag);
    let (index, data) = blob.region();
    let (mut index, mut data) = (index.to_vec(), data.to_vec());
    for dribble in dribbles {
        let alignment = dribble.kind.width().unwrap_or(1).max(1);
        data.resize(data.len().next_multiple_of(alignment), 0);
        let words = [dribble.tag, dribble.kind as u32, size(data.len()), size(dribble.count)];
        index.extend(words.into_iter().flat_map(u32::to_be_bytes));
        data.extend_from_slice(&dribble.bytes);
    }
    let sizes = [size(index.len() / ENTRY_SIZE), size(data.len())];
    [sizes.map(u32::to_be_bytes).concat(), index, data].concat()
}

/// Headers are of at most 256 MiB, and what is appended to one is of its own size or small.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the limits of headers")]
fn size(n: usize) -> u32 {
    n as u32
}
