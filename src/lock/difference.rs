//! How the packages of two locks of a layer differ.

use serde::Serialize;

use super::{LockedPackage, Lockfile};
use crate::package::{Evr, Nevra};

/// The differences between the package tables of two locks, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Entries that are new.
    pub added: Vec<Nevra>,
    /// Entries whose EVR, content or action is another.
    pub changed: Vec<Changed>,
    /// Entries that are gone.
    pub removed: Vec<Nevra>,
}

/// An entry that both locks have, but not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Package name.
    pub name: String,
    /// Package architecture.
    pub arch: String,
    /// EVR in the old lock.
    pub from: Evr,
    /// EVR in the new lock: the same if only the content or the action changed.
    pub to: Evr,
}

/// Compares the package tables of two locks; without an old one everything is added.
pub fn difference(old: Option<&Lockfile>, new: &Lockfile) -> Difference {
    let mut left: Vec<&LockedPackage> = old.map(|lock| lock.packages.iter().collect()).unwrap_or_default();
    let mut difference = Difference::default();
    let mut unmatched = Vec::new();
    for package in &new.packages {
        let same = |old: &&LockedPackage| {
            old.nevra() == package.nevra() && old.sha256 == package.sha256 && old.action == package.action
        };
        match left.iter().position(same) {
            Some(index) => drop(left.remove(index)),
            None => unmatched.push(package),
        }
    }
    for package in unmatched {
        let counterpart = left.iter().position(|old| old.name == package.name && old.arch == package.arch);
        match counterpart.map(|index| left.remove(index)) {
            Some(old) => difference.changed.push(Changed {
                name: package.name.clone(),
                arch: package.arch.clone(),
                from: old.evr.clone(),
                to: package.evr.clone(),
            }),
            None => difference.added.push(package.nevra()),
        }
    }
    difference.removed = left.into_iter().map(LockedPackage::nevra).collect();
    difference
}
