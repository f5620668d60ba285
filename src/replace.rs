//! Replacing files outside the store: lockfiles, manifests, exports, archives.
//!
//! Readers see all of the old file or all of the new one. The new one is written beside the old, as `.NAME.new`: who is
//! killed at it leaves that file and no other, and the next writer takes it over. Nobody else would ever delete it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use tempfile::{NamedTempFile, TempPath};

use crate::store::persist;

/// Replaces what is at `target`.
pub fn replace(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = beside(target)?;
    file.write_all(bytes).with_context(|| format!("writing {}", target.display()))?;
    persist(file, target)
}

/// An empty file beside `target`, deleted when dropped; give it to [`persist`] when it is complete. Waits for others that
/// write there.
pub fn beside(target: &Path) -> Result<NamedTempFile> {
    open(&aside(target)).with_context(|| format!("writing {}", target.display()))
}

fn open(path: &Path) -> Result<NamedTempFile> {
    loop {
        // not through a link that somebody else put there
        let mut options = File::options();
        options.read(true).write(true).create(true).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = options.truncate(false).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        // whoever had it may have given it its final name, or deleted it
        if fs::symlink_metadata(path).is_ok_and(|there| there.ino() == file.metadata().map_or(0, |m| m.ino()))
        {
            file.set_len(0)?;
            return Ok(NamedTempFile::from_parts(file, TempPath::try_from_path(path)?));
        }
    }
}

/// `DIR/.NAME.new`
fn aside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_writer_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.toml");
        let left = dir.path().join(".a.toml.new");
        fs::write(&left, "longer than what comes next").unwrap();
        replace(&target, b"short").unwrap();
        assert_eq!(
            (names(dir.path()), fs::read(&target).unwrap()),
            (vec!["a.toml".into()], b"short".to_vec())
        );
        fs::write(&left, "left").unwrap();
        drop(beside(&target).unwrap());
        assert_eq!(names(dir.path()), ["a.toml"]);

        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &left).unwrap();
        let error = replace(&target, b"other").unwrap_err();
        assert!(
            error.to_string().starts_with("writing ") && fs::read(&elsewhere).unwrap() == b"kept",
            "{error:#}"
        );
    }

    #[test]
    fn writers_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let texts: Vec<Vec<u8>> = (0..8u8).map(|n| vec![b'a' + n; 1 << (10 + n)]).collect();
        std::thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| (0..20).for_each(|_| replace(&target, text).unwrap()));
            }
            for _ in 0..1000 {
                let found = fs::read(&target).unwrap_or_else(|_| texts[0].clone());
                assert!(texts.contains(&found), "{} bytes", found.len());
            }
        });
        assert_eq!(names(dir.path()), ["a"]);
    }
}
