//! Locked packages that have left their repositories.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Action, LockedPackage, Lockfile, Metadata};
use crate::digest::Digest;
use crate::package::Nevra;
use crate::plan::{self, Plan};
use crate::progress::Progress;
use crate::repo::RepoMetadata;

/// A locked package that its repository does not list any more, not with this content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The package.
    pub package: Nevra,
    /// Id of the repository; absent if the lock does not say it, as an imported one may not, and none has the package.
    pub repo: Option<String>,
    /// Where it can still be had; nowhere if absent.
    pub at: Option<String>,
}

/// What the repositories of a stream list today.
pub struct Listed<'l> {
    plan: &'l Plan,
    metadata: &'l dyn Metadata,
    progress: &'l dyn Progress,
    /// By repository id; nothing for one that could not be asked.
    contents: BTreeMap<String, Option<Contents>>,
}

/// What a repository lists.
struct Contents {
    packages: HashSet<Nevra>,
    /// None if it tells them by another checksum than a lock has.
    digests: HashSet<Digest>,
}

impl<'l> Listed<'l> {
    /// Asks nobody yet.
    pub fn new(plan: &'l Plan, metadata: &'l dyn Metadata, progress: &'l dyn Progress) -> Self {
        Self { plan, metadata, progress, contents: BTreeMap::new() }
    }

    /// The packages of a lock that have left their repositories. One that cannot be asked is warned of.
    pub fn gone(&mut self, lock: &Lockfile) -> Vec<Gone> {
        let mut gone = Vec::new();
        let fetched = |package: &&LockedPackage| package.repo != "file" && package.action != Action::Remove;
        for package in lock.packages.iter().filter(fetched) {
            let repo = self.plan.stream.repos.contains_key(&package.repo).then(|| package.repo.clone());
            if !self.may_list(repo.as_deref(), package) {
                let at = self.metadata.whereabouts(self.plan, lock, package);
                gone.push(Gone { package: package.nevra(), repo, at });
            }
        }
        gone
    }

    /// Whether a repository, or else any of the stream, has a package, for all one knows.
    fn may_list(&mut self, repo: Option<&str>, package: &LockedPackage) -> bool {
        let plan = self.plan;
        let mut ids = plan.stream.repos.keys().filter(|id| repo.is_none_or(|repo| repo == *id));
        ids.any(|id| self.contents(id).is_none_or(|contents| contents.has(package)))
    }

    fn contents(&mut self, id: &str) -> Option<&Contents> {
        if !self.contents.contains_key(id) {
            // what the stream hides of a repository has not left it
            let hides_nothing =
                |repo: &plan::Repo| plan::Repo { includepkgs: vec![], excludepkgs: vec![], ..repo.clone() };
            let repo = self.plan.stream.repos.get(id).map(hides_nothing)?;
            let contents = match self.metadata.newest(&[&repo]) {
                Ok(newest) => newest.first().map(Contents::of),
                Err(error) => {
                    self.progress.warn(&format!("whether packages have left {id} cannot be told: {error:#}"));
                    None
                }
            };
            self.contents.insert(id.to_owned(), contents);
        }
        self.contents.get(id)?.as_ref()
    }
}

impl Contents {
    fn of(metadata: &RepoMetadata) -> Self {
        let packages = metadata.packages.nevras().map(|(_, nevra)| nevra);
        Self { packages: packages.collect(), digests: metadata.packages.digests().collect() }
    }

    fn has(&self, package: &LockedPackage) -> bool {
        match &package.sha256 {
            Some(digest) if !self.digests.is_empty() => self.digests.contains(digest),
            _ => self.packages.contains(&package.nevra()),
        }
    }
}
