//! Forged packages: what they claim is refused, or stays inside the rootfs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use crate::common::{INSTALL, RPMDB, Recorder, Rig, checked, tree};
use crate::forge::{File, GHOST, Package, Value, member, tag};

/// A rootfs, and beside it what belongs to the host.
struct Host {
    rig: Rig,
    packages: tempfile::TempDir,
    before: Vec<String>,
}

impl Host {
    fn new() -> Self {
        let (rig, packages) = (Rig::new(), tempfile::tempdir().unwrap());
        fs::create_dir(rig.dir.path().join("outside")).unwrap();
        fs::write(rig.dir.path().join("outside/file"), "host").unwrap();
        let mut host = Self { rig, packages, before: Vec::new() };
        host.before = host.outside();
        host
    }

    /// All there is but the rootfs and the staging directory.
    fn outside(&self) -> Vec<String> {
        let mut lines = tree(self.rig.dir.path());
        lines.retain(|line| !["/ours", "/stage"].iter().any(|inside| line.starts_with(inside)));
        lines
    }

    /// Installs packages; the message if they are refused. Nothing outside changes.
    fn install(&self, packages: &[Package]) -> Result<(), String> {
        let rpms: Vec<PathBuf> = packages.iter().map(|p| p.write(self.packages.path())).collect();
        let done = self.rig.install(&rpms, &Recorder::default());
        assert_eq!(self.outside(), self.before);
        done.map(drop).map_err(|error| format!("{error:#}"))
    }
}

/// A package of these files is refused for the reason given, and the message names it.
fn refusal(package: Package, expected: &str) -> Host {
    let host = Host::new();
    let message = host.install(&[package]).expect_err(expected);
    assert!(message.contains(expected), "expected {expected:?} in: {message}");
    assert!(message.contains("hostile-1-1") || message.contains(".rpm"), "names no package: {message}");
    host
}

/// Each is refused for the reason given, before anything changes.
fn refused<const N: usize>(lies: [(Package, &str); N]) {
    for (package, expected) in lies {
        let host = refusal(package, expected);
        assert_eq!(tree(&host.rig.ours), Vec::<String>::new(), "{expected}");
    }
}

#[test]
fn what_is_forged_truthfully_is_installed_as_by_rpm() {
    let host = Host::new();
    let files = [
        File { mode: 0o104755, ..File::new("/usr/bin/program", "text") },
        File { caps: "cap_net_raw=ep".to_owned(), ..File::new("/usr/bin/raw", "text") },
        File::directory("/usr/share/directory"),
        File::link("/usr/share/link", "directory"),
    ];
    let package = Package::new(files);
    host.rig.install(&[package.write(host.packages.path())], &Recorder::default()).unwrap();
    let theirs = Package::new(package.files).write(host.packages.path());
    checked(host.rig.rpm().arg("-ivv").args(INSTALL).arg(theirs));
    host.rig.assert_same();
}

#[test]
fn paths_are_below_the_root() {
    let path = |path: &[u8]| Package::new([File::new(path, "text")]);
    refused([
        (path(b"/usr/../../outside/pwned"), "`..`"),
        (path(b"/usr/.."), "`..`"),
        (path(b"/usr/./x"), "`..`"),
        (path(b"/usr//x"), "empty"),
        (path(b"/usr/share/"), "empty"),
        (path(b"usr/file"), "not absolute"),
        (path(b"file"), "not absolute"),
        (path(b""), "not absolute"),
        (path(b"/usr/\xff\xfe"), "UTF-8"),
        (path(b"/usr/new\nline"), "line feed"),
        (path(format!("/{}", "x".repeat(300)).as_bytes()), "too long"),
        (path("/deep".repeat(2000).as_bytes()), "expected fewer than 4096"),
        (Package::new([File::link("/", "/outside")]), "not a directory"),
        (Package::new([File::new("/", "text")]), "not a directory"),
        (path(b"/usr/x").lying(tag::NAME, Value::Text(b"../../x".to_vec())), "no package name"),
    ]);
}

#[test]
fn claims_are_checked() {
    let good = || File::new("/srv/file", "text");
    let package = || Package::new([good()]);
    let huge = |size: u64| Package::new([File { size, ..good() }]);
    let mut twice = Vec::new();
    member(&mut twice, b"./srv/file", b"text");
    member(&mut twice, b"./srv/file", b"text");
    refused([
        (huge(5), "has 4 bytes"),
        (huge(3), "has 4 bytes"),
        (huge(u32::MAX.into()), "has 4 bytes"),
        (huge(1 << 63), "has 4 bytes"),
        (huge(u64::MAX), "has 4 bytes"),
        (huge(u64::MAX).paying(&b"07070X00000000\0\0text"[..]), "cpio"),
        (Package::new([File { digest: "0".repeat(64), ..good() }]), "digest"),
        (Package::new([File { digest: String::new(), ..good() }]), "digest"),
        (Package::new([File { member: None, ..good() }]), "not in the payload"),
        (Package::new([File { member: Some(b"./srv/other".to_vec()), ..good() }]), "the header has not"),
        (Package::new([File { member: Some(b"../outside/x".to_vec()), ..good() }]), "the header has not"),
        (Package::new([File { member: Some(b"./srv/\xff".to_vec()), ..good() }]), "UTF-8"),
        (package().paying(twice), "twice"),
        (Package::new([good(), good()]), "twice"),
        (package().paying(&b""[..]), "cpio"),
        (package().paying(&b"070701ffffffff"[..]), "cpio"),
        (package().paying(&b"\x28\xb5\x2f\xfd garbage"[..]), "payload"),
        (Package::new([File { mode: 0o170644, content: vec![], ..good() }]), "no known file type"),
        (Package::new([File { mode: 0, content: vec![], ..good() }]), "no known file type"),
        (Package::new([File { caps: "cap_nonsense=zzz".to_owned(), ..good() }]), "cap_nonsense"),
        (Package::new([File::link("/srv/link", "")]), "/srv/link: making the symbolic link"),
        (Package::new([File::link("/srv/link", &"x".repeat(5000))]), "/srv/link: making the symbolic link"),
        (package().lying(tag::FILEMODES, Value::Int16(vec![])), "FILEMODES"),
        (package().lying(tag::FILEMODES, Value::Int16(vec![1, 2])), "FILEMODES"),
        (package().lying(tag::FILEMODES, Value::Text(b"text".to_vec())), "FILEMODES"),
        (package().lying(tag::DIRINDEXES, Value::Int32(vec![u32::MAX])), "directory 4294967295 of 1"),
    ]);
}

