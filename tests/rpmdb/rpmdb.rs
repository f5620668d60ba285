//! Databases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use strata::package::header::Header;
use strata::rpmdb::Rpmdb;

use crate::fixture::*;

#[test]
fn rows_are_those_of_librpm() {
    let fixture = Fixture::new();
    let theirs = fixture.librpm(&fixture.rpms);
    assert!(dump(&theirs)["Requirename"].len() > 10, "the packages exercise the index");
    assert_same_rows(&fixture.strata(&fixture.rpms), &theirs);
}

/// For a large set: `STRATA_TEST_RPMS=DIR cargo test --test rpmdb -- --ignored`.
#[test]
#[ignore = "needs a directory of packages in STRATA_TEST_RPMS"]
fn rows_are_those_of_librpm_for_a_repository() {
    let dir = std::env::var("STRATA_TEST_RPMS").expect("STRATA_TEST_RPMS names a directory of packages");
    let rpms = files_below(Path::new(&dir));
    let fixture = Fixture { dir: tempfile::tempdir().unwrap(), rpms };
    let theirs = fixture.path("librpm");
    let paths: Vec<&Path> = fixture.rpms.iter().map(PathBuf::as_path).collect();
    install(&theirs, &paths);
    let theirs = theirs.join("rpmdb.sqlite");

    // rpm chooses the order of a transaction; ours follows it
    let by_sha1: BTreeMap<String, &Path> =
        paths.iter().map(|p| (Header::open(p).unwrap().sha1().unwrap().unwrap().to_owned(), *p)).collect();
    let order = strings(&Connection::open(&theirs).unwrap(), "SELECT key FROM Sha1header ORDER BY hnum");
    let ours = fixture.path("rpmdb.sqlite");
    let color = transaction_color();
    write(&ours, |db| {
        for (time, sha1) in (EPOCH..).zip(&order) {
            db.add(&blob_of(by_sha1[sha1], time, color)).unwrap();
        }
    });
    assert_same_rows(&ours, &theirs);
}

/// A layer on top of another goes on with its database: an upgrade is a removal and an addition.
#[test]
fn a_derived_database_is_librpms_after_the_same_changes() {
    let fixture = Fixture::new();
    let theirs = fixture.librpm(&fixture.rpms);
    rpm(
        theirs.parent().unwrap(),
        &["-e", "--justdb", "--nodeps", "--noscripts", "--notriggers", "plain-deps"],
    );
    install(theirs.parent().unwrap(), &[fixture.rpm("plain-deps")]);

    let ours = fixture.strata(&fixture.rpms);
    write(&ours, |db| {
        let deps =
            db.packages().unwrap().into_iter().find(|p| p.header.nevra().name == "plain-deps").unwrap();
        db.remove(deps.hnum).unwrap();
        assert_eq!(db.add(&blob(fixture.rpm("plain-deps"), EPOCH)).unwrap(), 5, "numbers are not used again");
    });
    assert_same_rows(&ours, &theirs);
}

/// The database of somebody's base image is in WAL mode and has statistics.
#[test]
fn librpms_database_is_gone_on_with() {
    let fixture = Fixture::new();
    let theirs = fixture.librpm(&fixture.rpms[1..]);
    assert_eq!(&fs::read(&theirs).unwrap()[18..20], [2, 2], "librpm's journal mode is WAL");
    write(&theirs, |db| {
        db.add(&blob(&fixture.rpms[0], EPOCH)).unwrap();
    });
    assert_eq!(&fs::read(&theirs).unwrap()[18..20], [1, 1]);
    let dir = theirs.parent().unwrap();
    let side_files = fs::read_dir(dir).unwrap().filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        name != "rpmdb.sqlite" && name != ".rpm.lock"
    });
    assert_eq!(side_files.count(), 0);
    assert_eq!(query_all(dir).len(), fixture.rpms.len());
}

