//! Two roots side by side: rpm installs into one, strata into the other.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use sha2::{Digest, Sha256};
use strata::install::{Report, ScriptCall, ScriptRunner, Transaction, run};
use strata::package::header::Header;
use strata::package::{Arch, Nevra};
use strata::progress::{Progress, Unit};
use strata::sandbox::Outcome;
use strata::store::Store;

pub const RPMDB: &str = "/usr/lib/sysimage/rpm";
pub const EPOCH: u64 = 1_700_000_000;

/// Runs a test with root's rights over 65536 ids: as it is for root, else again in a user namespace.
pub fn as_root(name: &str, test: impl FnOnce()) {
    if rustix::process::geteuid().is_root() {
        return test();
    }
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--map-auto", "--"]).arg(std::env::current_exe().unwrap());
    checked(again.args(["--exact", name, "--nocapture"]));
}

/// A scratch directory with both roots.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub ours: PathBuf,
    pub theirs: PathBuf,
    pub docs: bool,
    pub langs: Option<Vec<String>>,
    pub ima: bool,
    pub store: Option<Store>,
    pub warnings: Warnings,
}

/// What strata warned of.
#[derive(Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Progress for Warnings {
    fn start(&self, _: &str, _: u64, _: Unit) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &str) {}
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [ours, theirs, _] = ["ours", "theirs", "stage"].map(|sub| dir.path().join(sub));
        for sub in ["ours", "theirs", "stage"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self {
            dir,
            ours,
            theirs,
            docs: true,
            langs: None,
            ima: false,
            store: None,
            warnings: Warnings::default(),
        }
    }

    /// Does the same in both roots.
    pub fn both(&self, change: impl Fn(&Path)) {
        change(&self.ours);
        change(&self.theirs);
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
        let tx = Transaction {
            rootfs: &self.ours,
            staging: &self.dir.path().join("stage"),
            install: rpms.to_vec(),
            erase: erase.to_vec(),
            store: self.store.as_ref(),
            rpmdb: RPMDB,
            epoch: EPOCH,
            docs: self.docs,
            langs: self.langs.as_deref(),
            ima: self.ima,
            arch: Arch::host().unwrap(),
        };
        run(&tx, runner, &self.warnings)
    }

    pub fn rpm(&self) -> Command {
        rpm_on(&self.theirs)
    }

    /// Both roots have the same files and rpm finds ours as it finds its own.
    pub fn assert_same(&self) {
        assert_lines(&tree(&self.ours), &tree(&self.theirs));
        let query =
            ["-qa", "--qf", "%{nevra} %{installtime} %{installtid} %{installcolor} [%{filestates} ]\n"];
        let [ours, theirs] = [&self.ours, &self.theirs].map(|root| {
            let mut lines: Vec<String> =
                checked(rpm_on(root).args(query)).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        });
        assert_lines(&ours, &theirs);
        let [ours, theirs] = [&self.ours, &self.theirs].map(|root| {
            let out = rpm_on(root).args(["-Va", "--nodeps", "--noscripts"]).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        });
        assert_eq!(ours, theirs, "rpm -Va");
    }
}

/// rpm on a root, with nothing of the machine's configuration that matters here.
pub fn rpm_on(root: &Path) -> Command {
    let mut rpm = Command::new("rpm");
    rpm.arg("--root").arg(root).args(["--dbpath", RPMDB, "--define", "_pkgverify_level none"]);
    rpm.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).env("LC_ALL", "C");
    rpm
}

/// Options with which rpm installs whatever it is given.
pub const INSTALL: [&str; 4] = ["--nodeps", "--nosignature", "--nodigest", "--force-debian"];

pub fn assert_lines(ours: &[String], theirs: &[String]) {
    let only = |a: &[String], b: &[String]| {
        let b: std::collections::BTreeSet<_> = b.iter().collect();
        a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>().join("\n")
    };
    let (a, b) = (only(ours, theirs), only(theirs, ours));
    assert!(a.is_empty() && b.is_empty(), "only ours:\n{a}\nonly rpm's:\n{b}");
}

/// Notes every call and runs nothing.
#[derive(Default)]
pub struct Recorder {
    calls: Mutex<Vec<String>>,
}

impl Recorder {
    pub fn calls(&self) -> String {
        self.calls.lock().unwrap().join("\n")
    }
}

impl ScriptRunner for Recorder {
    fn run(&self, call: &ScriptCall) -> anyhow::Result<Outcome> {
        let paths = String::from_utf8(call.stdin.clone()).unwrap().replace('\n', " ");
        let line = format!("{:?} {} {} {paths}", call.phase, call.package().name, call.args.join(" "));
        self.calls.lock().unwrap().push(line.trim_end().to_owned());
        Ok(Outcome { status: 0, output: String::new(), duration: Duration::ZERO })
    }
}

