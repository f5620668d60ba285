//! What comes after strata: rpm and dnf change the node image's tree as they do with an rpmdb of their own, and
//! strata goes on with what they leave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use strata::install::macros::Macros;
use strata::install::script::Runner;
use strata::install::{self, Transaction};
use strata::package::header::Header;
use strata::package::{Arch, Nevra};
use strata::progress::Silent;
use strata::rpmdb::Rpmdb;
use strata::sandbox::Sandbox;

use crate::parity::{self, Trees};
use crate::world::{World, repositories, run, scratch};

const RPMDB: &str = "/usr/lib/sysimage/rpm";
const EPOCH: u64 = 1_740_000_000;

/// Copies of the node image's tree: one with the rpmdb that strata wrote, one with that of rpm.
struct Twins {
    ours: PathBuf,
    theirs: PathBuf,
    work: PathBuf,
}

impl Twins {
    fn new(name: &str) -> Self {
        let work = scratch(name);
        let [ours, theirs] = ["ours", "theirs"].map(|root| work.join(root));
        for root in [&ours, &theirs] {
            run(Command::new("cp").arg("-a").arg(World::unpacked_node()).arg(root));
        }
        fs::remove_dir_all(theirs.join(&RPMDB[1..])).unwrap();
        let (world, _) = World::built();
        let vendor = work.join("vendor");
        world.strata(&["fetch", "demo", "--vendor", vendor.to_str().unwrap()]);
        let there = Rpmdb::open_read_only(&rpmdb(&ours)).unwrap().nevras().unwrap();
        let files = packages(&vendor).into_iter().filter(|file| there.contains(&nevra(file)));
        let options = ["--justdb", "--noscripts", "--notriggers", "--nosignature"];
        run(rpm(&theirs, "-i").args(options).args(files));
        let twins = Self { ours, theirs, work };
        twins.assert_same();
        twins
    }

    /// Does the same to both, which then are the same.
    fn both(&self, change: impl Fn(&Path) + Sync) {
        std::thread::scope(|scope| {
            scope.spawn(|| change(&self.ours));
            scope.spawn(|| change(&self.theirs));
        });
        self.assert_same();
    }

    fn assert_same(&self) {
        let (ours, theirs) = (&self.ours, &self.theirs);
        assert_eq!(parity::packages(ours), parity::packages(theirs));
        let [ours_tree, theirs_tree] = [ours, theirs].map(|root| parity::tree(root, Trees::Transactions));
        let differences = parity::differences(&ours_tree, &theirs_tree);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        // with --justdb rpm does not note which documentation is left out
        let findings = |root: &Path| {
            let mut findings = parity::rpm_findings(root);
            findings.retain(|finding| !finding.starts_with("missing d "));
            findings
        };
        assert_eq!(findings(ours), findings(theirs));
    }

    fn dnf(&self, root: &Path, args: &[&str]) {
        let repositories = repositories();
        let mut config = String::from(
            "[main]\ngpgcheck=1\ninstall_weak_deps=0\nkeepcache=0\nreposdir=/nonexistent\nvarsdir=/nonexistent\n\
             module_platform_id=platform:el9\nzchunk=0\n",
        );
        for repo in ["baseos", "appstream", "ose"] {
            config += &format!(
                "[{repo}]\nname={repo}\nbaseurl=file://{0}/2025-02-10/{repo}\ngpgkey=file://{0}/RPM-GPG-KEY-demo\n",
                repositories.display()
            );
        }
        let home = self.work.join(format!("{}-home", root.file_name().unwrap().display()));
        fs::create_dir_all(&home).unwrap();
        let file = home.join("dnf.conf");
        fs::write(&file, config).unwrap();
        // Debian's dnf takes the rpmdb's place from its user's macros
        fs::write(home.join(".rpmmacros"), format!("%_dbpath {RPMDB}\n")).unwrap();
        let mut dnf = Command::new("dnf");
        dnf.args(["-q", "-y", "--noplugins", "--releasever=9", "-c"])
            .arg(file)
            .arg("--installroot")
            .arg(root);
        run(dnf.args(args).env("HOME", home).env("SOURCE_DATE_EPOCH", EPOCH.to_string()));
    }
}

