//! Bringing locks up to date.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    Action, Installed, LockedPackage, LockedRepo, Lockfile, installed, packages_digest, path, read,
    request_digest,
};
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::package::{Evr, Nevra};
use crate::plan::{self, Base, Layer, OverrideTo, Plan};
use crate::progress::Progress;
use crate::repo::{RepoMetadata, RepoPackage};
use crate::resolve::{self, Change, Effect, Parent, Request, Source};

/// Where metadata come from: repositories, the store, local files.
pub trait Metadata {
    /// The newest metadata of a repository.
    fn newest(&self, repo: &plan::Repo) -> Result<RepoMetadata>;
    /// Completes the file lists of a repository's packages.
    fn filelists(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()>;
    /// The metadata a repository had when its repomd.xml had this digest, if they are still at hand.
    fn recorded(&self, repo: &plan::Repo, repomd: &Digest) -> Result<Option<RepoMetadata>>;
    /// A locked package that no metadata at hand list.
    fn locked(&self, plan: &Plan, package: &LockedPackage) -> Result<RepoPackage>;
    /// A local RPM, its location below the manifests' directory.
    fn local(&self, file: &Path) -> Result<RepoPackage>;
}

/// What may change in a lock that still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    Nothing,
    /// Packages of these names.
    Packages(BTreeSet<String>),
    /// Everything.
    Everything,
}

/// A layer's lock, kept or new.
#[derive(Clone, Debug)]
pub struct LayerLock {
    /// The lock that holds now.
    pub lock: Lockfile,
    /// The one that was there before.
    pub previous: Option<Lockfile>,
    /// Why it was solved; it was kept when absent.
    pub solved: Option<Stale>,
}

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
    /// The local RPM of the override of this package is another one.
    Local(String),
    /// An update was asked for.
    Update,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there was no lock"),
            Self::Request => f.write_str("the manifest asks for something else"),
            Self::Parent => f.write_str("the layers below have other packages"),
            Self::Local(package) => write!(f, "the local RPM of {package} is another one"),
            Self::Update => f.write_str("an update was asked for"),
        }
    }
}

/// How the packages of two locks of a layer differ, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Entries that are new.
    pub added: Vec<Nevra>,
    /// Entries whose EVR, content or action is another: name, architecture, old EVR, new EVR.
    pub changed: Vec<(String, String, Evr, Evr)>,
    /// Entries that are gone.
    pub removed: Vec<Nevra>,
}

/// Compares the package tables of two locks; without an old one everything is added.
pub fn difference(old: Option<&Lockfile>, new: &Lockfile) -> Difference {
    let mut left: Vec<&LockedPackage> = old.map(|lock| lock.packages.iter().collect()).unwrap_or_default();
    let mut difference = Difference::default();
    let mut unmatched = Vec::new();
    for package in &new.packages {
        let same = |old: &&LockedPackage| {
            old.nevra() == package.nevra() && old.sha256 == package.sha256 && old.action == package.action
        };
        match left.iter().position(same) {
            Some(index) => drop(left.remove(index)),
            None => unmatched.push(package),
        }
    }
    for package in unmatched {
        let counterpart = left.iter().position(|old| old.name == package.name && old.arch == package.arch);
        match counterpart.map(|index| left.remove(index)) {
            Some(old) => {
                let (name, arch) = (package.name.clone(), package.arch.clone());
                difference.changed.push((name, arch, old.evr.clone(), package.evr.clone()));
            }
            None => difference.added.push(package.nevra()),
        }
    }
    difference.removed = left.into_iter().map(LockedPackage::nevra).collect();
    difference
}

/// Brings the locks of `layers` up to date, bottom first; writes nothing.
///
/// A lock that holds is kept without looking at any repository, unless an update is asked for. The locks of
/// layers below that are not named are taken as they are.
pub fn lock(
    plan: &Plan,
    layers: &[&str],
    lockfiles: &Path,
    update: &Update,
    metadata: &dyn Metadata,
    progress: &dyn Progress,
) -> Result<Vec<LayerLock>> {
    let mut run = Run { plan, update, metadata, progress, repos: BTreeMap::new(), complete: BTreeSet::new() };
    let mut locks: BTreeMap<&str, Lockfile> = BTreeMap::new();
    let mut done = Vec::new();
    let needed: BTreeSet<&str> =
        layers.iter().flat_map(|name| plan.stack(name)).map(|layer| layer.name.as_str()).collect();
    check_update(plan, &needed, lockfiles, update)?;
    for layer in plan.layers.iter().filter(|layer| needed.contains(layer.name.as_str())) {
        let previous = read(lockfiles, &plan.stream.name, &layer.name, plan.stream.arch)?;
        if !layers.contains(&layer.name.as_str()) {
            let lock = previous.ok_or_else(|| unlocked_below(plan, layer))?;
            locks.insert(&layer.name, lock);
            continue;
        }
        let stack = plan.stack(&layer.name);
        let chain: Vec<&Lockfile> = stack.iter().filter_map(|below| locks.get(below.name.as_str())).collect();
        let result = run.layer(layer, &chain, previous)?;
        locks.insert(&layer.name, result.lock.clone());
        done.push(result);
    }
    Ok(done)
}

