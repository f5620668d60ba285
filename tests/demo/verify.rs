//! `strata verify` beside `rpm -Va`: on the node image, and on trees changed in every way a file can differ.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::fs::XattrFlags;
use serde_json::Value;

use crate::parity;
use crate::world::{World, run, scratch, text, unpack};

/// What strata answers of an image or a directory, and its exit status.
fn verify(args: &[&str]) -> (Value, i32) {
    let (world, _) = World::built();
    let output = world.command(&[&["--format", "json", "verify"], args].concat()).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    (report, output.status.code().unwrap())
}

fn strata_says(subject: &str) -> BTreeSet<String> {
    parity::findings(&verify(&[subject]).0)
}

/// The node image unpacked by umoci, to be changed.
struct Unpacked {
    dir: PathBuf,
    root: PathBuf,
}

impl Unpacked {
    fn new(name: &str) -> Self {
        let (world, images) = World::built();
        let dir = scratch(name);
        let root = unpack(&world.skopeo(&images[2]), &dir);
        Self { dir, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The tree as an image again: what changed is a layer of its own, removals are whiteouts.
    fn image(&self) -> String {
        let image = format!("{}:image", self.dir.join("layout").display());
        run(Command::new("umoci").args(["repack", "--image", &image]).arg(self.dir.join("bundle")));
        format!("oci:{image}")
    }

    /// strata says of the directory and of the image what rpm says of the directory.
    fn is_verified_as_by_rpm(&self) -> BTreeSet<String> {
        // rpm opens the database for writing, so the image comes first
        let image = self.image();
        let expected = parity::rpm_findings(&self.root);
        assert_eq!(strata_says(self.root.to_str().unwrap()), expected);
        assert_eq!(strata_says(&image), expected);
        expected
    }
}

#[test]
fn the_node_image_is_verified_as_by_rpm() {
    let (_, images) = World::built();
    let expected = parity::rpm_findings(World::unpacked_node());
    assert!(!expected.is_empty());
    assert_eq!(strata_says(&images[2].reference), expected);
    assert_eq!(strata_says(World::unpacked_node().to_str().unwrap()), expected);
}

/// A way in which a file can differ: what it is called, and what makes it so of a regular file or a link.
type Change = (&'static str, fn(&Path));
const CHANGES: [Change; 12] = [
    ("mode", |path| {
        let mode = fs::symlink_metadata(path).unwrap().mode();
        fs::set_permissions(path, Permissions::from_mode(mode ^ 0o4011)).unwrap();
    }),
    ("user", |path| std::os::unix::fs::lchown(path, Some(4242), None).unwrap()),
    ("group", |path| std::os::unix::fs::lchown(path, None, Some(2)).unwrap()),
    ("content", |path| {
        let flipped: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 1).collect();
        fs::write(path, flipped).unwrap();
    }),
    ("size", |path| fs::write(path, [fs::read(path).unwrap(), b"more".to_vec()].concat()).unwrap()),
    ("time", |path| run_on("touch", &["--date=@1000000000"], path)),
    ("missing", |path| fs::remove_file(path).unwrap()),
    ("link", |path| {
        fs::remove_file(path).unwrap();
        symlink("elsewhere", path).unwrap();
    }),
    ("directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("device", |path| {
        fs::remove_file(path).unwrap();
        run(Command::new("mknod").arg(path).args(["c", "1", "3"]));
    }),
    ("capability", |path| {
        let value = hex::decode("0100000200200000000000000000000000000000").unwrap();
        rustix::fs::setxattr(path, "security.capability", &value, XattrFlags::empty()).unwrap();
    }),
    ("no capability", |path| {
        // absent from most files
        let _ = rustix::fs::removexattr(path, "security.capability");
    }),
];

fn run_on(program: &str, args: &[&str], path: &Path) {
    run(Command::new(program).args(args).arg(path));
}

/// The regular files and links that packages ship, but for those which say what the others should be.
fn shipped(root: &Path) -> Vec<String> {
    let list = parity::rpm(root, &["-qa", "--qf", "[%{FILENAMES}\\n]"]);
    let is_file = |path: &&str| {
        let meta = fs::symlink_metadata(root.join(path.trim_start_matches('/')));
        meta.is_ok_and(|meta| !meta.is_dir()) && !["/etc/passwd", "/etc/group"].contains(path)
    };
    let files: BTreeSet<String> = list.lines().filter(is_file).map(str::to_owned).collect();
    files.into_iter().collect()
}

#[test]
fn random_changes_are_seen_as_by_rpm() {
    for seed in 0..3 {
        let unpacked = Unpacked::new(&format!("verify-random-{seed}"));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let before = parity::rpm_findings(&unpacked.root);
        let files = shipped(&unpacked.root);
        let chosen: Vec<&String> = files.choose_multiple(&mut random, 48).collect();
        for path in chosen {
            let at = unpacked.path(path);
            let meta = fs::symlink_metadata(&at).unwrap();
            // a link has no mode or content of its own, and what it points to is not to be changed twice
            let kinds = if meta.is_symlink() { 6..=9 } else { 0..=11 };
            let (_, change) = CHANGES[random.gen_range(kinds)];
            change(&at);
        }
        let after = unpacked.is_verified_as_by_rpm();
        assert!(after.difference(&before).count() >= 24, "{after:?}");
    }
}

#[test]
fn every_change_is_seen_as_by_rpm() {
    let unpacked = Unpacked::new("verify-changes");
    let before = parity::rpm_findings(&unpacked.root);
    let capable = parity::rpm(&unpacked.root, &["-qa", "--qf", "[%{FILENAMES}=%{FILECAPS}\\n]"]);
    let capable =
        capable.lines().find_map(|line| line.split_once('=').filter(|(_, caps)| caps.starts_with("cap_")));
    let capable = capable.unwrap().0;
    let files = shipped(&unpacked.root);
    let regular = |path: &&String| fs::symlink_metadata(unpacked.path(path)).unwrap().is_file();
    let untouched = |path: &&String| !before.iter().any(|finding| finding.ends_with(path.as_str()));
    let mut targets = files.iter().filter(regular).filter(untouched).filter(|path| *path != capable);
    let letters = ["M", "U", "G", "5", "S5", "T", "missing", "L", "M", "D", "P", "P"];
    let mut expected = Vec::new();
    for ((name, change), letters) in CHANGES.iter().zip(letters) {
        let path = if *name == "no capability" { capable } else { targets.next().unwrap() };
        change(&unpacked.path(path));
        expected.push((path.to_owned(), *name, letters));
    }
    let found = unpacked.is_verified_as_by_rpm();
    for (path, name, letters) in expected {
        let finding = found.iter().find(|finding| finding.ends_with(&format!(" {path}")));
        let finding = finding.unwrap_or_else(|| panic!("{name} of {path} is not seen"));
        let columns = finding.split(' ').next().unwrap();
        assert!(letters == columns || letters.chars().all(|l| columns.contains(l)), "{name}: {finding}");
    }
}

#[test]
fn directories_may_be_links_that_root_made() {
    let unpacked = Unpacked::new("verify-directories");
    let list = parity::rpm(&unpacked.root, &["-qa", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\\n]"]);
    let directories: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix('d')?.split_once(' '))
        .map(|(_, path)| path)
        .collect();
    let leaf = |path: &&str| path.starts_with("/usr/share/") && path.matches('/').count() == 4;
    let chosen: Vec<&str> = directories.iter().copied().filter(leaf).take(3).collect();
    let [good, untrusted, dangling] = chosen[..] else { panic!("{directories:?}") };
    for path in [good, untrusted, dangling] {
        fs::rename(unpacked.path(path), unpacked.path(&format!("{path}.moved"))).unwrap();
        // absolute: it must be followed inside the root
        symlink(format!("{path}.moved"), unpacked.path(path)).unwrap();
    }
    std::os::unix::fs::lchown(unpacked.path(untrusted), Some(4242), None).unwrap();
    fs::remove_file(unpacked.path(dangling)).unwrap();
    symlink("nowhere", unpacked.path(dangling)).unwrap();
    let found = unpacked.is_verified_as_by_rpm();
    assert!(!found.iter().any(|finding| finding.ends_with(&format!(" {good}"))), "{found:?}");
    for path in [untrusted, dangling] {
        assert!(found.iter().any(|finding| finding.ends_with(&format!(" {path}"))), "{path}: {found:?}");
    }
}

#[test]
fn what_is_changed_on_purpose_can_be_left_out() {
    let (_, images) = World::built();
    let node = images[2].reference.as_str();
    let (report, status) = verify(&[node]);
    assert_eq!((status, &report["failed"]), (3, &Value::Bool(true)));
    let ignored = ["/usr/lib/os-release", "/usr/lib/systemd/system/bootc-*"];
    let args: Vec<&str> =
        [node].into_iter().chain(ignored.iter().flat_map(|glob| ["--ignore", glob])).collect();
    let (report, status) = verify(&args);
    // the changed %config file is listed still, as a note
    let left = report["differences"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((&left[0]["path"], &left[0]["note"]), (&Value::from("/etc/motd"), &Value::Bool(true)));
    assert_eq!((status, &report["failed"], &report["ignored"]), (0, &Value::Bool(false), &Value::from(3)));

    let world = &World::built().0;
    let unread = world.refused(&["verify", node, "--ignore", "/usr/[a"], 1);
    assert!(unread.contains("reading the glob `/usr/[a`"), "{unread}");
}

#[test]
fn unowned_files_name_their_layer() {
    let (_, images) = World::built();
    let (report, _) = verify(&[&images[2].reference]);
    let unowned = report["unowned"].as_array().unwrap();
    let origin = |path: &str| &unowned.iter().find(|u| u["path"] == path).unwrap()["origin"];
    assert_eq!(origin("/usr/share/openshift/base/meta.json"), "strata: node: metadata");
    assert!(unowned.iter().all(|u| u["path"] != "/usr/share/openshift"));
}

#[test]
fn secrets_and_second_kernels_fail() {
    let unpacked = Unpacked::new("verify-secrets");
    let key = run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]));
    let login = r#"{"auths":{"quay.io":{"auth":"dXNlcjpwYXNz"}}}"#;
    let kernel = "/usr/lib/modules/0.0.1/vmlinuz";
    for (path, content) in [
        ("/etc/pki/entitlement/123.pem", "certificate"),
        ("/etc/leaked.key", key.as_str()),
        // a package owns this path, but ships nothing there
        ("/etc/udev/hwdb.bin", key.as_str()),
        ("/root/.docker/config.json", login),
        ("/etc/yum.repos.d/internal.repo", "[x]\nbaseurl=https://user:pass@host/\n"),
        ("/etc/ssh/ssh_host_rsa_key", ""),
        (kernel, ""),
    ] {
        let at = unpacked.path(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }
    let image = unpacked.image();
    for subject in [image.as_str(), unpacked.root.to_str().unwrap()] {
        let (report, status) = verify(&[subject, "--ignore", "/usr/lib/{os-release,systemd/**}"]);
        assert_eq!(status, 3);
        let secrets = report["secrets"].as_array().unwrap();
        let found: Vec<&str> = secrets.iter().map(|secret| secret["path"].as_str().unwrap()).collect();
        let expected = [
            "/etc/leaked.key",
            "/etc/pki/entitlement/123.pem",
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/udev/hwdb.bin",
            "/etc/yum.repos.d/internal.repo",
            "/root/.docker/config.json",
        ];
        assert_eq!(found, expected);
        assert_eq!(report["kernels"].as_array().unwrap().len(), 2);
        // the kernel alone fails too
        let (report, status) =
            verify(&[subject, "--ignore", "/{etc,root}/**", "--ignore", "/usr/lib/{os-release,systemd/**}"]);
        assert_eq!((status, report["secrets"].as_array().unwrap().len()), (3, 0));
    }
}

#[test]
fn what_is_no_subject_is_refused() {
    let (world, _) = World::built();
    let empty = scratch("verify-empty");
    let error = world.refused(&["verify", empty.to_str().unwrap()], 1);
    assert!(error.contains("there is no rpmdb in the rootfs") && error.contains("hint: "), "{error}");
    let error = world.refused(&["verify", "nothing"], 1);
    assert!(error.contains("`nothing` is no image"), "{error}");
}
