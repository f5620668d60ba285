//! The packages of an OCI image, from as few bytes as can be.
//!
//! An image that says `io.openshift.metalayer=true` has `meta.json` in its last layer, a small blob. But labels
//! are inherited: in an image somebody derived from it, the last layer is another. What the last layer does not
//! have is looked for in the rpmdb, from the top layer down, and it is the first that is not hidden by a layer
//! above (image-spec `layer.md`, whiteouts).

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use oci_spec::image::Descriptor;
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::hinted;
use crate::image::attach::PACKAGE_LIST;
use crate::image::oci::digest_of;
use crate::image::opened::Opened;
use crate::image::untar::{Reader, decompress};
use crate::pkglist::{META_JSON, PackageSet};
use crate::rpmdb::{self, Installed, Rpmdb};

/// Bounds on what a compressed layer may unfold into: ten times the largest seen.
const MAX_META_JSON: u64 = 16 << 20;
const MAX_RPMDB: u64 = 2 << 30;

/// Reads the packages of an image.
pub fn packages(image: &Opened) -> Result<PackageSet> {
    if let Some(packages) = listed(image)? {
        return Ok(packages);
    }
    let file = rpmdb_of(image)?;
    Ok(Rpmdb::open_read_only(file.path())?.nevras()?.into_iter().collect())
}

/// Reads all that the rpmdb of an image has of its packages, if it has one.
pub(crate) fn installed(image: &Opened) -> Result<Option<Vec<Installed>>> {
    let Some(file) = find_rpmdb(image)? else { return Ok(None) };
    Rpmdb::open_read_only(file.path())?.packages().map(Some)
}

/// The rpmdb of an image, taken out of its layers.
pub(crate) fn rpmdb_of(image: &Opened) -> Result<NamedTempFile> {
    let context = || format!("reading the packages of image {}", image.image.digest);
    let missing = || hinted("the image has no rpmdb", format!("expected is {}", rpmdb::places_in_words()));
    find_rpmdb(image).with_context(context)?.ok_or_else(missing).with_context(context)
}

/// The rpmdb of an image, taken out of its layers, if it has one.
fn find_rpmdb(image: &Opened) -> Result<Option<NamedTempFile>> {
    let mut visible: Vec<String> = rpmdb::places().collect();
    for blob in image.image.manifest.layers().iter().rev() {
        match rpmdb_in(image, blob, &mut visible)? {
            Some(file) => return Ok(Some(file)),
            None if visible.is_empty() => break,
            None => {}
        }
    }
    Ok(None)
}

/// The packages as they are attached to an image, or else as it has them. Who may write to a registry may attach another list
/// to an image, which keeps its digest: good enough to compare by, not to build by.
pub fn attached_or_own(image: &Opened) -> Result<PackageSet> {
    let context = || format!("reading the package list attached to image {}", image.image.digest);
    let attached = image.attached(PACKAGE_LIST, MAX_META_JSON).with_context(context)?;
    match attached {
        Some(bytes) => PackageSet::from_json(&bytes).with_context(context),
        None => packages(image),
    }
}

/// The packages of an image that lists them in its last layer.
pub fn listed(image: &Opened) -> Result<Option<PackageSet>> {
    let context = || format!("reading the package list of image {}", image.image.digest);
    list(image)?.map(|bytes| PackageSet::from_json(&bytes)).transpose().with_context(context)
}

/// `meta.json` of an image that has it in its last layer.
pub fn list(image: &Opened) -> Result<Option<Vec<u8>>> {
    let context = || format!("reading the package list of image {}", image.image.digest);
    let (Some(&"true"), Some(last)) =
        (image.image.labels().get("io.openshift.metalayer"), image.image.manifest.layers().last())
    else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let found = unpack(image, last, META_JSON.as_bytes(), MAX_META_JSON, &mut bytes);
    Ok(found.with_context(context)?.then_some(bytes))
}

