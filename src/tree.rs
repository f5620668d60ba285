//! The files of an image or of a directory: all that verifying and linting need to know of each.
//!
//! An image's layers are read as streams, in parallel, and put on top of each other in memory as a container
//! runtime would on disk; nothing is unpacked, so neither root nor a user namespace is needed.

mod content;
mod secret;
mod subject;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

pub use self::content::{Content, GROUP, PASSWD, Reading};
pub use self::secret::by_place;
pub use self::subject::Subject;
use crate::image::delta;
use crate::image::extract::{plain, read_layer};
use crate::image::oci::{Image, Layout};
use crate::image::untar::Member;
use crate::install::caps;

/// Most paths of an image: ten times those of a large one.
const MAX_PATHS: usize = 4 << 20;
/// Longest path and target of a link in bytes, as in the kernel.
const PATH_MAX: usize = 4096;
/// Most symbolic links on the way to a file, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// UTC seconds.
    pub mtime: i64,
    /// Value of the xattr `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// Number of the image's layer that brought it, the bottom one being 0.
    pub layer: usize,
}

/// The type of a [`Node`], with what only this type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// With its target.
    Symlink(OsString),
    /// A device node.
    Device {
        /// Whether it is a character device, not a block device.
        character: bool,
        /// Its device number.
        number: u64,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Node {
    /// Type and permission bits, as in a header's FILEMODES.
    pub fn full_mode(&self) -> u32 {
        let kind = match self.kind {
            Kind::Directory => FileType::Directory,
            Kind::File(_) => FileType::RegularFile,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::Device { character: true, .. } => FileType::CharacterDevice,
            Kind::Device { character: false, .. } => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
        };
        kind.as_raw_mode() | self.mode
    }
}

/// All paths, relative to the root, without symbolic links on the way to any of them.
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

/// A step from one layer to the next.
enum Change {
    /// A path is put there.
    Put(PathBuf, Node),
    /// A path becomes another name of an earlier one.
    Link { path: PathBuf, to: PathBuf },
    /// A path of the layers below is gone.
    Hide(PathBuf),
    /// All below a path of the layers below is gone.
    HideChildren(PathBuf),
}

impl Tree {
    /// Reads the layers of an image; each must have the digests that the image promises.
    pub fn of_image(layout: &Layout, image: &Image, reading: &Reading) -> Result<Self> {
        let blobs: Vec<_> = image.manifest.layers().iter().zip(image.config.rootfs().diff_ids()).collect();
        let layers = blobs.par_iter().enumerate().map(|(number, (blob, diff_id))| {
            let mut changes = Vec::new();
            read_layer(layout, blob, diff_id, |member, content| {
                ensure!(changes.len() < MAX_PATHS, "the layer has more than {MAX_PATHS} files");
                changes.push(change(member, content, number, reading)?);
                Ok(())
            })
            .with_context(|| format!("reading layer {} of image {}", blob.digest(), image.digest))?;
            Ok(changes)
        });
        let layers: Vec<Vec<Change>> = layers.collect::<Result<_>>()?;
        let mut tree = Self { nodes: BTreeMap::new() };
        for (changes, (blob, _)) in layers.into_iter().zip(blobs) {
            tree.apply(changes)
                .with_context(|| format!("applying layer {} of image {}", blob.digest(), image.digest))?;
        }
        Ok(tree)
    }

    /// Reads the directory `root`, without the file systems mounted below it.
    pub fn of_directory(root: &Path, reading: &Reading) -> Result<Self> {
        let context = || format!("reading the rootfs {}", root.display());
        let device = fs::metadata(root).with_context(context)?.dev();
        let mut found = Vec::new();
        walk(root, Path::new(""), device, &mut found).with_context(context)?;
        let nodes = found.into_par_iter().map(|(path, meta)| {
            let node = on_disk(root, &path, &meta, reading)
                .with_context(|| format!("reading {}", root.join(&path).display()))?;
            Ok((path, node))
        });
        Ok(Self { nodes: nodes.collect::<Result<_>>()? })
    }

    /// All paths with what is there, sorted, directories before their content.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// What is at a path of [`Tree::locate`].
    pub fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Where a path leads when symbolic links on the way to its last name are followed inside the root; with
    /// `follow`, also the last name itself. None if there are too many.
    pub fn locate(&self, path: &Path, follow: bool) -> Option<PathBuf> {
        let mut ahead: Vec<OsString> = names(path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(name);
            let Some(Node { kind: Kind::Symlink(target), .. }) = self.nodes.get(&at) else { continue };
            if ahead.is_empty() && !follow {
                break;
            }
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if target.as_bytes().starts_with(b"/") {
                at.clear();
            } else {
                at.pop();
            }
            ahead.extend(names(Path::new(target)));
        }
        Some(at)
    }

    /// What is at a path in the eyes of who is inside: links on the way to its last name are followed.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.get(&self.locate(Path::new(path), false)?)
    }

    /// The path, and all below it, in the order of [`Tree::iter`].
    pub fn below<'t>(&'t self, path: &Path) -> impl Iterator<Item = (&'t Path, &'t Node)> {
        let range = self.nodes.range(path.to_owned()..).map(|(found, node)| (found.as_path(), node));
        range.take_while(move |(found, _)| found.starts_with(path))
    }

    /// What is in a directory, by name, links on the way to it and itself followed; nothing if it is none.
    pub fn children(&self, dir: &str) -> Vec<(&Path, &Node)> {
        let Some(dir) = self.locate(Path::new(dir), true) else { return Vec::new() };
        self.below(&dir).filter(|(path, _)| path.parent() == Some(dir.as_path())).collect()
    }

    /// The text of a file, if it is one of those whose text is kept; see [`Reading::content`].
    pub fn text(&self, path: &str) -> Option<&[u8]> {
        match &self.at(path)?.kind {
            Kind::File(content) => content.text.as_deref(),
            _ => None,
        }
    }

    /// Puts a layer on top. Its removals concern the layers below only, wherever in the layer they are.
    fn apply(&mut self, changes: Vec<Change>) -> Result<()> {
        for change in &changes {
            match change {
                Change::Hide(path) => self.hide(&self.place(path)?, true),
                Change::HideChildren(path) => self.hide(&self.place(path)?, false),
                Change::Put(..) | Change::Link { .. } => {}
            }
        }
        for change in changes {
            let (path, node) = match change {
                Change::Hide(_) | Change::HideChildren(_) => continue,
                Change::Put(path, node) => (path, node),
                Change::Link { path, to } => {
                    let linked = self.nodes.get(&self.place(&to)?);
                    let missing =
                        || format!("/{} is a link to /{}, which is not there", path.display(), to.display());
                    let node = linked.with_context(missing)?.clone();
                    (path, node)
                }
            };
            self.put(&path, node).with_context(|| format!("placing /{}", path.display()))?;
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, node: Node) -> Result<()> {
        let place = self.place(path)?;
        for parent in place.ancestors().skip(1) {
            match self.nodes.get(parent) {
                Some(Node { kind: Kind::Directory, .. }) => break,
                Some(_) => bail!("/{} is no directory", parent.display()),
                None => drop(self.nodes.insert(parent.to_owned(), implied_directory(node.layer))),
            }
        }
        if node.kind != Kind::Directory {
            self.hide(&place, false);
        }
        self.nodes.insert(place, node);
        ensure!(self.nodes.len() < MAX_PATHS, "the image has more than {MAX_PATHS} files");
        Ok(())
    }

    fn place(&self, path: &Path) -> Result<PathBuf> {
        self.locate(path, false).with_context(|| format!("/{} is in a loop of links", path.display()))
    }

    /// Removes all below `path`, and itself if `inclusive`.
    fn hide(&mut self, path: &Path, inclusive: bool) {
        let below = self.below(path).map(|(found, _)| found).filter(|found| inclusive || *found != path);
        for gone in below.map(Path::to_owned).collect::<Vec<_>>() {
            self.nodes.remove(&gone);
        }
    }
}

