//! Two roots side by side: rpm installs into one, strata into the other.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use sha2::{Digest, Sha256};
use strata::install::{Report, ScriptCall, ScriptRunner, Transaction, run};
use strata::package::{Arch, Nevra};
use strata::progress::Silent;
use strata::sandbox::Outcome;

pub const RPMDB: &str = "/usr/lib/sysimage/rpm";
pub const EPOCH: u64 = 1_700_000_000;

/// A scratch directory with both roots.
pub struct Rig {
    dir: tempfile::TempDir,
    pub theirs: PathBuf,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["ours", "theirs", "stage"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let theirs = dir.path().join("theirs");
        Self { dir, theirs }
    }

    pub fn ours(&self) -> PathBuf {
        self.dir.path().join("ours")
    }

    pub fn transaction<'a>(&'a self, ours: &'a Path, stage: &'a Path) -> Transaction<'a> {
        Transaction {
            rootfs: ours,
            staging: stage,
            install: Vec::new(),
            erase: Vec::new(),
            rpmdb: RPMDB,
            epoch: EPOCH,
            docs: true,
            langs: None,
            arch: Arch::host().unwrap(),
        }
    }

    pub fn install(&self, rpms: &[PathBuf], runner: &dyn ScriptRunner) -> anyhow::Result<Report> {
        self.apply(rpms, &[], runner)
    }

    pub fn apply(
        &self,
        rpms: &[PathBuf],
        erase: &[Nevra],
        runner: &dyn ScriptRunner,
    ) -> anyhow::Result<Report> {
        let (ours, stage) = (self.ours(), self.dir.path().join("stage"));
        let tx =
            Transaction { install: rpms.to_vec(), erase: erase.to_vec(), ..self.transaction(&ours, &stage) };
        run(&tx, runner, &Silent)
    }
}

/// Notes every call and runs nothing.
#[derive(Default)]
pub struct Recorder {
    pub calls: Mutex<Vec<String>>,
}

impl ScriptRunner for Recorder {
    fn run(&self, call: &ScriptCall) -> anyhow::Result<Outcome> {
        let paths = String::from_utf8(call.stdin.clone()).unwrap().replace('\n', " ");
        let line = format!("{:?} {} {} {paths}", call.phase, call.package.name, call.args.join(" "));
        self.calls.lock().unwrap().push(line.trim_end().to_owned());
        Ok(Outcome { status: 0, output: String::new(), duration: Duration::ZERO })
    }
}

/// rpm on a root, with nothing of the machine's configuration that matters here.
pub fn rpm(root: &Path) -> Command {
    let mut rpm = Command::new("rpm");
    rpm.arg("--root").arg(root).args(["--dbpath", RPMDB, "--define", "_pkgverify_level none"]);
    rpm.args(["--define", "_install_langs all", "--define", "_excludedocs 0"]);
    rpm.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).env("LC_ALL", "C");
    rpm
}

pub fn checked(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command:?} failed:\n{stderr}");
    String::from_utf8(out.stdout).unwrap() + &stderr
}

/// Installs with rpm; gives the order it took.
pub fn rpm_install(root: &Path, rpms: &[PathBuf], options: &[&str]) -> Vec<String> {
    let mut sorted = rpms.to_vec();
    sorted.sort_by_key(|p| nevra(p));
    let mut rpm = rpm(root);
    rpm.args(["-i", "-vv", "--nodeps", "--nosignature", "--nodigest", "--force-debian"])
        .args(options)
        .args(sorted);
    let log = checked(&mut rpm);
    let elements = log.lines().filter_map(|l| l.strip_prefix("D: ========== +++ "));
    let nevra = |element: &str| {
        let (nevr, platform) = element.split_once(' ').unwrap();
        format!("{nevr}.{}", platform.split_once("-linux").unwrap().0)
    };
    elements.map(nevra).collect()
}

/// Identity of a package file, as strata sorts them.
pub fn nevra(rpm: &Path) -> Nevra {
    strata::package::header::Header::open(rpm).unwrap().nevra().clone()
}

/// Every file below `root` but the rpmdb, one line each: type, mode, owner, size or target, content, time,
/// capabilities. Times and sizes of directories are whatever happened last in them.
pub fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines.sort();
    lines
}

fn walk(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let inside = Path::new("/").join(path.strip_prefix(root).unwrap());
        if inside == Path::new(RPMDB) {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let what = match () {
            () if kind.is_dir() => "dir".to_owned(),
            () if kind.is_symlink() => {
                format!("-> {} {}", std::fs::read_link(&path).unwrap().display(), meta.mtime())
            }
            () if kind.is_file() => {
                let digest = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
                format!("{} {} {} links {}", meta.size(), digest, meta.mtime(), meta.nlink())
            }
            () if kind.is_fifo() => format!("fifo {}", meta.mtime()),
            () => format!("device {:x} {}", meta.rdev(), meta.mtime()),
        };
        let mut caps = [0; 64];
        let caps = match rustix::fs::lgetxattr(&path, "security.capability", &mut caps[..]) {
            Ok(n) => hex::encode(&caps[..n]),
            Err(_) => String::new(),
        };
        let name = String::from_utf8_lossy(inside.as_os_str().as_bytes()).into_owned();
        lines.push(format!("{name} {:o} {}:{} {what} {caps}", meta.mode(), meta.uid(), meta.gid()));
        if kind.is_dir() {
            walk(root, &path, lines);
        }
    }
}
