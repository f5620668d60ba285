//! Commands that ran before on the same files are not run again: what they made is put there.
//!
//! ```text
//! STORE/steps/COMMAND/            digest of what runs: program, arguments, environment, input, script
//!   HEX.json                      what a run depended on; HEX is its digest
//!   HEX.tar                       what it made
//! ```
//!
//! A run depends on the content of every file that it opened, and on the existence of whatever it looked for. The
//! first the kernel tells ([`super::reads`]). The second it does not, so all names of the rootfs have to be the same,
//! with types, modes, owners and targets of links; but for trees of documentation and the like ([`QUIET`]), of which
//! only directories count in which the command listed or opened anything. A file's time counts as far as it is its
//! package's: what the build itself made is as old as the build.
//!
//! What changes, moves or removes a file that was there may carry over content that it never opened for reading:
//! appended text, a renamed file, another name of one. So it depends on what the file was before, which is known of
//! what packages and scripts brought in this build, and of some trees of layers below ([`Known`]). Other runs that did
//! so are not kept; nor are those that failed.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, readlinkat, statat};
use serde::{Deserialize, Serialize};

use super::journal::Changes;
use super::reads::Opened;
use crate::actor::{Actor, Placed};
use crate::digest::{Digest, Hasher};
use crate::image::delta::{self, Entry, Kind};
use crate::image::{extract, tar};
use crate::rootfs::Rootfs;
use crate::sandbox::{Command, Outcome, SOURCE_DATE_EPOCH, Sandbox};
use crate::store::Store;

/// Part of the digest of a command: another form of the records, or another sandbox, makes another.
const VERSION: u32 = 4;

/// Runs kept of one command: those of the layers and streams that use it.
const KEPT: usize = 8;

/// Trees whose names nobody looks for who does not list or open what is beside them.
const QUIET: [&str; 15] = [
    "usr/include",
    "usr/lib/.build-id",
    "usr/lib/debug",
    "usr/lib/sysimage",
    "usr/share/doc",
    "usr/share/help",
    "usr/share/info",
    "usr/share/licenses",
    "usr/share/locale",
    "usr/share/man",
    "usr/src",
    "var/lib/rpm",
    // those of the sandbox are others
    "dev",
    "run",
    "tmp",
];

/// A run of a command.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    /// Digest of the names that were there, see [`Known::names`].
    names: Digest,
    /// Directories of quiet trees whose names count.
    listed: BTreeSet<PathBuf>,
    /// What it opened, changed or removed, as it was before.
    reads: BTreeMap<PathBuf, Content>,
    removed: BTreeSet<PathBuf>,
    /// The end of what it printed.
    output: String,
    /// Of the tar.
    made: Digest,
}

impl Step {
    /// None if it is not what its name says.
    fn read(path: &Path) -> Option<Self> {
        let record = fs::read(path).ok()?;
        let is_named = path.file_stem()? == &*Digest::of(&record).hex();
        is_named.then(|| serde_json::from_slice(&record).ok())?
    }
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

/// What is known of a rootfs without looking.
pub struct Known {
    /// Files that scripts left, packages brought, or that were looked at.
    contents: HashMap<OsString, Content>,
    /// The names in each directory that has any.
    names: BTreeMap<OsString, Names>,
    /// Paths that are there and whose attributes are not among the names.
    unseen: BTreeSet<OsString>,
}

/// The names in a directory.
#[derive(Default)]
struct Names {
    /// See [`attributes`].
    attributes: BTreeMap<OsString, String>,
    /// Of all that, if it was computed.
    digest: OnceCell<Digest>,
}

impl Names {
    fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| {
            let fields = self.attributes.iter().flat_map(|(name, of)| [name.as_bytes(), of.as_bytes()]);
            digest_fields(fields)
        })
    }
}

/// What was there before a command changed it; nothing where it made something.
type Before = BTreeMap<PathBuf, Option<Content>>;

/// Where scripts change files of layers below, whose content has to be known before.
const CHANGED_BELOW: [&str; 2] = ["etc", "var"];

