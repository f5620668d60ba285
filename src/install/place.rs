//! Putting verified files into the rootfs, and taking files away (rpm: `lib/fsm.c`).
//!
//! A staged file gets its owner and attributes while nobody sees it and is then renamed into place.
//! Directories are made where they belong. Every parent is opened inside the rootfs, so that links, which
//! any package or scriptlet may have made, can't lead out of it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rpm::FileFlags;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::fate::Fate;
use super::owner::{Access, Owners};
use super::payload::{link_sets, mtime};
use super::verified::Verified;
use super::{Package, caps, file_type, has, ima};
use crate::actor::Placed;
use crate::digest::Digest;
use crate::error::HintExt;
use crate::package::header::FileEntry;
use crate::progress::Progress;
use crate::rootfs::{Rootfs, split};

/// Installs the files of `package`, whose payload was unpacked into `staging`; with their signatures if `ima`. What is in
/// those of one name is `verified` then: of a link set one name was, and what the header says of others need not be so.
pub(super) fn install(
    rootfs: &Rootfs,
    package: &Package,
    fates: &[Fate],
    staging: &Path,
    ima: bool,
    verified: &mut Verified,
    progress: &dyn Progress,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let staging = fs::open(staging, flags, Mode::empty()).context("opening the staging directory")?;
    let (owners, linked) = (Owners::read(rootfs)?, link_sets(&package.files));
    let mut placer = Placer { rootfs, staging, owners, linked, parent: None, ima, verified, progress };
    for (file, fate) in package.files.iter().zip(fates).filter(|(f, _)| !has(f, FileFlags::GHOST)) {
        placer
            .place(file, *fate)
            .with_context(|| format!("installing {} of {}", file.path, package.nevra()))?;
    }
    Ok(())
}

/// The regular files of one name that [`install`] put in their place, as far as the header has their SHA-256.
pub(super) fn placed<'p>(package: &'p Package, fates: &[Fate]) -> Vec<Placed<'p>> {
    let linked = link_sets(&package.files);
    let files = package.files.iter().zip(fates).filter(|(file, fate)| {
        **fate == Fate::Create
            && file_type(file.mode) == FileType::RegularFile
            && !has(file, FileFlags::GHOST)
            && !linked.contains_key(&(file.device, file.inode))
    });
    let placed = files.filter_map(|(file, _)| {
        let sha256 = sha256(file)?;
        Some(Placed { path: &file.path, sha256, size: file.size, mtime: file.mtime.into() })
    });
    placed.collect()
}

/// The SHA-256 that the header has of a file: a digest of any other algorithm has another length.
fn sha256(file: &FileEntry) -> Option<Digest> {
    Digest::from_hex(&file.digest).ok()
}

/// Removes the files of `package`, or saves what has been modified. Directories stay while there is
/// something in them.
pub(super) fn erase(
    rootfs: &Rootfs,
    package: &Package,
    fates: &[Fate],
    progress: &dyn Progress,
) -> Result<()> {
    for (file, fate) in package.files.iter().zip(fates).rev() {
        remove(rootfs, file, *fate, progress)
            .with_context(|| format!("removing {} of {}", file.path, package.nevra()))?;
    }
    Ok(())
}

struct Placer<'a> {
    rootfs: &'a Rootfs,
    staging: OwnedFd,
    owners: Owners,
    /// See [`link_sets`].
    linked: HashMap<(u32, u32), Vec<usize>>,
    /// The directory of the file before: files come sorted.
    parent: Option<(String, OwnedFd)>,
    ima: bool,
    verified: &'a mut Verified,
    progress: &'a dyn Progress,
}

