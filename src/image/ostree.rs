//! The bottom layer as clients take it that know ostree only: a commit, and a repository whose objects the files of
//! the tree are links to (ostree-ext: `src/container/encapsulate.rs`, `src/tar/export.rs`, `src/tar/import.rs`).
//!
//! ```text
//! layer 0       all directories; the repository, with the commit and its metadata objects
//! layer 1...    a chunk each: its objects, and its paths as links to them
//! ```
//!
//! Label `ostree.final-diffid` names the last of these layers; what comes after is derived, plain layers. An object is
//! in every chunk that has a path of it, so that no chunk changes with another. In the commit `/etc` is `/usr/etc`,
//! which machines make theirs of. Extended attributes are in the repository alone: importers take them from there.
//!
//! The objects are made here, not by libostree through the crate ostree-ext, which is what importers are made of: that
//! puts the day and the build machine's architecture into an image, packs as it sees fit, compresses on one thread, and
//! has the crate flate2 use the build machine's zlib in all of strata, so that no two machines would make the same
//! bytes.

mod commit;
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;

use self::commit::{Commit, Object};
use super::chunk::Chunk;
use super::delta::{Entry, Kind};
use super::tar::{Contents, Tree};
use crate::digest::Digest;
use crate::selinux::Contexts;

/// Label: the commit.
const COMMIT: &str = "ostree.commit";
/// Label: diff id of the last layer that is of the commit.
const FINAL_DIFF_ID: &str = "ostree.final-diffid";
/// Label and key of the commit's metadata: machines boot it.
const BOOTABLE: &str = "ostree.bootable";
/// Label and key of the commit's metadata: release of its kernel.
const LINUX: &str = "ostree.linux";

const REPOSITORY: &str = "sysroot/ostree/repo";
/// The mode of repositories in which attributes are files of their own.
const CONFIG: &str = "[core]\nrepo_version=1\nmode=bare-split-xattrs\n";
/// Directories of a repository, but for those of objects.
const SUBDIRECTORIES: [&str; 8] =
    ["extensions", "refs", "refs/heads", "refs/mirrors", "refs/remotes", "state", "tmp", "tmp/cache"];

/// What a commit says of itself.
#[derive(Debug)]
pub struct About {
    /// Version of the image.
    pub version: String,
    /// When it was made, UTC seconds.
    pub created: u64,
    /// Whether machines boot it.
    pub bootable: bool,
    /// The labels of its files, if a policy is installed in it. No other form of an image has labels: who unpacks it
    /// makes them.
    pub contexts: Option<Contexts>,
}

/// A tree in the form that this module describes, and the contents of its chunks' files.
pub struct Encapsulated<'a> {
    /// In layer order.
    pub chunks: Vec<Chunk>,
    tree: Tree<'a>,
    /// Of files of the repository, by path.
    contents: BTreeMap<PathBuf, Content<'a>>,
    labels: BTreeMap<&'static str, String>,
}

enum Content<'a> {
    Bytes(Vec<u8>),
    /// That of a file of the tree.
    Of(&'a Entry),
}

impl Contents for Encapsulated<'_> {
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + '_>> {
        match self.contents.get(&entry.path) {
            Some(Content::Bytes(bytes)) => Ok(Box::new(bytes.as_slice())),
            Some(Content::Of(file)) => self.tree.open(file),
            None => Ok(Box::new(io::empty())),
        }
    }
}

/// Makes a commit of the tree `root`, all of which is in `chunks`, and divides it as they do.
#[tracing::instrument(level = "info", skip_all)]
pub fn encapsulate<'a>(root: &'a Path, chunks: &'a [Chunk], about: &About) -> Result<Encapsulated<'a>> {
    let entries: Vec<&Entry> = chunks.iter().flat_map(|chunk| &chunk.entries).collect();
    let commit = commit::commit(&Tree(root), &entries, about)?;
    let mut all = Encapsulated {
        chunks: Vec::new(),
        tree: Tree(root),
        contents: BTreeMap::new(),
        labels: commit.labels(),
    };
    all.add_commit(&entries, &commit);
    for chunk in chunks {
        all.add_chunk(chunk, &commit.objects);
    }
    Ok(all)
}

