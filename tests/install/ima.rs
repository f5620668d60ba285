//! IMA signatures, against rpm's plugin `ima`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{INSTALL, Recorder, Rig, checked, sorted};
use crate::forge::{File, Package, Value, tag};
use crate::packages::of_the_rpm_crate;

/// Every attribute of this name below a root, as getfattr shows it.
fn attributes(root: &Path, name: &str) -> Vec<String> {
    let mut getfattr = Command::new("getfattr");
    getfattr.args(["-R", "-h", "-P", "-e", "hex", "-m"]).arg(format!("^{name}$")).args(["-d", "."]);
    let found = checked(getfattr.current_dir(root));
    let mut files: Vec<_> = found.split("\n\n").map(|file| file.trim().replace(name, "NAME")).collect();
    files.retain(|file| !file.is_empty());
    files.sort();
    files
}

/// Runs as root of the machine: the plugin sets `security.ima`, which nobody else may.
#[test]
fn files_get_their_signatures_if_that_is_asked_for() {
    let rig = Rig { ima: true, ..Rig::new() };
    let rpms = signed_packages(rig.dir.path());
    rig.install(&rpms, &Recorder::default()).unwrap();
    let mut rpm = rig.rpm();
    rpm.arg("-i").args(INSTALL).args(["--noscripts", "--notriggers", "--define"]);
    checked(rpm.arg(format!("__plugindir {}", plugins(rig.dir.path()).display())).args(sorted(&rpms)));
    let theirs = attributes(&rig.theirs, "security.ima");
    assert!(theirs.len() > 5, "{theirs:?}");
    assert_eq!(attributes(&rig.ours, "user.strata.ima"), theirs);
    rig.assert_same();

    let rig = Rig::new();
    rig.install(&rpms, &Recorder::default()).unwrap();
    assert_eq!(attributes(&rig.ours, "user.strata.ima"), Vec::<String>::new());
}

/// A directory with the plugin, and no other.
fn plugins(directory: &Path) -> PathBuf {
    let found =
        checked(Command::new("find").args(["-H", "/usr/lib", "/usr/lib64", "-path", "*/rpm-plugins/ima.so"]));
    let (plugin, plugins) =
        (found.lines().next().expect("rpm's plugin ima is installed"), directory.join("plugins"));
    fs::create_dir(&plugins).unwrap();
    symlink(plugin, plugins.join("ima.so")).unwrap();
    plugins
}

/// The rpm crate's, of every kind of file; and one with what that lacks.
fn signed_packages(directory: &Path) -> Vec<PathBuf> {
    let with_ima = |rpm: &PathBuf| rpm.to_str().unwrap().contains("v4/signed/rpm-basic-with-ima-");
    let mut packages: Vec<_> = of_the_rpm_crate().into_iter().filter(with_ima).collect();
    assert_eq!(packages.len(), 1);
    let signature = |first: u8| hex::encode([&[first, 2, 4, 1, 2, 3, 4, 0, 9][..], &[7; 8]].concat());
    let files = [
        (File { flags: 1, mode: 0o100755, ..File::new("/etc/executable", "text") }, signature(3)),
        (File { flags: 1, ..File::new("/etc/plain", "text") }, signature(3)),
        (File::new("/usr/bin/none", "text"), hex::encode([0; 17])),
        (File::new("/usr/bin/signed", "text"), signature(3)),
        (File { caps: "cap_net_raw=ep".to_owned(), ..File::new("/usr/bin/capable", "text") }, signature(3)),
    ];
    let (files, signatures): (Vec<_>, Vec<_>) = files.into_iter().unzip();
    let signatures = signatures.into_iter().map(String::into_bytes).collect();
    let mut forged = Package::new(files);
    forged.signature = vec![
        (tag::FILESIGNATURES, Value::Texts(signatures)),
        (tag::FILESIGNATURELENGTH, Value::Int32(vec![17])),
    ];
    packages.push(forged.write(directory));
    packages
}

#[test]
fn a_signature_that_is_none_is_refused() {
    let rig = Rig::new();
    let mut package = Package::new([File::new("/usr/bin/signed", "text")]);
    package.signature = vec![(tag::FILESIGNATURES, Value::Texts(vec![b"no hex".to_vec()]))];
    let error = rig.install(&[package.write(rig.dir.path())], &Recorder::default()).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("reading /usr/bin/signed of hostile-1-1.noarch: reading its IMA signature"),
        "{error}"
    );
}
