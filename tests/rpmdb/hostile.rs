//! Damaged and hostile input: an error, never a panic, never half a change.

use std::fs;

use rusqlite::Connection;
use strata::package::header::Header;
use strata::rpmdb::Rpmdb;

use crate::fixture::*;

/// Everything a header is asked for.
fn read_all(header: &Header) -> anyhow::Result<()> {
    header.to_repo_package()?;
    header.triggers()?;
    header.changelog()?;
    header.summary()?;
    header.sigmd5()?;
    header.file_states()?;
    Ok(())
}

#[test]
fn a_damaged_package_never_panics() {
    let fixture = Fixture::new();
    let bytes = fs::read(fixture.rpm("plain-triggers")).unwrap();
    let header_end =
        usize::try_from(Header::open(fixture.rpm("plain-triggers")).unwrap().payload_offset()).unwrap();
    let path = fixture.path("damaged.rpm");
    for cut in (0..header_end).step_by(31) {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(Header::open(&path).is_err(), "cut off at {cut}");
    }
    let values = [[0xff; 4], [0; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 9]];
    for (at, value) in (96..header_end).step_by(4).zip(values.into_iter().cycle()) {
        let mut damaged = bytes.clone();
        damaged[at..at + 4].copy_from_slice(&value);
        fs::write(&path, &damaged).unwrap();
        let _ = Header::open(&path).and_then(|header| read_all(&header));
    }
}

#[test]
fn a_damaged_blob_never_panics() {
    let fixture = Fixture::new();
    let blob = blob(fixture.rpm("plain"), EPOCH);
    for at in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[at] ^= 0xff;
        let _ = Header::from_rpmdb_blob(&damaged).and_then(|header| read_all(&header));
        assert!(Header::from_rpmdb_blob(&blob[..at]).is_err(), "cut off at {at}");
    }
}

#[test]
fn a_file_that_is_no_rpmdb_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpmdb.sqlite");
    let text = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);";
    for (sql, expected) in [
        ("CREATE TABLE other (x)", "no such table: Packages"),
        (
            "CREATE VIEW Packages AS SELECT 1 AS hnum, x'00' AS blob",
            "`Packages` is neither a table nor an index",
        ),
        (&format!("{text} CREATE TRIGGER t AFTER DELETE ON Packages BEGIN SELECT 1; END"), "`t` is neither"),
        (&format!("{text} INSERT INTO Packages VALUES (1, x'0000')"), "cut off in its first 8 bytes"),
        (&format!("{text} INSERT INTO Packages VALUES (1, x'ffffffffffffffff')"), "4294967295 entries"),
        (&format!("{text} INSERT INTO Packages VALUES (-1, x'00')"), "reading a package number"),
        (&format!("{text} INSERT INTO Packages VALUES (1, 'text')"), "reading package 1"),
    ] {
        let _ = fs::remove_file(&path);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let error = Rpmdb::open_read_only(&path).and_then(|db| db.packages().map(drop)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{sql}: {error}");
    }
    fs::write(&path, "something else").unwrap();
    let error = format!("{:#}", Rpmdb::open_read_only(&path).err().unwrap());
    assert!(error.contains("opening the rpmdb") && error.contains("not a database of rpm"), "{error}");
    assert!(Rpmdb::open(&path, path.parent().unwrap()).is_err());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_database_with_pending_changes_is_refused() {
    let fixture = Fixture::new();
    let ours = fixture.strata(&fixture.rpms);
    let writer = Connection::open(&ours).unwrap();
    writer.execute_batch("PRAGMA journal_mode = WAL; DELETE FROM Enhancename").unwrap();
    let error = format!("{:#}", Rpmdb::open_read_only(&ours).err().unwrap());
    assert!(error.contains("write-ahead log"), "{error}");
    assert!(Rpmdb::open(&ours, ours.parent().unwrap()).is_err());
    drop(writer);
    assert!(Rpmdb::open_read_only(&ours).is_ok());
}
