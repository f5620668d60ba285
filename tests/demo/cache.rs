//! `strata build --cache`: workers that share nothing but a registry.

use std::fs;
use std::process::Command;

use crate::registry::Registry;
use crate::world::{User, World, run};

/// A worker with the committed locks of the demo, and nothing in its store.
fn worker() -> World {
    let (built, _) = World::built();
    let world = World::new(User::Root);
    run(Command::new("cp").arg("-r").arg(built.path("lockfiles")).arg(world.path("lockfiles")));
    world
}

#[test]
fn what_one_worker_has_built_another_takes() {
    let (built, images) = World::built();
    let registry = Registry::new("cache");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    for (image, name) in images[..2].iter().zip(["bootc:1", "coreos:1"]) {
        built.strata(&["push", &image.reference, &at(name), "--attach", "none", "--cache"]);
    }
    let world = worker();
    // without repositories: what is not in a cache cannot be made
    let repositories = world.path("target/demo");
    let hidden = world.path("target/hidden");
    fs::rename(&repositories, &hidden).unwrap();
    let caches = ["--cache", &at("coreos"), "--cache", &at("bootc")];
    let found = world.build(&[&["coreos"][..], &caches].concat());
    let digests =
        |images: &[crate::world::Image]| images.iter().map(|i| i.digest.clone()).collect::<Vec<_>>();
    assert_eq!(digests(&found), digests(&images[..2]));
    assert!(found.iter().all(|image| image.reused));
    let error = world.refused(&[&["build", "demo", "node"][..], &caches].concat(), 1);
    assert!(error.contains("building the layer node"), "{error}");
    // the layer above is made on them, and is what it is elsewhere
    fs::rename(&hidden, &repositories).unwrap();
    let made = world.build(&[&["node", "--locked"][..], &caches].concat());
    assert_eq!(digests(&made), digests(images));
    assert_eq!(made.iter().map(|image| image.reused).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn a_cache_that_has_something_else_or_nothing_is_not_used() {
    let (built, images) = World::built();
    let mut registry = Registry::new("cache-wrong");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    built.strata(&["push", &images[0].reference, &at("os:1"), "--attach", "none", "--cache"]);
    let tags = run(Command::new("skopeo").args(["list-tags", "--tls-verify=false", &at("os")]));
    let tag = tags.split('"').find(|word| word.starts_with("inputs-")).unwrap().to_owned();
    // another image under the tag
    built.strata(&["copy", &images[1].reference, &at(&format!("os:{tag}"))]);
    let world = worker();
    let cache = at("os");
    let command = ["-q", "--format", "json", "build", "demo", "bootc", "--locked", "--cache", &cache];
    let loud = |world: &World| {
        let output = world.command(&command[1..]).output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (json, said) = loud(&world);
    assert!(said.contains("is not used") && said.contains("those of another image"), "{said}");
    assert_eq!(crate::world::images(&json)[0].digest, images[0].digest);
    registry.stop();
    let (json, said) = loud(&worker());
    assert!(said.contains(&format!("the cache {cache} is not used")), "{said}");
    assert_eq!(crate::world::images(&json)[0].digest, images[0].digest);
}
