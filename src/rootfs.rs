//! A tree being composed, and access to it that cannot leave it.
//!
//! Paths are resolved by the kernel with openat2(2) `RESOLVE_IN_ROOT`: absolute symbolic links and `..` in
//! their targets stay inside the tree, as they would after chroot. `..` in a path given here is refused: it
//! is always a mistake or an attack.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use globset::GlobBuilder;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::install::caps::XATTR;

/// A rootfs directory. Paths given to its methods are absolute inside it; symbolic links on the way are
/// resolved inside it too (openat2(2) `RESOLVE_IN_ROOT`), as chroot would.
pub struct Rootfs {
    path: PathBuf,
    root: OwnedFd,
}

/// The biggest file that [`Rootfs::read`] takes, in bytes.
const MAX_READ: u64 = 64 << 20;

/// Bytes of the longest `security.capability`: revision 3 (linux/capability.h `vfs_ns_cap_data`).
const MAX_CAPABILITIES: usize = 24;

/// What [`Rootfs::lstat`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "stat(2)'s own names")]
pub struct Stat {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub nlink: u64,
    pub dev: u64,
    pub ino: u64,
    pub rdev: u64,
}

impl Stat {
    /// The file type bits of `mode`.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

impl From<fs::Stat> for Stat {
    fn from(st: fs::Stat) -> Self {
        Self {
            mode: st.st_mode,
            uid: st.st_uid,
            gid: st.st_gid,
            size: st.st_size as _,
            mtime: st.st_mtime as _,
            nlink: st.st_nlink as _,
            dev: st.st_dev as _,
            ino: st.st_ino as _,
            rdev: st.st_rdev as _,
        }
    }
}

/// "Absent" as a value, any other failure as one.
fn present<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Rootfs {
    /// Opens the directory `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty())
            .with_context(|| format!("opening the rootfs {}", path.display()))?;
        Ok(Self { path: path.to_owned(), root })
    }

