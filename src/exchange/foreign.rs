//! What was read from foreign files, and the manifests and locks made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::Document;
use crate::digest::Digest;
use crate::error::hinted;
use crate::lock::{LockedPackage, LockedRepo, Lockfile};
use crate::manifest;
use crate::package::Arch;
use crate::plan::{Override, OverrideTo, Plan};

/// Where an import goes.
pub struct Target {
    /// The stream's name.
    pub stream: String,
    /// The layer's name.
    pub layer: String,
    /// The stream as its manifests have it, for every architecture; none of a stream that is not there yet.
    pub plans: BTreeMap<Arch, Plan>,
}

/// What foreign files say, in strata's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Digest of the foreign lock.
    pub origin: Digest,
    /// What it locks, by architecture.
    pub locks: BTreeMap<Arch, Locked>,
    /// The repositories it speaks of, by id.
    pub repos: BTreeMap<String, Repo>,
    /// What was asked for; told by an input file, else by nobody.
    pub request: Option<Request>,
    /// Exceptions with a reason.
    pub overrides: Vec<Override>,
    /// What strata cannot hold, one thing each.
    pub lost: Vec<String>,
}

/// The lock of one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locked {
    /// Repositories and when they were published.
    pub repos: Vec<LockedRepo>,
    /// Packages, in any order.
    pub packages: Vec<LockedPackage>,
}

/// `[repos.ID]` of a stream; URLs with manifest variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baseurl: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metalink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirrorlist: Option<String>,
    /// No foreign file names keys: what is fetched is what the lock's digests say.
    pub gpgcheck: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub includepkgs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excludepkgs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_hotfixes: Option<bool>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Package specs, and the architectures each is for.
    pub install: BTreeMap<String, BTreeSet<Arch>>,
    /// Install weak dependencies.
    pub weak_deps: bool,
}

