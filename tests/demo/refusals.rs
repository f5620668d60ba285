//! What a build refuses, how it says so, and that it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::{User, World, run};

/// Appends to a manifest of the demo.
fn append(world: &World, manifest: &str, text: &str) {
    let path = world.path(&format!("manifests/demo/{manifest}"));
    let old = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{old}\n{text}")).unwrap();
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

/// No layer, no image, no unfinished work.
fn assert_nothing_built(world: &World) {
    assert!(is_empty(&world.path("store/layers")));
    assert!(is_empty(&world.path("store/tmp")));
    let index = fs::read_to_string(world.path("store/images/index.json")).unwrap();
    assert!(index.contains("\"manifests\":[]"), "{index}");
}

#[test]
fn a_layer_that_is_not_locked() {
    let world = World::new(User::Root);
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("lockfiles/demo/bootc."), "{error}");
    assert!(error.contains("strata lock demo"), "{error}");
    assert_nothing_built(&world);
}

#[test]
fn a_lockfile_that_answers_another_request() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    append(
        &world,
        "node.toml",
        "[[override]]\npackage = \"podman\"\nversion = \"9\"\nkind = \"pin\"\nreason = \"test\"\n",
    );
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("node.") && error.contains("out of date"), "{error}");
    assert!(error.contains("strata lock demo"), "{error}");
}

/// Makes `change` to the lockfile of a layer; gives its path.
fn change_lock(world: &World, layer: &str, change: impl Fn(&str) -> String) -> String {
    let path = format!("lockfiles/demo/{layer}.{}.toml", std::env::consts::ARCH);
    let old = fs::read_to_string(world.path(&path)).unwrap();
    let new = change(&old);
    assert_ne!(old, new, "{path}");
    fs::write(world.path(&path), new).unwrap();
    path
}

/// The line, counted from 1, that begins with `start`.
fn line_of(world: &World, path: &str, start: &str) -> usize {
    let text = fs::read_to_string(world.path(path)).unwrap();
    1 + text.lines().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {path}"))
}

fn lockfiles(world: &World) -> Vec<(String, String)> {
    let files = fs::read_dir(world.path("lockfiles/demo")).into_iter().flatten();
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.display().to_string(), fs::read_to_string(path).unwrap())
    };
    files.map(file).collect()
}

#[test]
fn a_request_that_cannot_be_solved() {
    let world = World::new(User::Root);
    let packages = |text: &str| format!("[[when]]\nif = \"true\"\n[when.packages]\n{text}\n");
    let node = "manifests/demo/node.toml";
    // what the node layer is changed by, the line at fault, what stands against it, what to do
    let cases: [(String, &str, &[&str]); 7] = [
        (
            packages("install = [\"opnvswitch3.4\"]"),
            "install = [\"opnv",
            &[
                "installs `opnvswitch3.4`, but no repository has it",
                "write `openvswitch3.4` for `opnvswitch3.4` at manifests/demo/node.toml:",
            ],
        ),
        (
            packages("exclude = [\"containernetworking-plugins\"]"),
            "exclude = [\"containernetworking-plugins\"]",
            &[
                "openshift-node.toml:16 installs `cri-o`",
                "requires containernetworking-plugins",
                "is excluded at ",
                "hint: drop `containernetworking-plugins` at manifests/demo/node.toml:",
            ],
        ),
        (
            packages("install = [\"podman > 99:1\"]"),
            "install = [\"podman",
            &[
                "installs `podman > 99:1`, but no repository has it",
                "there is podman-",
                "write `podman` for `podman > 99:1`",
            ],
        ),
        (
            packages("install = [\"busybox.s390x\"]"),
            "install = [\"busybox",
            &["installs `busybox.s390x`, but no repository has it"],
        ),
        (
            packages("remove = [\"coreutils-single\"]"),
            "remove = [\"coreutils-single",
            &["removes `coreutils-single`", "of the bootc layer requires coreutils"],
        ),
        (
            "[[override]]\npackage = \"podman\"\nversion = \"99\"\nkind = \"pin\"\nreason = \"test\"\n"
                .into(),
            "package = \"podman\"",
            &["overrides `podman` with podman-99", "is not what the override", "write `version = \""],
        ),
        (
            packages("install = [\"@core\"]"),
            "install = [\"@core\"]",
            &[
                "installs `@core`",
                "no repository has a group or environment `core`",
                "hint: drop `@core` at ",
            ],
        ),
    ];
    let original = fs::read_to_string(world.path(node)).unwrap();
    for locked in [false, true] {
        if locked {
            world.strata(&["lock", "demo"]);
        }
        let before = lockfiles(&world);
        assert_eq!(before.is_empty(), !locked);
        for (change, at, told) in &cases {
            append(&world, "node.toml", change);
            let line = line_of(&world, node, at) - usize::from(at.starts_with("package"));
            let error = world.refused(&["lock", "demo"], 1);
            assert!(error.contains("the node layer cannot be solved"), "{error}");
            assert!(error.contains(&format!("{node}:{line}")), "{node}:{line}: {error}");
            told.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
            assert_eq!(lockfiles(&world), before, "{at}");
            fs::write(world.path(node), &original).unwrap();
        }
    }
}

