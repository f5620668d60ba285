//! strata against dnf on two snapshots of real packages: same packages, same trees, same calls of scriptlets.
//!
//! Not part of `just test`, for its size: `just test-corpus CORPUS SIZE` runs it.

#[path = "blobs/mod.rs"]
mod blobs;
#[path = "parity/mod.rs"]
mod parity;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use blobs::Blob;
use parity::{Dnf, Trees};
use strata::install::macros::Macros;
use strata::install::script::Runner;
use strata::install::{self, Transaction};
use strata::lock::{self, LockedPackage};
use strata::package::header::Header;
use strata::package::{Arch, Nevra, source_name};
use strata::progress::Silent;
use strata::sandbox::Sandbox;

/// Every scriptlet of the corpus's `zoo` packages appends its phase and arguments to it.
const ZOO_LOG: &str = "var/log/zoo.log";

/// Exceptions that smaller sets of packages need: the full one has packages with the first, and nothing that leaves
/// the second.
const NOT_IN_FULL: [&str; 2] = ["/etc/dnf", "/var/lib/rpm-state"];

const LAYERS: [&str; 3] = ["bootc", "coreos", "node"];

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// What rpm finds changed, but for times and for the directory that is a mount while dnf runs.
fn verify(root: &Path) -> Vec<String> {
    let report = parity::rpm(root, &["-Va", "--nomtime"]);
    report.lines().filter(|line| !line.ends_with(" /proc")).map(str::to_owned).collect()
}

/// As [`parity::packages`] has it: with the epoch, whether it is 0 or not.
fn full_name(nevra: &Nevra) -> String {
    let Nevra { name, evr, arch } = nevra;
    format!("{name}-{}:{}-{}.{arch}", evr.epoch, evr.version, evr.release)
}

/// The corpus named in the environment.
struct Corpus {
    root: PathBuf,
    size: String,
    key: PathBuf,
}

impl Corpus {
    fn from_env() -> Self {
        let root = PathBuf::from(env::var_os("STRATA_CORPUS").expect("STRATA_CORPUS names the corpus"));
        let size = env::var("STRATA_CORPUS_SIZE").expect("STRATA_CORPUS_SIZE names one of its sizes");
        Self { key: root.join("keys/RPM-GPG-KEY-strata-test"), root, size }
    }

    fn snapshot(&self, date: &str) -> PathBuf {
        self.root.join(&self.size).join(date)
    }

    /// The packages of a snapshot and their files, by [`full_name`].
    fn packages(&self, date: &str) -> BTreeMap<String, (Nevra, PathBuf)> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.snapshot(date)];
        while let Some(dir) = open.pop() {
            for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rpm") {
                    let nevra = Header::open(&path).unwrap().nevra().clone();
                    files.insert(full_name(&nevra), (nevra, path));
                }
            }
        }
        files
    }
}

