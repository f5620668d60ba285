//! Konflux: `rpms.in.yaml`, what rpm-lockfile-prototype is asked for, and `rpms.lock.yaml`, what it answers and
//! hermeto prefetches for a build without network.
//!
//! Written as rpm-lockfile-prototype writes it: keys, order and layout. Its `rpm_lockfile/schema.py` says what an
//! input may hold, hermeto's `package_managers/rpm/redhat.py` what of a lock is read: version, vendor, and of each
//! file URL, repository id, size and checksum. Name, EVR and source are for people.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::foreign::{Foreign, Locked, Repo, Request, Target, verbatim};
use super::{Document, Export, Selection, incomplete, url, yaml};
use crate::digest::Digest;
use crate::error::hinted;
use crate::lock::{Action, LockedPackage};
use crate::package::{Arch, Evr};
use crate::plan::{self, Base, OverrideTo};

/// The file that hermeto looks for.
pub const LOCK: &str = "rpms.lock.yaml";

/// The file that rpm-lockfile-prototype looks for.
pub const INPUT: &str = "rpms.in.yaml";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    lockfile_version: u32,
    lockfile_vendor: String,
    arches: Vec<ArchLock>,
}

#[derive(Serialize, Deserialize)]
struct ArchLock {
    arch: String,
    #[serde(default)]
    packages: Vec<Entry>,
    #[serde(default)]
    source: Vec<Entry>,
    #[serde(default)]
    module_metadata: Vec<Entry>,
}

/// A file to prefetch.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repoid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sourcerpm: Option<String>,
}

/// The layers as `rpms.in.yaml` and `rpms.lock.yaml`; a selection per architecture.
pub fn export(selections: &[Selection]) -> Result<Export> {
    let mut arches = selections.iter().map(arch_lock).collect::<Result<Vec<_>>>()?;
    arches.sort_by(|a, b| a.arch.cmp(&b.arch));
    let lock = Lock { lockfile_version: 1, lockfile_vendor: "redhat".to_owned(), arches };
    let mut lost = Vec::new();
    let input = input(selections, &mut lost);
    let document = |path: &str, text| Document { path: path.into(), text };
    Ok(Export {
        documents: vec![document(INPUT, yaml::text(&input)), document(LOCK, yaml::text(&lock))],
        lost,
    })
}

fn arch_lock(selection: &Selection) -> Result<ArchLock> {
    // one that two layers install is one file
    let packages =
        selection.fetched().map(|package| entry(selection, package)).collect::<Result<BTreeSet<_>>>()?;
    Ok(ArchLock {
        arch: selection.plan.stream.arch.to_string(),
        packages: packages.into_iter().collect(),
        source: Vec::new(),
        module_metadata: Vec::new(),
    })
}

fn entry(selection: &Selection, package: &LockedPackage) -> Result<Entry> {
    let repo = selection.repo(package)?;
    let base = repo.baseurl.first().ok_or_else(|| {
        hinted(
            format!(
                "repository {} has no base URL, and a Konflux lock names every package by its URL",
                repo.id
            ),
            "give it the `baseurl` of one mirror",
        )
    })?;
    let sha256 = package.sha256.filter(|_| !package.location.is_empty());
    Ok(Entry {
        url: format!("{base}/{}", package.location),
        repoid: Some(repo.id.clone()),
        size: Some(package.size),
        checksum: Some(sha256.ok_or_else(|| incomplete(package))?.to_string()),
        name: Some(package.name.clone()),
        evr: Some(package.evr.to_string()),
        sourcerpm: Some(package.source.clone()).filter(|source| !source.is_empty()),
    })
}

/// `rpms.in.yaml`.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    content_origin: ContentOrigin,
    #[serde(default)]
    packages: Vec<Spec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    upgrade_packages: Vec<Spec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    install_weak_deps: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arches: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<Image>,
    /// What strata has no words for.
    #[serde(flatten, skip_serializing)]
    others: Others,
}

