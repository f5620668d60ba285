//! Layers on somebody else's image, pinned by digest. Here it is an image of the same stream, so the layers above
//! must come out as they do on the layer itself.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::registry::Registry;
use crate::world::{Image, User, World, run, scratch};

/// The demo without a bootc layer of its own: coreos stands on `image`.
pub fn on(image: &str) -> World {
    let world = World::new(User::Root);
    let change = |file: &str, from: &str, to: &str| {
        let path = world.path(&format!("manifests/demo/{file}"));
        let old = fs::read_to_string(&path).unwrap();
        let new = old.replace(from, to);
        assert_ne!(old, new, "{file}");
        fs::write(path, new).unwrap();
    };
    change("stream.toml", "layers = [\"bootc\", \"coreos\", \"node\"]", "layers = [\"coreos\", \"node\"]");
    change("stream.toml", "[\"x86_64\", \"aarch64\"]", &format!("[\"{}\"]", std::env::consts::ARCH));
    change("coreos.toml", "from = \"bootc\"", &format!("from = \"{image}\""));
    fs::remove_file(world.path("manifests/demo/bootc.toml")).unwrap();
    world
}

/// The package tables of a layer's lock.
fn packages(world: &World, layer: &str) -> String {
    let path = format!("lockfiles/demo/{layer}.{}.toml", std::env::consts::ARCH);
    let text = fs::read_to_string(world.path(&path)).unwrap();
    let tables = &text[text.find("[[package]]").unwrap()..];
    let ids = ["[[user]]", "[[group]]"].iter().filter_map(|table| tables.find(table)).min();
    tables[..ids.unwrap_or(tables.len())].trim_end().to_owned()
}

fn manifest(world: &World, image: &Image) -> Value {
    serde_json::from_str(&run(Command::new("skopeo").args(["inspect", "--raw", &world.skopeo(image)])))
        .unwrap()
}

/// Digests of an image's layers, top first.
fn layers(manifest: &Value) -> Vec<String> {
    let digest = |layer: &Value| layer["digest"].as_str().unwrap().to_owned();
    manifest["layers"].as_array().unwrap().iter().rev().map(digest).collect()
}

#[test]
fn a_registry_is_asked_for_what_is_needed_only() {
    let (built, images) = World::built();
    let mut registry = Registry::new("pinned-registry");
    registry.push(&built.skopeo(&images[0]), "rhel-bootc:test");
    registry.blobs_read();
    let base = manifest(built, &images[0]);
    let config = base["config"]["digest"].as_str().unwrap().to_owned();
    let top = layers(&base);
    let world = on(&format!("docker://{}/rhel-bootc@{}", registry.host(), images[0].digest));

    // the repositories describe all its packages: the list will do
    world.strata(&["lock", "demo"]);
    assert_eq!(packages(&world, "coreos"), packages(built, "coreos"));
    assert_eq!(packages(&world, "node"), packages(built, "node"));
    assert_eq!(registry.blobs_read(), [config, top[0].clone()]);

    // what is in the image no lock has a reason for; what stands on it may want it
    let noted = world.strata(&["why", "demo", "node", "bash"]);
    assert!(noted.starts_with("bash-") && noted.ends_with("(bootc): part of the pinned image\n"), "{noted}");
    let json = world.strata(&["--format", "json", "why", "demo", "node", "bash", "--all"]);
    let pulls: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert!(!pulls.is_empty());
    for pull in &pulls {
        let chain = pull["chain"].as_array().unwrap();
        let (first, last) = (&chain[0], &chain[chain.len() - 1]);
        assert!(chain.len() > 1 && first["layer"] != "bootc", "no manifest names it: {pull}");
        assert_eq!((&last["package"]["name"], &last["layer"]), (&"bash".into(), &"bootc".into()));
    }
    assert_eq!(registry.blobs_read(), [""; 0]);

    let error = world.refused(&["build", "demo", "--offline"], 1);
    assert!(error.contains("strata fetch"), "{error}");

    world.strata(&["fetch", "demo"]);
    let brought: BTreeSet<String> = registry.blobs_read().into_iter().collect();
    assert_eq!(brought, top[1..].iter().cloned().collect(), "what is there is not brought again");
    registry.stop();
    let made = world.build(&["--offline"]);
    assert_eq!(made.iter().map(|image| image.layer.as_str()).collect::<Vec<_>>(), ["coreos", "node"]);
    for (image, same) in made.iter().zip(&images[1..]) {
        let (own, expected) = (layers(&manifest(&world, image)), layers(&manifest(built, same)));
        assert!(own.ends_with(&top), "its blobs are below, unchanged");
        assert_eq!(own.len(), expected.len());
        let list = |world: &World, image: &Image| {
            let shown = world.strata(&["--format", "json", "show", &image.reference, "--packages"]);
            serde_json::from_str::<Value>(&shown).unwrap()["packages"].clone()
        };
        assert_eq!(list(&world, image), list(built, same), "with the layers they are from");
    }
    assert!(world.build(&["--offline"]).iter().all(|image| image.reused));
}

