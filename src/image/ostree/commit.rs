//! A tree as a commit: the checksums of its files, and the objects of its directories.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::objects::{self, Directory, Meta, Owner};
use super::{About, BOOTABLE, COMMIT, LINUX};
use crate::digest::Digest;
use crate::error::hinted;
use crate::image::delta::{Entry, Kind};
use crate::image::tar::{Contents, Tree};
use crate::selinux;

/// Bits of a mode that tell what it is of (`S_IFMT`).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Objects by checksum and kind, which is how the names of their files end.
pub type Metadata = BTreeMap<(Digest, &'static str), Vec<u8>>;

/// The object of a file or symbolic link.
pub struct Object {
    /// Its name.
    pub checksum: Digest,
    /// Its extended attributes, serialised.
    pub xattrs: Vec<u8>,
}

impl Object {
    /// The name of the object of its extended attributes.
    pub fn xattrs_checksum(&self) -> Digest {
        Digest::of(&self.xattrs)
    }
}

/// A commit with all of its objects.
pub struct Commit<'a> {
    /// The object of the commit itself.
    pub bytes: Vec<u8>,
    /// The objects of directories.
    pub metadata: Metadata,
    /// Those of files, by path of the tree; other names of a file are not in it.
    pub objects: BTreeMap<&'a Path, Object>,
    bootable: bool,
    /// Release of its kernel.
    linux: Option<&'a str>,
}

impl Commit<'_> {
    /// Its name.
    pub fn checksum(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// What an image says of it.
    pub fn labels(&self) -> BTreeMap<&'static str, String> {
        let bootable = self.bootable.then(|| (BOOTABLE, "true".to_owned()));
        let linux = self.linux.map(|release| (LINUX, release.to_owned()));
        [(COMMIT, self.checksum().hex())].into_iter().chain(bootable).chain(linux).collect()
    }
}

/// Makes a commit of a tree that has these entries.
pub fn commit<'a>(tree: &Tree<'_>, entries: &[&'a Entry], about: &About) -> Result<Commit<'a>> {
    let objects: BTreeMap<&Path, Object> = entries
        .par_iter()
        .filter_map(|entry| object(tree, entry, about).transpose())
        .collect::<Result<_>>()?;
    let mut metadata = Metadata::new();
    let root = nodes(entries, &objects)?.write(about, &mut metadata);
    let linux = entries.iter().find_map(|entry| kernel_release(&entry.path)).filter(|_| about.bootable);
    let mut said = BTreeMap::from([("version", Meta::Text(about.version.clone()))]);
    said.extend(about.bootable.then_some((BOOTABLE, Meta::Boolean(true))));
    said.extend(linux.map(|release| (LINUX, Meta::Text(release.to_owned()))));
    let bytes = objects::commit(&said, about.created, &root);
    Ok(Commit { bytes, metadata, objects, bootable: about.bootable, linux })
}

/// The release of the kernel at `path`, if one is there.
fn kernel_release(path: &Path) -> Option<&str> {
    match path.to_str()?.split('/').collect::<Vec<_>>()[..] {
        ["usr", "lib", "modules", release, "vmlinuz"] => Some(release),
        _ => None,
    }
}

/// The object of an entry that has its own.
fn object<'a>(tree: &Tree<'_>, entry: &'a Entry, about: &About) -> Result<Option<(&'a Path, Object)>> {
    let context = || format!("digesting /{}", entry.path.display());
    let (kind, target, mut content) = match &entry.kind {
        Kind::File { .. } => (REGULAR, "", tree.open(entry).with_context(context)?),
        Kind::Symlink { target } => {
            let target = target.to_str().ok_or_else(|| not_utf8(&entry.path))?;
            (SYMLINK, target, Box::new(io::empty()) as Box<dyn Read>)
        }
        Kind::Directory | Kind::HardLink { .. } | Kind::Whiteout => return Ok(None),
    };
    let xattrs = objects::xattrs(&attributes(entry, about));
    let checksum =
        objects::file_checksum(owner(entry, kind), target, &xattrs, &mut content).with_context(context)?;
    Ok(Some((&entry.path, Object { checksum, xattrs: xattrs.into_bytes() })))
}

