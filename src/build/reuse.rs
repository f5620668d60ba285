//! Long commands that ran before on the same files are not run again: what they made is put there.
//!
//! ```text
//! STORE/steps/COMMAND/            digest of what runs: program, arguments, environment, input, script
//!   HEX.json                      what a run depended on, and what it did; HEX is its digest
//!   HEX.tar                       what it made
//! ```
//!
//! A run depends on the content of every file that it opened, and on the existence of whatever it looked for. The
//! first the kernel tells ([`super::reads`]). The second it does not, so all names of the rootfs have to be the same,
//! with types, modes, owners and targets of links; but for trees of documentation and data ([`QUIET`]), of which only
//! directories count in which the command listed or opened anything. A file's time counts as far as it is its
//! package's: what the build itself made is as old as the build.
//!
//! Not kept are runs that failed, runs that were short ([`WORTH_KEEPING`]), those that changed what they had read, and
//! those that made anything but files, directories and links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::journal::Changes;
use super::reads::Opened;
use crate::actor::Actor;
use crate::digest::{Digest, Hasher};
use crate::image::delta::{self, Entry, Kind};
use crate::image::{extract, tar};
use crate::rootfs::Rootfs;
use crate::sandbox::{Command, Outcome, SOURCE_DATE_EPOCH, Sandbox};
use crate::store::{self, Store};

/// Part of the digest of a command: another form of the records, or another sandbox, makes another.
const VERSION: u32 = 1;

/// Looking whether a run can be spared takes a few hundred milliseconds.
const WORTH_KEEPING: Duration = Duration::from_millis(500);

/// Runs kept of one command: those of the layers and streams that use it.
const KEPT: usize = 8;

/// Trees whose names nobody looks for who does not list or open what is beside them.
const QUIET: [&str; 11] = [
    "usr/include",
    "usr/lib/.build-id",
    "usr/lib/rpm",
    "usr/lib/sysimage",
    "usr/lib/debug",
    "usr/share",
    "usr/src",
    "var",
    // those of the sandbox are others
    "dev",
    "run",
    "tmp",
];

/// A run of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    /// Digest of the names that were there, see [`names`].
    names: Digest,
    /// Directories of quiet trees whose names count.
    listed: BTreeSet<PathBuf>,
    /// What it opened.
    reads: BTreeMap<PathBuf, Content>,
    /// What it changed or removed of that which was there.
    touched: BTreeSet<PathBuf>,
    /// What it removed.
    removed: BTreeSet<PathBuf>,
    /// The end of what it printed.
    output: String,
    /// Of the tar.
    made: Digest,
}

/// A file as a command reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    sha256: Digest,
    /// In bytes.
    size: u64,
    /// UTC seconds, if it is of a package.
    mtime: Option<i64>,
}

/// The runs of a command that are kept.
pub struct Steps<'a> {
    store: &'a Store,
    sandbox: &'a Sandbox,
    /// Whose command it is, to tell people of.
    actor: &'a Actor,
    dir: PathBuf,
}

impl<'a> Steps<'a> {
    /// Those of `command` in `sandbox`; none if they are never kept, as of commands that see files of the host.
    pub fn of(store: &'a Store, sandbox: &'a Sandbox, actor: &'a Actor, command: &Command) -> Option<Self> {
        let Command { argv, env, stdin, script, files, bounds: _ } = command;
        let dated = env.iter().any(|(name, _)| name == SOURCE_DATE_EPOCH);
        let epoch = (!dated).then_some(sandbox.epoch);
        let what = serde_json::to_vec(&(VERSION, argv, env, epoch, stdin, script)).ok()?;
        files.is_empty().then(|| Self { store, sandbox, actor, dir: store.steps(&Digest::of(what)) })
    }

