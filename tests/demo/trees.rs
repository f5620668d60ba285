//! What rpm and dnf say to the demo's node image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::parity::{self, Dnf, Trees};
use crate::world::{User, World, copy, repositories, run, scratch, unpack};

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
fn show_lists_the_packages_rpm_finds() {
    let (world, _) = World::built();
    let shown: Value =
        serde_json::from_str(&world.strata(&["--format", "json", "show", "demo/node", "--packages"]))
            .unwrap();
    let packages = shown["packages"].as_array().unwrap();
    let mut listed: Vec<&str> = packages.iter().map(|p| p["nevra"].as_str().unwrap()).collect();
    listed.sort_unstable();
    let format = "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\n";
    let found = parity::rpm(World::unpacked_node(), &["-qa", "--queryformat", format]);
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(listed, found);
    let layers = shown["layers"].as_array().unwrap().iter();
    let with_initramfs = layers.filter(|layer| layer["origin"] == "strata: bootc: initramfs");
    assert_eq!(with_initramfs.count(), 1, "{:?}", shown["layers"]);
}

/// What the demo's manifests change of what packages ship.
const CHANGED: [&str; 4] = [
    "/etc/motd",
    "/usr/lib/os-release",
    "/usr/lib/systemd/system/bootc-fetch-apply-updates.service",
    "/usr/lib/systemd/system/bootc-fetch-apply-updates.timer",
];

#[test]
fn rpm_verifies_all_but_what_the_manifests_change() {
    let report = parity::rpm(World::unpacked_node(), &["-Va"]);
    let mut reported: Vec<&str> = report.lines().filter_map(|line| line.split_whitespace().last()).collect();
    reported.sort_unstable();
    assert_eq!(reported, CHANGED, "{report}");
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

/// The demo's packages without its configuration: a snapshot with the package specs of each layer.
fn bare_snapshot(work: &Path) -> PathBuf {
    let (world, _) = World::built();
    let plan: Value = serde_json::from_str(&world.strata(&["--format", "json", "compile", "demo"])).unwrap();
    let snapshot = work.join("snapshot");
    copy(&repositories().join("2025-02-03"), &snapshot);
    fs::create_dir(snapshot.join("layers")).unwrap();
    for layer in plan["layers"].as_array().unwrap() {
        let specs = layer["packages"]["install"].as_array().unwrap();
        let specs: String =
            specs.iter().map(|spec| format!("{}\n", spec["value"].as_str().unwrap())).collect();
        let name = layer["name"].as_str().unwrap();
        fs::write(snapshot.join(format!("layers/{name}.packages")), specs).unwrap();
    }
    snapshot
}

#[test]
fn dnf_makes_the_same_tree() {
    let work = scratch("dnf");
    let snapshot = bare_snapshot(&work);
    let key = repositories().join("RPM-GPG-KEY-demo");
    let world = World::new(User::Root);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/snapshot-stream.sh");
    run(Command::new(script).arg(&snapshot).arg(&key).arg(world.path("manifests")));
    world.strata(&["lock", "corpus"]);
    world.strata(&["build", "corpus"]);
    let node = format!("oci:{}:corpus/node", world.path("store/images").display());
    let ours = unpack(&node, &work.join("strata"));
    let dnf = Dnf::new(&work);
    dnf.install_layers(&snapshot, &key);
    assert_eq!(parity::packages(&ours), parity::packages(&dnf.root));
    let [ours, theirs] = [&ours, &dnf.root].map(|root| parity::tree(root, Trees::Images));
    let differences = parity::differences(&ours, &theirs);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_machine_makes_var_and_accounts_itself() {
    let image = World::unpacked_node();
    let machine = scratch("machine").join("root");
    run(Command::new("cp").arg("-a").args([image, &machine]));
    run(Command::new("sh")
        .args(["-ec", "rm -r var; mkdir var; rm etc/passwd etc/group etc/shadow etc/gshadow"])
        .current_dir(&machine));
    let root = format!("--root={}", machine.display());
    run(Command::new("systemd-sysusers").arg(&root));
    run(Command::new("systemd-tmpfiles").args([&root, "--create", "--prefix=/var"]));

    let sorted = |root: &Path, file: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for file in ["etc/passwd", "etc/group"] {
        assert_eq!(sorted(&machine, file), sorted(image, file));
    }
    let var = |root: &Path| {
        let mut tree = parity::tree(root, Trees::Images);
        tree.retain(|path, node| path.starts_with("/var/") && node.is_directory_or_link());
        tree
    };
    // the rest is as a package or the demo's manifests declare it
    let ours = run(Command::new("sh").args(["-ec", "cat usr/lib/tmpfiles.d/strata-*"]).current_dir(image));
    let (made, wanted) = (var(&machine), var(image));
    let declared = |path: &str| ours.lines().any(|line| line.split(' ').nth(1) == Some(path));
    assert!(declared("/var/lib/chrony") && declared("/var/run"));
    for (path, node) in &wanted {
        let found = made.get(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert!(found == node || !declared(path), "{path}: {found:?}, in the image {node:?}");
    }
}
