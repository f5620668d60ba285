//! What rpm and dnf say to the demo's node image.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::parity;
use crate::world::{World, repositories, run, scratch, unpack};

const ARCH: &str = std::env::consts::ARCH;

/// Sorted `NAME-EPOCH:VERSION-RELEASE.ARCH` of a stack's lockfiles, removals and replaced packages taken off.
fn locked(world: &World, stream: &str) -> Vec<String> {
    let mut packages = BTreeMap::new();
    for layer in ["bootc", "coreos", "node"] {
        let text =
            fs::read_to_string(world.path(&format!("lockfiles/{stream}/{layer}.{ARCH}.toml"))).unwrap();
        let lock: toml::Table = text.parse().unwrap();
        for package in lock["package"].as_array().unwrap() {
            let field = |key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or_default();
            let full = |evr: &str| {
                let evr = if evr.contains(':') { evr.to_owned() } else { format!("0:{evr}") };
                format!("{}-{evr}.{}", field("name"), field("arch"))
            };
            packages.remove(&full(field("replaces")));
            match field("action") {
                "remove" => packages.remove(&full(field("evr"))),
                _ => packages.insert(full(field("evr")), ()),
            };
        }
    }
    packages.into_keys().collect()
}

#[test]
fn rpm_finds_the_locked_packages() {
    let (world, _) = World::built();
    assert_eq!(parity::packages(World::unpacked_node()), locked(world, "demo"));
}

#[test]
fn rpm_verifies_what_the_manifests_left_alone() {
    let report = parity::rpm(World::unpacked_node(), &["-Va"]);
    // os-release is stamped; the manifests change nothing else that a package ships and rpm verifies
    let unexpected: Vec<&str> =
        report.lines().filter(|line| !line.ends_with(" /usr/lib/os-release")).collect();
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    assert_ne!(report, "", "the stamp shows: rpm did verify");
}

#[test]
fn rpm_accepts_the_database() {
    let output = Command::new("rpmdb")
        .args(["--verifydb", "--root"])
        .arg(World::unpacked_node())
        .args(["--define", "_dbpath /usr/lib/sysimage/rpm"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// The demo's packages without its configuration.
#[test]
fn dnf_makes_the_same_tree() {
    let work = scratch("dnf");
    let snapshot = repositories().join("2025-02-03");
    let key = repositories().join("RPM-GPG-KEY-demo");
    let world = World::new(crate::world::User::Root);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/snapshot-stream.sh");
    run(Command::new(script).arg(&snapshot).arg(&key).arg(world.path("manifests")));
    world.strata(&["lock", "corpus"]);
    world.strata(&["build", "corpus"]);
    let node = format!("oci:{}:corpus/node", world.path("store/images").display());
    let ours = unpack(&node, &work.join("strata"));
    let theirs = parity::dnf_root(&snapshot, &key, &work);
    assert_eq!(parity::packages(&ours), parity::packages(&theirs));
    let differences = parity::differences(&parity::tree(&ours), &parity::tree(&theirs));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
