//! Whether a lock still holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{Lockfile, Update, installed, matching, packages_digest, path, request_digest, required};
use crate::digest::Digest;
use crate::error::hinted;
use crate::plan::{Base, Layer, Plan};
use crate::repo::RepoPackage;

/// Why a lock does not do as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stale {
    /// There was none.
    Missing,
    /// The manifest asks for something else.
    Request,
    /// The layers below have other packages.
    Parent,
    /// They have the same packages, for other reasons.
    Below,
    /// The local RPM of the override of this package is another one.
    Local(String),
    /// An update was asked for.
    Update,
    /// The architectures have different builds of this source package, which the stream forbids.
    Builds(String),
    /// Another architecture is solved, and the stream asks that all have the same builds.
    Together,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there was no lock"),
            Self::Request => f.write_str("the manifest asks for something else"),
            Self::Parent => f.write_str("the layers below have other packages"),
            Self::Below => f.write_str("the lock below is another one, of the same packages"),
            Self::Local(package) => write!(f, "the local RPM of {package} is another one"),
            Self::Update => f.write_str("an update was asked for"),
            Self::Builds(source) => write!(f, "the architectures have different builds of {source}"),
            Self::Together => f.write_str("another architecture is locked again"),
        }
    }
}

/// What a lock answers, as it records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    /// Digest of the package request.
    pub manifest: Digest,
    /// Digest of the packages of the layers below; absent for the bottom layer.
    pub parent: Option<Digest>,
    /// Digest of the lock below; absent if that is no layer.
    pub parent_lock: Option<Digest>,
    /// Digest of the image below; absent if that is none.
    pub parent_image: Option<Digest>,
}

impl Inputs {
    /// What the lock of `layer` on top of `chain`, bottom first, has to answer today.
    pub fn of(plan: &Plan, layer: &Layer, chain: &[&Lockfile]) -> Self {
        let parent = (layer.from != Base::Scratch).then(|| packages_digest(&installed(chain)));
        let (parent_lock, parent_image) = match &layer.from {
            Base::Scratch => (None, None),
            Base::Layer(_) => (chain.last().map(|below| below.digest()), None),
            Base::Image(image) => (None, image.digest),
        };
        Self { manifest: request_digest(plan, layer), parent, parent_lock, parent_image }
    }
}

/// The lock of a layer for a build, on top of the locks `below`, bottom first: it must be there, and answer what
/// the manifest asks today.
pub fn current(plan: &Plan, layer: &Layer, below: &[Lockfile], lockfiles: &Path) -> Result<Lockfile> {
    let lock = required(plan, layer, lockfiles)?;
    let chain: Vec<&Lockfile> = below.iter().collect();
    let inputs = Inputs::of(plan, layer, &chain);
    let reason = stale(Some(&lock), inputs, &BTreeMap::new(), &Update::Nothing);
    // why the layers below have their packages is nothing to a build
    let Some(reason) = reason.filter(|reason| *reason != Stale::Below) else {
        let chain: Vec<&Lockfile> = chain.into_iter().chain([&lock]).collect();
        matching::check(&layer.name, &plan.stream.match_evr, &installed(&chain), &[])?;
        return Ok(lock);
    };
    let stream = &plan.stream.name;
    let file = path(lockfiles, stream, &layer.name, plan.stream.arch);
    Err(hinted(
        format!("{} is out of date: {reason}", file.display()),
        format!("run `strata lock {stream}` and review what it changes"),
    ))
}

/// Why a lock has to be solved, if it has to.
pub(super) fn stale(
    previous: Option<&Lockfile>,
    inputs: Inputs,
    local: &BTreeMap<PathBuf, RepoPackage>,
    update: &Update,
) -> Option<Stale> {
    let Some(lock) = previous else { return Some(Stale::Missing) };
    let is_locked = |package: &RepoPackage| {
        let mut named = lock.packages.iter().filter(|locked| locked.name == package.nevra.name).peekable();
        // not in the lock at all: the override was of no use then, and is not now
        named.peek().is_none() || named.any(|locked| locked.sha256 == package.sha256)
    };
    if lock.manifest != inputs.manifest {
        return Some(Stale::Request);
    }
    if lock.parent != inputs.parent {
        return Some(Stale::Parent);
    }
    if let Some(package) = local.values().find(|package| !is_locked(package)) {
        return Some(Stale::Local(package.nevra.name.clone()));
    }
    let wanted = match update {
        Update::Nothing => false,
        Update::Everything => true,
        Update::Advised(_) => true,
        Update::Packages(names) | Update::Repair(names) => {
            lock.packages.iter().any(|package| names.contains(&package.name))
        }
    };
    if wanted {
        return Some(Stale::Update);
    }
    // a lock of before there was this key holds as it is
    let is_another = lock.parent_lock.is_some() && lock.parent_lock != inputs.parent_lock;
    is_another.then_some(Stale::Below)
}
