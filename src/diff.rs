//! What changed between two sets of packages.
//!
//! Packages are matched by name *and* architecture: a change of one of `glibc.x86_64` and `glibc.i686` is that
//! change and no other. Where several versions of one package are installed together (kernels), those in both
//! sets are the same, and of the others the newest is taken to have become the newest.
//!
//! # JSON
//!
//! [`Diff`] serializes to a stable form, arrays sorted by name, architecture and version:
//!
//! ```json
//! {
//!   "added":       [{"name": "zoo", "arch": "noarch", "evr": "1.0-1.el9", "layer": "node"}],
//!   "removed":     [{"name": "old", "arch": "x86_64", "evr": "2:1.0-1.el9", "layer": null}],
//!   "upgraded":    [{"name": "cri-o", "arch": "x86_64", "from": "1.32.0-1.el9", "to": "1.32.1-1.el9", "layer": "node"}],
//!   "downgraded":  [],
//!   "fast-tracks": [{"name": "runc", "arch": "x86_64", "evr": "1.2-2.el9", "replaces": "1.1-1.el9", "layer": "node"}],
//!   "ids":         [{"kind": "user", "name": "chrony", "from": null, "to": {"uid": 996, "gid": 996}}]
//! }
//! ```
//!
//! `layer` is where the package is after the change (before it, if removed), null when the source doesn't tell.
//! `fast-tracks` are all packages of the new set that replace a lower layer's, changed or not. `ids` are those that
//! lockfiles keep; `from` is null for a new account, `to` for one that is gone.

pub mod image;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ledger;
use crate::package::{Evr, Nevra};
use crate::pkglist::PackageSet;

/// The differences between two package sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Diff {
    /// Only in the new set.
    pub added: Vec<Package>,
    /// Only in the old set.
    pub removed: Vec<Package>,
    /// Newer in the new set.
    pub upgraded: Vec<Change>,
    /// Older in the new set.
    pub downgraded: Vec<Change>,
    /// Packages of the new set that a layer put in the place of a lower layer's.
    pub fast_tracks: Vec<FastTrack>,
    /// Accounts whose ids the ledgers of the two do not have the same; nothing but lockfiles has one.
    pub ids: Vec<ledger::Change>,
}

/// A package that is in one set only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Package architecture.
    pub arch: String,
    /// Its version.
    pub evr: Evr,
    /// The layer it is or was in.
    pub layer: Option<String>,
}

/// A package with another version in each set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Package name.
    pub name: String,
    /// Package architecture.
    pub arch: String,
    /// Version in the old set.
    pub from: Evr,
    /// Version in the new set.
    pub to: Evr,
    /// The layer it is in, in the new set.
    pub layer: Option<String>,
}

/// A package in the place of a lower layer's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FastTrack {
    /// Package name.
    pub name: String,
    /// Package architecture.
    pub arch: String,
    /// Its version.
    pub evr: Evr,
    /// The lower layer's version.
    pub replaces: Evr,
    /// The layer that replaces it.
    pub layer: Option<String>,
}

impl Diff {
    /// Whether nothing was added, removed or changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.upgraded.is_empty()
            && self.downgraded.is_empty()
            && self.ids.is_empty()
    }
}

/// Compares two sets.
pub fn diff(from: &PackageSet, to: &PackageSet) -> Diff {
    let mut diff = Diff { fast_tracks: fast_tracks(to), ..Diff::default() };
    let (mut gone, mut new) = (only_in(from, to), only_in(to, from));
    let keys: BTreeSet<_> = gone.keys().chain(new.keys()).copied().collect();
    for key in keys {
        let (mut gone, mut new) =
            (gone.remove(&key).unwrap_or_default(), new.remove(&key).unwrap_or_default());
        // from the newest down
        while let (Some(old), Some(latest)) = (gone.last(), new.last()) {
            let changes = if old.evr > latest.evr { &mut diff.downgraded } else { &mut diff.upgraded };
            changes.push(change(to, old, latest));
            gone.pop();
            new.pop();
        }
        diff.removed.extend(gone.into_iter().map(|nevra| package(from, nevra)));
        diff.added.extend(new.into_iter().map(|nevra| package(to, nevra)));
    }
    diff.upgraded.sort();
    diff.downgraded.sort();
    diff
}

/// The packages of `set` that are not in `other`, by name and architecture, oldest first.
fn only_in<'s>(set: &'s PackageSet, other: &PackageSet) -> BTreeMap<(&'s str, &'s str), Vec<&'s Nevra>> {
    let mut only: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (nevra, _) in set.iter().filter(|(nevra, _)| other.origin(nevra).is_none()) {
        only.entry((nevra.name.as_str(), nevra.arch.as_str())).or_default().push(nevra);
    }
    only
}

