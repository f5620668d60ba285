//! What is in files, known without reading them again: installed files were verified when they were unpacked.
//!
//! A file is as it was verified if it has the inode and the change time (ctime) that it had when it was put in its
//! place. Whatever is done to a file sets that time, a write through a mapping too, and no call gives it another: the
//! time of its content is anybody's to set, and says nothing. But before Linux 6.13, and on some file systems since, the
//! clock of change times stands still for milliseconds. There whoever lets others at the files waits until it has gone on.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rayon::prelude::*;
use rustix::fs::Stat;
use rustix::time::{ClockId, clock_gettime};

use crate::digest::Digest;
use crate::image::delta::{Delta, Kind};

/// Digests of files of one file system.
#[derive(Debug, Default)]
pub struct Verified {
    /// By inode.
    files: HashMap<u64, Seen>,
    /// The latest change of all.
    latest: Moment,
    /// See [`tells_apart`].
    told_apart: bool,
}

/// Seconds and nanoseconds.
type Moment = (i64, i64);

#[derive(Debug)]
struct Seen {
    changed: Moment,
    sha256: Digest,
}

impl Verified {
    /// Of the file system that the directory `dir` is on.
    pub(super) fn on(dir: &Path) -> Result<Self> {
        let told_apart = tells_apart(dir).with_context(|| format!("changing a file in {}", dir.display()))?;
        Ok(Self { told_apart, ..Self::default() })
    }

    /// Notes that a file, of which this is known after all that was done to it, has this content.
    pub(super) fn note(&mut self, stat: &Stat, sha256: Digest) {
        let changed = (stat.st_ctime, stat.st_ctime_nsec as i64);
        self.latest = self.latest.max(changed);
        self.files.insert(stat.st_ino, Seen { changed, sha256 });
    }

    /// Waits until whatever is done to the files that were noted shows.
    pub(super) fn settle(&self) {
        while !self.told_apart && now() <= self.latest {
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// The contents of those files of `delta`, which is of the tree `root`, that are as they were noted.
    pub fn contents(&self, root: &Path, delta: &Delta) -> Result<HashMap<PathBuf, Digest>> {
        let files = delta.changed.par_iter().filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
        let known = files.map(|(path, _)| {
            let at = root.join(path);
            let meta = at.symlink_metadata().with_context(|| format!("reading {}", at.display()))?;
            let seen = self.files.get(&meta.ino());
            let same = seen.filter(|seen| seen.changed == (meta.ctime(), meta.ctime_nsec()));
            Ok(same.map(|seen| (path.clone(), seen.sha256)))
        });
        known.filter_map(Result::transpose).collect()
    }
}

/// Whether a change that follows a look at a file always gives it another change time (multigrain timestamps:
/// `Documentation/filesystems/multigrain-ts.rst` of Linux).
fn tells_apart(dir: &Path) -> io::Result<bool> {
    let file = tempfile::tempfile_in(dir)?;
    let change = || {
        rustix::fs::fchmod(&file, 0o600.into())?;
        let meta = file.metadata()?;
        io::Result::Ok((meta.ctime(), meta.ctime_nsec()))
    };
    loop {
        let started = now();
        let (first, second) = (change()?, change()?);
        // if the clock went on meanwhile, that they differ says nothing
        if now() == started {
            return Ok(first != second);
        }
    }
}

/// By the clock of change times that stands still.
fn now() -> Moment {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;
    use std::process::Command;

    use super::*;
    use crate::image::delta::delta;

    /// What is known of a tree of two files of the same size and time, after something was done to it.
    fn known_after(act: impl FnOnce(&Path)) -> Vec<String> {
        let tree = tempfile::tempdir().unwrap();
        let mut verified = Verified::on(tree.path()).unwrap();
        for name in ["a", "b"] {
            let path = tree.path().join(name);
            fs::write(&path, name).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            verified.note(&rustix::fs::lstat(&path).unwrap(), Digest::of(name));
        }
        verified.settle();
        act(tree.path());
        let delta = delta(tree.path(), &[], &|_| None).unwrap();
        let known = verified.contents(tree.path(), &delta).unwrap();
        for (path, digest) in &known {
            assert_eq!(*digest, Digest::of(fs::read(tree.path().join(path)).unwrap()), "{}", path.display());
        }
        let mut names: Vec<String> = known.into_keys().map(|path| path.display().to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_done_to_a_file_is_seen_whatever_time_it_has() {
        let sh = |script: &'static str| {
            move |tree: &Path| {
                let mut sh = Command::new("sh");
                assert!(sh.args(["-euc", script]).current_dir(tree).status().unwrap().success());
            }
        };
        assert_eq!(known_after(|_| ()), ["a", "b"]);
        assert_eq!(known_after(sh("cat a b > /dev/null; cp a c")), ["a", "b"]);
        assert_eq!(known_after(sh("mkdir d; mv b d; mv d e")), ["a"]);
        assert_eq!(known_after(sh("printf x > a; touch -d @0 a")), ["b"]);
        assert_eq!(known_after(sh("cp -p a x; printf x > x; touch -d @0 x; mv x a")), ["b"]);
        assert_eq!(known_after(sh("ln a x; printf x > x; rm x; touch -d @0 a")), ["b"]);
        assert!(known_after(sh("mv a x; mv b a; mv x b")).is_empty());
        // a mapping tells inotify nothing
        let map = "python3 -c 'import mmap, os; f = open(\"a\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0] = 120'";
        assert_eq!(known_after(move |tree| sh(map)(tree)), ["b"]);
    }

    /// With a kernel whose clock of change times stands still, for the waiting alone; else because none is needed.
    #[test]
    fn a_change_right_after_is_seen() {
        for _ in 0..200 {
            let write = |tree: &Path| {
                OpenOptions::new().write(true).open(tree.join("a")).unwrap().write_all(b"x").unwrap();
            };
            assert_eq!(known_after(write), ["b"]);
        }
    }
}
