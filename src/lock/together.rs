//! One build of every source package on all architectures (`same-evr` of a stream).
//!
//! The layer is solved for each architecture on its own; where builds of a source differ, one of them is chosen for
//! all, no other may be taken, and the architectures that had another are solved again. The search is complete: if a
//! choice leads nowhere the next is tried, so a common solution is found if there is one. First come builds that
//! every architecture has which uses the source, newest first.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::solve::{Question, Run};
use super::{Action, LockedPackage, Lockfile, Stale, Unsolved, installed};
use crate::error::hinted;
use crate::package::{Arch, Evr, source_evr, source_name};
use crate::plan::SameEvr;

/// So many choices are tried: each costs a solution of every architecture it concerns.
const MAX_CHOICES: usize = 500;

/// Builds chosen for all architectures: file name of the source package by its name.
type Builds = BTreeMap<String, String>;

/// The locks of a layer, one per architecture, in which every source but the exceptions has one build.
///
/// Locks that hold and agree are kept; else all are solved, and the questions say why.
pub(super) fn agree<'r>(
    runs: &mut [Run<'r>],
    questions: &mut [Question<'r>],
    rule: &SameEvr,
) -> Result<Vec<Lockfile>> {
    let except = exceptions(rule).context("reading `same-evr` of the stream")?;
    let kept: Vec<Lockfile> = questions.iter().filter_map(|q| q.previous.clone()).collect();
    let mut reason = Stale::Together;
    if questions.iter().all(|question| question.stale.is_none()) {
        match disagreements(questions, &kept, &except).pop_first() {
            None => return Ok(kept),
            Some(source) => reason = Stale::Builds(source),
        }
    }
    questions.iter_mut().for_each(|question| _ = question.stale.get_or_insert_with(|| reason.clone()));
    let first = runs.iter_mut().zip(&*questions).map(|(run, question)| run.solved(question, &Builds::new()));
    let first: Vec<Lockfile> = first.collect::<Result<_>>()?;
    let mut search = Search { runs, questions, except: &except, choices: 0, refusals: Vec::new() };
    match search.from(first.clone(), &Builds::new())? {
        Some(locks) => Ok(locks),
        None => Err(search.impossible(&first)),
    }
}

fn exceptions(rule: &SameEvr) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for glob in &rule.except {
        set.add(Glob::new(glob)?);
    }
    Ok(set.build()?)
}

/// The sources that the layer adds to and of which architectures that use them have different builds.
fn disagreements(questions: &[Question], locks: &[Lockfile], except: &GlobSet) -> BTreeSet<String> {
    let all: Vec<_> = questions.iter().zip(locks).map(|(question, lock)| present(question, lock)).collect();
    let added = locks.iter().flat_map(|lock| &lock.packages).filter(|p| p.action != Action::Remove);
    let mut sources: BTreeSet<&str> = added.map(|package| source_name(&package.source)).collect();
    sources.retain(|source| {
        let builds: BTreeSet<_> = all.iter().filter_map(|present| present.get(*source)).collect();
        !source.is_empty() && !except.is_match(source) && builds.len() > 1
    });
    sources.into_iter().map(str::to_owned).collect()
}

/// The builds of each source that are there when the layer is.
fn present(question: &Question, lock: &Lockfile) -> BTreeMap<String, BTreeSet<String>> {
    let chain: Vec<&Lockfile> = question.chain.iter().chain([lock]).collect();
    let mut present: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for LockedPackage { source, .. } in installed(&chain).into_iter().map(|installed| installed.package) {
        present.entry(source_name(&source).to_owned()).or_default().insert(source);
    }
    present
}

struct Search<'s, 'r> {
    runs: &'s mut [Run<'r>],
    questions: &'s [Question<'r>],
    except: &'s GlobSet,
    choices: usize,
    /// Builds that an architecture could not take, and why.
    refusals: Vec<(Arch, String, String)>,
}

