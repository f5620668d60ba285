//! Which streams of modules are active, and which packages that hides.
//!
//! libdnf's rules (`ModulePackageContainer`, `setModuleExcludes` in `dnf-sack.cpp`): the streams that the manifest
//! enables are active, and of other modules the default streams, with the streams that these need. Packages of
//! other streams are hidden, and so is everything else that has the name of a package of an active stream, or
//! provides it; not in repositories with `module_hotfixes`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::Request;
use super::edits::List;
use super::explain::{self, Problem, Unsatisfiable};
use super::pool::{Action, BadDependency, Job, PackageId, Pool};
use crate::package::{Dependency, Evr, Nevra};
use crate::plan::Sourced;
use crate::repo::modules::Stream;
use crate::repo::{RepoMetadata, RepoPackage};

/// The active streams of a request, and their packages.
#[derive(Default)]
pub struct Modularity<'a> {
    active: Vec<&'a Stream>,
    /// NEVRAs with epochs of packages of active streams, and of other streams.
    included: HashSet<&'a str>,
    excluded: HashSet<&'a str>,
    /// Names of the packages of active streams.
    names: HashSet<&'a str>,
}

/// An `install` entry that is of a module: `@nodejs`, `@nodejs:18`, `@nodejs:18/minimal`.
struct Entry<'a> {
    name: &'a str,
    stream: Option<&'a str>,
    profile: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Self {
        let text = text.trim_start_matches('@');
        let (text, profile) =
            text.split_once('/').map_or((text, None), |(text, profile)| (text, Some(profile)));
        let (name, stream) = text.split_once(':').map_or((text, None), |(name, stream)| (name, Some(stream)));
        Self { name, stream, profile }
    }

    fn is_of(&self, stream: &Stream) -> bool {
        stream.name == self.name && self.stream.is_none_or(|wanted| wanted == stream.stream)
    }
}

impl<'a> Modularity<'a> {
    /// Finds the active streams.
    pub fn new(request: &Request<'a>) -> Result<Self, super::Error> {
        let all: Vec<&'a Stream> = request.repos.iter().flat_map(|repo| &repo.modules.streams).collect();
        if all.is_empty() && request.packages.modules.is_empty() {
            return Ok(Self::default());
        }
        let defaults = defaults(request.repos);
        let enabled = enabled(request, &all, &defaults)?;
        let active = activate(request, &all, &enabled, &defaults)?;
        let mut modularity = Self { active, ..Self::default() };
        for stream in &all {
            let is_active = modularity.active.iter().any(|active| std::ptr::eq(*active, *stream));
            let artifacts = stream.artifacts.iter().map(String::as_str);
            match is_active {
                true => modularity.included.extend(artifacts.clone()),
                false => modularity.excluded.extend(artifacts.clone()),
            }
            let names = artifacts
                .filter_map(name_of)
                .filter(|name| is_active && !stream.demodularized.iter().any(|former| former == name));
            modularity.names.extend(names);
        }
        Ok(modularity)
    }

    /// Whether a package of a repository must not be seen.
    pub fn hides(&self, package: &RepoPackage, repo: &RepoMetadata) -> bool {
        if self.names.is_empty() && self.excluded.is_empty() || repo.module_hotfixes {
            return false;
        }
        let nevra = strict(&package.nevra);
        let provided = || package.provides.iter().map(|provided| provided.name.as_str());
        !self.included.contains(nevra.as_str())
            && (self.excluded.contains(nevra.as_str())
                || self.names.contains(package.nevra.name.as_str())
                || provided().any(|name| self.names.contains(name)))
    }