    /// Does what the command would do, if it did before on the same files.
    pub fn replay(&self) -> Result<Option<Outcome>> {
        let started = Instant::now();
        for path in self.kept()? {
            // one that another build removed meanwhile, or that is damaged, is none
            let Some(step) = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Step>(&json).ok())
            else {
                continue;
            };
            if let Some(why) = self.mismatch(&step)? {
                tracing::info!("{} has to run again: {why}", self.actor);
                continue;
            }
            let made = path.with_extension("tar");
            if !File::open(&made).is_ok_and(|mut tar| is(&step.made, &mut tar)) {
                tracing::info!("{} has to run again: {} is damaged", self.actor, made.display());
                continue;
            }
            self.put(&step, &made).with_context(|| format!("reusing {}", path.display()))?;
            // what is used least goes first; of no consequence if it fails
            let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            tracing::info!("{} need not run: it did on the same files", self.actor);
            return Ok(Some(Outcome { status: 0, output: step.output, duration: started.elapsed() }));
        }
        Ok(None)
    }

    /// Why a run would do something else now.
    fn mismatch(&self, step: &Step) -> Result<Option<String>> {
        let rootfs = Rootfs::open(&self.sandbox.rootfs)?;
        let open = |path: &Path| rootfs.open_file(&absolute(path)).ok().flatten();
        let alike = |path: &Path, content: &Content| {
            open(path)
                .and_then(|file| file.metadata().ok())
                .is_some_and(|meta| meta.len() == content.size && self.time(&meta) == content.mtime)
        };
        let other = |path: &Path| Some(format!("/{} is another", path.display()));
        if let Some((path, _)) = step.reads.iter().find(|(path, content)| !alike(path, content)) {
            return Ok(other(path));
        }
        let Names { digest, .. } =
            names(&self.sandbox.rootfs, &step.listed, &step.touched, &Since::default())?;
        if digest != step.names {
            return Ok(Some("other names are there".to_owned()));
        }
        let differs = step
            .reads
            .par_iter()
            .find_any(|(path, content)| !open(path).is_some_and(|mut file| is(&content.sha256, &mut file)));
        Ok(differs.and_then(|(path, _)| other(path)))
    }

    /// Puts what a run made in its place.
    fn put(&self, step: &Step, made: &Path) -> Result<()> {
        let rootfs = Rootfs::open(&self.sandbox.rootfs)?;
        for path in &step.removed {
            rootfs.remove_all(&absolute(path))?;
        }
        extract::onto(BufReader::new(File::open(made)?), rootfs.path())
    }

    /// Keeps a run that changed the rootfs by `changes` and opened `opened`, unless that could not be repeated.
    pub fn keep(&self, outcome: &Outcome, changes: &Changes, opened: Opened) -> Result<()> {
        if outcome.status != 0 || outcome.duration < WORTH_KEEPING {
            return Ok(());
        }
        match self.step(outcome, changes, opened)? {
            Ok((step, made)) => self.write(&step, &made),
            Err(why) => {
                tracing::info!("{} will have to run in later builds: {why}", self.actor);
                Ok(())
            }
        }
    }

    /// What is to be kept, or why it can't be.
    fn step(
        &self,
        outcome: &Outcome,
        changes: &Changes,
        opened: Opened,
    ) -> Result<Result<(Step, Vec<Entry>), String>> {
        let root = &self.sandbox.rootfs;
        let relative =
            |paths: &[String]| paths.iter().map(|path| path.trim_start_matches('/').into()).collect();
        let (created, modified): (BTreeSet<PathBuf>, BTreeSet<PathBuf>) =
            (relative(&changes.created), relative(&changes.modified));
        let removed: BTreeSet<PathBuf> = relative(&changes.removed);
        let touched: BTreeSet<PathBuf> = modified.union(&removed).cloned().collect();
        if let Some((path, _)) = opened.files.iter().find(|(path, read)| **read && touched.contains(*path)) {
            return Ok(Err(format!("it read and changed /{}", path.display())));
        }
        let Some(made) = entries(root, created.iter().chain(&modified))? else {
            return Ok(Err("it made what no archive holds".to_owned()));
        };
        let beside = opened.files.keys().filter_map(|path| path.parent().map(Path::to_owned));
        let listed: BTreeSet<PathBuf> = beside.chain(opened.listed).filter(|dir| is_quiet(dir)).collect();
        let since = Since { created, removed };
        let Names { digest, missing } = names(root, &listed, &touched, &since)?;
        let Since { created, removed } = since;
        if missing {
            return Ok(Err("it removed a directory that it read".to_owned()));
        }
        let read = opened.files.into_keys().filter(|path| !created.contains(path) && !touched.contains(path));
        let reads =
            read.collect::<Vec<_>>().into_par_iter().filter_map(|path| self.content(path).transpose());
        let reads = reads.collect::<Result<_>>()?;
        let output = outcome.output.clone();
        Ok(Ok((Step { names: digest, listed, reads, touched, removed, output, made: Digest::of("") }, made)))
    }

    /// A file that was read; none if it came and went during the run.
    fn content(&self, path: PathBuf) -> Result<Option<(PathBuf, Content)>> {
        let context = || format!("reading /{}", path.display());
        let rootfs = Rootfs::open(&self.sandbox.rootfs)?;
        let Some(mut file) = rootfs.open_file(&absolute(&path))? else { return Ok(None) };
        let meta = file.metadata().with_context(context)?;
        let (sha256, size) = Digest::of_reader(&mut file).with_context(context)?;
        Ok(Some((path, Content { sha256, size, mtime: self.time(&meta) })))
    }

    /// The time of a file, unless it is of this build.
    fn time(&self, meta: &Metadata) -> Option<i64> {
        Some(meta.mtime()).filter(|time| u64::try_from(*time).is_ok_and(|time| time <= self.sandbox.epoch))
    }

    fn write(&self, step: &Step, made: &[Entry]) -> Result<()> {
        let context = || format!("keeping what a command made in {}", self.dir.display());
        fs::create_dir_all(&self.dir).with_context(context)?;
        let mut archive = Hasher::new(BufWriter::new(self.store.temp_file()?));
        tar::write(&self.sandbox.rootfs, made, &mut archive).with_context(context)?;
        let (file, made, _) = archive.finish();
        let step = serde_json::to_vec(&Step { made, ..step.clone() })?;
        let path = self.dir.join(format!("{}.json", Digest::of(&step).hex()));
        let file = file.into_inner().map_err(|error| error.into_error()).with_context(context)?;
        store::persist(file, &path.with_extension("tar"))?;
        store::write_atomically(&path, &step)?;
        // another build may have removed them first
        for old in self.kept()?.into_iter().skip(KEPT) {
            let _ = fs::remove_file(&old);
            let _ = fs::remove_file(old.with_extension("tar"));
        }
        Ok(())
    }

    /// The records, the one used last first.
    fn kept(&self) -> Result<Vec<PathBuf>> {
        let context = || format!("listing {}", self.dir.display());
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(context)?,
        };
        let paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>().with_context(context)?;
        let mut kept: Vec<(SystemTime, PathBuf)> = paths
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        kept.sort_by(|a, b| b.cmp(a));
        Ok(kept.into_iter().map(|(_, path)| path).collect())
    }
}

