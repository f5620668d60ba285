//! The life of overrides: what has caught up with one, and whether its time is over.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::Installed;
use crate::package::{Evr, Nevra};
use crate::plan::{Layer, Origin, Override, OverrideKind, OverrideTo, Sourced};
use crate::repo::{RepoMetadata, RepoPackage};

/// What there is to tell of an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The override, and where it stands.
    pub entry: Sourced<Override>,
    /// What became of it.
    pub state: State,
}

/// What became of an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its last day is over.
    Expired,
    /// Without it there would be the same version or a newer one.
    CaughtUp {
        /// The package that is as new.
        by: Nevra,
        /// Where that is: `the bootc layer`, `the repository ose`.
        place: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sourced { value: Override { package, kind, reason, until, .. }, origin } = &self.entry;
        match &self.state {
            State::Expired => {
                let until = until.as_deref().unwrap_or_default();
                write!(f, "{origin}: the {kind} of {package} was to end on {until} ({reason})")
            }
            State::CaughtUp { by, place } => {
                write!(
                    f,
                    "{origin}: the {kind} of {package} is no longer needed: {place} has {by} ({reason})"
                )
            }
        }
    }
}

/// The overrides of a layer whose last day is before `today`, `YYYY-MM-DD`.
pub fn expired(layer: &Layer, today: &str) -> Vec<Notice> {
    let is_over =
        |entry: &&Sourced<Override>| entry.value.until.as_deref().is_some_and(|until| until < today);
    let overrides = layer.packages.overrides.iter().filter(is_over);
    overrides.map(|entry| Notice { entry: entry.clone(), state: State::Expired }).collect()
}

/// The overrides of a layer that would be of no use any more: the layers below have what they put in place, or
/// newer; or, of a package that is not below, a repository has something newer, or the same as a local file. A pin
/// is never among them: it is there to hold back.
///
/// `offered` may be empty, if no repository was looked at.
pub(super) fn caught_up(
    layer: &Layer,
    below: &[Installed],
    local: &BTreeMap<PathBuf, RepoPackage>,
    offered: &[&RepoMetadata],
) -> Vec<Notice> {
    let notice = |entry: &Sourced<Override>| {
        let Override { package, to, kind, .. } = &entry.value;
        let (wanted, is_local) = match to {
            OverrideTo::Version(evr) => (evr, false),
            OverrideTo::File(file) => (&local.get(file)?.nevra.evr, true),
        };
        if *kind == OverrideKind::Pin {
            return None;
        }
        let mut parents = below.iter().filter(|i| i.package.name == *package).peekable();
        let state = if parents.peek().is_some() {
            let found = parents.find(|i| is_as_new(&i.package.evr, wanted))?;
            State::CaughtUp { by: found.package.nevra(), place: format!("the {} layer", found.layer) }
        } else {
            let is_enough = |evr: &Evr| is_as_new(evr, wanted) && (is_local || !is_as_new(wanted, evr));
            let named = |repo: &&'_ RepoMetadata| {
                let mut packages = repo.packages.called(package);
                Some((repo.id.clone(), packages.find(|p| is_enough(&p.nevra.evr))?.nevra.clone()))
            };
            let (repo, by) = offered.iter().find_map(named)?;
            State::CaughtUp { by, place: format!("the repository {repo}") }
        };
        Some(Notice { entry: entry.clone(), state })
    };
    layer.packages.overrides.iter().filter_map(notice).collect()
}

/// Whether `evr` is `wanted` or newer, as far as both have a release.
fn is_as_new(evr: &Evr, wanted: &Evr) -> bool {
    let without = |evr: &Evr| Evr { release: String::new(), ..evr.clone() };
    match evr.release.is_empty() || wanted.release.is_empty() {
        true => without(evr).rpm_cmp(&without(wanted)).is_ge(),
        false => evr.rpm_cmp(wanted).is_ge(),
    }
}

/// The places of the overrides that `caught_up` names wherever they count, sorted: one in a shared file may count in
/// several layers and on several architectures.
pub fn droppable<'n>(
    layers: impl IntoIterator<Item = &'n Layer>,
    caught_up: impl IntoIterator<Item = &'n Notice>,
) -> Vec<Origin> {
    let mut uses: BTreeMap<&Origin, usize> = BTreeMap::new();
    for entry in layers.into_iter().flat_map(|layer| &layer.packages.overrides) {
        *uses.entry(&entry.origin).or_default() += 1;
    }
    let mut done: BTreeMap<&Origin, usize> = BTreeMap::new();
    for notice in caught_up {
        *done.entry(&notice.entry.origin).or_default() += 1;
    }
    done.into_iter().filter(|(origin, done)| uses.get(origin) == Some(done)).map(|(o, _)| o.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_release_is_any() {
        let as_new = |evr: &str, wanted: &str| is_as_new(&evr.parse().unwrap(), &wanted.parse().unwrap());
        assert!(as_new("5.0-3", "5.0"));
        assert!(as_new("5.0-3", "5.0-3"));
        assert!(as_new("1:4.0-1", "5.0-3"));
        assert!(!as_new("5.0-2", "5.0-3"));
        assert!(!as_new("4.9-9", "5.0"));
    }
}
