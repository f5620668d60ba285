//! Packages that have one of everything, and databases made of them by librpm and by strata.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use strata::package::header::{Header, InstallTags};
use strata::rpmdb::Rpmdb;
use tempfile::TempDir;

/// With this in the environment, rpm 4.18 gives the transaction this id and elements this time, counting up.
pub const EPOCH: u32 = 1_700_000_000;

/// A package for each thing that makes rows or bytes special.
const SPEC: &str = r#"
Name: plain
Version: 1.0
Release: 1
Summary: Files, a ghost, the root directory, no group
License: MIT
BuildArch: noarch
Requires: (deps if plain else other), (nested or (lib(x) >= 2 unless cond)), /bin/sh
Requires(pre): only-pre
Requires(post): only-post
Requires(preun): also-erase
Requires(pre,postun): both
Recommends: (weak and strong)
Supplements: (plain with deps)
Suggests: suggestion
Enhances: ((enhanced and that) unless other)
Conflicts: (bad and worse)
Obsoletes: ancient < 2
Provides: virtual = 3:1-2
%description
Plain.
%package deps
Summary: Relocatable, with an epoch and a group
Epoch: 3
Group: System/Base
Prefix: /opt/deps
%description deps
Deps.
%package empty
Summary: Nothing in it, relocatable all the same
Prefix: /opt/empty
%description empty
Empty.
%package triggers
Summary: Triggers of all families
Requires: rpm-feature
%description triggers
Triggers.
%prep
%build
%install
mkdir -p %{buildroot}/usr/share/plain %{buildroot}/opt/deps %{buildroot}/etc
echo data > %{buildroot}/usr/share/plain/file
ln %{buildroot}/usr/share/plain/file %{buildroot}/usr/share/plain/hardlink
ln -s file %{buildroot}/usr/share/plain/link
echo conf > %{buildroot}/etc/plain.conf
echo deps > %{buildroot}/opt/deps/file
%files
%dir /
/usr/share/plain
%config(noreplace) /etc/plain.conf
%ghost /var/log/plain.log
%files deps
/opt/deps
%files empty
%files triggers
%post triggers
:
%triggerin triggers -- plain < 2, deps
:
%triggerun triggers -- plain
:
%triggerpostun triggers -p <lua> -- gone
print(1)
%filetriggerin triggers -- /usr/lib, /usr/share
:
%filetriggerun triggers -P 2000 -- /etc
:
%transfiletriggerin triggers -p <lua> -- /usr/lib/modules
print(2)
%transfiletriggerpostun triggers -- /usr/share/info
:
%changelog
* Tue Feb 04 2025 Jane Doe <jane@example.com> - 1.0-1
- Fix CVE-2025-0001
* Mon Feb 03 2025 Jane Doe <jane@example.com> - 0.9-1
- First
"#;

/// A scratch directory with the packages of [`SPEC`].
pub struct Fixture {
    pub dir: TempDir,
    pub rpms: Vec<PathBuf>,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = dir.path().join("plain.spec");
        fs::write(&spec, SPEC).unwrap();
        let topdir = format!("_topdir {}", dir.path().join("rpmbuild").display());
        let spec = spec.to_str().unwrap();
        run(Command::new("rpmbuild").args(["-bb", "--quiet", "--define", &topdir, spec]));
        let rpms = files_below(&dir.path().join("rpmbuild/RPMS"));
        assert_eq!(rpms.len(), 4, "{rpms:?}");
        Self { dir, rpms }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn rpm(&self, name: &str) -> &Path {
        self.rpms.iter().find(|p| p.to_str().unwrap().contains(&format!("/{name}-1.0-1."))).unwrap()
    }

    /// The database `rpm` makes when it installs the packages one by one.
    pub fn librpm(&self, rpms: &[PathBuf]) -> PathBuf {
        let db = self.path("librpm");
        for rpm in rpms {
            install(&db, &[rpm.as_path()]);
        }
        db.join("rpmdb.sqlite")
    }

