//! A tree being composed, and access to it that cannot leave it.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// A rootfs directory. Paths given to its methods are absolute inside it; symbolic links on the way are
/// resolved inside it too (openat2(2) `RESOLVE_IN_ROOT`), as chroot would.
pub struct Rootfs {
    path: PathBuf,
}

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

impl Rootfs {
    /// Opens the directory `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned() })
    }

    /// Its place on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes, or none if there is no such file. Follows symbolic links.
    pub fn read(&self, _path: &str) -> Result<Option<Vec<u8>>> {
        unimplemented!()
    }

    /// Writes a regular file in the place of whatever is there (a directory is an error), owned by root,
    /// making missing parents with mode 0755. Not through a symbolic link at the last component.
    pub fn write(&self, _path: &str, _bytes: &[u8], _mode: u32) -> Result<()> {
        unimplemented!()
    }

    /// Replaces the content of an existing regular file, which keeps its owner and mode. Follows symbolic links.
    pub fn rewrite(&self, _path: &str, _bytes: &[u8]) -> Result<()> {
        unimplemented!()
    }

    /// Makes a directory and missing parents (0755, root); an existing one is left as it is.
    pub fn create_dir_all(&self, _path: &str) -> Result<()> {
        unimplemented!()
    }

    /// Makes a symbolic link, replacing a non-directory.
    pub fn symlink(&self, _path: &str, _target: &str) -> Result<()> {
        unimplemented!()
    }

    /// The target of a symbolic link, or none if it is none or does not exist.
    pub fn read_link(&self, _path: &str) -> Result<Option<String>> {
        unimplemented!()
    }

    /// Removes a file or a whole tree; true if there was something.
    pub fn remove_all(&self, _path: &str) -> Result<bool> {
        unimplemented!()
    }

    /// Metadata, the last component not followed; none if it does not exist.
    pub fn lstat(&self, _path: &str) -> Result<Option<Stat>> {
        unimplemented!()
    }

    /// Sets owner, then mode (chown clears set-id bits). The last component is not followed; a symbolic
    /// link gets the owner only.
    pub fn set_owner_mode(&self, _path: &str, _uid: u32, _gid: u32, _mode: u32) -> Result<()> {
        unimplemented!()
    }

    /// Names in a directory, sorted; none if it does not exist.
    pub fn list(&self, _path: &str) -> Result<Option<Vec<String>>> {
        unimplemented!()
    }

    /// Paths matching a shell glob (`*`, `?`, `[]` within one component), sorted.
    pub fn glob(&self, _pattern: &str) -> Result<Vec<String>> {
        unimplemented!()
    }
}
