//! Which packages make a layer: the request of a manifest, solved over repository metadata on top of the
//! packages of the layers below.
//!
//! The solver is libsolv with libdnf's settings, so the answer is dnf's for the same request and metadata
//! with `best=True`, but for one rule: **packages of the layers below stay as they are**. Only an override
//! or a `remove` entry may change one; where dnf would upgrade or obsolete one to make a request fit, there
//! is no solution here and the explanation says which entry would allow it.
//!
//! `spec` reads entries, `reach` leaves out what cannot matter, `universe` finds the packages they name, `jobs` makes libsolv's jobs of them, `pool`
//! talks to libsolv, `explain` says why there is no solution, `edits` what would give one, `why` why a package is in one;
//! `groups` reads entries that are comps groups, `modules` finds which streams of modules are active, `weak` says
//! what no weak dependency may bring in.

mod edits;
mod explain;
mod groups;
mod jobs;
mod modules;
mod pool;
mod pulls;
mod reach;
mod rich;
mod spec;
mod universe;
mod weak;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use edits::{Edit, List, ways_out};
pub use explain::Unsatisfiable;
use explain::explain;
use jobs::Jobs;
use modules::Modularity;
pub use pool::BadDependency;
use pool::{Action, Job, PackageId};
pub use pulls::{By, Pull, pulls};
use reach::{Reach, everything, reach};
use rich::Rich;
use spec::Pattern;
pub use universe::Source;
use universe::Universe;
pub use why::Why;

use crate::package::{Arch, Dependency, Evr, Nevra};
use crate::plan::{self, Override, Sourced};
use crate::repo::{Packages, Paths, RepoMetadata, RepoPackage};

/// What is to be solved.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The architecture of the layer.
    pub arch: Arch,
    /// The platform that streams of modules are built for, `el9`.
    pub platform: &'a str,
    /// Repositories the layer may take packages from; the order decides between those of one priority and cost.
    pub repos: &'a [&'a RepoMetadata],
    /// Packages of the layers below.
    pub parents: &'a [Parent],
    /// What the manifest asks for.
    pub packages: &'a plan::Packages,
    /// The local RPMs of overrides, by the path the override names.
    pub local: &'a BTreeMap<PathBuf, RepoPackage>,
    /// Packages of the previous lock: kept wherever that is possible.
    pub favored: &'a BTreeSet<Nevra>,
    /// Names that are not favored but taken in the newest version that fits the request.
    pub update: &'a BTreeSet<String>,
    /// Source packages of which one build alone may be taken: its file name, by the name of the package. If there
    /// are any, what the others are needed with may be another version than the newest.
    pub builds: &'a BTreeMap<String, String>,
    /// Names of which no other than these versions may be taken.
    pub held: &'a Held,
}

/// Versions by the names of packages.
pub type Held = BTreeMap<String, BTreeSet<Evr>>;

/// A package of a layer below.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The layer that brought it.
    pub layer: String,
    /// What it provides and requires.
    pub package: RepoPackage,
}

/// What the layer does to the packages it stands on.
#[derive(Clone, Debug)]
pub struct Solution<'a> {
    /// Changes, sorted by NEVRA.
    pub changes: Vec<Change<'a>>,
    /// Overrides of packages that are neither below nor in the layer.
    pub unused_overrides: Vec<&'a Sourced<Override>>,
    /// Packages of groups that no repository has, by the entry that names the group.
    pub absent: Vec<(&'a Sourced<String>, &'a str)>,
}

/// A package added, put in the place of another, or removed.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The package: for a removal that of the layer below.
    pub package: &'a RepoPackage,
    /// Where it is from.
    pub source: Source<'a>,
    /// What happens with it.
    pub effect: Effect<'a>,
    /// The reason.
    pub why: Why<'a>,
}

/// What happens with a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// It is added.
    Install,
    /// It takes the place of the version of the layers below.
    Replace(&'a Evr),
    /// It is removed.
    Remove,
}

