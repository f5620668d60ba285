//! The same packages installed by strata and by `dnf --installroot`: same packages, same tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// Where images keep the rpmdb.
const RPMDB: &str = "/usr/lib/sysimage/rpm";

/// Paths that are allowed to differ between strata's tree and dnf's, each with its reason. A path stands for
/// itself and all that is below it.
const EXCEPTIONS: [(&str, &str); 21] = [
    ("/usr/lib/sysimage/rpm", "rpm's own database: compared by queries"),
    ("/usr/share/openshift", "strata's package list"),
    ("/proc", "a mount while dnf ran, so that rpm could not set its mode"),
    ("/etc/dnf", "made by dnf"),
    ("/var/lib/dnf", "dnf's history"),
    ("/var/cache", "caches are no content of an image"),
    ("/var/log", "logs are no content of an image"),
    ("/run", "runtime state is no content of an image"),
    ("/tmp", "temporary files are no content of an image"),
    ("/var/tmp", "temporary files are no content of an image"),
    ("/etc/machine-id", "one machine's own: empty in an image"),
    ("/etc/passwd-", "backup made by account tools"),
    ("/etc/group-", "backup made by account tools"),
    ("/etc/shadow-", "backup made by account tools"),
    ("/etc/gshadow-", "backup made by account tools"),
    ("/etc/.pwd.lock", "lock of account tools"),
    ("/var/lib/rpm-state", "state of one transaction"),
    ("/var/lib/systemd/catalog/database", "made by a scriptlet: machines make their own"),
    ("/var/lib/dbus/machine-id", "made by a scriptlet: machines make their own"),
    ("/var/lib/sss/db/config.ldb", "made by a scriptlet: machines make their own"),
    ("/var/lib/zoo-ghost/state", "made by a scriptlet: machines make their own"),
];

/// Beginnings of paths that only strata's tree has, each with its reason.
const ADDED: [(&str, &str); 2] = [
    ("/usr/lib/tmpfiles.d/strata-", "makes /var on machines that have one already"),
    ("/usr/lib/sysusers.d/strata-", "makes accounts on machines that have an /etc/passwd already"),
];

/// What there is at a path; times are left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    /// Digest of a file, target of a link.
    content: String,
    capabilities: Option<Vec<u8>>,
}

impl Node {
    /// Whether tmpfiles.d can make it of nothing.
    #[allow(dead_code, reason = "one of the two programs that share this module asks")]
    pub fn is_directory_or_link(&self) -> bool {
        ["directory", "symlink"].contains(&self.kind.as_str())
    }
}

/// The tree at `root`, by absolute path inside it, without the exceptions.
pub fn tree(root: &Path) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let inside = format!("/{}", path.strip_prefix(root).unwrap().display());
            if EXCEPTIONS.iter().any(|(e, _)| inside == *e || inside.starts_with(&format!("{e}/")))
                || ADDED.iter().any(|(prefix, _)| inside.starts_with(prefix))
            {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                open.push(path.clone());
            }
            nodes.insert(inside, node(&path, &meta));
        }
    }
    nodes
}

fn node(path: &Path, meta: &fs::Metadata) -> Node {
    let file_type = meta.file_type();
    let (kind, content) = if file_type.is_symlink() {
        ("symlink", fs::read_link(path).unwrap().display().to_string())
    } else if file_type.is_dir() {
        ("directory", String::new())
    } else if file_type.is_file() {
        let secret = path.ends_with("etc/shadow") || path.ends_with("etc/gshadow");
        let bytes = if secret { comparable(path) } else { fs::read(path).unwrap() };
        ("file", format!("{} {}", bytes.len(), hex::encode(Sha256::digest(bytes))))
    } else if file_type.is_char_device() || file_type.is_block_device() {
        ("device", meta.rdev().to_string())
    } else {
        ("other", String::new())
    };
    Node {
        kind: kind.to_owned(),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        content,
        capabilities: capabilities(path),
    }
}

/// A shadow or gshadow file without the days of last change (dnf's scriptlets see today, strata's the date of
/// the repositories), and with one word for "no password": groupadd writes `!`, useradd `!!`, systemd-sysusers
/// `!*`, whose part dnf's rpm 4.18 leaves to scriptlets.
fn comparable(path: &Path) -> Vec<u8> {
    let shadow = path.ends_with("etc/shadow");
    let field = |(n, text): (usize, &str)| match (n, text) {
        (1, "!!" | "!*") => "!".to_owned(),
        (2, _) if shadow => String::new(),
        _ => text.to_owned(),
    };
    let line = |line: &str| line.split(':').enumerate().map(field).collect::<Vec<_>>().join(":");
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|l| line(l) + "\n").collect::<String>().into_bytes()
}

