//! Edits of a manifest that give a request a solution which has none.
//!
//! [`explain`](mod@super::explain) proposes what could help wherever it finds something in the way; here each proposal
//! is tried by solving with it, so that no advice is given that does not work. The number of trials is bounded.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Error, Request, Unsatisfiable, solve};
use crate::package::Evr;
use crate::plan::{Origin, Override, OverrideKind, OverrideTo, Packages, Sourced};
use crate::repo::{RepoMetadata, RepoPackage};

/// So many ways out are told.
const MAX_WAYS: usize = 3;

/// So many edits are tried.
const MAX_TRIALS: usize = 30;

/// So many beginnings of several edits are followed at a time.
const MAX_BEGINNINGS: usize = 4;

/// A list of `[packages]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    /// `install`
    Install,
    /// `remove`
    Remove,
    /// `exclude`
    Exclude,
    /// `modules`
    Modules,
    /// `exclude_from_weak`
    ExcludeFromWeak,
}

/// A change of a layer's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// An entry is written otherwise.
    Write(List, Sourced<String>, String),
    /// Another repository of the stream is used.
    UseRepo(String),
    /// An entry is dropped.
    Drop(List, Sourced<String>),
    /// A package of the layers below is overridden.
    Override(String, Evr),
    /// An override takes another version.
    Reversion(Sourced<Override>, Evr),
    /// An override is dropped.
    Unoverride(Sourced<Override>),
    /// A package of the layers below is removed.
    Remove(String),
}

impl Edit {
    /// The request after the edit; but for the repositories' metadata.
    pub fn apply(&self, packages: &Packages) -> Packages {
        let mut packages = packages.clone();
        match self {
            Self::Write(list, entry, text) => {
                let entries = list.of(&mut packages);
                entries
                    .iter_mut()
                    .filter(|other| *other == entry)
                    .for_each(|other| other.value.clone_from(text));
            }
            Self::UseRepo(id) => packages.repos.push(id.clone()),
            Self::Drop(list, entry) => list.of(&mut packages).retain(|other| other != entry),
            Self::Override(package, evr) => {
                let origin = Origin { file: "override".into(), line: 1 };
                let value = Override {
                    package: package.clone(),
                    to: OverrideTo::Version(evr.clone()),
                    kind: OverrideKind::FastTrack,
                    reason: "proposed".to_owned(),
                    update: None,
                    until: None,
                };
                packages.overrides.push(Sourced { value, origin });
            }
            Self::Reversion(entry, evr) => {
                let same = packages.overrides.iter_mut().filter(|other| *other == entry);
                same.for_each(|other| other.value.to = OverrideTo::Version(evr.clone()));
            }
            Self::Unoverride(entry) => packages.overrides.retain(|other| other != entry),
            Self::Remove(name) => {
                let origin = Origin { file: "remove".into(), line: 1 };
                packages.remove.push(Sourced { value: name.clone(), origin });
            }
        }
        packages
    }

    /// How much it takes from what was asked for: less is better.
    fn rank(&self) -> u8 {
        match self {
            Self::Write(..) => 0,
            Self::UseRepo(_) => 1,
            Self::Drop(List::Exclude | List::ExcludeFromWeak, _) => 2,
            Self::Override(..) | Self::Reversion(..) => 3,
            Self::Unoverride(_) => 4,
            Self::Remove(_) => 5,
            Self::Drop(List::Remove, _) => 6,
            Self::Drop(List::Install | List::Modules, _) => 7,
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(_, entry, text) => {
                write!(f, "write `{text}` for `{}` at {}", entry.value, entry.origin)
            }
            Self::UseRepo(id) => write!(f, "add `{id}` to the `repos` of the layer"),
            Self::Drop(_, entry) => write!(f, "drop `{}` at {}", entry.value, entry.origin),
            Self::Override(package, evr) => {
                write!(f, "add an [[override]] for `{package}` with `version = \"{evr}\"`")
            }
            Self::Reversion(entry, evr) => write!(f, "write `version = \"{evr}\"` at {}", entry.origin),
            Self::Unoverride(entry) => {
                write!(f, "drop the override of `{}` at {}", entry.value.package, entry.origin)
            }
            Self::Remove(name) => write!(f, "add `{name}` to `remove`, if this layer is to go without it"),
        }
    }
}

/// For programs: the sentence for people, and its parts.
impl Serialize for Edit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Parts<'e> {
            text: String,
            action: &'static str,
            list: Option<List>,
            subject: &'e str,
            value: Option<String>,
            origin: Option<&'e Origin>,
        }
        let (action, list, subject, value, origin) = match self {
            Self::Write(list, entry, text) => {
                ("write", Some(*list), &entry.value, Some(text.clone()), Some(&entry.origin))
            }
            Self::UseRepo(id) => ("use-repo", None, id, None, None),
            Self::Drop(list, entry) => ("drop", Some(*list), &entry.value, None, Some(&entry.origin)),
            Self::Override(package, evr) => ("override", None, package, Some(evr.to_string()), None),
            Self::Reversion(entry, evr) => {
                ("override", None, &entry.value.package, Some(evr.to_string()), Some(&entry.origin))
            }
            Self::Unoverride(entry) => {
                ("drop-override", None, &entry.value.package, None, Some(&entry.origin))
            }
            Self::Remove(name) => ("remove", None, name, None, None),
        };
        Parts { text: self.to_string(), action, list, subject, value, origin }.serialize(serializer)
    }
}

