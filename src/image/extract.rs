//! Somebody else's image as a tree: the files of its layers, one after the other, whiteouts applied.
//!
//! Layers are hostile until proven otherwise. Every path is taken apart into plain names; the directory a name
//! is in is opened with openat2(2) `RESOLVE_IN_ROOT`, so a symbolic link on the way stays inside, as it would
//! for chroot, and what happens to the name itself never follows a link. Blobs are verified against digest,
//! size and diff id; the tree has its final name only when all of them were.
//!
//! Left out are device nodes and fifos, which no image of ours holds, and xattrs other than `user.*`,
//! `security.capability` and `security.ima`, which a tree has under another name; those of overlays too, which would
//! mean something when the tree is mounted.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::Descriptor;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::oci::{Image, Layout, digest_of};
use super::untar::{Member, Reader, decompress};
use crate::digest::{Digest, Hasher};
use crate::install::{caps, ima};

/// Unpacks `image` of `layout` as the new directory `target`.
///
/// Run it inside strata's user namespace, where ids are those of the image.
pub fn extract(layout: &Layout, image: &Image, target: &Path) -> Result<()> {
    let context = || format!("unpacking the image {} into {}", image.digest, target.display());
    ensure!(!target.exists(), "{}: it exists already", context());
    let beside = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished =
        tempfile::Builder::new().prefix(".unpacking-").tempdir_in(beside).with_context(context)?;
    let root = unfinished.path().join("root");
    fs::create_dir(&root).with_context(context)?;
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let root_fd = rustix::fs::open(&root, flags, Mode::empty()).with_context(context)?;
    rustix::fs::chmod(&root, Mode::from(0o755)).with_context(context)?;
    for (blob, diff_id) in image.manifest.layers().iter().zip(image.config.rootfs().diff_ids()) {
        let mut layer = LayerTree { root: &root_fd, written: BTreeSet::new() };
        read_layer(layout, blob, diff_id, |member, content| layer.add(member, content))
            .with_context(|| format!("{}: layer {}", context(), blob.digest()))?;
    }
    fs::rename(&root, target).with_context(context)
}

/// Unpacks a tar onto the tree `root`, as an image's layer.
pub(crate) fn onto(tar: impl Read, root: &Path) -> Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())
        .with_context(|| format!("opening {}", root.display()))?;
    let mut layer = LayerTree { root: &root, written: BTreeSet::new() };
    read_members(tar, |member, content| layer.add(member, content))
}

/// Shows each member of a layer, with its content, to `visit`. Only when this succeeds have blob and content
/// the digests that `blob` and `diff_id` promise.
pub(crate) fn read_layer(
    layout: &Layout,
    blob: &Descriptor,
    diff_id: &str,
    visit: impl FnMut(&Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let path = layout.blob(&digest_of(blob)?);
    let found = Digest::of_reader(&mut File::open(&path)?)?;
    ensure!(found == (digest_of(blob)?, blob.size()), "the blob is damaged: it is {}", found.0);
    let mut stream = Digesting { inner: decompress(File::open(&path)?)?, hasher: Hasher::new(io::sink()) };
    read_members(BufReader::with_capacity(64 << 10, &mut stream), visit)?;
    // what follows the end of the archive is part of the digest
    io::copy(&mut stream, &mut io::sink())?;
    let (_, found, _) = stream.hasher.finish();
    ensure!(found.to_string() == diff_id, "its content is {found}, expected {diff_id}");
    Ok(())
}

fn read_members(tar: impl Read, mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<()>) -> Result<()> {
    let mut tar = Reader::new(tar);
    while let Some(member) = tar.next_member()? {
        visit(&member, &mut tar.content())
            .with_context(|| format!("unpacking {}", member.path.escape_ascii()))?;
    }
    Ok(())
}

/// The tree while one layer is applied to it.
struct LayerTree<'a> {
    root: &'a OwnedFd,
    /// Paths of this layer, with all directories above them: its whiteouts don't concern them.
    written: BTreeSet<PathBuf>,
}

/// Where a path is: the directory, opened, and the name in it.
struct Place<'a> {
    dir: OwnedFd,
    name: &'a OsStr,
}

