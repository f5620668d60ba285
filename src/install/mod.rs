//! The RPM transaction on a rootfs: packages in, packages out, as rpm 4.16 to 4.19 do it.
//!
//! ```text
//! .rpm files ── headers ──▶ order ──▶ payloads unpacked and verified, in the background ──▶ staging
//!                             │                                                               │
//!   %pretrans ◀───────────────┘                                                               │
//!   fates of files, %preuntrans                                                               │
//!   each install: %pre, files by rename, %post, triggers ◀────────────────────────────────────┘
//!   each erase: %preun, files, %postun, triggers
//!   %posttrans, %postuntrans, transaction file triggers ─▶ rpmdb
//! ```
//!
//! No file is in the rootfs before the whole payload it is of was verified. A failure leaves a rootfs half done,
//! which the caller throws away: strata composes on an overlay.
//!
//! Users and groups that a package declares in its provides exist before its %pre, as with rpm 4.19.
//!
//! Packages are of format 3, 4 or 6, whose archives and tags are told by what is in them, whatever they are of.
//!
//! Where rpm only warns strata stops: a scriptlet that fails, whatever its phase, is an error; one that ends
//! well but complains of what it could not do is warned of.
//! Differences in what is written: none intended but times; the tests compare with rpm itself. Signatures of
//! files go into the rpmdb with the header; into `security.ima` where they are asked for, as by rpm's plugin `ima`.

pub(crate) mod caps;
mod fate;
pub(crate) mod ima;
mod kept;
pub mod lua;
pub mod macros;
mod order;
pub(crate) mod owner;
pub mod payload;
mod place;
mod record;
mod satisfy;
pub mod script;
mod staging;
mod sysusers;
mod trigger;
pub mod verified;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use rpm::FileFlags;
use rustix::fs::FileType;

use self::fate::{Fate, Fates, State, Wanted};
use self::order::{Direction, order};
use self::record::Record;
use self::staging::Staging;
use self::trigger::Priority;
use self::verified::Verified;
use crate::actor::Placed;
use crate::error::hinted;
use crate::ledger::Ledger;
use crate::package::header::{FileEntry, Header, HeaderDependency, Phase, Scriptlet, Trigger};
use crate::package::{Arch, Nevra};
use crate::progress::{Progress, Unit};
use crate::rootfs::Rootfs;
use crate::rpmdb::{self, Installed, Rpmdb};
use crate::sandbox::Outcome;
use crate::store::Store;
use crate::sysusers::Entry;

/// What is to be done to a rootfs.
pub struct Transaction<'a> {
    /// The tree.
    pub rootfs: &'a Path,
    /// An empty directory on the same mount as the rootfs, outside of it: files are renamed from one to the
    /// other.
    pub staging: &'a Path,
    /// Package files to install. Their signatures have been verified; digests are verified here.
    pub install: Vec<PathBuf>,
    /// Installed packages that go: removed ones, and those that an installed one replaces.
    pub erase: Vec<Nevra>,
    /// Where decompressed payloads are kept for the next time, if they are.
    pub store: Option<&'a Store>,
    /// Directory of the rpmdb in the rootfs, absolute.
    pub rpmdb: &'a str,
    /// Time of the transaction, UTC seconds. Each package gets one second more than the one before, as with
    /// rpm's `SOURCE_DATE_EPOCH`.
    pub epoch: u64,
    /// Install files marked as documentation.
    pub docs: bool,
    /// Languages kept, as `%_install_langs`; all when absent.
    pub langs: Option<&'a [String]>,
    /// Give files the IMA signatures that their packages have, as `user.strata.ima`.
    pub ima: bool,
    /// Architecture of the rootfs.
    pub arch: Arch,
}

/// Runs scriptlets, and makes the accounts that packages declare. The real one puts scriptlets in a sandbox; tests
/// record them.
pub trait ScriptRunner {
    /// Is told that the rootfs will change from now on, while the payloads of the first packages are unpacked.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// Runs one scriptlet to its end. An exit status other than 0 is not an error here; that it could not
    /// be run is.
    fn run(&self, call: &ScriptCall) -> Result<Outcome>;