impl Search<'_, '_> {
    /// Locks that agree, reached from `locks`, which have no other than the builds chosen.
    fn from(&mut self, locks: Vec<Lockfile>, chosen: &Builds) -> Result<Option<Vec<Lockfile>>> {
        let differing = disagreements(self.questions, &locks, self.except);
        let Some(source) = differing.first() else { return Ok(Some(locks)) };
        if let Some(fixed) = differing.iter().find(|source| chosen.contains_key(*source)) {
            // only packages of the layers below are not bound by a choice
            self.note(&locks, &chosen[fixed]);
            return Ok(None);
        }
        if differing.len() > 1 {
            // most often each can take the best of its own at once
            let best = differing.iter().filter_map(|source| {
                Some((source.clone(), self.candidates(source, &locks).into_iter().next()?))
            });
            let all = chosen.clone().into_iter().chain(best).collect();
            if let Some(found) = self.choose(&locks, &all)? {
                return Ok(Some(found));
            }
        }
        for build in self.candidates(source, &locks) {
            let mut next = chosen.clone();
            next.insert(source.clone(), build);
            if let Some(found) = self.choose(&locks, &next)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Solves again where another build than a chosen one was taken, and goes on from there.
    fn choose(&mut self, locks: &[Lockfile], chosen: &Builds) -> Result<Option<Vec<Lockfile>>> {
        self.choices += 1;
        if self.choices > MAX_CHOICES {
            return Err(self.impossible(locks)).with_context(|| format!("{MAX_CHOICES} choices were tried"));
        }
        let mut new = Vec::new();
        for (index, lock) in locks.iter().enumerate() {
            let other = lock.packages.iter().find_map(|package| {
                chosen.get(source_name(&package.source)).filter(|build| **build != package.source)
            });
            let Some(build) = other else {
                new.push(lock.clone());
                continue;
            };
            match self.runs[index].solved(&self.questions[index], chosen) {
                Ok(lock) => new.push(lock),
                Err(error) => {
                    let why = error.chain().find_map(|cause| cause.downcast_ref::<Unsolved>());
                    let Some(why) = why.map(ToString::to_string) else { return Err(error) };
                    self.refuse(lock.arch, build, why);
                    return Ok(None);
                }
            }
        }
        self.from(new, chosen)
    }

    /// The builds of a source that the architectures which use it could take, the best first.
    fn candidates(&self, source: &str, locks: &[Lockfile]) -> Vec<String> {
        let mut users = Vec::new();
        let mut taken = BTreeSet::new();
        for ((run, question), lock) in self.runs.iter().zip(self.questions).zip(locks) {
            if let Some(builds) = present(question, lock).remove(source) {
                let mut offered = offered(run, question, source);
                builds
                    .iter()
                    .for_each(|build| _ = offered.entry(build.clone()).or_insert(source_evr(build, 0)));
                users.push(offered);
                taken.extend(builds);
            }
        }
        let all: BTreeMap<&String, &Evr> = users.iter().flatten().collect();
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|&(build, evr)| {
            let common = users.iter().all(|offered| offered.contains_key(build));
            std::cmp::Reverse((common, taken.contains(build), evr, build))
        });
        all.into_iter().map(|(build, _)| build.clone()).collect()
    }

    fn note(&mut self, locks: &[Lockfile], build: &str) {
        for (question, lock) in self.questions.iter().zip(locks) {
            let source = source_name(build);
            let other = question.chain.iter().rev().find_map(|below| {
                let mut packages = below.packages.iter();
                let other = packages.find(|p| source_name(&p.source) == source && p.source != build)?;
                Some(format!("the {} layer has {} of {}", below.layer, other.nevra(), other.source))
            });
            if let Some(other) = other {
                self.refuse(lock.arch, build, other);
            }
        }
    }

    fn refuse(&mut self, arch: Arch, build: &str, why: String) {
        if !self.refusals.iter().any(|(a, b, _)| *a == arch && b == build) {
            self.refusals.push((arch, build.to_owned(), why));
        }
    }

    /// What stands against one build everywhere, by source and architecture.
    fn impossible(&self, locks: &[Lockfile]) -> anyhow::Error {
        let sources = disagreements(self.questions, locks, self.except);
        let layer = &self.questions[0].layer.name;
        let mut lines = Vec::new();
        for source in &sources {
            lines.push(format!("no build of the source package `{source}` is for every architecture"));
            for ((run, question), lock) in self.runs.iter().zip(self.questions).zip(locks) {
                lines.extend(self.situation(run, question, lock, source));
            }
        }
        let list = sources.iter().map(|source| format!("\"{source}\"")).collect::<Vec<_>>().join(", ");
        hinted(
            format!(
                "the {layer} layer cannot have the same builds on all architectures\n{}",
                lines.join("\n")
            ),
            format!(
                "wait until the repositories have the same build for all, or let architectures differ: \
                 `same-evr = {{ except = [{list}] }}` in stream.toml"
            ),
        )
    }

    /// What an architecture has of a source, which line wants it, and why it cannot have another build.
    fn situation(&self, run: &Run, question: &Question, lock: &Lockfile, source: &str) -> Vec<String> {
        let taken = lock.packages.iter().find(|package| source_name(&package.source) == source);
        let Some(taken) = taken else { return Vec::new() };
        let entry = question.layer.packages.install.iter().find(|entry| entry.value == taken.name);
        let line = entry.map(|entry| format!(" at {}", entry.origin)).unwrap_or_default();
        let mut builds: Vec<_> = offered(run, question, source).into_iter().collect();
        builds.sort_by(|(_, a), (_, b)| b.cmp(a));
        let builds: Vec<String> = builds.into_iter().map(|(build, _)| build).collect();
        let mut lines = vec![format!(
            "├─ {}: {} ({}{line}) is of {}; on offer: {}",
            lock.arch,
            taken.nevra(),
            taken.why,
            taken.source,
            builds.join(", ")
        )];
        let refusals = self
            .refusals
            .iter()
            .filter(|(arch, build, _)| *arch == lock.arch && source_name(build) == source);
        lines.extend(
            refusals.map(|(_, build, why)| format!("│  not {build}: {}", why.replace('\n', "\n│    "))),
        );
        lines
    }
}

/// The builds of a source that an architecture can take from repositories or local files. The epoch is the highest
/// of their packages, for that of a source is not in its file name.
fn offered(run: &Run, question: &Question, source: &str) -> BTreeMap<String, Evr> {
    let repos = question.layer.packages.repos.iter().filter_map(|id| run.repos.get(id));
    let packages = repos.flat_map(|repo| repo.packages.iter()).chain(question.local.values());
    let mut builds: BTreeMap<String, Evr> = BTreeMap::new();
    for package in packages.filter(|package| source_name(&package.source) == source) {
        let evr = source_evr(&package.source, package.nevra.evr.epoch);
        let known = builds.entry(package.source.clone()).or_insert_with(|| evr.clone());
        if evr > *known {
            *known = evr;
        }
    }
    builds
}

#[cfg(test)]
mod tests;