impl Foreign {
    /// Nothing yet, of a lock with this digest.
    pub(super) fn of(origin: Digest) -> Self {
        Self {
            origin,
            locks: BTreeMap::new(),
            repos: BTreeMap::new(),
            request: None,
            overrides: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// The locks, each for its place; sorted and checked.
    pub fn locks(&self, target: &Target) -> Result<Vec<Lockfile>> {
        let plans = &target.plans;
        if let Some(arch) = self.locks.keys().find(|arch| !plans.is_empty() && !plans.contains_key(arch)) {
            return Err(hinted(
                format!("stream {} is not composed for {arch}", target.stream),
                "add it to `arches` in stream.toml, or leave it out with --arch",
            ));
        }
        let lock = |(arch, locked): (&Arch, &Locked)| {
            let Locked { repos, packages } = locked.clone();
            Lockfile::imported(&target.stream, &target.layer, *arch, self.origin, repos, packages)
                .with_context(|| format!("importing the packages for {arch}"))
        };
        self.locks.iter().map(lock).collect()
    }

    /// The manifests: of a new stream all that it needs, of one that is there only the overrides, to be included.
    pub fn manifests(&self, target: &Target) -> Result<Vec<Document>> {
        let (stream, layer) = (&target.stream, &target.layer);
        let document = |name: &str, comment: &str, table: String| Document {
            path: PathBuf::from(stream).join(name),
            text: format!("# {comment}\n{table}"),
        };
        let mut documents = Vec::new();
        if target.plans.is_empty() {
            let comment = "Made by `strata import`. The system and its version are guessed from the packages'\n\
                           # releases: correct them. Name the keys of repositories (`gpgkey`), and check signatures.";
            documents.push(document("stream.toml", comment, self.stream(target)?));
            documents.push(document(
                &format!("{layer}.toml"),
                "Made by `strata import`.",
                self.layer(target)?,
            ));
        }
        if !self.overrides.is_empty() {
            let comment = format!("Made by `strata import`. Included by {layer}.toml.");
            documents.push(document(&overrides_name(layer), &comment, self.override_tables()?));
        }
        if target.plans.is_empty() {
            self.check(target, &documents)?;
        }
        Ok(documents)
    }

    /// Whether manifests that were made of somebody's words are manifests.
    fn check(&self, target: &Target, documents: &[Document]) -> Result<()> {
        let dir = tempfile::tempdir().context("making a directory to check manifests in")?;
        for Document { path, text } in documents {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
            fs::write(path, text)?;
        }
        for arch in self.locks.keys() {
            manifest::load(dir.path(), &target.stream, *arch)
                .map_err(|invalid| anyhow!("{}", invalid.render(false)))
                .context("what the file says cannot be said in manifests")?;
        }
        Ok(())
    }

    fn stream(&self, target: &Target) -> Result<String> {
        #[derive(Serialize)]
        struct Stream<'s> {
            name: &'s str,
            arches: BTreeSet<Arch>,
            layers: [&'s str; 1],
            os: Os,
            repos: &'s BTreeMap<String, Repo>,
        }
        let stream = Stream {
            name: &target.stream,
            arches: self.locks.keys().copied().collect(),
            layers: [&target.layer],
            os: guess_os(self.locks.values().flat_map(|lock| &lock.packages)),
            repos: &self.repos,
        };
        Ok(toml::to_string(&stream)?)
    }

    fn layer(&self, target: &Target) -> Result<String> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Layer {
            #[serde(skip_serializing_if = "Option::is_none")]
            include: Option<String>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            weak_deps: bool,
            packages: Packages,
        }
        #[derive(Serialize)]
        struct Packages {
            install: Vec<String>,
            #[serde(flatten)]
            arches: BTreeMap<&'static str, Install>,
        }
        #[derive(Default, Serialize)]
        struct Install {
            install: Vec<String>,
        }
        let request = self.request.clone().unwrap_or_else(|| self.everything());
        let all: BTreeSet<Arch> = self.locks.keys().copied().collect();
        let mut packages = Packages { install: Vec::new(), arches: BTreeMap::new() };
        for (spec, arches) in &request.install {
            let spec = verbatim(spec);
            if all.is_subset(arches) {
                packages.install.push(spec);
                continue;
            }
            for arch in arches.intersection(&all) {
                packages.arches.entry(arch.rpm()).or_default().install.push(spec.clone());
            }
        }
        let include = (!self.overrides.is_empty()).then(|| overrides_name(&target.layer));
        Ok(toml::to_string(&Layer { include, weak_deps: request.weak_deps, packages })?)
    }

    /// The request that the lock itself answers: every package it has.
    fn everything(&self) -> Request {
        let mut request = Request::default();
        for (arch, lock) in &self.locks {
            for package in &lock.packages {
                request.install.entry(package.name.clone()).or_default().insert(*arch);
            }
        }
        request
    }

    fn override_tables(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Tables<'o> {
            r#override: Vec<Entry<'o>>,
        }
        #[derive(Serialize)]
        struct Entry<'o> {
            package: &'o str,
            version: String,
            kind: crate::plan::OverrideKind,
            reason: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            update: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            until: Option<&'o str>,
        }
        let mut entries = Vec::new();
        for entry in &self.overrides {
            let OverrideTo::Version(version) = &entry.to else { continue };
            entries.push(Entry {
                package: &entry.package,
                version: verbatim(&version.to_string()),
                kind: entry.kind,
                reason: verbatim(&entry.reason),
                update: entry.update.as_deref().map(verbatim),
                until: entry.until.as_deref(),
            });
        }
        Ok(toml::to_string(&Tables { r#override: entries })?)
    }
}

fn overrides_name(layer: &str) -> String {
    format!("{layer}-overrides.toml")
}

/// A text as a manifest takes it, in which `$` begins a variable.
pub fn verbatim(text: &str) -> String {
    text.replace('$', "$$")
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Os {
    id: &'static str,
    name: &'static str,
    version: String,
}

/// The system that the most packages say in their release they are built for: `.fc40`, `.el9`, `.el9_6`.
fn guess_os<'p>(packages: impl Iterator<Item = &'p LockedPackage>) -> Os {
    let mut votes: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for package in packages {
        for (tag, id) in [(".fc", "fedora"), (".el", "rhel")] {
            let Some((_, version)) = package.evr.release.rsplit_once(tag) else { continue };
            let end = version.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(version.len());
            let version = version[..end].trim_matches('_').replace('_', ".");
            if !version.is_empty() {
                *votes.entry((id, version)).or_default() += 1;
            }
        }
    }
    match votes.into_iter().max_by_key(|(_, votes)| *votes) {
        Some((("fedora", version), _)) => Os { id: "fedora", name: "Fedora Linux", version },
        Some(((_, version), _)) => Os { id: "rhel", name: "Red Hat Enterprise Linux", version },
        None => Os { id: "linux", name: "Linux", version: "0".to_owned() },
    }
}
