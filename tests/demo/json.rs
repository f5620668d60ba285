//! `docs/json.md` against what the commands print.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::World;

/// The keys that the section of a command lists.
fn documented(command: &str) -> BTreeSet<String> {
    let text = include_str!("../../docs/json.md");
    let heading = format!("\n## {command}\n");
    let section = text.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {command}"));
    let rows = section.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

/// The paths of all values that are no objects or lists of objects: `a[].b`.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            map.iter().for_each(|(key, value)| leaves(value, &below(key), found));
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|value| leaves(value, &format!("{path}[]"), found));
        }
        _ => _ = found.insert(path.to_owned()),
    }
}

/// Whether a row of the document speaks of a key: itself, `a.*` of what is below `a`, or of what would be below
/// it, as an empty list has no keys.
fn covers(row: &str, key: &str) -> bool {
    let is_below = |path: &str, above: &str| {
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    is_below(row, key) || row.strip_suffix(".*").is_some_and(|stem| is_below(key, stem))
}

/// Compares the keys of a command's answer with those of its section.
fn check(command: &[&str], json: &str) {
    let mut keys = BTreeSet::new();
    leaves(&serde_json::from_str(json).unwrap(), "", &mut keys);
    let rows = documented(command[0]);
    for key in &keys {
        assert!(rows.iter().any(|row| covers(row, key)), "{command:?}: `{key}` is not documented");
    }
    for row in &rows {
        assert!(keys.iter().any(|key| covers(row, key)), "{command:?}: there is no `{row}`");
    }
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_there() {
    let (world, _) = World::built();
    let copy = world.path("node.toml");
    let lock = format!("lockfiles/demo/node.{}.toml", std::env::consts::ARCH);
    let text = std::fs::read_to_string(world.path(&lock)).unwrap();
    std::fs::write(&copy, text.replacen("name = \"cri-o\"", "name = \"cri-p\"", 1)).unwrap();
    for command in [
        &["compile", "demo"][..],
        &["lock", "demo"],
        &["fetch", "demo"],
        &["why", "demo", "node", "conmon"],
        &["build", "demo", "--offline"],
        &["images"],
        &["gc", "--older-than", "1d"],
        &["fsck"],
        &["show", "demo/node"],
        &["diff", "node.toml", &lock],
        &["export", "konflux-lock", "demo", "node", "--output", "exported", "--force"],
        &["import", "konflux-lock", "exported/rpms.lock.yaml", "--stream", "exchanged", "--force"],
        &["lint", "demo/node"],
        &["push", "demo/node", "oci:pushed:node"],
        &["copy", "oci:pushed:node", "oci:copied:node"],
        &["verify", "demo/node", "--ignore", "/usr/lib/{os-release,systemd/**}"],
    ] {
        check(command, &world.strata(&[&["--format", "json"], command].concat()));
    }
    // most of what a build says is said when a layer is made
    check(&["build"], &std::fs::read_to_string(world.path("build.json")).unwrap());
}