#[test]
fn a_malformed_lockfile() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let good = lockfiles(&world);
    let last = |text: &str| text[text.rfind("[[package]]").unwrap()..].to_owned();
    // what is done to the node layer's lock, the line at fault, what is said
    type Change<'c> = &'c dyn Fn(&str) -> String;
    let cases: [(Change, &str, &str); 7] = [
        (&|t| t.replacen("why = ", "wyh = ", 1), "wyh = ", "unknown field `wyh`"),
        (&|t| t.replacen("[[package]]", "<<<<<<< HEAD\n[[package]]", 1), "<<<<<<<", "merge conflicts"),
        (
            &|t| t.replacen("action = \"install\"", "action = \"instal\"", 1),
            "action = \"instal\"",
            "`instal`",
        ),
        (&|t| t.replacen("sha256 = \"", "sha256 = \"zz", 1), "sha256 = \"zz", "is not a digest"),
        (&|t| t.replacen("sha256 = ", "# ", 1), "[[package]]", "no sha256"),
        (&|t| t.replacen("location = \"", "location = \"../../", 1), "[[package]]", "leaves the repository"),
        (&|t| format!("{}\n# again\n{}", t, last(t)), "# again", "listed twice"),
    ];
    for (change, at, told) in cases {
        let path = change_lock(&world, "node", change);
        let line = line_of(&world, &path, at) + usize::from(at == "# again");
        for command in
            [&["lock", "demo"][..], &["fetch", "demo"], &["build", "demo"], &["why", "demo", "node", "cri-o"]]
        {
            let error = world.refused(command, 1);
            assert!(error.contains(&format!("{path}:{line}: ")), "{command:?} {path}:{line}: {error}");
            assert!(error.contains(told) && error.contains("strata lock"), "{told}: {error}");
        }
        good.iter().for_each(|(path, text)| fs::write(path, text).unwrap());
    }
    assert_nothing_built(&world);
}

#[test]
fn a_check_says_what_is_out_of_date() {
    let world = World::new(User::Root);
    let missing = world.command(&["lock", "demo", "--check"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3));
    assert!(lockfiles(&world).is_empty());
    world.strata(&["lock", "demo"]);
    world.strata(&["lock", "demo", "--check"]);

    append(&world, "node.toml", "[[when]]\nif = \"true\"\n[when.packages]\ninstall = [\"nano\"]\n");
    let before = lockfiles(&world);
    let stale = world.command(&["lock", "demo", "--check"]).output().unwrap();
    assert_eq!(stale.status.code(), Some(3));
    let told = String::from_utf8(stale.stdout).unwrap();
    let node = format!("node.{}: ", std::env::consts::ARCH);
    let node: Vec<&str> = told.lines().skip_while(|line| !line.starts_with(&node)).take(2).collect();
    assert!(node[0].ends_with("(+1 ~0 -0), the manifest asks for something else"), "{told}");
    assert!(node[1].starts_with("  + nano-"), "{told}");
    assert_eq!(lockfiles(&world), before);
}

