//! The rpm database (`rpmdb.sqlite`): written as librpm would, read from any image.

use std::path::Path;

use anyhow::Result;

use crate::package::header::Header;

/// An installed package.
pub struct Installed {
    /// Its key in `Packages`.
    pub hnum: u32,
    /// Its header, install-time tags included.
    pub header: Header,
    /// FILESTATES, one per file.
    pub file_states: Vec<u8>,
}

/// An open rpmdb.sqlite.
pub struct Rpmdb {
    _todo: (),
}

impl Rpmdb {
    /// Opens `path` for writing inside one transaction, or creates it with librpm's schema.
    pub fn open(_path: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// Opens `path` read-only; the file may be on a read-only file system.
    pub fn open_read_only(_path: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// All packages, by `hnum`.
    pub fn packages(&self) -> Result<Vec<Installed>> {
        unimplemented!()
    }

    /// Adds a package and its index rows; gives its `hnum`.
    pub fn add(&mut self, _blob: &[u8]) -> Result<u32> {
        unimplemented!()
    }

    /// Replaces FILESTATES of an installed package (a file was replaced by another package's).
    pub fn set_file_states(&mut self, _hnum: u32, _states: &[u8]) -> Result<()> {
        unimplemented!()
    }

    /// Deletes a package's rows from every table.
    pub fn remove(&mut self, _hnum: u32) -> Result<()> {
        unimplemented!()
    }

    /// Commits, leaves the file in journal mode DELETE without side files, and syncs it.
    pub fn finish(self) -> Result<()> {
        unimplemented!()
    }
}
