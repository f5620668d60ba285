//! The demo's locks through other formats and back.

use std::fs;

use crate::tools::{accept, packages};
use crate::world::{User, World};

/// Exports a layer, forgets its locks and imports what was exported: the same packages are locked, and solving once
/// more gives the locks as they were, byte for byte. `keeps` of what is compared of a package (see
/// [`packages`]) survives.
fn there_and_back(format: &str, lock: &str, kind: &str, arches: &[&str], keeps: &[usize]) {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    for layer in ["bootc", "coreos", "node"] {
        let out = format!("out-{layer}");
        let arch: Vec<&str> = arches.iter().flat_map(|arch| ["--arch", arch]).collect();
        world.strata(&[&["export", format, "demo", layer, "--output", &out][..], &arch].concat());
        let file = format!("{out}/{lock}");
        accept(kind, &world.path(&file));

        let locks = arches.iter().map(|arch| world.path(&format!("lockfiles/demo/{layer}.{arch}.toml")));
        let before: Vec<_> = locks.clone().map(|lock| (fs::read(&lock).unwrap(), packages(&lock))).collect();
        locks.clone().for_each(|lock| fs::remove_file(lock).unwrap());
        world.strata(&[&["import", format, &file, "--stream", "demo", "--layer", layer][..], &arch].concat());
        for (lock, (_, before)) in locks.clone().zip(&before) {
            let pick = |packages: &[serde_json::Value]| -> Vec<Vec<serde_json::Value>> {
                packages.iter().map(|package| keeps.iter().map(|i| package[i].clone()).collect()).collect()
            };
            let (found, expected) = (packages(&lock), before);
            assert_eq!(pick(&found), pick(expected), "{format} {}", lock.display());
        }
        world.strata(&["lock", "demo"]);
        for (lock, (before, _)) in locks.zip(&before) {
            let after = fs::read_to_string(&lock).unwrap();
            assert_eq!(after, String::from_utf8_lossy(before), "{format}, locked again");
        }
    }
}

const ARCHES: &[&str] = &["aarch64", "x86_64"];
const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7];

#[test]
fn konflux_keeps_packages_places_and_digests() {
    there_and_back("konflux-lock", "rpms.lock.yaml", "hermeto", ARCHES, ALL);
}

#[test]
fn libpkgmanifest_keeps_packages_places_and_digests() {
    there_and_back("libpkgmanifest", "packages.manifest.yaml", "manifest", ARCHES, ALL);
}

#[test]
fn rpm_ostree_keeps_packages_and_digests() {
    let kept = &[0, 1, 2, 5];
    there_and_back("rpm-ostree-lock", "manifest-lock.x86_64.json", "rpm-ostree", &["x86_64"], kept);
}

#[test]
fn inputs_and_overrides_of_the_demo_are_accepted() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let accepted = |format: &str, kind: &str, file: &str| {
        world.strata(&["export", format, "demo", "--output", format]);
        let path = world.path(&format!("{format}/{file}"));
        accept(kind, &path);
        fs::read_to_string(path).unwrap()
    };
    let input = accepted("konflux-lock", "rpms-in", "rpms.in.yaml");
    assert!(input.contains("bare: true") && input.contains("upgradePackages:\n- conmon-"), "{input}");
    accepted("libpkgmanifest", "input", "packages.input.yaml");
    let overrides = accepted("rpm-ostree-lock", "rpm-ostree", "manifest-lock.overrides.yaml");
    assert!(overrides.contains("conmon:") && overrides.contains("type: fast-track"), "{overrides}");
}