/// The names of a path, last first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|name| name.as_os_str().to_owned()).collect()
}

/// What runtimes make of a directory that no layer lists.
fn implied_directory(layer: usize) -> Node {
    Node { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: 0, capability: None, layer }
}

fn change(member: &Member, content: &mut dyn Read, layer: usize, reading: &Reading) -> Result<Change> {
    let longest = member.path.len().max(member.link.len());
    ensure!(longest <= PATH_MAX, "a path in it is {longest} bytes long, expected {PATH_MAX} at most");
    let path = plain(&member.path)?;
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name == b".wh..wh..opq" {
        return Ok(Change::HideChildren(path.parent().unwrap_or(Path::new("")).to_owned()));
    }
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        ensure!(!matches!(hidden, b"" | b"." | b".."), "this whiteout names no file");
        return Ok(Change::Hide(path.with_file_name(OsStr::from_bytes(hidden))));
    }
    let kind = match member.kind {
        _ if member.is_dir() => Kind::Directory,
        _ if member.is_file() => Kind::File(reading.content(&path, content)?),
        _ if member.is_hard_link() => return Ok(Change::Link { path, to: plain(&member.link)? }),
        b'2' => Kind::Symlink(OsStr::from_bytes(&member.link).to_owned()),
        b'3' | b'4' => {
            let (major, minor) = member.device;
            Kind::Device { character: member.kind == b'3', number: rustix::fs::makedev(major, minor) }
        }
        b'6' => Kind::Fifo,
        other => bail!("its tar type `{}` is not supported", other.escape_ascii()),
    };
    let node = Node {
        kind,
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        capability: member.xattrs.get(caps::XATTR.as_bytes()).cloned(),
        layer,
    };
    Ok(Change::Put(path, node))
}