    /// Is told which files a package brought, once they are in their place.
    fn placed(&self, _files: &[Placed<'_>]) -> Result<()> {
        Ok(())
    }

    /// Makes the users and groups that `package` declares and the rootfs does not have.
    fn make_accounts(&self, rootfs: &Rootfs, _package: &Nevra, entries: &[Entry]) -> Result<()> {
        crate::sysusers::apply(rootfs, entries, &Ledger::default())
    }
}

/// One run of a scriptlet or of a trigger's script.
#[derive(Clone)]
pub struct ScriptCall<'a> {
    /// The header of the package it belongs to.
    pub header: &'a Header,
    /// When it runs.
    pub phase: Phase,
    /// What runs.
    pub script: &'a Scriptlet,
    /// Its numbers, `$1` and `$2`.
    pub args: Vec<String>,
    /// Standard input: the paths that fired a file trigger, one a line.
    pub stdin: Vec<u8>,
}

impl ScriptCall<'_> {
    /// The package it belongs to.
    pub fn package(&self) -> &Nevra {
        self.header.nevra()
    }
}

/// What a transaction did.
#[derive(Debug, Default)]
pub struct Report {
    /// Packages installed, in that order.
    pub installed: Vec<Nevra>,
    /// Packages erased, in that order.
    pub erased: Vec<Nevra>,
    /// Installed size of the packages installed, in bytes, hard links counted once.
    pub bytes: u64,
    /// How many of the packages installed were in the store decompressed.
    pub kept: usize,
    /// What is in the files that were installed.
    pub verified: Verified,
}

/// Carries a transaction out.
///
/// Errors name the package, the file or the scriptlet.
pub fn run(tx: &Transaction, runner: &dyn ScriptRunner, progress: &dyn Progress) -> Result<Report> {
    let rootfs = Rootfs::open(tx.rootfs)?;
    let Packages { all, installs, erases } = Packages::open(tx, &rootfs)?;
    std::thread::scope(|scope| {
        let run = Run {
            tx,
            rootfs,
            runner,
            progress,
            staging: Staging::begin(scope, tx, &all, installs.clone()),
            present: all.iter().map(|package| matches!(package.origin, Origin::Rpmdb(_))).collect(),
            packages: &all,
            installs,
            erases,
            fates: Vec::new(),
            restated: Vec::new(),
            trans_postun: BTreeSet::new(),
            report: Report { verified: Verified::on(tx.staging)?, ..Report::default() },
        };
        run.complete()
    })
}

/// A package that is installed, or about to be.
struct Package {
    header: Header,
    files: Vec<FileEntry>,
    triggers: Vec<Trigger>,
    /// FILESTATES, one per file. Those of a package that comes are known when the fates of files are.
    states: OnceLock<Vec<u8>>,
    origin: Origin,
}

/// Where a package comes from.
enum Origin {
    /// The rpmdb, under this number.
    Rpmdb(u32),
    /// A package file.
    File(PathBuf),
}

impl Package {
    fn new(header: Header, states: OnceLock<Vec<u8>>, origin: Origin) -> Result<Self> {
        let files = header.files()?;
        let triggers = header.triggers()?;
        fate::check_paths(&files).with_context(|| format!("reading the files of {}", header.nevra()))?;
        Ok(Self { header, files, triggers, states, origin })
    }

    fn open(path: &Path) -> Result<Self> {
        let package = Self::new(Header::open(path)?, OnceLock::new(), Origin::File(path.to_owned()))?;
        for file in &package.files {
            caps::xattr(&file.caps)
                .and_then(|_| ima::signature(file))
                .with_context(|| format!("reading {} of {}", file.path, package.nevra()))?;
        }
        Ok(package)
    }

    fn nevra(&self) -> &Nevra {
        self.header.nevra()
    }

    fn states(&self) -> &[u8] {
        self.states.get().map_or(&[], Vec::as_slice)
    }

    fn state(&self, file: usize) -> u8 {
        self.states().get(file).copied().unwrap_or(State::Normal as u8)
    }

    /// Whether the rpmdb says that a file is there: normal or on a network share.
    fn is_installed(&self, file: usize) -> bool {
        matches!(self.state(file), 0 | 3)
    }
}

