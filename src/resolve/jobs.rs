//! A request as libsolv's jobs.

use std::collections::BTreeSet;

use super::edits::List;
use super::explain::{self, Problem, Unsatisfiable};
use super::modules::{Modularity, Profile};
use super::pool::{Action, Job, PackageId};
use super::rich::{ParseRichError, Rich};
use super::universe::Universe;
use super::{Ask, Request, groups, is_version, weak};
use crate::package::{Dependency, Nevra};
use crate::plan::{Override, OverrideTo, Sourced};
use crate::repo::comps::Comps;

/// Packages of which several versions may be there: dnf's `installonlypkgs`.
const INSTALL_ONLY: [&str; 6] = [
    "kernel",
    "kernel-PAE",
    "installonlypkg(kernel)",
    "installonlypkg(kernel-module)",
    "installonlypkg(vm)",
    "multiversion(kernel)",
];

/// All jobs of a request. Finds every entry that names nothing before giving up.
pub fn jobs<'a>(
    request: &Request<'a>,
    universe: &Universe<'a>,
    modularity: &Modularity<'a>,
) -> Result<Jobs<'a>, Unsatisfiable> {
    let mut builder = Builder {
        request,
        universe,
        modularity,
        jobs: Vec::new(),
        leaving: BTreeSet::new(),
        absent: Vec::new(),
        failed: Vec::new(),
    };
    builder.push(Ask::Setting, Action::Multiversion, universe.providing(&INSTALL_ONLY));
    builder.push(Ask::Setting, Action::Favor, favored(request, universe));
    builder.exclude_from_weak();
    request.packages.remove.iter().for_each(|entry| builder.remove(entry));
    request.packages.overrides.iter().for_each(|entry| builder.replace(entry));
    builder.keep_the_rest();
    // sorted, so that the order of a manifest's lines never decides; dnf asks for modules first, for groups last
    let mut install: Vec<_> = request.packages.install.iter().collect();
    let is_module = |entry: &Sourced<String>| modularity.profile(&entry.value, request.repos).is_some();
    install.sort_by_key(|entry| match entry.value.starts_with('@') {
        true if is_module(entry) => (0, &entry.value),
        true => (2, &entry.value),
        false => (1, &entry.value),
    });
    install.into_iter().for_each(|entry| builder.install(entry));
    match builder.failed.is_empty() {
        true => Ok(Jobs { jobs: builder.jobs, absent: builder.absent }),
        false => Err(Unsatisfiable::new(builder.failed)),
    }
}

/// A request as jobs.
pub struct Jobs<'a> {
    /// Each with who wants it done.
    pub jobs: Vec<(Ask<'a>, Job)>,
    /// Packages of groups that no repository has, by the entry that names the group.
    pub absent: Vec<(&'a Sourced<String>, &'a str)>,
}

struct Builder<'u, 'a> {
    request: &'u Request<'a>,
    modularity: &'u Modularity<'a>,
    universe: &'u Universe<'a>,
    jobs: Vec<(Ask<'a>, Job)>,
    /// Packages of the layers below that are removed or replaced.
    leaving: BTreeSet<PackageId>,
    absent: Vec<(&'a Sourced<String>, &'a str)>,
    /// Entries that name nothing.
    failed: Vec<Problem>,
}

impl<'a> Builder<'_, 'a> {
    fn push(&mut self, ask: Ask<'a>, action: Action, packages: Vec<PackageId>) {
        self.jobs.push((ask, Job { action, packages, dependency: None }));
    }

    fn remove(&mut self, entry: &'a Sourced<String>) {
        match self.universe.parents_named(&entry.value) {
            Ok(packages) if packages.is_empty() => {
                self.failed.push(explain::nothing_to_remove(self.universe, entry));
            }
            Ok(packages) => {
                self.leaving.extend(&packages);
                self.push(Ask::Remove(entry), Action::Erase, packages);
            }
            Err(error) => self.failed.push(explain::bad_entry(List::Remove, entry, &error.to_string())),
        }
    }

    /// An override erases the package below and installs its own, so that a kernel is replaced too. The
    /// versions it does not want are out of sight already.
    fn replace(&mut self, entry: &'a Sourced<Override>) {
        let parents = self.universe.parents(&entry.value.package);
        if self.is_in_place(&parents, &entry.value) {
            return;
        }
        let candidates = self.universe.available(&entry.value.package);
        if candidates.is_empty() {
            self.failed.push(explain::no_such_override(self.universe, entry));
        } else if !parents.is_empty() {
            self.leaving.extend(&parents);
            self.push(Ask::Override(entry), Action::Erase, parents);
            self.push(Ask::Override(entry), Action::Install, candidates);
        }
    }

    /// Whether the layers below have just what the override wants. A local file always replaces.
    fn is_in_place(&self, parents: &[PackageId], wanted: &Override) -> bool {
        let OverrideTo::Version(evr) = &wanted.to else { return false };
        let is_wanted = |&id| is_version(&self.universe.package(id).nevra.evr, evr);
        !parents.is_empty() && parents.iter().all(is_wanted)
    }