/// Keys of which only the names are kept.
type Others = BTreeMap<String, IgnoredAny>;

#[derive(Default, Serialize, Deserialize)]
struct ContentOrigin {
    #[serde(default)]
    repos: Vec<RepoEntry>,
    #[serde(flatten, skip_serializing)]
    others: Others,
}

/// A repository, with any key of a `.repo` file.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct RepoEntry {
    repoid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseurl: Option<Words>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metalink: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirrorlist: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    includepkgs: Option<Words>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    excludepkgs: Option<Words>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module_hotfixes: Option<bool>,
    #[serde(flatten, skip_serializing)]
    others: Others,
}

/// A list, or its words in one text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<String>),
    Text(String),
}

impl Words {
    fn list(&self) -> Vec<String> {
        match self {
            Self::List(list) => list.clone(),
            Self::Text(text) => {
                let words = text.split(|c: char| c.is_whitespace() || c == ',');
                words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
            }
        }
    }

    /// Nothing for an empty list, and a text for a single word.
    fn of(list: &[String]) -> Option<Self> {
        match list {
            [] => None,
            [one] => Some(Self::Text(one.clone())),
            list => Some(Self::List(list.to_vec())),
        }
    }
}

/// A package, perhaps for some architectures only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Spec {
    Everywhere(String),
    Somewhere {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arches: Option<Arches>,
    },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Arches {
    Only(Words),
    Not(Words),
}

/// What the packages come on top of: an image, or nothing.
#[derive(Default, Serialize, Deserialize)]
struct Image {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bare: Option<bool>,
}

fn input(selections: &[Selection], lost: &mut Vec<String>) -> Input {
    let arches: BTreeSet<Arch> = selections.iter().map(|selection| selection.plan.stream.arch).collect();
    let (mut packages, mut upgrades) = (Wishes::new(), Wishes::new());
    for selection in selections {
        let arch = selection.plan.stream.arch;
        for (layer, lock) in selection.layers().zip(&selection.locks) {
            for spec in &layer.packages.install {
                packages.entry(spec.value.clone()).or_default().insert(arch);
            }
            for entry in &layer.packages.overrides {
                let OverrideTo::Version(version) = &entry.value.to else { continue };
                let locked = lock.packages.iter().find(|package| package.name == entry.value.package);
                let wishes = match locked.map(|package| package.action) {
                    Some(Action::Upgrade) => &mut upgrades,
                    Some(Action::Install) => &mut packages,
                    // it concerns nothing here
                    Some(Action::Remove) | None => continue,
                };
                wishes.entry(format!("{}-{version}", entry.value.package)).or_default().insert(arch);
            }
            if let Some(removed) = layer.packages.remove.first() {
                lost.push(format!(
                    "{INPUT} cannot remove packages: `{}` ({})",
                    removed.value, removed.origin
                ));
            }
        }
    }
    let layers = || selections.iter().flat_map(Selection::layers);
    Input {
        content_origin: ContentOrigin { repos: repos(selections), ..ContentOrigin::default() },
        packages: specs(&packages, &arches),
        upgrade_packages: specs(&upgrades, &arches),
        install_weak_deps: Some(layers().any(|layer| layer.packages.weak_deps)),
        arches: arches.iter().map(Arch::to_string).collect(),
        context: layers().next().and_then(|layer| context(&layer.from, lost)),
        ..Input::default()
    }
}

/// Package specs, and the architectures each is for.
type Wishes = BTreeMap<String, BTreeSet<Arch>>;

fn specs(wishes: &Wishes, all: &BTreeSet<Arch>) -> Vec<Spec> {
    let spec = |(name, arches): (&String, &BTreeSet<Arch>)| match arches == all {
        true => Spec::Everywhere(name.clone()),
        false => {
            let only = Words::List(arches.iter().map(Arch::to_string).collect());
            Spec::Somewhere { name: name.clone(), arches: Some(Arches::Only(only)) }
        }
    };
    wishes.iter().map(spec).collect()
}