/// Why there is no solution to give.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request contradicts itself, the metadata or the layers below.
    #[error(transparent)]
    Unsatisfiable(#[from] Unsatisfiable),
    /// The metadata has a mistake.
    #[error(transparent)]
    BadDependency(#[from] BadDependency),
}

/// Who wants a job done.
#[derive(Clone, Copy, Debug)]
enum Ask<'a> {
    Install(&'a Sourced<String>),
    Override(&'a Sourced<Override>),
    Remove(&'a Sourced<String>),
    Update(&'a str),
    /// The rule that packages of the layers below stay.
    Stay,
    /// Settings that cannot contradict anything.
    Setting,
}

/// Solves a request.
pub fn solve<'a>(request: &Request<'a>) -> Result<Solution<'a>, Error> {
    let modularity = Modularity::new(request)?;
    match solve_within(&reach(request, &modularity), request, &modularity) {
        // what stands in the way may be told by what is out of reach
        Err(Error::Unsatisfiable(_)) => solve_within(&everything(request), request, &modularity),
        done => done,
    }
}

/// Whether a request has a solution.
pub fn has_solution(request: &Request) -> Result<bool, Error> {
    let solved = Modularity::new(request)
        .and_then(|modularity| solve_within(&reach(request, &modularity), request, &modularity).map(|_| ()));
    match solved {
        Err(Error::Unsatisfiable(_)) => Ok(false),
        done => done.map(|()| true),
    }
}

fn solve_within<'a>(
    reach: &Reach,
    request: &Request<'a>,
    modularity: &Modularity<'a>,
) -> Result<Solution<'a>, Error> {
    let universe = Universe::new(request, reach, modularity)?;
    let Jobs { mut jobs, absent } = jobs::jobs(request, &universe, modularity)?;
    let mut chosen = attempt(&universe, &jobs, request)?;
    let held_back = held_back(request, &universe, &chosen);
    if !held_back.is_empty() {
        jobs.extend(held_back);
        chosen = attempt(&universe, &jobs, request)?;
    }
    let changes = changes(request, &universe, &jobs, &chosen);
    let names: BTreeSet<&str> = chosen.iter().map(|&id| universe.name(id)).collect();
    let unused = |o: &&Sourced<Override>| !names.contains(o.value.package.as_str());
    let unused_overrides = request.packages.overrides.iter().filter(unused).collect();
    Ok(Solution { changes, unused_overrides, absent })
}

fn attempt<'a>(
    universe: &Universe<'a>,
    jobs: &[(Ask<'a>, Job)],
    request: &Request<'a>,
) -> Result<Vec<PackageId>, Unsatisfiable> {
    let (asks, jobs): (Vec<Ask>, Vec<Job>) = jobs.iter().cloned().unzip();
    universe
        .pool
        .solve(&jobs, request.builds.is_empty(), request.packages.weak_deps)
        .map_err(|problems| explain(universe, &asks, &jobs, &problems))
}

/// Whether a package's EVR is the one asked for, in which the release may be left out.
fn is_version(evr: &Evr, wanted: &Evr) -> bool {
    let evr = match wanted.release.is_empty() {
        true => &Evr { release: String::new(), ..evr.clone() },
        false => evr,
    };
    evr.rpm_cmp(wanted).is_eq()
}

/// Jobs for packages that should be updated, yet are not the newest because a favored one wants the old.
fn held_back<'a>(
    request: &Request<'a>,
    universe: &Universe<'a>,
    chosen: &[PackageId],
) -> Vec<(Ask<'a>, Job)> {
    let added =
        |name: &str| chosen.iter().copied().find(|&id| !universe.is_parent(id) && universe.name(id) == name);
    let job = |name: &'a String| {
        let evr = &universe.package(added(name)?).nevra.evr;
        let candidates = universe.available(name);
        let newer = candidates.iter().any(|&id| universe.package(id).nevra.evr.rpm_cmp(evr).is_gt());
        newer.then_some((
            Ask::Update(name),
            Job { action: Action::Install, packages: candidates, dependency: None },
        ))
    };
    request.update.iter().filter_map(job).collect()
}

