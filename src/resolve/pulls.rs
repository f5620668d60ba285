//! All entries that bring a package in, each by the shortest chain of dependencies.
//!
//! What is asked about is there: the packages of a layer and of those below. An entry brings in what it names, and what
//! that requires or recommends; a dependency that several packages provide brings in each of them, for each would have to
//! be kept if the others were not there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::groups;
use super::modules::Modularity;
use super::pool::{BadDependency, PackageId};
use super::reach::everything;
use super::universe::Universe;
use super::why::each_part;
use super::{Held, Parent, Request};
use crate::package::{Arch, Dependency, Nevra};
use crate::plan::{Packages, Sourced};
use crate::repo::comps::Comps;

/// An entry that brings a package in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pull<'a> {
    /// The entry of `install`.
    pub entry: &'a Sourced<String>,
    /// From the package that it names to the one that was asked about.
    pub chain: Vec<Link<'a>>,
}

/// A package of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link<'a> {
    /// The layer that brought it.
    pub layer: &'a str,
    /// The package.
    pub package: &'a Nevra,
    /// How the package before it wants it; the first is named by the entry.
    pub by: Option<By>,
}

/// How a package brings in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// It requires it.
    Requires,
    /// It recommends it, or is what that supplements.
    Recommends,
}

/// The entries that bring in the packages called `name`, those with the shortest chain first; one with a recommendation
/// counts as longer than any without. Of the layers in `strict` weak dependencies bring in nothing.
pub fn pulls<'a>(
    arch: Arch,
    packages: &'a [Parent],
    comps: &[Comps],
    name: &str,
    entries: impl Iterator<Item = &'a Sourced<String>>,
    strict: &BTreeSet<&str>,
) -> Result<Vec<Pull<'a>>, BadDependency> {
    let (nothing, nowhere, held) = (BTreeSet::new(), BTreeMap::new(), Held::new());
    let request = Request {
        arch,
        platform: "",
        repos: &[],
        parents: packages,
        packages: &Packages::default(),
        local: &BTreeMap::new(),
        favored: &BTreeSet::new(),
        update: &nothing,
        builds: &nowhere,
        held: &held,
    };
    let universe = Universe::new(&request, &everything(&request), &Modularity::default())?;
    let comps: Vec<&Comps> = comps.iter().collect();
    let named = |entry: &str| match entry.starts_with('@') {
        true => {
            let group = groups::wanted(entry, &comps, arch).unwrap_or_default();
            group.into_iter().flat_map(|package| universe.parents(&package.name)).collect()
        }
        false => universe.candidates(entry).unwrap_or_default().concat(),
    };
    let ways = Ways::to(universe.parents(name), &wanting(&universe, packages, strict));
    let mut pulls: Vec<(Cost, Pull)> = Vec::new();
    for entry in entries {
        let ids = named(&entry.value).into_iter();
        let nearest = ids.filter_map(|id| Some((ways.0.get(&id)?.cost, id))).min();
        if let Some((cost, id)) = nearest {
            pulls.push((cost, Pull { entry, chain: ways.chain(id, packages) }));
        }
    }
    pulls.sort_by_key(|(cost, _)| *cost);
    Ok(pulls.into_iter().map(|(_, pull)| pull).collect())
}

/// By package, those that bring it in.
type Wanting = BTreeMap<PackageId, BTreeSet<(PackageId, By)>>;

fn wanting(universe: &Universe, packages: &[Parent], strict: &BTreeSet<&str>) -> Wanting {
    let providers = |dependency: &Dependency| {
        let mut providers = BTreeSet::new();
        each_part(dependency, |part| providers.extend(universe.providers(part)));
        providers
    };
    let mut wanting = Wanting::new();
    let mut want = |by: PackageId, wanted: PackageId, how: By| {
        let is_strict = how == By::Recommends && strict.contains(packages[wanted.0].layer.as_str());
        if by != wanted && !is_strict {
            wanting.entry(wanted).or_default().insert((by, how));
        }
    };
    for id in universe.all_parents() {
        let package = universe.package(id);
        for (dependencies, how) in [(&package.requires, By::Requires), (&package.recommends, By::Recommends)]
        {
            for dependency in dependencies {
                let providers = providers(dependency);
                // what it has itself it needs of nobody
                if !providers.contains(&id) {
                    providers.into_iter().for_each(|provider| want(id, provider, how));
                }
            }
        }
        for dependency in &package.supplements {
            providers(dependency).into_iter().for_each(|other| want(other, id, By::Recommends));
        }
    }
    wanting
}

/// Recommendations and packages on a way: less is better.
type Cost = (usize, usize);

/// The shortest ways from packages to one that was asked about.
struct Ways(BTreeMap<PackageId, Way>);

struct Way {
    cost: Cost,
    next: Option<(PackageId, By)>,
}

impl Ways {
    /// Dijkstra's.
    fn to(targets: Vec<PackageId>, wanting: &Wanting) -> Self {
        let mut ways: BTreeMap<PackageId, Way> = BTreeMap::new();
        let mut queue = BTreeSet::new();
        for target in targets {
            ways.insert(target, Way { cost: (0, 0), next: None });
            queue.insert(((0, 0), target));
        }
        while let Some(((weak, length), id)) = queue.pop_first() {
            for &(by, how) in wanting.get(&id).into_iter().flatten() {
                let cost = (weak + usize::from(how == By::Recommends), length + 1);
                if ways.get(&by).is_none_or(|known| cost < known.cost) {
                    ways.insert(by, Way { cost, next: Some((id, how)) });
                    queue.insert((cost, by));
                }
            }
        }
        Self(ways)
    }

    fn chain<'a>(&self, from: PackageId, packages: &'a [Parent]) -> Vec<Link<'a>> {
        let link = |id: PackageId, by| {
            let Parent { layer, package } = &packages[id.0];
            Link { layer, package: &package.nevra, by }
        };
        let mut chain = vec![link(from, None)];
        let mut at = from;
        while let Some((next, how)) = self.0.get(&at).and_then(|way| way.next) {
            chain.push(link(next, Some(how)));
            at = next;
        }
        chain
    }
}
