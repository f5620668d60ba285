//! What a layer's own tree adds, changes and removes over the layers below it.
//!
//! The tree is the upper directory of an overlay mounted with `userxattr` (kernel `overlayfs.rst`): a
//! character device 0/0 is a whiteout, a directory with the xattr `user.overlay.opaque` hides all that is
//! below it. The bottom layer's tree is an ordinary one, and has nothing below. Scriptlets touch much that
//! they do not change; what equals the layers below in everything but its time is not in the delta.
//!
//! Run it inside strata's user namespace, where ids are those of the image.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use crate::error::hinted;
use crate::install::{caps, ima};

/// A path of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the image, relative to its root; empty for the root itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner, as the image sees it.
    pub uid: u32,
    /// Group, as the image sees it.
    pub gid: u32,
    /// Time of last change, UTC seconds.
    pub mtime: i64,
    /// `security.capability` (revision 2), `security.ima` and `user.*`.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// What an [`Entry`] is. Devices, fifos and sockets are no content of an image: ostree can't store them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: OsString,
    },
    /// Another name of a [`Kind::File`] of the same delta.
    HardLink {
        /// That file's path, which sorts before this one.
        to: PathBuf,
    },
    /// The removal of what the layers below have here.
    Whiteout,
}

/// What a layer is over the layers below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// What is new or changed.
    pub changed: BTreeMap<PathBuf, Entry>,
    /// Directories that did not change, on the way to something that did.
    pub parents: BTreeMap<PathBuf, Entry>,
    /// What is gone, or makes place for a thing of another type.
    pub removed: BTreeSet<PathBuf>,
}

/// Compares the tree `upper` with the trees below it, `lower`, top first.
///
/// `mtime_of` gives the time a path keeps in the image, in UTC seconds; 0 where it gives none.
#[tracing::instrument(level = "info", skip_all)]
pub fn delta(upper: &Path, lower: &[PathBuf], mtime_of: &dyn Fn(&Path) -> Option<i64>) -> Result<Delta> {
    let mut walk = Walk {
        upper,
        mtime_of,
        found: Vec::new(),
        same: BTreeSet::new(),
        removed: BTreeSet::new(),
        links: BTreeMap::new(),
    };
    walk.start(Below(lower.to_vec()))
        .with_context(|| format!("comparing {} with the layers below", upper.display()))?;
    Ok(walk.finish())
}

struct Walk<'a> {
    upper: &'a Path,
    mtime_of: &'a dyn Fn(&Path) -> Option<i64>,
    /// In walking order, which is sorted.
    found: Vec<Entry>,
    /// Paths of `found` that equal those of the layers below.
    same: BTreeSet<PathBuf>,
    removed: BTreeSet<PathBuf>,
    /// Names of each file that has more than one, by device and inode; in walking order.
    links: BTreeMap<(u64, u64), Vec<PathBuf>>,
}

