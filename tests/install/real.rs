//! Packages that others publish for their own tests.

use std::fs;

use strata::package::Arch;

use crate::common::{Recorder, Rig, as_root, nevra, rpm_install};
use crate::packages::of_the_rpm_crate;

/// The accounts that packages declare, with the ids of a machine that has them.
const PASSWD: &str =
    "root:x:0:0::/:\nbob:x:71:72:Bob user:/:/usr/sbin/nologin\njane:x:73:74:Jane user:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nbob:x:72:\njane:x:74:\n";

/// Not installed: one with a FIFO, which rpm 4.18 opens when it has made it, and waits for ever.
#[test]
fn the_rpm_crates_are_installed_as_rpm_does() {
    as_root("real::the_rpm_crates_are_installed_as_rpm_does", || {
        let arches = ["noarch".to_owned(), Arch::host().unwrap().to_string()];
        for package in of_the_rpm_crate() {
            let nevra = nevra(&package);
            if !arches.contains(&nevra.arch) || nevra.name == "rpm-special-files" {
                continue;
            }
            let rig = Rig::new();
            // rpm 4.18 makes no accounts of its own, strata does as 4.19
            rig.both(|root| {
                fs::create_dir(root.join("etc")).unwrap();
                fs::write(root.join("etc/passwd"), PASSWD).unwrap();
                fs::write(root.join("etc/group"), GROUP).unwrap();
            });
            let installed = rig.install(std::slice::from_ref(&package), &Recorder::default());
            installed.unwrap_or_else(|error| panic!("{}: {error:#}", package.display()));
            rpm_install(&rig, &[package], &["--noscripts", "--notriggers"]);
            rig.assert_same();
        }
    });
}
