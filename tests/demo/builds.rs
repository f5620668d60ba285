//! What a build makes, when it makes nothing, and that it makes the same for everybody.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::blobs;
use crate::world::{Image, User, World, run};

fn digests(images: &[Image]) -> Vec<&str> {
    images.iter().map(|image| image.digest.as_str()).collect()
}

#[test]
fn root_and_an_ordinary_user_make_the_same_images() {
    let (root, expected) = World::built();
    let ordinary = World::new(User::Ordinary);
    ordinary.strata(&["lock", "demo"]);
    let built = ordinary.build(&[]);
    for layer in ["bootc", "coreos", "node"] {
        let lock = format!("lockfiles/demo/{layer}.{}.toml", std::env::consts::ARCH);
        let [ours, theirs] = [root, &ordinary].map(|world| fs::read_to_string(world.path(&lock)).unwrap());
        assert_eq!(ours, theirs);
    }
    assert_eq!(built.iter().map(|i| i.layer.as_str()).collect::<Vec<_>>(), ["bootc", "coreos", "node"]);
    assert!(built.iter().all(|image| !image.reused));
    assert_eq!(digests(&built), digests(expected));
}

#[test]
fn a_changed_package_costs_its_layer_and_few_blobs() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let first = world.build(&[]);
    let again = world.build(&[]);
    assert!(again.iter().all(|image| image.reused), "{again:?}");
    assert_eq!(digests(&first), digests(&again));

    // the next image takes over the name
    let own = |images: &[Image]| blobs::own(&world.skopeo(&images[2]), Some(&world.skopeo(&images[1])));
    let before = own(&first);
    world.strata(&[
        "--set",
        "ose_snapshot=2025-02-10",
        "lock",
        "demo",
        "node",
        "--update-package",
        "openshift-clients",
    ]);
    let third = world.build(&["--set", "ose_snapshot=2025-02-10"]);
    assert_eq!(third.iter().map(|image| image.reused).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(digests(&third)[..2], digests(&first)[..2]);
    assert_ne!(third[2].digest, first[2].digest);

    assert_eq!(blobs::changed(&before, &own(&third)), ["metadata", "openshift-clients", "rpmdb"]);
}

#[test]
fn packages_decompressed_before_make_the_same_image() {
    let world = World::new(User::Ordinary);
    world.strata(&["lock", "demo"]);
    let cold = world.build(&["bootc"]);
    for made in ["images", "layers"] {
        fs::remove_dir_all(world.path(&format!("store/{made}"))).unwrap();
    }
    let warm = world.build(&["bootc"]);
    assert_eq!((cold[0].kept, warm[0].reused), (0, false));
    // packages without files have nothing to keep
    let payloads = fs::read_dir(world.path("store/payloads")).unwrap().count();
    assert!(payloads > 10 && warm[0].kept as usize == payloads, "{payloads} payloads, {} used", warm[0].kept);
    assert_eq!(digests(&warm), digests(&cold));

    world.strata(&["gc", "--all"]);
    assert_eq!(world.build(&["bootc"])[0].kept, 0);
}

#[test]
fn an_image_given_for_a_layer_gives_the_same_image_on_top() {
    let (origin, expected) = World::built();
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let base = format!("oci:{}:coreos", world.path("base").display());
    run(Command::new("skopeo").args(["copy", "--quiet", &origin.skopeo(&expected[1]), &base]));
    let output = world
        .command(&["--format", "json", "build", "demo", "node", "--base", &format!("coreos={base}")])
        .output()
        .unwrap();
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: Vec<String> = built.as_array().unwrap().iter().map(|image| text(&image["digest"])).collect();
    assert_eq!(found, digests(&expected[1..]));
    // no package of the layers below is installed again, and every line says whose it is
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().all(|line| line.starts_with("coreos: ") || line.starts_with("node: ")), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("coreos: ") && line.contains("installed")), "{said}");
}

#[test]
fn offline_builds_need_neither_network_nor_repositories() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let error = world.refused(&["build", "demo", "bootc", "--offline"], 1);
    assert!(error.contains("strata fetch"), "{error}");
    world.strata(&["fetch", "demo"]);
    fs::rename(world.path("target/demo/2025-02-03"), world.path("target/gone")).unwrap();
    let mut isolated = Command::new("unshare");
    isolated.args(["--net", "--"]).arg(world.path("strata")).args(["build", "demo", "bootc", "--offline"]);
    isolated.current_dir(world.path("")).env("STRATA_STORE", world.path("store"));
    run(&mut isolated);
}
