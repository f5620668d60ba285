//! Bringing locks up to date.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reqwest::Url;

use super::format::VERSION;
use super::matching;
use super::overrides::{Notice, caught_up};
use super::stale::{Inputs, stale};
use super::update::nearest;
use super::{
    Action, Elsewhere, Installed, LockedPackage, LockedRepo, Lockfile, Stale, Unsolved, Update, installed,
    least, of_image, read, required, together,
};
use crate::digest::Digest;
use crate::error::{HintExt, hinted, similar};
use crate::image::reference::Reference;
use crate::package::{Nevra, source_name};
use crate::pkglist::PackageSet;
use crate::plan::{self, Layer, Override, OverrideTo, Plan, SameEvr, Sourced};
use crate::progress::Progress;
use crate::repo::comps::Comps;
use crate::repo::{Paths, RepoMetadata, RepoPackage};
use crate::resolve::{self, Change, Edit, Effect, Held, Parent, Request, Source, Unsatisfiable};

/// Where metadata come from: repositories, the store, local files.
pub trait Metadata {
    /// The newest metadata of repositories.
    fn newest(&self, repos: &[&plan::Repo]) -> Result<Vec<RepoMetadata>>;
    /// Reads the advisories of a repository.
    fn advisories(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()>;
    /// Adds the files called `paths` to the packages of repositories.
    fn filelists(&self, repos: &mut [(&plan::Repo, &mut RepoMetadata)], paths: &Paths) -> Result<()>;
    /// Reads the groups of a repository.
    fn comps(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()>;
    /// The metadata a repository had when its repomd.xml had this digest, if they are still at hand.
    fn recorded(&self, repo: &plan::Repo, repomd: &Digest) -> Result<Option<RepoMetadata>>;
    /// A locked package that no metadata at hand list.
    fn locked(&self, plan: &Plan, package: &LockedPackage) -> Result<RepoPackage>;
    /// The packages of an image.
    fn image(&self, plan: &Plan, image: &Reference) -> Result<PackageSet>;
    /// The packages of an image as its rpmdb has them.
    fn image_rpmdb(&self, plan: &Plan, image: &Reference) -> Result<Vec<RepoPackage>>;
    /// Where a locked package can still be had, if anywhere: `the store`, `repository ose`.
    fn whereabouts(&self, plan: &Plan, lock: &Lockfile, package: &LockedPackage) -> Option<String>;
    /// A local RPM, its location below the manifests' directory.
    fn local(&self, file: &Path) -> Result<RepoPackage>;
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
    /// The layer's overrides that would be of no use any more. What repositories have counts if it was solved.
    pub caught_up: Vec<Notice>,
}

/// Brings the locks of `layers` up to date, bottom first, for each of `plans`, which are those of one stream for
/// different architectures; writes nothing.
///
/// A lock that holds is kept without looking at any repository, unless an update is asked for. The locks of
/// layers below that are not named are taken as they are. The result is sorted by architecture, as `plans` are,
/// then in stack order.
pub fn lock(
    plans: &[Plan],
    layers: &[&str],
    lockfiles: &Path,
    update: &Update,
    metadata: &dyn Metadata,
    progress: &dyn Progress,
) -> Result<Vec<LayerLock>> {
    let same_evr = plans.first().and_then(|plan| plan.stream.same_evr.as_ref());
    // only what has to agree is solved side by side, so that the metadata of one architecture are in memory
    let side_by_side = if same_evr.is_some() { plans.len() } else { 1 };
    let mut done = Vec::new();
    for plans in plans.chunks(side_by_side) {
        let mut runs: Vec<Run> =
            plans.iter().map(|plan| Run::new(plan, update, metadata, progress)).collect();
        lock_stack(&mut runs, layers, lockfiles, same_evr)?;
        done.extend(runs.into_iter().flat_map(|run| run.done));
    }
    Ok(done)
}

/// What is there when a layer is.
#[derive(Clone, Debug)]
pub struct Present {
    /// Its packages and those of the layers below, with what they provide and require.
    pub packages: Vec<Parent>,
    /// The groups that its repositories and those of the layers below have, if any entry names one.
    pub comps: Vec<Comps>,
}

/// What is there when a layer is. Locks are taken as they are; what packages require is read from metadata as far as
/// these still list them.
pub fn present(
    plan: &Plan,
    layer: &str,
    lockfiles: &Path,
    metadata: &dyn Metadata,
    progress: &dyn Progress,
) -> Result<Present> {
    let mut run = Run::new(plan, &Update::Nothing, metadata, progress);
    let layer = plan.known_layer(layer)?;
    let stack = plan.stack(&layer.name);
    for layer in &stack {
        run.take(&layer.name, lockfiles)?;
    }
    let chain = run.chain(layer)?;
    let packages = run.gather(layer, &chain.iter().collect::<Vec<_>>(), &BTreeMap::new())?;
    for layer in stack.iter().filter(|layer| resolve::needs_groups(&layer.packages)) {
        run.load(&layer.packages.repos.iter().map(String::as_str).collect())?;
        run.groups(&layer.packages.repos)?;
    }
    Ok(Present { packages, comps: run.repos.into_values().map(|metadata| metadata.comps).collect() })
}

fn lock_stack(runs: &mut [Run], layers: &[&str], lockfiles: &Path, same_evr: Option<&SameEvr>) -> Result<()> {
    let Some(plan) = runs.first().map(|run| run.plan) else { return Ok(()) };
    let needed: BTreeSet<&str> =
        layers.iter().flat_map(|name| plan.stack(name)).map(|layer| layer.name.as_str()).collect();
    for run in &*runs {
        check_update(run.plan, &needed, lockfiles, run.update)?;
    }
    for name in plan.layers.iter().map(|layer| layer.name.as_str()).filter(|name| needed.contains(name)) {
        if !layers.contains(&name) {
            runs.iter_mut().try_for_each(|run| run.take(name, lockfiles))?;
            continue;
        }
        let questions: Result<Vec<_>> = runs.iter().map(|run| run.question(name, lockfiles)).collect();
        let mut questions = questions?;
        let locks = match same_evr {
            Some(rule) => together::agree(runs, &mut questions, rule)?,
            None => runs
                .iter_mut()
                .zip(&questions)
                .map(|(run, asked)| run.answer(asked))
                .collect::<Result<_>>()?,
        };
        for ((run, question), lock) in runs.iter_mut().zip(questions).zip(locks) {
            run.settle(question, lock)?;
        }
    }
    match runs.first().map(|run| run.update) {
        Some(Update::Advised(advised)) => advised.check(runs.iter().flat_map(|run| run.repos.values())),
        _ => Ok(()),
    }
}

/// A name that is in no lock is a mistake.
fn check_update(plan: &Plan, layers: &BTreeSet<&str>, lockfiles: &Path, update: &Update) -> Result<()> {
    let Some(wanted) = update.names() else { return Ok(()) };
    let mut known = BTreeSet::new();
    for layer in layers {
        let lock = read(lockfiles, &plan.stream.name, layer, plan.stream.arch)?;
        known.extend(lock.into_iter().flat_map(|lock| lock.packages).map(|package| package.name));
    }
    let Some(name) = wanted.difference(&known).next() else { return Ok(()) };
    let advice = match similar(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the lockfiles of {} name what can be updated", plan.stream.name),
    };
    Err(hinted(format!("no layer has `{name}` locked, so it cannot be updated"), advice))
}

/// Locking for one architecture.
pub(super) struct Run<'r> {
    pub plan: &'r Plan,
    update: &'r Update,
    metadata: &'r dyn Metadata,
    progress: &'r dyn Progress,
    /// Metadata loaded so far, by repository id.
    pub repos: BTreeMap<String, RepoMetadata>,
    /// The paths outside primary.xml that layers ask for, and the repositories that have been asked for all of them.
    paths: Paths,
    complete: BTreeSet<String>,
    /// The locks that hold now, by layer.
    locks: BTreeMap<&'r str, Lockfile>,
    /// The layers that were to be locked.
    done: Vec<LayerLock>,
}

/// What is to be decided of a layer.
pub(super) struct Question<'r> {
    pub layer: &'r Layer,
    /// The locks below, bottom first.
    pub chain: Vec<Lockfile>,
    pub previous: Option<Lockfile>,
    inputs: Inputs,
    pub local: BTreeMap<PathBuf, RepoPackage>,
    /// Why the previous lock does not do.
    pub stale: Option<Stale>,
}

