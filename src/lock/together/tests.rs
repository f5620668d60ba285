//! Architectures that lag, with metadata in memory; and small random worlds, in which every combination is tried.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::digest::Digest;
use crate::lock::{LayerLock, Metadata, Update, lock, write};
use crate::manifest;
use crate::package::{Comparison, Dependency, Nevra};
use crate::plan::{self, Plan};
use crate::progress::Silent;
use crate::repo::{RepoMetadata, RepoPackage};

/// A stream and what the repository `os` has for each architecture.
struct World {
    dir: tempfile::TempDir,
    arches: Vec<Arch>,
    packages: BTreeMap<&'static str, Vec<String>>,
}

impl World {
    /// `same_evr` is the value of the key; `layers` are names and packages to install.
    fn new(same_evr: &str, layers: &[(&str, &[&str])], offers: &[(&'static str, &[&str])]) -> Self {
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
        for (name, install) in layers {
            let text = format!("[packages]\ninstall = {install:?}\n");
            fs::write(folder.join(format!("{name}.toml")), text).unwrap();
        }
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let packages = offers.iter().map(|(arch, list)| (*arch, owned(list))).collect();
        Self { dir, arches: arches.iter().map(|arch| arch.parse().unwrap()).collect(), packages }
    }

    fn try_lock(&self, update: &Update) -> Result<Vec<LayerLock>> {
        let plan = |arch: &Arch| manifest::load(&self.dir.path().join("manifests"), "s", *arch);
        let plans: Vec<Plan> = self.arches.iter().map(plan).collect::<Result<_, _>>()?;
        let layers: Vec<&str> = plans[0].layers.iter().map(|layer| layer.name.as_str()).collect();
        let lockfiles = self.dir.path().join("lockfiles");
        let locks = lock(&plans, &layers, &lockfiles, update, self, &Silent)?;
        write(&lockfiles, "s", locks.iter().map(|result| &result.lock))?;
        Ok(locks)
    }

    /// `base.x86_64: app-1-1 lib-2-1` of each lock.
    fn lock(&self) -> Vec<String> {
        let locks = self.try_lock(&Update::Nothing).unwrap_or_else(|error| panic!("{error:#}"));
        let show = |LayerLock { lock, .. }: &LayerLock| {
            let packages: Vec<String> =
                lock.packages.iter().map(|p| format!("{}-{}", p.name, p.evr)).collect();
            format!("{}.{}: {}", lock.layer, lock.arch, packages.join(" "))
        };
        locks.iter().map(show).collect()
    }

    fn refused(&self) -> String {
        let error = self.try_lock(&Update::Nothing).unwrap_err();
        assert!(!self.dir.path().join("lockfiles").exists());
        format!("{error:#}")
    }
}

impl Metadata for World {
    fn newest(&self, repo: &plan::Repo) -> Result<RepoMetadata> {
        let arch = repo.baseurl[0].rsplit('/').next().unwrap();
        let packages = &self.packages[arch];
        Ok(RepoMetadata {
            id: repo.id.clone(),
            revision: 1,
            repomd: Digest::of(packages.concat()),
            priority: repo.priority,
            cost: repo.cost,
            packages: packages.iter().map(|text| package(text, arch)).collect(),
            advisories: vec![],
        })
    }

    fn filelists(&self, _: &plan::Repo, _: &mut RepoMetadata) -> Result<()> {
        bail!("no path is asked for")
    }

    fn recorded(&self, _: &plan::Repo, _: &Digest) -> Result<Option<RepoMetadata>> {
        Ok(None)
    }

    fn locked(&self, plan: &Plan, locked: &LockedPackage) -> Result<RepoPackage> {
        Ok(package(&format!("{} {}", locked.name, locked.evr), plan.stream.arch.rpm()))
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
        provides: vec![dependency(&format!("{name} = {evr}"))],
        nevra,
        ..RepoPackage::default()
    };
    for part in parts {
        match part.split_once(' ').unwrap() {
            ("needs", list) => package.requires = list.split(", ").map(dependency).collect(),
            ("source", source) => package.source = format!("{source}-{evr}.src.rpm"),
            (other, _) => panic!("{other}"),
        }
    }
    package
}

#[test]
fn a_lagging_architecture_holds_the_others_back() {
    let both = &["app 1-1; needs lib", "lib 1-1", "lib 2-1", "app 2-1; needs lib"];
    let lags = &["app 1-1; needs lib", "lib 1-1", "lib 2-1"];
    let world =
        World::new("true", &[("base", &["app"])], &[("aarch64", lags), ("s390x", both), ("x86_64", both)]);
    assert_eq!(
        world.lock(),
        ["base.aarch64: app-1-1 lib-2-1", "base.s390x: app-1-1 lib-2-1", "base.x86_64: app-1-1 lib-2-1"]
    );
    assert!(world.try_lock(&Update::Nothing).unwrap().iter().all(|result| result.solved.is_none()));
    let apart = World::new("false", &[("base", &["app"])], &[("aarch64", lags), ("x86_64", both)]);
    assert_eq!(apart.lock(), ["base.aarch64: app-1-1 lib-2-1", "base.x86_64: app-2-1 lib-2-1"]);
}

#[test]
fn sources_count_not_packages() {
    // what only one architecture has does not matter
    let arm = &["app 1-1", "app-doc 1-1; source app", "app-doc 2-1; source app", "app 2-1", "arm 9-1"];
    let intel = &["app 1-1", "app-doc 1-1; source app", "app 2-1", "intel 3-1"];
    let world =
        World::new("true", &[("base", &["app", "(arm or intel)"])], &[("aarch64", arm), ("x86_64", intel)]);
    assert_eq!(world.lock(), ["base.aarch64: app-2-1 arm-9-1", "base.x86_64: app-2-1 intel-3-1"]);
    let world = World::new("true", &[("base", &["app-doc"])], &[("aarch64", arm), ("x86_64", intel)]);
    assert_eq!(world.lock(), ["base.aarch64: app-doc-1-1", "base.x86_64: app-doc-1-1"]);
}

#[test]
fn exceptions_may_differ() {
    let offers: [(&str, &[&str]); 2] = [("aarch64", &["fw-arm 1-1"]), ("x86_64", &["fw-arm 2-1"])];
    let world = World::new("{ except = ['fw-*'] }", &[("base", &["fw-arm"])], &offers);
    assert_eq!(world.lock(), ["base.aarch64: fw-arm-1-1", "base.x86_64: fw-arm-2-1"]);
    let told = World::new("true", &[("base", &["fw-arm"])], &offers).refused();
    for part in [
        "the base layer cannot have the same builds on all architectures",
        "no build of the source package `fw-arm` is for every architecture",
        "aarch64: fw-arm-1-1.aarch64 (requested at ",
        "base.toml:2) is of fw-arm-1-1.src.rpm; on offer: fw-arm-1-1.src.rpm",
        "x86_64: fw-arm-2-1.x86_64 (requested at ",
        "not fw-arm-2-1.src.rpm: ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn layers_above_take_what_those_below_have() {
    let arm = &["arm 1-1; needs lib", "lib 1-1", "lib-devel 1-1; source lib", "lib-devel 2-1; source lib"];
    let intel = &["intel 1-1", "lib-devel 1-1; source lib", "lib-devel 2-1; source lib"];
    let world = World::new(
        "true",
        &[("base", &["(arm or intel)"]), ("top", &["lib-devel"])],
        &[("aarch64", arm), ("x86_64", intel)],
    );
    assert_eq!(
        world.lock(),
        [
            "base.aarch64: arm-1-1 lib-1-1",
            "top.aarch64: lib-devel-1-1",
            "base.x86_64: intel-1-1",
            "top.x86_64: lib-devel-1-1"
        ]
    );
}

#[test]
fn a_merge_that_mixed_two_sets_is_noticed() {
    let offer = &["app 1-1"];
    let mut world = World::new("true", &[("base", &["app"])], &[("aarch64", offer), ("x86_64", offer)]);
    world.lock();
    for list in world.packages.values_mut() {
        list.push("app 2-1".to_owned());
    }
    let lockfile = world.dir.path().join("lockfiles/s/base.aarch64.toml");
    let old = fs::read(&lockfile).unwrap();
    world.try_lock(&Update::Everything).unwrap();
    fs::write(&lockfile, old).unwrap();
    let again = world.try_lock(&Update::Nothing).unwrap();
    assert!(again.iter().all(|result| result.solved == Some(Stale::Builds("app".into()))));
    assert_eq!(world.lock(), ["base.aarch64: app-2-1", "base.x86_64: app-2-1"]);
}

/// What a random world offers: by name and version the needs, a name and perhaps a version.
type Offer = BTreeMap<(usize, usize), Vec<(usize, Option<usize>)>>;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn random_offer(rng: &mut ChaCha8Rng) -> [Offer; 2] {
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
fn valid(offer: &Offer, wanted: &[usize]) -> Vec<[usize; 4]> {
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

fn agrees(a: &[usize; 4], b: &[usize; 4]) -> bool {
    (0..4).all(|name| a[name] == 0 || b[name] == 0 || a[name] == b[name])
}

/// A common solution is found whenever there is one, and none that could be newer as a whole.
#[test]
fn small_worlds_against_every_combination() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (mut common, mut apart, mut moved) = (0, 0, 0);
    for case in 0..250 {
        let offers = random_offer(&mut rng);
        let wanted: &[usize] = if rng.gen_bool(0.5) { &[0] } else { &[0, 1] };
        let text = |offer: &Offer| -> Vec<String> {
            let line = |(&(name, version), needs): (&(usize, usize), &Vec<(usize, Option<usize>)>)| {
                let need = |&(name, version): &(usize, Option<usize>)| match version {
                    Some(version) => format!("{} = {version}-1", NAMES[name]),
                    None => NAMES[name].to_owned(),
                };
                let needs: Vec<String> = needs.iter().map(need).collect();
                let needs =
                    if needs.is_empty() { String::new() } else { format!("; needs {}", needs.join(", ")) };
                format!("{} {version}-1{needs}", NAMES[name])
            };
            offer.iter().map(line).collect()
        };
        let install: Vec<&str> = wanted.iter().map(|name| NAMES[*name]).collect();
        let make = |same: &str| {
            let mut world = World::new(same, &[("base", &install)], &[("aarch64", &[]), ("x86_64", &[])]);
            world.packages.insert("aarch64", text(&offers[0]));
            world.packages.insert("x86_64", text(&offers[1]));
            world
        };
        // what one architecture cannot have at all is no matter of several
        let Ok(alone) = make("false").try_lock(&Update::Nothing) else { continue };
        let [arm, intel] = [&offers[0], &offers[1]].map(|offer| valid(offer, wanted));
        let set = |LayerLock { lock, .. }: &LayerLock| {
            let mut set = [0; 4];
            for package in &lock.packages {
                let name = NAMES.iter().position(|name| *name == package.name).unwrap();
                set[name] = package.evr.version.parse().unwrap();
            }
            set
        };
        let pairs: Vec<_> = arm.iter().flat_map(|a| intel.iter().map(move |b| (a, b))).collect();
        let agreeing: Vec<_> = pairs.into_iter().filter(|(a, b)| agrees(a, b)).collect();
        match make("true").try_lock(&Update::Nothing) {
            Ok(locks) => {
                let found = (set(&locks[0]), set(&locks[1]));
                assert!(agreeing.contains(&(&found.0, &found.1)), "case {case}: {found:?}");
                let newer = |a: &[usize; 4], b: &[usize; 4]| {
                    let all = || a.iter().zip(b);
                    all().all(|(a, b)| (*a > 0) == (*b > 0) && a >= b)
                };
                let better = agreeing
                    .iter()
                    .find(|(a, b)| newer(a, &found.0) && newer(b, &found.1) && (**a, **b) != found);
                assert_eq!(better, None, "case {case}: {found:?} {offers:#?}");
                common += 1;
                moved += usize::from(found != (set(&alone[0]), set(&alone[1])));
            }
            Err(error) => {
                let told = format!("{error:#}");
                assert!(told.contains("cannot have the same builds on all architectures"), "{told}");
                assert!(agreeing.is_empty(), "case {case}: {:?} is a solution\n{told}", agreeing[0]);
                apart += 1;
            }
        }
    }
    assert!(common > 100 && moved > 20 && apart > 5, "{common} {moved} {apart}");
}
