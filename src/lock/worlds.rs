//! Small worlds for tests: a stream in a folder of its own, its repository in memory; and random ones, of which every
//! set of packages can be listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{LayerLock, LockedPackage, Lockfile, Metadata, Update, lock, write};
use crate::digest::Digest;
use crate::image::reference::Reference;
use crate::manifest;
use crate::package::{Arch, Comparison, Dependency, Nevra};
use crate::pkglist::PackageSet;
use crate::plan::{self, Plan};
use crate::progress::Silent;
use crate::repo::{Advisory, Paths, RepoMetadata, RepoPackage};

/// A stream and what the repository `os` has for each architecture.
pub struct World {
    pub dir: tempfile::TempDir,
    arches: Vec<Arch>,
    pub advisories: Vec<Advisory>,
    pub packages: BTreeMap<&'static str, Vec<String>>,
}

impl World {
    /// `same_evr` is the value of the key; `layers` are names and packages to install.
    pub fn new(same_evr: &str, layers: &[(&str, &[&str])], offers: &[(&'static str, &[&str])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("manifests/s");
        fs::create_dir_all(&folder).unwrap();
        let arches: Vec<&str> = offers.iter().map(|(arch, _)| *arch).collect();
        let names: Vec<&str> = layers.iter().map(|(name, _)| *name).collect();
        let stream = format!(
            "arches = {arches:?}\nlayers = {names:?}\nsame-evr = {same_evr}\n\
             [os]\nid = 'rhel'\nname = 'RHEL'\nversion = '9.6'\n\
             [repos.os]\nbaseurl = 'file:///os/$basearch'\ngpgcheck = false\n"
        );
        fs::write(folder.join("stream.toml"), stream).unwrap();
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let packages = offers.iter().map(|(arch, list)| (*arch, owned(list))).collect();
        let arches = arches.iter().map(|arch| arch.parse().unwrap()).collect();
        let world = Self { dir, arches, packages, advisories: Vec::new() };
        layers.iter().for_each(|(name, install)| world.install(name, install));
        world
    }

    /// Makes a layer install these.
    pub fn install(&self, layer: &str, entries: &[&str]) {
        let manifest = self.dir.path().join(format!("manifests/s/{layer}.toml"));
        fs::write(manifest, format!("[packages]\ninstall = {entries:?}\n")).unwrap();
    }

    pub fn try_lock(&self, update: &Update) -> Result<Vec<LayerLock>> {
        let plan = |arch: &Arch| manifest::load(&self.dir.path().join("manifests"), "s", *arch);
        let plans: Vec<Plan> = self.arches.iter().map(plan).collect::<Result<_, _>>()?;
        let layers: Vec<&str> = plans[0].layers.iter().map(|layer| layer.name.as_str()).collect();
        let lockfiles = self.dir.path().join("lockfiles");
        let locks = lock(&plans, &layers, &lockfiles, update, self, &Silent)?;
        write(&lockfiles, "s", locks.iter().map(|result| &result.lock))?;
        Ok(locks)
    }

    /// `base.x86_64: app-1-1 lib-2-1` of each lock.
    pub fn lock(&self) -> Vec<String> {
        self.update(&Update::Nothing)
    }

    pub fn update(&self, update: &Update) -> Vec<String> {
        let locks = self.try_lock(update).unwrap_or_else(|error| panic!("{error:#}"));
        let show = |LayerLock { lock, .. }: &LayerLock| {
            let packages: Vec<String> =
                lock.packages.iter().map(|p| format!("{}-{}", p.name, p.evr)).collect();
            format!("{}.{}: {}", lock.layer, lock.arch, packages.join(" "))
        };
        locks.iter().map(show).collect()
    }

    pub fn refused(&self) -> String {
        let error = self.try_lock(&Update::Nothing).unwrap_err();
        assert!(!self.dir.path().join("lockfiles").exists());
        format!("{error:#}")
    }

    fn offer(&self, repo: &plan::Repo) -> RepoMetadata {
        let arch = repo.baseurl[0].rsplit('/').next().unwrap();
        let packages = &self.packages[arch];
        RepoMetadata {
            id: repo.id.clone(),
            revision: 1,
            repomd: Digest::of(packages.concat()),
            priority: repo.priority,
            cost: repo.cost,
            packages: packages.iter().map(|text| package(text, arch)).collect(),
            advisories: vec![],
            comps: Default::default(),
            modules: Default::default(),
            module_hotfixes: false,
        }
    }
}

impl Metadata for World {
    fn newest(&self, repos: &[&plan::Repo]) -> Result<Vec<RepoMetadata>> {
        Ok(repos.iter().map(|repo| self.offer(repo)).collect())
    }

    fn advisories(&self, _: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()> {
        metadata.advisories = self.advisories.clone();
        Ok(())
    }

    fn filelists(&self, _: &mut [(&plan::Repo, &mut RepoMetadata)], _: &Paths) -> Result<()> {
        bail!("no path is asked for")
    }

    fn comps(&self, _: &plan::Repo, _: &mut RepoMetadata) -> Result<()> {
        Ok(())
    }

    fn recorded(&self, _: &plan::Repo, _: &Digest) -> Result<Option<RepoMetadata>> {
        Ok(None)
    }

    fn locked(&self, plan: &Plan, locked: &LockedPackage) -> Result<RepoPackage> {
        Ok(package(&format!("{} {}", locked.name, locked.evr), plan.stream.arch.rpm()))
    }

    fn image(&self, _: &Plan, image: &Reference) -> Result<PackageSet> {
        bail!("no image {image}")
    }

    fn image_rpmdb(&self, _: &Plan, image: &Reference) -> Result<Vec<RepoPackage>> {
        bail!("no image {image}")
    }

    fn whereabouts(&self, _: &Plan, _: &Lockfile, _: &LockedPackage) -> Option<String> {
        None
    }

    fn local(&self, _: &Path) -> Result<RepoPackage> {
        bail!("there are no local files")
    }
}

/// `NAME EVR; needs A = 1-1, B; source NAME`
fn package(text: &str, arch: &str) -> RepoPackage {
    let mut parts = text.split("; ");
    let (name, evr) = parts.next().unwrap().split_once(' ').unwrap();
    let nevra = Nevra { name: name.into(), evr: evr.parse().unwrap(), arch: arch.into() };
    let dependency = |text: &str| {
        let (name, version) = text.split_once(" = ").map_or((text, None), |(name, evr)| (name, Some(evr)));
        let version = version.map(|evr| (Comparison::Eq, evr.parse().unwrap()));
        Dependency { name: name.into(), version, pre: false }
    };
    let mut package = RepoPackage {
        sha256: Some(Digest::of(nevra.to_string())),
        location: format!("{nevra}.rpm"),
        source: format!("{name}-{evr}.src.rpm"),
        provides: vec![dependency(&format!("{name} = {evr}")).into()],
        nevra,
        ..RepoPackage::default()
    };
    for part in parts {
        match part.split_once(' ').unwrap() {
            ("needs", list) => {
                package.requires = list.split(", ").map(|text| dependency(text).into()).collect()
            }
            ("source", source) => package.source = format!("{source}-{evr}.src.rpm"),
            (other, _) => panic!("{other}"),
        }
    }
    package
}

/// What a random world offers: by name and version the needs, a name and perhaps a version.
pub type Offer = BTreeMap<(usize, usize), Vec<(usize, Option<usize>)>>;

pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What two architectures offer, much of it the same.
pub fn random_offer(rng: &mut ChaCha8Rng) -> [Offer; 2] {
    let mut offers = [Offer::new(), Offer::new()];
    for name in 0..NAMES.len() {
        for version in 1..=3 {
            let mut needs = || -> Vec<(usize, Option<usize>)> {
                let later: Vec<usize> = (name + 1..NAMES.len()).collect();
                let need = |rng: &mut ChaCha8Rng| {
                    let version = rng.gen_bool(0.5).then(|| rng.gen_range(1..=3));
                    later.choose(rng).map(|name| (*name, version))
                };
                (0..rng.gen_range(0..=2)).filter_map(|_| need(rng)).collect()
            };
            let common = needs();
            let own = needs();
            let own_instead = rng.gen_bool(0.15);
            for (index, offer) in offers.iter_mut().enumerate() {
                if rng.gen_bool(0.75) {
                    let needs = if index == 1 && own_instead { &own } else { &common };
                    offer.insert((name, version), needs.clone());
                }
            }
        }
    }
    offers
}

/// Every set of packages, a version or none of each name, that has what is wanted and all it needs.
pub fn valid(offer: &Offer, wanted: &[usize]) -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for code in 0..256 {
        let set = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3];
        let complete = (0..4).filter(|name| set[*name] > 0).all(|name| {
            offer.get(&(name, set[name])).is_some_and(|needs| {
                needs.iter().all(|(other, version)| {
                    set[*other] > 0 && version.is_none_or(|version| version == set[*other])
                })
            })
        });
        if complete && wanted.iter().all(|name| set[*name] > 0) {
            all.push(set);
        }
    }
    all
}

/// The packages in the notation of [`World`].
pub fn text(offer: &Offer) -> Vec<String> {
    let line = |(&(name, version), needs): (_, &Vec<_>)| {
        let need = |&(name, version): &(usize, Option<usize>)| match version {
            Some(version) => format!("{} = {version}-1", NAMES[name]),
            None => NAMES[name].to_owned(),
        };
        let needs: Vec<String> = needs.iter().map(need).collect();
        let needs = if needs.is_empty() { String::new() } else { format!("; needs {}", needs.join(", ")) };
        format!("{} {version}-1{needs}", NAMES[name])
    };
    offer.iter().map(line).collect()
}

/// The versions of a lock's packages, 0 for none.
pub fn versions(locked: &LayerLock) -> [usize; 4] {
    let mut versions = [0; 4];
    for package in &locked.lock.packages {
        let name = NAMES.iter().position(|name| *name == package.name).unwrap();
        versions[name] = package.evr.version.parse().unwrap();
    }
    versions
}
