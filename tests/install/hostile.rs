//! What must not get in: damaged, lying and conflicting packages.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use strata::install::{ScriptCall, ScriptRunner};
use strata::package::header::Phase;
use strata::sandbox::Outcome;

use crate::common::{RPMDB, Recorder, Rig, build, tree};

const SPEC: &str = "
Name: top
Version: 1
Release: 1
Summary: x
License: x
BuildArch: noarch
AutoReqProv: no
%define _binary_payload w0.gzdio
%description
x
%package -n good
Summary: x
%description -n good
x
%package -n other
Summary: x
%description -n other
x
%package -n escape
Summary: x
Requires(pre): good
%description -n escape
x
%package -n scripted
Summary: x
%description -n scripted
x
%post -n scripted
exit 3
%install
mkdir -p %{buildroot}/usr/share/good %{buildroot}/usr/share/other %{buildroot}/usr/lib/evil0 %{buildroot}/usr/lib/links
echo unmistakable-content > %{buildroot}/usr/share/good/file
echo other > %{buildroot}/usr/share/other/file
echo pwned > %{buildroot}/usr/lib/evil0/pwned
ln -s ../../../../../../tmp %{buildroot}/usr/lib/evil1
%files -n good
/usr/share/good
%files -n other
/usr/share/other
%files -n escape
/usr/lib/evil0/pwned
/usr/lib/evil1
%files -n scripted
";

/// Changes bytes of a package file that occur once in it, and gives the new file.
fn damaged(rpm: &Path, from: &str, to: &str) -> PathBuf {
    assert_eq!(from.len(), to.len());
    let bytes = fs::read(rpm).unwrap();
    let mut changed = bytes.clone();
    let places: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from} is not in {}", rpm.display());
    for at in places {
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let path = rpm.with_extension("damaged.rpm");
    fs::write(&path, changed).unwrap();
    path
}

/// Installing fails with all of `expected` in the message, and leaves nothing behind.
fn refused(rpms: &[PathBuf], expected: &[&str]) {
    let rig = Rig::new();
    let error = rig.install(rpms, &Recorder::default()).unwrap_err();
    let message = format!("{error:#}");
    for part in expected {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
    assert_eq!(tree(&rig.ours), Vec::<String>::new());
}

#[test]
fn nothing_of_a_damaged_package_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let rpm = build(dir.path(), SPEC);
    // w0: stored, not compressed, so that the payload's bytes are plain
    let payload = damaged(&rpm("good"), "unmistakable-content", "unmistakable-c0ntent");
    refused(&[payload], &["good-1-1.noarch", "/usr/share/good/file", "digest"]);
    let digest_only = damaged(&rpm("good"), "TRAILER!!!", "TRAILER???");
    refused(&[digest_only], &["good-1-1.noarch", "TRAILER???"]);
    let name = damaged(&rpm("good"), "./usr/share/good/file", "./usr/share/good/flie");
    refused(&[name], &["good-1-1.noarch", "flie", "the header has not"]);

    let whole = fs::read(rpm("good")).unwrap();
    let cut = dir.path().join("cut.rpm");
    fs::write(&cut, &whole[..whole.len() - 40]).unwrap();
    refused(&[cut], &["good-1-1.noarch", "payload"]);
    refused(&[rpm("good"), rpm("good")], &["twice"]);
}

#[test]
fn paths_do_not_leave_the_rootfs() {
    let dir = tempfile::tempdir().unwrap();
    let rpm = build(dir.path(), SPEC);
    // a directory name in the header, of the same length
    let dots = damaged(&rpm("other"), "/usr/share/other/", "/usr/../../.ther/");
    refused(&[dots], &["other-1-1.noarch", "`..`"]);
    // version 1 has the link, version 2 a file below it
    let two = SPEC.replace("Version: 1", "Version: 2").replace("evil1", "evil2").replace("evil0", "evil1");
    let below = build(dir.path(), &two)("escape");
    refused(&[rpm("escape"), below], &["escape-2-1.noarch", "/usr/lib/evil1/pwned", "leads out"]);
}

#[test]
fn different_files_at_one_path_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let one = build(dir.path(), SPEC);
    let two =
        build(dir.path(), &SPEC.replace("Version: 1", "Version: 2").replace("echo other", "echo changed"));
    refused(
        &[one("other"), two("other")],
        &["/usr/share/other/file", "other-1-1.noarch", "other-2-1.noarch"],
    );

    let rig = Rig::new();
    rig.install(&[one("other")], &Recorder::default()).unwrap();
    let before = tree(&rig.ours);
    let error = rig.install(&[two("other")], &Recorder::default()).unwrap_err();
    assert!(format!("{error:#}").contains("conflicts with that of other-1-1.noarch"), "{error:#}");
    assert_eq!(tree(&rig.ours), before);
}

struct Failing;

impl ScriptRunner for Failing {
    fn run(&self, call: &ScriptCall) -> Result<Outcome> {
        assert_eq!((call.phase, call.args.as_slice()), (Phase::Post, &["1".to_owned()][..]));
        assert_eq!(call.script.body.as_deref(), Some("exit 3"));
        Ok(Outcome { status: 3, output: "what went wrong\n".to_owned(), duration: Default::default() })
    }
}

