//! Which files of a rootfs a command opens.
//!
//! The kernel tells (inotify(7)), of everything that is opened for reading, executed or mapped, and of directories
//! that are listed. It does not tell of files that are looked at by name alone (stat(2), a failed open(2)): who wants
//! to know what a command depends on has to compare names besides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What a command opened, relative to the root. What it made itself may be among it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Files, and whether they were read for certain; the others may have been opened for writing only.
    pub files: BTreeMap<PathBuf, bool>,
    /// Directories that were listed.
    pub listed: BTreeSet<PathBuf>,
}

/// Watches the directories of a rootfs.
pub struct Reads {
    queue: OwnedFd,
    /// The directory of each watch, relative to the root.
    dirs: HashMap<i32, PathBuf>,
    /// False from when this user could watch no more.
    all_watched: bool,
}

impl Reads {
    /// None if this user may have no more inotify instances.
    pub fn new() -> Option<Self> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        Some(Self { queue, dirs: HashMap::new(), all_watched: true })
    }

    /// Does something, and tells what in the rootfs `root` was opened meanwhile; none if the kernel can't tell.
    /// `directories` are those that came since the last call, at first all.
    pub fn during<T>(
        &mut self,
        root: &Path,
        directories: Vec<PathBuf>,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Option<Opened>)> {
        self.collect(&mut Opened::default())?;
        self.watch(root, directories);
        let (stop, stopped) = io::pipe().map(|(read, write)| (write, read)).context("making a pipe")?;
        let (done, opened) = thread::scope(|scope| {
            let listening = scope.spawn(|| self.listen(stopped.as_fd()));
            let done = act();
            drop(stop);
            (done, listening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        Ok((done?, opened?.filter(|_| self.all_watched)))
    }

    fn watch(&mut self, root: &Path, directories: Vec<PathBuf>) {
        let flags = WatchFlags::OPEN
            | WatchFlags::ACCESS
            | WatchFlags::CLOSE_NOWRITE
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        for dir in directories {
            match inotify::add_watch(&self.queue, root.join(&dir), flags) {
                // a directory that was renamed has its old number: it gets its new name here
                Ok(number) => drop(self.dirs.insert(number, dir)),
                // it went again
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(_) => self.all_watched = false,
            }
        }
    }

    /// Collects events until the other end of `stop` is closed: the kernel's queue is short. Now and then, for to be
    /// woken by each would take longer than many a command does.
    fn listen(&mut self, stop: impl AsFd) -> Result<Option<Opened>> {
        const INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };
        let mut opened = Opened::default();
        let mut complete = true;
        loop {
            let stopped = match poll(&mut [PollFd::new(&stop, PollFlags::IN)], Some(&INTERVAL)) {
                Ok(ended) => ended > 0,
                Err(Errno::INTR) => false,
                Err(error) => return Err(error).context("waiting for a command to end"),
            };
            complete &= self.collect(&mut opened)?;
            if stopped {
                return Ok(complete.then_some(opened));
            }
        }
    }

    /// Adds what the queue has; false if the kernel lost count.
    fn collect(&mut self, opened: &mut Opened) -> Result<bool> {
        let mut complete = true;
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut events = Reader::new(&self.queue, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(complete),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("reading from inotify"),
            };
            let flags = event.events();
            complete &= !flags.contains(ReadFlags::QUEUE_OVERFLOW);
            if flags.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&event.wd());
                continue;
            }
            let Some(dir) = self.dirs.get(&event.wd()) else { continue };
            match event.file_name() {
                None if flags.contains(ReadFlags::ISDIR) => {
                    opened.listed.insert(dir.clone());
                }
                Some(name) if !flags.contains(ReadFlags::ISDIR) => {
                    let path = dir.join(OsStr::from_bytes(name.to_bytes()));
                    *opened.files.entry(path).or_default() |=
                        flags.intersects(ReadFlags::ACCESS | ReadFlags::CLOSE_NOWRITE);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn opened(script: &str) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let sh = |script: &str| {
            let mut sh = Command::new("sh");
            assert!(
                sh.args(["-euc", script]).current_dir(dir.path()).status().unwrap().success(),
                "{script}"
            );
            Ok(())
        };
        sh("mkdir -p a/b; echo 1 > a/1; echo 2 > a/b/2; cp /bin/true a/tool; ln -s a link").unwrap();
        let mut reads = Reads::new().unwrap();
        // what happened before does not count, and a directory that is another one does
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let replace = || sh("cat a/1; rm -r a/b; mkdir a/b; echo 2 > a/b/2");
        reads.during(dir.path(), paths(&["", "a", "a/b"]), replace).unwrap();
        let ((), found) = reads.during(dir.path(), paths(&["a/b"]), || sh(script)).unwrap();
        let found = found.unwrap();
        let file =
            |(path, read): (&PathBuf, &bool)| format!("{}{}", path.display(), if *read { "" } else { "?" });
        let listed = found.listed.iter().map(|dir| dir.display().to_string());
        (found.files.iter().map(file).collect(), listed.collect())
    }

    #[test]
    fn what_is_read_executed_or_listed_is_told() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (script, files, listed) in [
            (":", &[][..], &[][..]),
            ("cat a/1 link/b/2", &["a/1", "a/b/2"], &[]),
            ("a/tool", &["a/tool"], &[]),
            ("ls a", &[], &["a"]),
            ("echo 1 > a/b/2", &["a/b/2?"], &[]),
            ("echo 1 > a/new; mv a/new a/1", &["a/new?"], &[]),
            ("test -e a/1; test ! -e a/3; stat a/b/2", &[], &[]),
        ] {
            assert_eq!(opened(script), (texts(files), texts(listed)), "{script}");
        }
    }

    #[test]
    fn more_than_the_kernel_queues_is_told() {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let many = limit.trim().parse::<usize>().unwrap() * 2;
        // with pauses, in which a busy machine gets round to reading what was told
        let pause = "[ $((n % 1000)) != 0 ] || sleep 0.1";
        let (files, _) =
            opened(&format!("for n in $(seq {many}); do read x < a/1; read x < a/b/2; {pause}; done"));
        assert_eq!(files, ["a/1", "a/b/2"]);
    }
}
