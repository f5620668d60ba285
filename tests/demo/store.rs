//! The store under time and fire: what gc deletes and what it leaves, what fsck finds and heals.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::registry::Registry;
use crate::server::Server;
use crate::world::{Image, User, World, repositories, run};

const NEWER: [&str; 4] = ["--set", "snapshot=2025-02-10", "--set", "ose_snapshot=2025-02-10"];

/// A world whose demo stream is locked and built.
fn world() -> World {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    world.build(&[]);
    world
}

fn gc(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&world.strata(&[&["--format", "json", "gc"], args].concat())).unwrap()
}

/// Names of what was deleted of a kind.
fn deleted(report: &Value, kind: &str) -> Vec<String> {
    let all = report["deleted"].as_array().unwrap().iter();
    let name = |deleted: &Value| deleted["name"].as_str().unwrap().to_owned();
    all.filter(|deleted| deleted["kind"] == kind).map(name).collect()
}

/// The paths directly in a directory of the store.
fn entries(world: &World, dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.path("store").join(dir)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Bytes of all files and links, as find(1) counts them.
fn size(dir: &Path) -> u64 {
    let sizes = run(Command::new("find").arg(dir).args(["!", "-type", "d", "-printf", "%s\\n"]));
    sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum()
}

/// Makes a file as old as if it had been used last `days` ago.
fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    File::open(path).unwrap().set_modified(then).unwrap();
}

