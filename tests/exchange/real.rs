//! Real files, imported into a new stream and exported from it again.

use serde_json::Value;

use crate::tools::{Desk, accept, real, yaml};

/// A Konflux lock without what docs/exchange.md says is lost.
fn without_sources(mut lock: Value) -> Value {
    for arch in lock["arches"].as_array_mut().unwrap() {
        arch["source"] = Value::Array(Vec::new());
        arch["module_metadata"] = Value::Array(Vec::new());
    }
    lock
}

#[test]
fn konflux_locks_come_out_as_they_went_in() {
    for name in ["oras-container", "prototype-multi-arch", "hermeto-modularity"] {
        let desk = Desk::new();
        let lock = real(&format!("{name}.rpms.lock.yaml"));
        desk.strata(&["import", "konflux-lock", lock.to_str().unwrap()]);
        desk.strata(&["export", "konflux-lock", "imported", "--output", "out"]);
        accept("hermeto", &desk.path("out/rpms.lock.yaml"));
        assert_eq!(yaml(&desk.path("out/rpms.lock.yaml")), without_sources(yaml(&lock)), "{name}");
    }
}

#[test]
fn what_konflux_is_asked_for_becomes_a_manifest_and_comes_out_again() {
    let desk = Desk::new();
    let [lock, input] = ["lock", "in"].map(|kind| real(&format!("prototype-multi-arch.rpms.{kind}.yaml")));
    let told = desk.strata(&[
        "import",
        "konflux-lock",
        lock.to_str().unwrap(),
        "--input",
        input.to_str().unwrap(),
        "--stream",
        "konflux",
        "--layer",
        "node",
    ]);
    assert!(told.contains("node.x86_64: 3 packages") && told.contains("node.aarch64: 1 packages"), "{told}");
    desk.strata(&["export", "konflux-lock", "konflux", "--output", "out"]);
    accept("rpms-in", &desk.path("out/rpms.in.yaml"));
    let (ours, theirs) = (yaml(&desk.path("out/rpms.in.yaml")), yaml(&input));
    for key in ["contentOrigin", "context"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    // `not: aarch64` is `only: x86_64` here, and lists are sorted
    let only_x86 = |name: &str| serde_json::json!({"name": name, "arches": {"only": ["x86_64"]}});
    let expected =
        serde_json::json!(["test-common", only_x86("test-not-aarch64"), only_x86("test-x86-only")]);
    assert_eq!(ours["packages"], expected);
    assert_eq!(ours["arches"], serde_json::json!(["aarch64", "x86_64"]));
}

#[test]
fn a_lock_without_a_checksum_is_refused() {
    let error = Desk::new().refused(&[
        "import",
        "konflux-lock",
        real("hermeto-missing-checksum.rpms.lock.yaml").to_str().unwrap(),
    ]);
    assert!(error.contains("centos-stream-repos-9.0-36") && error.contains("has no checksum"), "{error}");
}

#[test]
fn locks_and_overrides_of_fedora_coreos_come_out_as_they_went_in() {
    for (date, overrides) in
        [("2024-10-23", Some("2024-10-23")), ("2024-07-28", Some("2024-08-11")), ("2023-11-26", None)]
    {
        let desk = Desk::new();
        let lock = real(&format!("manifest-lock.x86_64.{date}.json"));
        let mut args = vec!["import", "rpm-ostree-lock", lock.to_str().unwrap()];
        let overrides = overrides.map(|date| real(&format!("manifest-lock.overrides.{date}.yaml")));
        args.extend(overrides.iter().flat_map(|path| ["--overrides", path.to_str().unwrap()]));
        desk.strata(&args);
        desk.strata(&["export", "rpm-ostree-lock", "imported", "--output", "out"]);
        accept("rpm-ostree", &desk.path("out/manifest-lock.x86_64.json"));
        assert_eq!(yaml(&desk.path("out/manifest-lock.x86_64.json")), yaml(&lock), "{date}");
        let exported = desk.path("out/manifest-lock.overrides.yaml");
        match overrides {
            Some(overrides) => {
                accept("rpm-ostree", &exported);
                assert_eq!(yaml(&exported), yaml(&overrides), "{date}");
            }
            None => assert!(!exported.exists()),
        }
    }
}

#[test]
fn a_manifest_of_libpkgmanifest_comes_out_as_it_went_in() {
    let desk = Desk::new();
    let [manifest, input] = ["manifest", "input"].map(|kind| real(&format!("packages.{kind}.yaml")));
    let args = ["import", "libpkgmanifest", manifest.to_str().unwrap(), "--input", input.to_str().unwrap()];
    desk.strata(&args);
    desk.strata(&["export", "libpkgmanifest", "imported", "--output", "out"]);
    let (ours, mut theirs) = (yaml(&desk.path("out/packages.manifest.yaml")), yaml(&manifest));
    accept("manifest", &desk.path("out/packages.manifest.yaml"));
    accept("input", &desk.path("out/packages.input.yaml"));
    theirs["data"]["packages"].as_object_mut().unwrap().remove("src");
    // strata's base URLs end without a slash
    for repository in theirs["data"]["repositories"].as_array_mut().unwrap() {
        if let Some(Value::String(url)) = repository.get_mut("baseurl") {
            *url = url.trim_end_matches('/').to_owned();
        }
    }
    assert_eq!(ours["data"], theirs["data"]);
    let (ours, theirs) = (yaml(&desk.path("out/packages.input.yaml")), yaml(&input));
    assert_eq!((&ours["packages"], &ours["archs"]), (&theirs["packages"], &theirs["archs"]));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let desk = Desk::new();
    let import = |name: &str, more: &[&str]| {
        let file = real(&format!("{name}.rpms.lock.yaml"));
        [&["import", "konflux-lock", file.to_str().unwrap()], more]
            .concat()
            .iter()
            .map(|arg| arg.to_string())
            .collect::<Vec<_>>()
    };
    fn words(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    desk.strata(&words(&import("oras-container", &[])));
    // the same again changes nothing, so there is nothing to refuse
    desk.strata(&words(&import("oras-container", &[])));
    std::fs::write(desk.path("lockfiles/imported/base.s390x.toml"), "mine").unwrap();
    let error = desk.refused(&words(&import("oras-container", &["--arch", "s390x"])));
    assert!(error.contains("base.s390x.toml"), "{error}");
    std::fs::write(desk.path("rpms.in.yaml"), "mine").unwrap();
    let export = ["export", "konflux-lock", "imported", "--arch", "x86_64"];
    let error = desk.refused(&export);
    assert!(error.contains("rpms.in.yaml is there already") && error.contains("--force"), "{error}");
    desk.strata(&[&export[..], &["--force"]].concat());
    assert_ne!(std::fs::read(desk.path("rpms.in.yaml")).unwrap(), b"mine");
}

#[test]
fn keys_without_a_word_for_them_are_named() {
    let desk = Desk::new();
    let lock = real("oras-container.rpms.lock.yaml");
    let input = yaml(&real("oras-container.rpms.in.yaml"));
    let mut more = input.clone();
    more["excludePackages"] = serde_json::json!(["a"]);
    more["keyOfTomorrow"] = serde_json::json!({"a": 1});
    more["contentOrigin"]["repos"] =
        serde_json::json!([{"repoid": "nobodys", "baseurl": "https://x", "sslverify": 0}]);
    let lost = |input: &Value| {
        std::fs::write(desk.path("rpms.in.yaml"), input.to_string()).unwrap();
        let args =
            ["--format", "json", "import", "konflux-lock", lock.to_str().unwrap(), "--input", "rpms.in.yaml"];
        let told: Value = serde_json::from_str(&desk.strata(&[&args[..], &["--force"]].concat())).unwrap();
        let lost: std::collections::BTreeSet<String> = serde_json::from_value(told["lost"].clone()).unwrap();
        lost
    };
    let before = lost(&input);
    let of = |text: &str| format!("{text} of rpms.in.yaml");
    assert!(before.contains(&of("`contentOrigin.repofiles`")), "{before:?}");
    let expected = [
        of("`contentOrigin.repos[nobodys].sslverify`"),
        of("`excludePackages`"),
        of("`keyOfTomorrow`"),
        format!("{}: no locked package is from it", of("repository `nobodys`")),
    ];
    assert_eq!(lost(&more).difference(&before).cloned().collect::<Vec<_>>(), expected);
}