impl Walk<'_> {
    fn start(&mut self, below: Below) -> Result<()> {
        let meta = fs::symlink_metadata(self.upper)?;
        let top = match below.0.first() {
            Some(path) => Some((path.clone(), fs::symlink_metadata(path)?)),
            None => None,
        };
        self.visit(Path::new(""), &meta, top.map(|(path, meta)| Found { path, meta, below }), false)
    }

    /// Everything at and below one path of the upper tree, given what the layers below have there.
    fn visit(&mut self, path: &Path, meta: &Metadata, found: Option<Found>, opaque: bool) -> Result<()> {
        let at = self.upper.join(path);
        if is_whiteout(meta) {
            self.removed.extend(found.map(|_| path.to_owned()));
            return Ok(());
        }
        let entry = self.entry(path, &at, meta)?;
        if let Some(found) = &found {
            if found.meta.is_dir() != meta.is_dir() {
                self.removed.insert(path.to_owned());
            } else if self.equals(&entry, &at, found)? {
                self.same.insert(path.to_owned());
            }
        }
        if meta.is_file() && meta.nlink() > 1 {
            self.links.entry((meta.dev(), meta.ino())).or_default().push(path.to_owned());
        }
        self.found.push(entry);
        if meta.is_dir() {
            let opaque = opaque || is_opaque(&at)?;
            self.visit_children(path, found.map(|f| f.below).unwrap_or_default(), opaque)?;
        }
        Ok(())
    }

    fn visit_children(&mut self, path: &Path, below: Below, opaque: bool) -> Result<()> {
        let names = names(&self.upper.join(path))?;
        for name in &names {
            let child = path.join(name);
            if name.as_bytes().starts_with(b".wh.") {
                return Err(hinted(
                    format!(
                        "packing /{}: names starting with `.wh.` mean a removal in an image",
                        child.display()
                    ),
                    "rename the file or remove it in the layer's manifest",
                ));
            }
            let at = self.upper.join(&child);
            let meta = fs::symlink_metadata(&at).with_context(|| format!("reading {}", at.display()))?;
            self.visit(&child, &meta, below.find(name)?, opaque)?;
        }
        if opaque {
            self.removed.extend(below.names()?.difference(&names).map(|name| path.join(name)));
        }
        Ok(())
    }

    fn equals(&self, entry: &Entry, at: &Path, found: &Found) -> Result<bool> {
        let lower = self.entry(&entry.path, &found.path, &found.meta)?;
        Ok(*entry == lower && (!matches!(entry.kind, Kind::File { .. }) || same_content(at, &found.path)?))
    }

    fn entry(&self, path: &Path, at: &Path, meta: &Metadata) -> Result<Entry> {
        entry(path, at, meta, (self.mtime_of)(path).unwrap_or(0))
    }

    fn finish(mut self) -> Delta {
        let mut hard_links = BTreeMap::new();
        for names in self.links.into_values() {
            // a link must not point into the layers below: all names of a file ship, or none
            if names.iter().all(|name| self.same.contains(name)) {
                continue;
            }
            for name in &names {
                self.same.remove(name);
            }
            hard_links.extend(names[1..].iter().map(|name| (name.clone(), names[0].clone())));
        }
        for entry in &mut self.found {
            if let Some(to) = hard_links.remove(&entry.path) {
                entry.kind = Kind::HardLink { to };
            }
        }
        let (same, changed): (Vec<_>, Vec<_>) =
            self.found.into_iter().partition(|entry| self.same.contains(&entry.path));
        let (mut same, changed) = (by_path(same), by_path(changed));
        let mut parents = BTreeMap::new();
        let mut last = None;
        for dir in changed.keys().chain(&self.removed).map(|path| path.parent()) {
            // most are in the directory of the one before
            if dir != last {
                parents.extend(
                    dir.into_iter().flat_map(Path::ancestors).filter_map(|dir| same.remove_entry(dir)),
                );
            }
            last = dir;
        }
        Delta { changed, parents, removed: self.removed }
    }
}

/// From entries in order this is made at once, not one by one.
fn by_path(entries: Vec<Entry>) -> BTreeMap<PathBuf, Entry> {
    entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
}

/// Describes the file at `at` as the image's `path`.
pub(crate) fn entry(path: &Path, at: &Path, meta: &Metadata, mtime: i64) -> Result<Entry> {
    let context = || format!("reading {}", at.display());
    let kind = match meta.file_type() {
        t if t.is_dir() => Kind::Directory,
        t if t.is_file() => Kind::File { size: meta.len() },
        t if t.is_symlink() => Kind::Symlink { target: fs::read_link(at).with_context(context)?.into() },
        t => {
            let what = match t {
                t if t.is_fifo() => "a fifo",
                t if t.is_socket() => "a socket",
                _ => "a device",
            };
            return Err(hinted(
                format!("packing /{}: it is {what}, which an image can't hold", path.display()),
                "remove it in the layer's manifest with [[remove]], or let tmpfiles.d make it",
            ));
        }
    };
    Ok(Entry {
        path: path.to_owned(),
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime,
        xattrs: xattrs(at).with_context(context)?,
    })
}

/// The trees below, top first, all of them at the same directory of the image.
#[derive(Default)]
struct Below(Vec<PathBuf>);

/// A path in the layers below.
struct Found {
    path: PathBuf,
    meta: Metadata,
    /// If it is a directory: those it is merged from.
    below: Below,
}