    /// Its place on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes, or none if there is no such file. Follows symbolic links; anything but a regular
    /// file of at most 64 MiB is an error: what strata reads as a whole are small texts, which packages
    /// may have put there.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let context = || format!("reading {path} in the rootfs");
        let Some(mut file) = self.open_file(path)? else { return Ok(None) };
        let size = file.metadata().with_context(context)?.len();
        ensure!(size <= MAX_READ, "{}: it has {size} bytes, expected at most {MAX_READ}", context());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(context)?;
        Ok(Some(bytes))
    }

    /// Opens a regular file for reading, or gives none if there is no such file. Follows symbolic links.
    pub fn open_file(&self, path: &str) -> Result<Option<File>> {
        let context = || format!("opening {path} in the rootfs");
        // NONBLOCK: opening a FIFO must fail the check below, not hang
        let opened = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let Some(fd) = present(opened).with_context(context)? else { return Ok(None) };
        let file = File::from(fd);
        ensure!(file.metadata().with_context(context)?.is_file(), "{}: not a regular file", context());
        Ok(Some(file))
    }

    /// Opens a directory, following symbolic links inside the rootfs; none if there is no such directory.
    pub fn open_dir(&self, path: &str) -> Result<Option<OwnedFd>> {
        let opened = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        present(opened).with_context(|| format!("opening the directory {path} in the rootfs"))
    }

    /// Opens a directory, making it and missing parents (mode 0755, owned by root).
    pub fn ensure_dir(&self, path: &str) -> Result<OwnedFd> {
        if let Some(fd) = self.open_dir(path)? {
            return Ok(fd);
        }
        let context = || format!("making the directory {path} in the rootfs");
        let (parent, name) = split(path).with_context(context)?;
        let parent = self.ensure_dir(parent)?;
        match fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            // whatever the umask is
            Ok(()) => fs::chmodat(&parent, name, Mode::from_raw_mode(0o755), AtFlags::empty()),
            // something that is no directory: opening it says so
            Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e),
        }
        .with_context(context)?;
        let made = self.open_dir(path)?;
        made.with_context(|| format!("{}: a file or a dangling symbolic link is in its place", context()))
    }

    /// The path inside the rootfs that a directory really has, its symbolic links resolved; none if there is no
    /// such directory.
    pub fn real_dir(&self, path: &str) -> Result<Option<String>> {
        let context = || format!("resolving the directory {path} of the rootfs");
        let Some(dir) = self.open_dir(path)? else { return Ok(None) };
        let on_host = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let (root, dir) = (on_host(&self.root).with_context(context)?, on_host(&dir).with_context(context)?);
        let inside = dir.strip_prefix(&root).with_context(context)?.to_str();
        Ok(Some(format!("/{}", inside.context("its path is not UTF-8").with_context(context)?)))
    }

    /// Where a file is on the host, or would be: its directory must exist, and is resolved inside the rootfs.
    /// Anything but a regular file in its place is an error: who opens the path would follow a link out.
    pub fn host_path(&self, path: &str) -> Result<PathBuf> {
        let context = || format!("finding {path} of the rootfs on the host");
        let (parent, name) = split(path).with_context(context)?;
        let dir =
            self.open_dir(parent)?.with_context(|| format!("there is no {parent}")).with_context(context)?;
        let kind = self.lstat(path)?.map(|st| st.file_type());
        ensure!(
            kind.is_none_or(|kind| kind == FileType::RegularFile),
            "{}: it is not a regular file",
            context()
        );
        let dir = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).with_context(context)?;
        Ok(dir.join(name))
    }

    /// Writes a regular file in the place of whatever is there (a directory is an error), owned by root,
    /// making missing parents with mode 0755. Not through a symbolic link at the last component.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let context = || format!("writing {path} in the rootfs");
        let (parent, name) = split(path).with_context(context)?;
        let parent = self.ensure_dir(parent)?;
        replace(&parent, name, |aside| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = fs::openat(&parent, aside, flags, Mode::from_raw_mode(0o600))?;
            fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))?;
            Ok(File::from(fd).write_all(bytes)?)
        })
        .with_context(context)
    }

    /// Replaces the content of an existing regular file, which keeps its owner and mode. Follows symbolic
    /// links. Written in place, so that hard links and extended attributes stay: a failure leaves a part.
    pub fn rewrite(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let context = || format!("rewriting {path} in the rootfs");
        let opened = self.resolve(path, OFlags::WRONLY | OFlags::NONBLOCK)?;
        let mut file = File::from(opened.with_context(context)?);
        ensure!(file.metadata().with_context(context)?.is_file(), "{}: not a regular file", context());
        file.set_len(0).and_then(|()| file.write_all(bytes)).with_context(context)
    }

    /// Makes a directory and missing parents (0755, root); an existing one is left as it is.
    pub fn create_dir_all(&self, path: &str) -> Result<()> {
        self.ensure_dir(path).map(drop)
    }

    /// Makes a symbolic link, replacing a non-directory.
    pub fn symlink(&self, path: &str, target: &str) -> Result<()> {
        let context = || format!("making the symbolic link {path} in the rootfs");
        let (parent, name) = split(path).with_context(context)?;
        let parent = self.ensure_dir(parent)?;
        replace(&parent, name, |aside| Ok(fs::symlinkat(target, &parent, aside)?)).with_context(context)
    }

    /// The target of a symbolic link, or none if it is none or does not exist.
    pub fn read_link(&self, path: &str) -> Result<Option<String>> {
        let context = || format!("reading the symbolic link {path} in the rootfs");
        let (parent, name) = split(path).with_context(context)?;
        let Some(parent) = self.open_dir(parent)? else { return Ok(None) };
        match fs::readlinkat(&parent, name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_string().with_context(context)?)),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(e).with_context(context),
        }
    }

    /// Removes a file or a whole tree; true if there was something.
    pub fn remove_all(&self, path: &str) -> Result<bool> {
        let context = || format!("removing {path} from the rootfs");
        let (parent, name) = split(path).with_context(context)?;
        let Some(parent) = self.open_dir(parent)? else { return Ok(false) };
        remove_tree(&parent, name).with_context(context)
    }

    /// Metadata, the last component not followed; none if it does not exist.
    pub fn lstat(&self, path: &str) -> Result<Option<Stat>> {
        let context = || format!("looking at {path} in the rootfs");
        let opened = self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let Some(fd) = present(opened).with_context(context)? else { return Ok(None) };
        Ok(Some(fs::fstat(&fd).with_context(context)?.into()))
    }

    /// Sets owner, then mode (chown clears set-id bits). The last component is not followed; a symbolic
    /// link gets the owner only.
    pub fn set_owner_mode(&self, path: &str, uid: u32, gid: u32, mode: u32) -> Result<()> {
        let context = || format!("setting owner and mode of {path} in the rootfs");
        let (parent, name) = split(path).with_context(context)?;
        let parent = self.open_dir(parent)?.with_context(context)?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fs::chownat(&parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).with_context(context)?;
        let st = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).with_context(context)?;
        if FileType::from_raw_mode(st.st_mode) != FileType::Symlink {
            fs::chmodat(&parent, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
                .with_context(context)?;
        }
        Ok(())
    }

    /// Gives a file another owner; mode and capabilities, which chown clears, stay. The last component is not
    /// followed.
    pub fn set_owner(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        let context = || format!("giving {path} in the rootfs to {uid}:{gid}");
        let stat = self.lstat(path)?.with_context(context)?;
        let file = if stat.file_type() == FileType::RegularFile { self.open_file(path)? } else { None };
        let mut capabilities = [0; MAX_CAPABILITIES];
        let length = match file.as_ref().map(|file| fs::fgetxattr(file, XATTR, &mut capabilities)) {
            None | Some(Err(Errno::NODATA | Errno::OPNOTSUPP)) => 0,
            Some(length) => length.with_context(context)?,
        };
        self.set_owner_mode(path, uid, gid, stat.mode)?;
        match file.filter(|_| length > 0) {
            Some(file) => {
                fs::fsetxattr(file, XATTR, &capabilities[..length], XattrFlags::empty()).with_context(context)
            }
            None => Ok(()),
        }
    }

    /// Names in a directory, sorted; none if it does not exist.
    pub fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let Some(dir) = self.open_dir(path)? else { return Ok(None) };
        names(&dir).map(Some).with_context(|| format!("listing {path} in the rootfs"))
    }

    /// Paths matching a shell glob (`*`, `?`, `[]` within one component), sorted. As in a shell, a leading
    /// dot is only matched by a dot.
    pub fn glob(&self, pattern: &str) -> Result<Vec<String>> {
        let context = || format!("expanding {pattern} in the rootfs");
        let mut found = vec![String::new()];
        for part in components(pattern).with_context(context)? {
            if !part.contains(['*', '?', '[']) {
                found.iter_mut().for_each(|path| *path = format!("{path}/{part}"));
                continue;
            }
            // braces mean nothing to sh's globs, but something to globset's
            let literal = part.replace('{', "[{]").replace('}', "[}]");
            let matcher = GlobBuilder::new(&literal).build().with_context(context)?.compile_matcher();
            let mut next = Vec::new();
            for dir in &found {
                let names = self.list(if dir.is_empty() { "/" } else { dir })?.unwrap_or_default();
                let hidden = part.starts_with('.');
                let matching =
                    names.iter().filter(|n| (hidden || !n.starts_with('.')) && matcher.is_match(n));
                next.extend(matching.map(|name| format!("{dir}/{name}")));
            }
            found = next;
        }
        let mut existing = Vec::with_capacity(found.len());
        for path in found {
            if !path.is_empty() && self.lstat(&path)?.is_some() {
                existing.push(path);
            }
        }
        existing.sort();
        Ok(existing)
    }

    /// openat2 inside the root. The outer error is a path that must not be used, the inner one the kernel's.
    fn resolve(&self, path: &str, flags: OFlags) -> Result<rustix::io::Result<OwnedFd>> {
        let parts = components(path)?;
        let relative = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match fs::openat2(&self.root, &relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // a rename anywhere on the host while `..` of a link was resolved: openat2(2) says try again
                Err(Errno::AGAIN) => {}
                result => return Ok(result),
            }
        }
    }
}