/// Whether a file has this content.
fn is(digest: &Digest, file: &mut File) -> bool {
    Digest::of_reader(file).is_ok_and(|(found, _)| found == *digest)
}

fn absolute(path: &Path) -> String {
    format!("/{}", path.display())
}

fn is_quiet(path: &Path) -> bool {
    QUIET.iter().any(|tree| path.starts_with(tree))
}

/// The names of a rootfs, as far as they matter.
struct Names {
    digest: Digest,
    /// Whether any directory that was listed is not there.
    missing: bool,
}

/// How names changed since.
#[derive(Default)]
struct Since {
    created: BTreeSet<PathBuf>,
    removed: BTreeSet<PathBuf>,
}

/// Digests the names below `root`, and in the directories `listed`; without the attributes of those `touched`, and as
/// they were before the changes `since`.
fn names(
    root: &Path,
    listed: &BTreeSet<PathBuf>,
    touched: &BTreeSet<PathBuf>,
    since: &Since,
) -> Result<Names> {
    let counts = |path: &&PathBuf| !is_quiet(path) || path.parent().is_some_and(|dir| listed.contains(dir));
    let gone = since.removed.iter().filter(counts).map(|path| (path.clone(), String::new()));
    let mut found: BTreeMap<PathBuf, String> = gone.collect();
    let mut missing = false;
    let mut todo: Vec<PathBuf> = listed.iter().filter(|dir| !since.created.contains(*dir)).cloned().collect();
    todo.push(PathBuf::new());
    while let Some(dir) = todo.pop() {
        let context = || format!("listing /{}", dir.display());
        let entries = match fs::read_dir(root.join(&dir)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                missing = true;
                continue;
            }
            entries => entries.with_context(context)?,
        };
        for entry in entries {
            let entry = entry.with_context(context)?;
            let path = dir.join(entry.file_name());
            if since.created.contains(&path) {
                continue;
            }
            let meta = entry.metadata().with_context(context)?;
            if meta.is_dir() && !is_quiet(&path) {
                todo.push(path.clone());
            }
            let attributes =
                if touched.contains(&path) { String::new() } else { attributes(root, &path, &meta)? };
            found.insert(path, attributes);
        }
    }
    let mut hasher = Hasher::new(std::io::sink());
    for (path, attributes) in found {
        for field in [path.as_os_str().as_bytes(), attributes.as_bytes()] {
            hasher.write_all(field).and_then(|()| hasher.write_all(b"\0")).context("digesting names")?;
        }
    }
    Ok(Names { digest: hasher.finish().1, missing })
}

