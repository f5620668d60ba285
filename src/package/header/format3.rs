//! Headers of format 3, which rpm before 4 made: turned into what later ones look like.
//!
//! They have no region, and may have paths in one list, provides without versions, and none of the package
//! itself. What rpm does with them as it reads them (rpm: `lib/package.c`, `applyRetrofits`) is done here: their
//! bytes become a region of their own kind, and what is missing is appended to it. So the rpmdb gets what rpm
//! would write.

use anyhow::{Context, Result};
use rpm::IndexTag as Tag;

use super::blob::{Blob, ENTRY_SIZE, Kind, Sizes};
use super::dribble::{Dribble, append};
use super::is_source;

/// `RPMSENSE_EQUAL`
const EQUAL: u32 = 8;

/// Gives a package's main header what it lacks; one of a later format is given back as it is, but for a list of
/// paths that some builders still wrote (`--nodirtokens`).
pub fn retrofit(main: Blob) -> Result<Blob> {
    let is_old = !main.has_region();
    let mut main = if is_old { with_region(&main)? } else { main };
    if main.find(Tag::RPMTAG_DIRNAMES).is_none() && main.find(Tag::RPMTAG_OLDFILENAMES).is_some() {
        let more = file_list(&main.strings(Tag::RPMTAG_OLDFILENAMES)?);
        main = parse(&append(&main, more.into()))?;
    }
    if is_old && !is_source(&main)? {
        let more = provides(&main).context("adding the package to its own provides")?;
        main = parse(&append(&main, more.into()))?;
    }
    Ok(main)
}

/// The bytes of a header, from its sizes on.
fn parse(bytes: &[u8]) -> Result<Blob> {
    let (sizes, rest) = bytes.split_first_chunk().context("the header is cut off in its first 8 bytes")?;
    Blob::parse(Sizes::parse(sizes)?, rest.to_vec())
}

/// All of the header as a region, which is named HEADERIMAGE, so that nobody takes it for one that was signed
/// (rpm: `lib/header.c`, `headerExport`).
fn with_region(main: &Blob) -> Result<Blob> {
    let (index, data) = main.region();
    let [entries, data_size] = [index.len() / ENTRY_SIZE + 1, data.len()].map(size);
    let back = (entries * size(ENTRY_SIZE)).wrapping_neg();
    let entry = |offset| {
        [Tag::RPMTAG_HEADERIMAGE.into(), Kind::Bin as u32, offset, size(ENTRY_SIZE)].map(u32::to_be_bytes)
    };
    let sizes = [entries, data_size + size(ENTRY_SIZE)].map(u32::to_be_bytes);
    parse(&[&sizes.concat(), &entry(data_size).concat(), index, data, &entry(back).concat()].concat())
}

/// Paths as directories and the names in them.
fn file_list(paths: &[&[u8]]) -> [Dribble; 3] {
    let (mut directories, mut indexes, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let (directory, name) =
            path.split_at(path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1));
        // files come sorted: the directory is among the last
        let known = directories.iter().rposition(|known| *known == directory);
        indexes.push(size(known.unwrap_or(directories.len())));
        if known.is_none() {
            directories.push(directory);
        }
        names.push(name);
    }
    [
        Dribble::numbers(Tag::RPMTAG_DIRINDEXES, &indexes),
        Dribble::strings(Tag::RPMTAG_BASENAMES, &names),
        Dribble::strings(Tag::RPMTAG_DIRNAMES, &directories),
    ]
}

/// What it provides, and itself. rpm means to leave it where it provides itself already, but does not find that.
fn provides(main: &Blob) -> Result<[Dribble; 3]> {
    let text = |tag| main.text(tag).map(Option::unwrap_or_default);
    let (name, version, release) =
        (text(Tag::RPMTAG_NAME)?, text(Tag::RPMTAG_VERSION)?, text(Tag::RPMTAG_RELEASE)?);
    let evr = match main.number(Tag::RPMTAG_EPOCH)? {
        Some(epoch) => format!("{epoch}:{version}-{release}"),
        None => format!("{version}-{release}"),
    };
    let mut names = main.strings(Tag::RPMTAG_PROVIDENAME)?;
    let (mut versions, mut flags) = match main.find(Tag::RPMTAG_PROVIDEVERSION) {
        Some(_) => (main.strings(Tag::RPMTAG_PROVIDEVERSION)?, main.u32s(Tag::RPMTAG_PROVIDEFLAGS)?),
        None => (vec![&b""[..]; names.len()], vec![0; names.len()]),
    };
    names.push(name.as_bytes());
    versions.push(evr.as_bytes());
    flags.push(EQUAL);
    Ok([
        Dribble::strings(Tag::RPMTAG_PROVIDENAME, &names),
        Dribble::strings(Tag::RPMTAG_PROVIDEVERSION, &versions),
        Dribble::numbers(Tag::RPMTAG_PROVIDEFLAGS, &flags),
    ])
}

/// Headers are of at most 256 MiB.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the limits of headers")]
fn size(n: usize) -> u32 {
    n as u32
}
