//! Scripts: what a build reports of them, how those that fail are entered again, and whose files an image says
//! are theirs.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::world::{User, World, run, text, unpack};

/// A demo whose node layer has the package `zoo` with these scripts, locked.
fn world(scripts: &str) -> World {
    let world = World::new(User::Root);
    replace(&world, "manifests/demo/node.toml", "\"ose\"]", "\"ose\", \"extra\"]");
    replace(&world, "manifests/demo/node.toml", "install = [", "install = [\"zoo\", ");
    let repo = format!("\n[repos.extra]\nbaseurl = \"file://{}\"\n", world.path("extra").display());
    append(&world, "manifests/demo/stream.toml", &(repo + "gpgcheck = false\nenabled = false\n"));
    package(&world, "1", scripts);
    world
}

/// Makes a release of `zoo`, and locks it.
fn package(world: &World, release: &str, scripts: &str) {
    publish(world, "zoo", release, scripts);
    world.strata(&["lock", "demo", "--update"]);
}

fn publish(world: &World, name: &str, release: &str, scripts: &str) {
    let spec = format!(
        "Name: {name}\nVersion: 1\nRelease: {release}\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n\
         %install\nmkdir -p %buildroot/usr/share/{name}\ncd %buildroot/usr/share/{name}\ntouch -d @1700000000 owl emu\n\
         %files\n/usr/share/{name}\n{scripts}"
    );
    fs::write(world.path("it.spec"), spec).unwrap();
    let define = |name: &str, dir: &str| format!("{name} {}", world.path(dir).display());
    run(Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--define", &define("_topdir", "rpmbuild")])
        .args(["--define", &define("_rpmdir", "extra")])
        .arg(world.path("it.spec")));
    run(Command::new("createrepo_c").arg("--quiet").arg(world.path("extra")));
}

fn replace(world: &World, path: &str, from: &str, to: &str) {
    let old = fs::read_to_string(world.path(path)).unwrap();
    assert!(old.contains(from), "{path}: {from}");
    fs::write(world.path(path), old.replacen(from, to, 1)).unwrap();
}

fn append(world: &World, path: &str, text: &str) {
    fs::write(world.path(path), fs::read_to_string(world.path(path)).unwrap() + text).unwrap();
}

/// The command that a failed build ends with, run by a shell with more arguments.
fn follow(world: &World, error: &str, args: &str) -> Output {
    let command = error.lines().last().unwrap().split_once(": strata ").unwrap().1;
    shell(world, &format!("./strata {command} {args}"), "")
}

fn shell(world: &World, command: &str, input: &str) -> Output {
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).current_dir(world.path(".")).env_clear();
    sh.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", world.path(".")).env("TERM", "dumb");
    let mut child = sh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Where the manifests have the entry that an image remembers: a script by its table and name, others by their line.