#[test]
fn rpm_reads_verifies_rebuilds_and_changes_our_database() {
    let fixture = Fixture::new();
    let ours = fixture.strata(&fixture.rpms);
    let dir = ours.parent().unwrap();
    let db = Rpmdb::open_read_only(&ours).unwrap();
    let nevras: Vec<String> = db.nevras().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(query_all(dir), nevras);
    assert_eq!(nevras.len(), 4);
    assert_eq!(rpm(dir, &["-q", "--whatprovides", "virtual"]).trim(), "plain-1.0-1.noarch");
    assert_eq!(rpm(dir, &["-qf", "/etc/plain.conf", "--qf", "%{NAME}"]), "plain");

    run(Command::new("rpmdb").arg("--dbpath").arg(dir).arg("--verifydb"));
    let before = dump(&ours);
    run(Command::new("rpmdb").arg("--dbpath").arg(dir).arg("--rebuilddb"));
    assert_eq!(dump(&ours), before, "nothing was missing or wrong in the indexes");

    rpm(dir, &["-e", "--justdb", "--nodeps", "--noscripts", "--notriggers", "plain"]);
    install(dir, &[fixture.rpm("plain")]);
    assert_eq!(query_all(dir), nevras);
}

/// What a query by an index is asked for: all values of a tag.
const INDEXED: [(&str, &str); 13] = [
    ("-q", "NAME"),
    ("-qf", "FILENAMES"),
    ("-qg", "GROUP"),
    ("--whatprovides", "PROVIDENAME"),
    ("--whatrequires", "REQUIRENAME"),
    ("--whatconflicts", "CONFLICTNAME"),
    ("--whatobsoletes", "OBSOLETENAME"),
    ("--whatrecommends", "RECOMMENDNAME"),
    ("--whatsuggests", "SUGGESTNAME"),
    ("--whatsupplements", "SUPPLEMENTNAME"),
    ("--whatenhances", "ENHANCENAME"),
    ("--triggeredby", "TRIGGERNAME"),
    ("--hdrid", "SHA1HEADER"),
];

/// Queries about all packages that have an answer.
const ABOUT_ALL: [&[&str]; 9] = [
    &["-qa", "--dump"],
    &["-qal", "--state"],
    &["-qac"],
    &["-qa", "--scripts"],
    &["-qa", "--triggers"],
    &["-qa", "--filetriggers"],
    &["-qa", "--changelog"],
    &["-qa", "--provides", "--requires", "--conflicts", "--obsoletes"],
    &["-qa", "--recommends", "--suggests", "--supplements", "--enhances"],
];

#[test]
fn rpm_answers_every_query_as_from_its_own() {
    let fixture = Fixture::new();
    let (ours, theirs) = (fixture.strata(&fixture.rpms), fixture.librpm(&fixture.rpms));
    let (ours, theirs) = (ours.parent().unwrap(), theirs.parent().unwrap());
    // the answer to some is that there is nothing, which is a failure
    let answer = |db: &Path, args: &[&str]| {
        let mut rpm = Command::new("rpm");
        let output = rpm.env("LC_ALL", "C").arg("--dbpath").arg(db).args(args).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let asked = |args: &[&str]| {
        let [ours, theirs] = [ours, theirs].map(|db| answer(db, args));
        assert!(theirs.lines().any(|line| !line.contains("no package")), "{args:?}: {theirs}");
        assert_eq!(ours, theirs, "{args:?}");
    };
    for args in ABOUT_ALL {
        asked(args);
    }
    for (query, tag) in INDEXED {
        let values = answer(theirs, &["-qa", "--qf", &format!("[%{{{tag}}}\n]")]);
        let values = values.lines().filter(|value| *value != "(none)");
        let values: BTreeSet<&str> = values.collect();
        let option = if query.starts_with("--") { vec!["-q", query] } else { vec![query] };
        asked(&[option, values.into_iter().collect()].concat());
    }
    let tags = rpm(theirs, &["--querytags"]);
    let format: String = tags.lines().map(|tag| format!("{tag}[ %{{{tag}}}]\n")).collect();
    asked(&["-qa", "--qf", &format]);
}

/// `rpm -V` compares the tree with what the database says about modes, owners, sizes, times and contents.
#[test]
fn a_tree_installed_by_rpm_verifies_against_our_database() {
    let fixture = Fixture::new();
    let root = fixture.path("root");
    let dbpath = "/usr/lib/sysimage/rpm";
    fs::create_dir(&root).unwrap();
    let in_root = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "rpm", "--dbpath", dbpath, "--root"])
            .arg(&root)
            .args(args);
        command
    };
    let options = ["-i", "--nodeps", "--noscripts", "--notriggers", "--nosignature", "--ignorearch"];
    run(in_root(&options).args(debian()).args(&fixture.rpms));
    let theirs = root.join("usr/lib/sysimage/rpm/rpmdb.sqlite");
    fs::rename(fixture.strata(&fixture.rpms), &theirs).unwrap();

    assert_eq!(run(&mut in_root(&["-Va", "--nodeps"])), "");
    fs::write(root.join("opt/deps/file"), "changed").unwrap();
    let output = in_root(&["-Va", "--nodeps"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("/opt/deps/file"), "the check can fail");
}

