//! Whole repositories, named by `STRATA_TEST_RPMS` (a directory searched for `*.rpm`, or a file that lists
//! them), installed by rpm and by strata. Not run by default: it takes real packages and minutes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::common::{Recorder, Rig, installed, rpm_install};

fn packages(at: &Path) -> Vec<PathBuf> {
    if at.is_file() {
        return std::fs::read_to_string(at).unwrap().lines().map(PathBuf::from).collect();
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(at).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            found.extend(packages(&entry));
        } else if entry.extension().is_some_and(|e| e == "rpm") {
            found.push(entry);
        }
    }
    found
}

#[test]
#[ignore = "needs STRATA_TEST_RPMS"]
fn a_repository_becomes_the_same_tree() {
    let rpms =
        packages(Path::new(&std::env::var_os("STRATA_TEST_RPMS").expect("STRATA_TEST_RPMS is not set")));
    let rig = Rig::new();
    let started = Instant::now();
    let report = rig.install(&rpms, &Recorder::default()).unwrap();
    eprintln!("{} packages, {} bytes in {:?}", report.installed.len(), report.bytes, started.elapsed());
    let order = rpm_install(&rig, &rpms, &["--noscripts", "--notriggers"]);
    assert_eq!(installed(&report), order);
    rig.assert_same();
}