fn layer(set: &PackageSet, nevra: &Nevra) -> Option<String> {
    set.origin(nevra)?.layer.clone()
}

fn package(set: &PackageSet, nevra: &Nevra) -> Package {
    let Nevra { name, evr, arch } = nevra.clone();
    Package { name, arch, evr, layer: layer(set, nevra) }
}

fn change(to: &PackageSet, old: &Nevra, new: &Nevra) -> Change {
    let Nevra { name, evr, arch } = new.clone();
    Change { name, arch, from: old.evr.clone(), to: evr, layer: layer(to, new) }
}

fn fast_tracks(set: &PackageSet) -> Vec<FastTrack> {
    let fast_track = |(nevra, origin): (&Nevra, &crate::pkglist::Origin)| {
        let Nevra { name, evr, arch } = nevra.clone();
        Some(FastTrack { name, arch, evr, replaces: origin.replaces.clone()?, layer: origin.layer.clone() })
    };
    set.iter().filter_map(fast_track).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkglist::Origin;

    /// Packages as `NAME EVR ARCH [LAYER]`, one a line.
    fn set(lines: &str) -> PackageSet {
        let package = |line: &str| {
            let mut fields = line.split_whitespace().map(str::to_owned);
            let mut field = || fields.next();
            let (name, evr, arch) = (field().unwrap(), field().unwrap(), field().unwrap());
            (Nevra { name, evr: evr.parse().unwrap(), arch }, Origin { layer: field(), replaces: None })
        };
        lines.lines().filter(|l| !l.trim().is_empty()).map(package).collect()
    }

    /// The changes as lines: `+ added`, `- removed`, `^ upgraded`, `v downgraded`.
    fn lines(from: &str, to: &str) -> Vec<String> {
        let diff = diff(&set(from), &set(to));
        let package = |sign: char| move |p: Package| format!("{sign} {}.{} {}", p.name, p.arch, p.evr);
        let change =
            |sign: char| move |c: Change| format!("{sign} {}.{} {} {}", c.name, c.arch, c.from, c.to);
        diff.added
            .into_iter()
            .map(package('+'))
            .chain(diff.removed.into_iter().map(package('-')))
            .chain(diff.upgraded.into_iter().map(change('^')))
            .chain(diff.downgraded.into_iter().map(change('v')))
            .collect()
    }

    #[test]
    fn changes_are_by_name_and_architecture() {
        let from =
            "glibc 1-1 x86_64\n glibc 1-1 i686\n gone 1-1 noarch\n down 1:1-1 noarch\n kept 1-1 noarch";
        let to = "glibc 1-2 x86_64\n glibc 1-1 i686\n new 1-1 noarch\n down 2-1 noarch\n kept 1-1 noarch";
        assert_eq!(
            lines(from, to),
            ["+ new.noarch 1-1", "- gone.noarch 1-1", "^ glibc.x86_64 1-1 1-2", "v down.noarch 1:1-1 2-1"]
        );
    }

    #[test]
    fn another_architecture_is_another_package() {
        assert_eq!(lines("a 1-1 noarch", "a 1-2 x86_64"), ["+ a.x86_64 1-2", "- a.noarch 1-1"]);
    }

    #[test]
    fn of_several_versions_the_newest_became_the_newest() {
        for (from, to, expected) in [
            ("k 1-1 x\n k 2-1 x", "k 2-1 x\n k 3-1 x", vec!["^ k.x 1-1 3-1"]),
            ("k 1-1 x\n k 2-1 x", "k 3-1 x", vec!["- k.x 1-1", "^ k.x 2-1 3-1"]),
            ("k 10-1 x", "k 10-1 x\n k 9-1 x", vec!["+ k.x 9-1"]),
            ("k 9-1 x\n k 10-1 x", "k 8-1 x", vec!["- k.x 9-1", "v k.x 10-1 8-1"]),
        ] {
            assert_eq!(lines(from, to), expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn equal_for_rpm_is_a_change_all_the_same() {
        assert_eq!(lines("a 1.01-1 noarch", "a 1.1-1 noarch"), ["^ a.noarch 1.01-1 1.1-1"]);
    }

    #[test]
    fn the_layer_is_that_after_the_change() {
        let diff = diff(&set("a 1-1 noarch coreos\n b 1-1 noarch node"), &set("a 2-1 noarch node"));
        assert_eq!(diff.upgraded[0].layer.as_deref(), Some("node"));
        assert_eq!(diff.removed[0].layer.as_deref(), Some("node"));
    }
}
