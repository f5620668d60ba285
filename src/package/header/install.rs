//! From a package's header to the rpmdb's: what an installation appends to it.

use anyhow::{Context, Result, ensure};
use rpm::IndexTag as Tag;

use super::dribble::{Dribble, append};
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
        .filter_map(|(from, to)| Some(Dribble::copy(signature, signature.find(from)?).renamed(to)))
        .collect();
    dribbles.push(Dribble::numbers(Tag::RPMTAG_INSTALLTIME, &[install.time]));
    dribbles.push(Dribble::numbers(Tag::RPMTAG_INSTALLCOLOR, &[install.color]));
    dribbles.push(Dribble::numbers(Tag::RPMTAG_INSTALLTID, &[install.tid]));
    if files > 0 {
        let prefixes = header.main.find(Tag::RPMTAG_PREFIXES);
        let copy = |prefixes| Dribble::copy(&header.main, prefixes).renamed(Tag::RPMTAG_INSTPREFIXES);
        dribbles.extend(prefixes.map(copy));
        dribbles.push(Dribble::chars(Tag::RPMTAG_FILESTATES, &install.file_states));
    }
    if header.main.find(Tag::RPMTAG_SOURCERPM).is_none() {
        dribbles.push(Dribble::string(Tag::RPMTAG_SOURCERPM, "(none)"));
    }
    Ok(append(&header.main, dribbles))
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