/// Collects `path` and all below it.
fn walk(root: &Path, path: &Path, device: u64, found: &mut Vec<(PathBuf, Metadata)>) -> Result<()> {
    let at = root.join(path);
    let meta = fs::symlink_metadata(&at).with_context(|| format!("reading {}", at.display()))?;
    // the root itself may be given as a link
    let meta = if path.as_os_str().is_empty() { fs::metadata(&at)? } else { meta };
    let is_dir = meta.is_dir();
    let mounted = is_dir && meta.dev() != device;
    found.push((path.to_owned(), meta));
    if is_dir && !mounted {
        let context = || format!("listing {}", at.display());
        for entry in fs::read_dir(&at).with_context(context)? {
            walk(root, &path.join(entry.with_context(context)?.file_name()), device, found)?;
        }
    }
    Ok(())
}

fn on_disk(root: &Path, path: &Path, meta: &Metadata, reading: &Reading) -> Result<Node> {
    let at = root.join(path);
    let kind = match FileType::from_raw_mode(meta.mode()) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File(file_on_disk(path, &at, meta, reading)?),
        FileType::Symlink => Kind::Symlink(fs::read_link(&at)?.into()),
        FileType::CharacterDevice => Kind::Device { character: true, number: meta.rdev() },
        FileType::BlockDevice => Kind::Device { character: false, number: meta.rdev() },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => bail!("it is of no known type"),
    };
    let capability = match delta::xattr(&at, OsStr::new(caps::XATTR)) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
        value => Some(value?),
    };
    Ok(Node {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: meta.mtime(),
        capability,
        layer: 0,
    })
}

