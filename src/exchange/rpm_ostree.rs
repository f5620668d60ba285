//! rpm-ostree: `manifest-lock.ARCH.json`, the packages of a compose, and `manifest-lock.overrides.yaml`, the
//! exceptions of fedora-coreos-config.
//!
//! The format is that of rpm-ostree's `rust/src/lockfile.rs`: an EVR with architecture per name, perhaps a digest;
//! what else a package's `metadata` say is for people and their scripts. There is one package per name, and nothing
//! of repositories but when they were published.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::foreign::{Foreign, Locked};
use super::{Document, Export, Selection, konflux, yaml};
use crate::digest::Digest;
use crate::error::hinted;
use crate::lock::{Action, LockedPackage, LockedRepo, installed};
use crate::package::{Arch, Evr};
use crate::plan::{Override, OverrideKind, OverrideTo};

/// The exceptions of all architectures.
pub const OVERRIDES: &str = "manifest-lock.overrides.yaml";

/// What the name of an architecture's lock begins with; `ARCH.json` follows.
const LOCK: &str = "manifest-lock.";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Lock {
    #[serde(default)]
    packages: BTreeMap<String, Entry>,
    #[serde(skip_serializing)]
    source_packages: Option<IgnoredAny>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evra: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<About>,
}

/// What is said of a package: of a locked one its source, of an exception why it is one.
#[derive(Default, Serialize, Deserialize)]
struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sourcerpm: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bodhi: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<OverrideKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generated: Option<Timestamp>,
    #[serde(default)]
    rpmmd_repos: BTreeMap<String, Published>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    generated: Timestamp,
}

/// The layers as one compose for each architecture, and their exceptions.
pub fn export(selections: &[Selection]) -> Result<Export> {
    let mut export = Export::default();
    for selection in selections {
        let lock = lock(selection)?;
        let text = serde_json::to_string_pretty(&lock)? + "\n";
        let path = format!("{LOCK}{}.json", selection.plan.stream.arch).into();
        export.documents.push(Document { path, text });
    }
    let overrides = overrides(selections)?;
    if !overrides.packages.is_empty() {
        export.documents.push(Document { path: OVERRIDES.into(), text: yaml::text(&overrides) });
    }
    Ok(export)
}

fn lock(selection: &Selection) -> Result<Lock> {
    let mut packages = BTreeMap::new();
    for package in installed(&selection.locks.iter().collect::<Vec<_>>()).into_iter().map(|i| i.package) {
        let nevra = package.nevra();
        let entry = Entry {
            evr: None,
            evra: Some(format!("{}.{}", package.evr, package.arch)),
            digest: package.sha256.map(|digest| digest.to_string()),
            metadata: source_name(&package.source)
                .map(|source| About { sourcerpm: Some(source.to_owned()), ..About::default() }),
        };
        if packages.insert(package.name.clone(), entry).is_some() {
            return Err(hinted(
                format!(
                    "{nevra} is not the only package of its name, and an rpm-ostree lock has one for each"
                ),
                "export the layers that bring the others on their own",
            ));
        }
    }
    let metadata = metadata(selection)?;
    Ok(Lock { packages, source_packages: None, metadata })
}

/// When the repositories were published. The lock itself is dated by the day of the newest, for a clock would make
/// another file of the same locks.
fn metadata(selection: &Selection) -> Result<Option<Metadata>> {
    let mut rpmmd_repos = BTreeMap::new();
    for repo in selection.locks.iter().flat_map(|lock| &lock.repos) {
        let revision =
            i64::try_from(repo.revision).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let generated =
            revision.with_context(|| format!("repository {} is dated {}", repo.id, repo.revision))?;
        let known = rpmmd_repos.entry(repo.id.clone()).or_insert(Published { generated });
        known.generated = known.generated.max(generated);
    }
    const DAY: i64 = 24 * 60 * 60;
    let newest = rpmmd_repos.values().map(|repo| repo.generated.as_second()).max();
    let generated =
        newest.map(|seconds| Timestamp::from_second(seconds - seconds.rem_euclid(DAY))).transpose()?;
    Ok(generated.map(|generated| Metadata { generated: Some(generated), rpmmd_repos }))
}

/// The name of a source package, of its file's name; what is no file's name is a name already.
fn source_name(source: &str) -> Option<&str> {
    let name = source.strip_suffix(".src.rpm").and_then(|nvr| nvr.rsplitn(3, '-').nth(2)).unwrap_or(source);
    Some(name).filter(|name| !name.is_empty())
}

fn overrides(selections: &[Selection]) -> Result<Lock> {
    let mut packages = BTreeMap::new();
    for selection in selections {
        for entry in selection.layers().flat_map(|layer| &layer.packages.overrides) {
            let entry = &entry.value;
            packages.insert(entry.package.clone(), exception(entry, selection)?);
        }
    }
    Ok(Lock { packages, source_packages: None, metadata: None })
}

