//! The extracted files of a layer, on those of the layers below.
//!
//! ```text
//! layers/KEY/             or a directory below tmp/ while it is made
//!   tree/root/            the rootfs; of a derived layer only what it adds: an overlayfs upper directory
//!   tree/stage/           packages unpacked ahead of their turn; gone when the layer is done
//!   layer.json            what is below, and what went into it
//! ```
//!
//! `root` and `stage` are in one overlay mount, so that moving a file from one to the other is a rename.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::inputs::Parts;
use crate::digest::Digest;
use crate::image::delta::{Delta, Kind};
use crate::sandbox;
use crate::store::{self, Store};

const RECORD: &str = "layer.json";

/// What `layer.json` keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Key of the extracted layer below; none for a complete tree.
    below: Option<Digest>,
    /// What went into it; nothing is known of an image that was unpacked.
    #[serde(default)]
    inputs: Parts,
}

/// Opens the extracted layer `key` and all below it: their trees, top first; none if any is missing. They are used from
/// now on.
pub fn open(store: &Store, key: &Digest) -> Result<Option<Vec<PathBuf>>> {
    let mut trees = Vec::new();
    let mut next = Some(*key);
    while let Some(key) = next {
        let dir = store.layer(&key);
        let Some(record) = record(&dir)? else { return Ok(None) };
        if !store.take(&dir.join(RECORD))? {
            return Ok(None);
        }
        trees.push(dir.join("tree"));
        next = record.below;
    }
    Ok(Some(trees))
}

/// Keys of the extracted layers on which `key` is mounted, as far as they are there.
pub fn below(store: &Store, key: &Digest) -> Result<Vec<Digest>> {
    let mut keys = Vec::new();
    let mut next = record(&store.layer(key))?.and_then(|record| record.below);
    while let Some(key) = next {
        keys.push(key);
        next = record(&store.layer(&key))?.and_then(|record| record.below);
    }
    Ok(keys)
}

/// What went into the extracted layer `key`; none if it is not there.
pub fn inputs(store: &Store, key: &Digest) -> Result<Option<Parts>> {
    Ok(record(&store.layer(key))?.map(|record| record.inputs).filter(|inputs| !inputs.is_empty()))
}

/// What an extracted layer says of itself; none if it is not there.
fn record(dir: &Path) -> Result<Option<Record>> {
    let path = dir.join(RECORD);
    match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        bytes => bytes
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(Some(serde_json::from_slice(&bytes)?)))
            .with_context(|| format!("reading {}", path.display())),
    }
}

/// A tree being made. Dropped, it is unmounted and deleted.
pub struct WorkTree {
    dir: Option<TempDir>,
    below: Vec<PathBuf>,
    mounted: bool,
    /// The end of the mount: the kernel takes a while to forget every path that was looked at.
    ending: Option<JoinHandle<Result<()>>>,
}

impl WorkTree {
    /// Makes an empty tree on the trees `below`, top first.
    pub fn new(store: &Store, below: &[PathBuf]) -> Result<Self> {
        let dir = store.temp_dir("layer-")?;
        for name in ["tree", "work", "mount"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let mut tree = Self { dir: Some(dir), below: below.to_vec(), mounted: false, ending: None };
        if !below.is_empty() {
            let lower: Vec<&Path> = below.iter().map(PathBuf::as_path).collect();
            sandbox::mount_overlay(&lower, &tree.path("tree"), &tree.path("work"), &tree.path("mount"))?;
            tree.mounted = true;
        }
        Ok(tree)
    }

    /// Makes the directories that composing starts from.
    pub fn prepare(&self) -> Result<()> {
        for path in [self.root(), self.stage()] {
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    /// The rootfs, complete.
    pub fn root(&self) -> PathBuf {
        self.view().join("root")
    }

    /// Where packages are unpacked ahead of their turn.
    pub fn stage(&self) -> PathBuf {
        self.view().join("stage")
    }

    /// The layer's own files, to be read after [`WorkTree::unmount`].
    pub fn own(&self) -> PathBuf {
        self.path("tree").join("root")
    }

    /// The files of the layers below, top first.
    pub fn below(&self) -> Vec<PathBuf> {
        self.below.iter().map(|tree| tree.join("root")).collect()
    }

    /// Ends the work on the rootfs.
    pub fn unmount(&mut self) -> Result<()> {
        fs::remove_dir_all(self.stage()).context("removing the staging directory")?;
        if std::mem::take(&mut self.mounted) {
            let mount = self.path("mount");
            self.ending = Some(thread::spawn(move || sandbox::unmount(&mount)));
        }
        Ok(())
    }

    /// Waits until nothing is mounted any more.
    fn end(&mut self) -> Result<()> {
        let ending = self.ending.take().map(JoinHandle::join);
        ending.transpose().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).transpose().map(drop)
    }

    /// Gives the files the times they have in the image, so that scripts of the layers above see the same whether the
    /// tree was just made or extracted from the image.
    #[tracing::instrument(level = "info", skip_all)]
    pub fn settle_times(&mut self, delta: &Delta) -> Result<()> {
        self.end()?;
        let root = self.own();
        delta.changed.par_iter().filter(|(_, entry)| entry.kind != Kind::Whiteout).try_for_each(
            |(path, entry)| {
                let path = root.join(path);
                let time = Timespec { tv_sec: entry.mtime, tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .with_context(|| format!("setting the time of {}", path.display()))
            },
        )
    }

    /// Moves the finished tree into the store under `key`.
    #[tracing::instrument(level = "info", skip_all)]
    pub fn persist(
        mut self,
        store: &Store,
        key: &Digest,
        below: Option<Digest>,
        inputs: Parts,
    ) -> Result<()> {
        // `dir` is only taken here and in `keep`, which end the value
        let Some(dir) = self.dir.take() else { return Ok(()) };
        for name in ["work", "mount"] {
            remove_tree(&dir.path().join(name))?;
        }
        store::write_atomically(&dir.path().join(RECORD), &serde_json::to_vec(&Record { below, inputs })?)?;
        let target = store.layer(key);
        remove_tree(&target)?;
        fs::rename(dir.keep(), &target).with_context(|| format!("moving the layer to {}", target.display()))
    }

    /// Leaves everything as it is, for somebody to look into; gives the directory.
    pub fn keep(mut self) -> Option<PathBuf> {
        self.dir.take().map(TempDir::keep)
    }

    fn view(&self) -> PathBuf {
        self.path(if self.below.is_empty() { "tree" } else { "mount" })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().map(|dir| dir.path().join(name)).unwrap_or_default()
    }
}

impl Drop for WorkTree {
    fn drop(&mut self) {
        // a mount left behind ends with strata's mount namespace
        let _ = self.end();
        if self.mounted {
            let _ = sandbox::unmount(&self.path("mount"));
        }
    }
}

/// Removes a directory tree that may not exist.
fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
