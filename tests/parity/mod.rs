//! The same packages installed by strata and by `dnf --installroot`: same packages, same tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// Where images keep the rpmdb.
const RPMDB: &str = "/usr/lib/sysimage/rpm";

/// What two trees are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trees {
    /// A transaction ended in both.
    #[allow(dead_code, reason = "one of the two programs that share this module compares them")]
    Transactions,
    /// The one is an image of strata, the other where dnf's transactions ended.
    Images,
}

/// A difference that is intended: a row of the table in docs/parity.md.
struct Exception {
    /// An absolute path, which stands for itself and all that is below it, or the beginning of one before `*`.
    path: &'static str,
    /// Whether it is one of transactions too.
    everywhere: bool,
}

impl Exception {
    fn covers(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path.strip_prefix(self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// The exceptions for such trees.
fn exceptions(of: Trees) -> Vec<Exception> {
    let rows = include_str!("../../docs/parity.md").lines().filter(|line| line.starts_with("| `/"));
    let exception = |row: &'static str| {
        let [_, path, place, reason, _] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("docs/parity.md: expected `| PATH | WHERE | REASON |`: {row}");
        };
        assert!(["images", "everywhere"].contains(&place) && !reason.is_empty(), "docs/parity.md: {row}");
        Exception { path: path.trim_matches('`'), everywhere: place == "everywhere" }
    };
    rows.map(exception).filter(|e| e.everywhere || of == Trees::Images).collect()
}

/// Exceptions that are none: nothing in the trees differs there.
#[allow(dead_code, reason = "one of the two programs that share this module asks")]
pub fn stale_exceptions(strata: &Path, peer: &Path, of: Trees) -> Vec<&'static str> {
    let (strata, peer) = (walk(strata, &|_| true), walk(peer, &|_| true));
    let mut exceptions = exceptions(of);
    let below = |nodes: &BTreeMap<String, Node>, e: &Exception| {
        nodes
            .iter()
            .filter(|(path, _)| e.covers(path))
            .map(|(p, n)| (p.clone(), format!("{n:?}")))
            .collect::<Vec<_>>()
    };
    exceptions.retain(|e| below(&strata, e) == below(&peer, e));
    exceptions.iter().map(|e| e.path).collect()
}

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

/// The tree at `root`, by absolute path inside it, without the exceptions for such trees.
pub fn tree(root: &Path, of: Trees) -> BTreeMap<String, Node> {
    let exceptions = exceptions(of);
    walk(root, &|path| !exceptions.iter().any(|e| e.covers(path)))
}

fn walk(root: &Path, wanted: &dyn Fn(&str) -> bool) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let inside = format!("/{}", path.strip_prefix(root).unwrap().display());
            if !wanted(&inside) {
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
        let secret = path.parent().is_some_and(|dir| dir.ends_with("etc"))
            && path.file_name().is_some_and(|name| {
                ["shadow", "shadow-", "gshadow", "gshadow-"].contains(&name.to_str().unwrap())
            });
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

/// A shadow or gshadow file, or its backup, without the days of last change (dnf's scriptlets see today, strata's the day on
/// which their package was built), and with one word for "no password": groupadd writes `!`, useradd `!!`, systemd-sysusers
/// `!*`, whose part dnf's rpm 4.18 leaves to scriptlets.
fn comparable(path: &Path) -> Vec<u8> {
    let shadow = path.ends_with("etc/shadow") || path.ends_with("etc/shadow-");
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

/// dnf on a rootfs, with nothing of the host's configuration.
pub struct Dnf {
    /// The rootfs.
    pub root: PathBuf,
    home: PathBuf,
    work: PathBuf,
}

impl Dnf {
    /// dnf on `WORK/dnf-root`.
    pub fn new(work: &Path) -> Self {
        let home = work.join("dnf-home");
        fs::create_dir_all(&home).unwrap();
        // Debian's rpm keeps its database in the home directory; images keep it in /usr
        fs::write(
            home.join(".rpmmacros"),
            format!("%_dbpath {RPMDB}\n%_build_id_links none\n%_db_backend sqlite\n"),
        )
        .unwrap();
        Self { root: work.join("dnf-root"), home, work: work.to_owned() }
    }

    /// Runs dnf on the repositories of a snapshot; `snapshot` and `key` are as `benches/snapshot-stream.sh`
    /// takes them.
    pub fn run<'a>(&self, snapshot: &Path, key: &Path, args: impl IntoIterator<Item = &'a str>) {
        let mut config = String::from(
            "[main]\ngpgcheck=1\nbest=1\ninstall_weak_deps=0\nkeepcache=0\nplugins=0\n\
             reposdir=/nonexistent\nvarsdir=/nonexistent\nmodule_platform_id=platform:el9\nzchunk=0\n",
        );
        for repo in ["baseos", "appstream", "ose"] {
            config += &format!(
                "[{repo}]\nname={repo}\nbaseurl=file://{}/{repo}\ngpgkey=file://{}\n",
                snapshot.display(),
                key.display()
            );
        }
        let file = self.work.join("dnf.conf");
        fs::write(&file, config).unwrap();
        // with /proc and /dev, as container builds run dnf: some scriptlets give up without them
        let output = Command::new("unshare")
            .args(["--mount", "--pid", "--fork"])
            .args(["sh", "-ec", MOUNT_API, "sh"])
            .arg(&self.root)
            .args(["dnf", "-q", "-y", "--noplugins", "--releasever=9", "-c"])
            .arg(&file)
            .arg("--installroot")
            .arg(&self.root)
            .args(args)
            .env("HOME", &self.home)
            .env("LANG", "C.UTF-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "dnf: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Installs the layers of a snapshot, one on top of the other.
    pub fn install_layers(&self, snapshot: &Path, key: &Path) {
        for layer in ["bootc", "coreos", "node"] {
            let specs = fs::read_to_string(snapshot.join(format!("layers/{layer}.packages"))).unwrap();
            self.run(snapshot, key, ["install"].into_iter().chain(specs.lines()));
        }
    }
}