fn place(world: &World, origin: &str) -> Value {
    let Some((file, key)) = origin.split_once(".toml ") else { return Value::Null };
    let file = format!("manifests/{file}.toml");
    let text = fs::read_to_string(world.path(&file)).unwrap();
    let first = key.split(' ').next().unwrap();
    let line = text.lines().position(|line| line.starts_with(first)).unwrap() + 1;
    serde_json::json!({"file": file, "line": line})
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Says what it is given, and fails; a second time in the same rootfs it would say `again`.
const FAILING: &str = "%post\necho \"$0 $1 $SOURCE_DATE_EPOCH\"; test ! -e /etc/zoo || echo again\n\
                       echo tried >> /etc/zoo; ls /usr/share/zoo; exit 7\n";

#[test]
fn a_scriptlet_that_failed_is_replayed_in_the_rootfs_it_had() {
    let world = world(FAILING);
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("%post(zoo-1-1.noarch) failed with status 7"), "{error}");
    let said = "/run/strata/script 1 ";
    assert!(error.contains(said) && error.contains("emu\n"), "{error}");
    let first = follow(&world, &error, "--replay");
    assert_eq!(first.status.code(), Some(7), "{}", text(&first));
    let lines = stdout(&first);
    assert!(
        lines.starts_with(said) && lines.ends_with("\nemu\nowl\n") && !lines.contains("again"),
        "{lines}"
    );
    // the build said the same
    assert!(lines.lines().all(|line| error.contains(line)), "{error}");
    let second = follow(&world, &error, "--replay");
    assert_eq!((second.status, stdout(&second)), (first.status, lines.clone()), "{}", text(&second));
    // which one failed is found out
    let third = world.command(&["debug", "demo", "node", "--replay"]).output().unwrap();
    assert_eq!((third.status.code(), stdout(&third)), (Some(7), lines), "{}", text(&third));

    fs::write(world.path("fixed.sh"), "echo fixed; test ! -e /etc/zoo\n").unwrap();
    let fixed = follow(&world, &error, "--replay --script fixed.sh");
    assert_eq!((fixed.status.code(), stdout(&fixed)), (Some(0), "fixed\n".to_owned()), "{}", text(&fixed));
    let none = world.refused(&["debug", "demo", "node", "999"], 1);
    assert!(none.contains("%post(zoo-1-1.noarch) failed"), "{none}");
    let none = world.refused(&["debug", "demo", "coreos", "999"], 1);
    assert!(none.contains("there is no script 999"), "{none}");
    assert_eq!(fs::read_dir(world.path("store/tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.path("store/layers")).unwrap().count(), 2);
}

#[test]
fn a_script_that_failed_is_entered() {
    let world = world("%filetriggerin -- /usr/share/zoo\nread first; echo \"$1 $first\" >&2; exit 5\n");
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("%filetriggerin(zoo-1-1.noarch) failed with status 5"), "{error}");
    let command = error.lines().last().unwrap().split_once(": strata ").unwrap().1;
    let typed = "/run/strata/again; echo ended $?; cat /run/strata/input\n\
                 echo $SOURCE_DATE_EPOCH; tty; ls /usr/share/zoo | cat; exit 3\n";
    let in_terminal =
        format!("script --quiet --return --echo never --command './strata {command}' typescript");
    for (command, tty) in [(format!("./strata {command}"), "not a tty"), (in_terminal, "/dev/")] {
        let entered = shell(&world, &command, typed);
        assert_eq!(entered.status.code(), Some(3), "{}", text(&entered));
        let said = text(&entered).replace('\r', "");
        for expected in ["0 /usr/share/zoo", "ended 5\n/usr/share/zoo", "emu\nowl\n", tty] {
            assert!(said.contains(expected), "{expected:?}: {said}");
        }
    }
    replace(&world, "manifests/demo/node.toml", "\"zoo\", ", "");
    append(
        &world,
        "manifests/demo/coreos.toml",
        "\n[[script]]\nname = \"broken\"\nreason = \"test\"\nbody = \"ls /zoo\"\n",
    );
    world.strata(&["lock", "demo"]);
    let error = world.refused(&["build", "demo"], 1);
    assert!(error.contains("running the script `broken` of manifests/demo/coreos.toml:"), "{error}");
    let replayed = follow(&world, &error, "--replay");
    assert!(!replayed.status.success() && stdout(&replayed).contains("/zoo"), "{}", text(&replayed));
    assert!(error.contains(stdout(&replayed).trim_end()), "{error}");
}

#[test]
fn what_scripts_changed_is_reported_and_remembered() {
    let world = world(
        "%pre\nmkdir /etc/zoo\necho 1 > /etc/zoo/1; echo 2 > /etc/zoo/2\n\
         %post -p /bin/sh\necho hungry; rm /etc/zoo/2; echo 3 > /etc/zoo/3; echo 1 >> /etc/zoo/1\n\
         chmod 600 /usr/share/zoo/owl; echo mine > /etc/zoo-own; mkdir -p /usr/lib/zoo/deep; touch /usr/lib/zoo/deep/x\n",
    );
    let output = world.command(&["-v", "--format", "json", "build", "demo"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scripts = built[2]["scripts"].as_array().unwrap();
    let of = |phase: &str| {
        scripts.iter().find(|s| s["package"] == "zoo-1-1.noarch" && s["phase"] == phase).unwrap()
    };
    let [pre, post] = ["pre", "post"].map(of);
    assert_eq!(pre["created"], serde_json::json!(["/etc/zoo", "/etc/zoo/1", "/etc/zoo/2"]));
    let created = ["/etc/zoo-own", "/etc/zoo/3", "/usr/lib/zoo", "/usr/lib/zoo/deep", "/usr/lib/zoo/deep/x"];
    assert_eq!(post["created"], serde_json::json!(created));
    assert_eq!(post["modified"], serde_json::json!(["/etc/zoo/1", "/usr/share/zoo/owl"]));
    assert_eq!(post["removed"], serde_json::json!(["/etc/zoo/2"]));
    let of_post = ["interpreter", "arguments", "status", "output"].map(|key| &post[key]);
    let expected = [serde_json::json!(["/bin/sh"]), serde_json::json!(["1"]), 0.into(), "hungry\n".into()];
    assert_eq!(of_post, expected.each_ref());
    assert!(post["duration"].as_f64().unwrap() > 0.0);
    let hooks = scripts.iter().find(|s| s["entry"] == "[[script]] container-hooks").unwrap();
    assert_eq!(hooks["created"], serde_json::json!(["/usr/share/containers/oci/hooks.list"]));
    assert_eq!(hooks["origin"]["file"], "manifests/demo/node.toml");
    let numbers: Vec<u64> = scripts.iter().map(|s| s["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=scripts.len() as u64).collect::<Vec<_>>());

    let report = world.command(&["--format", "json", "verify", "demo/node"]).output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let unowned = report["unowned"].as_array().unwrap();
    for (path, origin) in [
        ("/etc/zoo/1", "%pre(zoo)"),
        ("/etc/zoo/3", "%post(zoo)"),
        ("/etc/zoo-own", "%post(zoo)"),
        ("/usr/lib/zoo/deep/x", "%post(zoo)"),
        ("/usr/share/containers/oci/hooks.list", "demo/node.toml [[script]] container-hooks"),
        // of the layer below
        ("/etc/localtime", "demo/coreos.toml [[symlink]] /etc/localtime"),
        ("/usr/libexec/coreos-generate-motd", "demo/coreos.toml overlay"),
    ] {
        let found =
            unowned.iter().find(|u| u["path"] == path).unwrap_or_else(|| panic!("{path}: {unowned:#?}"));
        assert_eq!(found["origin"], origin, "{path}");
        assert_eq!(found["place"], place(&world, origin), "{path}");
    }

    // where the manifests are makes no difference, nor do their lines; what file an entry is in does
    let absolute = world.path("manifests").display().to_string();
    let reused = |args: &[&str]| world.build(args).iter().map(|image| image.reused).collect::<Vec<_>>();
    replace(&world, "manifests/demo/node.toml", "from =", "# a comment\n\nfrom =");
    assert_eq!(reused(&["--manifests", &absolute]), [true, true, true]);
    let node = fs::read_to_string(world.path("manifests/demo/node.toml")).unwrap();
    let (head, script) = node.split_at(node.find("[[script]]").unwrap());
    let (script, tail) = script.split_at(script.find("[image]").unwrap());
    fs::write(world.path("manifests/demo/hooks.toml"), script).unwrap();
    fs::write(world.path("manifests/demo/node.toml"), format!("{head}{tail}")).unwrap();
    replace(
        &world,
        "manifests/demo/node.toml",
        "include = \"openshift-node.toml\"",
        "include = [\"openshift-node.toml\", \"hooks.toml\"]",
    );
    assert_eq!(reused(&[]), [true, true, false]);
}

/// It lists a directory, reads files, and makes some.
const LONG: &str = r#"
[[file]]
path = "/etc/long"
content = "1"

[[script]]
name = "long"
reason = "test"
body = """
mkdir -m 700 /usr/lib/long
cat /etc/long /usr/share/zoo/owl > /usr/lib/long/a
ln /usr/lib/long/a /usr/lib/long/b
chmod 4711 /usr/lib/long/a
chown 1:2 /usr/lib/long
ls /usr/share/zoo
"""
"#;

#[test]
fn a_script_is_spared_on_the_same_files_and_the_image_is_the_same() {
    let world = world("");
    append(&world, "manifests/demo/node.toml", LONG);
    world.strata(&["lock", "demo"]);
    let build = |args: &[&str]| {
        let output =
            world.command(&[args, &["-v", "--format", "json", "build", "demo"]].concat()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let said = String::from_utf8(output.stderr).unwrap();
        let node = serde_json::from_slice::<Value>(&output.stdout).unwrap()[2].take();
        let scripts = node["scripts"].as_array().unwrap();
        let long = scripts.iter().find(|script| script["entry"] == "[[script]] long").unwrap();
        assert_eq!(long["output"], "emu\nowl\n");
        (long["reused"].as_bool().unwrap(), long["created"].clone(), node["digest"].clone(), said)
    };
    let (reused, created, first, said) = build(&[]);
    assert!(!reused, "{said}");
    // a file that it reads, one that it may look for, and documentation that it did not ask for
    for (path, expected) in [("/etc/long", false), ("/etc/motd.d/x", false), ("/usr/share/doc/x", true)] {
        if path == "/etc/long" {
            replace(&world, "manifests/demo/node.toml", "content = \"1\"", "content = \"2\"");
        } else {
            append(
                &world,
                "manifests/demo/node.toml",
                &format!("\n[[file]]\npath = \"{path}\"\ncontent = \"x\"\n"),
            );
        }
        let (reused, again, digest, said) = build(&[]);
        assert_eq!((reused, &again), (expected, &created), "{path}: {said}");
        assert_ne!(digest, first, "{path}");
        if reused {
            let (fresh, _, same, _) = build(&["--store", "another"]);
            assert_eq!((fresh, same), (false, digest), "{path}");
        }
    }
}

#[test]
fn a_scriptlet_is_as_old_as_its_package_and_spared_whatever_else_is_published() {
    let world = world("%post\necho $SOURCE_DATE_EPOCH > /etc/zoo.date\n");
    append(&world, "manifests/demo/node.toml", LONG);
    replace(&world, "manifests/demo/node.toml", "install = [", "install = [\"herd\", ");
    publish(&world, "herd", "1", "");
    world.strata(&["lock", "demo", "--update"]);
    let build = |args: &[&str]| {
        let built = world.strata(&[args, &["--format", "json", "build", "demo"]].concat());
        let node = serde_json::from_str::<Value>(&built).unwrap()[2].take();
        let reused = |key: &str, name: &str| {
            let scripts = node["scripts"].as_array().unwrap();
            scripts.iter().find(|script| script[key] == name).unwrap()["reused"].as_bool().unwrap()
        };
        let spared = (reused("package", "zoo-1-1.noarch"), reused("entry", "[[script]] long"));
        (node["digest"].as_str().unwrap().to_owned(), spared)
    };
    let (first, _) = build(&[]);
    publish(&world, "herd", "2", "");
    let later = ["--quiet", "--revision", "4000000000"];
    run(Command::new("createrepo_c").args(later).arg(world.path("extra")));
    world.strata(&["lock", "demo", "--update"]);
    let (second, spared) = build(&[]);
    // that of the manifest is as old as the layer
    assert_eq!(spared, (true, false));
    assert_ne!(first, second);
    assert_eq!(build(&["--store", "another"]), (second, (false, false)));
    let node = format!("oci:{}:demo/node", world.path("store/images").display());
    let date = fs::read_to_string(unpack(&node, &world.path("node")).join("etc/zoo.date")).unwrap();
    let rpm = world.path("extra/noarch/zoo-1-1.noarch.rpm");
    assert_eq!(date.trim(), run(Command::new("rpm").args(["-qp", "--qf", "%{BUILDTIME}"]).arg(rpm)));
}

/// What packages brought is not read again to find the blobs of an earlier build: but for what scripts changed.
#[test]
fn files_that_scripts_changed_are_packed_as_they_are() {
    let change = |to: u32| {
        format!(
            "%post\ncd /usr/share/zoo\necho {to} > owl\ntouch -d @1700000000 owl\nmv owl o; mv emu owl; mv o emu\n"
        )
    };
    let world = world(&change(1));
    let node = |args: &[&str]| world.build(args)[2].digest.clone();
    let first = node(&[]);
    package(&world, "2", &change(2));
    let second = node(&[]);
    assert_ne!(first, second);
    let skopeo = format!("oci:{}:demo/node", world.path("store/images").display());
    let rootfs = unpack(&skopeo, &world.path("node"));
    let read = |name: &str| fs::read_to_string(rootfs.join("usr/share/zoo").join(name)).unwrap();
    assert_eq!((read("emu"), read("owl")), ("2\n".to_owned(), String::new()));
    assert_eq!(node(&["--store", "another"]), second);
}

#[test]
fn a_build_sums_up_its_scripts_in_words() {
    let world = world("%post\necho hungry\necho thirsty\n");
    let output = world.command(&["build", "demo"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8(output.stderr).unwrap();
    let scripts = |layer: &str| {
        said.lines().find(|line| line.starts_with(&format!("{layer}: ")) && line.contains(" scripts took "))
    };
    assert!(scripts("bootc").is_some() && scripts("node").is_some(), "{said}");
    assert!(said.contains(" %post(zoo-1-1.noarch)\n       | hungry\n       | thirsty\n"), "{said}");
    let quiet = world.command(&["-q", "build", "demo"]).output().unwrap();
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", text(&quiet));
}
