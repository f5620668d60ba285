//! Locked packages that have left their repositories.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{LockedPackage, Lockfile, Metadata};
use crate::digest::Digest;
use crate::package::Nevra;
use crate::plan::Plan;
use crate::progress::Progress;

/// A locked package that its repository does not list any more, not with this content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The package.
    pub package: Nevra,
    /// Id of the repository.
    pub repo: String,
    /// Where it can still be had; nowhere if absent.
    pub at: Option<String>,
}

/// What the repositories of a stream list today.
pub struct Listed<'l> {
    plan: &'l Plan,
    metadata: &'l dyn Metadata,
    progress: &'l dyn Progress,
    /// By repository id; nothing for one that could not be asked.
    digests: BTreeMap<String, Option<HashSet<Digest>>>,
}

impl<'l> Listed<'l> {
    /// Asks nobody yet.
    pub fn new(plan: &'l Plan, metadata: &'l dyn Metadata, progress: &'l dyn Progress) -> Self {
        Self { plan, metadata, progress, digests: BTreeMap::new() }
    }

    /// The packages of a lock that have left their repositories. One that cannot be asked is warned of.
    pub fn gone(&mut self, lock: &Lockfile) -> Vec<Gone> {
        let mut gone = Vec::new();
        for package in lock.packages.iter().filter(|package| package.repo != "file") {
            let LockedPackage { repo, sha256: Some(digest), .. } = package else { continue };
            if self.digests(repo).is_some_and(|listed| !listed.contains(digest)) {
                let at = self.metadata.whereabouts(self.plan, lock, package);
                gone.push(Gone { package: package.nevra(), repo: repo.clone(), at });
            }
        }
        gone
    }

    fn digests(&mut self, repo: &str) -> Option<&HashSet<Digest>> {
        if !self.digests.contains_key(repo) {
            let listed = match self.plan.stream.repos.get(repo).map(|repo| self.metadata.newest(repo)) {
                None => Some(HashSet::new()),
                Some(Ok(metadata)) => Some(metadata.packages.digests().collect()),
                Some(Err(error)) => {
                    self.progress
                        .warn(&format!("whether packages have left {repo} cannot be told: {error:#}"));
                    None
                }
            };
            self.digests.insert(repo.to_owned(), listed);
        }
        self.digests.get(repo)?.as_ref()
    }
}