#[test]
fn sizes_are_added_up_without_overflow() {
    let package =
        || Package::new([File::new("/srv/file", "text")]).lying(tag::LONGSIZE, Value::Int64(vec![u64::MAX]));
    let other = package().lying(tag::NAME, Value::Text(b"other".to_vec()));
    Host::new().install(&[package(), other]).unwrap();
}

#[test]
fn nothing_is_put_where_something_else_must_be() {
    let host = Host::new();
    let below_file = [File::new("/srv", "text"), File::new("/srv/file", "text")];
    let message = host.install(&[Package::new(below_file)]).unwrap_err();
    assert!(message.contains("installing /srv/file of hostile-1-1.noarch"), "{message}");

    let host = Host::new();
    fs::create_dir_all(host.rig.ours.join("srv/file/full")).unwrap();
    let message = host.install(&[Package::new([File::new("/srv/file", "text")])]).unwrap_err();
    assert!(message.contains("installing /srv/file of hostile-1-1.noarch"), "{message}");
    assert!(host.rig.ours.join("srv/file/full").exists());
}

/// Links that lead out, on disk and packaged, absolute and not: what is below them stays inside.
#[test]
fn set_user_id_files_do_not_land_behind_links() {
    for target in ["../../../outside", "/outside", "/proc/self/cwd", "../../../../../../../../.."] {
        let host = Host::new();
        let below = || Package::new([File { mode: 0o104755, ..File::new("/srv/link/program", "text") }]);
        fs::create_dir(host.rig.ours.join("srv")).unwrap();
        symlink(target, host.rig.ours.join("srv/link")).unwrap();
        fs::create_dir(host.rig.ours.join("outside")).unwrap();
        let _ = host.install(&[below()]);

        let host = Host::new();
        let link =
            Package::new([File::link("/srv/link", target)]).lying(tag::NAME, Value::Text(b"link".to_vec()));
        let _ = host.install(&[link, below()]);
        let host = Host::new();
        let _ = host.install(&[Package::new([File::link("/srv/link", target), below().files.remove(0)])]);
    }
}

#[test]
fn the_rpmdb_is_no_package_s_to_give() {
    let links = [
        ("/usr/lib/sysimage/rpm", "../../../../outside"),
        ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/outside/file"),
    ];
    for (path, target) in links {
        let host = Host::new();
        let result = host.install(&[Package::new([File::link(path, target)])]);
        assert!(
            result.is_err()
                || host.rig.ours.join(&RPMDB[1..]).join("rpmdb.sqlite").symlink_metadata().unwrap().is_file()
        );
    }
    let message = Host::new()
        .install(&[Package::new([File::directory("/usr/lib/sysimage/rpm/rpmdb.sqlite")])])
        .unwrap_err();
    assert!(message.contains("rpmdb.sqlite"), "{message}");
}

/// Whoever unpacks as root gets devices from packages, as from rpm; they are made, not opened.
#[test]
fn devices_stay_in_the_rootfs() {
    let host = Host::new();
    host.install(&[Package::new([File::device("/dev/mem", 0x0101)])]).unwrap();
    assert_eq!(host.rig.ours.join("dev/mem").symlink_metadata().unwrap().rdev(), 0x0101);
}

/// A payload that grows to a terabyte is left where the header says it ends.
#[test]
fn payloads_are_read_as_far_as_the_header_says() {
    let bomb = |content: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(content).unwrap();
        let zeros = vec![0; 1 << 20];
        (0..256).for_each(|_| gzip.write_all(&zeros).unwrap());
        gzip.finish().unwrap()
    };
    let file = || File::new("/srv/file", "text");
    let mut header = Vec::new();
    member(&mut header, b"./srv/file", &vec![0; 1 << 20]);
    refused([(Package::new([file()]).paying(bomb(&header)), "has 1048576 bytes, the header says 4")]);
    let mut whole = Vec::new();
    member(&mut whole, b"./srv/file", b"text");
    member(&mut whole, b"TRAILER!!!", b"");
    // what follows the trailer is not looked at
    Host::new().install(&[Package::new([file()]).paying(bomb(&whole))]).unwrap();
}

#[test]
fn many_files_are_many() {
    let ghost = |n: u32| File { flags: GHOST, ..File::new(format!("/srv/ghosts/{n}"), "") };
    Host::new().install(&[Package::new((0..20_000).map(ghost).collect::<Vec<_>>())]).unwrap();
}