impl LayerTree<'_> {
    fn add(&mut self, member: &Member, content: &mut dyn Read) -> Result<()> {
        let path = plain(&member.path)?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        if name == b".wh..wh..opq" {
            return self.hide_children(path.parent().unwrap_or(Path::new("")));
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            ensure!(!matches!(hidden, b"" | b"." | b".."), "this whiteout names no file");
            return self.hide(&path.with_file_name(OsStr::from_bytes(hidden)));
        }
        let written = match member.kind {
            _ if member.is_dir() => self.add_directory(&path, member)?,
            _ if member.is_file() => self.add_file(&path, member, content)?,
            _ if member.is_hard_link() => self.add_link(&path, member)?,
            b'2' => self.add_symlink(&path, member)?,
            b'3' | b'4' | b'6' => false,
            other => bail!("its tar type `{}` is not supported", other.escape_ascii()),
        };
        if written {
            self.written.extend(path.ancestors().map(Path::to_owned));
        }
        Ok(())
    }

    fn add_directory(&self, path: &Path, member: &Member) -> Result<bool> {
        if !path.as_os_str().is_empty() {
            let Place { dir, name } = self.place(path)?;
            if file_type(&dir, name)? != Some(FileType::Directory) {
                remove(&dir, name)?;
                rustix::fs::mkdirat(&dir, name, Mode::from(0o700))?;
            }
        }
        // the last name is a directory now, not a link
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = self.open(path, flags)?;
        set_attributes(&opened, member)?;
        Ok(true)
    }

    fn add_file(&self, path: &Path, member: &Member, content: &mut dyn Read) -> Result<bool> {
        let Place { dir, name } = self.place(path)?;
        remove(&dir, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&dir, name, flags, Mode::from(0o600))?);
        io::copy(content, &mut file)?;
        set_attributes(&file, member)?;
        rustix::fs::futimens(&file, &times(member))?;
        Ok(true)
    }

    fn add_link(&self, path: &Path, member: &Member) -> Result<bool> {
        let target = plain(&member.link)?;
        let from = self.place(&target)?;
        let Place { dir, name } = self.place(path)?;
        if target != path {
            remove(&dir, name)?;
            rustix::fs::linkat(&from.dir, from.name, &dir, name, AtFlags::empty())
                .with_context(|| format!("linking it to {}", target.display()))?;
        }
        Ok(true)
    }

    fn add_symlink(&self, path: &Path, member: &Member) -> Result<bool> {
        let Place { dir, name } = self.place(path)?;
        remove(&dir, name)?;
        rustix::fs::symlinkat(OsStr::from_bytes(&member.link), &dir, name)?;
        let (uid, gid) = owner(member)?;
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(&dir, name, &times(member), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(true)
    }

    /// Removes what lower layers have at `path`, as far as this layer has not put something there.
    fn hide(&self, path: &Path) -> Result<()> {
        if self.written.contains(path) {
            return self.hide_children(path);
        }
        let Place { dir, name } = self.place(path)?;
        remove(&dir, name)
    }

    /// Removes what lower layers have in the directory `path`.
    fn hide_children(&self, path: &Path) -> Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = match self.open(path, flags) {
            // no directory, no children
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened?,
        };
        names(&opened)?.iter().try_for_each(|name| self.hide(&path.join(OsStr::from_bytes(name))))
    }

    fn place<'p>(&self, path: &'p Path) -> Result<Place<'p>> {
        let name = path.file_name().context("it names the root directory, expected a path below it")?;
        Ok(Place { dir: self.directory(path.parent().unwrap_or(Path::new("")))?, name })
    }

    /// Opens a directory of the tree, made with its parents if missing; links on the way are followed inside.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        match self.open(path, flags) {
            Err(Errno::NOENT) if !path.as_os_str().is_empty() => {
                let Place { dir, name } = self.place(path)?;
                rustix::fs::mkdirat(&dir, name, Mode::from(0o755))?;
                rustix::fs::chmodat(&dir, name, Mode::from(0o755), AtFlags::empty())?;
                Ok(self.open(path, flags)?)
            }
            opened => opened.with_context(|| format!("opening its directory {}", path.display())),
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match rustix::fs::openat2(self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                // a rename or mount somewhere on the machine while `..` was resolved (openat2(2))
                Err(Errno::AGAIN) => continue,
                opened => return opened,
            }
        }
    }
}

/// The path of a member, relative and without `.`; one with `..` is refused.
pub(crate) fn plain(path: &[u8]) -> Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the path {} leaves the image", path.escape_ascii());
            }
        }
    }
    Ok(plain)
}

fn file_type(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<FileType>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        stat => stat.map(|s| Some(FileType::from_raw_mode(s.st_mode))),
    }
}

/// Removes a file or a whole directory, if it is there.
fn remove(dir: &impl AsFd, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e).with_context(|| format!("removing {}", name.display())),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    for child in names(&opened)? {
        remove(&opened, OsStr::from_bytes(&child))?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Sets owner, mode (chown clears set-id bits) and xattrs (chown clears capabilities).
fn set_attributes(file: &impl AsFd, member: &Member) -> Result<()> {
    let (uid, gid) = owner(member)?;
    rustix::fs::fchown(file, Some(uid), Some(gid)).context("setting its owner")?;
    rustix::fs::fchmod(file, Mode::from(member.mode)).context("setting its mode")?;
    for (name, value) in &member.xattrs {
        let name = if name == ima::XATTR.as_bytes() { ima::IN_TREE.as_bytes() } else { &name[..] };
        let ours = name == caps::XATTR.as_bytes()
            || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if ours {
            rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())
                .with_context(|| format!("setting its xattr {}", name.escape_ascii()))?;
        }
    }
    Ok(())
}

fn owner(member: &Member) -> Result<(Uid, Gid)> {
    // chown(2) takes this id as "leave it"
    ensure!(
        member.uid != u32::MAX && member.gid != u32::MAX,
        "its owner {}:{} is no id",
        member.uid,
        member.gid
    );
    Ok((Uid::from_raw(member.uid), Gid::from_raw(member.gid)))
}

fn times(member: &Member) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: member.mtime, tv_nsec: 0 },
    }
}

/// Digests what is read through it.
struct Digesting<R> {
    inner: R,
    hasher: Hasher<io::Sink>,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.write_all(&buffer[..n])?;
        Ok(n)
    }
}
