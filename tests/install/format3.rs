//! Packages of format 3, as rpm 3 made them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};
use strata::digest::Digest;
use strata::fetch::keyring::Keyring;
use strata::fetch::verify;
use strata::lock::{Action, LockedPackage};

use crate::common::{INSTALL, RPMDB, Recorder, Rig, as_root, checked, nevra, rpm_on};
use crate::forge::{File, Package, Value, tag};

fn files() -> Vec<File> {
    vec![
        File { mode: 0o104755, ..File::new("/usr/bin/program", "text") },
        File { inode: 7, ..File::new("/usr/bin/tool", "other") },
        File { flags: 1, ..File::new("/etc/program.conf", "text") },
        File::directory("/usr/share/program"),
        File::link("/usr/share/program/link", "../file"),
    ]
}

/// Headers in a root's rpmdb, byte for byte.
fn headers(root: &Path) -> Vec<String> {
    let file = root.join(&RPMDB[1..]).join("rpmdb.sqlite");
    let rpmdb = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = rpmdb.prepare("SELECT hex(blob) FROM Packages ORDER BY hnum").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn they_are_installed_as_rpm_does() {
    as_root("format3::they_are_installed_as_rpm_does", || {
        let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|text| (*text).into()).collect());
        let own = |flags| {
            Package::new(files())
                .lying(1047, texts(&["hostile", "other"]))
                .lying(1112, Value::Int32(vec![flags, 8]))
                .lying(1113, texts(&["1-1", "2"]))
        };
        for (what, package) in [
            ("it provides nothing", Package::new(files())),
            ("it provides something of no version", Package::new(files()).lying(1047, texts(&["other"]))),
            ("it provides itself", own(8)),
            ("it provides a lesser self", own(2)),
            ("it has an epoch", Package::new(files()).lying(1003, Value::Int32(vec![3]))),
            ("it names its source", Package::new(files()).lying(1044, Value::Text("x-1-1.src.rpm".into()))),
            (
                "it requires something of no version",
                Package::new(files()).lying(1049, texts(&["rpmlib(x)", "/bin/sh"])),
            ),
            ("its files have no inodes", Package::new(files()).without(1096)),
            ("it has no files", Package::new([])),
        ] {
            let rig = Rig::new();
            let rpm = package.old().write(rig.dir.path());
            let installed = rig.install(std::slice::from_ref(&rpm), &Recorder::default());
            installed.unwrap_or_else(|error| panic!("{what}: {error:#}"));
            checked(rig.rpm().arg("-i").args(INSTALL).arg(&rpm));
            rig.assert_same();
            assert_eq!(headers(&rig.ours), headers(&rig.theirs), "{what}");
            checked(rpm_on(&rig.ours).args(["-e", "--force-debian", "hostile"]));
        }
    });
}

/// Paths in one list were written long after (`--nodirtokens`).
#[test]
fn a_list_of_paths_is_taken_of_any_format() {
    as_root("format3::a_list_of_paths_is_taken_of_any_format", || {
        let rig = Rig::new();
        let paths = Value::Texts(files().into_iter().map(|file| file.path).collect());
        let package = Package::new(files()).lying(1027, paths);
        let rpm = package.without(tag::DIRINDEXES).without(1117).without(1118).write(rig.dir.path());
        rig.install(std::slice::from_ref(&rpm), &Recorder::default()).unwrap();
        checked(rig.rpm().arg("-i").args(INSTALL).arg(&rpm));
        rig.assert_same();
        assert_eq!(headers(&rig.ours), headers(&rig.theirs));
    });
}

#[test]
fn files_must_have_their_md5() {
    let rig = Rig::new();
    let lie = Value::Texts(files().iter().map(|_| hex::encode([0; 16]).into()).collect());
    let rpm = Package::new(files()).lying(1035, lie).old().write(rig.dir.path());
    let error = format!("{:#}", rig.install(&[rpm], &Recorder::default()).unwrap_err());
    assert!(error.contains("its content has digest 1cb251ec0d568de6a929b520c4aed8d1"), "{error}");
}