/// Type, mode, owner, and the target of a link.
fn attributes(root: &Path, path: &Path, meta: &Metadata) -> Result<String> {
    let target = match meta.is_symlink() {
        true => fs::read_link(root.join(path)).with_context(|| format!("reading /{}", path.display()))?,
        false => PathBuf::new(),
    };
    Ok(format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), target.display()))
}

/// These paths as entries of an archive, with their own times; none if any is of a type that no archive of ours holds.
fn entries<'p>(root: &Path, paths: impl Iterator<Item = &'p PathBuf>) -> Result<Option<Vec<Entry>>> {
    let sorted: BTreeSet<&PathBuf> = paths.collect();
    let mut first: BTreeMap<(u64, u64), &PathBuf> = BTreeMap::new();
    let mut entries = Vec::new();
    for path in sorted {
        let at = root.join(path);
        let meta = fs::symlink_metadata(&at).with_context(|| format!("reading /{}", path.display()))?;
        if !(meta.is_dir() || meta.is_file() || meta.is_symlink()) {
            return Ok(None);
        }
        let mut entry = delta::entry(path, &at, &meta, meta.mtime())?;
        if meta.is_file() && meta.nlink() > 1 {
            let known = first.entry((meta.dev(), meta.ino())).or_insert(path);
            if *known != path {
                entry.kind = Kind::HardLink { to: known.to_path_buf() };
            }
        }
        entries.push(entry);
    }
    Ok(Some(entries))
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::super::journal::Journal;
    use super::super::reads::Reads;
    use super::*;
    use crate::actor::Entry;
    use crate::plan::Origin;

    /// A store, and rootfs that are alike.
    struct World {
        dir: tempfile::TempDir,
        store: Store,
        actor: Actor,
    }

    const TREE: &str = "mkdir -p etc usr/bin usr/share/doc/a usr/share/data
        echo in > etc/input; echo other > etc/other; echo old > etc/old; echo gone > etc/gone
        touch usr/bin/tool; echo 1 > usr/share/data/1; echo 1 > usr/share/doc/a/1
        find . -exec touch -hd @1000 {} +";

    /// Reads, lists, makes, changes and removes.
    const SCRIPT: &str = "cat etc/input usr/share/data/* > etc/.new; cat etc/.new; mv etc/.new etc/new
        test -e usr/bin/tool
        mkdir -m 700 etc/dir; ln etc/new etc/dir/hard; ln -s ../new etc/dir/soft; echo new > etc/old; rm etc/gone";

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            let origin = Origin { file: "m.toml".into(), line: 1 };
            Self { dir, store, actor: Actor::Entry(Entry { key: "[[script]] it".into(), origin }) }
        }

        fn rootfs(&self, name: &str, change: &str) -> Sandbox {
            let rootfs = self.dir.path().join(name);
            fs::create_dir(&rootfs).unwrap();
            sh(&rootfs, TREE);
            sh(&rootfs, change);
            Sandbox { rootfs, epoch: 2000 }
        }

        fn steps<'s>(&'s self, sandbox: &'s Sandbox) -> Steps<'s> {
            let command = Command { argv: vec!["it".into()], ..Command::default() };
            Steps::of(&self.store, sandbox, &self.actor, &command).unwrap()
        }

        /// Runs a script that takes as long as is worth keeping; tells whether it was kept.
        fn run(&self, script: &str) -> bool {
            let sandbox = self.rootfs("before", ":");
            let mut journal = Journal::open(&sandbox.rootfs).unwrap();
            let run = || {
                sh(&sandbox.rootfs, script);
                Ok(())
            };
            let directories = ["", "etc", "usr", "usr/bin", "usr/share", "usr/share/data", "usr/share/doc/a"];
            let mut reads = Reads::new().unwrap();
            let ((), opened) =
                reads.during(&sandbox.rootfs, directories.map(Path::new).into_iter(), run).unwrap();
            let outcome = Outcome { status: 0, output: "said".into(), duration: WORTH_KEEPING };
            self.steps(&sandbox).keep(&outcome, &journal.take().unwrap(), opened.unwrap()).unwrap();
            !self.steps(&sandbox).kept().unwrap().is_empty()
        }

        fn replays(&self, name: &str, change: &str) -> bool {
            let sandbox = self.rootfs(name, change);
            let outcome = self.steps(&sandbox).replay().unwrap();
            outcome.is_some_and(|outcome| outcome.output == "said")
        }
    }

    fn sh(root: &Path, script: &str) {
        let status = process::Command::new("sh").args(["-euc", script]).current_dir(root).status().unwrap();
        assert!(status.success(), "{script}");
    }

    /// Names, types, modes, owners, links and contents.
    fn listing(root: &Path) -> String {
        let list = "find . -printf '%P %y %m %U:%G %n %l\\n' | sort; find . -type f | sort | xargs sha256sum";
        let output = process::Command::new("sh").args(["-euc", list]).current_dir(root).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn what_a_command_did_is_done_again() {
        let world = World::new();
        assert!(world.run(SCRIPT));
        assert!(world.replays("after", ":"));
        assert_eq!(listing(&world.dir.path().join("after")), listing(&world.dir.path().join("before")));
    }

    #[test]
    fn other_files_make_another_run() {
        let world = World::new();
        assert!(world.run(SCRIPT));
        for (index, (replays, change)) in [
            (false, "echo un > etc/input; touch -d @1000 etc/input"),
            (false, "touch -d @999 etc/input"),
            (false, "rm etc/input; mkdir etc/input"),
            (false, "rm usr/bin/tool"),
            (false, "touch usr/bin/another"),
            (false, "chmod 600 usr/bin/tool"),
            (false, "ln -sf other usr/bin/tool"),
            (false, "echo 2 > usr/share/data/2"),
            (false, "touch etc/new"),
            (false, "rm etc/gone"),
            (true, "echo 2 > etc/other"),
            (true, "echo 2 > etc/old"),
            (true, "touch usr/share/doc/2; rm usr/share/doc/a/1"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(world.replays(&index.to_string(), change), replays, "{change}");
        }
    }

    #[test]
    fn what_cannot_be_repeated_is_not_kept() {
        for script in
            ["cat etc/old; echo new > etc/old", "mkfifo etc/fifo", "ls usr/share/data; rm -r usr/share/data"]
        {
            assert!(!World::new().run(script), "{script}");
        }
    }

    #[test]
    fn a_damaged_record_is_none() {
        let world = World::new();
        assert!(world.run(SCRIPT));
        let sandbox = world.rootfs("any", ":");
        let [record] = world.steps(&sandbox).kept().unwrap().try_into().unwrap();
        fs::write(record.with_extension("tar"), "x").unwrap();
        assert!(!world.replays("damaged", ":"));
        fs::write(record, "x").unwrap();
        assert!(!world.replays("none", ":"));
    }
}