    /// The names that an entry wants installed, and the packages of its stream by [`strict`] NEVRA; none if it is
    /// of no module.
    ///
    /// dnf's `ModuleBase.install`.
    pub fn profile(&self, text: &str, repos: &[&'a RepoMetadata]) -> Option<Result<Profile<'a>, String>> {
        let entry = Entry::parse(text);
        let streams: Vec<&Stream> =
            self.active.iter().copied().filter(|stream| entry.is_of(stream)).collect();
        let latest = *streams.iter().max_by_key(|stream| stream.version)?;
        let profiles: Vec<&str> = match entry.profile {
            // it may still be a group's
            Some(profile) => vec![latest.profiles.get_key_value(profile)?.0],
            None => {
                let all = repos.iter().flat_map(|repo| &repo.modules.defaults);
                let own = all.filter(|defaults| defaults.module == latest.name);
                own.filter_map(|defaults| defaults.profiles.get(&latest.stream))
                    .flatten()
                    .map(String::as_str)
                    .collect()
            }
        };
        if profiles.is_empty() {
            let known: Vec<&str> = latest.profiles.keys().map(String::as_str).collect();
            return Some(Err(format!(
                "module stream {}:{} has no default profile: write `@{}:{}/PROFILE` with one of {}",
                latest.name,
                latest.stream,
                latest.name,
                latest.stream,
                known.join(", ")
            )));
        }
        let names = profiles.into_iter().filter_map(|name| latest.profiles.get(name)).flatten();
        Some(Ok(Profile {
            names: names.map(String::as_str).collect(),
            artifacts: streams.iter().flat_map(|stream| &stream.artifacts).map(String::as_str).collect(),
        }))
    }
}

/// What an entry of a module wants.
pub struct Profile<'a> {
    /// Names of packages.
    pub names: BTreeSet<&'a str>,
    artifacts: HashSet<&'a str>,
}

impl Profile<'_> {
    /// Whether a package is of the module.
    pub fn has(&self, nevra: &Nevra) -> bool {
        self.artifacts.contains(strict(nevra).as_str())
    }
}

/// As modules.yaml writes packages: the epoch always.
fn strict(nevra: &Nevra) -> String {
    let Nevra { name, evr, arch } = nevra;
    format!("{name}-{}:{}-{}.{arch}", evr.epoch, evr.version, evr.release)
}

/// The name in `NAME-EPOCH:VERSION-RELEASE.ARCH`; none of a source package, which hides nothing.
fn name_of(artifact: &str) -> Option<&str> {
    let (nevr, arch) = artifact.rsplit_once('.')?;
    let name = nevr.rsplit_once('-')?.0.rsplit_once('-')?.0;
    (!matches!(arch, "src" | "nosrc")).then_some(name)
}

/// The default stream of each module; none where repositories say different things.
fn defaults<'a>(repos: &[&'a RepoMetadata]) -> BTreeMap<&'a str, &'a str> {
    let mut said: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for defaults in repos.iter().flat_map(|repo| &repo.modules.defaults) {
        said.entry(&defaults.module).or_default().extend(defaults.stream.as_deref());
    }
    let agreed = said.into_iter().filter(|(_, streams)| streams.len() == 1);
    agreed.filter_map(|(name, streams)| Some((name, streams.into_iter().next()?))).collect()
}

/// A stream that the manifest enables, and the entry that does, with its list.
type Enabled<'a> = (&'a str, (List, &'a Sourced<String>));

/// The stream of each module that the manifest enables.
fn enabled<'a>(
    request: &Request<'a>,
    all: &[&'a Stream],
    defaults: &BTreeMap<&str, &'a str>,
) -> Result<BTreeMap<&'a str, Enabled<'a>>, Unsatisfiable> {
    let mut enabled: BTreeMap<&str, Enabled> = BTreeMap::new();
    let mut failed: Vec<Problem> = Vec::new();
    let groups = request.packages.install.iter().filter(|entry| entry.value.starts_with('@'));
    let modules = request.packages.modules.iter().map(|entry| (List::Modules, entry));
    for by in modules.chain(groups.map(|entry| (List::Install, entry))) {
        let (list, source) = by;
        let entry = Entry::parse(&source.value);
        let streams: BTreeSet<&str> =
            all.iter().filter(|stream| entry.is_of(stream)).map(|stream| stream.stream.as_str()).collect();
        let chosen = match (streams.len(), enabled.get(entry.name)) {
            // an entry of a group, which is no module
            (0, _) if list == List::Install => continue,
            (0, _) => None,
            (1, _) => streams.first().copied(),
            (_, Some(&(earlier, _))) => Some(earlier),
            (_, None) => defaults.get(entry.name).copied().filter(|stream| streams.contains(stream)),
        };
        match (chosen, enabled.get(entry.name)) {
            (None, _) => failed.push(explain::no_such_stream(by, &streams)),
            (Some(stream), Some((other, earlier))) if stream != *other => {
                failed.push(explain::two_streams(by, *earlier));
            }
            (Some(stream), _) => {
                let name = streams.first().and_then(|_| all.iter().find(|s| s.name == entry.name));
                if let Some(module) = name {
                    enabled.entry(&module.name).or_insert((stream, by));
                }
            }
        }
    }
    match failed.is_empty() {
        true => Ok(enabled),
        false => Err(Unsatisfiable::new(failed)),
    }
}

/// Solves for the streams that are enabled, and as many default ones as go with them.
fn activate<'a>(
    request: &Request<'a>,
    all: &[&'a Stream],
    enabled: &BTreeMap<&'a str, Enabled<'a>>,
    defaults: &BTreeMap<&'a str, &'a str>,
) -> Result<Vec<&'a Stream>, super::Error> {
    let usable = |stream: &&&Stream| stream.arch.is_empty() || request.arch.runs(&stream.arch);
    let streams: Vec<&Stream> = all.iter().filter(usable).copied().collect();
    let packages: Vec<RepoPackage> = streams.iter().map(|stream| as_package(stream)).collect();
    let pool = fill(request, &packages)?;
    let jobs: Vec<Job> = streams
        .iter()
        .filter_map(|stream| {
            let is = |wanted: Option<&&str>| wanted.is_some_and(|wanted| *wanted == stream.stream);
            let action = match enabled.get(stream.name.as_str()) {
                Some((wanted, _)) if is(Some(wanted)) => Action::Install,
                None if is(defaults.get(stream.name.as_str())) => Action::InstallIfPossible,
                _ => return None,
            };
            let wanted = provided(&format!("{}:{}", stream.name, stream.stream));
            // a plain name always interns
            let packages = pool.intern(&wanted).map(|id| pool.providers(id)).unwrap_or_default();
            Some(Job { action, packages, dependency: None })
        })
        .collect();
    match pool.solve(&jobs, true, false).or_else(|_| pool.solve(&jobs, false, false)) {
        Ok(chosen) => {
            // the platform comes first; with a build of a stream its other versions are active, too
            let indices = chosen.into_iter().filter_map(|PackageId(at)| at.checked_sub(1));
            let names: BTreeSet<&str> = indices.map(|at| packages[at].nevra.name.as_str()).collect();
            let active = streams.iter().zip(&packages).filter(|(_, p)| names.contains(p.nevra.name.as_str()));
            Ok(active.map(|(stream, _)| *stream).collect())
        }
        Err(_) => {
            let entries: Vec<_> = enabled.values().map(|(_, by)| *by).collect();
            Err(Unsatisfiable::new(vec![explain::streams_exclude_each_other(&entries)]).into())
        }
    }
}