/// The lock of a layer for a build, on top of the locks `below`, bottom first: it must be there, and answer what
/// the manifest asks today.
pub fn current(plan: &Plan, layer: &Layer, below: &[Lockfile], lockfiles: &Path) -> Result<Lockfile> {
    let (stream, arch) = (&plan.stream.name, plan.stream.arch);
    let previous = read(lockfiles, stream, &layer.name, arch)?;
    let chain: Vec<&Lockfile> = below.iter().collect();
    let parent = matches!(layer.from, Base::Layer(_)).then(|| packages_digest(&installed(&chain)));
    let manifest = request_digest(plan, layer);
    match (stale(previous.as_ref(), manifest, parent, &BTreeMap::new(), &Update::Nothing), previous) {
        (None, Some(lock)) => Ok(lock),
        (stale, _) => {
            let reason = stale.map(|stale| stale.to_string()).unwrap_or_default();
            let file = path(lockfiles, stream, &layer.name, arch);
            let advice = format!("run `strata lock {stream}` and review what it changes");
            Err(hinted(format!("{} is out of date: {reason}", file.display()), advice))
        }
    }
}

fn unlocked_below(plan: &Plan, layer: &Layer) -> anyhow::Error {
    let (stream, name, arch) = (&plan.stream.name, &layer.name, plan.stream.arch);
    hinted(
        format!("the {name} layer below is not locked for {arch}"),
        format!("run `strata lock {stream} {name}` first"),
    )
}

/// A name that is in no lock is a mistake.
fn check_update(plan: &Plan, layers: &BTreeSet<&str>, lockfiles: &Path, update: &Update) -> Result<()> {
    let Update::Packages(wanted) = update else { return Ok(()) };
    let mut known = BTreeSet::new();
    for layer in layers {
        let lock = read(lockfiles, &plan.stream.name, layer, plan.stream.arch)?;
        known.extend(lock.into_iter().flat_map(|lock| lock.packages).map(|package| package.name));
    }
    let Some(name) = wanted.difference(&known).next() else { return Ok(()) };
    let likeness = |known: &str| strsim::jaro_winkler(known, name);
    let near = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)).then_with(|| b.cmp(a)));
    let advice =
        near.map_or_else(|| "nothing is locked yet".to_owned(), |near| format!("did you mean `{near}`?"));
    Err(hinted(format!("no layer has `{name}` locked, so it cannot be updated"), advice))
}

struct Run<'r> {
    plan: &'r Plan,
    update: &'r Update,
    metadata: &'r dyn Metadata,
    progress: &'r dyn Progress,
    /// Metadata loaded so far, by repository id.
    repos: BTreeMap<String, RepoMetadata>,
    /// Those of them with complete file lists.
    complete: BTreeSet<String>,
}