#[test]
fn a_failing_scriptlet_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let rpm = build(dir.path(), SPEC);
    let error = Rig::new().install(&[rpm("scripted")], &Failing).unwrap_err();
    let message = format!("{error:#}");
    for part in ["%post(scripted-1-1.noarch)", "status 3", "what went wrong"] {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

/// Does to the rootfs what a scriptlet might.
struct Meddling<F>(PathBuf, F);

impl<F: Fn(&Path)> ScriptRunner for Meddling<F> {
    fn run(&self, _: &ScriptCall) -> Result<Outcome> {
        (self.1)(&self.0);
        Ok(Outcome { status: 0, output: String::new(), duration: Default::default() })
    }
}

/// Installs `good`, then `other`, whose %pre does what `meddle` does to the rootfs.
fn meddled(meddle: impl Fn(&Path)) -> (Rig, Result<()>) {
    meddled_in("%pre", meddle)
}

/// The same in another scriptlet.
fn meddled_in(phase: &str, meddle: impl Fn(&Path)) -> (Rig, Result<()>) {
    let rig = Rig::new();
    let spec = SPEC.replace("%post -n scripted", &format!("{phase} -n other\ntrue\n%post -n scripted"));
    let rpm = build(rig.dir.path(), &spec);
    rig.install(&[rpm("good")], &Recorder::default()).unwrap();
    let runner = Meddling(rig.ours.clone(), meddle);
    let result = rig.install(&[rpm("other")], &runner).map(drop);
    (rig, result)
}

#[test]
fn links_of_scriptlets_do_not_lead_out() {
    for target in ["../../../../../..", "/", "/proc/self/root"] {
        let (rig, result) = meddled(|root| {
            fs::rename(root.join("usr/share"), root.join("usr/moved")).unwrap();
            symlink(target, root.join("usr/share")).unwrap();
        });
        // in the rootfs' own root, or refused for a link that leads nowhere there
        match target {
            "/proc/self/root" => assert!(format!("{:#}", result.unwrap_err()).contains("dangling")),
            _ => assert_eq!(fs::read_to_string(rig.ours.join("other/file")).unwrap(), "other\n"),
        }
        assert!(!rig.dir.path().join("other").exists() && !Path::new("/other").exists());
    }
}

#[test]
fn links_in_the_place_of_directories_and_files_are_not_written_through() {
    let outside = tempfile::tempdir().unwrap();
    let (dir, file) = (outside.path().join("dir"), outside.path().join("file"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "host").unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode();
    let before = mode(&dir);
    for (there, to) in [("usr/share/other", &dir), ("usr/share/other/file", &file)] {
        let (rig, result) = meddled(|root| {
            fs::create_dir_all(root.join(there).parent().unwrap()).unwrap();
            symlink(to, root.join(there)).unwrap();
        });
        result.unwrap();
        assert_eq!(fs::read_to_string(rig.ours.join("usr/share/other/file")).unwrap(), "other\n");
        assert!(rig.ours.join("usr/share/other/file").symlink_metadata().unwrap().is_file());
    }
    assert_eq!((fs::read_dir(&dir).unwrap().count(), mode(&dir)), (0, before));
    assert_eq!(fs::read_to_string(&file).unwrap(), "host");
}

#[test]
fn the_rpmdb_is_inside() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("cookies.sqlite");
    rusqlite::Connection::open(&secret).unwrap().execute_batch("CREATE TABLE secret (x)").unwrap();
    let before = fs::read(&secret).unwrap();
    // while the scripts of %posttrans run, the rpmdb of afterwards is being written
    for phase in ["%pre", "%posttrans"] {
        let (_, result) = meddled_in(phase, |root| {
            fs::remove_file(root.join(&RPMDB[1..]).join("rpmdb.sqlite")).unwrap();
            symlink(&secret, root.join(&RPMDB[1..]).join("rpmdb.sqlite")).unwrap();
        });
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("rpmdb.sqlite of the rootfs on the host: it is not"), "{phase}: {error}");
        let (rig, result) = meddled_in(phase, |root| {
            fs::rename(root.join(&RPMDB[1..]), root.join("moved")).unwrap();
            symlink(outside.path(), root.join(&RPMDB[1..])).unwrap();
        });
        assert!(result.is_err() && rig.ours.join("moved/rpmdb.sqlite").exists(), "{phase}");
        assert_eq!(fs::read(&secret).unwrap(), before);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

#[test]
fn odd_account_files_are_refused() {
    let pipe = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    let huge = |path: &Path| fs::File::create(path).unwrap().set_len(10 << 30).unwrap();
    for (make, expected) in [(&pipe as &dyn Fn(&Path), "not a regular file"), (&huge, "at most")] {
        let (_, result) = meddled(|root| {
            fs::create_dir_all(root.join("etc")).unwrap();
            make(&root.join("etc/passwd"));
        });
        let message = format!("{:#}", result.unwrap_err());
        assert!(message.contains("/etc/passwd") && message.contains(expected), "{message}");
    }
}
