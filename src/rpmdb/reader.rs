//! Reading an rpmdb of any format.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::{Installed, bdb, ndb, sqlite};
use crate::error::hinted;
use crate::package::Nevra;
use crate::package::header::Header;

/// The most that is read at once, in bytes: the biggest header librpm takes, and what NDB puts around it.
const MAX_READ: u64 = 258 << 20;

/// An rpmdb of any format, open to be read. It may be anybody's.
pub struct Reader(Format);

enum Format {
    Sqlite(Connection),
    /// `Packages.db`, of SUSE.
    Ndb(Bytes, BTreeMap<u32, ndb::Place>),
    /// Berkeley DB's `Packages`, before EL9 and Fedora 33.
    Bdb(bdb::Pages, BTreeMap<u32, bdb::Value>),
}

impl Reader {
    /// Opens the rpmdb `path`, whose format is told by its first bytes.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = Bytes::open(path)?;
        let start = file.read(0, 16.min(file.size))?;
        let format = if start.starts_with(b"SQLite format 3\0") {
            Format::Sqlite(sqlite::open(path)?)
        } else if start.starts_with(ndb::MAGIC) {
            let places = ndb::places(&file).context("reading its slots, being an NDB")?;
            Format::Ndb(file, places)
        } else if let Some(order) = bdb::byte_order(&start) {
            let pages = bdb::Pages::new(file, order).context("reading its metadata, being a Berkeley DB")?;
            let values = pages.values().context("reading its pages, being a Berkeley DB")?;
            Format::Bdb(pages, values)
        } else {
            return Err(hinted(
                "it is not a database of rpm",
                "expected are SQLite (rpmdb.sqlite), NDB (Packages.db) and Berkeley DB (Packages)",
            ));
        };
        Ok(Self(format))
    }

    /// All packages, by `hnum`.
    pub fn packages(&self) -> Result<Vec<Installed>> {
        self.each(Installed::parse)
    }

    /// The identities of all packages, sorted.
    pub fn nevras(&self) -> Result<Vec<Nevra>> {
        let mut nevras = self.each(|_, blob| Ok(Header::from_rpmdb_blob(blob)?.nevra().clone()))?;
        nevras.sort();
        Ok(nevras)
    }

    /// Applies `read` to each header blob, by `hnum`.
    fn each<T>(&self, read: impl Fn(u32, &[u8]) -> Result<T>) -> Result<Vec<T>> {
        let read_one = |hnum, blob: Result<Vec<u8>>| {
            blob.and_then(|blob| read(hnum, &blob))
                .with_context(|| format!("reading package {hnum} of the rpmdb"))
        };
        match &self.0 {
            Format::Sqlite(connection) => sqlite::each(connection, read),
            Format::Ndb(file, places) => {
                places.iter().map(|(&hnum, place)| read_one(hnum, ndb::blob(file, hnum, place))).collect()
            }
            Format::Bdb(pages, values) => {
                values.iter().map(|(&hnum, value)| read_one(hnum, pages.value(value))).collect()
            }
        }
    }
}

/// A file's bytes, at any place.
pub struct Bytes {
    file: File,
    /// How many there are.
    pub size: u64,
}

impl Bytes {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// Reads `length` bytes at `offset`, without making room for more than there are.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        ensure!(length <= MAX_READ, "{length} bytes at {offset} are more than any package has");
        let end = offset.checked_add(length);
        ensure!(
            end.is_some_and(|end| end <= self.size),
            "{length} bytes at {offset} are expected, but the file ends at {}",
            self.size
        );
        let mut bytes = vec![0; usize::try_from(length)?];
        self.file.read_exact_at(&mut bytes, offset).with_context(|| format!("reading at {offset}"))?;
        Ok(bytes)
    }
}