fn file_on_disk(path: &Path, at: &Path, meta: &Metadata, reading: &Reading) -> Result<Content> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(at, flags, Mode::empty()) {
        Err(Errno::ACCESS) => Ok(Content::unreadable(meta.len())),
        opened => reading.content(path, &mut File::from(opened?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: Kind) -> Node {
        Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, capability: None, layer: 0 }
    }

    fn put(path: &str, kind: Kind) -> Change {
        Change::Put(path.into(), node(kind))
    }

    fn file(path: &str, size: u64) -> Change {
        put(path, Kind::File(Content { size, ..Content::default() }))
    }

    fn link(path: &str, target: &str) -> Change {
        put(path, Kind::Symlink(target.into()))
    }

    fn tree(layers: Vec<Vec<Change>>) -> Result<Tree> {
        let mut tree = Tree { nodes: BTreeMap::new() };
        layers.into_iter().try_for_each(|layer| tree.apply(layer))?;
        Ok(tree)
    }

    /// `PATH`, of a file `PATH=SIZE`, of all that is no directory.
    fn listing(tree: &Tree) -> Vec<String> {
        let line = |(path, node): (&Path, &Node)| match &node.kind {
            Kind::Directory => None,
            Kind::File(content) => Some(format!("{}={}", path.display(), content.size)),
            _ => Some(path.display().to_string()),
        };
        tree.iter().filter_map(line).collect()
    }

    #[test]
    fn a_layer_hides_what_is_below_it_and_nothing_of_its_own() {
        let below = || vec![file("a/x", 1), file("a/y", 2), file("a-b", 3), file("c/d/e", 4)];
        for (layer, expected) in [
            (vec![file("a/new", 9), Change::Hide("a".into())], vec!["a/new=9", "a-b=3", "c/d/e=4"]),
            (vec![file("a/x", 9), Change::HideChildren("a".into())], vec!["a/x=9", "a-b=3", "c/d/e=4"]),
            (vec![Change::HideChildren("".into())], vec![]),
            (
                vec![Change::Hide("c/d/e".into()), Change::Hide("none".into())],
                vec!["a/x=1", "a/y=2", "a-b=3"],
            ),
            (vec![link("c", "a")], vec!["a/x=1", "a/y=2", "a-b=3", "c"]),
            (vec![put("c", Kind::Directory)], vec!["a/x=1", "a/y=2", "a-b=3", "c/d/e=4"]),
        ] {
            assert_eq!(listing(&tree(vec![below(), layer]).unwrap()), expected);
        }
    }

    #[test]
    fn hard_links_keep_the_content_they_were_made_of() {
        let names = Change::Link { path: "b".into(), to: "a".into() };
        let across = Change::Link { path: "c".into(), to: "b".into() };
        let tree = tree(vec![vec![file("a", 1), names], vec![file("a", 2), across]]).unwrap();
        assert_eq!(listing(&tree), ["a=2", "b=1", "c=1"]);
    }

    #[test]
    fn links_on_the_way_are_followed_inside_the_root() {
        let layers = vec![
            vec![
                file("usr/lib/x", 1),
                link("lib", "usr/lib"),
                link("up", "../../../usr"),
                link("abs", "/usr/lib"),
            ],
            vec![file("lib/y", 2), file("up/lib/z", 3), Change::Hide("abs/x".into())],
        ];
        let tree = tree(layers).unwrap();
        assert_eq!(listing(&tree), ["abs", "lib", "up", "usr/lib/y=2", "usr/lib/z=3"]);
        let located = |path: &str, follow| tree.locate(Path::new(path), follow);
        assert_eq!(located("/lib", false), Some("lib".into()));
        assert_eq!(located("/lib", true), Some("usr/lib".into()));
        assert_eq!(located("/abs/../../bin", false), Some("bin".into()));
    }

    #[test]
    fn hostile_layers_are_refused() {
        let loops = vec![link("a", "b"), link("b", "a"), file("a/x", 1)];
        let below_a_file = vec![file("a", 1), file("a/x", 1)];
        let to_nothing = vec![Change::Link { path: "b".into(), to: "a".into() }];
        let root_is_a_file = vec![file("", 1), file("x", 1)];
        for (layer, message) in [
            (loops, "loop of links"),
            (below_a_file, "/a is no directory"),
            (to_nothing, "which is not there"),
            (root_is_a_file, "is no directory"),
        ] {
            let error = tree(vec![layer]).err().map(|e| format!("{e:#}")).unwrap_or_default();
            assert!(error.contains(message), "{error}");
        }
        let reading = Reading { algorithms: [].into() };
        for path in ["../x", "a/../../x", &"a/".repeat(3000), "a/.wh...", "a/.wh."] {
            let member = Member { kind: b'0', path: path.as_bytes().to_vec(), ..Member::default() };
            assert!(change(&member, &mut std::io::empty(), 0, &reading).is_err(), "{path}");
        }
    }
}
