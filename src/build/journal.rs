//! Which files of a rootfs each step of a build changes.
//!
//! The kernel tells (inotify(7)): every directory is watched, and what it names is compared with the paths that
//! were there. That costs a directory's listing once and little per change, where a walk over the tree after
//! each of hundreds of scriptlets would take longer than they do: of 29,000 paths, a walk is 500 ms where the listing
//! is 140 ms, and looking for a change 17 µs. Where the kernel can't tell - its queue
//! overflowed, or the user may have no more watches - the tree is walked after all, with the same answer.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What happened to the files of a rootfs, by absolute path, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// What was not there before, and all below it.
    pub created: Vec<String>,
    /// What has other content or attributes, or was replaced.
    pub modified: Vec<String>,
    /// What is gone, and all that was below it.
    pub removed: Vec<String>,
}

impl Changes {
    /// How many paths changed.
    pub fn len(&self) -> usize {
        self.created.len() + self.modified.len() + self.removed.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Watches a rootfs, in which nobody changes anything while a method runs.
pub struct Journal {
    root: PathBuf,
    /// Every path, relative to the root, and whether it is a directory. Compared as bytes: as paths takes ten times as
    /// long.
    known: BTreeMap<OsString, bool>,
    /// Directories that [`Journal::new_directories`] has not told of, relative to the root.
    news: Vec<PathBuf>,
    watch: Option<Watch>,
    /// When `known` was last true: seconds and nanoseconds.
    since: (i64, i64),
}

impl Journal {
    /// Begins to watch the rootfs `root`.
    pub fn open(root: &Path) -> Result<Self> {
        let mut journal = Self {
            root: root.to_owned(),
            known: BTreeMap::new(),
            news: Vec::new(),
            watch: Watch::new(),
            since: time(INODES),
        };
        journal.list(Path::new("")).with_context(|| format!("listing the rootfs {}", root.display()))?;
        journal.settle();
        Ok(journal)
    }

    /// The directories that came, or were replaced, since the last call; at first all of them. Relative to the root,
    /// which is one.
    pub fn new_directories(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.news)
    }

    /// Every path but the root itself, relative to it, in the order of their bytes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.known.keys().map(Path::new)
    }

    /// What changed since the last call, or since the journal was opened.
    pub fn take(&mut self) -> Result<Changes> {
        let mut changes = Changes::default();
        self.compare(&mut changes)
            .with_context(|| format!("looking for changes in the rootfs {}", self.root.display()))?;
        self.settle();
        for list in [&mut changes.created, &mut changes.modified, &mut changes.removed] {
            list.sort();
            list.dedup();
        }
        // of a file that came with its directory the kernel may tell that it went before
        let Changes { created, modified, .. } = &mut changes;
        modified.retain(|path| created.binary_search(path).is_err());
        Ok(changes)
    }

    /// Compares what was touched, or everything if that is not known.
    fn compare(&mut self, changes: &mut Changes) -> Result<()> {
        let touched = self.watch.as_mut().map(Watch::touched).transpose()?.flatten();
        let Some(touched) = touched else { return self.walk(changes) };
        // sorted: what is below a path that is no directory any more is not looked for
        for (path, renamed) in touched {
            let path = Path::new(&path);
            if path.parent().is_some_and(|dir| self.is_dir(dir)) {
                self.look(path, renamed, changes)?;
            }
        }
        Ok(())
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.known.get(path.as_os_str()) == Some(&true)
    }

    /// Compares a path, whose directory is one, with what was there. `renamed`: it may be another file than before.
    fn look(&mut self, path: &Path, renamed: bool, changes: &mut Changes) -> Result<()> {
        let is_dir = match fs::symlink_metadata(self.root.join(path)) {
            Ok(meta) => Some(meta.is_dir()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("reading /{}", path.display())),
        };
        let before = self.known.get(path.as_os_str()).copied();
        match (before, is_dir) {
            (None, None) => {}
            (None, Some(is_dir)) => {
                self.known.insert(path.into(), is_dir);
                changes.created.push(absolute(path));
            }
            (Some(_), None) => {
                self.known.remove(path.as_os_str());
                changes.removed.push(absolute(path));
            }
            (Some(_), Some(is_dir)) => {
                self.known.insert(path.into(), is_dir);
                changes.modified.push(absolute(path));
            }
        }
        if renamed && (before == Some(true) || is_dir == Some(true)) {
            // a directory that came, went or was replaced: all below it did
            let kept = self.relist(path, is_dir == Some(true), changes)?;
            changes.modified.extend(kept);
        }
        Ok(())
    }