impl Placer<'_> {
    fn place(&mut self, file: &FileEntry, fate: Fate) -> Result<()> {
        let saved_as = match fate {
            Fate::Create | Fate::Touch | Fate::AltName => None,
            Fate::Save => Some(".rpmsave"),
            Fate::Backup => Some(".rpmorig"),
            Fate::Skip | Fate::Exclude(_) | Fate::Erase => return Ok(()),
        };
        let access = self.owners.access(file, |kind, name| {
            self.progress.warn(&format!("{}: {kind} {name} does not exist, root owns it instead", file.path));
        });
        if file.path == "/" {
            let root = self.rootfs.open_dir("/")?.context("the rootfs has no directory /")?;
            return own(root.as_fd(), file, access);
        }
        let (directory, name) = split(&file.path)?;
        if self.parent.as_ref().is_none_or(|(path, _)| path != directory) {
            self.parent = Some((directory.to_owned(), self.rootfs.ensure_dir(directory)?));
        }
        let (_, parent) = self.parent.as_ref().expect("it was set above");
        if let Some(suffix) = saved_as {
            set_aside(parent, name, suffix)?;
            self.progress.warn(&format!("{} was modified and is saved as {suffix}", file.path));
        }
        if file_type(file.mode) == FileType::Directory {
            return self.directory(file, parent.as_fd(), name, access);
        }
        if fate == Fate::Touch && touch(file, parent.as_fd(), name, access, self.ima)? {
            return Ok(());
        }
        let staged = file.index.to_string();
        self.finish(file, &staged, access)?;
        let mut target = name.to_owned();
        if fate == Fate::AltName {
            target += ".rpmnew";
            self.progress.warn(&format!(
                "{} is kept as it was modified, the new one is beside it as .rpmnew",
                file.path
            ));
        }
        match fs::renameat(&self.staging, &staged, parent, &target) {
            Err(Errno::ISDIR) => Err(Errno::ISDIR).hint(
                "putting it in place of a directory",
                "a package can't replace a directory by something else unless its %pretrans makes way",
            ),
            result => result.context("putting it in place"),
        }?;
        self.note(file, &target)
    }

    /// Notes what is in a file that was put in its place, if the header has its SHA-256.
    fn note(&mut self, file: &FileEntry, target: &str) -> Result<()> {
        let is_one = !self.linked.contains_key(&(file.device, file.inode));
        if file_type(file.mode) == FileType::RegularFile
            && is_one
            && let Some((_, parent)) = &self.parent
            && let Some(sha256) = sha256(file)
        {
            let stat = fs::statat(parent, target, AtFlags::SYMLINK_NOFOLLOW);
            self.verified.note(&stat.context("looking at it in its place")?, sha256);
        }
        Ok(())
    }

    /// Gives a staged file its owner, mode, capabilities and signature. It is ours already, with the header's mode.
    fn finish(&self, file: &FileEntry, staged: &str, access: Access) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let Access { uid, gid, mode } = access;
        let is_link = file_type(file.mode) == FileType::Symlink;
        if (uid, gid) != (0, 0) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            fs::chownat(&self.staging, staged, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
                .with_context(|| format!("giving it to {uid}:{gid}"))?;
        }
        // chown clears set-id bits, an unknown owner loses them
        if !is_link && ((uid, gid) != (0, 0) || mode != file.mode & 0o7777) {
            fs::chmodat(&self.staging, staged, Mode::from_raw_mode(mode), AtFlags::empty())
                .context("setting its mode")?;
        }
        let has_more = !file.caps.is_empty() || self.ima && !file.ima.is_empty();
        if has_more && file_type(file.mode) == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd =
                fs::openat(&self.staging, staged, flags, Mode::empty()).context("opening the staged file")?;
            set_xattrs(fd.as_fd(), file, self.ima)?;
        }
        Ok(())
    }

    fn directory(&self, file: &FileEntry, parent: BorrowedFd, name: &str, access: Access) -> Result<()> {
        let fd = match self.existing_directory(file, parent, name)? {
            Some(fd) => fd,
            None => {
                fs::mkdirat(parent, name, Mode::RWXU).context("making the directory")?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                fs::openat(parent, name, flags, Mode::empty()).context("opening the directory")?
            }
        };
        own(fd.as_fd(), file, access)
    }

    /// The directory that is there, perhaps behind a link of root or of the directory's owner. Anything
    /// else in its place is removed.
    fn existing_directory(
        &self,
        file: &FileEntry,
        parent: BorrowedFd,
        name: &str,
    ) -> Result<Option<OwnedFd>> {
        let there = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.context("looking at what is there")?,
        };
        match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory => return self.rootfs.open_dir(&file.path),
            FileType::Symlink => {
                if let Some(fd) = self.rootfs.open_dir(&file.path)? {
                    let target = fs::fstat(&fd).context("looking at what is there")?;
                    if there.st_uid == 0 || there.st_uid == target.st_uid {
                        return Ok(Some(fd));
                    }
                }
            }
            _ => {}
        }
        fs::unlinkat(parent, name, AtFlags::empty()).context("removing what is there")?;
        Ok(None)
    }
}