/// The file type in a mode.
fn file_type(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// Whether a file is marked so in its spec.
pub(crate) fn has(file: &FileEntry, flag: FileFlags) -> bool {
    file.flags & flag.bits() != 0
}

/// How many packages of a name a script is told of.
#[derive(Clone, Copy)]
enum Count {
    /// Those in the rpmdb now.
    Present,
    /// Those, and the one that comes.
    Coming,
    /// Those, but for the one that goes.
    Going,
}

/// The packages of a transaction.
struct Packages {
    /// Installed packages in rpmdb order, then those to install in the order of the transaction. That is
    /// the order of their numbers in the rpmdb afterwards.
    all: Vec<Package>,
    installs: Vec<usize>,
    erases: Vec<usize>,
}

impl Packages {
    #[tracing::instrument(name = "headers", level = "info", skip_all)]
    fn open(tx: &Transaction, rootfs: &Rootfs) -> Result<Self> {
        let mut all = installed(rootfs, tx.rpmdb)?;
        let mut incoming = tx.install.par_iter().map(|p| Package::open(p)).collect::<Result<Vec<_>>>()?;
        incoming.sort_by(|a, b| a.nevra().cmp(b.nevra()));
        let erases = erased(&all, &tx.erase, &incoming)?;
        let erases = permuted(&erases, order(&pick(&all, &erases), Direction::Erase)?);
        check_incoming(&incoming, &all, &erases, tx.arch)?;
        let order = order(&incoming.iter().collect::<Vec<_>>(), Direction::Install)?;
        let installed = all.len();
        let mut incoming: Vec<Option<Package>> = incoming.into_iter().map(Some).collect();
        // an order names each package once
        all.extend(order.into_iter().filter_map(|index| incoming[index].take()));
        Ok(Self { installs: (installed..all.len()).collect(), all, erases })
    }
}

/// A transaction under way.
struct Run<'a> {
    tx: &'a Transaction<'a>,
    rootfs: Rootfs,
    runner: &'a dyn ScriptRunner,
    progress: &'a dyn Progress,
    staging: Staging<'a>,
    packages: &'a [Package],
    /// Whether the rpmdb has them at this moment.
    present: Vec<bool>,
    installs: Vec<usize>,
    erases: Vec<usize>,
    fates: Vec<Vec<Fate>>,
    restated: Vec<(usize, usize, State)>,
    /// %transfiletriggerpostun to run at the end.
    trans_postun: BTreeSet<trigger::Due>,
    report: Report,
}