/// Finds the rpmdb in a layer; drops from `visible` the places that the layer hides from those below it.
fn rpmdb_in(image: &Opened, blob: &Descriptor, visible: &mut Vec<String>) -> Result<Option<NamedTempFile>> {
    let mut found: Option<(usize, Vec<u8>)> = None;
    let mut hidden = Vec::new();
    let mut tar = open(image, blob)?;
    while let Some(member) = tar.next_member().with_context(|| format!("reading layer {}", blob.digest()))? {
        let path = normal(&member.path);
        if let Some(rank) = visible.iter().position(|v| v.as_bytes() == path)
            && (member.is_file() || member.is_hard_link())
        {
            // ostree's layers hold objects, and links to them under the files' names
            let content = if member.is_hard_link() { normal(&member.link) } else { path };
            if found.as_ref().is_none_or(|(best, _)| rank < *best) {
                found = Some((rank, content.to_vec()));
            }
        } else {
            hidden.extend(hides(path, member.is_dir()));
        }
    }
    visible.retain(|place| !hidden.iter().any(|h| is_below(place.as_bytes(), h)));
    found.map(|(_, content)| take_out(image, blob, &content)).transpose()
}

/// The path, relative to the root, which an entry hides in lower layers with all below it.
fn hides(path: &[u8], is_dir: bool) -> Option<Vec<u8>> {
    let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (&b""[..], path),
    };
    match name.strip_prefix(b".wh.") {
        Some(b".wh..opq") => Some(dir.strip_suffix(b"/").unwrap_or(dir).to_vec()),
        Some(name) => Some([dir, name].concat()),
        // a link or file in the place of a directory
        None => (!is_dir).then(|| path.to_vec()),
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Copies the rpmdb at `path` out of a layer.
fn take_out(image: &Opened, blob: &Descriptor, path: &[u8]) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("making a temporary file")?;
    let found = unpack(image, blob, path, MAX_RPMDB, file.as_file_mut())?;
    ensure!(found, "layer {} has a link to {}, but not that file", blob.digest(), path.escape_ascii());
    Ok(file)
}

/// Copies the file at `path` out of a layer, if it has one of at most `limit` bytes there.
fn unpack(image: &Opened, blob: &Descriptor, path: &[u8], limit: u64, to: &mut impl Write) -> Result<bool> {
    let context = || format!("unpacking {} of layer {}", path.escape_ascii(), blob.digest());
    let mut place = path.to_vec();
    // in ostree's layers it is a link to an object, which comes before it
    for _ in 0..2 {
        let mut tar = open(image, blob)?;
        let member = loop {
            match tar.next_member().with_context(context)? {
                None => return Ok(false),
                Some(member) if normal(&member.path) == place => break member,
                Some(_) => {}
            }
        };
        if member.is_file() {
            let size = member.size;
            ensure!(size <= limit, "{}: it has {size} bytes, at most {limit} are read", context());
            io::copy(&mut tar.content(), to).with_context(context)?;
            return Ok(true);
        }
        place = normal(&member.link).to_vec();
    }
    Ok(false)
}

/// Opens a layer, checked against its digest, whatever it is compressed with.
fn open(image: &Opened, blob: &Descriptor) -> Result<Reader<impl Read>> {
    let path = image.blob(blob)?;
    let context = || format!("reading layer {}", path.display());
    check(&path, &digest_of(blob)?).with_context(context)?;
    let tar = File::open(&path).and_then(decompress).with_context(context)?;
    Ok(Reader::new(BufReader::with_capacity(64 << 10, tar)))
}

fn check(path: &Path, expected: &Digest) -> Result<()> {
    let (found, _) = Digest::of_reader(&mut File::open(path)?)?;
    ensure!(found == *expected, "the blob is damaged: it is {found}, expected {expected}");
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
        for (entry, is_dir, expected) in [
            ("usr/share/rpm/.wh.rpmdb.sqlite", false, true),
            ("usr/share/.wh.rpm", false, true),
            ("usr/share/rpm/.wh..wh..opq", false, true),
            (".wh..wh..opq", false, true),
            ("usr/share/rpm", false, true),
            ("usr/share/rpm", true, false),
            ("usr/share/.wh.rp", false, false),
            ("usr/share/rpm/.wh.other", false, false),
        ] {
            let hidden = hides(entry.as_bytes(), is_dir).is_some_and(|h| is_below(place, &h));
            assert_eq!(hidden, expected, "{entry}");
        }
    }
}