fn rpmdb(root: &Path) -> PathBuf {
    root.join(&RPMDB[1..]).join("rpmdb.sqlite")
}

/// rpm that changes a root.
fn rpm(root: &Path, verb: &str) -> Command {
    let mut rpm = Command::new("rpm");
    rpm.arg("--root").arg(root).args(["--define", &format!("_dbpath {RPMDB}")]).arg(verb);
    if Path::new("/etc/debian_version").exists() {
        rpm.arg("--force-debian");
    }
    rpm.env("HOME", "/nonexistent").env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    rpm
}

fn packages(directory: &Path) -> Vec<PathBuf> {
    let found = run(Command::new("find").arg(directory).args(["-name", "*.rpm"]));
    found.lines().map(PathBuf::from).collect()
}

fn nevra(file: &Path) -> Nevra {
    Header::open(file).unwrap().nevra().clone()
}

/// The file of a package for this machine in the newer snapshot.
fn newer(name: &str) -> PathBuf {
    let host = Arch::host().unwrap().rpm();
    let fits = |nevra: &Nevra| nevra.name == name && [host, "noarch"].contains(&nevra.arch.as_str());
    let files = packages(&repositories().join("2025-02-10"));
    let found = files.into_iter().filter(|file| fits(&nevra(file))).max_by_key(|file| nevra(file).evr);
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

fn installed(root: &Path, name: &str) -> Nevra {
    let nevras = Rpmdb::open_read_only(&rpmdb(root)).unwrap().nevras().unwrap();
    nevras.into_iter().find(|nevra| nevra.name == name).unwrap_or_else(|| panic!("{name} is not installed"))
}

/// Upgrades a package with strata, scriptlets and all.
fn strata_upgrades(root: &Path, name: &str) {
    let staging = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    let transaction = Transaction {
        rootfs: root,
        staging: staging.path(),
        install: vec![newer(name)],
        erase: vec![installed(root, name)],
        rpmdb: RPMDB,
        epoch: EPOCH,
        docs: true,
        langs: None,
        ima: false,
        arch: Arch::host().unwrap(),
        store: None,
    };
    let mut macros = Macros::default();
    macros.define("_dbpath", RPMDB);
    let sandbox = Sandbox { rootfs: root.to_owned(), epoch: EPOCH };
    let runner = Runner::new(sandbox, env!("CARGO_BIN_EXE_strata").into(), macros).unwrap();
    install::run(&transaction, &runner, &Silent).unwrap();
}

#[test]
fn rpm_and_dnf_go_on_with_it_and_strata_with_what_they_leave() {
    let twins = Twins::new("afterwards");
    twins.both(|root| drop(run(rpm(root, "-i").arg("--nosignature").arg(newer("nano")))));
    twins.both(|root| twins.dnf(root, &["remove", "nano"]));
    twins.both(|root| twins.dnf(root, &["install", "nano"]));
    twins.both(|root| twins.dnf(root, &["history", "undo", "last"]));
    twins.both(|root| drop(run(rpm(root, "-e").arg("microcode_ctl"))));
    twins.both(|root| drop(run(rpm(root, "-U").arg("--nosignature").arg(newer("podman")))));
    for verb in ["--verifydb", "--rebuilddb"] {
        let mut rpmdb = Command::new("rpmdb");
        rpmdb.args(["--define", &format!("_dbpath {RPMDB}"), "--root"]).arg(&twins.ours);
        let output = rpmdb.arg(verb).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{verb}: {output:?}");
    }
    twins.assert_same();

    strata_upgrades(&twins.ours, "ignition");
    run(rpm(&twins.theirs, "-U").arg("--nosignature").arg(newer("ignition")));
    twins.assert_same();
    twins.both(|root| twins.dnf(root, &["upgrade"]));
}
