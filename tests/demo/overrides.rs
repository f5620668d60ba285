//! The life of an override: warned of when its day is over, dropped when the layers below have caught up, and marked
//! in the version when it is a file of nobody's repository.

use std::fs;
use std::process::Command;

use crate::registry::Registry;
use crate::world::{User, World, copy, run, text};

const NODE: &str = "manifests/demo/node.toml";

/// Changes the demo's override of conmon, for this machine's architecture alone.
fn change(world: &World, from: &str, to: &str) {
    let path = world.path(NODE);
    let old = fs::read_to_string(&path).unwrap();
    let new = old.replace(from, to);
    assert_ne!(old, new, "{from}");
    fs::write(path, new).unwrap();
    let path = world.path("manifests/demo/stream.toml");
    let host = format!("[\"{}\"]", std::env::consts::ARCH);
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("[\"x86_64\", \"aarch64\"]", &host)).unwrap();
}

/// Runs strata on a day; gives its exit status and what it said.
fn on_day(world: &World, day: &str, args: &[&str]) -> (i32, String) {
    let epoch = run(Command::new("date").args(["-u", "-d", day, "+%s"]));
    let output = world.command(args).env("SOURCE_DATE_EPOCH", epoch.trim()).output().unwrap();
    (output.status.code().unwrap(), text(&output))
}

fn node_lock(world: &World) -> String {
    let lock = format!("lockfiles/demo/node.{}.toml", std::env::consts::ARCH);
    fs::read_to_string(world.path(&lock)).unwrap()
}

#[test]
fn a_last_day() {
    let world = World::new(User::Root);
    change(&world, "until = 2099-03-31", "until = 2025-03-31");
    let line =
        fs::read_to_string(world.path(NODE)).unwrap().lines().position(|l| l == "[[override]]").unwrap() + 1;
    let (status, said) = on_day(&world, "2025-03-31 23:59:59", &["lock", "demo"]);
    assert!(status == 0 && !said.contains("was to end"), "{said}");
    assert_eq!(on_day(&world, "2025-03-31", &["lock", "demo", "--check"]).0, 0);
    let (status, said) = on_day(&world, "2025-04-01", &["lock", "demo"]);
    let warning = format!("{NODE}:{line}: the fast-track of conmon was to end on 2025-03-31 (logs were cut");
    assert!(status == 0 && said.contains(&warning), "{said}");
    let (status, said) = on_day(&world, "2025-04-01", &["lock", "demo", "--check"]);
    assert!(status == 3 && said.contains(&warning), "{said}");
    assert_eq!(on_day(&world, "2025-04-01", &["lock", "demo", "bootc", "--check"]).0, 0, "not of this layer");
}

#[test]
fn an_update_drops_what_the_layers_below_have() {
    let world = World::new(User::Root);
    change(&world, "3:2.1.13-1.rhaos4.19.el9", "3:2.1.12-1.el9");
    let before = fs::read_to_string(world.path(NODE)).unwrap();
    let (_, said) = on_day(&world, "2025-02-03", &["lock", "demo"]);
    assert!(said.contains("is no longer needed: the bootc layer has conmon-3:2.1.12-1.el9."), "{said}");
    assert_eq!(fs::read_to_string(world.path(NODE)).unwrap(), before, "told, not done");
    let (status, said) = on_day(&world, "2025-02-03", &["lock", "demo", "--update", "--check"]);
    assert!(status == 3 && said.contains("an update drops it"), "{said}");
    assert_eq!(fs::read_to_string(world.path(NODE)).unwrap(), before, "told, not done");

    let (status, said) = on_day(&world, "2025-02-03", &["lock", "demo", "--update"]);
    assert!(status == 0 && said.contains(": dropped"), "{said}");
    let after = fs::read_to_string(world.path(NODE)).unwrap();
    let block = before.find("# The only way a layer").unwrap()..before.find("[[script]]").unwrap();
    assert_eq!(after, [&before[..block.start], &before[block.end..]].concat(), "the rest is as it was");
    assert_eq!(on_day(&world, "2025-02-03", &["lock", "demo", "--check"]).0, 0);
}

#[test]
fn a_pin_holds_back_whatever_there_is() {
    let world = World::new(User::Root);
    change(&world, "3:2.1.13-1.rhaos4.19.el9", "3:2.1.12-1.el9");
    change(&world, "kind = \"fast-track\"", "kind = \"pin\"");
    let (status, said) = on_day(&world, "2025-02-03", &["lock", "demo", "--update"]);
    assert!(status == 0 && !said.contains("no longer needed"), "{said}");
    assert!(fs::read_to_string(world.path(NODE)).unwrap().contains("[[override]]"));
}

#[test]
fn a_local_file_makes_the_version_dirty() {
    let world = World::new(User::Root);
    let name = format!("conmon-2.1.13-1.rhaos4.19.el9.{}.rpm", std::env::consts::ARCH);
    let package = world.path("target/demo/2025-02-03/ose/Packages/c").join(&name);
    copy(&package, &world.path("manifests/demo/overrides/conmon.rpm"));
    change(&world, "version = \"3:2.1.13-1.rhaos4.19.el9\"", "file = \"overrides/conmon.rpm\"");
    change(&world, "kind = \"fast-track\"", "kind = \"hotfix\"");
    on_day(&world, "2025-02-03", &["lock", "demo"]);
    assert!(node_lock(&world).contains("repo = \"file\""));
    let images = world.build(&[]);
    let [bootc, coreos, node] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!((coreos.version.as_str(), bootc.version.contains("dirty")), ("9.6.20250203-0", false));
    assert_eq!(node.version, "9.6.20250203-0.dirty");
    assert!(node.reference.ends_with(":9.6.20250203-0.dirty"));
    assert_eq!(world.build(&[])[2].version, node.version);
    // a registry takes it as a tag
    let registry = Registry::new("dirty");
    let remote = registry.push(&world.skopeo(node), &format!("node:{}", node.version));
    let digest = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &remote];
    assert_eq!(run(Command::new("skopeo").args(digest)).trim(), node.digest);
}