/// The platform, which is there, and all streams.
fn fill(request: &Request, streams: &[RepoPackage]) -> Result<Pool, BadDependency> {
    let platform = RepoPackage {
        nevra: Nevra { name: "platform".into(), evr: Evr::new(0, "0", ""), arch: "noarch".into() },
        provides: vec![provided("platform"), provided(&format!("platform:{}", request.platform))],
        ..RepoPackage::default()
    };
    let mut pool = Pool::new(request.arch);
    let installed = pool.add_repo(99, 1000, [&platform].into_iter())?;
    pool.set_installed(installed);
    pool.add_repo(99, 1000, streams.iter())?;
    pool.seal(std::iter::empty());
    Ok(pool)
}

fn provided(module: &str) -> Arc<Dependency> {
    required(format!("module({module})"))
}

fn required(name: String) -> Arc<Dependency> {
    Arc::new(Dependency { name, version: None, pre: false })
}

/// A stream as libdnf tells libsolv of it: only one of a module can be there.
fn as_package(stream: &Stream) -> RepoPackage {
    let context = match stream.static_context {
        true => stream.context.clone(),
        // the context is a digest of how it was built; what it needs is what tells streams apart
        false => {
            let others = stream.requires.iter().filter(|(name, _)| name != "platform");
            others.map(|(name, streams)| format!("{name}:[{}]", streams.join(","))).collect()
        }
    };
    let mut package = RepoPackage {
        nevra: Nevra {
            name: format!("{}:{}:{context}", stream.name, stream.stream),
            evr: Evr::new(0, stream.version.to_string(), ""),
            arch: if stream.arch.is_empty() { "noarch".to_owned() } else { stream.arch.clone() },
        },
        provides: vec![provided(&stream.name), provided(&format!("{}:{}", stream.name, stream.stream))],
        conflicts: vec![provided(&stream.name)],
        ..RepoPackage::default()
    };
    for (name, streams) in &stream.requires {
        let (barred, wanted): (Vec<&String>, Vec<&String>) = streams.iter().partition(|s| s.starts_with('-'));
        package.conflicts.extend(barred.iter().map(|stream| provided(&format!("{name}:{}", &stream[1..]))));
        let mut wanted = wanted.iter().map(|stream| format!("module({name}:{stream})"));
        let text = match wanted.len() {
            0 => format!("module({name})"),
            1 => wanted.next().unwrap_or_default(),
            _ => format!("({})", wanted.collect::<Vec<_>>().join(" or ")),
        };
        package.requires.push(required(text));
    }
    package
}
