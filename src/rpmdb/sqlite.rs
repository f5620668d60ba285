//! Reading an `rpmdb.sqlite` that may be anybody's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::error::HintExt;

/// Opens `path` read-only.
pub fn open(path: &Path) -> Result<Connection> {
    refuse_pending_wal(path)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(path)?, flags)?;
    protect(&connection)?;
    Ok(connection)
}

/// Applies `read` to each header blob, by `hnum`.
pub fn each<T>(connection: &Connection, read: impl Fn(u32, &[u8]) -> Result<T>) -> Result<Vec<T>> {
    let mut statement = connection
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

/// Hardens a connection to a file that may be anybody's, and checks that all it holds is plain tables: views,
/// triggers and virtual tables would run SQL of the file's author.
pub fn protect(connection: &Connection) -> Result<()> {
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
pub fn refuse_pending_wal(path: &Path) -> Result<()> {
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

pub fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `immutable` makes SQLite neither lock nor look for journals, which need a writable directory
/// (<https://www.sqlite.org/uri.html>).
fn immutable_uri(path: &Path) -> Result<String> {
    let path = path.to_str().context("the path is not UTF-8")?;
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{escaped}?immutable=1"))
}
