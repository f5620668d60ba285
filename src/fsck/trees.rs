//! Extracted layers against the blobs they are the content of.
//!
//! The blobs are applied one after the other to a list of paths instead of a disk, which is then compared with the
//! tree. A tree may have more: files that a layer touched and left as they are below.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::image::Descriptor;

use crate::digest::Digest;
use crate::image::delta::{self, Entry, Kind};
use crate::image::extract::{plain, read_layer};
use crate::image::oci::Layout;
use crate::image::untar::Member;
use crate::install::{caps, ima};

/// What a tree should have at each path.
type Expected = BTreeMap<PathBuf, (Member, Option<Digest>)>;

/// What is wrong with the tree `root`, which should have the content of these blobs; nothing, if they can't tell.
pub fn differs(layout: &Layout, blobs: &[(&Descriptor, &str)], root: &Path) -> Result<Option<String>> {
    let mut expected = Expected::new();
    for (blob, diff_id) in blobs {
        // one that is damaged or gone is found for itself
        if read_layer(layout, blob, diff_id, |member, content| apply(&mut expected, member, content)).is_err()
        {
            return Ok(None);
        }
    }
    for (path, (member, digest)) in &expected {
        if let Some(problem) = differs_at(root, path, member, digest.as_ref())? {
            return Ok(Some(format!("/{}: {problem}", path.display())));
        }
    }
    Ok(None)
}

fn apply(expected: &mut Expected, member: &Member, content: &mut dyn Read) -> Result<()> {
    let path = plain(&member.path)?;
    let name = path.file_name().unwrap_or_default().as_bytes();
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        let gone = match hidden {
            b".wh..opq" => path.parent().unwrap_or(Path::new("")).to_owned(),
            hidden => path.with_file_name(OsStr::from_bytes(hidden)),
        };
        forget(expected, &gone);
        return Ok(());
    }
    if !member.is_dir() {
        forget(expected, &path);
    }
    let digest = match member.is_file() {
        true => Some(Digest::of_reader(&mut BufReader::with_capacity(64 << 10, content))?.0),
        false => None,
    };
    expected.insert(path, (member.clone(), digest));
    Ok(())
}

/// Forgets a path and all below it.
fn forget(expected: &mut Expected, gone: &Path) {
    let below = expected.range(gone.to_owned()..).map(|(path, _)| path);
    let below: Vec<PathBuf> = below.take_while(|path| path.starts_with(gone)).cloned().collect();
    below.iter().for_each(|path| drop(expected.remove(path)));
}

/// What is wrong at one path.
fn differs_at(root: &Path, path: &Path, member: &Member, digest: Option<&Digest>) -> Result<Option<String>> {
    let at = root.join(path);
    let context = || format!("reading {}", at.display());
    let meta = match fs::symlink_metadata(&at) {
        // what no image of ours holds is not extracted
        Err(e) if e.kind() == ErrorKind::NotFound && matches!(member.kind, b'3' | b'4' | b'6') => {
            return Ok(None);
        }
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some("it is not there".to_owned())),
        meta => meta.with_context(context)?,
    };
    if member.is_hard_link() {
        let target = fs::symlink_metadata(root.join(plain(&member.link)?)).with_context(context)?;
        let is_same = (target.dev(), target.ino()) == (meta.dev(), meta.ino());
        return Ok((!is_same).then(|| "it is no link any more".to_owned()));
    }
    let found = delta::entry(path, &at, &meta, meta.mtime())?;
    let kind = match member.kind {
        b'2' => Kind::Symlink { target: OsStr::from_bytes(&member.link).to_owned() },
        _ if member.is_dir() => Kind::Directory,
        _ => Kind::File { size: member.size },
    };
    let mtime = if kind == Kind::Directory { found.mtime } else { member.mtime };
    let mode = if member.kind == b'2' { found.mode } else { member.mode };
    let (uid, gid, path) = (member.uid, member.gid, path.to_owned());
    let expected = Entry { path, kind, mode, uid, gid, mtime, xattrs: xattrs(member) };
    if found != expected {
        return Ok(Some(format!("it is {}, expected {}", attributes(&found), attributes(&expected))));
    }
    let Some(expected) = digest else { return Ok(None) };
    let content = Digest::of_reader(&mut File::open(&at).with_context(context)?).with_context(context)?.0;
    Ok((content != *expected).then(|| format!("its content is {content}, expected {expected}")))
}

/// Those that a tree has (see [`crate::image::extract`]).
fn xattrs(member: &Member) -> BTreeMap<OsString, Vec<u8>> {
    let is_kept = |name: &[u8]| {
        [caps::XATTR.as_bytes(), ima::XATTR.as_bytes()].contains(&name)
            || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
    };
    let kept = member.xattrs.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (OsStr::from_bytes(name).to_owned(), value.clone())).collect()
}

/// In a line.
fn attributes(entry: &Entry) -> String {
    let Entry { kind, mode, uid, gid, mtime, xattrs, .. } = entry;
    let xattrs: Vec<String> = xattrs.keys().map(|name| format!(" {}", name.display())).collect();
    format!("{kind:?} {mode:o} {uid}:{gid} of {mtime}{}", xattrs.concat())
}
