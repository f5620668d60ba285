//! What a chain of locks installs.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::format::VERSION;
use super::{Action, LockedPackage, Lockfile};
use crate::digest::Digest;
use crate::error::hinted;
use crate::image::reference::Reference;
use crate::ledger::{Ledger, Violation};
use crate::pkglist::PackageSet;
use crate::plan::Plan;

/// A package that is there after a chain of layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// The layer that brought this version.
    pub layer: String,
    /// The package as locked there.
    pub package: LockedPackage,
}

/// The packages of a chain of locks, bottom first, after every upgrade and removal; sorted by NEVRA.
pub fn installed(chain: &[&Lockfile]) -> Vec<Installed> {
    let mut all: Vec<Installed> = Vec::new();
    for lock in chain {
        for package in &lock.packages {
            let Some(gone) = package.displaced() else { continue };
            let named = |old: &Installed| old.package.name == package.name && old.package.evr == *gone;
            let own = |old: &Installed| old.package.arch == package.arch;
            // one of another architecture goes if there is none of the same: a package may become noarch
            let has_own = all.iter().any(|old| named(old) && own(old));
            all.retain(|old| !named(old) || has_own && !own(old));
        }
        let added = lock.packages.iter().filter(|package| package.action != Action::Remove);
        all.extend(added.map(|package| Installed { layer: lock.layer.clone(), package: package.clone() }));
    }
    all.sort_by_cached_key(|installed| installed.package.nevra());
    all
}

/// The packages of a pinned image in the form of locks, one for each of the layers that it says they are from: a
/// chain stands on them as on its own. They have neither repositories nor digests, and are never written.
pub fn of_image(plan: &Plan, image: &Reference, packages: &PackageSet) -> Vec<Lockfile> {
    let mut layers: BTreeMap<&str, Vec<LockedPackage>> = BTreeMap::new();
    for (nevra, origin) in packages.iter() {
        let layer = origin.layer.as_deref().unwrap_or(image.short_name());
        layers.entry(layer).or_default().push(LockedPackage::in_image(nevra));
    }
    let lock = |(layer, packages): (&str, Vec<LockedPackage>)| Lockfile {
        version: VERSION,
        stream: plan.stream.name.clone(),
        layer: layer.to_owned(),
        arch: plan.stream.arch,
        manifest: image.digest.unwrap_or(Digest::of("")),
        parent: None,
        parent_lock: None,
        parent_image: None,
        repos: Vec::new(),
        packages,
        users: Vec::new(),
        groups: Vec::new(),
    };
    layers.into_iter().map(lock).collect()
}

/// The ids that a chain of locks keeps, bottom first; which must not contradict each other.
pub fn ledger(chain: &[Lockfile]) -> Result<Ledger> {
    let mut all = Ledger::default();
    for lock in chain {
        let own = lock.ledger();
        let users = own.users.iter().find_map(|(name, ids)| all.forbids_user(name, *ids));
        let groups = || own.groups.iter().find_map(|(name, gid)| all.forbids_group(name, *gid));
        if let Some(Violation { account, found, why }) = users.or_else(groups) {
            let Lockfile { stream, layer, .. } = lock;
            return Err(hinted(
                format!("the lock of {stream}/{layer} keeps {found} for the {account}, a layer below {why}"),
                "delete the entry that no released image has, and build again",
            ));
        }
        all.extend(&own);
    }
    Ok(all)
}

/// The digest of a layer's resulting package list: a JSON array of `[NEVRA, sha256]`, sorted by NEVRA.
pub fn packages_digest(packages: &[Installed]) -> Digest {
    let list: Vec<(String, Option<Digest>)> =
        packages.iter().map(|i| (i.package.nevra().to_string(), i.package.sha256)).collect();
    Digest::of(serde_json::to_vec(&list).expect("strings always make JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Arch;

    fn lock(layer: &str, packages: &[(&str, &str, Action, Option<&str>)]) -> Lockfile {
        let package = |&(name, evr, action, replaces): &(&str, &str, Action, Option<&str>)| LockedPackage {
            name: name.into(),
            evr: evr.parse().unwrap(),
            arch: "x86_64".into(),
            repo: "r".into(),
            location: String::new(),
            sha256: Some(Digest::of(evr)),
            size: 0,
            also: vec![],
            source: String::new(),
            why: String::new(),
            action,
            replaces: replaces.map(|evr| evr.parse().unwrap()),
        };
        Lockfile {
            version: 1,
            stream: "s".into(),
            layer: layer.into(),
            arch: Arch::X86_64,
            manifest: Digest::of(""),
            parent: None,
            parent_lock: None,
            parent_image: None,
            repos: Vec::new(),
            packages: packages.iter().map(package).collect(),
            users: Vec::new(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn upgrades_and_removals_take_the_old_away() {
        let bottom = lock(
            "bottom",
            &[
                ("gone", "1-1", Action::Install, None),
                ("kernel", "1-1", Action::Install, None),
                ("lib", "1-1", Action::Install, None),
                ("lib", "0-1", Action::Install, None),
            ],
        );
        let top = lock(
            "top",
            &[
                ("gone", "1-1", Action::Remove, None),
                ("kernel", "2-1", Action::Install, None),
                ("lib", "2-1", Action::Upgrade, Some("1-1")),
            ],
        );
        let show = |chain: &[&Lockfile]| -> Vec<String> {
            installed(chain).iter().map(|i| format!("{} {}", i.layer, i.package.nevra())).collect()
        };
        assert_eq!(
            show(&[&bottom, &top]),
            [
                "bottom kernel-1-1.x86_64",
                "top kernel-2-1.x86_64",
                "bottom lib-0-1.x86_64",
                "top lib-2-1.x86_64"
            ]
        );
        assert_ne!(packages_digest(&installed(&[&bottom])), packages_digest(&installed(&[&bottom, &top])));
    }

    /// The digest is in committed lockfiles: a change of it is a change of the format.
    #[test]
    fn the_digest_is_pinned() {
        let list = installed(&[&lock("l", &[("lib", "1-1", Action::Install, None)])]);
        // printf '[["lib-1-1.x86_64","sha256:%s"]]' "$(printf 1-1 | sha256sum | cut -c-64)" | sha256sum
        let expected = Digest::of(format!(r#"[["lib-1-1.x86_64","{}"]]"#, Digest::of("1-1")));
        assert_eq!(packages_digest(&list), expected);
    }
}
