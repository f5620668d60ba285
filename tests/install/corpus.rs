//! Whole repositories, named by `STRATA_TEST_RPMS` (a directory searched for `*.rpm`, or a file that lists
//! them), installed by rpm and by strata, and then upgraded to those of `STRATA_TEST_UPGRADES` that are newer. Not run by default: it takes real packages and minutes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use strata::package::Nevra;

use crate::common::{INSTALL, Recorder, Rig, checked, installed, nevra, rpm_install, sorted};

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

fn named_by(variable: &str) -> Vec<PathBuf> {
    std::env::var_os(variable).map(|at| packages(Path::new(&at))).unwrap_or_default()
}

#[test]
#[ignore = "needs STRATA_TEST_RPMS"]
fn a_repository_becomes_the_same_tree() {
    let rpms = named_by("STRATA_TEST_RPMS");
    assert!(!rpms.is_empty(), "STRATA_TEST_RPMS names no packages");
    let rig = Rig::new();
    let report = rig.install(&rpms, &Recorder::default()).unwrap();
    let order = rpm_install(&rig, &rpms, &["--noscripts", "--notriggers"]);
    assert_eq!(installed(&report.installed), order);
    rig.assert_same();

    let key = |n: &Nevra| (n.name.clone(), n.arch.clone());
    let old: BTreeMap<_, Nevra> = report.installed.iter().map(|n| (key(n), n.clone())).collect();
    let mut newest: BTreeMap<_, PathBuf> = BTreeMap::new();
    for rpm in sorted(&named_by("STRATA_TEST_UPGRADES")) {
        let new = nevra(&rpm);
        if old.get(&key(&new)).is_some_and(|n| *n < new) {
            newest.insert(key(&new), rpm);
        }
    }
    let updates: Vec<PathBuf> = newest.values().cloned().collect();
    let replaced: Vec<Nevra> = newest.keys().map(|k| old[k].clone()).collect();
    if !updates.is_empty() {
        rig.apply(&updates, &replaced, &Recorder::default()).unwrap();
        let mut rpm = rig.rpm();
        checked(rpm.arg("-U").args(INSTALL).args(["--noscripts", "--notriggers"]).args(sorted(&updates)));
        rig.assert_same();
    }
}