impl<'a> Encapsulated<'a> {
    /// The labels of its image, whose last layer has the diff id `last`.
    pub fn labels(&self, last: Digest) -> BTreeMap<String, String> {
        let last = [(FINAL_DIFF_ID, last.to_string())];
        self.labels.clone().into_iter().chain(last).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Adds the layer of the commit: directories, and the objects of metadata, of which importers expect the commit
    /// first.
    fn add_commit(&mut self, entries: &[&Entry], commit: &Commit<'_>) {
        let mut directories = repository(0..=u8::MAX);
        directories.extend(SUBDIRECTORIES.map(|name| {
            let path = Path::new(REPOSITORY).join(name);
            (path.clone(), plain(path, Kind::Directory, 0o755))
        }));
        directories.extend(entries.iter().filter_map(|entry| directory(entry)));
        let mut all: Vec<Entry> = directories.into_values().collect();
        all.push(self.file(Path::new(REPOSITORY).join("config"), CONFIG.as_bytes()));
        all.push(self.file(object_path(&commit.checksum(), "commit"), &commit.bytes));
        for ((checksum, kind), bytes) in &commit.metadata {
            all.push(self.file(object_path(checksum, kind), bytes));
        }
        self.chunks.push(Chunk { name: "commit".to_owned(), sources: Vec::new(), entries: all });
    }

    /// Adds the layer of a chunk: directories; attributes; objects, each after a link to its attributes; and paths.
    fn add_chunk(&mut self, chunk: &'a Chunk, objects: &BTreeMap<&Path, Object>) {
        let own: BTreeMap<Digest, (&Object, &'a Entry)> = chunk
            .entries
            .iter()
            .filter_map(|entry| {
                objects.get(entry.path.as_path()).map(|object| (object.checksum, (object, entry)))
            })
            .collect();
        let xattrs: BTreeMap<Digest, &[u8]> =
            own.values().map(|(object, _)| (object.xattrs_checksum(), object.xattrs.as_slice())).collect();
        let prefixes: BTreeSet<u8> =
            own.keys().chain(xattrs.keys()).map(|digest| digest.as_bytes()[0]).collect();
        let mut directories = repository(prefixes);
        directories.extend(chunk.entries.iter().filter_map(directory));
        let mut all: Vec<Entry> = directories.into_values().collect();
        for (checksum, bytes) in xattrs {
            all.push(self.file(object_path(&checksum, "file-xattrs"), bytes));
        }
        for (checksum, (object, entry)) in own {
            let to = object_path(&object.xattrs_checksum(), "file-xattrs");
            all.push(plain(object_path(&checksum, "file-xattrs-link"), Kind::HardLink { to }, 0o644));
            let path = object_path(&checksum, "file");
            self.contents.insert(path.clone(), Content::Of(entry));
            all.push(Entry { path, ..bare(entry) });
        }
        all.extend(chunk.entries.iter().filter_map(|entry| link(entry, objects)));
        self.chunks.push(Chunk { name: chunk.name.clone(), sources: chunk.sources.clone(), entries: all });
    }

    /// A file of the repository with this content.
    fn file(&mut self, path: PathBuf, bytes: &[u8]) -> Entry {
        self.contents.insert(path.clone(), Content::Bytes(bytes.to_owned()));
        plain(path, Kind::File { size: bytes.len() as u64 }, 0o644)
    }
}

/// The directories on the way to objects whose checksums begin with `prefixes`, by path.
fn repository(prefixes: impl IntoIterator<Item = u8>) -> BTreeMap<PathBuf, Entry> {
    let objects = Path::new(REPOSITORY).join("objects");
    let parents = objects.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
    let parents: Vec<PathBuf> = parents.collect();
    let own = prefixes.into_iter().map(|prefix| objects.join(format!("{prefix:02x}")));
    let all = parents.into_iter().chain(own);
    all.map(|path| (path.clone(), plain(path, Kind::Directory, 0o755))).collect()
}

fn object_path(checksum: &Digest, kind: &str) -> PathBuf {
    let hex = checksum.hex();
    let (prefix, rest) = hex.split_at(2);
    Path::new(REPOSITORY).join(format!("objects/{prefix}/{rest}.{kind}"))
}

fn plain(path: PathBuf, kind: Kind, mode: u32) -> Entry {
    Entry { path, kind, mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
}

/// An entry without what the repository has of it, or ostree doesn't keep.
fn bare(entry: &Entry) -> Entry {
    Entry { mtime: 0, xattrs: BTreeMap::new(), ..entry.clone() }
}

/// A directory of the tree, by path.
fn directory(entry: &Entry) -> Option<(PathBuf, Entry)> {
    (entry.kind == Kind::Directory).then(|| (entry.path.clone(), bare(entry)))
}

/// A path of the tree as a link to its object. An empty file is no link: who writes to it in a container would write
/// to the object, and to all other empty files.
fn link(entry: &Entry, objects: &BTreeMap<&Path, Object>) -> Option<Entry> {
    let file = match &entry.kind {
        Kind::File { size: 0 } => return Some(bare(entry)),
        Kind::HardLink { to } => to,
        _ => &entry.path,
    };
    let to = object_path(&objects.get(file.as_path())?.checksum, "file");
    Some(Entry { kind: Kind::HardLink { to }, ..bare(entry) })
}
