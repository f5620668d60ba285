//! From a package's header to the rpmdb's: what an installation appends to it.

use anyhow::{Context, Result, ensure};
use rpm::IndexTag as Tag;

use super::blob::{Blob, ENTRY_SIZE, Kind};
use super::{Header, InstallTags};

/// Signature tags an rpmdb keeps, and the tag it keeps them under (rpm: `lib/package.c`, `xlateTags`). What
/// is not here, the space reserved for signing and the region, is dropped.
const KEPT_SIGNATURES: [(u32, u32); 17] = [
    (1000, 257), // size
    (1002, 259), // PGP
    (1004, 261), // MD5
    (1005, 262), // GPG
    (267, 267),  // DSA of the header
    (268, 268),  // RSA of the header
    (269, 269),  // SHA-1 of the header
    (270, 270),  // size, 64 bit
    (271, 271),  // archive size, 64 bit
    (273, 273),  // SHA-256 of the header
    (276, 276),  // fs-verity signatures
    (277, 277),
    (278, 278),   // OpenPGP
    (279, 279),   // SHA3-256 of the header
    (1007, 1046), // archive size
    (274, 5090),  // IMA signatures
    (275, 5091),
];

/// An entry appended after the region.
struct Dribble {
    tag: u32,
    kind: Kind,
    count: usize,
    bytes: Vec<u8>,
}

impl Dribble {
    fn number(tag: Tag, value: u32) -> Self {
        Self { tag: tag.into(), kind: Kind::Int32, count: 1, bytes: value.to_be_bytes().to_vec() }
    }

    fn string(tag: Tag, value: &str) -> Self {
        let bytes = [value.as_bytes(), b"\0"].concat();
        Self { tag: tag.into(), kind: Kind::String, count: 1, bytes }
    }

    fn states(states: &[u8]) -> Self {
        let tag = Tag::RPMTAG_FILESTATES.into();
        Self { tag, kind: Kind::Char, count: states.len(), bytes: states.to_vec() }
    }

    /// A copy of an entry under another tag.
    fn copy(blob: &Blob, from: impl Into<u32>, to: impl Into<u32>) -> Option<Self> {
        let entry = blob.find(from)?;
        let bytes = blob.bytes_of(entry).to_vec();
        Some(Self { tag: to.into(), kind: entry.kind, count: entry.count, bytes })
    }
}

/// See [`Header::to_rpmdb_blob`].
pub(super) fn to_rpmdb_blob(header: &Header, install: &InstallTags) -> Result<Vec<u8>> {
    let signature =
        header.signature.as_ref().context("the header is from an rpmdb, expected one from a package file")?;
    let files = header.main.find(Tag::RPMTAG_BASENAMES).map_or(0, |e| e.count);
    ensure!(
        install.file_states.len() == files,
        "{} file states for {files} files of {}",
        install.file_states.len(),
        header.nevra()
    );
    let mut dribbles: Vec<Dribble> = KEPT_SIGNATURES
        .into_iter()
        .filter(|(_, to)| header.main.find(*to).is_none())
        .filter_map(|(from, to)| Dribble::copy(signature, from, to))
        .collect();
    dribbles.push(Dribble::number(Tag::RPMTAG_INSTALLTIME, install.time));
    dribbles.push(Dribble::number(Tag::RPMTAG_INSTALLCOLOR, install.color));
    dribbles.push(Dribble::number(Tag::RPMTAG_INSTALLTID, install.tid));
    if files > 0 {
        dribbles.extend(Dribble::copy(&header.main, Tag::RPMTAG_PREFIXES, Tag::RPMTAG_INSTPREFIXES));
        dribbles.push(Dribble::states(&install.file_states));
    }
    if header.main.find(Tag::RPMTAG_SOURCERPM).is_none() {
        dribbles.push(Dribble::string(Tag::RPMTAG_SOURCERPM, "(none)"));
    }
    dribbles.sort_by_key(|d| d.tag);
    Ok(append(&header.main, &dribbles))
}

/// Writes the region verbatim and the dribbles after it, each aligned for its type.
fn append(region: &Blob, dribbles: &[Dribble]) -> Vec<u8> {
    let mut index = region.index().to_vec();
    let mut data = region.data().to_vec();
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

/// Both headers were at most 256 MiB, so their sum fits.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the limits of both headers")]
fn size(n: usize) -> u32 {
    n as u32
}

/// Overwrites FILESTATES in a header as an rpmdb stores it.
pub fn set_file_states(blob: &mut [u8], states: &[u8]) -> Result<()> {
    let header = Header::from_rpmdb_blob(blob)?;
    let range = header.main.find(Tag::RPMTAG_FILESTATES).map_or(0..0, |e| e.data.clone());
    ensure!(
        range.len() == states.len(),
        "{} file states for {} files of {}",
        states.len(),
        range.len(),
        header.nevra()
    );
    let start = blob.len() - header.main.data().len() + range.start;
    blob[start..start + states.len()].copy_from_slice(states);
    Ok(())
}