impl Run<'_> {
    fn complete(mut self) -> Result<Report> {
        let sizes =
            self.installs.iter().map(|&p| self.packages[p].header.size()).collect::<Result<Vec<_>>>()?;
        // sizes are what headers claim
        self.report.bytes = sizes.iter().fold(0, |sum, size| sum.saturating_add(*size));
        self.progress.start("installing packages", self.report.bytes, Unit::Bytes);
        self.runner.begin()?;
        self.pretrans()?;
        self.decide_fates()?;
        self.preuntrans()?;
        self.trans_un()?;
        for (package, size) in self.installs.clone().into_iter().zip(sizes) {
            self.install(package)?;
            self.progress.advance(size);
        }
        for package in self.erases.clone() {
            self.erase(package)?;
        }
        self.conclude()?;
        self.report.verified.settle();
        self.report.kept = self.staging.kept;
        let (installed, kept, erased) = (self.installs.len(), self.report.kept, self.erases.len());
        let summary = format!("{installed} packages installed ({kept} decompressed before), {erased} erased");
        self.progress.finish(&summary);
        Ok(self.report)
    }

    fn pretrans(&mut self) -> Result<()> {
        for package in self.installs.clone() {
            self.script(Phase::Pretrans, package, Count::Coming)?;
        }
        Ok(())
    }

    /// %preuntrans, which rpm has since 4.19. One that is replaced is counted, for what replaces it will be
    /// there (rpm: `lib/psm.c`, `rpmpsmNew`).
    fn preuntrans(&mut self) -> Result<()> {
        for package in self.erases.clone() {
            if self.packages[package].header.scriptlet(Phase::Preuntrans)?.is_some() {
                let replaced = self.replacement(self.installs.iter().map(|&new| (package, new)))?;
                let count = if replaced { Count::Present } else { Count::Going };
                self.script(Phase::Preuntrans, package, count)?;
            }
        }
        Ok(())
    }

    #[tracing::instrument(level = "info", skip_all)]
    fn decide_fates(&mut self) -> Result<()> {
        let wanted = Wanted { docs: self.tx.docs, langs: self.tx.langs };
        let Fates { files, restated } =
            fate::decide(&self.rootfs, self.packages, &self.present, &self.installs, &self.erases, &wanted)?;
        for &package in &self.installs {
            let state = |fate: &Fate| match fate {
                Fate::Exclude(state) => *state as u8,
                _ => State::Normal as u8,
            };
            self.packages[package].states.get_or_init(|| files[package].iter().map(state).collect());
        }
        (self.fates, self.restated) = (files, restated);
        Ok(())
    }

    /// %transfiletriggerun: of packages that stay, then of those that go.
    fn trans_un(&mut self) -> Result<()> {
        let erases = self.erases.clone();
        self.others_trans_triggers(Phase::TransFileTriggerUn, &erases)?;
        erases.into_iter().try_for_each(|p| self.own_trans_triggers(Phase::TransFileTriggerUn, p))
    }

    fn install(&mut self, package: usize) -> Result<()> {
        let header = &self.packages[package].header;
        let making = || format!("making the users and groups of {}", header.nevra());
        let accounts = sysusers::entries(header).with_context(making)?;
        if !accounts.is_empty() {
            self.report.verified.settle();
            self.runner.make_accounts(&self.rootfs, header.nevra(), &accounts).with_context(making)?;
        }
        self.others_triggers(Phase::TriggerPrein, package, Count::Present)?;
        self.own_triggers(Phase::TriggerPrein, package, Count::Present)?;
        self.script(Phase::Pre, package, Count::Coming)?;
        self.place(package)?;
        self.present[package] = true;
        self.others_file_triggers(Phase::FileTriggerIn, package, Priority::High)?;
        self.own_file_triggers(Phase::FileTriggerIn, package, Priority::High)?;
        self.script(Phase::Post, package, Count::Present)?;
        self.others_triggers(Phase::TriggerIn, package, Count::Present)?;
        self.own_triggers(Phase::TriggerIn, package, Count::Present)?;
        self.others_file_triggers(Phase::FileTriggerIn, package, Priority::Low)?;
        self.own_file_triggers(Phase::FileTriggerIn, package, Priority::Low)?;
        self.report.installed.push(self.packages[package].nevra().clone());
        Ok(())
    }

    fn place(&mut self, package: usize) -> Result<()> {
        let staging = self.staging.take(package)?;
        let (package, fates) = (&self.packages[package], &self.fates[package]);
        let (ima, verified) = (self.tx.ima, &mut self.report.verified);
        place::install(&self.rootfs, package, fates, &staging, ima, verified, self.progress)?;
        self.runner.placed(&place::placed(package, fates))?;
        std::fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))
    }

    fn erase(&mut self, package: usize) -> Result<()> {
        self.own_file_triggers(Phase::FileTriggerUn, package, Priority::High)?;
        self.others_file_triggers(Phase::FileTriggerUn, package, Priority::High)?;
        self.own_triggers(Phase::TriggerUn, package, Count::Going)?;
        self.others_triggers(Phase::TriggerUn, package, Count::Going)?;
        self.script(Phase::Preun, package, Count::Going)?;
        self.own_file_triggers(Phase::FileTriggerUn, package, Priority::Low)?;
        self.others_file_triggers(Phase::FileTriggerUn, package, Priority::Low)?;
        place::erase(&self.rootfs, &self.packages[package], &self.fates[package], self.progress)?;
        self.others_file_triggers(Phase::FileTriggerPostun, package, Priority::High)?;
        self.script(Phase::Postun, package, Count::Going)?;
        self.others_triggers(Phase::TriggerPostun, package, Count::Going)?;
        self.others_file_triggers(Phase::FileTriggerPostun, package, Priority::Low)?;
        self.note_trans_postun(package);
        self.present[package] = false;
        self.report.erased.push(self.packages[package].nevra().clone());
        Ok(())
    }

    #[tracing::instrument(level = "info", skip_all)]
    fn posttrans(&mut self) -> Result<()> {
        let installs = self.installs.clone();
        for &package in &installs {
            let replaces = self.replacement(self.erases.iter().map(|&old| (old, package)))?;
            let count = if replaces { Count::Coming } else { Count::Present };
            self.script(Phase::Posttrans, package, count)?;
        }
        for package in self.erases.clone() {
            self.script(Phase::Postuntrans, package, Count::Present)?;
        }
        self.others_trans_triggers(Phase::TransFileTriggerIn, &installs)?;
        self.run_trans_postun()?;
        installs.into_iter().try_for_each(|p| self.own_trans_triggers(Phase::TransFileTriggerIn, p))
    }

    /// Whether, in any of the `pairs`, the first package goes for the second: it is another version of it, or
    /// obsoleted by it.
    fn replacement(&self, pairs: impl Iterator<Item = (usize, usize)>) -> Result<bool> {
        for (old, new) in pairs {
            let (old, new) = (self.packages[old].nevra(), &self.packages[new]);
            let obsoletes = |o: &HeaderDependency| satisfy::satisfies(&satisfy::identity(old), &o.dependency);
            if old.name == new.nevra().name || new.header.obsoletes()?.iter().any(obsoletes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs the last scripts, and records in the rpmdb what was done.
    fn conclude(&mut self) -> Result<()> {
        let context = || format!("writing the rpmdb in {}", self.tx.rpmdb);
        self.rootfs.create_dir_all(self.tx.rpmdb).with_context(context)?;
        let before = Rpmdb::open(&rpmdb_file(&self.rootfs, self.tx.rpmdb)?, self.tx.staging)?;
        let record = Record {
            tx: self.tx,
            packages: self.packages,
            installs: self.installs.clone(),
            erases: self.erases.clone(),
            restated: std::mem::take(&mut self.restated),
        };
        let after = std::thread::scope(|scope| {
            let writing = scope.spawn(|| record.write(before));
            self.posttrans()?;
            writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).with_context(context)
        })?;
        // looked up again: a script may have put a link there
        after.put(&rpmdb_file(&self.rootfs, self.tx.rpmdb)?)
    }

    fn present(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.packages.len()).filter(|&p| self.present[p])
    }

    fn present_with_triggers(&self) -> Vec<usize> {
        self.present().filter(|&p| !self.packages[p].triggers.is_empty()).collect()
    }

    fn count(&self, package: usize, count: Count) -> usize {
        let name = &self.packages[package].nevra().name;
        let present = self.present().filter(|&p| self.packages[p].nevra().name == *name).count();
        match count {
            Count::Present => present,
            Count::Coming => present + 1,
            Count::Going => present.saturating_sub(1),
        }
    }

    fn script(&mut self, phase: Phase, package: usize, count: Count) -> Result<()> {
        match self.packages[package].header.scriptlet(phase)? {
            Some(script) => self.call(package, phase, &script, &[self.count(package, count)], Vec::new()),
            None => Ok(()),
        }
    }

    fn call(
        &mut self,
        package: usize,
        phase: Phase,
        script: &Scriptlet,
        args: &[usize],
        stdin: Vec<u8>,
    ) -> Result<()> {
        let header = &self.packages[package].header;
        let args: Vec<String> = args.iter().map(usize::to_string).collect();
        tracing::debug!(package = %header.nevra(), ?phase, ?args, "running a scriptlet");
        let call = ScriptCall { header, phase, script, args, stdin };
        self.report.verified.settle();
        let outcome = self.runner.run(&call)?;
        if outcome.status != 0 {
            return Err(script::describe_failure(&call, &outcome));
        }
        if let Some(complaint) = script::complaint(&call, &outcome) {
            self.progress.warn(&complaint);
        }
        Ok(())
    }
}