/// A key of gpg's, and a home for it.
struct Signer(tempfile::TempDir);

impl Signer {
    fn new() -> Self {
        let signer = Self(tempfile::tempdir().unwrap());
        signer.gpg(&["--quick-generate-key", "signer", "rsa2048", "sign", "never"]);
        signer.gpg(&["--armor", "--output", signer.key().to_str().unwrap(), "--export"]);
        signer
    }

    fn gpg(&self, args: &[&str]) {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.0.path()).args(["--batch", "--quiet", "--passphrase", ""]);
        checked(gpg.args(args));
    }

    fn key(&self) -> PathBuf {
        self.0.path().join("key.asc")
    }

    /// The package with a signature over header and payload.
    fn sign(&self, mut package: Package, digest: &str) -> Package {
        let [data, signature] = ["data", "data.sig"].map(|name| self.0.path().join(name));
        fs::write(&data, package.signed()).unwrap();
        let [data, output] = [&data, &signature].map(|path| path.to_str().unwrap());
        self.gpg(&["--yes", "--digest-algo", digest, "--output", output, "--detach-sign", data]);
        package.signature.insert(0, (tag::PGP, Value::Bytes(fs::read(output).unwrap())));
        package
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).output();
    }
}

/// How strata judges a package file by the signer's key.
fn judged(rpm: &Path, signer: &Signer) -> Result<(), String> {
    let mut keys = Keyring::default();
    keys.add(&fs::read(signer.key()).unwrap()).unwrap();
    let nevra = nevra(rpm);
    let locked = LockedPackage {
        name: nevra.name,
        evr: nevra.evr,
        arch: nevra.arch,
        repo: "repo".to_owned(),
        location: "hostile.rpm".to_owned(),
        sha256: Some(Digest::of(fs::read(rpm).unwrap())),
        size: rpm.metadata().unwrap().len(),
        also: Vec::new(),
        source: String::new(),
        why: "requested".to_owned(),
        action: Action::Install,
        replaces: None,
    };
    verify::package(&fs::File::open(rpm).unwrap(), &locked, Some(&keys)).map_err(|e| format!("{e:#}"))
}

/// How rpm judges it.
fn rpm_takes(rpm: &Path, signer: &Signer) -> bool {
    let db = tempfile::tempdir().unwrap();
    let keys = |arg: &str, file: &Path| {
        let mut command = Command::new("rpmkeys");
        command.arg("--dbpath").arg(db.path()).args(["--define", "_pkgverify_level all", arg]).arg(file);
        command.output().unwrap().status.success()
    };
    assert!(keys("--import", &signer.key()));
    keys("--checksig", rpm)
}

/// No digest in the header vouches for the payload, so that only a signature over both does.
#[test]
fn signatures_cover_header_and_payload() {
    let (signer, other, dir) = (Signer::new(), Signer::new(), tempfile::tempdir().unwrap());
    let package = || Package::new(files()).old();

    let rpm = signer.sign(package(), "SHA256").write(dir.path());
    assert!(rpm_takes(&rpm, &signer));
    assert_eq!(judged(&rpm, &signer), Ok(()));
    assert!(judged(&rpm, &other).unwrap_err().contains("signed with key"));

    let mut changed = fs::read(&rpm).unwrap();
    let at = changed.windows(5).rposition(|bytes| bytes == b"other").unwrap();
    changed[at] = b'O';
    fs::write(&rpm, changed).unwrap();
    assert!(!rpm_takes(&rpm, &signer));
    assert!(judged(&rpm, &signer).unwrap_err().contains("is not of this content"));

    let weak = signer.sign(package(), "SHA1").write(dir.path());
    assert!(judged(&weak, &signer).unwrap_err().contains("SHA1, which is too weak"));
    let unsigned = package().write(dir.path());
    assert!(judged(&unsigned, &signer).unwrap_err().contains("the package is not signed"));
    let mut header_only = package();
    header_only.signature = vec![(tag::RSA, Value::Bytes(vec![1]))];
    let header_only = header_only.write(dir.path());
    assert!(judged(&header_only, &signer).unwrap_err().contains("which no signature covers"));
}