#[test]
fn packages_that_no_repository_has_are_read_from_the_rpmdb() {
    let (built, images) = World::built();
    let registry = Registry::new("pinned-rpmdb");
    registry.push(&built.skopeo(&images[0]), "rhel-bootc:test");
    registry.blobs_read();
    let base = manifest(built, &images[0]);
    let world = on(&format!("docker://{}/rhel-bootc@{}", registry.host(), images[0].digest));
    let stream = world.path("manifests/demo/stream.toml");
    let text = fs::read_to_string(&stream).unwrap();
    fs::write(&stream, text.replace("baseurl = ", "excludepkgs = [\"nano\"]\nbaseurl = ")).unwrap();
    world.strata(&["lock", "demo", "coreos"]);
    assert_eq!(packages(&world, "coreos"), packages(built, "coreos"));
    let config = base["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(registry.blobs_read(), [[config].as_slice(), &layers(&base)[..2]].concat());
}

#[test]
fn an_image_without_a_list_on_top() {
    let (built, images) = World::built();
    let dir = scratch("pinned-derived");
    let layout = dir.join("layout").display().to_string();
    run(Command::new("skopeo").args([
        "copy",
        "--quiet",
        &built.skopeo(&images[0]),
        &format!("oci:{layout}:base"),
    ]));
    fs::write(dir.join("motd"), "derived\n").unwrap();
    let motd = dir.join("motd").display().to_string();
    run(Command::new("umoci").args([
        "insert",
        "--image",
        &format!("{layout}:base"),
        &motd,
        "/usr/share/motd",
    ]));
    let archive = dir.join("base.tar").display().to_string();
    let from = format!("oci:{layout}:base");
    run(Command::new("skopeo").args(["copy", "--quiet", &from, &format!("oci-archive:{archive}:base")]));
    let raw = run(Command::new("skopeo").args(["inspect", "--format", "{{.Digest}}", &from]));

    let world = on(&format!("oci-archive:{archive}:base@{}", raw.trim()));
    world.strata(&["lock", "demo"]);
    assert_eq!(packages(&world, "coreos"), packages(built, "coreos"));
    let made = world.build(&["coreos"]);
    let rootfs = crate::world::unpack(&world.skopeo(&made[0]), &dir.join("unpacked"));
    assert_eq!(fs::read_to_string(rootfs.join("usr/share/motd")).unwrap(), "derived\n");
    let installed = run(Command::new("rpm").arg("--root").arg(&rootfs).args(["-qa", "--qf", "%{NEVRA}\n"]));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let same = crate::world::unpack(&built.skopeo(&images[1]), &dir.join("same"));
    let expected = run(Command::new("rpm").arg("--root").arg(&same).args(["-qa", "--qf", "%{NEVRA}\n"]));
    assert_eq!(lines(&installed), lines(&expected));
}

#[test]
fn a_lock_tells_the_image_that_its_layer_was_first_built_on() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let lock = |layer: &str| {
        let path = format!("lockfiles/demo/{layer}.{}.toml", std::env::consts::ARCH);
        fs::read_to_string(world.path(&path)).unwrap()
    };
    assert!(!lock("node").contains("parent-image"));
    let first = world.build(&[]);
    let named = |image: &Image| format!("parent-image = \"{}\"\n", image.digest);
    assert!(!lock("bootc").contains("parent-image"));
    assert!(lock("coreos").contains(&named(&first[0])) && lock("node").contains(&named(&first[1])));

    // another image of the same packages: no news
    let before = ["bootc", "coreos", "node"].map(lock);
    fs::write(world.path("manifests/demo/overlay/usr/lib/another"), "another\n").unwrap();
    assert_ne!(world.build(&["--locked"])[1].digest, first[1].digest);
    assert_ne!(world.build(&[])[1].digest, first[1].digest);
    assert_eq!(["bootc", "coreos", "node"].map(lock), before);
    world.strata(&["lock", "demo", "--check"]);

    // with other packages it is forgotten, and told by the next build that may write
    let node = world.path("manifests/demo/node.toml");
    let text = fs::read_to_string(&node).unwrap();
    fs::write(&node, text.replace("\"nmstate\", ", "")).unwrap();
    world.strata(&["lock", "demo"]);
    assert!(!lock("node").contains("parent-image"));
    let second = world.build(&["--locked"]);
    assert!(!lock("node").contains("parent-image"));
    world.build(&[]);
    assert!(lock("node").contains(&named(&second[1])));
}

#[test]
fn what_is_pinned_is_what_is_used() {
    let (built, images) = World::built();
    let mut registry = Registry::new("pinned-damaged");
    registry.push(&built.skopeo(&images[0]), "rhel-bootc:test");
    let other = &images[1].digest;
    let world = on(&format!("docker://{}/rhel-bootc@{other}", registry.host()));
    let error = world.refused(&["lock", "demo"], 1);
    assert!(error.contains("rhel-bootc") && error.contains(other), "{error}");
    assert!(!world.path("lockfiles").exists());

    // other bytes under the digest of the list
    let data = registry.data();
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap().to_owned();
    let blob = |digest: &str| {
        let hex = hex(digest);
        data.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    };
    let list = &layers(&manifest(built, &images[0]))[0];
    let mut bytes = fs::read(blob(list)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(blob(list), bytes).unwrap();
    let world = on(&format!("docker://{}/rhel-bootc@{}", registry.host(), images[0].digest));
    let error = world.refused(&["lock", "demo"], 1);
    assert!(error.contains(list.as_str()), "{error}");
    assert!(!world.path("lockfiles").exists());
    assert!(!world.path("store/images/blobs/sha256").join(hex(list)).exists());
    registry.stop();
}