fn changes<'a>(
    request: &Request<'a>,
    universe: &Universe<'a>,
    jobs: &[(Ask<'a>, Job)],
    chosen: &[PackageId],
) -> Vec<Change<'a>> {
    let mut gone: Vec<PackageId> =
        universe.all_parents().filter(|id| chosen.binary_search(id).is_err()).collect();
    gone.sort_by_key(|&id| std::cmp::Reverse(&universe.package(id).nevra));
    let reasons = why::reasons(request, universe, jobs, chosen);
    let mut changes = Vec::new();
    for (id, why) in reasons {
        let named = |old: &&PackageId| universe.name(**old) == universe.name(id);
        let arch = |id: PackageId| &universe.package(id).nevra.arch;
        let same = gone.iter().filter(named).find(|&&old| arch(old) == arch(id));
        let replaced = same.or_else(|| gone.iter().find(named)).copied();
        let effect = match replaced {
            Some(old) => {
                gone.retain(|&other| other != old);
                Effect::Replace(&universe.package(old).nevra.evr)
            }
            None => Effect::Install,
        };
        changes.push(Change { package: universe.package(id), source: universe.source(id), effect, why });
    }
    for id in gone {
        let why = why::removal(request, universe, id);
        changes.push(Change {
            package: universe.package(id),
            source: universe.source(id),
            effect: Effect::Remove,
            why,
        });
    }
    changes.sort_by_key(|change| &change.package.nevra);
    changes
}

/// Whether solving needs to know the groups of repositories.
pub fn needs_groups(packages: &plan::Packages) -> bool {
    packages.install.iter().any(|entry| entry.value.starts_with('@'))
}

/// Whether an entry names a package by its NEVRA, parts of it or a glob: as dnf reads it, but for what other packages
/// there are.
pub fn names(entry: &str, nevra: &Nevra) -> bool {
    spec::by_nevra(entry, std::slice::from_ref(nevra), |nevra| nevra).is_ok_and(|found| !found.is_empty())
}

/// The paths outside `primary.xml` that solving needs to know the packages of: those some dependency or entry names
/// (createrepo_c lists `/etc/`, anything with `bin/`, and `/usr/lib/sendmail` in primary.xml).
pub fn paths_beyond_primary<'p>(
    packages: &plan::Packages,
    repos: impl IntoIterator<Item = &'p Packages>,
    others: impl IntoIterator<Item = &'p RepoPackage>,
) -> Paths {
    let mut paths = Paths::default();
    for entry in packages.install.iter().filter(|entry| spec::is_path(&entry.value)) {
        match Pattern::new(&entry.value) {
            Ok(Pattern::Text(path)) if is_beyond_primary(&path) => paths.add(&path),
            Ok(Pattern::Glob(glob)) => paths.add_glob(*glob),
            // a pattern that can't be read names nothing; manifests are checked when they are compiled
            Ok(Pattern::Text(_)) | Err(_) => {}
        }
    }
    let named = repos.into_iter().flat_map(Packages::wanted_by_any);
    let named = named.chain(others.into_iter().flat_map(named_by).map(|dependency| dependency.name.as_str()));
    for name in named {
        if name.starts_with('(') {
            let rich = Rich::parse(name);
            let leaves = rich.iter().flat_map(Rich::leaves).filter(|leaf| is_beyond_primary(&leaf.name));
            leaves.for_each(|leaf| paths.add(&leaf.name));
        } else if is_beyond_primary(name) {
            paths.add(name);
        }
    }
    paths
}

/// The dependencies of a package that files can meet.
fn named_by(package: &RepoPackage) -> impl Iterator<Item = &Dependency> {
    let kinds = [
        &package.requires,
        &package.conflicts,
        &package.recommends,
        &package.suggests,
        &package.supplements,
        &package.enhances,
    ];
    kinds.into_iter().flatten().map(AsRef::as_ref)
}

fn is_beyond_primary(path: &str) -> bool {
    path.starts_with('/')
        && !(path.starts_with("/etc/") || path.contains("bin/") || path == "/usr/lib/sendmail")
}

#[cfg(test)]
mod tests;
