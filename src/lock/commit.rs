//! Writing locks together or not at all, whatever happens in between.
//!
//! ```text
//! LOCKFILES/STREAM/
//!   .new/LAYER.ARCH.toml       being written: of no meaning to anybody
//!   .complete/LAYER.ARCH.toml  written and synced: being moved up
//!   LAYER.ARCH.toml
//! ```
//!
//! The rename of `.new` to `.complete` decides. Before it every lock is the old one; a `.new` that an
//! interruption or a full disk left is thrown away. After it the locks are the new ones, as soon as whoever comes
//! next has moved the rest: `strata lock` does, and readers refuse until then.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::{Lockfile, path};
use crate::replace::beside;

const NEW: &str = ".new";
const COMPLETE: &str = ".complete";

/// Writes locks of a stream to their places below `lockfiles`: all of them, or none on failure.
pub fn write<'l>(
    lockfiles: &Path,
    stream: &str,
    locks: impl IntoIterator<Item = &'l Lockfile>,
) -> Result<()> {
    let mut locks = locks.into_iter().peekable();
    if locks.peek().is_none() {
        return Ok(());
    }
    let dir = lockfiles.join(stream);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let _alone = alone(&dir)?;
    move_up(&dir)?;
    let new = dir.join(NEW);
    let staged = stage(&new, locks);
    if let Err(error) = staged {
        // best effort: what is left is thrown away by the next who writes
        let _ = fs::remove_dir_all(&new);
        return Err(error).with_context(|| format!("writing the lockfiles in {}", dir.display()));
    }
    fs::rename(&new, dir.join(COMPLETE))
        .and_then(|()| sync(&dir))
        .with_context(|| format!("writing the lockfiles in {}", dir.display()))?;
    move_up(&dir)
}

/// Whether writing the locks of a stream was interrupted when it was decided already.
pub fn is_interrupted(lockfiles: &Path, stream: &str) -> bool {
    lockfiles.join(stream).join(COMPLETE).exists()
}

/// Completes an interrupted [`write()`], if there was one.
pub fn finish(lockfiles: &Path, stream: &str) -> Result<()> {
    match is_interrupted(lockfiles, stream) {
        true => {
            let dir = lockfiles.join(stream);
            let _alone = alone(&dir)?;
            move_up(&dir)
        }
        false => Ok(()),
    }
}

/// Waits until nobody else writes locks of the stream; until it is dropped, nobody does.
fn alone(dir: &Path) -> Result<File> {
    let context = || format!("waiting for others that write to {}", dir.display());
    let handle = File::open(dir).with_context(context)?;
    flock(&handle, FlockOperation::LockExclusive).with_context(context)?;
    Ok(handle)
}

fn stage<'l>(new: &Path, locks: impl Iterator<Item = &'l Lockfile>) -> Result<()> {
    match fs::remove_dir_all(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir(new)?,
    }
    for lock in locks {
        let name: PathBuf = path(new, "", &lock.layer, lock.arch);
        let mut file = File::create(&name)?;
        file.write_all(lock.to_toml().as_bytes())?;
        file.sync_all()?;
    }
    Ok(sync(new)?)
}

fn move_up(dir: &Path) -> Result<()> {
    let complete = dir.join(COMPLETE);
    let context = || format!("moving lockfiles up from {}", complete.display());
    let entries = match fs::read_dir(&complete) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(context),
    };
    for entry in entries {
        let entry = entry.with_context(context)?;
        let target = dir.join(entry.file_name());
        // what a build left that was killed when it wrote here
        drop(beside(&target)?);
        fs::rename(entry.path(), target).with_context(context)?;
    }
    sync(dir).and_then(|()| fs::remove_dir(&complete)).with_context(context)
}

fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::read;
    use crate::package::Arch;

    fn lock(layer: &str, manifest: &str) -> Lockfile {
        Lockfile {
            version: 1,
            stream: "s".into(),
            layer: layer.into(),
            arch: Arch::X86_64,
            manifest: crate::digest::Digest::of(manifest),
            parent: None,
            parent_lock: None,
            parent_image: None,
            repos: vec![],
            packages: vec![],
            users: vec![],
            groups: vec![],
        }
    }

    /// A writer that is killed after each of its steps leaves all of the old locks, or what becomes all of the new.
    #[test]
    fn an_interruption_leaves_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (lockfiles, stream) = (dir.path(), dir.path().join("s"));
        let is = |manifest: &str| {
            let read = |layer| read(lockfiles, "s", layer, Arch::X86_64).unwrap().unwrap();
            ["base", "top"].iter().all(|layer| read(layer) == lock(layer, manifest))
        };
        write(lockfiles, "s", &[lock("base", "1"), lock("top", "1")]).unwrap();
        assert!(is("1"));

        stage(&stream.join(NEW), [lock("base", "2")].iter()).unwrap();
        assert!(is("1") && !is_interrupted(lockfiles, "s"));
        write(lockfiles, "s", &[lock("base", "3"), lock("top", "3")]).unwrap();
        assert!(is("3") && !stream.join(NEW).exists());

        stage(&stream.join(NEW), [lock("base", "4"), lock("top", "4")].iter()).unwrap();
        fs::rename(stream.join(NEW), stream.join(COMPLETE)).unwrap();
        let told = read(lockfiles, "s", "base", Arch::X86_64).unwrap_err().to_string();
        assert!(told.ends_with("was interrupted while it was written"), "{told}");
        fs::rename(stream.join(".complete/top.x86_64.toml"), stream.join("top.x86_64.toml")).unwrap();
        finish(lockfiles, "s").unwrap();
        assert!(is("4") && fs::read_dir(&stream).unwrap().count() == 2);
    }

    #[test]
    fn a_failure_to_write_leaves_the_old_locks() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "s", &[lock("base", "1")]).unwrap();
        let error = write(dir.path(), "s", &[lock("base", "2"), lock("no/such/folder", "2")]).unwrap_err();
        assert!(error.to_string().starts_with("writing the lockfiles in "), "{error:#}");
        assert_eq!(read(dir.path(), "s", "base", Arch::X86_64).unwrap(), Some(lock("base", "1")));
        assert_eq!(fs::read_dir(dir.path().join("s")).unwrap().count(), 1);
    }
}
