//! What no weak dependency may bring in.

use std::collections::BTreeSet;

use super::pool::PackageId;
use super::universe::Universe;
use crate::package::Dependency;

/// Packages that were declined when the layers below were made: one below recommends them or is supplemented by
/// them, and yet they are not there.
///
/// libdnf's `Goal::exclude_from_weak_autodetect`, which dnf has on by default. As there, rich dependencies are left
/// out, and of a recommendation with a version only the name counts.
pub fn already_declined(universe: &Universe) -> BTreeSet<PackageId> {
    let mut declined = BTreeSet::new();
    let below: BTreeSet<&str> = universe.all_parents().map(|id| universe.name(id)).collect();
    for id in universe.all_parents() {
        for wanted in universe.package(id).recommends.iter().filter(|wanted| !wanted.is_rich()) {
            let providers = universe.providers(&Dependency { version: None, ..(**wanted).clone() });
            if !providers.iter().any(|&provider| universe.is_parent(provider)) {
                declined.extend(providers);
            }
        }
    }
    for id in universe.all_available().filter(|&id| !below.contains(universe.name(id))) {
        let supplements = universe.package(id).supplements.iter().filter(|wanted| !wanted.is_rich());
        let mut supplemented = supplements.flat_map(|wanted| universe.providers(wanted));
        if supplemented.any(|other| universe.is_parent(other)) {
            declined.insert(id);
        }
    }
    declined
}
