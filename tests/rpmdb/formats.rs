//! Databases of other formats, which rpm and Berkeley DB made: tests/data/rpmdb/README.md.

use std::fs;
use std::path::{Path, PathBuf};

use strata::rpmdb::{Installed, Rpmdb};

const NDB: &str = "Packages.db";
const BDB: &str = "Packages.little-endian-4096";
const BIG_ENDIAN: &str = "Packages.big-endian-512";
const ALL: [&str; 4] = [NDB, BDB, "Packages.little-endian-16384", BIG_ENDIAN];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rpmdb").join(name)
}

/// As rpm's query format in make.sh.
fn line(package: &Installed) -> String {
    let (header, nevra) = (&package.header, package.header.nevra());
    let evr = format!("{}:{}-{}", nevra.evr.epoch, nevra.evr.version, nevra.evr.release);
    let sha1 = header.sha1().unwrap().unwrap();
    let time = header.install_time().unwrap().unwrap();
    format!("{} {} {evr} {} {sha1} {time}\n", package.hnum, nevra.name, nevra.arch)
}

#[test]
fn every_format_has_what_rpm_lists() {
    let expected = fs::read_to_string(data("packages.txt")).unwrap();
    for name in ALL {
        let db = Rpmdb::open_read_only(&data(name)).unwrap();
        let packages = db.packages().unwrap();
        assert_eq!(packages.iter().map(line).collect::<String>(), expected, "{name}");
        let many = packages.iter().find(|p| p.header.nevra().name == "many").unwrap();
        assert_eq!(many.header.files().unwrap().len(), 201, "{name}");
        assert_eq!(many.file_states, [0; 201], "{name}");
    }
}

/// Where what is overwritten by what, and the complaint.
const DAMAGES: &[(&str, usize, &[u8], &str)] = &[
    (NDB, 0, b"RpmQ", "not a database of rpm"),
    (NDB, 4, &[1], "its version is 1, expected 0"),
    (NDB, 12, &[0xff; 4], "a slot of page 1 does not begin as one"),
    (NDB, 32, b"slot", "a slot of page 0 does not begin as one"),
    (NDB, 40, &[0xff; 4], "but the file ends at"),
    (NDB, 44, &[0xff; 4], "its blobs overlap"),
    (NDB, 44, &[0, 0, 0, 0], "reading package 1 of the rpmdb: its blob has 0 blocks"),
    (NDB, 40, &[0, 0, 0, 0], "no failure: an unused slot"),
    (NDB, 36, &[3], "package 3 is in it twice"),
    (NDB, 4096, b"x", "does not hold the blob of package 1"),
    (NDB, 4096 + 12, &[0xff; 4], "does not fill"),
    (BDB, 12, &[0], "not a database of rpm"),
    (BDB, 16, &[7], "its version is 7, expected 8 to 10"),
    (BDB, 20, &[1], "its pages have 4097 bytes"),
    (BDB, 20, &[0, 0, 0, 0x80], "its pages have 2147483648 bytes"),
    (BDB, 24, &[1], "it is encrypted"),
    (BDB, 32, &[0xff; 4], "but the file ends at"),
];

#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Packages");
    for (name, at, bytes, expected) in DAMAGES {
        let mut damaged = fs::read(data(name)).unwrap();
        damaged[*at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, damaged).unwrap();
        let result = Rpmdb::open_read_only(&path).and_then(|db| db.packages());
        let found = result.map_or_else(|e| format!("{e:#}"), |_| "no failure: an unused slot".to_owned());
        assert!(found.contains(expected), "{name} at {at}: {found}");
    }
}

/// Pages of a Berkeley DB that say what no page may.
#[test]
fn damaged_pages_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Packages");
    let whole = fs::read(data(BIG_ENDIAN)).unwrap();
    let first_value = |page: &[u8]| usize::from(u16::from_be_bytes([page[28], page[29]]));
    let page_of = |kind: u8, fits: &dyn Fn(&[u8]) -> bool| {
        (512..whole.len()).step_by(512).find(|&at| whole[at + 25] == kind && fits(&whole[at..])).unwrap()
    };
    let hash = page_of(13, &|page| page[20..22] != [0; 2] && page[first_value(page)] == 3);
    let item = first_value(&whole[hash..]);
    let overflow = page_of(7, &|page| page[16..20] != [0; 4]);
    let own_number = u32::try_from(overflow / 512).unwrap().to_be_bytes();
    for (at, bytes, expected) in [
        (hash + 20, &[0xff, 0xff][..], "65535 items are too many"),
        (hash + 26, &[0xff, 0xff], "item 0 is at 65535"),
        (hash + 26, &[0, 0], "item 0 is at 0"),
        (hash + item, &[9], "is of type 9"),
        (hash + item + 4, &[0xff; 4], "there is no page 4294967295"),
        (hash + item + 4, &[0; 4], "there is no page 0"),
        (hash + item + 8, &[0xff; 4], "its items overlap"),
        (overflow + 25, &[13], "reading page"),
        (overflow + 22, &[0, 0], "has 0 bytes, expected 486"),
        // a chain that goes round ends where its length does, and holds no header
        (overflow + 16, &own_number, "reading package"),
    ] {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, damaged).unwrap();
        let error = Rpmdb::open_read_only(&path).and_then(|db| db.packages()).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "at {at}, expected {expected:?}: {error:#}");
    }
}

/// Whatever is in a file, reading it ends in packages or an error.
#[test]
fn damage_anywhere_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Packages");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Rpmdb::open_read_only(&path).and_then(|db| db.packages()).is_ok()
    };
    for name in [NDB, BDB, BIG_ENDIAN] {
        let whole = fs::read(data(name)).unwrap();
        assert!(read(&whole));
        for cut in (0..whole.len() - 512).step_by(2039) {
            assert!(!read(&whole[..cut]), "{name} cut off at {cut}");
        }
        let values = [[0xff; 4], [0; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 9], [9, 0, 0, 0]];
        for (at, value) in (0..whole.len() - 4).step_by(157).zip(values.into_iter().cycle()) {
            let mut damaged = whole.clone();
            damaged[at..at + 4].copy_from_slice(&value);
            read(&damaged);
        }
    }
}