fn owner(entry: &Entry, kind: u32) -> Owner {
    Owner { uid: entry.uid, gid: entry.gid, mode: kind | entry.mode }
}

/// The extended attributes of an entry with its label.
fn attributes<'a>(entry: &'a Entry, about: &About) -> Cow<'a, BTreeMap<OsString, Vec<u8>>> {
    let context = about.contexts.as_ref().and_then(|contexts| contexts.of(&entry.path, &entry.kind));
    let Some(context) = context else { return Cow::Borrowed(&entry.xattrs) };
    let mut attributes = entry.xattrs.clone();
    attributes.insert(selinux::XATTR.into(), [context.as_bytes(), b"\0"].concat());
    Cow::Owned(attributes)
}

fn not_utf8(path: &Path) -> anyhow::Error {
    hinted(
        format!("encapsulating /{}: its name or its target is not UTF-8", path.display()),
        "ostree stores no other names: remove it with [[remove]]",
    )
}

/// A directory of a commit.
#[derive(Default)]
struct Node<'a> {
    /// None if no entry says.
    entry: Option<&'a Entry>,
    files: BTreeMap<&'a str, Digest>,
    directories: BTreeMap<&'a str, Node<'a>>,
}

/// The root of a commit that has these entries.
fn nodes<'a>(entries: &[&'a Entry], objects: &BTreeMap<&Path, Object>) -> Result<Node<'a>> {
    let mut root = Node::default();
    for entry in entries {
        let path = path_in_commit(&entry.path)?;
        if entry.kind == Kind::Directory {
            root.at(&path).entry = Some(entry);
            continue;
        }
        let file = match &entry.kind {
            Kind::HardLink { to } => to,
            _ => &entry.path,
        };
        if let (Some(object), Some((name, parents))) = (objects.get(file.as_path()), path.split_last()) {
            root.at(parents).files.insert(name, object.checksum);
        }
    }
    Ok(root)
}

/// The names on the way to a path of the tree, where the commit has it.
fn path_in_commit(path: &Path) -> Result<Vec<&str>> {
    let names: Option<Vec<&str>> = path.iter().map(OsStr::to_str).collect();
    let mut names = names.ok_or_else(|| not_utf8(path))?;
    match names.as_slice() {
        ["etc", ..] => names.insert(0, "usr"),
        ["usr", "etc", ..] => {
            return Err(hinted(
                format!("encapsulating /{}: that is where ostree keeps the image's /etc", path.display()),
                "put it into /etc",
            ));
        }
        _ => {}
    }
    Ok(names)
}

impl<'a> Node<'a> {
    /// The directory at `path` below it.
    fn at(&mut self, path: &[&'a str]) -> &mut Self {
        path.iter().fold(self, |node, name| node.directories.entry(name).or_default())
    }

    /// Adds the objects of it and of all below it to `metadata`.
    fn write(self, about: &About, metadata: &mut Metadata) -> Directory {
        let unsaid = Owner { uid: 0, gid: 0, mode: DIRECTORY | 0o755 };
        let meta = match self.entry {
            Some(entry) => objects::directory_meta(owner(entry, DIRECTORY), &attributes(entry, about)),
            None => objects::directory_meta(unsaid, &BTreeMap::new()),
        };
        let directories =
            self.directories.into_iter().map(|(name, node)| (name, node.write(about, metadata)));
        let tree = objects::directory_tree(&self.files, &directories.collect());
        Directory { tree: add(metadata, "dirtree", tree), meta: add(metadata, "dirmeta", meta) }
    }
}

/// Adds an object; gives its name.
fn add(metadata: &mut Metadata, kind: &'static str, bytes: Vec<u8>) -> Digest {
    let checksum = Digest::of(&bytes);
    metadata.insert((checksum, kind), bytes);
    checksum
}
