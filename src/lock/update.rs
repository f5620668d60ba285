//! What may change in a lock that still holds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Action, LockedPackage, Lockfile};
use crate::error::{hinted, similar};
use crate::package::Evr;
use crate::repo::{Advisory, RepoMetadata, RepoPackage};
use crate::resolve::Held;

/// What may change in a lock that still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    Nothing,
    /// Packages of these names.
    Packages(BTreeSet<String>),
    /// Packages of these names, which have left their repositories, by as little as can be.
    Repair(BTreeSet<String>),
    /// What these advisories name.
    Advised(Advised),
    /// Everything.
    Everything,
}

impl Update {
    /// Names of packages that are asked for.
    pub(super) fn names(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Packages(names) | Self::Repair(names) => Some(names),
            Self::Nothing | Self::Advised(_) | Self::Everything => None,
        }
    }

    /// Whether what repositories list no more is to stay, but for what is asked for.
    pub(super) fn keeps_unlisted(&self) -> bool {
        matches!(self, Self::Repair(_) | Self::Advised(_))
    }
}

/// Advisories: each that any of these names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advised {
    /// All of type `security`.
    pub security: bool,
    /// Ids of advisories.
    pub ids: BTreeSet<String>,
    /// CVE ids.
    pub cves: BTreeSet<String>,
    /// Severities, whatever their case.
    pub severities: BTreeSet<String>,
}

impl Advised {
    /// Whether an advisory is one of them.
    fn names(&self, advisory: &Advisory) -> bool {
        self.security && advisory.kind == "security"
            || self.ids.contains(&advisory.id)
            || advisory.cves.iter().any(|cve| self.cves.contains(cve))
            || self.severities.iter().any(|severity| severity.eq_ignore_ascii_case(&advisory.severity))
    }

    /// The newest version of each locked package that these advisories name, if it is newer than the locked one
    /// and on offer.
    pub(super) fn versions(&self, lock: &Lockfile, repos: &[&RepoMetadata]) -> Held {
        let mut versions: BTreeMap<String, Evr> = BTreeMap::new();
        let advisories =
            repos.iter().flat_map(|repo| &repo.advisories).filter(|advisory| self.names(advisory));
        for fixed in advisories.flat_map(|advisory| &advisory.packages) {
            let affects = |locked: &LockedPackage| {
                locked.action != Action::Remove
                    && locked.name == fixed.name
                    && locked.arch == fixed.arch
                    && locked.evr < fixed.evr
            };
            let offered =
                || repos.iter().flat_map(|repo| repo.packages.called(&fixed.name)).any(|p| p.nevra == *fixed);
            let known = versions.get(&fixed.name);
            if lock.packages.iter().any(affects) && known.is_none_or(|known| *known < fixed.evr) && offered()
            {
                versions.insert(fixed.name.clone(), fixed.evr.clone());
            }
        }
        versions.into_iter().map(|(name, evr)| (name, BTreeSet::from([evr]))).collect()
    }

    /// An id that none of the repositories' advisories has is a mistake.
    pub(super) fn check<'m>(&self, repos: impl Iterator<Item = &'m RepoMetadata>) -> Result<()> {
        let advisories: Vec<&Advisory> = repos.flat_map(|repo| &repo.advisories).collect();
        let known_ids: BTreeSet<&str> = advisories.iter().map(|advisory| advisory.id.as_str()).collect();
        let known_cves: BTreeSet<&str> =
            advisories.iter().flat_map(|advisory| &advisory.cves).map(String::as_str).collect();
        for (wanted, known, what) in
            [(&self.ids, known_ids, "has the id"), (&self.cves, known_cves, "is about")]
        {
            if let Some(unknown) = wanted.iter().find(|id| !known.contains(id.as_str())) {
                let advice = match similar(unknown, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "the repositories' updateinfo has those that they know".to_owned(),
                };
                return Err(hinted(
                    format!("no advisory of the stream's repositories {what} `{unknown}`"),
                    advice,
                ));
            }
        }
        Ok(())
    }
}

/// The version nearest to a locked package that is on offer: its own, else the next above, else the next below.
pub(super) fn nearest(locked: &LockedPackage, repos: &[&RepoMetadata]) -> Option<Evr> {
    let packages = repos.iter().flat_map(|repo| repo.packages.called(&locked.name));
    let is_alike = |package: &&RepoPackage| package.nevra.arch == locked.arch;
    let versions: BTreeSet<&Evr> = packages.filter(is_alike).map(|package| &package.nevra.evr).collect();
    let above = versions.iter().find(|version| ***version >= locked.evr);
    above.or(versions.last()).map(|evr| (*evr).clone())
}
