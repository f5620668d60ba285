//! Everything a request can be solved with, and what is kept out of the solver's sight, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use rustc_hash::FxHashMap;

use super::modules::Modularity;
use super::pool::{BadDependency, PackageId, Pool};
use super::reach::Reach;
use super::spec::{self, BadPattern, Form, Pattern};
use super::{Held, Request, is_version};
use crate::package::{Arch, Dependency, Evr, Nevra, source_name};
use crate::plan::{Override, OverrideTo, Sourced};
use crate::repo::{RepoMetadata, RepoPackage};

/// Where a package is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A layer below, by name.
    Layer(&'a str),
    /// A repository, by id.
    Repo(&'a str),
    /// A local file, as the override names it.
    File(&'a Path),
}

/// Why the solver must not see a package.
#[derive(Clone, Copy, Debug)]
pub enum Hidden<'a> {
    /// It is for another architecture.
    Arch,
    /// An `exclude` entry names it.
    Excluded(&'a Sourced<String>),
    /// An override wants another version.
    Overridden(&'a Sourced<Override>),
    /// A `remove` entry takes the package of this name away.
    Removed(&'a Sourced<String>),
    /// Another build of the source package is the one that all architectures take.
    OtherBuild(&'a str),
    /// The package of this name is held at another version.
    Held(&'a BTreeSet<Evr>),
    /// It is of a stream of a module that is not active, or a stream that is has a package of this name.
    Module,
}

impl Hidden<'_> {
    /// Whether other packages are weighed by the hidden one, as by dnf: it is excluded or of another stream.
    fn weighs(&self) -> bool {
        matches!(self, Self::Excluded(_) | Self::Module)
    }
}

impl fmt::Display for Hidden<'_> {
    /// Completes "PACKAGE ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arch => f.write_str("is for another architecture"),
            Self::Excluded(entry) => write!(f, "is excluded at {}", entry.origin),
            Self::Overridden(entry) => write!(f, "is not what the override at {} wants", entry.origin),
            Self::Removed(entry) => write!(f, "is of a name removed at {}", entry.origin),
            Self::Held(versions) => {
                let versions: Vec<String> = versions.iter().map(Evr::to_string).collect();
                write!(f, "is not {}, which is to be taken", versions.join(" or "))
            }
            Self::OtherBuild(file) => write!(f, "is not built from {file}, which all architectures have"),
            Self::Module => f.write_str("is not of the streams of modules that are active"),
        }
    }
}

/// The packages of a request, in libsolv and beside it.
pub struct Universe<'a> {
    /// The visible packages.
    pub pool: Pool,
    /// The others.
    pub hidden: Vec<(&'a RepoPackage, Source<'a>, Hidden<'a>)>,
    /// How many repositories there are.
    pub repos: usize,
    packages: Vec<(&'a RepoPackage, Source<'a>)>,
    parents: usize,
    names: FxHashMap<&'a str, Vec<PackageId>>,
    obsoletes: BTreeMap<&'a str, Vec<(PackageId, &'a Dependency)>>,
}

impl<'a> Universe<'a> {
    /// Sorts out what of the packages in reach may be seen and fills the pool: the layers below first, then local files,
    /// then repositories by priority and cost, as dnf does.
    pub fn new(
        request: &Request<'a>,
        reach: &Reach,
        modularity: &Modularity<'a>,
    ) -> Result<Self, BadDependency> {
        let mut universe = Self {
            pool: Pool::new(request.arch),
            hidden: Vec::new(),
            repos: request.repos.len(),
            packages: Vec::new(),
            parents: request.parents.len(),
            names: FxHashMap::default(),
            obsoletes: BTreeMap::new(),
        };
        let parents = universe.pool.add_repo(99, 1000, request.parents.iter().map(|p| &p.package))?;
        universe.pool.set_installed(parents);
        universe.packages = request.parents.iter().map(|p| (&p.package, Source::Layer(&p.layer))).collect();

        let offered = |(repo, numbers): (&&'a RepoMetadata, &Vec<usize>)| -> Vec<&'a RepoPackage> {
            numbers.iter().map(|number| repo.packages.get(*number)).collect()
        };
        let offers: Vec<Vec<&RepoPackage>> = request.repos.iter().zip(reach).map(offered).collect();
        let verdicts = Verdicts::new(request, &offers);
        let local = request.packages.overrides.iter().filter_map(|entry| match &entry.value.to {
            OverrideTo::File(path) => {
                let (package, source) = (request.local.get(path)?, Source::File(path));
                Some((package, source, verdicts.on(package, source)))
            }
            OverrideTo::Version(_) => None,
        });
        universe.add(99, 1000, local)?;
        let mut repos: Vec<_> = request.repos.iter().zip(offers).collect();
        repos.sort_by_key(|(repo, _)| (repo.priority, repo.cost));
        let mut concealed = Vec::new();
        for (repo, packages) in repos {
            let judged = packages.into_iter().map(|package| {
                let source = Source::Repo(repo.id.as_str());
                let inactive = || modularity.hides(package, repo).then_some(Hidden::Module);
                (package, source, verdicts.on(package, source).or_else(inactive))
            });
            let hidden = universe.hidden.len();
            universe.add(repo.priority, repo.cost, judged)?;
            concealed.push((repo, hidden..universe.hidden.len()));
        }
        for (repo, hidden) in concealed {
            let concealed = universe.hidden[hidden].iter().filter(|(.., why)| why.weighs());
            universe.pool.add_hidden(repo.priority, repo.cost, concealed.map(|(package, ..)| *package));
        }
        universe.pool.seal(universe.packages.iter().map(|(package, _)| &package.files[..]));
        for (index, (package, _)) in universe.packages.iter().enumerate() {
            universe.names.entry(&package.nevra.name).or_default().push(PackageId(index));
            for dependency in &package.obsoletes {
                universe.obsoletes.entry(&dependency.name).or_default().push((PackageId(index), dependency));
            }
        }
        Ok(universe)
    }

    fn add(
        &mut self,
        priority: i32,
        cost: i32,
        packages: impl Iterator<Item = (&'a RepoPackage, Source<'a>, Option<Hidden<'a>>)>,
    ) -> Result<(), BadDependency> {
        let start = self.packages.len();
        for (package, source, hidden) in packages {
            match hidden {
                Some(hidden) => self.hidden.push((package, source, hidden)),
                None => self.packages.push((package, source)),
            }
        }
        let visible = self.packages[start..].iter().map(|(package, _)| *package);
        self.pool.add_repo(priority, cost, visible)?;
        Ok(())
    }

    /// The package with this id.
    pub fn package(&self, id: PackageId) -> &'a RepoPackage {
        self.packages[id.0].0
    }

    /// Its name.
    pub fn name(&self, id: PackageId) -> &'a str {
        &self.package(id).nevra.name
    }

    /// Where it is from.
    pub fn source(&self, id: PackageId) -> Source<'a> {
        self.packages[id.0].1
    }

    /// Whether it belongs to a layer below.
    pub fn is_parent(&self, id: PackageId) -> bool {
        id.0 < self.parents
    }

    /// The packages of the layers below.
    pub fn all_parents(&self) -> impl Iterator<Item = PackageId> + use<> {
        (0..self.parents).map(PackageId)
    }

    /// The packages the layer could add.
    pub fn all_available(&self) -> impl Iterator<Item = PackageId> + use<> {
        (self.parents..self.packages.len()).map(PackageId)
    }

    /// Whether a package is from a repository that modules do not hide.
    pub fn is_hotfix(&self, request: &Request, id: PackageId) -> bool {
        let Source::Repo(source) = self.source(id) else { return false };
        request.repos.iter().any(|repo| repo.id == source && repo.module_hotfixes)
    }

    /// The packages called `name` of the layers below.
    pub fn parents(&self, name: &str) -> Vec<PackageId> {
        self.called(name).filter(|&id| self.is_parent(id)).collect()
    }

    /// The packages called `name` the layer could add.
    pub fn available(&self, name: &str) -> Vec<PackageId> {
        self.called(name).filter(|&id| !self.is_parent(id)).collect()
    }

    /// The packages called `name`, here or in the layers below, in their order.
    pub fn called(&self, name: &str) -> impl Iterator<Item = PackageId> {
        self.names.get(name).into_iter().flatten().copied()
    }

    /// The packages of the layers below that a NEVRA form names.
    pub fn parents_named(&self, text: &str) -> Result<Vec<PackageId>, BadPattern> {
        let all: Vec<PackageId> = self.all_parents().collect();
        let found = spec::by_nevra(text, &all, |&id| &self.package(id).nevra)?;
        Ok(found.into_iter().copied().collect())
    }

    /// The packages the layer could add that a NEVRA form names.
    pub fn available_named(&self, text: &str) -> Result<Vec<PackageId>, BadPattern> {
        let all: Vec<PackageId> = (0..self.packages.len()).map(PackageId).collect();
        let found = spec::by_nevra(text, &all, |&id| &self.package(id).nevra)?;
        Ok(found.into_iter().copied().filter(|&id| !self.is_parent(id)).collect())
    }

    /// The packages that provide any of the capabilities.
    pub fn providing(&self, names: &[&str]) -> Vec<PackageId> {
        let plain = |name: &&str| Dependency { name: (*name).to_owned(), version: None, pre: false };
        names.iter().flat_map(|name| self.providers(&plain(name))).collect()
    }

    /// The packages that provide a dependency. Those of a pool have been interned once, so they parse.
    pub fn providers(&self, dependency: &Dependency) -> Vec<PackageId> {
        self.pool.intern(dependency).map_or_else(|_| Vec::new(), |id| self.pool.providers(id))
    }

    /// What an `install` entry names: of each group one package is to be there, whichever fits best.
    ///
    /// hawkey's `Subject._get_best_selectors`, dnf's `Base.install`.
    pub fn candidates(&self, text: &str) -> Result<Vec<Vec<PackageId>>, BadPattern> {
        let all = || (0..self.packages.len()).map(PackageId);
        for form in Form::all(text)? {
            let matches = |id: &PackageId| form.matches(&self.package(*id).nevra);
            let found: Vec<_> = match form.plain_name() {
                Some(name) => self.called(name).filter(matches).collect(),
                None => all().filter(matches).collect(),
            };
            if !found.is_empty() {
                return Ok(self.grouped(found, &form, text));
            }
        }
        if spec::is_glob(text) {
            let whole = Pattern::new(text)?;
            let found: Vec<_> =
                all().filter(|&id| spec::matches_whole(&whole, &self.package(id).nevra)).collect();
            if !found.is_empty() {
                return Ok(self.by_name(found));
            }
        }
        let found = self.with_capability(text)?;
        if !found.is_empty() {
            return Ok(if spec::is_glob(text) && !spec::is_path(text) {
                self.by_name(found)
            } else {
                vec![found]
            });
        }
        if spec::is_path(text) {
            let path = Pattern::new(text)?;
            let found: Vec<_> =
                all().filter(|&id| self.package(id).files.iter().any(|file| path.matches(file))).collect();
            return Ok(if found.is_empty() { Vec::new() } else { vec![found] });
        }
        Ok(Vec::new())
    }

    fn grouped(&self, found: Vec<PackageId>, form: &Form, text: &str) -> Vec<Vec<PackageId>> {
        let mut groups = match (form.is_arch_glob(), spec::is_glob(text)) {
            (true, _) => self.by_key(found, |nevra| (nevra.name.as_str(), nevra.arch.as_str())),
            (false, true) => self.by_name(found),
            (false, false) => vec![found],
        };
        if form.is_just_name() || form.is_arch_glob() {
            for group in &mut groups {
                group.extend(self.obsoleters(group));
            }
        }
        groups
    }

    fn by_name(&self, found: Vec<PackageId>) -> Vec<Vec<PackageId>> {
        self.by_key(found, |nevra| nevra.name.as_str())
    }

    fn by_key<K: Ord>(&self, found: Vec<PackageId>, key: impl Fn(&'a Nevra) -> K) -> Vec<Vec<PackageId>> {
        let mut groups: BTreeMap<K, Vec<PackageId>> = BTreeMap::new();
        for id in found {
            groups.entry(key(&self.package(id).nevra)).or_default().push(id);
        }
        groups.into_values().collect()
    }

    /// What a package of a group names: one of any version is to be there, or what obsoletes it.
    ///
    /// dnf's `Base._finalize_comps_trans`.
    pub fn of_group(&self, name: &str, arch: Option<&str>) -> Vec<PackageId> {
        let fits = |id: &PackageId| arch.is_none_or(|arch| self.package(*id).nevra.arch == arch);
        let mut found: Vec<PackageId> = self.called(name).filter(fits).collect();
        found.extend(self.obsoleters(&found));
        found
    }

    /// Packages that obsolete one of `found` and are not among them.
    fn obsoleters(&self, found: &[PackageId]) -> Vec<PackageId> {
        let mut all = BTreeSet::new();
        for &old in found {
            let obsoletes = self.obsoletes.get(self.name(old)).into_iter().flatten();
            all.extend(obsoletes.filter(|(_, d)| self.pool.matches_nevra(old, d)).map(|(id, _)| *id));
        }
        all.retain(|id| !found.contains(id));
        all.into_iter().collect()
    }

    fn with_capability(&self, text: &str) -> Result<Vec<PackageId>, BadPattern> {
        let Some(capability) = spec::capability(text) else { return Ok(Vec::new()) };
        if !spec::is_glob(&capability.name) {
            return Ok(self.providers(&capability));
        }
        let pattern = Pattern::new(&capability.name)?;
        let provided = self.packages.iter().flat_map(|(package, _)| &package.provides);
        let names: BTreeSet<&str> =
            provided.map(|d| d.name.as_str()).filter(|name| pattern.matches(name)).collect();
        let wanted = names.into_iter().map(|name| Dependency { name: name.to_owned(), ..capability.clone() });
        let found: BTreeSet<PackageId> = wanted.flat_map(|dependency| self.providers(&dependency)).collect();
        Ok(found.into_iter().collect())
    }
}

/// The entries that hide packages.
struct Verdicts<'a> {
    arch: Arch,
    excluded: BTreeMap<&'a Nevra, &'a Sourced<String>>,
    overrides: BTreeMap<&'a str, &'a Sourced<Override>>,
    removed: BTreeMap<&'a str, &'a Sourced<String>>,
    builds: &'a BTreeMap<String, String>,
    held: &'a Held,
}