#[test]
fn packages_that_left_their_repository() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    world.strata(&["fetch", "demo", "--arch", "x86_64", "--arch", "aarch64"]);
    let stream = world.path("manifests/demo/stream.toml");
    let text = fs::read_to_string(&stream).unwrap();
    fs::write(&stream, text.replace("ose_snapshot = \"2025-02-03\"", "ose_snapshot = \"2025-02-10\""))
        .unwrap();
    let old = "openshift-clients-4.19.0-202502030911.*.rpm";
    run(Command::new("find").arg(world.path("target/demo/2025-02-10")).args(["-name", old, "-delete"]));
    run(Command::new("createrepo_c").arg("-q").arg(world.path("target/demo/2025-02-10/ose")));
    // all are in the store: nothing is wrong yet
    let told = world.strata(&["lock", "demo", "--check"]);
    let gone = |told: &str| told.lines().filter(|line| line.contains(" has left ose")).count();
    assert!(
        gone(&told) > 0 && told.contains("openshift-clients") && told.contains("it is still in the store"),
        "{told}"
    );
    let elsewhere = world.command(&["lock", "demo", "--check", "--store", "empty"]).output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(3));
    let told = String::from_utf8(elsewhere.stdout).unwrap();
    assert!(told.contains("nowhere else: `strata lock --repair openshift-clients`"), "{told}");

    let path = format!("lockfiles/demo/node.{}.toml", std::env::consts::ARCH);
    let before = fs::read_to_string(world.path(&path)).unwrap();
    let told = world.strata(&["lock", "demo", "--repair", "openshift-clients"]);
    let changes: Vec<&str> = told.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(changes.iter().all(|line| line.starts_with("  ~ openshift-clients.")), "{told}");
    assert_eq!(changes.len(), 2, "{told}");
    assert_ne!(before, fs::read_to_string(world.path(&path)).unwrap());
}

#[test]
fn a_script_that_fails() {
    let world = World::new(User::Root);
    append(
        &world,
        "bootc.toml",
        "[[script]]\nname = \"breaks\"\nreason = \"a test\"\nbody = \"echo the disk is on fire; exit 7\"\n",
    );
    world.strata(&["lock", "demo", "bootc"]);
    let error = world.refused(&["build", "demo", "bootc"], 1);
    for part in ["manifests/demo/bootc.toml:", "`breaks`", "status 7", "the disk is on fire"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_nothing_built(&world);
}

#[test]
fn a_layer_nobody_declared() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let error = world.refused(&["build", "demo", "nodes"], 1);
    assert!(error.contains("no layer `nodes`") && error.contains("bootc, coreos, node"), "{error}");
}

#[test]
fn an_image_that_does_not_fit_the_locks() {
    let world = World::new(User::Root);
    let (origin, images) = World::built();
    world.strata(&["lock", "demo"]);
    let bootc = origin.skopeo(&images[0]);
    for (base, expected) in [
        (format!("nodes={bootc}"), "no layer `nodes`"),
        (format!("coreos={bootc}"), "packages are not the"),
        ("coreos=oci:absent:x".to_owned(), "opening the OCI layout absent"),
    ] {
        let error = world.refused(&["build", "demo", "node", "--base", &base], 1);
        assert!(error.contains(expected), "{error}");
    }
    assert_nothing_built(&world);
}

#[test]
fn a_package_changed_after_it_was_locked() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let found =
        run(Command::new("find").arg(world.path("target/demo/2025-02-03")).args(["-name", "busybox-*.rpm"]));
    let path = found.lines().next().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("busybox"), "{error}");
    assert_nothing_built(&world);
    assert!(!run(Command::new("ls").arg(world.path("store/rpms"))).contains("tmp"));
}

#[test]
fn usage_is_another_status_than_failure() {
    let world = World::new(User::Root);
    world.refused(&["build"], 2);
    for (args, expected) in [
        (&["--frobnicate"][..], "unexpected argument"),
        (&["--format", "markdown"], "for `strata diff` only: take text or json"),
        (&["--version", "9.6"], "`9.6` is not an image version: expected X.Y.YYYYMMDD-N"),
        (&["--base", "bootc"], "expected LAYER=IMAGE"),
        (&["--base", "bootc=nowhere"], "`nowhere` is no image: expected oci:DIR"),
        (&["--output", "docker://host/os"], "expected oci:DIR[:NAME]"),
    ] {
        let error = world.refused(&[&["build", "demo"], args].concat(), 2);
        assert!(error.contains(expected), "{error}");
    }
}