impl List {
    fn of(self, packages: &mut Packages) -> &mut Vec<Sourced<String>> {
        match self {
            Self::Install => &mut packages.install,
            Self::Remove => &mut packages.remove,
            Self::Exclude => &mut packages.exclude,
            Self::Modules => &mut packages.modules,
            Self::ExcludeFromWeak => &mut packages.exclude_from_weak,
        }
    }
}

/// What can be done about a request without a solution: at most three ways, each one or more edits with which it was
/// solved, the mildest first. `others` are the repositories of the stream that the layer does not use.
pub fn ways_out(request: &Request, others: &[&RepoMetadata], error: &Unsatisfiable) -> Vec<Vec<Edit>> {
    let mut search = Search { request, others, trials: 0 };
    let mut beginnings = vec![(Vec::new(), search.proposals(error))];
    // every contradiction takes an edit, and one that comes to light after another takes one more
    for _ in 0..error.problems() + 2 {
        let (ways, next) = search.lengthen(beginnings);
        if !ways.is_empty() || next.is_empty() {
            return ways;
        }
        beginnings = next;
    }
    Vec::new()
}

/// Edits, and what can be tried after them.
type Beginning = (Vec<Edit>, Vec<Edit>);

struct Search<'s> {
    request: &'s Request<'s>,
    others: &'s [&'s RepoMetadata],
    trials: usize,
}

impl Search<'_> {
    /// Tries one more edit after each beginning: gives those that do, and the best beginnings of longer ones.
    fn lengthen(&mut self, beginnings: Vec<Beginning>) -> (Vec<Vec<Edit>>, Vec<Beginning>) {
        let (mut ways, mut next) = (Vec::new(), Vec::new());
        for (edits, proposals) in beginnings {
            for edit in proposals {
                if ways.len() == MAX_WAYS || self.trials == MAX_TRIALS {
                    return (ways, Vec::new());
                }
                let known =
                    |way: &Vec<Edit>| way.contains(&edit) && edits.iter().all(|edit| way.contains(edit));
                if edits.contains(&edit) || ways.iter().any(known) {
                    continue;
                }
                self.trials += 1;
                let edits: Vec<Edit> = edits.iter().cloned().chain([edit]).collect();
                match self.attempt(&edits) {
                    None => ways.push(edits),
                    Some(Error::Unsatisfiable(error)) => {
                        next.push((error.problems(), (edits, self.proposals(&error))));
                    }
                    Some(Error::BadDependency(_)) => {}
                }
            }
        }
        next.sort_by_key(|(problems, _)| *problems);
        (ways, next.into_iter().take(MAX_BEGINNINGS).map(|(_, beginning)| beginning).collect())
    }

    /// What is still in the way after some edits.
    fn attempt(&self, edits: &[Edit]) -> Option<Error> {
        let packages =
            edits.iter().fold(self.request.packages.clone(), |packages, edit| edit.apply(&packages));
        let used = |repo: &&&RepoMetadata| edits.contains(&Edit::UseRepo(repo.id.clone()));
        let repos: Vec<&RepoMetadata> =
            self.request.repos.iter().chain(self.others.iter().filter(used)).copied().collect();
        solve(&Request { packages: &packages, repos: &repos, ..*self.request }).err()
    }

    /// The mildest first.
    fn proposals(&self, error: &Unsatisfiable) -> Vec<Edit> {
        let mut proposals = Vec::new();
        let has = |repo: &&&RepoMetadata| error.missing().any(|name| offers(repo, name));
        let repos = self.others.iter().filter(has).map(|repo| Edit::UseRepo(repo.id.clone()));
        for edit in repos.chain(error.edits().cloned()) {
            if !proposals.contains(&edit) {
                proposals.push(edit);
            }
        }
        proposals.sort_by_key(Edit::rank);
        proposals
    }
}

/// Whether a repository has a package that [`provides`] a name, or what an entry with an `@` is of.
fn offers(repo: &RepoMetadata, name: &str) -> bool {
    match name.strip_prefix('@') {
        Some(id) => {
            let modules = repo.modules.streams.iter().map(|stream| stream.name.as_str());
            repo.comps.ids().chain(modules).any(|known| known == id)
        }
        None => repo.packages.providing(name).next().is_some(),
    }
}

/// Whether a package has a name, gives a capability of it or has a file of it.
pub(super) fn provides(package: &RepoPackage, name: &str) -> bool {
    package.nevra.name == name
        || package.provides.iter().any(|provided| provided.name == name)
        || name.starts_with('/') && package.files.iter().any(|file| file == name)
}

#[cfg(test)]
mod tests;
