//! The rpm database: written as librpm would, in SQLite, and read in any of its formats.
//!
//! `rpmdb.sqlite` has one table of header blobs and one per indexed tag; rows, their order and their keys are those
//! of librpm (rpm: `lib/rpmdb.c`, `lib/backend/sqlite.c`), so that rpm queries, verifies and changes
//! what strata wrote. A derived layer goes on with its parent's file: rows that stay keep their `hnum`.
//!
//! Changes are made in a working copy. When all are done its content is written out in
//! one pass (`VACUUM INTO`) and put in place by a rename: the bytes depend on the rows alone, nothing of
//! removed packages is left in free pages, and nobody sees a database half changed. The file is in journal
//! mode DELETE, not librpm's WAL, because a WAL database can't be opened on a read-only `/usr`.
//!
//! Images that strata did not make may have a database of another format: Berkeley DB before EL9, NDB with
//! SUSE. The [`Reader`] knows all three by their first bytes.

mod bdb;
mod index;
mod ndb;
mod reader;
mod rich;
mod sqlite;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use tempfile::NamedTempFile;

use self::index::{INDEXES, Index};
pub use self::reader::Reader;
use self::sqlite::{protect, refuse_pending_wal, side_file};
use crate::error::hinted;
use crate::package::header::{self, Header};
use crate::rootfs::Rootfs;
use crate::store::persist;

/// Where distributions keep the rpmdb, the likeliest first. In ostree's trees the first is the directory and
/// the next two link to it; the last has what the tree was composed of.
const DIRECTORIES: [&str; 4] =
    ["usr/share/rpm", "usr/lib/sysimage/rpm", "var/lib/rpm", "usr/lib/sysimage/rpm-ostree-base-db"];

/// What its file is called: SQLite, NDB, Berkeley DB. rpm leaves older ones behind when it converts.
const FILES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];

/// The paths an rpmdb may have, relative to the root, the likeliest first.
pub fn places() -> impl Iterator<Item = String> {
    DIRECTORIES.iter().flat_map(|directory| FILES.map(|file| format!("{directory}/{file}")))
}

/// [`places`] for people.
pub fn places_in_words() -> String {
    format!("{} in {}", FILES.join(" or "), DIRECTORIES.join(" or "))
}

/// The rpmdb of the unpacked image at `root`: its path on the host.
pub fn below(root: &Path) -> Result<PathBuf> {
    let rootfs = Rootfs::open(root)?;
    match find(&rootfs)? {
        Some(path) => rootfs.host_path(&path),
        None => Err(hinted(
            format!("there is no rpmdb below {}", root.display()),
            format!("name the root directory of an unpacked image, which has {}", places_in_words()),
        )),
    }
}

