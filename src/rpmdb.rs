//! The rpm database (`rpmdb.sqlite`): written as librpm would, read from any image.
//!
//! One table of header blobs and one per indexed tag; rows, their order and their keys are
//! those of librpm (rpm: `lib/rpmdb.c`, `lib/backend/sqlite.c`), so that rpm queries, verifies and changes
//! what strata wrote. A derived layer goes on with its parent's file: rows that stay keep their `hnum`.
//!
//! Changes are made in a working copy next to the database. When all are done its content is written out in
//! one pass (`VACUUM INTO`) and put in place by a rename: the bytes depend on the rows alone, nothing of
//! removed packages is left in free pages, and nobody sees a database half changed. The file is in journal
//! mode DELETE, not librpm's WAL, because a WAL database can't be opened on a read-only `/usr`.

mod index;
mod rich;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tempfile::NamedTempFile;

use self::index::{INDEXES, Index};
use crate::error::HintExt;
use crate::package::Nevra;
use crate::package::header::{self, Header};
use crate::store::persist;

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
    // before `output`, so that it is closed before its file is deleted
    connection: Connection,
    /// None when opened read-only.
    output: Option<Output>,
}

/// The working copy, and what it is to replace.
struct Output {
    _work: NamedTempFile,
    target: PathBuf,
}

impl Rpmdb {
    /// Opens `path` for writing inside one transaction, or creates it with librpm's schema. The file at `path`
    /// changes with [`Rpmdb::finish`] only; without it, not at all.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_copy(path).with_context(|| format!("opening the rpmdb {}", path.display()))
    }

    fn open_copy(path: &Path) -> Result<Self> {
        let work = NamedTempFile::new_in(parent(path))?;
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
        Ok(Self { connection, output: Some(Output { _work: work, target: path.to_owned() }) })
    }

    /// Opens `path` read-only; the file may be on a read-only file system.
    pub fn open_read_only(path: &Path) -> Result<Self> {
        let context = || format!("opening the rpmdb {}", path.display());
        refuse_pending_wal(path).with_context(context)?;
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(immutable_uri(path)?, flags).with_context(context)?;
        protect(&connection).with_context(context)?;
        Ok(Self { connection, output: None })
    }

    /// All packages, by `hnum`.
    pub fn packages(&self) -> Result<Vec<Installed>> {
        self.each(|hnum, blob| {
            let header = Header::from_rpmdb_blob(blob)?;
            Ok(Installed { hnum, file_states: header.file_states()?, header })
        })
    }

    /// The identities of all packages, sorted.
    pub fn nevras(&self) -> Result<Vec<Nevra>> {
        let mut nevras = self.each(|_, blob| Ok(Header::from_rpmdb_blob(blob)?.nevra().clone()))?;
        nevras.sort();
        Ok(nevras)
    }

    /// Applies `read` to each header blob, by `hnum`.
    fn each<T>(&self, read: impl Fn(u32, &[u8]) -> Result<T>) -> Result<Vec<T>> {
        let mut statement = self
            .connection
            .prepare("SELECT hnum, blob FROM Packages ORDER BY hnum")
            .context("reading the rpmdb's packages")?;
        let mut rows = statement.query([])?;
        let mut packages = Vec::new();
        while let Some(row) = rows.next().context("reading the rpmdb's packages")? {
            let hnum: u32 = row.get(0).context("reading a package number of the rpmdb")?;
            let context = || format!("reading package {hnum} of the rpmdb");
            let blob = row.get_ref(1)?.as_blob().with_context(context)?;
            packages.push(read(hnum, blob).with_context(context)?);
        }
        Ok(packages)
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

    /// Commits, leaves the file in journal mode DELETE without side files, and syncs it.
    pub fn finish(self) -> Result<()> {
        let Some(output) = &self.output else { bail!("finishing an rpmdb that was opened read-only") };
        let target = &output.target;
        let context = || format!("writing the rpmdb {}", target.display());
        let result = NamedTempFile::new_in(parent(target)).with_context(context)?;
        let path = result.path().to_str().context("the path is not UTF-8").with_context(context)?;
        self.connection.execute_batch("COMMIT").with_context(context)?;
        self.connection.execute("VACUUM INTO ?1", [path]).with_context(context)?;
        for suffix in ["-wal", "-shm"] {
            remove_if_there(&side_file(target, suffix)).with_context(context)?;
        }
        persist(result, target)
    }
}

/// Hardens a connection to a file that may be anybody's, and checks that all it holds is plain tables: views,
/// triggers and virtual tables would run SQL of the file's author.
fn protect(connection: &Connection) -> Result<()> {
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    let active: Option<String> = connection
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR rootpage = 0 LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()?;
    match active {
        Some(name) => bail!("`{name}` is neither a table nor an index: no rpmdb has such things"),
        None => Ok(()),
    }
}

/// librpm empties the write-ahead log when it closes a database; what is left in one would be lost to us.
fn refuse_pending_wal(path: &Path) -> Result<()> {
    let wal = side_file(path, "-wal");
    let pending = fs::metadata(&wal).is_ok_and(|m| m.len() > 0);
    if !pending {
        return Ok(());
    }
    Err(anyhow::anyhow!("{} is not empty", wal.display())).hint(
        "changes are still in the write-ahead log",
        format!("end rpm, or run `sqlite3 {} 'PRAGMA wal_checkpoint(TRUNCATE)'`", path.display()),
    )
}

fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `immutable` makes SQLite neither lock nor look for journals, which need a writable directory
/// (<https://www.sqlite.org/uri.html>).
fn immutable_uri(path: &Path) -> Result<String> {
    let path = path.to_str().context("the path is not UTF-8")?;
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{escaped}?immutable=1"))
}
