//! Which blobs a new build changes, and the plan that keeps the others as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::blobs::{self, Blob};
use crate::parity;
use crate::world::{Image, User, World, run};

const LAYERS: [&str; 3] = ["bootc", "coreos", "node"];

/// A week later, in all repositories.
const LATER: [&str; 4] = ["--set", "snapshot=2025-02-10", "--set", "ose_snapshot=2025-02-10"];

/// The blobs of each layer's own.
fn own_blobs(world: &World, images: &[Image]) -> Vec<BTreeMap<String, Blob>> {
    let names: Vec<String> = images.iter().map(|image| world.skopeo(image)).collect();
    let below = |layer: usize| layer.checked_sub(1).map(|below| names[below].as_str());
    (0..names.len()).map(|layer| blobs::own(&names[layer], below(layer))).collect()
}

fn plan_file(layer: &str) -> String {
    format!("lockfiles/demo/{layer}.{}.chunks.toml", std::env::consts::ARCH)
}

fn plans(world: &World) -> Vec<String> {
    LAYERS.iter().map(|layer| fs::read_to_string(world.path(&plan_file(layer))).unwrap()).collect()
}

#[test]
fn an_update_fetches_the_chunks_of_what_changed() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let first = world.build(&[]);
    let planned = plans(&world);
    let before = own_blobs(&world, &first);

    world.strata(&[&LATER[..], &["lock", "demo", "--update"]].concat());
    let second =
        crate::world::images(&world.strata(&[&LATER[..], &["--format", "json", "build", "demo"]].concat()));
    assert_eq!(plans(&world), planned, "the plan is kept");
    let after = own_blobs(&world, &second);
    let found: Vec<Vec<String>> =
        before.iter().zip(&after).map(|(before, after)| blobs::changed(before, after)).collect();
    // a source each of the packages with a newer version; the bundle that is made of ca-certificates' files is a ghost;
    // initramfs and index are made of the kernel's
    let bootc = [
        "bootc",
        "ca-certificates",
        "generated",
        "initramfs",
        "kernel",
        "metadata",
        "module index",
        "openssh",
        "podman",
        "rpmdb",
        "systemd",
    ];
    // os-release, a file of demo-release, has the version
    let coreos = ["demo-release", "ignition", "metadata", "rpmdb"];
    let node = ["cri-o", "demo-release", "metadata", "openshift-clients", "openvswitch3.4", "rpmdb"];
    assert_eq!(found, [&bootc[..], &coreos, &node]);
}

/// The plan is an input: without it the first build makes the same one, and no other than the first.
#[test]
fn the_plan_is_made_once() {
    let (origin, images) = World::built();
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let error = world.refused(&["build", "demo", "bootc", "--locked"], 1);
    assert!(error.contains("bootc"), "{error}");
    let first = world.build(&["bootc"]);
    assert_eq!(first[0].digest, images[0].digest);
    let file = world.path(&plan_file("bootc"));
    let plan = fs::read_to_string(&file).unwrap();
    assert_eq!(plan, plans(origin)[0]);

    fs::remove_file(&file).unwrap();
    let error = world.refused(&["build", "demo", "bootc", "--locked"], 1);
    assert!(error.contains(&plan_file("bootc")) && error.contains("build without --locked"), "{error}");
    let again = world.build(&["bootc"]);
    assert_eq!((again[0].reused, &again[0].digest), (true, &first[0].digest));
    assert_eq!(fs::read_to_string(&file).unwrap(), plan);
    assert!(world.build(&["bootc", "--locked"])[0].reused);

    // fewer blobs than the plan has: it is refused until it is made anew
    let error = world.refused(&["build", "demo", "bootc", "--max-layers", "16"], 1);
    assert!(error.contains(&plan_file("bootc")) && error.contains("--rechunk"), "{error}");
    let few = world.build(&["bootc", "--max-layers", "16", "--rechunk"]);
    let count = |images: &[Image]| own_blobs(&world, images)[0].len();
    assert!(count(&few) <= 16 && count(&few) < count(&first), "{} of {}", count(&few), count(&first));
    assert_ne!(fs::read_to_string(&file).unwrap(), plan);
    assert!(world.build(&["bootc", "--locked"])[0].reused);
}

/// What the annotation of a blob names is what rpm says of the files in it.
#[test]
fn annotations_name_the_packages_of_the_files() {
    let (world, images) = World::built();
    let rootfs = World::unpacked_node();
    let stored = world.path("store/images/blobs/sha256");
    let mut compared = 0;
    for (name, blob) in &own_blobs(world, images)[2] {
        let file = stored.join(blob.digest.strip_prefix("sha256:").unwrap());
        let listed = run(Command::new("tar").args(["--gzip", "-tf"]).arg(file));
        let files = listed.lines().filter(|path| !path.ends_with('/')).map(|path| format!("/{path}"));
        let query: Vec<String> =
            ["-qf", "--qf", "%{SOURCERPM}\n"].map(str::to_owned).into_iter().chain(files).collect();
        let query: Vec<&str> = query.iter().map(String::as_str).collect();
        let sources: BTreeSet<String> = parity::rpm(rootfs, &query)
            .lines()
            .filter_map(|line| line.strip_suffix(".src.rpm"))
            .map(|source| source.rsplitn(3, '-').nth(2).unwrap().to_owned())
            .collect();
        if blobs::NO_PACKAGES.contains(&name.as_str()) {
            assert_eq!(blob.components, [name.clone()].into());
        } else {
            assert_eq!(blob.components, sources, "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared} chunks of packages");
}