/// Turns a bit in the middle of a file.
fn rot(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (middle, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}

#[test]
fn gc_keeps_what_has_a_name_and_the_newest_versions() {
    let world = world();
    assert_eq!(gc(&world, &[])["freed"], 0);
    let first = world.build(&[]);
    world.strata(&[&NEWER[..], &["lock", "demo", "--update"]].concat());
    world.strata(&[&NEWER[..], &["build", "demo"]].concat());
    // a version keeps its name, and all that is of it
    assert_eq!(gc(&world, &[])["freed"], 0);

    let told = gc(&world, &["--keep", "1", "--dry-run"]);
    let size =
        || ["images/blobs", "layers"].map(|dir| size(&world.path("store").join(dir))).iter().sum::<u64>();
    let before = size();
    let done = gc(&world, &["--keep", "1"]);
    assert_eq!(told, done);
    assert_eq!(done["freed"], before - size());
    let old: Vec<String> = first.iter().map(|image| image.reference.clone()).collect();
    let gone = deleted(&done, "image");
    assert!(!gone.is_empty() && gone.iter().all(|name| old.contains(name)), "{gone:?} of {old:?}");
    assert_eq!(deleted(&done, "package"), [""; 0]);
    let images = world.strata(&["images"]);
    assert!(gone.iter().all(|name| !images.contains(&format!("{name} "))), "{images}");
    world.strata(&["fsck"]);
    // the version that lost its name is built again as it was
    assert!(world.strata(&[&NEWER[..], &["build", "demo"]].concat()).contains("demo/node"));
}

#[test]
fn gc_takes_caches_by_age_and_by_size_the_least_used_first() {
    let world = world();
    // a budget is in KiB: one of these is as much
    let mut payloads = entries(&world, "payloads");
    payloads.retain(|path| fs::metadata(path).unwrap().len() >= 1024);
    let layers = entries(&world, "layers");
    age(&payloads[0], 40);
    age(&payloads[1], 20);
    age(&layers[0].join("layer.json"), 40);
    let report = gc(&world, &["--older-than", "30d"]);
    assert_eq!(deleted(&report, "payload"), [payloads[0].file_name().unwrap().to_str().unwrap()]);
    assert_eq!(deleted(&report, "layer").len(), 1);
    assert_eq!(deleted(&report, "package"), [""; 0]);

    // a byte too much: what was used least recently goes, and nothing else
    let remaining = gc(&world, &["--dry-run"])["remaining"].as_u64().unwrap();
    let budget = format!("{}K", remaining / 1024);
    let report = gc(&world, &["--size", &budget]);
    assert_eq!(report["deleted"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(deleted(&report, "payload"), [payloads[1].file_name().unwrap().to_str().unwrap()]);
    // images stay, whatever the budget
    let report = gc(&world, &["--size", "0K"]);
    assert_eq!(deleted(&report, "image"), [""; 0]);
    for dir in ["rpms", "payloads", "layers", "repodata", "parsed"] {
        assert_eq!(entries(&world, dir), [""; 0].map(PathBuf::from), "{dir}");
    }
    assert_eq!(world.build(&[]).iter().filter(|image| image.reused).count(), 3);
}

#[test]
fn gc_leaves_what_running_stratas_have() {
    let world = world();
    let rpm = entries(&world, "rpms")[0].clone();
    let other = strata::store::Store::open(&world.path("store")).unwrap();
    // older than the other one, which takes it
    age(&rpm, 1);
    assert!(other.take(&rpm).unwrap());
    let unfinished = other.temp_file().unwrap();
    gc(&world, &["--all", "--size", "0K"]);
    assert_eq!(entries(&world, "rpms"), std::slice::from_ref(&rpm));
    assert!(unfinished.path().exists());
    drop((unfinished, other));
    gc(&world, &["--size", "0K"]);
    assert!(!rpm.exists());
    assert_eq!(entries(&world, "running"), [""; 0].map(PathBuf::from));
}

#[test]
fn fsck_finds_every_rotten_bit_and_what_is_lost_comes_back() {
    let world = world();
    let images = world.build(&[]);
    let checked = world.strata(&["fsck"]);
    assert!(checked.ends_with(" 0 damaged\n"), "{checked}");
    for dir in ["rpms", "payloads", "repodata"] {
        let victim = entries(&world, dir)[0].clone();
        rot(&victim);
        found(&world, &victim);
        assert_eq!(victim.exists(), dir == "rpms", "of these alone lockfiles say where they are");
    }
    let mut tree =
        entries(&world, "layers").into_iter().map(|layer| layer.join("tree/root/usr/lib/os-release"));
    let os_release = tree.find(|path| path.exists()).unwrap();
    let layer = os_release.ancestors().nth(5).unwrap().to_owned();
    let (content, time) =
        (fs::read(&os_release).unwrap(), fs::metadata(&os_release).unwrap().modified().unwrap());
    let mut rotten = File::options().write(true).open(&os_release).unwrap();
    rotten.write_all(&[content[0] ^ 1]).unwrap();
    rotten.set_modified(time).unwrap();
    found(&world, &layer);
    assert!(!layer.exists());

    assert_eq!(world.build(&[]), images);
    world.strata(&["gc", "--size", "0K"]);
    world.strata(&["gc", "--all"]);
    assert_eq!(names(&world.build(&[])), names(&images));
}

/// Versions and digests.
fn names(images: &[Image]) -> Vec<(String, String)> {
    images.iter().map(|image| (image.version.clone(), image.digest.clone())).collect()
}

/// Sees fsck tell of the rotten object, and of nothing once it is repaired.
fn found(world: &World, victim: &Path) {
    let output = world.command(&["fsck"]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    let name = victim.strip_prefix(world.path("store")).unwrap().display().to_string();
    assert!(told.contains(&format!("{name}: ")) && told.contains(" 1 damaged"), "{name}: {told}");
    world.strata(&["fsck", "--repair"]);
    world.strata(&["fsck"]);
}

/// What `fsck --repair` says, on standard output and on standard error, and its exit status.
fn repaired(world: &World, args: &[&str]) -> (String, String, Option<i32>) {
    let output = world.command(&[&["fsck", "--repair"], args].concat()).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (out, err, output.status.code())
}

#[test]
fn a_rotten_package_is_fetched_from_where_a_lock_says() {
    let world = World::new(User::Root);
    let server = Server::of(repositories().to_owned());
    let stream = world.path("manifests/demo/stream.toml");
    let text = fs::read_to_string(&stream).unwrap();
    fs::write(&stream, text.replace("\"../../target/demo\"", &format!("\"{}\"", server.url))).unwrap();
    world.strata(&["lock", "demo"]);
    let images = world.build(&[]);
    let requests = || std::mem::take(&mut *server.requests.lock().unwrap());
    requests();

    // of a key it is known only whether it is one
    let key = entries(&world, "keys")[0].clone();
    let whole = fs::read(&key).unwrap();
    fs::write(&key, "no key").unwrap();
    let (told, warned, status) = repaired(&world, &[]);
    assert!(status == Some(0) && told.contains(" (fetched again)\n"), "{told}{warned}");
    assert_eq!(fs::read(&key).unwrap(), whole);
    assert_eq!(requests(), ["/RPM-GPG-KEY-demo"]);

    let package = entries(&world, "rpms")[7].clone();
    rot(&package);
    let (told, warned, status) = repaired(&world, &[]);
    assert_eq!(status, Some(0), "{told}{warned}");
    assert!(told.contains(" (fetched again)\n") && told.contains(" 1 damaged"), "{told}");
    let asked = requests();
    let packages: Vec<_> = asked.iter().filter(|path| !path.ends_with("RPM-GPG-KEY-demo")).collect();
    assert!(packages.len() == 1 && packages[0].ends_with(".rpm"), "{asked:?}");
    let digest = run(Command::new("sha256sum").arg(&package));
    assert!(package.file_name().unwrap().to_str().unwrap().starts_with(&digest[..64]));
    world.strata(&["fsck"]);
    // nothing but packages is left to build from
    world.strata(&["gc", "--all"]);
    assert_eq!(names(&world.build(&["--offline"])), names(&images));

    rot(&package);
    let (told, warned, status) = repaired(&world, &["--offline"]);
    assert!(status == Some(0) && told.contains(" (taken away: "), "{told}");
    assert!(warned.contains("no repository is used with --offline"), "{warned}");
    assert!(!package.exists());
    assert_eq!(requests(), [""; 0]);
}

/// The files of the layers of an image in the store, bottom first.
fn layers(world: &World, image: &Image) -> Vec<PathBuf> {
    let shown: Value =
        serde_json::from_str(&world.strata(&["--format", "json", "show", &image.reference])).unwrap();
    let blobs = world.path("store/images/blobs/sha256");
    let hex = |layer: &Value| layer["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    shown["layers"].as_array().unwrap().iter().map(|layer| blobs.join(hex(layer))).collect()
}

#[test]
fn rotten_blobs_are_fetched_from_registries_that_have_them() {
    let (built, images) = World::built();
    let registry = Registry::new("store-rot");
    registry.push(&built.skopeo(&images[0]), "rhel-bootc:test");
    let world = crate::pinned::on(&format!("docker://{}/rhel-bootc@{}", registry.host(), images[0].digest));
    world.strata(&["lock", "demo"]);
    let made = world.build(&["coreos"]);
    world.strata(&["push", &made[0].reference, &format!("docker://{}/coreos:1", registry.host())]);
    let (blobs, below) = (layers(&world, &made[0]), layers(built, &images[0]).len());
    let name = |path: &Path| format!("sha256:{}", path.file_name().unwrap().display());
    registry.blobs_read();
    // of the image that the manifest pins, and of the one that was pushed
    for blob in [&blobs[0], &blobs[below]] {
        rot(blob);
        let (told, warned, status) = repaired(&world, &[]);
        assert_eq!(status, Some(0), "{told}{warned}");
        assert_eq!(registry.blobs_read(), [name(blob)]);
        world.strata(&["fsck"]);
    }
    let manifest = world.path("store/images/blobs/sha256").join(&images[0].digest["sha256:".len()..]);
    rot(&manifest);
    assert_eq!(repaired(&world, &[]).2, Some(0));
    assert!(manifest.exists());

    // what cannot be had stays lost, until it can
    rot(&blobs[0]);
    let (told, warned, status) = repaired(&world, &["--offline"]);
    assert!(status == Some(3) && told.contains("the next build of it completes it"), "{told}");
    assert!(
        warned.contains("fetching blobs of docker://") && warned.contains("is not asked with --offline"),
        "{warned}"
    );
    assert_eq!(repaired(&world, &[]).2, Some(0));
    world.strata(&["fsck"]);
    assert!(world.build(&["coreos", "--offline"])[0].reused);
}

#[test]
fn a_lost_layer_of_an_image_is_built_again_under_the_same_version() {
    let world = world();
    let images = world.build(&[]);
    let blobs = entries(&world, "images/blobs/sha256");
    let largest = blobs.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    rot(largest);
    let report = world.command(&["--format", "json", "fsck", "--repair"]).output().unwrap();
    // what has a name waits for its next build
    assert_eq!(report.status.code(), Some(3));
    assert!(!largest.exists());
    let again = world.build(&[]);
    assert!(again.iter().any(|image| !image.reused));
    assert_eq!(names(&again), names(&images));
    world.strata(&["fsck"]);
}

#[test]
fn what_comes_out_differently_is_named_with_the_script_that_made_it() {
    let world = world();
    assert!(world.strata(&["build", "demo", "--twice"]).contains("demo/node:"));
    let mut manifest = File::options().append(true).open(world.path("manifests/demo/coreos.toml")).unwrap();
    let script = "[[script]]\nname = \"stamp\"\nreason = \"test\"\nbody = \"head -c 8 /dev/urandom > /usr/share/stamp\"\n";
    manifest.write_all(format!("\n{script}").as_bytes()).unwrap();
    let output = world.command(&["build", "demo", "--twice"]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.starts_with("coreos: /usr/share/stamp came out differently, made by [[script]] stamp"),
        "{told}"
    );
    assert_eq!(entries(&world, "tmp"), [""; 0].map(PathBuf::from));
}

#[test]
fn a_verbose_build_says_which_input_is_another() {
    let world = world();
    let said = |args: &[&str]| {
        String::from_utf8(world.command(&[&["-v", "build", "demo"], args].concat()).output().unwrap().stderr)
            .unwrap()
    };
    let again = said(&[]);
    assert_eq!(again.matches("has the same inputs").count(), 3, "{again}");
    let mut manifest = File::options().append(true).open(world.path("manifests/demo/coreos.toml")).unwrap();
    manifest.write_all(b"\n[[file]]\npath = \"/etc/new\"\ncontent = \"new\"\n").unwrap();
    let changed = said(&[]);
    assert!(changed.contains("made: demo/coreos has others: the manifest"), "{changed}");
    assert!(changed.contains("made: demo/node has others: the image below"), "{changed}");
}
