//! The packages of an OCI image, from as few bytes as can be.
//!
//! An image that says `io.openshift.metalayer=true` has `meta.json` in its last layer, a small blob. But labels
//! are inherited: in an image somebody derived from it, the last layer is another. What the last layer does not
//! have is looked for in the rpmdb, from the top layer down, and it is the first that is not hidden by a layer
//! above (image-spec `layer.md`, whiteouts).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tar::{Archive, EntryType};
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::hinted;
use crate::image::oci::{Image, Layout, digest_of};
use crate::pkglist::{META_JSON, PackageSet};
use crate::rpmdb::Rpmdb;

/// Where distributions keep the rpmdb. In ostree's trees the first is the directory, the others link to it.
const RPMDBS: [&str; 3] =
    ["usr/share/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite"];

/// Bounds on what a compressed layer may unfold into: ten times the largest seen.
const MAX_META_JSON: u64 = 16 << 20;
const MAX_RPMDB: u64 = 2 << 30;

/// Reads the packages of an image.
pub fn packages(layout: &Layout, image: &Image) -> Result<PackageSet> {
    let context = || format!("reading the packages of image {}", image.digest);
    let blobs: Vec<Digest> =
        image.manifest.layers().iter().map(digest_of).collect::<Result<_>>().with_context(context)?;
    if let (Some("true"), Some(last)) = (image.labels().get("io.openshift.metalayer").copied(), blobs.last())
        && let Some(packages) = meta_json(layout, last).with_context(context)?
    {
        return Ok(packages);
    }
    let mut visible = RPMDBS.to_vec();
    for blob in blobs.iter().rev() {
        match find_rpmdb(layout, blob, &mut visible).with_context(context)? {
            Some(file) => return Ok(Rpmdb::open_read_only(file.path())?.nevras()?.into_iter().collect()),
            None if visible.is_empty() => break,
            None => {}
        }
    }
    Err(hinted(
        format!("{}: it has neither meta.json in its last layer nor an rpmdb.sqlite", context()),
        "older images have a Berkeley DB, which strata does not read",
    ))
}

fn meta_json(layout: &Layout, blob: &Digest) -> Result<Option<PackageSet>> {
    let mut archive = open(layout, blob)?;
    for entry in archive.entries()? {
        let mut entry = entry.with_context(|| format!("reading layer {blob}"))?;
        if entry.header().entry_type().is_file() && normal(&entry.path_bytes()) == META_JSON.as_bytes() {
            let mut bytes = Vec::new();
            copy_bounded(&mut entry, &mut bytes, MAX_META_JSON)?;
            return PackageSet::from_json(&bytes).map(Some);
        }
    }
    Ok(None)
}

/// Finds the rpmdb in a layer; drops from `visible` the places that the layer hides from those below it.
fn find_rpmdb(layout: &Layout, blob: &Digest, visible: &mut Vec<&str>) -> Result<Option<NamedTempFile>> {
    let mut found: Option<(usize, Vec<u8>)> = None;
    let mut hidden = Vec::new();
    for entry in open(layout, blob)?.entries()? {
        let entry = entry.with_context(|| format!("reading layer {blob}"))?;
        let bytes = entry.path_bytes();
        let path = normal(&bytes);
        let kind = entry.header().entry_type();
        if let Some(rank) = visible.iter().position(|v| v.as_bytes() == path)
            && (kind.is_file() || kind.is_hard_link())
        {
            // ostree's layers hold objects, and links to them under the files' names
            let content = match entry.link_name_bytes() {
                Some(target) if kind.is_hard_link() => normal(&target).to_vec(),
                _ => path.to_vec(),
            };
            if found.as_ref().is_none_or(|(best, _)| rank < *best) {
                found = Some((rank, content));
            }
        } else {
            hidden.extend(hides(path, kind));
        }
    }
    visible.retain(|place| !hidden.iter().any(|h| is_below(place.as_bytes(), h)));
    found.map(|(_, content)| extract(layout, blob, &content)).transpose()
}

/// The path, relative to the root, which an entry hides in lower layers with all below it.
fn hides(path: &[u8], kind: EntryType) -> Option<Vec<u8>> {
    let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (&b""[..], path),
    };
    match name.strip_prefix(b".wh.") {
        Some(b".wh..opq") => Some(dir.strip_suffix(b"/").unwrap_or(dir).to_vec()),
        Some(name) => Some([dir, name].concat()),
        // a link or file in the place of a directory
        None => (!kind.is_dir()).then(|| path.to_vec()),
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn extract(layout: &Layout, blob: &Digest, path: &[u8]) -> Result<NamedTempFile> {
    for entry in open(layout, blob)?.entries()? {
        let mut entry = entry.with_context(|| format!("reading layer {blob}"))?;
        if entry.header().entry_type().is_file() && normal(&entry.path_bytes()) == path {
            let mut file = NamedTempFile::new().context("making a temporary file")?;
            copy_bounded(&mut entry, file.as_file_mut(), MAX_RPMDB)?;
            return Ok(file);
        }
    }
    bail!("layer {blob} has a link to {}, but not that file", String::from_utf8_lossy(path))
}

/// Opens a layer, checked against its digest, whatever it is compressed with.
fn open(layout: &Layout, blob: &Digest) -> Result<Archive<Box<dyn Read>>> {
    let path = layout.blob(blob);
    let context = || format!("reading layer {}", path.display());
    check(&path, blob).with_context(context)?;
    let mut file = BufReader::new(File::open(&path).with_context(context)?);
    let magic = file.fill_buf().with_context(context)?;
    let reader: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(file).with_context(context)?)
    } else {
        Box::new(file)
    };
    // umoci 0.4 leaves out what ends an archive, the padding of the last file included
    Ok(Archive::new(Box::new(reader.chain(io::repeat(0).take(3 * 512)))))
}

fn check(path: &Path, expected: &Digest) -> Result<()> {
    let (found, _) = Digest::of_reader(&mut File::open(path)?)?;
    ensure!(found == *expected, "the blob is damaged: it is {found}, expected {expected}");
    Ok(())
}

fn copy_bounded(from: &mut impl Read, to: &mut impl io::Write, limit: u64) -> Result<()> {
    let copied = io::copy(&mut from.take(limit + 1), to).context("unpacking a file")?;
    ensure!(copied <= limit, "unpacking a file: it has more than {limit} bytes");
    Ok(())
}

/// A tar path without what differs between writers: `./usr/`, `/usr` and `usr` are the same.
fn normal(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")).unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_hide_what_is_below() {
        let place = b"usr/share/rpm/rpmdb.sqlite";
        for (entry, kind, expected) in [
            ("usr/share/rpm/.wh.rpmdb.sqlite", EntryType::Regular, true),
            ("usr/share/.wh.rpm", EntryType::Regular, true),
            ("usr/share/rpm/.wh..wh..opq", EntryType::Regular, true),
            (".wh..wh..opq", EntryType::Regular, true),
            ("usr/share/rpm", EntryType::Symlink, true),
            ("usr/share/rpm", EntryType::Directory, false),
            ("usr/share/.wh.rp", EntryType::Regular, false),
            ("usr/share/rpm/.wh.other", EntryType::Regular, false),
        ] {
            let hidden = hides(entry.as_bytes(), kind).is_some_and(|h| is_below(place, &h));
            assert_eq!(hidden, expected, "{entry}");
        }
    }
}
