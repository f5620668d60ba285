//! Extracted layers against the blobs they are the content of.
//!
//! A tree may have more: files that a layer touched and left as they are below.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::image::Descriptor;

use crate::digest::Digest;
use crate::image::contents::contents;
use crate::image::delta::{self, Entry, Kind};
use crate::image::extract::plain;
use crate::image::oci::Layout;
use crate::image::untar::Member;
use crate::install::{caps, ima};

/// What is wrong with the tree `root`, which should have the content of these blobs; nothing, if they can't tell.
pub fn differs(layout: &Layout, blobs: &[(&Descriptor, &str)], root: &Path) -> Result<Option<String>> {
    // a blob that is damaged or gone is found for itself
    let Ok(expected) = contents(layout, blobs) else { return Ok(None) };
    for (path, (member, digest)) in &expected {
        if let Some(problem) = differs_at(root, path, member, digest.as_ref())? {
            return Ok(Some(format!("/{}: {problem}", path.display())));
        }
    }
    Ok(None)
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
