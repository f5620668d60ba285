//! Images in the format of ostree: the program `ostree` finds the plain image's tree in them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{Image, User, World, run, scratch, unpack};

/// The demo stream built in that format.
fn encapsulated(user: User) -> (World, Vec<Image>) {
    let world = World::new(user);
    let stream = world.path("manifests/demo/stream.toml");
    let text = fs::read_to_string(&stream).unwrap();
    fs::write(&stream, text + "\n[image]\nformat = \"ostree\"\n").unwrap();
    world.strata(&["lock", "demo"]);
    let images = world.build(&[]);
    (world, images)
}

fn config(world: &World, image: &Image) -> Value {
    let config = run(Command::new("skopeo").args(["inspect", "--config", &world.skopeo(image)]));
    serde_json::from_str(&config).unwrap()
}

fn ostree(repository: &Path, args: &[&str]) -> String {
    run(Command::new("ostree").arg(format!("--repo={}", repository.display())).args(args))
}

#[test]
fn its_commit_is_the_tree_of_the_plain_image() {
    let (plain_world, plain) = World::built();
    let (world, images) = encapsulated(User::Root);
    let dir = scratch("ostree");
    let rootfs = unpack(&world.skopeo(&images[0]), &dir.join("encapsulated"));
    let repository = rootfs.join("sysroot/ostree/repo");
    let checked = ostree(&repository, &["fsck"]);
    assert!(checked.contains("object fsck of 1 commits completed successfully"), "{checked}");

    let tree = unpack(&plain_world.skopeo(&plain[0]), &dir.join("plain"));
    fs::rename(tree.join("etc"), tree.join("usr/etc")).unwrap();
    let theirs = dir.join("repository");
    ostree(&theirs, &["init", "--mode=bare"]);
    let [from, policy] =
        ["--tree=dir", "--selinux-policy"].map(|option| format!("{option}={}", tree.display()));
    ostree(&theirs, &["commit", "--branch=plain", &from, &policy]);
    let labels = config(&world, &images[0])["config"]["Labels"].clone();
    let commit = labels["ostree.commit"].as_str().unwrap();
    let listed = |repository: &Path, commit: &str| ostree(repository, &["ls", "-R", "-C", "-X", commit]);
    let found = listed(&repository, commit);
    assert_eq!(found, listed(&theirs, "plain"));
    assert!(found.contains("system_u:object_r:default_t:s0"), "the demo has a policy: {found}");
    assert_eq!(labels["ostree.bootable"], "true");
}

#[test]
fn the_layers_above_are_those_of_plain_images() {
    let (plain_world, plain) = World::built();
    let (world, images) = encapsulated(User::Root);
    let diff_ids = |world: &World, image: &Image| -> Vec<Value> {
        config(world, image)["rootfs"]["diff_ids"].as_array().unwrap().clone()
    };
    for upper in [1, 2] {
        let own = |world: &World, images: &[Image]| {
            let below = diff_ids(world, &images[upper - 1]).len();
            diff_ids(world, &images[upper]).split_off(below)
        };
        assert_eq!(own(&world, &images), own(plain_world, plain));
        // importers find there where the commit ends
        let last = diff_ids(&world, &images[0]).pop().unwrap();
        assert_eq!(config(&world, &images[upper])["config"]["Labels"]["ostree.final-diffid"], last);
    }
    let answer = world.strata(&["--format", "json", "diff", &plain_world.skopeo(&plain[0]), "demo/bootc"]);
    let differences: Value = serde_json::from_str(&answer).unwrap();
    let mut lists = differences.as_object().unwrap().values().filter_map(Value::as_array);
    assert!(lists.all(Vec::is_empty), "{answer}");
}

#[test]
fn anybody_encapsulates_to_the_same_digests() {
    let digests =
        |user| -> Vec<String> { encapsulated(user).1.into_iter().map(|image| image.digest).collect() };
    assert_eq!(digests(User::Root), digests(User::Ordinary));
}
