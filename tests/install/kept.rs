//! Payloads kept decompressed in a store: the same trees, whatever is or happened there.

use std::fs;
use std::path::PathBuf;

use strata::store::Store;

use crate::common::{INSTALL, Recorder, Rig, as_root, assert_lines, build, checked, tree};

const SPEC: &str = r#"
Name: top
Version: 1
Release: 1
Summary: x
License: x
BuildArch: noarch
AutoReqProv: no
%description
x
%package -n one
Summary: x
%description -n one
x
%package -n other
Summary: x
%description -n other
x
%define _binary_payload w3.xzdio
%install
mkdir -p %{buildroot}/usr/one %{buildroot}/usr/other
cd %{buildroot}/usr
seq 100000 > one/numbers; echo content > one/h1; ln one/h1 one/h2; ln -s h1 one/link; touch one/empty
echo other > other/file
%files -n one
/usr/one
%files -n other
/usr/other
"#;

/// Packages, and a store that has kept nothing yet.
struct Fixture {
    _dir: tempfile::TempDir,
    rpms: Vec<PathBuf>,
    store: Store,
    /// What rpm makes of the packages.
    expected: Vec<String>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let built = build(dir.path(), SPEC);
        let rpms = vec![built("one"), built("other")];
        let store = Store::open(&dir.path().join("store")).unwrap();
        let rig = Rig::new();
        checked(rig.rpm().arg("-i").args(INSTALL).args(&rpms));
        Self { _dir: dir, rpms, store, expected: tree(&rig.theirs) }
    }

    /// Installs into an empty root; checks the tree, and gives how many packages had been kept.
    fn install(&self) -> usize {
        let rig = Rig { store: Some(self.store.clone()), ..Rig::new() };
        let report = rig.install(&self.rpms, &Recorder::default()).unwrap();
        assert_lines(&tree(&rig.ours), &self.expected);
        report.kept
    }

    /// What is kept, biggest first: that of the package `one`.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.store.root().join("payloads")).unwrap();
        let mut kept: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        kept.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
        kept
    }
}

#[test]
fn the_second_time_nothing_is_decompressed() {
    as_root("kept::the_second_time_nothing_is_decompressed", || {
        let fixture = Fixture::new();
        assert_eq!(fixture.install(), 0);
        assert_eq!(fixture.kept().len(), 2);
        // what is not needed is not read: the headers remain
        for rpm in &fixture.rpms {
            let header = strata::package::header::Header::open(rpm).unwrap().payload_offset();
            fs::OpenOptions::new().write(true).open(rpm).unwrap().set_len(header).unwrap();
        }
        assert_eq!(fixture.install(), 2);
        assert!(fs::read_dir(fixture.store.root().join("tmp")).unwrap().next().is_none());
    });
}

#[test]
fn damage_is_found_and_repaired() {
    as_root("kept::damage_is_found_and_repaired", || {
        let fixture = Fixture::new();
        fixture.install();
        let file = fixture.kept()[0].clone();
        let good = fs::read(&file).unwrap();
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        for damaged in [&flipped[..], &good[..middle], b"", b"junk"] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(fixture.install(), 1, "{} bytes", damaged.len());
            assert!(fs::read(&file).unwrap() == good);
            assert_eq!(fixture.install(), 2);
        }
    });
}