impl Known {
    /// Of a rootfs that has these paths before anything happens.
    pub fn new<'p>(sandbox: &Sandbox, paths: impl Iterator<Item = &'p Path>) -> Result<Self> {
        let unseen: BTreeSet<OsString> = paths.map(OsString::from).collect();
        let is_changed = |path: &&Path| CHANGED_BELOW.iter().any(|tree| path.starts_with(tree));
        let changed = unseen.iter().map(Path::new).filter(is_changed).map(Path::to_owned).collect();
        let mut known = Self { contents: HashMap::new(), names: BTreeMap::new(), unseen };
        known.read(sandbox, changed)?;
        known.learn(&sandbox.rootfs)?;
        Ok(known)
    }

    /// Notes what a script did.
    pub fn note(&mut self, sandbox: &Sandbox, changes: &Changes) -> Result<()> {
        self.forget(changes);
        let changed: Vec<PathBuf> =
            changes.created.iter().chain(&changes.modified).map(|path| relative(path)).collect();
        for path in &changed {
            let meta = look(&sandbox.rootfs, path)?;
            if meta.is_file() && meta.nlink() > 1 {
                // its other names, which nobody told of, have its content and its attributes
                self.forget_all();
                return Ok(());
            }
        }
        self.read(sandbox, changed).map(drop)
    }

    /// Notes what a package brought.
    pub fn note_placed(&mut self, sandbox: &Sandbox, files: &[Placed<'_>]) {
        for Placed { path, sha256, size, mtime } in files {
            let content = Content { sha256: *sha256, size: *size, mtime: time(*mtime, sandbox.epoch) };
            self.contents.insert(relative(path).into(), content);
        }
    }

    /// Notes what somebody else did.
    pub fn forget(&mut self, changes: &Changes) {
        let there = changes.created.iter().chain(&changes.modified).map(|path| (path, true));
        for (path, is_there) in there.chain(changes.removed.iter().map(|path| (path, false))) {
            let path = relative(path);
            self.contents.remove(path.as_os_str());
            let (dir, name) = split(&path);
            if let Some(names) = self.names.get_mut(dir) {
                names.attributes.remove(name);
                names.digest.take();
                if names.attributes.is_empty() {
                    self.names.remove(dir);
                }
            }
            match is_there {
                true => self.unseen.insert(path.into()),
                false => self.unseen.remove(path.as_os_str()),
            };
        }
    }

    fn forget_all(&mut self) {
        self.contents.clear();
        for (dir, names) in std::mem::take(&mut self.names) {
            let paths = names.attributes.into_keys().map(|name| Path::new(&dir).join(name).into());
            self.unseen.extend(paths);
        }
    }

    /// Looks at the names that came or changed since the last call.
    fn learn(&mut self, root: &Path) -> Result<()> {
        let mut unseen: BTreeMap<OsString, Vec<OsString>> = BTreeMap::new();
        for path in std::mem::take(&mut self.unseen) {
            let (dir, name) = split(Path::new(&path));
            unseen.entry(dir.to_owned()).or_default().push(name.to_owned());
        }
        let looked = unseen.into_par_iter().map(|(dir, names)| {
            let attributes = attributes(root, Path::new(&dir), names)?;
            Ok((dir, attributes))
        });
        for (dir, attributes) in looked.collect::<Result<Vec<_>>>()? {
            let names = self.names.entry(dir).or_default();
            names.attributes.extend(attributes);
            names.digest.take();
        }
        Ok(())
    }

    /// Digests the names that matter, those in the directories `listed`, and these themselves; with their attributes.
    fn names(&self, listed: &BTreeSet<PathBuf>) -> Digest {
        let counts = |dir: &Path| !is_quiet(dir) || listed.contains(dir);
        let counted = self.names.iter().filter(|(dir, _)| counts(Path::new(dir)));
        let digests = counted.flat_map(|(dir, names)| [dir.as_bytes(), names.digest().as_bytes()]);
        let own = listed.iter().flat_map(|path| {
            let (dir, name) = split(path);
            let attributes = self.names.get(dir).and_then(|names| names.attributes.get(name));
            [path.as_os_str().as_bytes(), attributes.map_or(b"", String::as_bytes)]
        });
        digest_fields(digests.chain(own))
    }

    /// What these changes were made to; or what was there and is not known.
    fn before(&self, changes: &Changes) -> Result<Before, PathBuf> {
        let known = |path: PathBuf| match self.contents.get(path.as_os_str()) {
            Some(content) => Ok((path, Some(content.clone()))),
            None => Err(path),
        };
        let touched = changes.modified.iter().chain(&changes.removed).map(|path| known(relative(path)));
        let created = changes.created.iter().map(|path| Ok((relative(path), None)));
        touched.chain(created).collect()
    }

    /// The contents of those of `paths` that are files.
    fn read(&mut self, sandbox: &Sandbox, paths: Vec<PathBuf>) -> Result<BTreeMap<PathBuf, Content>> {
        let rootfs = Rootfs::open(&sandbox.rootfs)?;
        let found = paths.into_par_iter().with_min_len(16).map(|path| {
            let content = match self.contents.get(path.as_os_str()) {
                Some(known) => Some((known.clone(), 1)),
                None => content(&rootfs, sandbox.epoch, &path)?,
            };
            Ok((path, content))
        });
        let mut contents = BTreeMap::new();
        for (path, found) in found.collect::<Result<Vec<_>>>()? {
            let Some((content, names)) = found else { continue };
            if names == 1 {
                self.contents.insert(path.clone().into(), content.clone());
            }
            contents.insert(path, content);
        }
        Ok(contents)
    }
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
    pub fn replay(&self, known: &mut Known) -> Result<Option<Outcome>> {
        let started = Instant::now();
        // if it runs, that is what it starts from
        known.learn(&self.sandbox.rootfs)?;
        for path in self.kept()? {
            // one that another build removed meanwhile, or that is damaged, is none
            let Some(step) = Step::read(&path) else { continue };
            if let Some(why) = self.mismatch(&step, known)? {
                tracing::info!("{} has to run again: {why}", self.actor);
                continue;
            }
            if !self.store.take(&path)? {
                continue;
            }
            let made = path.with_extension("tar");
            if !File::open(&made).is_ok_and(|mut tar| is(&step.made, &mut tar)) {
                tracing::info!("{} has to run again: {} is damaged", self.actor, made.display());
                continue;
            }
            self.put(&step, &made).with_context(|| format!("reusing {}", path.display()))?;
            tracing::info!("{} need not run: it did on the same files", self.actor);
            return Ok(Some(Outcome { status: 0, output: step.output, duration: started.elapsed() }));
        }
        Ok(None)
    }

    /// Why a run would do something else now.
    fn mismatch(&self, step: &Step, known: &mut Known) -> Result<Option<String>> {
        let rootfs = Rootfs::open(&self.sandbox.rootfs)?;
        let epoch = self.sandbox.epoch;
        let alike = |path: &Path, content: &Content| match known.contents.get(path.as_os_str()) {
            Some(known) => known == content,
            None => look(rootfs.path(), path).is_ok_and(|meta| {
                meta.is_file() && meta.len() == content.size && time(meta.mtime(), epoch) == content.mtime
            }),
        };
        let other = |path: &Path| Some(format!("/{} is another", path.display()));
        if let Some((path, _)) = step.reads.iter().find(|(path, content)| !alike(path, content)) {
            return Ok(other(path));
        }
        if known.names(&step.listed) != step.names {
            return Ok(Some("other names are there".to_owned()));
        }
        let found = known.read(self.sandbox, step.reads.keys().cloned().collect())?;
        let differs = step.reads.iter().find(|(path, content)| found.get(*path) != Some(*content));
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

    /// Keeps a run that changed the rootfs by `changes` and opened `opened`, unless that is not known or could not be
    /// repeated. `known` is from before.
    pub fn keep(
        &self,
        outcome: &Outcome,
        changes: &Changes,
        opened: Option<Opened>,
        known: &mut Known,
    ) -> Result<()> {
        if outcome.status != 0 {
            return Ok(());
        }
        let told = |why: &str| tracing::info!("{} will have to run in later builds: {why}", self.actor);
        let Some(opened) = opened else {
            told("inotify did not tell all that it opened");
            return Ok(());
        };
        let before = match known.before(changes) {
            Ok(before) => before,
            Err(path) => {
                told(&format!("it changed /{}, of which is not known what it was", path.display()));
                return Ok(());
            }
        };
        let changed = changes.created.iter().chain(&changes.modified).map(|path| relative(path));
        let Some(made) = entries(&self.sandbox.rootfs, &changed.collect())? else {
            told("it made what no archive holds, or another name of what was there");
            return Ok(());
        };
        let is_created = |path: &PathBuf| before.get(path).is_some_and(Option::is_none);
        let beside = opened.files.keys().filter_map(|path| path.parent().map(Path::to_owned));
        let listed = beside.chain(opened.listed).filter(|dir| is_quiet(dir) && !is_created(dir)).collect();
        // of what came and went during the run there is none
        let unchanged = opened.files.into_keys().filter(|path| !before.contains_key(path));
        let mut reads = known.read(self.sandbox, unchanged.collect())?;
        reads.extend(before.into_iter().filter_map(|(path, content)| Some((path, content?))));
        let step = Step {
            names: known.names(&listed),
            listed,
            reads,
            removed: changes.removed.iter().map(|path| relative(path)).collect(),
            output: outcome.output.clone(),
            made: Digest::of(""),
        };
        self.write(step, &made)
    }

    /// Neither file is synced: one that is damaged has another digest.
    fn write(&self, step: Step, made: &[Entry]) -> Result<()> {
        let context = || format!("keeping what a command made in {}", self.dir.display());
        fs::create_dir_all(&self.dir).with_context(context)?;
        let mut archive = Hasher::new(BufWriter::new(self.store.temp_file()?));
        tar::write(&tar::Tree(&self.sandbox.rootfs), made, &mut archive).with_context(context)?;
        let (file, made, _) = archive.finish();
        let file = file.into_inner().map_err(|error| error.into_error()).with_context(context)?;
        let json = serde_json::to_vec(&Step { made, ..step })?;
        let path = self.dir.join(format!("{}.json", Digest::of(&json).hex()));
        file.persist(path.with_extension("tar")).with_context(context)?;
        let mut file = self.store.temp_file()?;
        file.write_all(&json).with_context(context)?;
        file.persist(path).with_context(context)?;
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

/// What is wrong with the runs kept in a directory of the store's `steps/`.
pub fn damage(dir: &Path) -> Result<Option<String>> {
    let context = || format!("reading {}", dir.display());
    for entry in fs::read_dir(dir).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let is_whole = |step: &Step| {
            File::open(path.with_extension("tar")).is_ok_and(|mut tar| is(&step.made, &mut tar))
        };
        let is_record = Step::read(&path).is_some_and(|step| is_whole(&step));
        // one that is being written has another name
        if path.extension().is_some_and(|extension| extension == "json") && !is_record {
            let name = path.file_name().unwrap_or_default();
            return Ok(Some(format!("{} or its archive is damaged", name.display())));
        }
    }
    Ok(None)
}

/// Whether a file has this content.
fn is(digest: &Digest, file: &mut File) -> bool {
    Digest::of_reader(file).is_ok_and(|(found, _)| found == *digest)
}

/// A file of a rootfs, and how many names it has; none if there is no such file.
fn content(rootfs: &Rootfs, epoch: u64, path: &Path) -> Result<Option<(Content, u64)>> {
    let context = || format!("reading /{}", path.display());
    let is_file = |meta: Metadata| meta.is_file();
    if !rootfs.path().join(path).symlink_metadata().is_ok_and(is_file) {
        return Ok(None);
    }
    let Some(mut file) = rootfs.open_file(&absolute(path))? else { return Ok(None) };
    let meta = file.metadata().with_context(context)?;
    let (sha256, size) = Digest::of_reader(&mut file).with_context(context)?;
    Ok(Some((Content { sha256, size, mtime: time(meta.mtime(), epoch) }, meta.nlink())))
}

/// The time of a file, unless it is of the build whose packages are not newer than `epoch`.
fn time(mtime: i64, epoch: u64) -> Option<i64> {
    Some(mtime).filter(|time| u64::try_from(*time).is_ok_and(|time| time <= epoch))
}

fn relative(path: &str) -> PathBuf {
    path.trim_start_matches('/').into()
}

fn absolute(path: &Path) -> String {
    format!("/{}", path.display())
}

fn is_quiet(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    let below = |tree: &&str| path.strip_prefix(tree.as_bytes());
    QUIET.iter().filter_map(below).any(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A relative path's directory and name.
fn split(path: &Path) -> (&OsStr, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let (dir, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        None => (&bytes[..0], bytes),
    };
    (OsStr::from_bytes(dir), OsStr::from_bytes(name))
}

/// Digests fields without a NUL in them, and digests.
fn digest_fields<'f>(fields: impl Iterator<Item = &'f [u8]>) -> Digest {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.push(0);
    }
    Digest::of(bytes)
}

fn look(root: &Path, path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(root.join(path)).with_context(|| format!("reading /{}", path.display()))
}

/// Of names in a directory: type, mode, owner, and the target of a link.
fn attributes(root: &Path, dir: &Path, names: Vec<OsString>) -> Result<Vec<(OsString, String)>> {
    let handle =
        openat(CWD, root.join(dir), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let handle = handle.with_context(|| format!("opening /{}", dir.display()))?;
    let of = |name: &OsStr| {
        let stat = statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => readlinkat(&handle, name, Vec::new())?,
            _ => CString::default(),
        };
        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
        rustix::io::Result::Ok(format!(
            "{:o} {}:{} {}",
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            target.display()
        ))
    };
    let described = |name: OsString| {
        let attributes = of(&name).with_context(|| format!("reading /{}", dir.join(&name).display()))?;
        Ok((name, attributes))
    };
    names.into_iter().map(described).collect()
}

/// These paths as entries of an archive, with their own times; none if any is of a type that no archive of ours holds,
/// or has a name that is not among them.
fn entries(root: &Path, paths: &BTreeSet<PathBuf>) -> Result<Option<Vec<Entry>>> {
    // of each file with several names how many are missing, and the first
    let mut links: BTreeMap<(u64, u64), (u64, &PathBuf)> = BTreeMap::new();
    let mut entries = Vec::new();
    for path in paths {
        let (at, meta) = (root.join(path), look(root, path)?);
        if !(meta.is_dir() || meta.is_file() || meta.is_symlink()) {
            return Ok(None);
        }
        let mut entry = delta::entry(path, &at, &meta, meta.mtime())?;
        if !meta.is_dir() && meta.nlink() > 1 {
            let (missing, first) =
                links.entry((meta.dev(), meta.ino())).or_insert_with(|| (meta.nlink(), path));
            *missing -= 1;
            if *first != path {
                entry.kind = Kind::HardLink { to: first.to_path_buf() };
            }
        }
        entries.push(entry);
    }
    Ok(links.values().all(|(missing, _)| *missing == 0).then_some(entries))
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::time::Duration;

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

    const TREE: &str = "mkdir -p etc usr/bin usr/share/doc/a usr/share/doc/read
        echo in > etc/input; echo other > etc/other; echo old > etc/old
        touch usr/bin/tool; echo 1 > usr/share/doc/read/1; echo 1 > usr/share/doc/a/1
        find . -exec touch -hd @1000 {} +";

    /// Reads, lists and makes.
    const SCRIPT: &str = "cat etc/input usr/share/doc/read/* > etc/.new; cat etc/.new; mv etc/.new etc/new
        test -e usr/bin/tool
        mkdir -m 700 etc/dir; ln etc/new etc/dir/hard; ln -s ../new etc/dir/soft";

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
            self.run_after(":", ":", script)
        }

        /// The same after another script, and after `interlude`, which is none.
        fn run_after(&self, first: &str, interlude: &str, script: &str) -> bool {
            let sandbox = self.rootfs("before", ":");
            let mut journal = Journal::open(&sandbox.rootfs).unwrap();
            let mut known = Known::new(&sandbox, journal.paths()).unwrap();
            sh(&sandbox.rootfs, first);
            known.note(&sandbox, &journal.take().unwrap()).unwrap();
            sh(&sandbox.rootfs, interlude);
            known.forget(&journal.take().unwrap());
            assert!(self.steps(&sandbox).replay(&mut known).unwrap().is_none());
            let run = || {
                sh(&sandbox.rootfs, script);
                Ok(())
            };
            let mut reads = Reads::new().unwrap();
            let ((), opened) = reads.during(&sandbox.rootfs, journal.new_directories(), run).unwrap();
            let outcome = Outcome { status: 0, output: "said".into(), duration: Duration::ZERO };
            let changes = journal.take().unwrap();
            self.steps(&sandbox).keep(&outcome, &changes, opened, &mut known).unwrap();
            !self.steps(&sandbox).kept().unwrap().is_empty()
        }

        fn replays(&self, name: &str, change: &str) -> bool {
            let sandbox = self.rootfs(name, change);
            let journal = Journal::open(&sandbox.rootfs).unwrap();
            let mut known = Known::new(&sandbox, journal.paths()).unwrap();
            let outcome = self.steps(&sandbox).replay(&mut known).unwrap();
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
            (false, "echo 2 > usr/share/doc/read/2"),
            (false, "rm -r usr/share/doc/read"),
            (false, "touch usr/share/new"),
            (false, "touch etc/new"),
            (true, "echo 2 > etc/other"),
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
        // content that was not opened for reading is in what each of them leaves
        let carried = [
            "echo new >> usr/bin/tool",
            "mv usr/bin/tool etc/new",
            "ln usr/bin/tool etc/new",
            "chmod 600 usr/bin/tool",
        ];
        let others =
            ["cat usr/bin/tool; echo new > usr/bin/tool", "mkfifo etc/fifo", "rm -r usr/share/doc/read"];
        for script in carried.into_iter().chain(others) {
            assert!(!World::new().run(script), "{script}");
        }
    }

    /// Leaves files that [`CHANGE`] changes and removes.
    const LEAVE: &str = "echo old > etc/made; echo > etc/mark; echo old > etc/left; chmod 600 etc/left";
    const CHANGE: &str =
        "echo new >> etc/made; rm etc/mark; cat etc/input > etc/.left; mv etc/.left etc/left";

    #[test]
    fn what_scripts_left_may_be_changed() {
        let world = World::new();
        assert!(world.run_after(LEAVE, ":", CHANGE));
        assert!(world.replays("after", LEAVE));
        assert_eq!(listing(&world.dir.path().join("after")), listing(&world.dir.path().join("before")));
        for (index, other) in [
            "echo x > etc/made",
            "echo x > etc/mark",
            "rm etc/mark",
            "chmod 644 etc/left",
            "touch -d @1 etc/made",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(!world.replays(&index.to_string(), &format!("{LEAVE}; {other}")), "{other}");
        }
    }

    #[test]
    fn what_was_there_is_known_where_scripts_change_it() {
        for script in ["echo new >> etc/old", "mv etc/old etc/new", "chmod 600 etc/old"] {
            let world = World::new();
            assert!(world.run(script), "{script}");
            assert!(world.replays("after", ":"), "{script}");
            let listings = ["after", "before"].map(|name| listing(&world.dir.path().join(name)));
            assert_eq!(listings[0], listings[1], "{script}");
            assert!(!world.replays("other", "echo xyz > etc/old; touch -d @1000 etc/old"), "{script}");
        }
    }

    #[test]
    fn an_empty_directory_that_was_listed_is_another_than_none() {
        let world = World::new();
        let empty = "rm usr/share/doc/a/1";
        assert!(world.run_after(empty, ":", "ls usr/share/doc/a > etc/new"));
        assert!(world.replays("empty", empty));
        assert!(!world.replays("none", "rm -r usr/share/doc/a"));
    }

    #[test]
    fn what_others_may_have_changed_is_not_known() {
        let cases = [
            (":", "echo x > etc/made"),
            ("ln etc/made usr/made", ":"),
            ("rm etc/mark; mkdir etc/mark", "rmdir etc/mark; echo > etc/mark"),
            ("rm etc/mark; ln -s made etc/mark", ":"),
        ];
        for (more, interlude) in cases {
            assert!(
                !World::new().run_after(&format!("{LEAVE}; {more}"), interlude, CHANGE),
                "{more}, {interlude}"
            );
        }
    }

    #[test]
    fn what_a_package_brought_is_not_read() {
        for (text, replays) in [("in\n", true), ("un\n", false)] {
            let world = World::new();
            assert!(world.run(SCRIPT));
            let sandbox = world.rootfs("after", ":");
            let mut journal = Journal::open(&sandbox.rootfs).unwrap();
            let mut known = Known::new(&sandbox, journal.paths()).unwrap();
            let input = Placed { path: "/etc/input", sha256: Digest::of(text), size: 3, mtime: 1000 };
            known.note_placed(&sandbox, &[input]);
            let steps = world.steps(&sandbox);
            assert_eq!(steps.replay(&mut known).unwrap().is_some(), replays, "{text}");
            // nor is that believed which was changed meanwhile
            sh(&sandbox.rootfs, "rm -rf etc/new etc/dir; echo un > etc/input; touch -d @1000 etc/input");
            known.forget(&journal.take().unwrap());
            assert!(steps.replay(&mut known).unwrap().is_none(), "{text}");
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