impl Below {
    /// What the merged layers have under `name`.
    fn find(&self, name: &OsStr) -> Result<Option<Found>> {
        let mut top = None;
        let mut dirs = Vec::new();
        for dir in &self.0 {
            let path = dir.join(name);
            let meta = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("reading {}", path.display()))?,
            };
            if is_whiteout(&meta) || (!meta.is_dir() && top.is_some()) {
                break;
            }
            let last = !meta.is_dir() || is_opaque(&path)?;
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            top.get_or_insert((path, meta));
            if last {
                break;
            }
        }
        Ok(top.map(|(path, meta)| Found { path, meta, below: Below(dirs) }))
    }

    /// All names the merged layers have.
    fn names(&self) -> Result<BTreeSet<OsString>> {
        let mut all = BTreeSet::new();
        for dir in &self.0 {
            for name in names(dir)? {
                if !all.contains(&name) && self.find(&name)?.is_some() {
                    all.insert(name);
                }
            }
        }
        Ok(all)
    }
}

fn names(dir: &Path) -> Result<BTreeSet<OsString>> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .with_context(|| format!("listing {}", dir.display()))
}

fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(dir: &Path) -> Result<bool> {
    match xattr(dir, OsStr::new("user.overlay.opaque")) {
        Ok(value) if value == b"y" => Ok(true),
        // "x": some children are whiteouts made of xattrs, which only nested overlays make
        Ok(value) => bail!("the xattr user.overlay.opaque of {} is {value:?}: expected `y`", dir.display()),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("reading the xattrs of {}", dir.display())),
    }
}

/// The extended attributes an image carries. SELinux labels are computed where the image is deployed.
fn xattrs(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut list = match rustix::fs::llistxattr_query(path) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        length => vec![0; length?],
    };
    let length = rustix::fs::llistxattr(path, list.as_mut_slice())?;
    let mut kept = BTreeMap::new();
    for name in list[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        match name.strip_prefix(b"user.overlay.") {
            Some(b"opaque" | b"origin" | b"impure" | b"nlink" | b"upper" | b"uuid") => continue,
            Some(_) => bail!(
                "it has the overlay xattr {}: expected an overlay without redirects and metacopy",
                OsStr::from_bytes(name).display()
            ),
            None if name.starts_with(b"user.") || name == caps::XATTR.as_bytes() => {}
            None => continue,
        }
        let name = OsString::from_vec(name.to_vec());
        let value = xattr(path, &name)?;
        match name.to_str() {
            Some(caps::XATTR) => kept.insert(name, capability(value)?),
            Some(ima::IN_TREE) => kept.insert(ima::XATTR.into(), value),
            _ => kept.insert(name, value),
        };
    }
    Ok(kept)
}

/// A file capability as revision 2 (20 bytes), without the root id that ties revision 3 (24 bytes) to a user
/// namespace (linux/capability.h `vfs_ns_cap_data`).
fn capability(mut value: Vec<u8>) -> Result<Vec<u8>> {
    match (value.get(3), value.len()) {
        (Some(2), 20) => Ok(value),
        (Some(3), 24) if value[20..] == [0; 4] => {
            value[3] = 2;
            value.truncate(20);
            Ok(value)
        }
        (Some(3), 24) => bail!("its capabilities belong to another user namespace's root"),
        _ => bail!("its security.capability is malformed ({} bytes)", value.len()),
    }
}

/// The value of an extended attribute of the file itself, were it a link.
pub(crate) fn xattr(path: &Path, name: &OsStr) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; rustix::fs::lgetxattr_query(path, name)?];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
    value.truncate(length);
    Ok(value)
}

fn same_content(a: &Path, b: &Path) -> Result<bool> {
    let open = |path: &Path| -> Result<_> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(BufReader::with_capacity(64 << 10, file))
    };
    streams_equal(open(a)?, open(b)?)
        .with_context(|| format!("comparing {} with {}", a.display(), b.display()))
}

fn streams_equal(mut a: impl BufRead, mut b: impl BufRead) -> io::Result<bool> {
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let n = left.len().min(right.len());
        if n == 0 || left[..n] != right[..n] {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(n);
        b.consume(n);
    }
}