/// The rpmdb's file on the host, its directory resolved inside the rootfs.
fn rpmdb_file(rootfs: &Rootfs, directory: &str) -> Result<PathBuf> {
    rootfs.host_path(&format!("{directory}/rpmdb.sqlite"))
}

fn installed(rootfs: &Rootfs, directory: &str) -> Result<Vec<Package>> {
    if rootfs.lstat(&format!("{directory}/rpmdb.sqlite"))?.is_none() {
        return match rpmdb::find(rootfs)? {
            None => Ok(Vec::new()),
            Some(other) => Err(hinted(
                format!("the rootfs has its rpmdb in {other}, expected {directory}/rpmdb.sqlite"),
                "only SQLite is written: convert another format by `rpmdb --rebuilddb`, and name its directory \
                 in the stream's `rpmdb`",
            )),
        };
    }
    let rpmdb = Rpmdb::open_read_only(&rpmdb_file(rootfs, directory)?)?;
    let package = |i: Installed| Package::new(i.header, i.file_states.into(), Origin::Rpmdb(i.hnum));
    rpmdb.packages()?.into_par_iter().map(package).collect()
}

/// The installed packages to erase as rpm comes to them: those that each package that comes replaces, first by its
/// name, then by its obsoletes (rpm: `lib/depends.c`, `addPackage`); then all others, sorted.
fn erased(installed: &[Package], erase: &[Nevra], incoming: &[Package]) -> Result<Vec<usize>> {
    let find = |nevra: &Nevra| installed.iter().position(|p| p.nevra() == nevra);
    let mut left = erase
        .iter()
        .map(|n| find(n).with_context(|| format!("erasing {n}: it is not installed")))
        .collect::<Result<Vec<_>>>()?;
    left.sort();
    let mut found = Vec::new();
    for new in incoming {
        let same_name = |old: &mut usize| installed[*old].nevra().name == new.nevra().name;
        found.extend(left.extract_if(.., same_name));
        for obsolete in new.header.obsoletes()? {
            let obsoleted = |old: &mut usize| {
                satisfy::satisfies(&satisfy::identity(installed[*old].nevra()), &obsolete.dependency)
            };
            found.extend(left.extract_if(.., obsoleted));
        }
    }
    left.sort_by_key(|&old| installed[old].nevra());
    found.extend(left);
    Ok(found)
}