/// An exception. As in fedora-coreos-config, the architecture is said of packages that have none, because these are
/// the same everywhere.
fn exception(entry: &Override, selection: &Selection) -> Result<Entry> {
    let locked = selection.fetched().filter(|package| package.name == entry.package).last();
    let evr = match &entry.to {
        OverrideTo::Version(evr) => evr,
        OverrideTo::File(file) => {
            let evr = locked.map(|package| &package.evr);
            evr.with_context(|| {
                format!("the override of {} by {} is not locked", entry.package, file.display())
            })?
        }
    };
    let is_noarch = locked.is_some_and(|package| package.arch == "noarch");
    let reason = Some(&entry.reason).filter(|reason| entry.update.as_ref() != Some(*reason));
    Ok(Entry {
        evr: (!is_noarch).then(|| evr.to_string()),
        evra: is_noarch.then(|| format!("{evr}.noarch")),
        digest: None,
        metadata: Some(About {
            bodhi: entry.update.clone(),
            reason: reason.cloned(),
            kind: Some(entry.kind),
            until: entry.until.clone(),
            ..About::default()
        }),
    })
}

/// Reads the lock of an architecture, and exceptions: each its text, and what errors call it.
pub fn import(lock: (&str, &Path), overrides: &[(String, &Path)], arch: Option<Arch>) -> Result<Foreign> {
    let (text, path) = lock;
    let mut foreign = Foreign::of(Digest::of(text));
    let lock: Lock = serde_json::from_str(text)
        .map_err(|error| anyhow!("{}:{}: {error}", path.display(), error.line()))?;
    let arch = arch.or_else(|| arch_of(path)).with_context(|| {
        format!("{} does not say its architecture: name it manifest-lock.ARCH.json", path.display())
    })?;
    let packages = lock.packages.iter().map(|(name, entry)| {
        entry.package(name).with_context(|| format!("{}: package {name}", path.display()))
    });
    let mut locked = Locked { packages: packages.collect::<Result<_>>()?, repos: Vec::new() };
    for (id, Published { generated }) in lock.metadata.into_iter().flat_map(|metadata| metadata.rpmmd_repos) {
        let revision = u64::try_from(generated.as_second())
            .with_context(|| format!("{}: repository {id} is dated {generated}", path.display()))?;
        locked.repos.push(LockedRepo { id, revision, repomd: None, url: None });
    }
    foreign.locks.insert(arch, locked);
    if lock.source_packages.is_some() {
        foreign.lost.push("source packages".to_owned());
    }
    for (text, path) in overrides {
        for (name, entry) in yaml::parse::<Lock>(text, path)?.packages {
            let entry = entry.exception(name).with_context(|| format!("reading {}", path.display()))?;
            // a later file has the last word
            foreign.overrides.retain(|known| known.package != entry.package);
            foreign.overrides.push(entry);
        }
    }
    foreign.overrides.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(foreign)
}

/// The architecture that is in a lock's name: `manifest-lock.x86_64.json`.
fn arch_of(path: &Path) -> Option<Arch> {
    path.file_name()?.to_str()?.split('.').find_map(|word| word.parse().ok())
}

impl Entry {
    fn package(&self, name: &str) -> Result<LockedPackage> {
        let evra = self.evra.as_deref().context("it has no `evra`, and strata locks an architecture, too")?;
        let (evr, arch) = split(evra)?;
        let sha256 = self.digest.as_deref().map(|digest| konflux::sha256(Some(digest))).transpose()?;
        let source = self.metadata.as_ref().and_then(|about| about.sourcerpm.clone());
        Ok(LockedPackage {
            also: Vec::new(),
            name: name.to_owned(),
            evr,
            arch: arch.to_owned(),
            repo: String::new(),
            location: String::new(),
            sha256,
            size: 0,
            source: source.unwrap_or_default(),
            why: "imported".to_owned(),
            action: Action::Install,
            replaces: None,
        })
    }

    /// The `[[override]]` that says the same. Fast-tracks of Fedora CoreOS's own packages have no reason but the
    /// update; and what does not say its type, but has an update, is one.
    fn exception(self, package: String) -> Result<Override> {
        let evr = match (&self.evr, &self.evra) {
            (Some(evr), None) => evr.parse()?,
            (None, Some(evra)) => split(evra)?.0,
            _ => return Err(anyhow!("the override of {package} has not one of `evr` and `evra`")),
        };
        let About { bodhi, reason, kind, until, sourcerpm: _ } = self.metadata.unwrap_or_default();
        let by_update = if bodhi.is_some() { OverrideKind::FastTrack } else { OverrideKind::Pin };
        let reason = reason.or_else(|| bodhi.clone()).unwrap_or_else(|| "none was given".to_owned());
        Ok(Override {
            package,
            to: OverrideTo::Version(evr),
            kind: kind.unwrap_or(by_update),
            reason,
            update: bodhi,
            until,
        })
    }
}

/// EVR and architecture of `EVR.ARCH`.
fn split(evra: &str) -> Result<(Evr, &str)> {
    let (evr, arch) =
        evra.rsplit_once('.').with_context(|| format!("`{evra}` is no EVR with architecture"))?;
    let evr: Evr = evr.parse()?;
    ensure!(!evr.release.is_empty() && !arch.is_empty(), "`{evra}` is no EVR with architecture");
    Ok((evr, arch))
}