fn context(from: &Base, lost: &mut Vec<String>) -> Option<Image> {
    match from {
        Base::Scratch => Some(Image { image: None, bare: Some(true) }),
        Base::Image(image) => {
            let image = image.to_string();
            let image = image.strip_prefix("docker://").unwrap_or(&image);
            Some(Image { image: Some(image.to_owned()), bare: None })
        }
        Base::Layer(below) => {
            lost.push(format!(
                "{INPUT} stands on an image: name that of the layer {below} as `context`, or with --image"
            ));
            None
        }
    }
}

/// The repositories of the layers, for all architectures at once where their URLs let them.
fn repos(selections: &[Selection]) -> Vec<RepoEntry> {
    let mut entries: Vec<RepoEntry> = Vec::new();
    for selection in selections {
        let stream = &selection.plan.stream;
        let ids: BTreeSet<&str> =
            selection.layers().flat_map(|layer| &layer.packages.repos).map(String::as_str).collect();
        let excluded = selection.layers().flat_map(|layer| &layer.packages.exclude);
        let excluded: Vec<String> = excluded.map(|glob| glob.value.clone()).collect();
        for repo in ids.into_iter().filter_map(|id| stream.repos.get(id)) {
            let entry = repo_entry(repo, stream.arch, &excluded);
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    entries
}

fn repo_entry(repo: &plan::Repo, arch: Arch, excluded: &[String]) -> RepoEntry {
    let variable = |url: &String| url::with_variable(url, arch, "$basearch");
    RepoEntry {
        repoid: repo.id.clone(),
        baseurl: Words::of(&repo.baseurl.iter().map(variable).collect::<Vec<_>>()),
        metalink: repo.metalink.as_ref().map(variable),
        mirrorlist: repo.mirrorlist.as_ref().map(variable),
        priority: Some(repo.priority).filter(|priority| *priority != 99),
        cost: Some(repo.cost).filter(|cost| *cost != 1000),
        includepkgs: Words::of(&repo.includepkgs),
        excludepkgs: Words::of(&[&repo.excludepkgs, excluded].concat()),
        module_hotfixes: Some(true).filter(|_| repo.module_hotfixes),
        others: Others::new(),
    }
}

/// Reads a lock, and the input that it answers if there is one: each its text, and what errors call it.
pub fn import(lock: (&str, &Path), input: Option<(&str, &Path)>, target: &Target) -> Result<Foreign> {
    let (text, path) = lock;
    let Lock { lockfile_version, lockfile_vendor, arches } = yaml::parse(text, path)?;
    ensure!(
        (lockfile_version, lockfile_vendor.as_str()) == (1, "redhat"),
        "{}: lockfileVersion is {lockfile_version} and lockfileVendor `{lockfile_vendor}`, expected 1 and `redhat`",
        path.display()
    );
    let mut foreign = Foreign::of(Digest::of(text));
    let bases = Bases::new(&arches, target).with_context(|| format!("reading {}", path.display()))?;
    for ArchLock { arch, packages, source, module_metadata } in &arches {
        let arch: Arch = arch.parse().with_context(|| format!("reading {}", path.display()))?;
        let lock: &mut Locked = foreign.locks.entry(arch).or_default();
        for entry in packages {
            let package =
                bases.package(entry, arch).with_context(|| format!("{}: {}", path.display(), entry.url))?;
            lock.packages.push(package);
        }
        for (list, what) in [(source, "source packages"), (module_metadata, "module metadata files")] {
            if !list.is_empty() {
                foreign.lost.push(format!("{} {what} for {arch}", list.len()));
            }
        }
    }
    foreign.repos = bases.repos();
    if let Some((text, path)) = input {
        yaml::parse::<Input>(text, path)?.add_to(&mut foreign, path)?;
    }
    Ok(foreign)
}

/// The base URL of each repository on each architecture.
struct Bases {
    urls: BTreeMap<(Arch, String), String>,
    templates: BTreeMap<String, String>,
}

impl Bases {
    fn new(arches: &[ArchLock], target: &Target) -> Result<Self> {
        let mut packages: BTreeMap<(Arch, String), Vec<&str>> = BTreeMap::new();
        for lock in arches {
            let arch: Arch = lock.arch.parse()?;
            for entry in &lock.packages {
                packages.entry((arch, entry.repo().to_owned())).or_default().push(&entry.url);
            }
        }
        let mut bases = Self { urls: BTreeMap::new(), templates: BTreeMap::new() };
        for ((arch, repo), urls) in packages {
            let base = match target.plans.get(&arch) {
                Some(plan) => known_base(plan, &repo, &urls)?,
                None => url::base(&urls)
                    .ok_or_else(|| anyhow!("the packages of repository {repo} for {arch} share no base URL"))?
                    .to_owned(),
            };
            let template = url::with_variable(&verbatim(&base), arch, "$basearch");
            let other = bases.templates.entry(repo.clone()).or_insert_with(|| template.clone());
            if *other != template {
                return Err(hinted(
                    format!("repository {repo} is at {template} for {arch}, elsewhere at {other}"),
                    "import one architecture at a time into streams of their own, with --arch",
                ));
            }
            bases.urls.insert((arch, repo), base);
        }
        Ok(bases)
    }

    fn repos(&self) -> BTreeMap<String, Repo> {
        let repo = |base: &String| Repo { baseurl: vec![base.clone()], ..Repo::default() };
        self.templates.iter().map(|(id, base)| (id.clone(), repo(base))).collect()
    }

    fn package(&self, entry: &Entry, arch: Arch) -> Result<LockedPackage> {
        let repo = entry.repo().to_owned();
        let base = self.urls.get(&(arch, repo.clone())).map_or("", String::as_str);
        let location = entry.url.strip_prefix(base).unwrap_or_default().trim_start_matches('/').to_owned();
        let file = location.rsplit('/').next().unwrap_or_default();
        let (name, evr, package_arch) = identity(file)?;
        Ok(LockedPackage {
            also: Vec::new(),
            name: entry.name.clone().unwrap_or(name),
            evr: entry.evr.as_deref().map_or(Ok(evr), str::parse)?,
            arch: package_arch,
            repo,
            sha256: Some(sha256(entry.checksum.as_deref())?),
            size: entry.size.unwrap_or_default(),
            source: entry.sourcerpm.clone().unwrap_or_default(),
            why: "imported".to_owned(),
            action: Action::Install,
            replaces: None,
            location,
        })
    }
}

impl Entry {
    /// Its repository; hermeto makes up a name where there is none, and so does strata.
    fn repo(&self) -> &str {
        self.repoid.as_deref().unwrap_or("imported")
    }
}

/// The base URL of a repository that the stream has, below which all the packages are.
fn known_base(plan: &plan::Plan, repo: &str, urls: &[&str]) -> Result<String> {
    let stream = &plan.stream.name;
    let known = plan.stream.repos.get(repo).ok_or_else(|| {
        hinted(
            format!("stream {stream} has no repository `{repo}`"),
            "declare it in stream.toml, or import into a new stream",
        )
    })?;
    let below = |base: &&String| {
        urls.iter().all(|url| url.strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/')))
    };
    known.baseurl.iter().find(below).cloned().ok_or_else(|| {
        hinted(
            format!(
                "stream {stream} has repository `{repo}` elsewhere than the packages' URLs ({})",
                urls[0]
            ),
            "correct its `baseurl` in stream.toml, or import into a new stream",
        )
    })
}

/// Name, EVR (which has no epoch) and architecture that a package file's name tells: `NAME-VERSION-RELEASE.ARCH.rpm`.
fn identity(file: &str) -> Result<(String, Evr, String)> {
    let parts = || {
        let (rest, arch) = file.strip_suffix(".rpm")?.rsplit_once('.')?;
        let (rest, release) = rest.rsplit_once('-')?;
        let (name, version) = rest.rsplit_once('-')?;
        Some((name, format!("{version}-{release}"), arch))
    };
    let (name, evr, arch) =
        parts().ok_or_else(|| anyhow!("the file is not called NAME-VERSION-RELEASE.ARCH.rpm"))?;
    Ok((name.to_owned(), evr.parse()?, arch.to_owned()))
}

/// The checksum of a package, without which strata locks nothing.
pub(super) fn sha256(checksum: Option<&str>) -> Result<Digest> {
    match checksum.and_then(|text| text.split_once(':')) {
        Some(("sha256", hex)) => Ok(Digest::from_hex(hex)?),
        Some((kind, _)) => bail!("its checksum is {kind}, and strata locks packages by sha256"),
        None => Err(hinted(
            "it has no checksum, so nothing says which file it is",
            "lock it again with its checksum",
        )),
    }
}

impl Input {
    fn add_to(&self, foreign: &mut Foreign, path: &Path) -> Result<()> {
        let arches = match self.arches.as_slice() {
            [] => foreign.locks.keys().copied().collect(),
            arches => arches
                .iter()
                .map(|arch| arch.parse())
                .collect::<Result<_, _>>()
                .with_context(|| format!("reading {}", path.display()))?,
        };
        // dnf's default
        let weak_deps = self.install_weak_deps.unwrap_or(true);
        let mut request = Request { weak_deps, ..Request::default() };
        for spec in self.packages.iter().chain(&self.upgrade_packages) {
            let (name, arches) = spec.resolve(&arches);
            request.install.entry(name.to_owned()).or_default().extend(arches);
        }
        foreign.request = Some(request);
        for entry in &self.content_origin.repos {
            // those no package is from are not needed, and their URLs may have variables that only dnf knows
            let Some(repo) = foreign.repos.get_mut(&entry.repoid) else {
                let (id, path) = (&entry.repoid, path.display());
                foreign.lost.push(format!("repository `{id}` of {path}: no locked package is from it"));
                continue;
            };
            repo.priority = entry.priority;
            repo.cost = entry.cost;
            repo.includepkgs = entry.includepkgs.as_ref().map(Words::list).unwrap_or_default();
            repo.excludepkgs = entry.excludepkgs.as_ref().map(Words::list).unwrap_or_default();
            repo.module_hotfixes = entry.module_hotfixes;
        }
        foreign.lost.extend(self.unheld().iter().map(|key| format!("`{key}` of {}", path.display())));
        Ok(())
    }

    /// Keys that are there and that strata has no words for.
    fn unheld(&self) -> BTreeSet<String> {
        let Self { content_origin: ContentOrigin { repos, others: origins }, .. } = self;
        let of_repos = repos.iter().flat_map(|repo| {
            repo.others.keys().map(|key| format!("contentOrigin.repos[{}].{key}", repo.repoid))
        });
        let context = self.context.as_ref().filter(|context| context.bare != Some(true));
        let keys = self.others.keys().cloned().chain(context.map(|_| "context".to_owned()));
        keys.chain(origins.keys().map(|key| format!("contentOrigin.{key}"))).chain(of_repos).collect()
    }
}

impl Spec {
    /// The package, and which of `all` architectures it is for.
    fn resolve(&self, all: &BTreeSet<Arch>) -> (&str, BTreeSet<Arch>) {
        let named = |words: &Words, arch: &Arch| words.list().iter().any(|word| word == arch.rpm());
        match self {
            Self::Everywhere(name) | Self::Somewhere { name, arches: None } => (name, all.clone()),
            Self::Somewhere { name, arches: Some(Arches::Only(words)) } => {
                (name, all.iter().copied().filter(|arch| named(words, arch)).collect())
            }
            Self::Somewhere { name, arches: Some(Arches::Not(words)) } => {
                (name, all.iter().copied().filter(|arch| !named(words, arch)).collect())
            }
        }
    }
}