impl Run<'_> {
    fn layer(&mut self, layer: &Layer, chain: &[&Lockfile], previous: Option<Lockfile>) -> Result<LayerLock> {
        if let Base::Image(image) = &layer.from {
            return Err(hinted(
                format!(
                    "the {} layer stands on {image}: locking on top of an image is not supported",
                    layer.name
                ),
                "stand on a layer of the stream",
            ));
        }
        let manifest = request_digest(self.plan, layer);
        let parent = matches!(layer.from, Base::Layer(_)).then(|| packages_digest(&installed(chain)));
        let local = self.local(layer)?;
        let stale = stale(previous.as_ref(), manifest, parent, &local, self.update);
        match (stale, previous) {
            (None, Some(lock)) => Ok(LayerLock { lock: lock.clone(), previous: Some(lock), solved: None }),
            (stale, previous) => {
                let favored = self.favored(previous.as_ref());
                let lock =
                    self.solve(layer, chain, &local, &favored, (manifest, parent)).with_context(|| {
                        format!(
                            "locking {}/{} for {}",
                            self.plan.stream.name, layer.name, self.plan.stream.arch
                        )
                    })?;
                Ok(LayerLock { lock, previous, solved: stale })
            }
        }
    }

    fn local(&self, layer: &Layer) -> Result<BTreeMap<PathBuf, RepoPackage>> {
        let mut local = BTreeMap::new();
        for entry in &layer.packages.overrides {
            let OverrideTo::File(file) = &entry.value.to else { continue };
            let package = self.metadata.local(file).with_context(|| {
                format!(
                    "reading {}, which {} overrides `{}` with",
                    file.display(),
                    entry.origin,
                    entry.value.package
                )
            })?;
            if package.nevra.name != entry.value.package {
                return Err(hinted(
                    format!(
                        "{} overrides `{}` with {}, which is {}",
                        entry.origin,
                        entry.value.package,
                        file.display(),
                        package.nevra
                    ),
                    "write an override for each package",
                ));
            }
            local.insert(file.clone(), package);
        }
        Ok(local)
    }

    fn favored(&self, previous: Option<&Lockfile>) -> BTreeSet<Nevra> {
        match (self.update, previous) {
            (Update::Everything, _) | (_, None) => BTreeSet::new(),
            (_, Some(lock)) => lock.packages.iter().map(LockedPackage::nevra).collect(),
        }
    }

    fn solve(
        &mut self,
        layer: &Layer,
        chain: &[&Lockfile],
        local: &BTreeMap<PathBuf, RepoPackage>,
        favored: &BTreeSet<Nevra>,
        (manifest, parent): (Digest, Option<Digest>),
    ) -> Result<Lockfile> {
        let parents = installed(chain);
        let below = parents.iter().map(|i| i.package.repo.as_str()).filter(|repo| *repo != "file");
        let repos: BTreeSet<&str> = layer.packages.repos.iter().map(String::as_str).chain(below).collect();
        self.load(&repos)?;
        let mut known = self.parents(&parents, &self.recorded(&parents, chain, false)?)?;
        let every = self.packages(&repos).chain(known.iter().map(|p| &p.package)).chain(local.values());
        if resolve::needs_filelists(&layer.packages, every) {
            self.complete(&repos)?;
            known = self.parents(&parents, &self.recorded(&parents, chain, true)?)?;
        }
        let nothing = BTreeSet::new();
        let update = if let Update::Packages(names) = self.update { names } else { &nothing };
        let chosen: Vec<&RepoMetadata> =
            layer.packages.repos.iter().filter_map(|id| self.repos.get(id)).collect();
        let request = Request {
            arch: self.plan.stream.arch,
            repos: &chosen,
            parents: &known,
            packages: &layer.packages,
            local,
            favored,
            update,
        };
        let solution = match resolve::solve(&request) {
            Err(resolve::Error::Unsatisfiable(error)) => {
                let advice = error.advice();
                let message = format!("the {} layer cannot be solved", layer.name);
                return match advice.is_empty() {
                    true => Err(error).context(message),
                    false => Err(error).hint(message, advice),
                };
            }
            other => other?,
        };
        for entry in &solution.unused_overrides {
            let package = &entry.value.package;
            self.progress
                .warn(&format!("{}: nothing installs `{package}`, so it is not overridden", entry.origin));
        }
        let mut repos: Vec<LockedRepo> = chosen.iter().map(|repo| locked_repo(repo)).collect();
        repos.sort_by(|a, b| a.id.cmp(&b.id));
        let lock = Lockfile {
            version: 1,
            stream: self.plan.stream.name.clone(),
            layer: layer.name.clone(),
            arch: self.plan.stream.arch,
            manifest,
            parent,
            repos,
            packages: solution.changes.iter().map(locked_package).collect(),
        };
        lock.check()?;
        Ok(lock)
    }

    fn load(&mut self, ids: &BTreeSet<&str>) -> Result<()> {
        for id in ids {
            if !self.repos.contains_key(*id) {
                // a repository packages below are from may have left the stream since
                let Some(repo) = self.plan.stream.repos.get(*id) else { continue };
                self.repos.insert((*id).to_owned(), self.metadata.newest(repo)?);
            }
        }
        Ok(())
    }

    fn complete(&mut self, ids: &BTreeSet<&str>) -> Result<()> {
        for id in ids {
            let Some(repo) = self.plan.stream.repos.get(*id) else { continue };
            let Some(metadata) = self.repos.get_mut(*id) else { continue };
            if self.complete.insert((*id).to_owned()) {
                self.metadata.filelists(repo, metadata)?;
            }
        }
        Ok(())
    }

    fn packages(&self, ids: &BTreeSet<&str>) -> impl Iterator<Item = &RepoPackage> {
        ids.iter().filter_map(|id| self.repos.get(*id)).flat_map(|metadata| &metadata.packages)
    }

    /// What repositories offered when the layers below were locked, if they have dropped any package since.
    fn recorded(
        &self,
        parents: &[Installed],
        chain: &[&Lockfile],
        complete: bool,
    ) -> Result<Vec<RepoMetadata>> {
        let listed: HashSet<Digest> = self.digests().map(|(digest, _)| digest).collect();
        let is_listed = |i: &Installed| i.package.sha256.is_some_and(|digest| listed.contains(&digest));
        let dropped = |id: &str| parents.iter().any(|i| i.package.repo == id && !is_listed(i));
        let mut recorded = Vec::new();
        for locked in chain.iter().flat_map(|lock| &lock.repos).filter(|repo| dropped(&repo.id)) {
            let Some(repo) = self.plan.stream.repos.get(&locked.id) else { continue };
            let Some(mut metadata) = self.metadata.recorded(repo, &locked.repomd)? else { continue };
            // file lists that are gone from the repository are no loss: the packages themselves have them
            if !complete || self.metadata.filelists(repo, &mut metadata).is_ok() {
                recorded.push(metadata);
            }
        }
        Ok(recorded)
    }

    fn digests(&self) -> impl Iterator<Item = (Digest, &RepoPackage)> {
        by_digest(self.repos.values())
    }

    /// The packages of the layers below as the solver needs them: from any metadata that list the very file,
    /// else from the package.
    fn parents(&self, parents: &[Installed], recorded: &[RepoMetadata]) -> Result<Vec<Parent>> {
        let listed: HashMap<Digest, &RepoPackage> = by_digest(recorded).chain(self.digests()).collect();
        let known = |installed: &Installed| {
            let digest = installed.package.sha256;
            let package = match digest.and_then(|digest| listed.get(&digest)) {
                Some(package) => (*package).clone(),
                None => self.metadata.locked(self.plan, &installed.package)?,
            };
            Ok(Parent { layer: installed.layer.clone(), package })
        };
        parents.iter().map(known).collect()
    }
}