fn pick<'p>(packages: &'p [Package], indices: &[usize]) -> Vec<&'p Package> {
    indices.iter().map(|&i| &packages[i]).collect()
}

fn permuted(indices: &[usize], order: Vec<usize>) -> Vec<usize> {
    order.into_iter().map(|i| indices[i]).collect()
}

/// Refuses packages of another architecture, and those that are there already or come twice.
fn check_incoming(incoming: &[Package], installed: &[Package], erases: &[usize], arch: Arch) -> Result<()> {
    for (index, package) in incoming.iter().enumerate() {
        let nevra = package.nevra();
        ensure!(runs_on(&nevra.arch, arch), "installing {nevra}: the rootfs is for {arch}");
        let twice = index > 0 && incoming[index - 1].nevra() == nevra;
        ensure!(!twice, "installing {nevra}: it is in the transaction twice");
        let there = installed.iter().enumerate().any(|(i, p)| p.nevra() == nevra && !erases.contains(&i));
        ensure!(!there, "installing {nevra}: it is installed already");
    }
    Ok(())
}

/// Whether packages of an architecture install on another (rpm: `rpmrc`, `arch_compat`).
fn runs_on(package: &str, arch: Arch) -> bool {
    package == "noarch"
        || package == arch.rpm()
        || match arch {
            Arch::X86_64 => {
                matches!(package, "i386" | "i486" | "i586" | "i686") || package.starts_with("x86_64_v")
            }
            Arch::S390x => package == "s390",
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A regular file of mode 0644, owned by root.
    pub(super) fn file(path: &str) -> FileEntry {
        FileEntry {
            index: 0,
            path: path.to_owned(),
            mode: 0o100644,
            user: "root".to_owned(),
            group: "root".to_owned(),
            size: 0,
            mtime: 0,
            digest: String::new(),
            linkto: String::new(),
            flags: 0,
            verify: 0,
            device: 1,
            inode: 1,
            rdev: 0,
            langs: String::new(),
            color: 0,
            caps: String::new(),
            ima: String::new(),
        }
    }
}
