//! Why a package is in a solution.
//!
//! The reasons are found in the solution itself, not taken from the solver's decisions: breadth first from
//! what was requested, each level by name, so that they change only when the packages do.

use std::collections::BTreeMap;
use std::fmt;

use super::pool::{Action, Job, PackageId};
use super::rich::Rich;
use super::universe::Universe;
use super::{Ask, Request};
use crate::package::Dependency;

/// Why a package is added or removed; printed as a lockfile has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why<'a> {
    /// An `install` entry names it.
    Requested,
    /// The package of this name requires it.
    RequiredBy(&'a str),
    /// The package of this name recommends it, or is what it supplements.
    RecommendedBy(&'a str),
    /// A condition of a rich dependency holds or must not hold.
    Condition,
    /// An override puts it in place, for this reason.
    Override(&'a str),
    /// A `remove` entry names it.
    Removed,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("requested"),
            Self::RequiredBy(name) => write!(f, "required by {name}"),
            Self::RecommendedBy(name) => write!(f, "recommended by {name}"),
            Self::Condition => f.write_str("required by a rich dependency"),
            Self::Override(reason) => write!(f, "override: {reason}"),
            Self::Removed => f.write_str("removed by the manifest"),
        }
    }
}

/// The reason for every package the layer adds.
pub fn reasons<'a>(
    request: &Request<'a>,
    universe: &Universe<'a>,
    jobs: &[(Ask<'a>, Job)],
    chosen: &[PackageId],
) -> BTreeMap<PackageId, Why<'a>> {
    let mut search = Search { universe, chosen, found: BTreeMap::new() };
    let added = || chosen.iter().copied().filter(|&id| !universe.is_parent(id));
    for id in added() {
        if let Some(reason) = override_reason(request, universe.name(id)) {
            search.found.insert(id, Why::Override(reason));
        }
    }
    for (ask, job) in jobs {
        if let (Ask::Install(_), Action::Install) = (ask, job.action) {
            for &id in &job.packages {
                if search.is_unexplained(id) {
                    search.found.insert(id, Why::Requested);
                }
            }
        }
    }
    let mut level: Vec<PackageId> = search.found.keys().copied().collect();
    while !level.is_empty() {
        level = search.required_by(level);
        if level.is_empty() {
            level = search.recommended();
        }
    }
    for id in added() {
        search.found.entry(id).or_insert(Why::Condition);
    }
    search.found
}

/// The reason for the removal of a package of the layers below.
pub fn removal<'a>(request: &Request<'a>, universe: &Universe<'a>, id: PackageId) -> Why<'a> {
    override_reason(request, universe.name(id)).map_or(Why::Removed, Why::Override)
}

fn override_reason<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
    let mut overrides = request.packages.overrides.iter();
    overrides.find(|entry| entry.value.package == name).map(|entry| entry.value.reason.as_str())
}

struct Search<'s, 'a> {
    universe: &'s Universe<'a>,
    chosen: &'s [PackageId],
    found: BTreeMap<PackageId, Why<'a>>,
}

impl<'a> Search<'_, 'a> {
    /// Explains what the packages of a level require; gives the packages explained.
    fn required_by(&mut self, mut level: Vec<PackageId>) -> Vec<PackageId> {
        level.sort_by_key(|&id| &self.universe.package(id).nevra);
        let mut next = Vec::new();
        for id in level {
            for dependency in &self.universe.package(id).requires {
                for provider in self.bringing(id, dependency) {
                    self.found.insert(provider, Why::RequiredBy(self.universe.name(id)));
                    next.push(provider);
                }
            }
        }
        next
    }

    /// Explains what explained packages recommend and what supplements any package; gives those explained.
    fn recommended(&mut self) -> Vec<PackageId> {
        let universe = self.universe;
        let mut next = Vec::new();
        let mut explained: Vec<PackageId> = self.found.keys().copied().collect();
        explained.sort_by_key(|&id| &universe.package(id).nevra);
        for id in explained {
            for dependency in &universe.package(id).recommends {
                for provider in self.bringing(id, dependency) {
                    self.found.insert(provider, Why::RecommendedBy(universe.name(id)));
                    next.push(provider);
                }
            }
        }
        let left: Vec<PackageId> =
            self.chosen.iter().copied().filter(|&id| self.is_unexplained(id)).collect();
        for id in left {
            let supplemented = universe.package(id).supplements.iter().flat_map(|d| self.present(d));
            if let Some(name) = supplemented.map(|other| universe.name(other)).min() {
                self.found.insert(id, Why::RecommendedBy(name));
                next.push(id);
            }
        }
        next
    }

    /// Unexplained packages that a dependency of `id` brings in: none if it or a layer below provides it.
    fn bringing(&self, id: PackageId, dependency: &Dependency) -> Vec<PackageId> {
        let mut brought = Vec::new();
        each_part(dependency, |part| {
            let present = self.providers(part);
            if !present.iter().any(|&other| other == id || self.universe.is_parent(other)) {
                brought.extend(present.into_iter().filter(|&other| self.is_unexplained(other)));
            }
        });
        brought.sort_unstable();
        brought.dedup();
        brought
    }

    /// The packages of the solution that provide a dependency.
    fn present(&self, dependency: &Dependency) -> Vec<PackageId> {
        let mut present = Vec::new();
        each_part(dependency, |part| present.extend(self.providers(part)));
        present
    }

    /// The same for a plain dependency.
    fn providers(&self, dependency: &Dependency) -> Vec<PackageId> {
        let mut providers = self.universe.providers(dependency);
        providers.retain(|id| self.chosen.binary_search(id).is_ok());
        providers
    }

    fn is_unexplained(&self, id: PackageId) -> bool {
        !self.universe.is_parent(id)
            && self.chosen.binary_search(&id).is_ok()
            && !self.found.contains_key(&id)
    }
}

/// Visits the plain dependencies that can bring a package in.
pub(super) fn each_part(dependency: &Dependency, mut visit: impl FnMut(&Dependency)) {
    match dependency.is_rich() {
        true => Rich::parse(&dependency.name).iter().flat_map(Rich::wanted).for_each(visit),
        false => visit(dependency),
    }
}