/// A Lua scriptlet that notes its call in `/log` of the root as [`Recorder`] does.
pub fn noting(phase: &str, package: &str) -> String {
    format!(
        r#"local out = "{phase} {package}"
for i = 2, #arg do out = out .. " " .. string.format("%%d", arg[i]) end
local file = rpm.next_file and rpm.next_file()
while file do out = out .. " " .. file; file = rpm.next_file() end
local f = io.open("/log", "a") f:write(out .. "\n") f:close()
"#
    )
}

pub fn checked(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command:?} failed:\n{stdout}{stderr}");
    stdout + &stderr
}

/// Package files as strata sorts them before it orders them.
pub fn sorted(rpms: &[PathBuf]) -> Vec<PathBuf> {
    let mut sorted = rpms.to_vec();
    sorted.sort_by_key(|p| nevra(p));
    sorted
}

/// Installs with rpm; gives the elements in the order it took.
pub fn rpm_install(rig: &Rig, rpms: &[PathBuf], options: &[&str]) -> String {
    elements(&checked(rig.rpm().arg("-ivv").args(INSTALL).args(options).args(sorted(rpms))))
}

/// The elements of a transaction in rpm's log.
pub fn elements(log: &str) -> String {
    let elements = log.lines().filter_map(|l| l.strip_prefix("D: ========== +++ "));
    let nevra = |element: &str| {
        let (nevr, platform) = element.split_once(' ').unwrap();
        format!("{nevr}.{}", platform.split_once("-linux").unwrap().0)
    };
    elements.map(nevra).collect::<Vec<_>>().join("\n")
}

/// Packages of a report in its order.
pub fn installed(packages: &[Nevra]) -> String {
    packages.iter().map(Nevra::to_string).collect::<Vec<_>>().join("\n")
}

pub fn nevra(rpm: &Path) -> Nevra {
    Header::open(rpm).unwrap().nevra().clone()
}

/// Builds packages from a spec below `dir`; gives them by name.
pub fn build(dir: &Path, spec: &str) -> impl Fn(&str) -> PathBuf + use<> {
    let top = tempfile::tempdir_in(dir).unwrap().keep();
    let file = top.join("x.spec");
    std::fs::write(&file, spec).unwrap();
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--nodeps", "--define"]).arg(format!("_topdir {}", top.display()));
    rpmbuild.args(["--define", "_rpmfilename %%{name}.rpm", "--define", "debug_package %%{nil}"]);
    rpmbuild.args(["--define", "_build_id_links none", "--define", "clamp_mtime_to_source_date_epoch 0"]);
    checked(rpmbuild.arg(&file).env("LC_ALL", "C"));
    move |name| {
        let rpm = top.join("RPMS").join(format!("{name}.rpm"));
        assert!(rpm.exists(), "{} was not built", rpm.display());
        rpm
    }
}

/// Every file below `root` but the rpmdb and the log, one line each: type, mode, owner, size or target,
/// content, time, capabilities. Times and sizes of directories are whatever happened last in them.
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
        if [RPMDB, "/log"].map(Path::new).contains(&inside.as_path()) {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let name = String::from_utf8_lossy(inside.as_os_str().as_bytes()).into_owned();
        let (mode, what) = (meta.mode(), describe(&path, &meta));
        lines.push(format!("{name} {mode:o} {}:{} {what}{}", meta.uid(), meta.gid(), caps(&path)));
        if meta.is_dir() {
            walk(root, &path, lines);
        }
    }
}

fn describe(path: &Path, meta: &std::fs::Metadata) -> String {
    let (kind, time) = (meta.file_type(), meta.mtime());
    if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("-> {} {time}", std::fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        let digest = digest_of(path);
        format!("{} {digest} {time} links {}", meta.size(), meta.nlink())
    } else if kind.is_fifo() {
        format!("fifo {time}")
    } else {
        format!("device {:x} {time}", meta.rdev())
    }
}

/// Read piece by piece: one test has a file of 4 GiB.
fn digest_of(path: &Path) -> String {
    let mut file = std::fs::File::open(path).unwrap();
    let (mut digest, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return hex::encode(digest.finalize()),
            n => digest.update(&piece[..n]),
        }
    }
}

fn caps(path: &Path) -> String {
    let mut value = [0; 64];
    match rustix::fs::lgetxattr(path, "security.capability", &mut value[..]) {
        Ok(n) => format!(" caps {}", hex::encode(&value[..n])),
        Err(_) => String::new(),
    }
}