/// The rpmdb of a rootfs, absolute inside it; none if it has none. Links on the way are followed inside it.
pub fn find(rootfs: &Rootfs) -> Result<Option<String>> {
    for place in places() {
        let path = format!("/{place}");
        if rootfs.open_file(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// An installed package.
pub struct Installed {
    /// Its key in `Packages`.
    pub hnum: u32,
    /// Its header, install-time tags included.
    pub header: Header,
    /// FILESTATES, one per file.
    pub file_states: Vec<u8>,
}

impl Installed {
    fn parse(hnum: u32, blob: &[u8]) -> Result<Self> {
        let header = Header::from_rpmdb_blob(blob)?;
        Ok(Self { hnum, file_states: header.file_states()?, header })
    }
}

/// An rpmdb.sqlite, open to be changed.
pub struct Rpmdb {
    // before its file, so that it is closed before that is deleted
    connection: Connection,
    /// The working copy.
    _work: NamedTempFile,
    /// The directory it is in.
    scratch: PathBuf,
}

/// A complete rpmdb.sqlite that has no name yet.
pub struct Finished(NamedTempFile);

impl Rpmdb {
    /// Opens a copy of `path`, or a new one with librpm's schema, for writing inside one transaction. Files are in
    /// `scratch`, a directory of the same file system, until [`Finished::put`] changes that at `path`.
    pub fn open(path: &Path, scratch: &Path) -> Result<Self> {
        Self::open_copy(path, scratch).with_context(|| format!("opening the rpmdb {}", path.display()))
    }

    fn open_copy(path: &Path, scratch: &Path) -> Result<Self> {
        let work = NamedTempFile::new_in(scratch)?;
        if path.try_exists()? {
            refuse_pending_wal(path)?;
            fs::copy(path, work.path()).context("copying it")?;
        }
        let connection = Connection::open(work.path())?;
        protect(&connection)?;
        // the working copy is thrown away after a crash, so it need not survive one
        connection.execute_batch(
            "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF;
             PRAGMA cache_size = -32768; PRAGMA locking_mode = EXCLUSIVE; BEGIN;",
        )?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)",
        )?;
        for index in &INDEXES {
            connection.execute_batch(&index.schema())?;
        }
        connection.set_prepared_statement_cache_capacity(2 * INDEXES.len());
        Ok(Self { connection, _work: work, scratch: scratch.to_owned() })
    }

    /// Opens an rpmdb of any format to read it; the file may be on a read-only file system.
    pub fn open_read_only(path: &Path) -> Result<Reader> {
        Reader::open(path).with_context(|| format!("opening the rpmdb {}", path.display()))
    }

    /// All packages, by `hnum`.
    pub fn packages(&self) -> Result<Vec<Installed>> {
        sqlite::each(&self.connection, Installed::parse)
    }

    /// Adds a package and its index rows; gives its `hnum`. The blob is one of [`Header::to_rpmdb_blob`].
    pub fn add(&mut self, blob: &[u8]) -> Result<u32> {
        let header = Header::from_rpmdb_blob(blob).context("adding a package to the rpmdb")?;
        self.insert(&header, blob).with_context(|| format!("adding {} to the rpmdb", header.nevra()))
    }

    fn insert(&self, header: &Header, blob: &[u8]) -> Result<u32> {
        self.connection.prepare_cached("INSERT INTO Packages (blob) VALUES (?1)")?.execute([blob])?;
        let hnum = u32::try_from(self.connection.last_insert_rowid()).context("numbering the package")?;
        for index in &INDEXES {
            self.insert_rows(index, header, hnum).with_context(|| format!("indexing {}", index.table))?;
        }
        Ok(hnum)
    }

    fn insert_rows(&self, index: &Index, header: &Header, hnum: u32) -> Result<()> {
        let rows = index.rows(header)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut insert =
            self.connection.prepare_cached(&format!("INSERT INTO '{}' VALUES (?1, ?2, ?3)", index.table))?;
        for row in rows {
            let key = if index.is_text() { ValueRef::Text(&row.key) } else { ValueRef::Blob(&row.key) };
            insert.execute(params![ToSqlOutput::Borrowed(key), hnum, row.idx])?;
        }
        Ok(())
    }

    /// Replaces FILESTATES of an installed package (a file was replaced by another package's).
    pub fn set_file_states(&mut self, hnum: u32, states: &[u8]) -> Result<()> {
        let context = || format!("setting file states of package {hnum} of the rpmdb");
        let blob: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT blob FROM Packages WHERE hnum = ?1", [hnum], |row| row.get(0))
            .optional()
            .with_context(context)?;
        let mut blob = blob.context("there is no such package").with_context(context)?;
        header::set_file_states(&mut blob, states).with_context(context)?;
        self.connection
            .execute("UPDATE Packages SET blob = ?1 WHERE hnum = ?2", params![blob, hnum])
            .with_context(context)?;
        Ok(())
    }

    /// Deletes a package's rows from every table.
    pub fn remove(&mut self, hnum: u32) -> Result<()> {
        let context = || format!("removing package {hnum} from the rpmdb");
        for index in &INDEXES {
            let sql = format!("DELETE FROM '{}' WHERE hnum = ?1", index.table);
            self.connection.prepare_cached(&sql)?.execute([hnum]).with_context(context)?;
        }
        let removed =
            self.connection.execute("DELETE FROM Packages WHERE hnum = ?1", [hnum]).with_context(context)?;
        ensure!(removed == 1, "removing package {hnum} from the rpmdb: there is no such package");
        Ok(())
    }

    /// Commits, leaves the file in journal mode DELETE, and syncs it.
    pub fn finish(self) -> Result<Finished> {
        let result = NamedTempFile::new_in(&self.scratch)?;
        let path = result.path().to_str().context("the path is not UTF-8")?;
        self.connection.execute_batch("COMMIT")?;
        self.connection.execute("VACUUM INTO ?1", [path])?;
        result.as_file().sync_all()?;
        Ok(Finished(result))
    }
}

impl Finished {
    /// Makes it that at `path`, without side files.
    pub fn put(self, path: &Path) -> Result<()> {
        let remove = |suffix| remove_if_there(&side_file(path, suffix));
        ["-wal", "-shm"]
            .into_iter()
            .try_for_each(remove)
            .with_context(|| format!("writing {}", path.display()))?;
        persist(self.0, path)
    }
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
