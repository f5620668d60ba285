//! Packages that others publish for their own tests: read as rpm reads them, or refused with the right reason.

use std::path::Path;

use strata::package::header::Header;

use crate::header::assert_agrees;
use crate::packages::{below, of_the_rpm_crate};

/// What strata refuses of rpm's and createrepo_c's packages, by the beginning of the file's name, and why.
const REFUSED: [(&str, &str); 2] = [
    ("balicek-iso88591-", "RPMTAG_REQUIRENAME is not UTF-8"),
    ("balicek-iso88592-", "RPMTAG_REQUIRENAME is not UTF-8"),
];

#[test]
fn the_rpm_crates_are_read_as_rpm_reads_them() {
    of_the_rpm_crate().iter().for_each(|rpm| assert_agrees(rpm));
}

/// `just real-packages` obtains them.
#[test]
#[ignore = "needs a directory of packages in STRATA_TEST_REAL"]
fn those_of_rpm_and_createrepo_c_are_read_as_rpm_reads_them() {
    let directory =
        std::env::var("STRATA_TEST_REAL").expect("STRATA_TEST_REAL names a directory of packages");
    let packages = below(Path::new(&directory));
    assert!(packages.len() > 20, "{packages:?}");
    for package in packages {
        let name = package.file_name().unwrap().to_str().unwrap();
        match REFUSED.iter().find(|(start, _)| name.starts_with(start)) {
            None => assert_agrees(&package),
            Some((_, reason)) => {
                let read = Header::open(&package).and_then(|header| header.to_repo_package());
                let error = format!("{:#}", read.unwrap_err());
                assert!(error.contains(reason), "{name}: {error}");
            }
        }
    }
}