    /// The database strata makes of the same packages.
    pub fn strata(&self, rpms: &[PathBuf]) -> PathBuf {
        let path = self.path("strata").join("rpmdb.sqlite");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, |db| {
            for rpm in rpms {
                db.add(&blob(rpm, EPOCH)).unwrap();
            }
        });
        path
    }
}

pub fn install(db: &Path, rpms: &[&Path]) {
    let mut rpm = Command::new("rpm");
    rpm.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).arg("--dbpath").arg(db);
    rpm.args(["-i", "--justdb", "--nodeps", "--noscripts", "--notriggers", "--nosignature", "--ignorearch"]);
    rpm.args(["--force", "--ignoresize"]).args(debian());
    run(rpm.args(rpms));
}

/// Debian's rpm wants to be told that it is not the system's package manager.
pub fn debian() -> &'static [&'static str] {
    if Path::new("/etc/debian_version").exists() { &["--force-debian"] } else { &[] }
}

pub fn write(path: &Path, change: impl FnOnce(&mut Rpmdb)) {
    let mut db = Rpmdb::open(path, path.parent().unwrap()).unwrap();
    change(&mut db);
    db.finish().unwrap().put(path).unwrap();
}

pub fn blob(rpm: &Path, time: u32) -> Vec<u8> {
    blob_of(rpm, time, transaction_color())
}

pub fn blob_of(rpm: &Path, time: u32, color: u32) -> Vec<u8> {
    let header = Header::open(rpm).unwrap();
    let files = header.files().unwrap().len();
    let tags = InstallTags { time, tid: EPOCH, color, file_states: vec![0; files] };
    header.to_rpmdb_blob(&tags).unwrap()
}

pub fn transaction_color() -> u32 {
    let output = run(Command::new("rpm").args(["--eval", "%{?_transaction_color}%{!?_transaction_color:0}"]));
    output.trim().parse().unwrap()
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    // prose of old packages is in any encoding
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = run(Command::new("find").arg(dir).args([
        "-type",
        "f",
        "-name",
        "*.rpm",
        "-not",
        "-name",
        "*.src.rpm",
    ]))
    .lines()
    .map(PathBuf::from)
    .collect();
    files.sort();
    files
}

/// Schema and rows of all tables, in the order of the file; without SQLite's own statistics, which librpm
/// gathers and strata does not.
pub fn dump(path: &Path) -> BTreeMap<String, Vec<String>> {
    let db = Connection::open(path).unwrap();
    let names: Vec<String> = strings(&db, "SELECT name FROM sqlite_schema WHERE type = 'table'");
    let mut dump: BTreeMap<String, Vec<String>> = names
        .into_iter()
        .filter(|n| n != "sqlite_stat1")
        .map(|name| {
            let columns = match name.as_str() {
                "Packages" => "hnum || ' ' || hex(blob)",
                "sqlite_sequence" => "name || ' ' || seq",
                _ => "typeof(key) || ' ' || hex(key) || ' ' || key || ' ' || hnum || ' ' || idx",
            };
            let rows = strings(&db, &format!("SELECT {columns} FROM '{name}' ORDER BY rowid"));
            (name, rows)
        })
        .collect();
    let schema = "SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name";
    dump.insert("schema".to_owned(), strings(&db, schema));
    dump
}

pub fn strings(db: &Connection, sql: &str) -> Vec<String> {
    let mut statement = db.prepare(sql).unwrap();
    let text =
        |row: &rusqlite::Row<'_>| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned());
    statement.query_map([], text).unwrap().map(Result::unwrap).collect()
}

pub fn assert_same_rows(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (dump(ours), dump(theirs));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (table, rows) in &theirs {
        for (at, (ours, theirs)) in ours[table].iter().zip(rows).enumerate() {
            assert_eq!(ours, theirs, "row {at} of {table}");
        }
        assert_eq!(ours[table].len(), rows.len(), "rows of {table}");
    }
}