impl<'r> Run<'r> {
    fn new(
        plan: &'r Plan,
        update: &'r Update,
        metadata: &'r dyn Metadata,
        progress: &'r dyn Progress,
    ) -> Self {
        let (repos, complete, locks) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self {
            plan,
            update,
            metadata,
            progress,
            repos,
            paths: Paths::default(),
            complete,
            locks,
            done: Vec::new(),
        }
    }

    /// Takes the lock of a layer as it is.
    fn take(&mut self, layer: &str, lockfiles: &Path) -> Result<()> {
        let layer = self.plan.known_layer(layer)?;
        self.locks.insert(&layer.name, required(self.plan, layer, lockfiles)?);
        Ok(())
    }

    /// The packages of a pinned image, as locks.
    fn pinned(&self, image: &Reference) -> Result<Vec<Lockfile>> {
        let packages = self.metadata.image(self.plan, image);
        let packages = packages.with_context(|| format!("reading the packages of {image}"))?;
        Ok(of_image(self.plan, image, &packages))
    }

    /// The locks at hand of the stack of a layer, bottom first.
    fn chain(&self, layer: &Layer) -> Result<Vec<Lockfile>> {
        let mut chain = self.plan.pinned(&layer.name).map_or(Ok(Vec::new()), |image| self.pinned(image))?;
        let stack = self.plan.stack(&layer.name).into_iter();
        chain.extend(stack.filter_map(|layer| self.locks.get(layer.name.as_str()).cloned()));
        Ok(chain)
    }