/// The components of an absolute path. `..` and relative paths are refused.
pub(crate) fn components(path: &str) -> Result<Vec<&str>> {
    ensure!(path.starts_with('/'), "`{path}` is not an absolute path");
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    ensure!(!parts.contains(&".."), "`{path}` has a `..` component");
    ensure!(!path.contains('\0'), "`{}` has a NUL byte", path.escape_debug());
    Ok(parts)
}

/// The parent directory and the name of an absolute path.
pub(crate) fn split(path: &str) -> Result<(&str, &str)> {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some((_, "." | "..")) | None => bail!("`{path}` names no file"),
        Some(("", name)) => Ok(("/", name)),
        Some(parts) => Ok(parts),
    }
}

/// Makes something aside with `make` and renames it to `name`, so that a reader sees the old or the new.
fn replace(dir: &OwnedFd, name: &str, make: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    // rpm's own separator for unfinished files: no package or person uses it
    let aside = format!("{name};strata");
    remove_tree(dir, &aside)?;
    let made = make(&aside).and_then(|()| Ok(fs::renameat(dir, &aside, dir, name)?));
    if made.is_err() {
        // the first error is the one to tell; the leftover is harmless
        let _ = fs::unlinkat(dir, &aside, AtFlags::empty());
    }
    made
}