#[test]
fn the_same_rows_are_the_same_bytes() {
    let fixture = Fixture::new();
    let [first, second] = ["first", "second"].map(|name| {
        let path = fixture.path(name);
        write(&path, |db| {
            for rpm in &fixture.rpms {
                db.add(&blob(rpm, EPOCH)).unwrap();
            }
        });
        // a second layer, which removes a package of the first and has one of its own come and go
        write(&path, |db| {
            db.remove(1).unwrap();
            let passing = db.add(&blob(&fixture.rpms[0], EPOCH)).unwrap();
            db.remove(passing).unwrap();
        });
        fs::read(path).unwrap()
    });
    assert!(first == second, "two runs differ");
    assert_eq!(&first[18..20], [1, 1], "the journal mode is DELETE");
    assert_eq!(&first[36..40], [0; 4], "there are no free pages");
    let removed = b"Files, a ghost, the root directory";
    assert!(!first.windows(removed.len()).any(|w| w == removed), "the removed package is gone");
}

#[test]
fn an_unfinished_change_leaves_nothing() {
    let fixture = Fixture::new();
    let ours = fixture.strata(&fixture.rpms);
    let before = fs::read(&ours).unwrap();
    let mut db = Rpmdb::open(&ours, ours.parent().unwrap()).unwrap();
    db.remove(1).unwrap();
    drop(db);
    assert!(fs::read(&ours).unwrap() == before);
    assert_eq!(fs::read_dir(ours.parent().unwrap()).unwrap().count(), 1, "no side files");
}

#[test]
fn file_states_are_rpms() {
    let fixture = Fixture::new();
    let ours = fixture.strata(&fixture.rpms);
    write(&ours, |db| {
        let plain = db.packages().unwrap().into_iter().find(|p| p.header.nevra().name == "plain").unwrap();
        let mut states = vec![0; plain.file_states.len()];
        states[1] = 2;
        db.set_file_states(plain.hnum, &states).unwrap();
        assert!(db.set_file_states(plain.hnum, &[0]).is_err(), "one state per file");
    });
    let states = rpm(ours.parent().unwrap(), &["-q", "plain", "--qf", "[%{FILESTATES:fstate}\n]"]);
    assert_eq!(states.lines().nth(1), Some("not installed"));
    assert_eq!(states.lines().filter(|l| *l == "normal").count(), states.lines().count() - 1);
}

/// An image is mounted read-only: neither rpm nor strata may need to write to read.
#[test]
fn our_database_is_read_on_a_read_only_file_system() {
    let fixture = Fixture::new();
    let ours = fixture.strata(&fixture.rpms);
    let theirs = fixture.librpm(&fixture.rpms);
    let read_only = |program: &str| {
        let mut command = Command::new("bwrap");
        command.args(["--ro-bind", "/", "/", "--dev", "/dev", program]);
        command
    };
    let dir = ours.parent().unwrap();
    assert_eq!(run(read_only("rpm").arg("--dbpath").arg(dir).arg("-qa")).lines().count(), 4);
    // librpm's own is in WAL mode, which rpm can't read there
    let strata = env!("CARGO_BIN_EXE_strata");
    let output = run(read_only(strata).arg("diff").args([&ours, &theirs]));
    assert_eq!(output.trim(), "no package differs");
}

fn rpm(db: &Path, args: &[&str]) -> String {
    run(Command::new("rpm")
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .arg("--dbpath")
        .arg(db)
        .args(args)
        .args(
            // only what changes the database asks for it
            if args[0] == "-e" { debian() } else { &[] },
        ))
}

fn query_all(db: &Path) -> Vec<String> {
    let format = "%{NAME}-%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}.%{ARCH}\n";
    let mut lines: Vec<String> = rpm(db, &["-qa", "--qf", format]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