/// A scratch directory with what strata makes of one snapshot, and dnf.
struct Rig {
    dir: tempfile::TempDir,
    dnf: Dnf,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("strata-corpus-").tempdir_in("/var/tmp").unwrap();
        let dnf = Dnf::new(dir.path());
        Self { dir, dnf }
    }

    fn strata(&self) -> Command {
        let mut strata = Command::new(env!("CARGO_BIN_EXE_strata"));
        strata.current_dir(self.dir.path()).env("STRATA_STORE", self.dir.path().join("store"));
        strata
    }

    /// Locks the newest packages of a snapshot and builds all layers.
    fn build(&self, snapshot: &Path, key: &Path) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut stream = Command::new(source.join("benches/snapshot-stream.sh"));
        run(stream.arg(snapshot).arg(key).arg(self.dir.path().join("manifests")));
        run(self.strata().args(["lock", "corpus", "--update"]));
        run(self.strata().args(["build", "corpus"]));
    }

    /// The blobs of each layer's own, in the image built last.
    fn own_blobs(&self) -> Vec<BTreeMap<String, Blob>> {
        let images = self.dir.path().join("store/images");
        let names = LAYERS.map(|layer| format!("oci:{}:corpus/{layer}", images.display()));
        let below = |layer: usize| layer.checked_sub(1).map(|below| names[below].as_str());
        (0..LAYERS.len()).map(|layer| blobs::own(&names[layer], below(layer))).collect()
    }

    /// The packages of each layer, and the names of their source packages.
    fn sources(&self) -> Vec<BTreeSet<(String, String)>> {
        let lockfiles = self.dir.path().join("lockfiles");
        let lock = |layer: &str| lock::read(&lockfiles, "corpus", layer, Arch::host().unwrap());
        let of =
            |package: &LockedPackage| (full_name(&package.nevra()), source_name(&package.source).to_owned());
        LAYERS.iter().map(|layer| lock(layer).unwrap().unwrap().packages.iter().map(of).collect()).collect()
    }

    /// Locks and builds all layers; the rootfs of the topmost image.
    fn image(&self, snapshot: &Path, key: &Path) -> PathBuf {
        let work = self.dir.path();
        self.build(snapshot, key);
        let node = format!("oci:{}:corpus/node", work.join("store/images").display());
        let image = format!("{}:node", work.join("layout").display());
        run(Command::new("skopeo").args(["copy", "--quiet", &node, &format!("oci:{image}")]));
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(work.join("bundle")));
        work.join("bundle/rootfs")
    }

    /// The rootfs that strata's transactions work on, with no image rules.
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The packages that the lockfile of a layer adds, by [`full_name`].
    fn locked(&self, layer: &str) -> Vec<String> {
        let lockfiles = self.dir.path().join("lockfiles");
        let lock = lock::read(&lockfiles, "corpus", layer, Arch::host().unwrap()).unwrap().unwrap();
        lock.packages.iter().map(|package| full_name(&package.nevra())).collect()
    }

    fn transaction(&self, install: Vec<PathBuf>, erase: Vec<Nevra>) {
        self.try_transaction(install, erase).unwrap();
    }

    /// A transaction with real scriptlets on [`Rig::root`].
    fn try_transaction(&self, install: Vec<PathBuf>, erase: Vec<Nevra>) -> anyhow::Result<install::Report> {
        let root = self.root();
        fs::create_dir_all(&root).unwrap();
        let staging = tempfile::tempdir_in(self.dir.path()).unwrap();
        let epoch = 1_739_000_000;
        let transaction = Transaction {
            rootfs: &root,
            staging: staging.path(),
            install,
            erase,
            store: None,
            rpmdb: "/usr/lib/sysimage/rpm",
            epoch,
            docs: true,
            langs: None,
            ima: false,
            arch: Arch::host().unwrap(),
        };
        let mut macros = Macros::default();
        macros.define("_dbpath", transaction.rpmdb);
        let sandbox = Sandbox { rootfs: root.clone(), epoch };
        let runner = Runner::new(sandbox, env!("CARGO_BIN_EXE_strata").into(), macros).unwrap();
        install::run(&transaction, &runner, &Silent)
    }

    /// strata's transactions ended where dnf's did.
    fn assert_same_transactions(&self, full: bool) {
        let (ours, theirs) = (self.root(), &self.dnf.root);
        assert_eq!(parity::packages(&ours), parity::packages(theirs));
        assert_same_trees(&ours, theirs, Trees::Transactions, full);
        let log = |root: &Path| fs::read_to_string(root.join(ZOO_LOG)).unwrap();
        assert_eq!(log(&ours), log(theirs));
        assert_eq!(verify(&ours), verify(theirs));
    }
}

fn assert_same_trees(ours: &Path, theirs: &Path, of: Trees, full: bool) {
    let differences = parity::differences(&parity::tree(ours, of), &parity::tree(theirs, of));
    assert!(differences.is_empty(), "{of:?}:\n{}", differences.join("\n"));
    if full {
        let mut stale = parity::stale_exceptions(ours, theirs, of);
        stale.retain(|path| !NOT_IN_FULL.contains(path));
        assert!(stale.is_empty(), "{of:?}: docs/parity.md has exceptions that are none: {stale:?}");
    }
}

/// The images of a snapshot are dnf's tree under the image rules, and strata's verification finds in them what
/// rpm's does.
fn assert_same_image(rig: &Rig, image: &Path, full: bool) {
    assert_eq!(parity::packages(image), parity::packages(&rig.dnf.root));
    assert_same_trees(image, &rig.dnf.root, Trees::Images, full);
    assert_eq!(verify(image), verify(&rig.dnf.root));
    let report = rig.strata().args(["--format", "json", "verify", "corpus/node"]).output().unwrap();
    let report = serde_json::from_slice(&report.stdout).unwrap();
    let findings = parity::rpm_findings(image);
    assert!(!findings.is_empty(), "one scriptlet of the corpus edits a configuration file");
    assert_eq!(parity::findings(&report), findings);
}

#[test]
fn dnf_makes_the_same_trees() {
    let corpus = Corpus::from_env();
    let full = corpus.size == "full";
    let (old, new) = ("2025-02-03", "2025-02-10");

    // the newer one first: the roots of the older one are upgraded to it in the end
    for date in [new, old] {
        let (snapshot, available) = (corpus.snapshot(date), corpus.packages(date));
        let rig = Rig::new();
        let image = rig.image(&snapshot, &corpus.key);
        rig.dnf.install_layers(&snapshot, &corpus.key);
        assert_same_image(&rig, &image, full);
        for layer in LAYERS {
            let files = rig.locked(layer).iter().map(|name| available[name].1.clone()).collect();
            rig.transaction(files, Vec::new());
        }
        rig.assert_same_transactions(full);
        if date == old {
            upgrade(&rig, &corpus, &available, new);
            rig.assert_same_transactions(full);
            refuse_or_contain_broken(&rig, &corpus);
        }
    }
}

