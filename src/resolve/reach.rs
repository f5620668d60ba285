//! Which packages of the repositories can matter to a request.
//!
//! Of tens of thousands a layer's few hundred, and what they could require, are a small part; the solver is told of
//! this part alone. Its answer is the same: libsolv itself makes rules of a package only if a job names it or a rule
//! already made leads there (`solver_addpkgrulesforsolvable`, `solver_addpkgrulesforupdaters` and
//! `solver_addpkgrulesforweak` in `rules.c`), and breaks ties by the order of packages, which a part keeps. What is found
//! here is more than libsolv finds:
//!
//! * what an entry of the manifest could name, however it is read;
//! * what a package in reach, below or local requires, recommends or suggests, whatever the version, and in a rich
//!   dependency whatever its place;
//! * every version of a package in reach or below, in every repository;
//! * what obsoletes a name in reach, and what supplements or enhances something there: always if by a rich dependency
//!   or a path.

use rustc_hash::FxHashSet;

use super::modules::Modularity;
use super::rich::Rich;
use super::spec::{self, Form, Pattern};
use super::{Request, groups};
use crate::package::Dependency;
use crate::repo::compact::List;
use crate::repo::comps::Comps;
use crate::repo::{Packages, RepoPackage};

/// Numbers of packages by repository, in the order of the request's; ascending.
pub type Reach = Vec<Vec<usize>>;

/// All packages.
pub fn everything(request: &Request) -> Reach {
    request.repos.iter().map(|repo| repo.packages.numbers().collect()).collect()
}

/// The packages that can matter.
pub fn reach(request: &Request, modularity: &Modularity) -> Reach {
    let repos: Vec<&Packages> = request.repos.iter().map(|repo| &repo.packages).collect();
    let mut search = Search {
        reached: repos
            .iter()
            .map(|repo| vec![false; repo.numbers().last().map_or(0, |last| last + 1)])
            .collect(),
        asked: repos.iter().map(|repo| vec![false; repo.numbered_names()]).collect(),
        repos,
        given: FxHashSet::default(),
        wanted: FxHashSet::default(),
        left: Vec::new(),
    };
    let packages = request.packages;
    for entry in packages.install.iter().chain(&packages.exclude).chain(&packages.exclude_from_weak) {
        match entry.value.starts_with('@') {
            true => search.module_or_group(&entry.value, request, modularity),
            false => search.entry(&entry.value),
        }
    }
    packages.overrides.iter().for_each(|entry| search.ask(&entry.value.package));
    let below = request.parents.iter().map(|parent| &parent.package);
    below.chain(request.local.values()).for_each(|package| search.given(package));
    search.close();
    let numbers = |reached: Vec<bool>| (0..reached.len()).filter(|package| reached[*package]).collect();
    search.reached.into_iter().map(numbers).collect()
}

struct Search<'a> {
    repos: Vec<&'a Packages>,
    /// By repository and number of a package.
    reached: Vec<Vec<bool>>,
    /// By repository and number of a name: packages with these are in reach.
    asked: Vec<Vec<bool>>,
    /// What packages that are no repository's provide, and what they want.
    given: FxHashSet<&'a str>,
    wanted: FxHashSet<&'a str>,
    /// Packages in reach of which it is not known yet what they want.
    left: Vec<(usize, usize)>,
}

impl<'a> Search<'a> {
    /// What an entry that is a module, a group or an environment names.
    fn module_or_group(&mut self, entry: &str, request: &Request, modularity: &Modularity) {
        if let Some(Ok(profile)) = modularity.profile(entry, request.repos) {
            profile.names.iter().for_each(|name| self.ask(name));
        }
        let comps: Vec<&Comps> = request.repos.iter().map(|repo| &repo.comps).collect();
        for package in groups::wanted(entry, &comps, request.arch).into_iter().flatten() {
            self.ask(&package.name);
            package.requires.iter().for_each(|condition| self.dependency(condition));
        }
    }

    /// Whatever an entry can name. One that can't be read names nothing.
    fn entry(&mut self, text: &str) {
        self.dependency(text);
        let forms = Form::all(text).unwrap_or_default();
        forms.iter().filter_map(Form::plain_name).for_each(|name| self.ask(name));
        let capability = spec::capability(text).map_or_else(|| text.to_owned(), |capability| capability.name);
        let Ok(capability) = Pattern::new(&capability) else { return };
        if let Pattern::Text(name) = &capability {
            return self.ask(name);
        }
        for repo in 0..self.repos.len() {
            let packages = self.repos[repo];
            packages.names().filter(|name| capability.matches(name)).for_each(|name| self.ask(name));
            for (package, nevra) in packages.nevras() {
                if forms.iter().any(|form| form.matches(&nevra)) || spec::matches_whole(&capability, &nevra) {
                    self.add(repo, package);
                }
            }
        }
    }

    /// What a package that is there whatever happens wants.
    fn given(&mut self, package: &'a RepoPackage) {
        let name = |dependency: &'a std::sync::Arc<Dependency>| dependency.name.as_str();
        self.given.insert(&package.nevra.name);
        self.given.extend(package.provides.iter().map(name));
        self.ask(&package.nevra.name);
        let wanted = package.requires.iter().chain(&package.recommends).chain(&package.suggests);
        for name in wanted.map(name) {
            if self.wanted.insert(name) {
                self.dependency(name);
            }
        }
    }

    fn dependency(&mut self, text: &str) {
        match text.starts_with('(') {
            // what is malformed is told of when libsolv is to be told
            true => Rich::parse(text).iter().flat_map(Rich::leaves).for_each(|leaf| self.ask(&leaf.name)),
            false => self.ask(text),
        }
    }

    /// Reaches all that provides a name.
    fn ask(&mut self, name: &str) {
        for repo in 0..self.repos.len() {
            let packages = self.repos[repo];
            let number = packages.named(name);
            if number.is_none_or(|number| !std::mem::replace(&mut self.asked[repo][number], true)) {
                packages.providing(name).for_each(|package| self.add(repo, package));
            }
        }
    }

    fn add(&mut self, repo: usize, package: usize) {
        if !std::mem::replace(&mut self.reached[repo][package], true) {
            self.left.push((repo, package));
        }
    }

    /// Goes on until nothing more is in reach.
    fn close(&mut self) {
        while !self.left.is_empty() {
            while let Some((repo, package)) = self.left.pop() {
                let packages = self.repos[repo];
                let wanted = packages.wanted(package, [List::Requires, List::Recommends, List::Suggests]);
                for name in wanted.chain([packages.name_of(package)]) {
                    if !self.asked[repo][name] {
                        self.dependency(packages.name(name));
                        self.asked[repo][name] = true;
                    }
                }
            }
            for repo in 0..self.repos.len() {
                for package in self.repos[repo].uninvited() {
                    if !self.reached[repo][package] && self.invites_itself(repo, package) {
                        self.add(repo, package);
                    }
                }
            }
        }
    }

    fn invites_itself(&self, repo: usize, package: usize) -> bool {
        let packages = self.repos[repo];
        packages.wanted(package, [List::Obsoletes]).any(|name| self.asked[repo][name])
            || packages.wanted(package, [List::Supplements, List::Enhances]).any(|name| {
                let name = packages.name(name);
                name.starts_with(['(', '/']) || self.given.contains(name) || self.is_provided(name)
            })
    }

    fn is_provided(&self, name: &str) -> bool {
        let all = self.repos.iter().zip(&self.reached);
        all.into_iter().any(|(packages, reached)| packages.providing(name).any(|package| reached[package]))
    }
}

#[cfg(test)]
mod tests;
