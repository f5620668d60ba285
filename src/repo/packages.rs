//! The packages of a repository, of which most are never looked at.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use rustc_hash::{FxHashMap, FxHashSet};

use super::RepoPackage;
use super::compact::{Compact, List, Writer};
use crate::digest::Digest;
use crate::package::{Dependency, Nevra};

/// The packages of a repository, each unpacked when it is first asked for.
///
/// They have numbers, in the order of the repository, and so have names: what a package, a capability or a path is
/// called.
#[derive(Clone, Debug)]
pub struct Packages {
    compact: Arc<Compact>,
    unpacked: Box<[OnceLock<Box<RepoPackage>>]>,
    dependencies: Box<[OnceLock<Arc<Dependency>>]>,
    /// What the repository's settings hide.
    left_out: FxHashSet<usize>,
    /// What has been added from file lists: by package, and the packages by path.
    files: FxHashMap<usize, Vec<String>>,
    owners: FxHashMap<String, Vec<usize>>,
    /// Packages that may come in although nobody asks for them.
    uninvited: Vec<usize>,
}

impl Packages {
    /// Takes the compact form.
    pub fn read(bytes: Vec<u8>) -> Result<Self> {
        let compact = Compact::read(bytes)?;
        let lists = [List::Obsoletes, List::Supplements, List::Enhances];
        let has_any =
            |package: &usize| lists.iter().any(|list| compact.list(*package, *list).next().is_some());
        Ok(Self {
            unpacked: vec![OnceLock::new(); compact.len()].into(),
            dependencies: vec![OnceLock::new(); compact.dependencies()].into(),
            left_out: FxHashSet::default(),
            files: FxHashMap::default(),
            owners: FxHashMap::default(),
            uninvited: (0..compact.len()).filter(has_any).collect(),
            compact: compact.into(),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.compact.len() - self.left_out.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their numbers, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..self.compact.len()).filter(|package| !self.left_out.contains(package))
    }

    /// The package with this number.
    pub fn get(&self, package: usize) -> &RepoPackage {
        self.unpacked[package].get_or_init(|| {
            let shared = |dependency: usize| {
                let slot = &self.dependencies[dependency];
                slot.get_or_init(|| self.compact.dependency(dependency).into()).clone()
            };
            let mut unpacked = Box::new(self.compact.package(package, shared));
            unpacked.files.extend(self.files.get(&package).into_iter().flatten().cloned());
            unpacked
        })
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &RepoPackage> {
        self.numbers().map(|package| self.get(package))
    }

    /// Those that are called `name`, in their order.
    pub fn called(&self, name: &str) -> impl Iterator<Item = &RepoPackage> {
        let name = self.compact.named(name);
        let providers = name.into_iter().flat_map(|name| self.compact.providers(name));
        let called = providers.filter(move |package| Some(self.compact.name_of(*package)) == name);
        called.filter(|package| !self.left_out.contains(package)).map(|package| self.get(package))
    }

    /// Those that are called `name`, provide it or have a file with this path.
    pub fn providing(&self, name: &str) -> impl Iterator<Item = usize> {
        let named = self.compact.named(name).into_iter().flat_map(|name| self.compact.providers(name));
        let owners = self.owners.get(name).into_iter().flatten().copied();
        named.chain(owners).filter(|package| !self.left_out.contains(package))
    }

    /// Name, version and architecture of each.
    pub fn nevras(&self) -> impl Iterator<Item = (usize, Nevra)> {
        self.numbers().map(|package| (package, self.compact.nevra(package)))
    }

    /// Digests of their files.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.numbers().filter_map(|package| self.compact.sha256(package))
    }

    /// All names, and the paths that came from file lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = (0..self.compact.names()).map(|name| self.compact.name(name));
        names.chain(self.owners.keys().map(String::as_str))
    }

    /// How many names have numbers.
    pub fn numbered_names(&self) -> usize {
        self.compact.names()
    }

    /// The name with this number.
    pub fn name(&self, name: usize) -> &str {
        self.compact.name(name)
    }

    /// The number of a name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.compact.named(name)
    }

    /// The name that a package is called by.
    pub fn name_of(&self, package: usize) -> usize {
        self.compact.name_of(package)
    }

    /// The names in a package's dependencies of some kinds.
    pub fn wanted<const N: usize>(&self, package: usize, kinds: [List; N]) -> impl Iterator<Item = usize> {
        let dependencies = kinds.into_iter().flat_map(move |kind| self.compact.list(package, kind));
        dependencies.map(|dependency| self.compact.wanted(dependency))
    }

    /// The names in all dependencies.
    pub fn wanted_by_any(&self) -> impl Iterator<Item = &str> {
        (0..self.compact.dependencies()).map(|dependency| self.compact.name(self.compact.wanted(dependency)))
    }

    /// Packages that obsolete, supplement or enhance others.
    pub fn uninvited(&self) -> impl Iterator<Item = usize> {
        self.uninvited.iter().copied().filter(|package| !self.left_out.contains(package))
    }

    /// Leaves out all but those that `keep` is true of.
    pub fn retain(&mut self, keep: impl Fn(&Nevra) -> bool) {
        let others = self.nevras().filter(|(_, nevra)| !keep(nevra)).map(|(package, _)| package);
        let others: Vec<usize> = others.collect();
        self.left_out.extend(others);
    }

    /// Adds files to packages, which are known by their digests (`pkgid`); what a package has already is not added again.
    pub fn add_files(&mut self, mut found: HashMap<Digest, Vec<String>>) {
        for package in 0..self.compact.len() {
            if found.is_empty() {
                return;
            }
            let digest = self.compact.sha256(package);
            let Some(mut new) = digest.and_then(|digest| found.remove(&digest)) else { continue };
            let own = self.compact.list(package, List::Files).map(|name| self.compact.name(name));
            let files = self.files.entry(package).or_default();
            let known: HashSet<&str> = own.chain(files.iter().map(String::as_str)).collect();
            new.retain(|path| !known.contains(path.as_str()));
            for path in &new {
                self.owners.entry(path.clone()).or_default().push(package);
            }
            files.append(&mut new);
            self.unpacked[package].take();
        }
    }
}

impl Default for Packages {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<RepoPackage>> for Packages {
    fn from(packages: Vec<RepoPackage>) -> Self {
        let mut writer = Writer::default();
        packages.iter().for_each(|package| writer.add_whole(package));
        writer.finish().and_then(Self::read).expect("packages in memory take less than 4 GiB")
    }
}

impl FromIterator<RepoPackage> for Packages {
    fn from_iter<I: IntoIterator<Item = RepoPackage>>(packages: I) -> Self {
        packages.into_iter().collect::<Vec<_>>().into()
    }
}