/// Gives the file that is there already its owner, mode, time, capabilities and signature; false if there is none of
/// its type any more.
fn touch(file: &FileEntry, parent: BorrowedFd, name: &str, access: Access, ima: bool) -> Result<bool> {
    let kind = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        result => FileType::from_raw_mode(result.context("looking at what is there")?.st_mode),
    };
    if kind != file_type(file.mode) {
        return Ok(false);
    }
    if kind == FileType::Symlink {
        own_link(file, parent, name, access)?;
    } else {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::empty()).context("opening what is there")?;
        own(fd.as_fd(), file, access)?;
        if rustix::process::geteuid().is_root() {
            set_xattrs(fd.as_fd(), file, ima)?;
        }
    }
    Ok(true)
}

/// Gives a directory or a regular file its owner, mode and time.
fn own(fd: BorrowedFd, file: &FileEntry, access: Access) -> Result<()> {
    let Access { uid, gid, mode } = access;
    if rustix::process::geteuid().is_root() {
        fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .with_context(|| format!("giving it to {uid}:{gid}"))?;
    }
    fs::fchmod(fd, Mode::from_raw_mode(mode)).context("setting its mode")?;
    fs::futimens(fd, &mtime(file)).context("setting its time")
}

/// Gives a symbolic link its owner and time.
fn own_link(file: &FileEntry, parent: BorrowedFd, name: &str, access: Access) -> Result<()> {
    let Access { uid, gid, .. } = access;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if rustix::process::geteuid().is_root() {
        fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
            .with_context(|| format!("giving it to {uid}:{gid}"))?;
    }
    fs::utimensat(parent, name, &mtime(file), flags).context("setting its time")
}

fn set_xattrs(fd: BorrowedFd, file: &FileEntry, ima: bool) -> Result<()> {
    let set = |name, value: Vec<u8>| fs::fsetxattr(fd, name, &value, XattrFlags::empty());
    if let Some(value) = caps::xattr(&file.caps)? {
        set(caps::XATTR, value).with_context(|| format!("setting its capabilities {}", file.caps))?;
    }
    if ima && let Some(value) = ima::signature(file)? {
        set(ima::IN_TREE, value).context("setting its IMA signature")?;
    }
    Ok(())
}

/// Renames what is there, if it still is.
fn set_aside(parent: &OwnedFd, name: &str, suffix: &str) -> Result<()> {
    match fs::renameat(parent, name, parent, format!("{name}{suffix}")) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("saving what is there as {suffix}")),
    }
}

fn remove(rootfs: &Rootfs, file: &FileEntry, fate: Fate, progress: &dyn Progress) -> Result<()> {
    // `/` stays whoever owned it
    if !matches!(fate, Fate::Erase | Fate::Save) || file.path == "/" {
        return Ok(());
    }
    let (directory, name) = split(&file.path)?;
    let Some(parent) = rootfs.open_dir(directory)? else { return Ok(()) };
    if fate == Fate::Save {
        if !has(file, FileFlags::GHOST) {
            set_aside(&parent, name, ".rpmsave")?;
            progress.warn(&format!("{} was modified and is saved as .rpmsave", file.path));
        }
        return Ok(());
    }
    let removed = match fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
        result => result,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        Err(e) => bail!(e),
    }
}