impl<'a> Verdicts<'a> {
    fn new(request: &Request<'a>, offers: &[Vec<&'a RepoPackage>]) -> Self {
        let nevras: Vec<&'a Nevra> = offers.iter().flatten().map(|package| &package.nevra).collect();
        let mut excluded = BTreeMap::new();
        for entry in &request.packages.exclude {
            // a pattern that can't be read excludes nothing; manifests are checked when they are compiled
            for nevra in spec::by_nevra(&entry.value, &nevras, |n| n).unwrap_or_default() {
                excluded.entry(*nevra).or_insert(entry);
            }
        }
        let mut removed = BTreeMap::new();
        for entry in &request.packages.remove {
            let parents = spec::by_nevra(&entry.value, request.parents, |p| &p.package.nevra);
            for parent in parents.unwrap_or_default() {
                removed.insert(parent.package.nevra.name.as_str(), entry);
            }
        }
        let overrides =
            request.packages.overrides.iter().map(|entry| (entry.value.package.as_str(), entry)).collect();
        Self { arch: request.arch, excluded, overrides, removed, builds: request.builds, held: request.held }
    }

    fn on(&self, package: &RepoPackage, source: Source) -> Option<Hidden<'a>> {
        let nevra = &package.nevra;
        if !self.arch.runs(&nevra.arch) {
            return Some(Hidden::Arch);
        }
        if let Source::File(_) = source {
            return None;
        }
        if let Some(entry) = self.excluded.get(nevra) {
            return Some(Hidden::Excluded(entry));
        }
        if let Some(entry) = self.overrides.get(nevra.name.as_str()) {
            let wanted = match &entry.value.to {
                OverrideTo::Version(evr) => is_version(&nevra.evr, evr),
                OverrideTo::File(_) => false,
            };
            if !wanted {
                return Some(Hidden::Overridden(entry));
            }
        }
        let build = self.builds.get(source_name(&package.source)).filter(|build| **build != package.source);
        if let Some(build) = build {
            return Some(Hidden::OtherBuild(build));
        }
        if let Some(versions) = self.held.get(&nevra.name).filter(|held| !held.contains(&nevra.evr)) {
            return Some(Hidden::Held(versions));
        }
        self.removed.get(nevra.name.as_str()).map(|entry| Hidden::Removed(entry))
    }
}