/// The blobs of packages that a machine fetches for the second snapshot are those in which a package changed.
#[test]
fn an_update_fetches_the_chunks_of_what_changed() {
    let corpus = Corpus::from_env();
    let rig = Rig::new();
    rig.build(&corpus.snapshot("2025-02-03"), &corpus.key);
    let (before, old) = (rig.own_blobs(), rig.sources());
    rig.build(&corpus.snapshot("2025-02-10"), &corpus.key);
    let (after, new) = (rig.own_blobs(), rig.sources());
    for (number, layer) in LAYERS.into_iter().enumerate() {
        let (before, after) = (&before[number], &after[number]);
        let touched: BTreeSet<&String> =
            old[number].symmetric_difference(&new[number]).map(|(_, source)| source).collect();
        let has_touched = |blob: &&Blob| blob.components.iter().any(|source| touched.contains(source));
        let holds =
            |blobs: &BTreeMap<String, Blob>, name: &str| blobs.get(name).filter(has_touched).is_some();
        let expected: Vec<&String> =
            after.keys().filter(|name| holds(before, name) || holds(after, name)).collect();
        let found = blobs::changed(before, after);
        let (others, packages): (Vec<&String>, Vec<&String>) =
            found.iter().partition(|name| blobs::NO_PACKAGES.contains(&name.as_str()));
        assert_eq!(packages, expected, "{layer}");
        assert!(!packages.is_empty() && packages.len() < after.len() / 2, "{layer}: {packages:?}");
        let size = |names: &[String]| names.iter().map(|name| after[name].size).sum::<u64>();
        let all: Vec<String> = after.keys().cloned().collect();
        println!("{layer}: {} of {} bytes: {packages:?}, {others:?}", size(&found), size(&all));
    }
}

/// Packages with one fault each, as if nobody had looked at them before: the installer refuses them, but for those
/// below, and what it installs stays inside the rootfs.
fn refuse_or_contain_broken(rig: &Rig, corpus: &Corpus) {
    /// Nothing is wrong with them but how they come and what they need, which fetching and solving find; or it is
    /// another package that they are in conflict with; or the sandbox and resolving inside the rootfs contain them.
    const INSTALLED: [&str; 16] = [
        "absolute-file",
        "absolute-link",
        "conflict-a",
        "conflicts-bash",
        "escape-file",
        "escape-link",
        "host-write",
        "network-post",
        // as big as its header tells, and unpacked as a stream
        "payload-bomb",
        "tampered-header",
        "unsatisfiable",
        "unsatisfiable-version",
        "unsigned",
        "wrong-checksum",
        "wrong-key",
        "wrong-size",
    ];
    let dir = corpus.root.join("full/broken");
    let faults = fs::read(dir.join("EXPECT.json")).unwrap();
    let faults: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&faults).unwrap();
    let mut names: Vec<&String> = faults.keys().collect();
    // links before the files that are to follow them
    names.sort_by_key(|name| !name.ends_with("-link"));
    for name in names {
        let file = dir.join("Packages").join(faults[name]["file"].as_str().unwrap());
        let done = rig.try_transaction(vec![file], Vec::new());
        assert_eq!(done.is_ok(), INSTALLED.contains(&name.as_str()), "{name}: {done:?}");
    }
    let pwned = ["tmp/pwned2", "etc/through-absolute", "etc/strata-host-write"];
    for path in pwned {
        assert!(rig.root().join(path).exists(), "/{path} is not in the rootfs");
        assert!(!Path::new("/").join(path).exists(), "/{path} is on the host");
    }
}

/// Upgrades both roots to what dnf finds newer in a snapshot.
fn upgrade(rig: &Rig, corpus: &Corpus, old: &BTreeMap<String, (Nevra, PathBuf)>, date: &str) {
    let installed = || parity::packages(&rig.dnf.root).into_iter().collect::<BTreeSet<_>>();
    let before = installed();
    rig.dnf.run(&corpus.snapshot(date), &corpus.key, ["upgrade"]);
    let after = installed();
    let new = corpus.packages(date);
    let install: Vec<PathBuf> = after.difference(&before).map(|name| new[name].1.clone()).collect();
    let erase: Vec<Nevra> = before.difference(&after).map(|name| old[name].0.clone()).collect();
    assert!(install.len() > 10 && erase.len() > 10, "{install:?} for {erase:?} is no upgrade of a system");
    rig.transaction(install, erase);
}
