//! Takes a case's steps, first with rpm, then with strata.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sha2::{Digest, Sha256};
use strata::install::macros::Macros;
use strata::install::script::Runner;
use strata::install::{Transaction, run};
use strata::package::header::Header;
use strata::package::{Arch, Nevra};
use strata::progress::Silent;
use strata::rpmdb::Rpmdb;
use strata::sandbox::Sandbox;

use crate::case::{Action, Case, Step};
use crate::common::{EPOCH, INSTALL, RPMDB, checked, nevra, rpm_on, sorted};
use crate::compare::{View, answers, differences, keys, state};
use crate::package::build;

/// What all cases begin with.
pub struct Rig {
    /// Built packages.
    cache: PathBuf,
    /// A root with the package `base`.
    base: tempfile::TempDir,
    shadow: PathBuf,
    /// Seconds since 1970.
    started: i64,
}

impl Rig {
    pub fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parity");
        std::fs::create_dir_all(&cache).unwrap();
        let busybox = build_around(&cache, "base-1", include_str!("base.spec"), "/usr/bin/busybox");
        let shadow = build_around(&cache, "shadow-1", include_str!("shadow.spec"), "/usr/sbin/useradd");
        let base = tempfile::tempdir().unwrap();
        checked(rpm_on(base.path()).arg("-i").args(INSTALL).arg(busybox));
        Self { cache, base, shadow, started: started.try_into().unwrap() }
    }

    /// Runs a case; what was different after any of its steps.
    pub fn run(&self, case: &Case) -> Vec<String> {
        let work = tempfile::tempdir().unwrap();
        let roots = Roots::new(self, case, work.path());
        let mut found = Vec::new();
        for (epoch, step) in (EPOCH..).step_by(1000).zip(&case.steps) {
            let (different, refused) = roots.take(step, epoch, self.started);
            found.extend(different.into_iter().map(|what| format!("{}: {what}", step.text)));
            if step.refused.is_none() && (refused || !found.is_empty()) {
                break;
            }
        }
        found
    }
}

/// Builds a package that has a program of this machine in it.
fn build_around(cache: &Path, id: &str, spec: &str, program: &str) -> PathBuf {
    let bytes = std::fs::read(program).unwrap_or_else(|e| panic!("{program}: {e}"));
    build(cache, id, &format!("# around {program} {}\n{spec}", hex::encode(Sha256::digest(bytes))))
}

/// The roots of a case, and its packages.
struct Roots<'a> {
    case: &'a Case,
    ours: PathBuf,
    theirs: PathBuf,
    staging: PathBuf,
    /// Package files, by name and version.
    packages: BTreeMap<String, PathBuf>,
}

impl<'a> Roots<'a> {
    fn new(rig: &Rig, case: &'a Case, work: &Path) -> Self {
        let [ours, theirs, staging] = ["ours", "theirs", "staging"].map(|name| work.join(name));
        for root in [&ours, &theirs] {
            if case.empty_root {
                std::fs::create_dir(root).unwrap();
            } else {
                checked(Command::new("cp").arg("-a").args([rig.base.path(), root]));
            }
        }
        let built = case.packages.iter().map(|package| (package.id(), package.build(&rig.cache)));
        let packages = built.chain([("shadow-1".to_owned(), rig.shadow.clone())]).collect();
        Self { case, ours, theirs, staging, packages }
    }

    /// Takes a step in both roots; what is different then, and whether rpm refused it.
    fn take(&self, step: &Step, epoch: u64, started: i64) -> (Vec<String>, bool) {
        let rpm = self.with_rpm(&step.action, epoch);
        let strata = self.with_strata(&step.action, epoch);
        for root in [&self.ours, &self.theirs] {
            settle(root, started);
        }
        let refused = !rpm.status.success();
        let expected = step.refused.unwrap_or(refused);
        let mut different = match step.refused {
            Some(_) => [self.compare(state), self.compare(|root| self.answers(root))].concat(),
            None if !refused => self.compare(state),
            // how far rpm came before it refused is no rule
            None => Vec::new(),
        };
        if refused != expected {
            different.push(format!("rpm, status {}: {}", rpm.status, String::from_utf8_lossy(&rpm.stderr)));
        }
        match strata {
            Ok(()) if expected => {
                different.push(format!("strata does it; rpm: {}", String::from_utf8_lossy(&rpm.stderr)))
            }
            Err(error) if !expected => different.push(format!("strata refuses: {error:#}")),
            _ => {}
        }
        (different, refused)
    }

    /// What is different between the roots in some views.
    fn compare(&self, views: impl Fn(&Path) -> Vec<View>) -> Vec<String> {
        differences(&views(&self.ours), &views(&self.theirs))
    }

