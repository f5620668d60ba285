//! What a build refuses, how it says so, and that it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::{User, World, run};

/// Appends to a manifest of the demo.
fn append(world: &World, manifest: &str, text: &str) {
    let path = world.path(&format!("manifests/demo/{manifest}"));
    let old = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{old}\n{text}")).unwrap();
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

/// No layer, no image, no unfinished work.
fn assert_nothing_built(world: &World) {
    assert!(is_empty(&world.path("store/layers")));
    assert!(is_empty(&world.path("store/tmp")));
    let index = fs::read_to_string(world.path("store/images/index.json")).unwrap();
    assert!(index.contains("\"manifests\":[]"), "{index}");
}

#[test]
fn a_layer_that_is_not_locked() {
    let world = World::new(User::Root);
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("lockfiles/demo/bootc."), "{error}");
    assert!(error.contains("strata lock demo"), "{error}");
    assert_nothing_built(&world);
}

#[test]
fn a_lockfile_that_answers_another_request() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    append(
        &world,
        "node.toml",
        "[[override]]\npackage = \"podman\"\nversion = \"9\"\nkind = \"pin\"\nreason = \"test\"\n",
    );
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("node.") && error.contains("out of date"), "{error}");
    assert!(error.contains("strata lock demo"), "{error}");
}

#[test]
fn a_script_that_fails() {
    let world = World::new(User::Root);
    append(
        &world,
        "bootc.toml",
        "[[script]]\nname = \"breaks\"\nreason = \"a test\"\nbody = \"echo the disk is on fire; exit 7\"\n",
    );
    world.strata(&["lock", "demo", "bootc"]);
    let error = world.refused(&["build", "demo", "bootc"], 1);
    for part in ["manifests/demo/bootc.toml:", "`breaks`", "status 7", "the disk is on fire"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_nothing_built(&world);
}

#[test]
fn a_layer_nobody_declared() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let error = world.refused(&["build", "demo", "nodes"], 1);
    assert!(error.contains("no layer `nodes`") && error.contains("bootc, coreos, node"), "{error}");
}

#[test]
fn a_package_changed_after_it_was_locked() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let found =
        run(Command::new("find").arg(world.path("target/demo/2025-02-03")).args(["-name", "busybox-*.rpm"]));
    let path = found.lines().next().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("busybox"), "{error}");
    assert_nothing_built(&world);
    assert!(!run(Command::new("ls").arg(world.path("store/rpms"))).contains("tmp"));
}

#[test]
fn usage_is_another_status_than_failure() {
    let world = World::new(User::Root);
    world.refused(&["build"], 2);
    world.refused(&["build", "demo", "--frobnicate"], 2);
}