fn names(dir: &OwnedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_str().context("a file name is not UTF-8")?.to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes `name` from `dir` with all that is below it, symbolic links not followed.
fn remove_tree(dir: &OwnedFd, name: &str) -> Result<bool> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e).with_context(|| format!("removing {name}")),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = fs::openat(dir, name, flags, Mode::empty()).with_context(|| format!("opening {name}"))?;
    for child in names(&tree)? {
        remove_tree(&tree, &child)?;
    }
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR).with_context(|| format!("removing {name}"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn rootfs() -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        std::fs::create_dir(&inside).unwrap();
        let rootfs = Rootfs::open(&inside).unwrap();
        (dir, rootfs)
    }

    #[test]
    fn links_stay_inside() {
        let (dir, rootfs) = rootfs();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        symlink("../secret", rootfs.path().join("up")).unwrap();
        symlink(dir.path(), rootfs.path().join("out")).unwrap();
        assert_eq!(rootfs.read("/up").unwrap(), None);
        assert_eq!(rootfs.read("/out/secret").unwrap(), None);

        rootfs.write("/secret", b"inside", 0o600).unwrap();
        assert_eq!(rootfs.read("/up").unwrap().as_deref(), Some(&b"inside"[..]));
        rootfs.write("/up", b"replaced", 0o644).unwrap();
        assert_eq!(rootfs.read("/secret").unwrap().as_deref(), Some(&b"inside"[..]));
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"host");
    }

    #[test]
    fn refuses_dot_dot_and_relative_paths() {
        let (_dir, rootfs) = rootfs();
        for path in ["/a/../../x", "/..", "etc/passwd", "", "/a\0b"] {
            assert!(rootfs.write(path, b"", 0o644).is_err(), "{path:?}");
            assert!(rootfs.lstat(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn rewriting_keeps_links_and_mode() {
        let (_dir, rootfs) = rootfs();
        rootfs.write("/real", b"a longer text", 0o640).unwrap();
        rootfs.symlink("/link", "/real").unwrap();
        rootfs.rewrite("/link", b"new").unwrap();
        assert_eq!(rootfs.read("/real").unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(rootfs.lstat("/real").unwrap().unwrap().mode & 0o7777, 0o640);
        assert!(rootfs.read_link("/link").unwrap().is_some());
        assert!(rootfs.rewrite("/absent", b"").is_err());
    }

    #[test]
    fn a_directory_is_not_replaced_by_a_file() {
        let (_dir, rootfs) = rootfs();
        rootfs.create_dir_all("/etc/x").unwrap();
        assert!(rootfs.write("/etc/x", b"", 0o644).is_err());
        assert!(rootfs.symlink("/etc/x", "y").is_err());
        assert_eq!(rootfs.list("/etc").unwrap().unwrap(), ["x"]);
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let (_dir, rootfs) = rootfs();
        // the umask of this thread only
        #[expect(deprecated, reason = "its successor is unsafe for flags that are not used here")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::FS).unwrap();
        rustix::process::umask(Mode::from_raw_mode(0o077));
        rootfs.write("/a/b/file", b"", 0o4755).unwrap();
        assert_eq!(rootfs.lstat("/a/b/file").unwrap().unwrap().mode & 0o7777, 0o4755);
        assert_eq!(rootfs.lstat("/a/b").unwrap().unwrap().mode & 0o7777, 0o755);
    }

    #[test]
    fn removes_trees_without_following_links() {
        let (dir, rootfs) = rootfs();
        std::fs::write(dir.path().join("keep"), "").unwrap();
        rootfs.write("/t/a/file", b"", 0o644).unwrap();
        rootfs.symlink("/t/out", dir.path().to_str().unwrap()).unwrap();
        assert!(rootfs.remove_all("/t").unwrap());
        assert!(!rootfs.remove_all("/t").unwrap());
        assert!(dir.path().join("keep").exists());
    }

    #[test]
    fn globs_match_within_a_component() {
        let (_dir, rootfs) = rootfs();
        for path in ["/m/6.1/vmlinuz", "/m/6.2/vmlinuz", "/m/.hidden/vmlinuz", "/m/6.2/{a}"] {
            rootfs.write(path, b"", 0o644).unwrap();
        }
        assert_eq!(rootfs.glob("/m/*/vmlinuz").unwrap(), ["/m/6.1/vmlinuz", "/m/6.2/vmlinuz"]);
        assert_eq!(rootfs.glob("/m/6.[2-9]/{?}").unwrap(), ["/m/6.2/{a}"]);
        assert_eq!(rootfs.glob("/none/*").unwrap(), Vec::<String>::new());
        assert_eq!(rootfs.glob("/m/6.1").unwrap(), ["/m/6.1"]);
    }

    #[test]
    fn neither_a_fifo_nor_a_huge_file_is_read() {
        let (_dir, rootfs) = rootfs();
        fs::mknodat(rootfs.open_dir("/").unwrap().unwrap(), "pipe", FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(rootfs.read("/pipe").is_err());
        File::create(rootfs.path().join("huge")).unwrap().set_len(10 << 30).unwrap();
        assert!(format!("{:#}", rootfs.read("/huge").unwrap_err()).contains("10737418240 bytes"));
    }

    #[test]
    fn files_on_the_host_are_in_the_rootfs() {
        let (dir, rootfs) = rootfs();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        rootfs.create_dir_all("/real").unwrap();
        symlink("/../real", rootfs.path().join("db")).unwrap();
        assert_eq!(rootfs.host_path("/db/file").unwrap(), rootfs.path().join("real/file"));
        symlink(dir.path().join("secret"), rootfs.path().join("real/file")).unwrap();
        assert!(rootfs.host_path("/db/file").is_err());
        assert!(rootfs.host_path("/nowhere/file").is_err());
        assert_eq!(rootfs.real_dir("/db").unwrap().as_deref(), Some("/real"));
        assert_eq!(rootfs.real_dir("/nowhere").unwrap(), None);
    }
}