    /// Lists a directory again, or forgets what was in it; gives the paths that were and are there.
    fn relist(&mut self, dir: &Path, is_there: bool, changes: &mut Changes) -> Result<Vec<String>> {
        let before = self.take_below(dir);
        if is_there {
            self.list(dir)?;
        }
        let (kept, created) = self.below(dir).partition::<Vec<_>, _>(|path| before.contains_key(*path));
        changes.created.extend(created.into_iter().map(absolute));
        let removed = before.keys().filter(|path| !self.known.contains_key(*path));
        changes.removed.extend(removed.map(absolute));
        Ok(kept.into_iter().map(absolute).collect())
    }

    /// Compares the whole tree. Files that were there are other ones if their inodes changed since.
    fn walk(&mut self, changes: &mut Changes) -> Result<()> {
        let before = self.known.clone();
        self.relist(Path::new(""), true, changes)?;
        for (path, is_dir) in &self.known {
            match before.get(path) {
                // its time says that its entries changed, which are listed themselves
                Some(true) if *is_dir => {}
                Some(was_dir) => {
                    let meta = fs::symlink_metadata(self.root.join(path));
                    let meta = meta.with_context(|| format!("reading /{}", path.display()))?;
                    if was_dir != is_dir || (meta.ctime(), meta.ctime_nsec()) > self.since {
                        changes.modified.push(absolute(path));
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Adds all that is below a directory, and watches the directories.
    fn list(&mut self, dir: &Path) -> Result<()> {
        let at = self.root.join(dir);
        let context = || format!("listing /{}", dir.display());
        if self.watch.as_mut().is_some_and(|watch| !watch.add(&at, dir)) {
            self.watch = None;
        }
        self.news.push(dir.to_owned());
        for entry in fs::read_dir(&at).with_context(context)? {
            let entry = entry.with_context(context)?;
            let (path, is_dir) =
                (dir.join(entry.file_name()), entry.file_type().with_context(context)?.is_dir());
            if is_dir {
                self.list(&path)?;
            }
            self.known.insert(path.into(), is_dir);
        }
        Ok(())
    }

    /// The known paths below a directory.
    fn below(&self, dir: &Path) -> impl Iterator<Item = &OsString> {
        let mut start = dir.as_os_str().to_owned();
        if !start.is_empty() {
            start.push("/");
        }
        let all = self.known.range(start.clone()..).map(|(path, _)| path);
        all.take_while(move |path| path.as_bytes().starts_with(start.as_bytes()))
    }

    fn take_below(&mut self, dir: &Path) -> BTreeMap<OsString, bool> {
        let paths: Vec<OsString> = self.below(dir).cloned().collect();
        paths.into_iter().filter_map(|path| self.known.remove_entry(&path)).collect()
    }

    /// Notes that `known` is true now. Without a watch the times of inodes have to tell what comes later from what
    /// came before: their clock passes this moment, and then the one that is noted.
    fn settle(&mut self) {
        if self.watch.is_none() {
            wait_until_after(time(ClockId::Realtime));
        }
        self.since = time(INODES);
        if self.watch.is_none() {
            wait_until_after(self.since);
        }
    }
}

/// The clock of inodes: it stands still for milliseconds, and may be behind the other one. Inodes may have the time
/// of that one.
const INODES: ClockId = ClockId::RealtimeCoarse;

fn wait_until_after(moment: (i64, i64)) {
    while time(INODES) <= moment {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn time(clock: ClockId) -> (i64, i64) {
    let time = clock_gettime(clock);
    (time.tv_sec, time.tv_nsec)
}

fn absolute(path: impl AsRef<Path>) -> String {
    format!("/{}", path.as_ref().display())
}

/// The kernel's account of changes.
struct Watch {
    queue: OwnedFd,
    /// The directory of each watch, relative to the root.
    dirs: HashMap<i32, PathBuf>,
}

impl Watch {
    /// None if this user may have no more of them.
    fn new() -> Option<Self> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        queue.inspect_err(|error| unavailable(*error)).ok().map(|queue| Self { queue, dirs: HashMap::new() })
    }

    /// Watches the directory `at`, known as `dir`; false if this user may watch no more.
    fn add(&mut self, at: &Path, dir: &Path) -> bool {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            // of what was written through a mapping it tells nothing else
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        // a directory that was renamed has its old number: it gets its new name here
        let added = inotify::add_watch(&self.queue, at, flags).inspect_err(|error| unavailable(*error));
        added.map(|number| self.dirs.insert(number, dir.to_owned())).is_ok()
    }

    /// The paths that something happened to since the last call, and whether their names did; none if the kernel
    /// lost count.
    fn touched(&mut self) -> Result<Option<BTreeMap<OsString, bool>>> {
        let mut touched = BTreeMap::new();
        let mut complete = true;
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut events = Reader::new(&self.queue, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("reading from inotify"),
            };
            complete &= !event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if event.events().contains(ReadFlags::IGNORED) {
                self.dirs.remove(&event.wd());
            }
            // what has no name happened to the directory itself, of which the one above tells
            let (Some(dir), Some(name)) = (self.dirs.get(&event.wd()), event.file_name()) else { continue };
            let content = ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB | ReadFlags::ISDIR;
            *touched.entry(dir.join(OsStr::from_bytes(name.to_bytes())).into()).or_default() |=
                !content.contains(event.events());
        }
        Ok(complete.then_some(touched))
    }
}

fn unavailable(error: Errno) {
    tracing::warn!(
        %error,
        "inotify is not to be had, so all files are looked at after each script, which takes time: \
         raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A rootfs of a few files, and two journals of it: one is told by the kernel, the other walks.
    fn journals() -> (tempfile::TempDir, [Journal; 2]) {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), "mkdir -p a/b/c etc && touch a/1 a/b/2 a/b/c/3 etc/passwd && ln -s /etc a/link");
        let open = || Journal::open(dir.path()).unwrap();
        let (told, mut walking) = (open(), open());
        assert!(told.watch.is_some());
        walking.watch = None;
        walking.settle();
        (dir, [told, walking])
    }

    fn sh(root: &Path, script: &str) {
        let status = Command::new("sh").args(["-euc", script]).current_dir(root).status().unwrap();
        assert!(status.success(), "{script}");
    }

    /// What both journals say of a script.
    fn of(script: &str) -> [Vec<String>; 3] {
        let (dir, mut journals) = journals();
        sh(dir.path(), script);
        let [told, walked] = journals.each_mut().map(|journal| journal.take().unwrap());
        assert_eq!(told.created, walked.created, "{script}");
        assert_eq!(told.removed, walked.removed, "{script}");
        // a directory has no content to modify, and only the kernel tells of its attributes
        let files = |changes: &Changes| -> Vec<String> {
            let is_dir = |path: &&String| dir.path().join(path.trim_start_matches('/')).is_dir();
            changes.modified.iter().filter(|path| !is_dir(path)).cloned().collect()
        };
        assert_eq!(files(&told), files(&walked), "{script}");
        assert!(journals.iter_mut().all(|journal| journal.take().unwrap().is_empty()), "{script}");
        [told.created, told.modified, told.removed]
    }

    #[test]
    fn every_kind_of_change_is_told() {
        for (script, [created, modified, removed]) in [
            ("true", ["", "", ""]),
            ("cat a/1; ls -R a", ["", "", ""]),
            ("touch x; rm x; mkdir -p y/z; rm -r y", ["", "", ""]),
            ("mkdir -p x/y; echo 1 > x/y/z", ["/x /x/y /x/y/z", "", ""]),
            ("echo 1 >> a/1", ["", "/a/1", ""]),
            ("chmod 600 a/b/2", ["", "/a/b/2", ""]),
            ("chmod 700 a/b", ["", "/a/b", ""]),
            ("echo 1 > etc/new; mv etc/new etc/passwd", ["", "/etc/passwd", ""]),
            ("rm a/1; touch a/1", ["", "/a/1", ""]),
            ("rm -r a/b", ["", "", "/a/b /a/b/2 /a/b/c /a/b/c/3"]),
            ("mv a/b x", ["/x /x/2 /x/c /x/c/3", "", "/a/b /a/b/2 /a/b/c /a/b/c/3"]),
            ("mv a/b x; echo 1 > x/c/4", ["/x /x/2 /x/c /x/c/3 /x/c/4", "", "/a/b /a/b/2 /a/b/c /a/b/c/3"]),
            ("rm -r a/b; mkdir a/b; echo 1 > a/b/2", ["", "/a/b /a/b/2", "/a/b/c /a/b/c/3"]),
            ("touch a/b/4; rm -r a/b; mkdir a/b; touch a/b/4", ["/a/b/4", "/a/b", "/a/b/2 /a/b/c /a/b/c/3"]),
            ("rm -r a/b; touch a/b", ["", "/a/b", "/a/b/2 /a/b/c /a/b/c/3"]),
            // what is behind the link was not touched under this name
            ("rm -r a/b; ln -s ../etc a/b; touch a/b/x", ["/etc/x", "/a/b", "/a/b/2 /a/b/c /a/b/c/3"]),
            ("rm a/1; mkdir a/1; touch a/1/x", ["/a/1/x", "/a/1", ""]),
        ] {
            let paths = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(of(script), [created, modified, removed].map(paths), "{script}");
        }
    }

    /// All paths below `root`, as find(1) lists them.
    fn find(root: &Path) -> BTreeSet<String> {
        let output = Command::new("find").args([".", "-mindepth", "1"]).current_dir(root).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|path| path[1..].to_owned()).collect()
    }

    #[test]
    fn names_are_those_that_find_lists_before_and_after() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (dir, mut journals) = journals();
        let names = ["p", "q", "r"];
        for _ in 0..60 {
            let before = find(dir.path());
            let commands = (0..random.gen_range(1..12)).map(|_| {
                let mut path = || {
                    let depth = random.gen_range(1..4);
                    let picked = (0..depth).map(|_| *names.choose(&mut random).unwrap());
                    picked.collect::<Vec<_>>().join("/")
                };
                let (one, other) = (path(), path());
                // many fail, which is as good
                match random.gen_range(0..6) {
                    0 => format!("mkdir -p {one}"),
                    1 => format!("echo 1 >> {one}"),
                    2 => format!("rm -rf {one}"),
                    3 => format!("mv -T {one} {other}"),
                    4 => format!("cp -r {one} {other}"),
                    _ => format!("ln -sfn {one} {other}"),
                }
            });
            let script = commands.map(|command| format!("{command} 2> /dev/null || :\n")).collect::<String>();
            sh(dir.path(), &script);
            let after = find(dir.path());
            for journal in &mut journals {
                let changes = journal.take().unwrap();
                assert_eq!(
                    changes.created,
                    after.difference(&before).cloned().collect::<Vec<_>>(),
                    "{script}"
                );
                assert_eq!(
                    changes.removed,
                    before.difference(&after).cloned().collect::<Vec<_>>(),
                    "{script}"
                );
            }
        }
    }

    #[test]
    fn more_changes_than_the_kernel_counts_are_told() {
        let (dir, [mut told, _]) = journals();
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let many: usize = limit.trim().parse::<usize>().unwrap() + 1;
        fs::remove_file(dir.path().join("a/1")).unwrap();
        (0..many).for_each(|n| fs::write(dir.path().join(format!("etc/{n}")), "").unwrap());
        let changes = told.take().unwrap();
        assert_eq!((changes.created.len(), changes.removed), (many, vec!["/a/1".to_owned()]));
        sh(dir.path(), "echo 1 >> etc/7; mkdir etc/d");
        let changes = told.take().unwrap();
        assert_eq!(
            (changes.created, changes.modified),
            (vec!["/etc/d".to_owned()], vec!["/etc/7".to_owned()])
        );
    }
}