    fn question(&self, layer: &str, lockfiles: &Path) -> Result<Question<'r>> {
        let layer = self.plan.known_layer(layer)?;
        let previous = read(lockfiles, &self.plan.stream.name, &layer.name, self.plan.stream.arch)?;
        let chain = self.chain(layer)?;
        let inputs = Inputs::of(self.plan, layer, &chain.iter().collect::<Vec<_>>());
        let local = self.local(layer)?;
        let stale = stale(previous.as_ref(), inputs, &local, self.update);
        Ok(Question { layer, chain, previous, inputs, local, stale })
    }

    /// The lock that holds: the old one, or a new one.
    fn answer(&mut self, question: &Question) -> Result<Lockfile> {
        match (&question.stale, &question.previous) {
            (None, Some(lock)) => Ok(lock.clone()),
            (Some(Stale::Below), Some(lock)) => {
                Ok(Lockfile { parent_lock: question.inputs.parent_lock, ..lock.clone() })
            }
            _ => self.solved(question, &BTreeMap::new()),
        }
    }

    /// A new lock, with no other than these builds of source packages.
    pub(super) fn solved(
        &mut self,
        question: &Question,
        builds: &BTreeMap<String, String>,
    ) -> Result<Lockfile> {
        let (stream, arch) = (&self.plan.stream.name, self.plan.stream.arch);
        let context = || format!("locking {stream}/{} for {arch}", question.layer.name);
        let mut lock = self.solve(question, builds).with_context(context)?;
        let previous = question.previous.as_ref();
        // an id stays its account's when the package that makes it leaves: machines have its files
        lock.set_ledger(&previous.map(Lockfile::ledger).unwrap_or_default());
        // repositories published again without a change for this layer are no news
        let asks_the_same = matches!(question.stale, Some(Stale::Update | Stale::Together | Stale::Below));
        match previous.filter(|old| asks_the_same && old.packages == lock.packages) {
            Some(old) => Ok(Lockfile { parent_lock: old.parent_lock.and(lock.parent_lock), ..old.clone() }),
            None => Ok(lock),
        }
    }

    fn settle(&mut self, question: Question<'r>, lock: Lockfile) -> Result<()> {
        let Question { layer, chain, previous, local, stale, .. } = question;
        let offered: Vec<&RepoMetadata> = match stale {
            Some(_) => layer.packages.repos.iter().filter_map(|id| self.repos.get(id)).collect(),
            None => Vec::new(),
        };
        let mut chain: Vec<&Lockfile> = chain.iter().collect();
        let caught_up = caught_up(layer, &installed(&chain), &local, &offered);
        chain.push(&lock);
        matching::check(&layer.name, &self.plan.stream.match_evr, &installed(&chain), &offered)
            .with_context(|| format!("locking {}/{}", self.plan.stream.name, layer.name))?;
        self.locks.insert(&layer.name, lock.clone());
        self.done.push(LayerLock { lock, previous, solved: stale, caught_up });
        Ok(())
    }

    /// The local RPMs of the layer's overrides, each of the package it overrides.
    fn local(&self, layer: &Layer) -> Result<BTreeMap<PathBuf, RepoPackage>> {
        let mut local = BTreeMap::new();
        for Sourced { value: Override { package: name, to, .. }, origin } in &layer.packages.overrides {
            let OverrideTo::File(file) = to else { continue };
            let what = format!("{origin} overrides `{name}` with {}", file.display());
            let package = self.metadata.local(file).with_context(|| format!("reading what {what}"))?;
            if package.nevra.name != *name {
                return Err(hinted(
                    format!("{what}, which is {}", package.nevra),
                    "write an override for each package",
                ));
            }
            local.insert(file.clone(), package);
        }
        Ok(local)
    }

    /// What of the previous lock is to stay if it can.
    fn favored(&self, previous: Option<&Lockfile>) -> BTreeSet<Nevra> {
        match (self.update, previous) {
            (Update::Everything, _) | (_, None) => BTreeSet::new(),
            (_, Some(lock)) => lock.packages.iter().map(LockedPackage::nevra).collect(),
        }
    }

    fn solve(&mut self, question: &Question, builds: &BTreeMap<String, String>) -> Result<Lockfile> {
        let Question { layer, chain, previous, inputs, local, .. } = question;
        let chain: Vec<&Lockfile> = chain.iter().collect();
        let parents = self.gather(layer, &chain, local)?;
        let unlisted = match previous {
            Some(lock) if self.update.keeps_unlisted() => self.unlisted(layer, lock)?,
            _ => Vec::new(),
        };
        let repos: Vec<&RepoMetadata> =
            layer.packages.repos.iter().filter_map(|id| self.repos.get(id)).collect();
        let offers: Vec<&RepoMetadata> = repos.iter().copied().chain(&unlisted).collect();
        let favored = self.favored(previous.as_ref());
        let nothing = BTreeSet::new();
        let platform = self.plan.stream.os.module_platform();
        let update = if let Update::Packages(names) = self.update { names } else { &nothing };
        let fixed = match (self.update, previous) {
            (Update::Advised(advised), Some(lock)) => advised.versions(lock, &repos),
            _ => Held::new(),
        };
        let mut held = self.held(layer, previous.as_ref(), &repos, &unlisted, builds);
        held.extend(fixed.clone());
        let request = Request {
            arch: self.plan.stream.arch,
            platform: &platform,
            repos: &offers,
            parents: &parents,
            packages: &layer.packages,
            local,
            favored: &favored,
            update,
            builds,
            held: &fixed,
        };
        let first = Request { held: &held, ..request };
        let rest;
        let solution = match resolve::solve(&first) {
            Ok(solution) => solution,
            Err(_) => {
                let unsolved = |error| self.unsolved(layer, &request, error);
                let released = least::released(&request, &held).or_else(unsolved)?;
                let stays = |name: &String| fixed.contains_key(name) || !released.contains(name);
                rest = held.clone().into_iter().filter(|(name, _)| stays(name)).collect();
                let again = Request { held: &rest, ..request };
                resolve::solve(&again).or_else(|error| self.unsolved(layer, &again, error))?
            }
        };
        for entry in &solution.unused_overrides {
            let package = &entry.value.package;
            self.progress
                .warn(&format!("{}: nothing installs `{package}`, so it is not overridden", entry.origin));
        }
        for (entry, package) in &solution.absent {
            let warning = format!("{}: no repository has {package} of `{}`", entry.origin, entry.value);
            self.progress.warn(&warning);
        }
        let mut packages: Vec<LockedPackage> = solution.changes.iter().map(locked_package).collect();
        find_elsewhere(&mut packages, &repos);
        let lock = Lockfile {
            version: VERSION,
            stream: self.plan.stream.name.clone(),
            layer: layer.name.clone(),
            arch: self.plan.stream.arch,
            manifest: inputs.manifest,
            parent: inputs.parent,
            parent_lock: inputs.parent_lock,
            parent_image: inputs.parent_image,
            repos: self.locked_repos(&repos),
            packages,
            users: Vec::new(),
            groups: Vec::new(),
        };
        lock.check().context("the repositories offer a package that cannot be locked")?;
        Ok(lock)
    }

    /// The versions that packages are held at, as long as that has a solution: those of the old lock that are on
    /// offer and not to be updated.
    fn held(
        &self,
        layer: &Layer,
        previous: Option<&Lockfile>,
        repos: &[&RepoMetadata],
        unlisted: &[RepoMetadata],
        builds: &BTreeMap<String, String>,
    ) -> Held {
        let mut held = Held::new();
        let Some(lock) = previous.filter(|_| *self.update != Update::Everything) else { return held };
        let offered = |locked: &LockedPackage| {
            let mut packages =
                repos.iter().copied().chain(unlisted).flat_map(|r| r.packages.called(&locked.name));
            packages.any(|package| is_version_of(locked, package))
        };
        let asked = |name: &str| self.update.names().is_some_and(|names| names.contains(name));
        for package in lock.packages.iter().filter(|package| package.action != Action::Remove) {
            let overridden = layer.packages.overrides.iter().any(|entry| entry.value.package == package.name);
            let build = builds.get(source_name(&package.source));
            let fits = !overridden && build.is_none_or(|build| *build == package.source);
            if fits && !asked(&package.name) && offered(package) {
                held.entry(package.name.clone()).or_default().insert(package.evr.clone());
            }
        }
        if let Update::Repair(names) = self.update {
            for package in lock.packages.iter().filter(|package| names.contains(&package.name)) {
                let evr = nearest(package, repos);
                held.extend(evr.map(|evr| (package.name.clone(), BTreeSet::from([evr]))));
            }
        }
        held
    }

    /// The packages of an old lock that repositories have dropped and that are not to be repaired, as far as anything
    /// still tells what they require.
    fn unlisted(&self, layer: &Layer, lock: &Lockfile) -> Result<Vec<RepoMetadata>> {
        let mut gone = installed(&[lock]);
        gone.retain(|Installed { package, .. }| {
            let asked = self.update.names().is_some_and(|names| names.contains(&package.name));
            let is_listed = listed(self.repos.values(), package).is_some();
            !asked && package.repo != "file" && package.sha256.is_some() && !is_listed
        });
        let recorded = self.recorded(&gone, &[lock], false)?;
        let mut unlisted: BTreeMap<&str, Vec<RepoPackage>> = BTreeMap::new();
        for installed in &gone {
            let LockedPackage { repo, location, sha256, size, source, .. } = &installed.package;
            // what nobody has any more cannot stay
            let Ok(known) = self.parents(layer, std::slice::from_ref(installed), &recorded) else { continue };
            let packages = known.into_iter().map(|parent| RepoPackage {
                location: location.clone(),
                sha256: *sha256,
                size: *size,
                source: source.clone(),
                ..parent.package
            });
            unlisted.entry(repo).or_default().extend(packages);
        }
        let with = |(repo, packages): (&str, Vec<RepoPackage>)| Some(self.repos.get(repo)?.with(packages));
        Ok(unlisted.into_iter().filter_map(with).collect())
    }

    /// The failure to solve a layer, with what the user can do about it.
    fn unsolved<T>(&self, layer: &Layer, request: &Request, error: resolve::Error) -> Result<T> {
        let message = format!("the {} layer cannot be solved", layer.name);
        let resolve::Error::Unsatisfiable(why) = error else { return Err(error).context(message) };
        // architectures that must agree try much that leads nowhere
        let ways_out =
            if request.builds.is_empty() { self.ways_out(layer, request, &why) } else { Vec::new() };
        let unsolved = Unsolved { layer: layer.name.clone(), arch: request.arch, why, ways_out };
        let advice = unsolved.advice();
        match advice.is_empty() {
            true => Err(unsolved).context(message),
            false => Err(unsolved).hint(message, advice),
        }
    }

    /// Edits that were tried.
    fn ways_out(&self, layer: &Layer, request: &Request, error: &Unsatisfiable) -> Vec<Vec<Edit>> {
        let unused = self.plan.stream.repos.values().filter(|repo| !layer.packages.repos.contains(&repo.id));
        // one that cannot be reached cannot be proposed
        let read = |repo| {
            let mut metadata = self.metadata.newest(&[repo])?;
            if resolve::needs_groups(&layer.packages) {
                metadata.iter_mut().try_for_each(|metadata| self.metadata.comps(repo, metadata))?;
            }
            anyhow::Ok(metadata)
        };
        let others: Vec<RepoMetadata> = unused.filter_map(|repo| read(repo).ok()).flatten().collect();
        resolve::ways_out(request, &others.iter().collect::<Vec<_>>(), error)
    }

    fn locked_repos(&self, repos: &[&RepoMetadata]) -> Vec<LockedRepo> {
        let url = |id: &str| self.plan.stream.repos.get(id)?.baseurl.iter().find_map(|url| public_url(url));
        let locked = |repo: &&RepoMetadata| LockedRepo {
            id: repo.id.clone(),
            revision: repo.revision,
            repomd: Some(repo.repomd),
            url: url(&repo.id),
        };
        let mut repos: Vec<LockedRepo> = repos.iter().map(locked).collect();
        repos.sort_by(|a, b| a.id.cmp(&b.id));
        repos
    }

    /// Loads what solving a layer needs, file lists only if a path asks for them; gives the packages of the layers
    /// below.
    fn gather(
        &mut self,
        layer: &Layer,
        chain: &[&Lockfile],
        local: &BTreeMap<PathBuf, RepoPackage>,
    ) -> Result<Vec<Parent>> {
        let parents = installed(chain);
        let below = parents.iter().map(|i| i.package.repo.as_str()).filter(|repo| *repo != "file");
        let repos: BTreeSet<&str> = layer.packages.repos.iter().map(String::as_str).chain(below).collect();
        self.load(&repos)?;
        if resolve::needs_groups(&layer.packages) {
            self.groups(&layer.packages.repos)?;
        }
        let known = self.parents(layer, &parents, &self.recorded(&parents, chain, false)?)?;
        let offered = repos.iter().filter_map(|id| self.repos.get(*id)).map(|metadata| &metadata.packages);
        let others = known.iter().map(|p| &p.package).chain(local.values());
        let paths = resolve::paths_beyond_primary(&layer.packages, offered, others);
        if paths.is_empty() {
            return Ok(known);
        }
        self.complete(&repos, paths)?;
        self.parents(layer, &parents, &self.recorded(&parents, chain, true)?)
    }

    fn load(&mut self, ids: &BTreeSet<&str>) -> Result<()> {
        let new = ids.iter().filter(|id| !self.repos.contains_key(**id));
        // a repository packages below are from may have left the stream since
        let new: Vec<&plan::Repo> = new.filter_map(|id| self.plan.stream.repos.get(*id)).collect();
        for (repo, mut metadata) in new.iter().zip(self.metadata.newest(&new)?) {
            if let Update::Advised(_) = self.update {
                self.metadata.advisories(repo, &mut metadata)?;
            }
            self.repos.insert(repo.id.clone(), metadata);
        }
        Ok(())
    }

    fn complete(&mut self, ids: &BTreeSet<&str>, paths: Paths) -> Result<()> {
        if self.paths.extend(paths) {
            self.complete.clear();
        }
        let new = self.repos.iter_mut().filter(|(id, _)| ids.contains(id.as_str()));
        let new = new.filter(|(id, _)| self.complete.insert((*id).clone()));
        let new = new.filter_map(|(id, metadata)| Some((self.plan.stream.repos.get(id)?, metadata)));
        self.metadata.filelists(&mut new.collect::<Vec<_>>(), &self.paths)
    }

    fn groups(&mut self, ids: &[String]) -> Result<()> {
        for id in ids {
            let Some(repo) = self.plan.stream.repos.get(id) else { continue };
            let Some(metadata) = self.repos.get_mut(id) else { continue };
            if metadata.comps == Comps::default() {
                self.metadata.comps(repo, metadata)?;
            }
        }
        Ok(())
    }

    /// What repositories offered when the layers below were locked, if they have dropped any package since.
    fn recorded(
        &self,
        parents: &[Installed],
        chain: &[&Lockfile],
        complete: bool,
    ) -> Result<Vec<RepoMetadata>> {
        let dropped: HashSet<&str> = parents
            .iter()
            .filter(|installed| listed(self.repos.values(), &installed.package).is_none())
            .map(|installed| installed.package.repo.as_str())
            .collect();
        let mut recorded = Vec::new();
        for locked in
            chain.iter().flat_map(|lock| &lock.repos).filter(|repo| dropped.contains(repo.id.as_str()))
        {
            let Some(repo) = self.plan.stream.repos.get(&locked.id) else { continue };
            let Some(repomd) = &locked.repomd else { continue };
            let Some(mut metadata) = self.metadata.recorded(repo, repomd)? else { continue };
            // file lists that are gone from the repository are no loss: the packages themselves have them
            if !complete || self.metadata.filelists(&mut [(repo, &mut metadata)], &self.paths).is_ok() {
                recorded.push(metadata);
            }
        }
        Ok(recorded)
    }

    /// The packages of the layers below as the solver needs them: from any metadata that list the very file,
    /// else from the package.
    fn parents(
        &self,
        layer: &Layer,
        parents: &[Installed],
        recorded: &[RepoMetadata],
    ) -> Result<Vec<Parent>> {
        let (locked, pinned): (Vec<_>, Vec<_>) = parents.iter().partition(|i| i.package.sha256.is_some());
        let known =
            |installed: &Installed| match listed(self.repos.values().chain(recorded), &installed.package) {
                Some(package) => Ok(package.clone()),
                None => self.metadata.locked(self.plan, &installed.package),
            };
        let locked = locked.into_iter().map(|installed| Ok((installed, known(installed)?)));
        let pinned = self.in_image(layer, pinned)?;
        let parent =
            |(installed, package): (&Installed, _)| Parent { layer: installed.layer.clone(), package };
        locked.chain(pinned.into_iter().map(Ok)).map(|found| found.map(parent)).collect()
    }

    /// The packages of the image that the stack of `layer` stands on: from metadata if these list all of them by
    /// name and version, which spares bringing the rpmdb; else from that.
    fn in_image<'i>(
        &self,
        layer: &Layer,
        installed: Vec<&'i Installed>,
    ) -> Result<Vec<(&'i Installed, RepoPackage)>> {
        let Some(image) = self.plan.pinned(&layer.name).filter(|_| !installed.is_empty()) else {
            return Ok(Vec::new());
        };
        let named = |i: &&'i Installed| {
            let called = self.repos.values().flat_map(|metadata| metadata.packages.called(&i.package.name));
            let offered = called.filter(|package| is_version_of(&i.package, package)).last();
            Some((*i, offered?.clone()))
        };
        if let Some(all) = installed.iter().map(named).collect() {
            return Ok(all);
        }
        let context = || format!("reading the rpmdb of {image}");
        let rpmdb = self.metadata.image_rpmdb(self.plan, image).with_context(context)?;
        let rpmdb: HashMap<Nevra, RepoPackage> = rpmdb.into_iter().map(|p| (p.nevra.clone(), p)).collect();
        let packed = |i: &'i Installed| {
            let nevra = i.package.nevra();
            let package = rpmdb.get(&nevra).with_context(|| format!("{}: it has no {nevra}", context()))?;
            Ok((i, package.clone()))
        };
        installed.into_iter().map(packed).collect()
    }
}

