//! libpkgmanifest, the library of dnf's manifest plugin: `packages.manifest.yaml`, exact packages by architecture,
//! and `packages.input.yaml`, what was asked for.
//!
//! The formats are those of its `schemas/manifest.json` (0.2.2) and `schemas/input.json` (0.0.2). Packages stand
//! under their own architecture; those of another than a system's say which systems they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::foreign::{Foreign, Repo, Request};
use super::{Document, Export, Selection, incomplete, konflux, url, yaml};
use crate::digest::Digest;
use crate::error::hinted;
use crate::lock::{Action, LockedPackage};
use crate::package::{Arch, Nevra};
use crate::plan;

/// The file that dnf's manifest plugin looks for.
pub const MANIFEST: &str = "packages.manifest.yaml";

/// The input, as dnf5 calls it.
pub const INPUT: &str = "packages.input.yaml";

#[derive(Serialize, Deserialize)]
struct Manifest {
    document: String,
    version: String,
    data: Data,
}

#[derive(Serialize, Deserialize)]
struct Data {
    repositories: Vec<Repository>,
    packages: BTreeMap<String, Vec<Package>>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Repository {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseurl: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metalink: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirrorlist: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Package {
    name: String,
    repo_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    location: String,
    checksum: String,
    size: u64,
    evr: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    srpm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parent_archs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Input {
    document: String,
    version: String,
    repositories: Vec<Repository>,
    packages: Packages,
    archs: Vec<String>,
    #[serde(skip_serializing)]
    modules: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    options: Option<IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
struct Packages {
    install: Vec<String>,
    #[serde(skip_serializing)]
    reinstall: Option<IgnoredAny>,
}

/// The layers as `packages.manifest.yaml` and `packages.input.yaml`.
pub fn export(selections: &[Selection]) -> Result<Export> {
    let mut found: BTreeMap<(&str, Nevra), Package> = BTreeMap::new();
    for selection in selections {
        let arch = selection.plan.stream.arch.rpm();
        for locked in selection.fetched() {
            let package = package(selection, locked)?;
            let package = found.entry((&locked.arch, locked.nevra())).or_insert(package);
            if locked.arch != arch && !package.parent_archs.iter().any(|known| known == arch) {
                package.parent_archs.push(arch.to_owned());
            }
        }
    }
    let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
    for ((arch, _), package) in found {
        packages.entry(arch.to_owned()).or_default().push(package);
    }
    let mut lost = Vec::new();
    let input = input(selections, &mut lost)?;
    let repositories = input.repositories.clone();
    let manifest = Manifest {
        document: "rpm-package-manifest".to_owned(),
        version: "0.2.2".to_owned(),
        data: Data { repositories, packages },
    };
    let document = |path: &str, text| Document { path: path.into(), text };
    Ok(Export {
        documents: vec![document(INPUT, yaml::text(&input)), document(MANIFEST, yaml::text(&manifest))],
        lost,
    })
}

fn package(selection: &Selection, package: &LockedPackage) -> Result<Package> {
    let repo = selection.repo(package)?;
    Ok(Package {
        name: package.name.clone(),
        repo_id: repo.id.clone(),
        location: package.location.clone(),
        checksum: package.sha256.ok_or_else(|| incomplete(package))?.to_string(),
        size: package.size,
        evr: package.evr.to_string(),
        srpm: package.source.strip_suffix(".rpm").unwrap_or_default().to_owned(),
        module: None,
        parent_archs: Vec::new(),
    })
}

fn input(selections: &[Selection], lost: &mut Vec<String>) -> Result<Input> {
    let mut install: BTreeMap<&str, BTreeSet<Arch>> = BTreeMap::new();
    for selection in selections {
        for spec in selection.layers().flat_map(|layer| &layer.packages.install) {
            install.entry(&spec.value).or_default().insert(selection.plan.stream.arch);
        }
        for layer in selection.layers() {
            let packages = &layer.packages;
            let what = [
                ("remove", !packages.remove.is_empty()),
                ("exclude", !packages.exclude.is_empty()),
                ("override", !packages.overrides.is_empty()),
            ];
            let lists = what.into_iter().filter(|(_, there)| *there);
            lost.extend(
                lists.map(|(list, _)| format!("{INPUT} has no words for `{list}` of layer {}", layer.name)),
            );
        }
    }
    for (spec, arches) in install.iter().filter(|(_, arches)| arches.len() < selections.len()) {
        let arches: Vec<&str> = arches.iter().map(|arch| arch.rpm()).collect();
        lost.push(format!(
            "{INPUT} asks for `{spec}` everywhere, the manifest for {} only",
            arches.join(", ")
        ));
    }
    Ok(Input {
        document: "rpm-package-input".to_owned(),
        version: "0.0.2".to_owned(),
        repositories: repositories(selections)?,
        packages: Packages { install: install.into_keys().map(str::to_owned).collect(), reinstall: None },
        archs: selections.iter().map(|selection| selection.plan.stream.arch.to_string()).collect(),
        modules: None,
        options: None,
    })
}

/// The repositories of the layers, each with one URL for all architectures.
fn repositories(selections: &[Selection]) -> Result<Vec<Repository>> {
    let mut repositories: BTreeMap<&str, Repository> = BTreeMap::new();
    for selection in selections {
        let stream = &selection.plan.stream;
        let ids = selection.layers().flat_map(|layer| &layer.packages.repos);
        for repo in ids.filter_map(|id| stream.repos.get(id)) {
            let ours = repository(repo, stream.arch);
            let theirs = repositories.entry(&repo.id).or_insert_with(|| ours.clone());
            if *theirs != ours {
                return Err(hinted(
                    format!(
                        "repository {} has URLs that differ by more than the architecture's name",
                        repo.id
                    ),
                    "export one architecture at a time, with --arch",
                ));
            }
        }
    }
    Ok(repositories.into_values().collect())
}

fn repository(repo: &plan::Repo, arch: Arch) -> Repository {
    let variable = |url: &String| url::with_variable(url, arch, "$arch");
    Repository {
        id: repo.id.clone(),
        baseurl: repo.baseurl.first().map(variable),
        metalink: repo.metalink.as_ref().map(variable),
        mirrorlist: repo.mirrorlist.as_ref().map(variable),
    }
}

/// Reads a manifest, and the input that it answers if there is one: each its text, and what errors call it.
pub fn import(manifest: (&str, &Path), input: Option<(&str, &Path)>) -> Result<Foreign> {
    let (text, path) = manifest;
    let Manifest { document, version, data } = yaml::parse(text, path)?;
    ensure!(
        document == "rpm-package-manifest" && version.starts_with("0."),
        "{}: it is a {document} of version {version}, expected an rpm-package-manifest of version 0.x",
        path.display()
    );
    let mut foreign = Foreign::of(Digest::of(text));
    let systems = systems(&data.packages);
    for (arch, packages) in &data.packages {
        if matches!(arch.as_str(), "src" | "nosrc") {
            foreign.lost.push(format!("{} source packages", packages.len()));
            continue;
        }
        for package in packages {
            let context = || format!("{}: package {}.{arch}", path.display(), package.name);
            let locked = package.locked(arch).with_context(context)?;
            if let Some(module) = &package.module {
                foreign.lost.push(format!("{} is of module {module}", package.name));
            }
            for system in package.systems(arch, &systems).with_context(context)? {
                foreign.locks.entry(system).or_default().packages.push(locked.clone());
            }
        }
    }
    foreign.repos = data.repositories.iter().map(|repo| (repo.id.clone(), repo.declared())).collect();
    if let Some((text, path)) = input {
        yaml::parse::<Input>(text, path)?.add_to(&mut foreign, path)?;
    }
    Ok(foreign)
}

/// The systems that a manifest is for: what packages are built for, and what others say they are for.
fn systems(packages: &BTreeMap<String, Vec<Package>>) -> BTreeSet<Arch> {
    let parents = packages.values().flatten().flat_map(|package| &package.parent_archs);
    packages.keys().chain(parents).filter_map(|arch| arch.parse().ok()).collect()
}

impl Package {
    fn locked(&self, arch: &str) -> Result<LockedPackage> {
        let source = Some(&self.srpm).filter(|srpm| !srpm.is_empty());
        Ok(LockedPackage {
            also: Vec::new(),
            name: self.name.clone(),
            evr: self.evr.parse()?,
            arch: arch.to_owned(),
            repo: self.repo_id.clone(),
            location: self.location.clone(),
            sha256: Some(konflux::sha256(Some(&self.checksum))?),
            size: self.size,
            source: source.map(|srpm| format!("{srpm}.rpm")).unwrap_or_default(),
            why: "imported".to_owned(),
            action: Action::Install,
            replaces: None,
        })
    }

    /// The systems of a manifest that it is for.
    fn systems(&self, arch: &str, all: &BTreeSet<Arch>) -> Result<BTreeSet<Arch>> {
        if let Ok(own) = arch.parse() {
            return Ok(BTreeSet::from([own]));
        }
        ensure!(!all.is_empty(), "the manifest does not say which architecture it is for");
        match self.parent_archs.as_slice() {
            [] => Ok(all.clone()),
            parents => parents.iter().map(|parent| Ok(parent.parse()?)).collect(),
        }
    }
}

impl Repository {
    /// As a manifest declares it. The variables are dnf's, and strata knows the same.
    fn declared(&self) -> Repo {
        Repo {
            baseurl: self.baseurl.iter().cloned().collect(),
            metalink: self.metalink.clone(),
            mirrorlist: self.mirrorlist.clone(),
            ..Repo::default()
        }
    }
}

impl Input {
    fn add_to(self, foreign: &mut Foreign, path: &Path) -> Result<()> {
        let (document, version) = (&self.document, &self.version);
        ensure!(
            document == "rpm-package-input",
            "{}: it is a {document} of version {version}, expected an rpm-package-input",
            path.display()
        );
        let arches = self
            .archs
            .iter()
            .map(|arch| arch.parse().map_err(|error| anyhow!("{}: {error}", path.display())));
        let arches: BTreeSet<Arch> = arches.collect::<Result<_>>()?;
        let install = self.packages.install.into_iter().map(|spec| (spec, arches.clone())).collect();
        foreign.request = Some(Request { install, weak_deps: true });
        for repo in &self.repositories {
            foreign.repos.entry(repo.id.clone()).or_insert_with(|| repo.declared());
        }
        let unheld = [
            ("packages.reinstall", self.packages.reinstall.is_some()),
            ("modules", self.modules.is_some()),
            ("options", self.options.is_some()),
        ];
        let unheld = unheld.into_iter().filter(|(_, there)| *there);
        foreign.lost.extend(unheld.map(|(key, _)| format!("`{key}` of {}", path.display())));
        Ok(())
    }
}