fn by_digest<'m>(
    repos: impl IntoIterator<Item = &'m RepoMetadata>,
) -> impl Iterator<Item = (Digest, &'m RepoPackage)> {
    let packages = repos.into_iter().flat_map(|metadata| &metadata.packages);
    packages.filter_map(|package| Some((package.sha256?, package)))
}

/// Why a lock has to be solved, if it has to.
fn stale(
    previous: Option<&Lockfile>,
    manifest: Digest,
    parent: Option<Digest>,
    local: &BTreeMap<PathBuf, RepoPackage>,
    update: &Update,
) -> Option<Stale> {
    let Some(lock) = previous else { return Some(Stale::Missing) };
    let is_locked = |package: &RepoPackage| {
        let mut named = lock.packages.iter().filter(|locked| locked.name == package.nevra.name).peekable();
        // not in the lock at all: the override was of no use then, and is not now
        named.peek().is_none() || named.any(|locked| locked.sha256 == package.sha256)
    };
    if lock.manifest != manifest {
        return Some(Stale::Request);
    }
    if lock.parent != parent {
        return Some(Stale::Parent);
    }
    if let Some(package) = local.values().find(|package| !is_locked(package)) {
        return Some(Stale::Local(package.nevra.name.clone()));
    }
    let wanted = match update {
        Update::Nothing => false,
        Update::Everything => true,
        Update::Packages(names) => lock.packages.iter().any(|package| names.contains(&package.name)),
    };
    wanted.then_some(Stale::Update)
}

fn locked_repo(metadata: &RepoMetadata) -> LockedRepo {
    LockedRepo { id: metadata.id.clone(), revision: metadata.revision, repomd: metadata.repomd }
}

fn locked_package(change: &Change) -> LockedPackage {
    let package = change.package;
    let mut locked = LockedPackage {
        name: package.nevra.name.clone(),
        evr: package.nevra.evr.clone(),
        arch: package.nevra.arch.clone(),
        repo: String::new(),
        location: String::new(),
        sha256: None,
        size: 0,
        source: String::new(),
        why: change.why.to_string(),
        action: Action::Remove,
        replaces: None,
    };
    (locked.action, locked.replaces) = match change.effect {
        Effect::Install => (Action::Install, None),
        Effect::Replace(old) => (Action::Upgrade, Some(old.clone())),
        Effect::Remove => return locked,
    };
    locked.repo = match change.source {
        Source::Repo(id) => id.to_owned(),
        Source::File(_) | Source::Layer(_) => "file".to_owned(),
    };
    locked.location = package.location.clone();
    locked.sha256 = package.sha256;
    locked.size = package.size;
    locked.source = package.source.clone();
    locked
}