    fn answers(&self, root: &Path) -> Vec<View> {
        let paths = lines(rpm_on(&self.theirs).arg("-qal"));
        let names = ["Providename", "Requirename"].map(|table| keys(&self.theirs, table)).concat();
        answers(root, &paths, &names)
    }

    fn with_rpm(&self, action: &Action, epoch: u64) -> Output {
        let mut rpm = rpm_on(&self.theirs);
        rpm.env("SOURCE_DATE_EPOCH", epoch.to_string());
        rpm.args(["--define", &format!("_excludedocs {}", u8::from(self.case.excludedocs))]);
        if let Some(langs) = &self.case.langs {
            rpm.args(["--define", &format!("_install_langs {langs}")]);
        }
        match action {
            Action::Install(new) => {
                rpm.args(["-i", "--oldpackage"]).args(INSTALL).args(sorted(&self.files(new)))
            }
            Action::Upgrade(new) => {
                rpm.args(["-U", "--oldpackage", "--replacepkgs"]).args(INSTALL).args(sorted(&self.files(new)))
            }
            Action::Erase(old) => {
                let mut old = self.nevras(old);
                old.sort();
                rpm.args(["-e", "--nodeps"]).args(old.iter().map(Nevra::to_string))
            }
            Action::Do(code) => return by_hand(&self.theirs, code).output().unwrap(),
        };
        rpm.output().unwrap()
    }

    fn with_strata(&self, action: &Action, epoch: u64) -> anyhow::Result<()> {
        let (new, old) = match action {
            Action::Install(new) => (self.files(new), Vec::new()),
            Action::Upgrade(new) => (self.files(new), self.replaced(new)),
            Action::Erase(old) => (Vec::new(), self.nevras(old)),
            Action::Do(code) => {
                by_hand(&self.ours, code).output().unwrap();
                return Ok(());
            }
        };
        std::fs::create_dir(&self.staging).unwrap();
        let langs: Option<Vec<String>> =
            self.case.langs.as_ref().map(|langs| langs.split(':').map(str::to_owned).collect());
        let transaction = Transaction {
            rootfs: &self.ours,
            staging: &self.staging,
            install: new,
            erase: old,
            store: None,
            rpmdb: RPMDB,
            epoch,
            docs: !self.case.excludedocs,
            langs: langs.as_deref(),
            ima: false,
            arch: Arch::host().unwrap(),
        };
        let sandbox = Sandbox { rootfs: self.ours.clone(), epoch };
        let runner = Runner::new(sandbox, env!("CARGO_BIN_EXE_strata").into(), Macros::default()).unwrap();
        let done = run(&transaction, &runner, &Silent).map(drop);
        std::fs::remove_dir_all(&self.staging).unwrap();
        done
    }

    fn files(&self, ids: &[String]) -> Vec<PathBuf> {
        let file = |id: &String| self.packages.get(id).unwrap_or_else(|| panic!("there is no package {id}"));
        ids.iter().map(|id| file(id).clone()).collect()
    }

    fn nevras(&self, ids: &[String]) -> Vec<Nevra> {
        self.files(ids).iter().map(|file| nevra(file)).collect()
    }

    /// Installed packages that have the name of a new one, or one that it obsoletes.
    fn replaced(&self, new: &[String]) -> Vec<Nevra> {
        let file = self.ours.join(&RPMDB[1..]).join("rpmdb.sqlite");
        let mut installed =
            if file.exists() { Rpmdb::open_read_only(&file).unwrap().nevras().unwrap() } else { Vec::new() };
        let new: Vec<Header> = self.files(new).iter().map(|file| Header::open(file).unwrap()).collect();
        let obsoletes = new.iter().flat_map(|new| new.obsoletes().unwrap());
        let mut names: Vec<String> = obsoletes.map(|obsolete| obsolete.dependency.name).collect();
        names.extend(new.iter().map(|new| new.nevra().name.clone()));
        installed.retain(|nevra| names.contains(&nevra.name));
        installed
    }
}

/// What an administrator does in a root.
fn by_hand(root: &Path, code: &str) -> Command {
    let mut shell = Command::new("chroot");
    shell.arg(root).args(["/bin/sh", "-ec", code]).env("PATH", "/usr/sbin:/usr/bin");
    shell
}

fn lines(command: &mut Command) -> Vec<String> {
    String::from_utf8(command.output().unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Gives one time to files that scriptlets or people wrote: rpm and strata do not meet them in
/// the same second.
fn settle(directory: &Path, started: i64) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            settle(&path, started);
        } else if meta.mtime() >= started {
            let time = Timespec { tv_sec: 1_600_000_000, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }
}