fn capabilities(path: &Path) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let len = rustix::fs::lgetxattr(path, "security.capability", &mut value[..]).ok()?;
    Some(value[..len].to_vec())
}

/// What is different, a line each; empty when nothing is.
pub fn differences(strata: &BTreeMap<String, Node>, peer: &BTreeMap<String, Node>) -> Vec<String> {
    let paths: BTreeSet<&String> = strata.keys().chain(peer.keys()).collect();
    let line = |path: &String| match (strata.get(path), peer.get(path)) {
        (Some(ours), Some(theirs)) if ours == theirs => None,
        (Some(ours), Some(theirs)) => Some(format!("{path}: {ours:?} here, {theirs:?} there")),
        (Some(ours), None) => Some(format!("{path}: only here: {ours:?}")),
        (None, theirs) => Some(format!("{path}: only there: {theirs:?}")),
    };
    paths.into_iter().filter_map(line).collect()
}

/// `rpm` on a rootfs, with nothing of the host's configuration.
pub fn rpm(root: &Path, args: &[&str]) -> String {
    let output = Command::new("rpm")
        .args(["--root"])
        .arg(root)
        .args(["--define", &format!("_dbpath {RPMDB}")])
        .args(args)
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `RESULT MARK PATH` of each file that `rpm -Va` finds different.
pub fn rpm_findings(root: &Path) -> BTreeSet<String> {
    let finding = |line: &str| {
        let (columns, path) = line.split_at(line.find('/').unwrap());
        let columns: Vec<&str> = columns.split_whitespace().collect();
        format!("{} {path}", columns.join(" "))
    };
    rpm(root, &["-Va", "--nodeps", "--noscripts"]).lines().map(finding).collect()
}

/// The same of each file in a report of `strata verify`.
pub fn findings(report: &serde_json::Value) -> BTreeSet<String> {
    let finding = |found: &serde_json::Value| {
        let columns = [&found["result"], &found["mark"], &found["path"]];
        columns.iter().filter_map(|column| column.as_str()).collect::<Vec<_>>().join(" ")
    };
    report["differences"].as_array().unwrap().iter().map(finding).collect()
}

/// Sorted NEVRAs of a rootfs's rpmdb, the keys of repositories left out.
pub fn packages(root: &Path) -> Vec<String> {
    let list = rpm(root, &["-qa", "--qf", "%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}\\n"]);
    let mut packages: Vec<String> =
        list.lines().filter(|line| !line.starts_with("gpg-pubkey-")).map(str::to_owned).collect();
    packages.sort();
    packages
}

/// Mounts API file systems below `$1`, and runs the rest of the arguments.
const MOUNT_API: &str = r#"
    root=$1; shift
    mkdir -p "$root/proc" "$root/dev"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec "$@"
"#;

/// A rootfs with the layers of a snapshot, installed by dnf one on top of the other.
///
/// `snapshot` and `key` are as `benches/snapshot-stream.sh` takes them.
pub fn dnf_root(snapshot: &Path, key: &Path, work: &Path) -> PathBuf {
    let home = work.join("dnf-home");
    fs::create_dir_all(&home).unwrap();
    // Debian's rpm keeps its database in the home directory; images keep it in /usr
    fs::write(
        home.join(".rpmmacros"),
        format!("%_dbpath {RPMDB}\n%_build_id_links none\n%_db_backend sqlite\n"),
    )
    .unwrap();
    let mut config = String::from(
        "[main]\ngpgcheck=1\nbest=1\ninstall_weak_deps=0\nkeepcache=0\nplugins=0\nreposdir=/nonexistent\n\
         varsdir=/nonexistent\nmodule_platform_id=platform:el9\nzchunk=0\n",
    );
    for repo in ["baseos", "appstream", "ose"] {
        config += &format!(
            "[{repo}]\nname={repo}\nbaseurl=file://{}/{repo}\ngpgkey=file://{}\n",
            snapshot.display(),
            key.display()
        );
    }
    fs::write(work.join("dnf.conf"), config).unwrap();
    let root = work.join("dnf-root");
    for layer in ["bootc", "coreos", "node"] {
        let specs = fs::read_to_string(snapshot.join(format!("layers/{layer}.packages"))).unwrap();
        // with /proc and /dev, as container builds run dnf: some scriptlets give up without them
        let output = Command::new("unshare")
            .args(["--mount", "--pid", "--fork"])
            .args(["sh", "-ec", MOUNT_API, "sh"])
            .arg(&root)
            .args(["dnf", "-q", "-y", "--noplugins", "--releasever=9", "-c"])
            .arg(work.join("dnf.conf"))
            .arg("--installroot")
            .arg(&root)
            .arg("install")
            .args(specs.lines())
            .env("HOME", &home)
            .env("LANG", "C.UTF-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "dnf: {}", String::from_utf8_lossy(&output.stderr));
    }
    root
}
