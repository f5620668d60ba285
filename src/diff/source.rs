//! Where package sets come from.
//!
//! A lockfile has the packages of one layer only. All that an image of it has can be told if the lockfiles of
//! the layers below are beside it and still what it was solved on (its `parent` digest).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::image;
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::image::opened::Opened;
use crate::image::reference::Reference;
use crate::ledger::{self, Ledger};
use crate::lock::{self, Lockfile, installed, packages_digest};
use crate::pkglist::PackageSet;
use crate::rpmdb::{self, Rpmdb};

/// Something that has packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A lockfile.
    Lockfile(PathBuf),
    /// A package list as images carry it.
    MetaJson(PathBuf),
    /// An rpmdb, of any format.
    Rpmdb(PathBuf),
    /// An unpacked image.
    Rootfs(PathBuf),
    /// An image.
    Image(Reference),
}

impl Source {
    /// What `text` names: a file (`*.toml` a lockfile, `*.json` a package list, any other an rpmdb), the
    /// directory of an unpacked image, or else an image.
    pub fn find(text: &str) -> Result<Self> {
        let path = Path::new(text);
        if path.is_file() {
            let kind = match path.extension().and_then(|e| e.to_str()) {
                Some("toml") => Self::Lockfile,
                Some("json") => Self::MetaJson,
                _ => Self::Rpmdb,
            };
            return Ok(kind(path.to_owned()));
        }
        if path.is_dir() {
            return Ok(Self::Rootfs(path.to_owned()));
        }
        text.parse().map(Self::Image).hint(
            format!(
                "finding the packages of `{text}`: there is no such file or directory, and it names no image"
            ),
            "name a lockfile, an rpmdb, a meta.json, the directory of an unpacked image, or an image",
        )
    }

    /// All packages; none for a lockfile without its layers below.
    fn packages(&self, open: &impl Fn(&Reference) -> Result<Opened>) -> Result<Option<PackageSet>> {
        match self {
            Self::Lockfile(path) => {
                let chain =
                    chain(path).with_context(|| format!("finding the layers below {}", path.display()))?;
                chain.map(|chain| PackageSet::of_lockfiles(&chain)).transpose()
            }
            Self::MetaJson(path) => {
                let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                PackageSet::from_json(&bytes).with_context(|| format!("reading {}", path.display())).map(Some)
            }
            Self::Rpmdb(path) => in_rpmdb(path).map(Some),
            Self::Rootfs(path) => in_rpmdb(&rpmdb::below(path)?).map(Some),
            Self::Image(reference) => image::attached_or_own(&open(reference)?).map(Some),
        }
    }

    /// The ids that a lockfile keeps, with those of the layers below unless its own are all that is wanted.
    fn ledger(&self, own_only: bool) -> Result<Option<Ledger>> {
        let Self::Lockfile(path) = self else { return Ok(None) };
        match chain(path)?.filter(|_| !own_only) {
            Some(chain) => lock::ledger(&chain).map(Some),
            None => Ok(Some(read_lockfile(path)?.ledger())),
        }
    }

    /// The packages of a lockfile's own layer.
    fn own_packages(&self) -> Result<PackageSet> {
        match self {
            Self::Lockfile(path) => Ok(PackageSet::of_layer(&read_lockfile(path)?)),
            Self::MetaJson(_) | Self::Rpmdb(_) | Self::Rootfs(_) | Self::Image(_) => Err(hinted(
                "comparing a lockfile with what is more than a layer",
                "put the lockfiles of the layers below, as it was solved on them, beside the lockfile",
            )),
        }
    }
}

/// What of two sources can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The old set.
    pub from: PackageSet,
    /// The new set.
    pub to: PackageSet,
    /// Both are lockfiles, and only their own layers are compared: the layers below one of them are not there.
    pub own_layers_only: bool,
    /// How the ids that the two keep differ, if both are lockfiles.
    pub ids: Vec<ledger::Change>,
}

/// Reads both sides of a comparison. `open` opens images.
pub fn pair(from: &Source, to: &Source, open: impl Fn(&Reference) -> Result<Opened>) -> Result<Pair> {
    let (packages, own_layers_only) = match (from.packages(&open)?, to.packages(&open)?) {
        (Some(from), Some(to)) => ((from, to), false),
        _ => ((from.own_packages()?, to.own_packages()?), true),
    };
    let ids = match (from.ledger(own_layers_only)?, to.ledger(own_layers_only)?) {
        (Some(from), Some(to)) => ledger::changes(&from, &to),
        _ => Vec::new(),
    };
    Ok(Pair { from: packages.0, to: packages.1, own_layers_only, ids })
}

fn in_rpmdb(path: &Path) -> Result<PackageSet> {
    Ok(Rpmdb::open_read_only(path)?.nevras()?.into_iter().collect())
}

/// The locks from the bottom layer up to `path`, if those below are beside it.
fn chain(path: &Path) -> Result<Option<Vec<Lockfile>>> {
    let top = read_lockfile(path)?;
    let beside =
        lockfiles_beside(path)?.iter().map(|file| read_lockfile(file)).collect::<Result<Vec<_>>>()?;
    let mut waiting: Vec<_> = beside.into_iter().filter(|lock| lock.layer != top.layer).collect();
    // every chain found so far, by the digest a lock on top of it has as its parent
    let mut chains: BTreeMap<Option<Digest>, Vec<Lockfile>> = [(None, Vec::new())].into();
    loop {
        if let Some(below) = chains.remove(&top.parent) {
            return Ok(Some(below.into_iter().chain([top]).collect()));
        }
        let Some(next) = waiting.iter().position(|lock| chains.contains_key(&lock.parent)) else {
            return Ok(None);
        };
        let lock = waiting.swap_remove(next);
        let chain: Vec<Lockfile> = chains[&lock.parent].iter().cloned().chain([lock]).collect();
        let digest = packages_digest(&installed(&chain.iter().collect::<Vec<_>>()));
        chains.insert(Some(digest), chain);
    }
}

/// The lockfiles of the same architecture in the same directory, sorted by name.
fn lockfiles_beside(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((_, suffix)) = name.split_once('.') else { return Ok(Vec::new()) };
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let file = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        let other = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('.'));
        if other.is_some_and(|(_, s)| s == suffix) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_lockfile(path: &Path) -> Result<Lockfile> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Lockfile::parse(&text, path)
}