/// The very file that is locked, as repositories list it.
fn listed<'m>(
    repos: impl IntoIterator<Item = &'m RepoMetadata>,
    locked: &LockedPackage,
) -> Option<&'m RepoPackage> {
    locked.sha256?;
    let mut packages = repos.into_iter().flat_map(|metadata| metadata.packages.called(&locked.name));
    packages.find(|package| package.sha256 == locked.sha256)
}

/// Whether a package has the name, version and architecture of what is locked.
fn is_version_of(locked: &LockedPackage, package: &RepoPackage) -> bool {
    let nevra = &package.nevra;
    (&nevra.name, &nevra.evr, &nevra.arch) == (&locked.name, &locked.evr, &locked.arch)
}

/// A URL on the network as anybody may read it: without a user's name and password, or parameters. Paths of this
/// machine are of no use to others.
fn public_url(url: &str) -> Option<String> {
    let mut url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.set_query(None);
    url.set_fragment(None);
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// Notes where the repositories have the locked files besides.
fn find_elsewhere(locked: &mut [LockedPackage], repos: &[&RepoMetadata]) {
    for locked in locked.iter_mut().filter(|locked| locked.sha256.is_some()) {
        for repo in repos.iter().filter(|repo| repo.id != locked.repo) {
            let same = repo.packages.called(&locked.name).filter(|package| package.sha256 == locked.sha256);
            locked
                .also
                .extend(same.map(|package| Elsewhere::Repo(repo.id.clone(), package.location.clone())));
        }
        locked.also.sort_unstable();
    }
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
        also: Vec::new(),
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