    fn keep_the_rest(&mut self) {
        for id in self.universe.all_parents() {
            if !self.leaving.contains(&id) {
                self.push(Ask::Stay, Action::Lock, vec![id]);
            }
        }
    }

    fn exclude_from_weak(&mut self) {
        let mut packages = weak::already_declined(self.universe);
        for entry in &self.request.packages.exclude_from_weak {
            match self.universe.available_named(&entry.value) {
                Ok(named) => packages.extend(named),
                Err(error) => {
                    self.failed.push(explain::bad_entry(List::ExcludeFromWeak, entry, &error.to_string()))
                }
            }
        }
        self.push(Ask::Setting, Action::ExcludeFromWeak, packages.into_iter().collect());
    }

    fn install(&mut self, entry: &'a Sourced<String>) {
        if entry.value.starts_with('@') {
            return match self.modularity.profile(&entry.value, self.request.repos) {
                Some(Ok(profile)) => self.profile(entry, &profile),
                Some(Err(error)) => self.failed.push(explain::bad_entry(List::Install, entry, &error)),
                None => self.group(entry),
            };
        }
        if entry.value.starts_with('(') {
            match self.rich(&entry.value) {
                Ok(job) => self.jobs.push((Ask::Install(entry), job)),
                Err(error) => self.failed.push(explain::bad_entry(List::Install, entry, &error.to_string())),
            }
            return;
        }
        match self.universe.candidates(&entry.value) {
            Ok(groups) if groups.is_empty() => {
                self.failed.push(explain::no_such_package(self.universe, entry));
            }
            Ok(groups) => groups.into_iter().for_each(|group| self.install_one_of(entry, group)),
            Err(error) => self.failed.push(explain::bad_entry(List::Install, entry, &error.to_string())),
        }
    }

    /// An entry that is a module: of its packages those that the profile names, in the module's versions.
    fn profile(&mut self, entry: &'a Sourced<String>, profile: &Profile<'a>) {
        for name in &profile.names {
            let named: Vec<PackageId> = self.universe.called(name).collect();
            let is_own = |&id: &PackageId| {
                profile.has(&self.universe.package(id).nevra) || self.universe.is_hotfix(self.request, id)
            };
            let own: Vec<PackageId> = named.iter().copied().filter(is_own).collect();
            match (own.is_empty(), named.is_empty()) {
                (false, _) => self.install_one_of(entry, own),
                (true, false) => self.install_one_of(entry, named),
                (true, true) => {
                    let reason = format!("its profile wants {name}, which no repository has");
                    self.failed.push(explain::bad_entry(List::Install, entry, &reason));
                }
            }
        }
    }

    /// An entry that is a group or an environment, `@core`, `@core/mandatory,optional`.
    fn group(&mut self, entry: &'a Sourced<String>) {
        let request = self.request;
        let comps: Vec<&'a Comps> = request.repos.iter().map(|repo| &repo.comps).collect();
        let wanted = match groups::wanted(&entry.value, &comps, request.arch) {
            Ok(wanted) => wanted,
            Err(error) => return self.failed.push(explain::no_such_group(entry, &comps, &error)),
        };
        for package in wanted {
            let arch = package.basearchonly.then(|| request.arch.rpm());
            let candidates = self.universe.of_group(&package.name, arch);
            if candidates.is_empty() {
                self.absent.push((entry, &package.name));
                continue;
            }
            match &package.requires {
                None => self.install_one_of(entry, candidates),
                Some(condition) => match self.rich(&format!("({} if {condition})", package.name)) {
                    Ok(job) => self.jobs.push((Ask::Install(entry), job)),
                    Err(error) => {
                        self.failed.push(explain::bad_entry(List::Install, entry, &error.to_string()))
                    }
                },
            }
        }
    }

    /// Asks for one of a group, unless a package below that stays is one.
    fn install_one_of(&mut self, entry: &'a Sourced<String>, mut group: Vec<PackageId>) {
        group.retain(|id| !self.leaving.contains(id));
        if !group.iter().any(|&id| self.universe.is_parent(id)) {
            self.push(Ask::Install(entry), Action::Install, group);
        }
    }

    /// An entry that is a rich dependency, `(qemu-guest-agent if kernel)`: it is met like a requirement.
    fn rich(&self, text: &str) -> Result<Job, ParseRichError> {
        let rich = Rich::parse(text)?;
        let packages = rich.wanted().into_iter().flat_map(|leaf| self.universe.providers(leaf)).collect();
        let dependency = Dependency { name: text.to_owned(), version: None, pre: false };
        let dependency = Some(self.universe.pool.intern(&dependency)?);
        Ok(Job { action: Action::Install, packages, dependency })
    }
}

fn favored(request: &Request, universe: &Universe) -> Vec<PackageId> {
    let keep = |nevra: &Nevra| request.favored.contains(nevra) && !request.update.contains(&nevra.name);
    universe.all_available().filter(|&id| keep(&universe.package(id).nevra)).collect()
}
