//! `strata diff`, from every source: what rpm and umoci made is compared, not what strata made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::Digest as _;
use tempfile::TempDir;

/// A scratch directory, the current one of all commands.
struct Scratch {
    dir: TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn output(&self, args: &[&str]) -> Output {
        let store = self.dir.path().join("store");
        let mut strata = Command::new(env!("CARGO_BIN_EXE_strata"));
        strata.current_dir(&self.dir).arg("--store").arg(store).args(args).output().unwrap()
    }

    /// Standard output of a `strata` that succeeds.
    fn strata(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a `strata` that fails.
    fn failure(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program).current_dir(&self.dir).args(args).output();
        let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// An image of one layer, `oci:layout:TAG`, with this file in it.
    fn image(&self, tag: &str, file: &Path, target: &str) {
        if !self.dir.path().join("layout").exists() {
            self.run("umoci", &["init", "--layout", "layout"]);
        }
        let image = format!("layout:{tag}");
        self.run("umoci", &["new", "--image", &image]);
        self.insert(tag, &[file.to_str().unwrap(), target]);
    }

    /// Adds a layer to an image.
    fn insert(&self, tag: &str, args: &[&str]) {
        let image = format!("layout:{tag}");
        self.run("umoci", &[&["insert", "--rootless", "--image", &image], args].concat());
    }

    /// rpm's database of empty packages, `NAME EVR` each.
    fn rpmdb(&self, name: &str, packages: &[(&str, &str)]) -> PathBuf {
        let db = self.dir.path().join(name);
        let alien: &[&str] =
            if Path::new("/etc/debian_version").exists() { &["--force-debian"] } else { &[] };
        for (package, evr) in packages {
            let (version, release) = evr.split_once('-').unwrap();
            let rpm = self.dir.path().join(format!("{package}-{evr}.noarch.rpm"));
            let built =
                rpm::PackageBuilder::new(package, version, "MIT", "noarch", "empty").release(release).build();
            built.unwrap().write_file(&rpm).unwrap();
            let args =
                ["--dbpath", db.to_str().unwrap(), "-i", "--justdb", "--force", "--nodeps", "--nosignature"];
            self.run("rpm", &[&args, alien, &[rpm.to_str().unwrap()]].concat());
        }
        db.join("rpmdb.sqlite")
    }
}

const OLD_LIST: &str = r#"{"rpmdb.pkglist": [
    ["bash", "0", "5.1", "9.el9", "x86_64"], ["glibc", "0", "2.34", "1.el9", "i686"],
    ["glibc", "0", "2.34", "1.el9", "x86_64"], ["kernel", "0", "5.14.0", "1.el9", "x86_64"],
    ["kernel", "0", "5.14.0", "2.el9", "x86_64"], ["podman", "2", "4.9", "1.el9", "x86_64"],
    ["zlib", "0", "1.2", "1.el9", "x86_64"]]}"#;

const NEW_LIST: &str = r#"{"rpmdb.pkglist": [
    ["bash", "0", "5.2", "1.el9", "x86_64"], ["glibc", "0", "2.34", "1.el9", "i686"],
    ["glibc", "0", "2.34", "2.el9", "x86_64"], ["kernel", "0", "5.14.0", "2.el9", "x86_64"],
    ["kernel", "0", "5.14.0", "3.el9", "x86_64"], ["podman", "0", "5.0", "1.el9", "x86_64"],
    ["xz", "0", "5.2", "1.el9", "x86_64"]],
    "strata.packages": {"bash-5.2-1.el9.x86_64": {"layer": "node", "replaces": "5.1-9.el9"},
    "xz-5.2-1.el9.x86_64": {"layer": "coreos"}}}"#;

#[test]
fn package_lists_as_text() {
    let scratch = Scratch::new();
    scratch.write("old.json", OLD_LIST);
    scratch.write("new.json", NEW_LIST);
    let text = scratch.strata(&["diff", "old.json", "new.json"]);
    insta::assert_snapshot!(text, @r#"
    Upgraded:
      bash.x86_64    5.1-9.el9 → 5.2-1.el9        node
      glibc.x86_64   2.34-1.el9 → 2.34-2.el9
      kernel.x86_64  5.14.0-1.el9 → 5.14.0-3.el9

    Downgraded:
      podman.x86_64  2:4.9-1.el9 → 5.0-1.el9

    Added:
      xz.x86_64  5.2-1.el9  coreos

    Removed:
      zlib.x86_64  1.2-1.el9

    Fast-tracked:
      bash.x86_64  5.2-1.el9 instead of 5.1-9.el9  node

    3 upgraded, 1 downgraded, 1 added, 1 removed
    "#);
    assert_eq!(scratch.strata(&["diff", "new.json", "new.json"]).lines().last(), Some("no package differs"));
}

#[test]
fn package_lists_as_json() {
    let scratch = Scratch::new();
    scratch.write("old.json", OLD_LIST);
    scratch.write("new.json", NEW_LIST);
    let json = scratch.strata(&["diff", "--format", "json", "old.json", "new.json"]);
    insta::assert_snapshot!(json, @r#"
    {
      "from": "old.json",
      "to": "new.json",
      "added": [
        {
          "name": "xz",
          "arch": "x86_64",
          "evr": "5.2-1.el9",
          "layer": "coreos"
        }
      ],
      "removed": [
        {
          "name": "zlib",
          "arch": "x86_64",
          "evr": "1.2-1.el9",
          "layer": null
        }
      ],
      "upgraded": [
        {
          "name": "bash",
          "arch": "x86_64",
          "from": "5.1-9.el9",
          "to": "5.2-1.el9",
          "layer": "node"
        },
        {
          "name": "glibc",
          "arch": "x86_64",
          "from": "2.34-1.el9",
          "to": "2.34-2.el9",
          "layer": null
        },
        {
          "name": "kernel",
          "arch": "x86_64",
          "from": "5.14.0-1.el9",
          "to": "5.14.0-3.el9",
          "layer": null
        }
      ],
      "downgraded": [
        {
          "name": "podman",
          "arch": "x86_64",
          "from": "2:4.9-1.el9",
          "to": "5.0-1.el9",
          "layer": null
        }
      ],
      "fast-tracks": [
        {
          "name": "bash",
          "arch": "x86_64",
          "evr": "5.2-1.el9",
          "replaces": "5.1-9.el9",
          "layer": "node"
        }
      ],
      "ids": []
    }
    "#);
}

#[test]
fn package_lists_as_markdown() {
    let scratch = Scratch::new();
    scratch.write("old.json", OLD_LIST);
    scratch.write("new.json", NEW_LIST);
    let markdown = scratch.strata(&["diff", "--format", "markdown", "old.json", "new.json"]);
    assert!(markdown.contains("\n| bash.x86_64 | 5.1-9.el9 → 5.2-1.el9 | node |\n"), "{markdown}");
}

#[test]
fn package_lists_as_a_page() {
    let scratch = Scratch::new();
    scratch.write("old<1>.json", OLD_LIST);
    scratch.write("new.json", NEW_LIST);
    let html = scratch.strata(&["diff", "--format", "html", "old<1>.json", "new.json"]);
    let page = scratch.write("page.html", &html);
    let text = scratch.run("python3", &["-c", READ_PAGE, page.to_str().unwrap()]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "title: old<1>.json → new.json");
    for expected in ["h2: Upgraded", "td: bash.x86_64", "td: 5.1-9.el9 → 5.2-1.el9", "td: node"] {
        assert!(lines.contains(&expected), "{expected}: {text}");
    }
}

/// Prints every text of a page after the element it is in.
const READ_PAGE: &str = "
import html.parser, sys
class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, _): self.tag = tag
    def handle_data(self, data):
        if data.strip(): print(f'{self.tag}: {data.strip()}')
Reader().feed(open(sys.argv[1]).read())
";

fn lockfile(layer: &str, parent: Option<&str>, packages: &[&str]) -> String {
    let digest = format!("sha256:{}", "0".repeat(64));
    let parent = parent.map(|p| format!("parent = \"{p}\"\n")).unwrap_or_default();
    let mut text = format!(
        "version = 1\nstream = \"demo\"\nlayer = \"{layer}\"\narch = \"x86_64\"\nmanifest = \"{digest}\"\n{parent}"
    );
    for package in packages {
        text += &format!("\n[[package]]\nwhy = \"requested\"\narch = \"x86_64\"\n{package}\n");
    }
    text
}

/// A package table; the file's digest is that of the EVR.
fn package(name: &str, evr: &str, action: &str) -> String {
    let file = format!("repo = \"ose\"\nlocation = \"{name}.rpm\"\nsize = 1\nsource = \"{name}.src.rpm\"");
    let mut text = format!("name = \"{name}\"\nevr = \"{evr}\"\n{action}");
    if !action.contains("remove") {
        text += &format!("\n{file}\nsha256 = \"{}\"", sha256(evr));
    }
    text
}

fn sha256(text: &str) -> String {
    hex::encode(sha2::Sha256::digest(text))
}

#[test]
fn lockfiles_with_the_layers_below() {
    let scratch = Scratch::new();
    let install = "action = \"install\"";
    let [bash, gone] = [package("bash", "5.1-1", install), package("gone", "1-1", install)];
    let [bash_digest, gone_digest] = [sha256("5.1-1"), sha256("1-1")];
    let list = format!(
        "[[\"bash-5.1-1.x86_64\",\"sha256:{bash_digest}\"],[\"gone-1-1.x86_64\",\"sha256:{gone_digest}\"]]"
    );
    let below = format!("sha256:{}", sha256(&list));
    for dir in ["old", "new"] {
        scratch.write(&format!("{dir}/bootc.x86_64.toml"), &lockfile("bootc", None, &[&bash, &gone]));
        scratch.write(&format!("{dir}/bootc.s390x.toml"), "another architecture's");
    }
    let crio = |evr: &str| package("cri-o", evr, install);
    scratch.write("old/node.x86_64.toml", &lockfile("node", Some(&below), &[&crio("1.32-1")]));
    let upgrade = package("bash", "5.1-2", "action = \"upgrade\"\nreplaces = \"5.1-1\"");
    let removal = package("gone", "1-1", "action = \"remove\"");
    let packages = [upgrade.as_str(), &crio("1.32-2"), &removal];
    let new = scratch.write("new/node.x86_64.toml", &lockfile("node", Some(&below), &packages));

    let text = scratch.strata(&["diff", "old/node.x86_64.toml", "new/node.x86_64.toml"]);
    insta::assert_snapshot!(text, @r#"
    Upgraded:
      bash.x86_64   5.1-1 → 5.1-2    node
      cri-o.x86_64  1.32-1 → 1.32-2  node

    Removed:
      gone.x86_64  1-1  bootc

    Fast-tracked:
      bash.x86_64  5.1-2 instead of 5.1-1  node

    2 upgraded, 1 removed
    "#);

    // without the layers below only the layers themselves can be told
    fs::create_dir(scratch.dir.path().join("alone")).unwrap();
    fs::copy(&new, scratch.dir.path().join("alone/node.x86_64.toml")).unwrap();
    let output = scratch.output(&["diff", "old/node.x86_64.toml", "alone/node.x86_64.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("only the lockfiles' own layers are compared"));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    Upgraded:
      cri-o.x86_64  1.32-1 → 1.32-2  node

    Added:
      bash.x86_64  5.1-2  node

    Fast-tracked:
      bash.x86_64  5.1-2 instead of 5.1-1  node

    1 upgraded, 1 added
    "#);
    scratch.write("list.json", OLD_LIST);
    let error = scratch.failure(&["diff", "alone/node.x86_64.toml", "list.json"]);
    assert!(error.contains("put the lockfiles of the layers below"), "{error}");
}

#[test]
fn a_layer_that_replaces_what_is_not_there_is_refused() {
    let scratch = Scratch::new();
    scratch.write("bootc.x86_64.toml", &lockfile("bootc", None, &[]));
    let removal = package("gone", "1-1", "action = \"remove\"");
    let below = format!("sha256:{}", sha256("[]"));
    scratch.write("node.x86_64.toml", &lockfile("node", Some(&below), &[&removal]));
    let error = scratch.failure(&["diff", "node.x86_64.toml", "bootc.x86_64.toml"]);
    assert!(error.contains("gone is to go away, but the layers below do not have gone-1-1"), "{error}");
}

#[test]
fn rpmdbs() {
    let scratch = Scratch::new();
    let old = scratch.rpmdb("old", &[("alpha", "1-1"), ("beta", "1-1"), ("multi", "1-1")]);
    let new = scratch.rpmdb("new", &[("alpha", "1-2"), ("gamma", "1-1"), ("multi", "1-1"), ("multi", "2-1")]);
    let text = scratch.strata(&["diff", old.to_str().unwrap(), new.to_str().unwrap()]);
    insta::assert_snapshot!(text, @r#"
    Upgraded:
      alpha.noarch  1-1 → 1-2

    Added:
      gamma.noarch  1-1
      multi.noarch  2-1

    Removed:
      beta.noarch  1-1

    1 upgraded, 2 added, 1 removed
    "#);
}

#[test]
fn images_with_a_package_list() {
    let scratch = Scratch::new();
    let label = "io.openshift.metalayer=true";
    for (tag, list) in [("old", OLD_LIST), ("new", NEW_LIST)] {
        let file = scratch.write("meta.json", list);
        scratch.image(tag, &file, "/usr/share/openshift/base/meta.json");
        scratch.run("umoci", &["config", "--image", &format!("layout:{tag}"), "--config.label", label]);
    }
    scratch.write("old.json", OLD_LIST);
    scratch.write("new.json", NEW_LIST);
    let expected = scratch.strata(&["diff", "old.json", "new.json"]);
    assert_eq!(scratch.strata(&["diff", "oci:layout:old", "oci:layout:new"]), expected);
    assert_eq!(scratch.strata(&["diff", "old.json", "oci:layout:new"]), expected);

    fs::create_dir_all(scratch.dir.path().join("store")).unwrap();
    scratch.run("skopeo", &["copy", "-q", "oci:layout:old", "oci:store/images:demo/node"]);
    assert_eq!(scratch.strata(&["diff", "demo/node", "oci:layout:new"]), expected);
}

/// A derived image inherits the label, but its last layer is another: its rpmdb is what counts.
#[test]
fn images_with_an_rpmdb() {
    let scratch = Scratch::new();
    let old = scratch.rpmdb("old", &[("alpha", "1-1")]);
    let new = scratch.rpmdb("new", &[("alpha", "1-2")]);
    let stale = scratch.write("meta.json", OLD_LIST);
    let place = "/usr/share/rpm/rpmdb.sqlite";
    scratch.image("custom", &stale, "/usr/share/openshift/base/meta.json");
    scratch.run(
        "umoci",
        &["config", "--image", "layout:custom", "--config.label", "io.openshift.metalayer=true"],
    );
    scratch.insert("custom", &[old.to_str().unwrap(), place]);
    scratch.insert("custom", &[new.to_str().unwrap(), place]);
    let upgraded = "Upgraded:\n  alpha.noarch  1-1 → 1-2\n\n1 upgraded\n";
    assert_eq!(scratch.strata(&["diff", old.to_str().unwrap(), "oci:layout:custom"]), upgraded);

    // moved from /usr/share/rpm, whose database is whited out
    scratch.insert("custom", &["--whiteout", "/usr/share/rpm"]);
    let error = scratch.failure(&["diff", "oci:layout:custom", "oci:layout:custom"]);
    assert!(error.contains("the image has no rpmdb"), "{error}");
    scratch.insert("custom", &[old.to_str().unwrap(), "/usr/lib/sysimage/rpm/rpmdb.sqlite"]);
    let differs = scratch.strata(&["diff", old.to_str().unwrap(), "oci:layout:custom"]);
    assert_eq!(differs, "no package differs\n");
}

/// Images of SUSE and of EL8, and the same unpacked; what there is to compare with is SQLite's.
#[test]
fn images_and_trees_with_databases_of_other_formats() {
    let scratch = Scratch::new();
    let newer = scratch.rpmdb("newer", &[("many", "2-1")]);
    let newer = newer.to_str().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rpmdb");
    let packages = fs::read_to_string(data.join("packages.txt")).unwrap();
    for (tag, file, place) in [
        ("suse", "Packages.db", "/usr/lib/sysimage/rpm/Packages.db"),
        ("el8", "Packages.little-endian-4096", "/var/lib/rpm/Packages"),
        ("base", "Packages.big-endian-512", "/usr/lib/sysimage/rpm-ostree-base-db/Packages"),
    ] {
        scratch.image(tag, &data.join(file), place);
        let image = format!("oci:layout:{tag}");
        let text = scratch.strata(&["diff", &image, newer]);
        assert!(text.starts_with("Upgraded:\n  many.noarch  1-1 → 2-1\n"), "{text}");
        assert!(text.ends_with("1 upgraded, 5 removed\n"), "{text}");

        let shown = scratch.strata(&["show", &image, "--packages"]);
        let names = packages.lines().map(|line| line.split(' ').nth(1).unwrap());
        for name in names.filter(|name| *name != "gpg-pubkey") {
            assert!(shown.contains(&format!("{name}-")), "{name} in {shown}");
        }

        scratch.run("umoci", &["unpack", "--rootless", "--image", &format!("layout:{tag}"), tag]);
        let rootfs = format!("{tag}/rootfs");
        assert_eq!(scratch.strata(&["diff", &image, &rootfs]), "no package differs\n");
        for subject in [&image, &rootfs] {
            let output = scratch.output(&["verify", subject]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                text.contains("many-1-1.noarch\n  missing      /usr/share/many: is not there\n"),
                "{text}"
            );
            assert_eq!(output.status.code(), Some(3), "{text}");
        }
    }
    fs::create_dir(scratch.dir.path().join("empty")).unwrap();
    let error = scratch.failure(&["diff", "empty", newer]);
    assert!(
        error.contains("there is no rpmdb below empty")
            && error.contains("usr/share/rpm or usr/lib/sysimage/rpm"),
        "{error}"
    );
}

#[test]
fn a_damaged_image_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.write("meta.json", OLD_LIST);
    scratch.image("old", &file, "/usr/share/openshift/base/meta.json");
    scratch
        .run("umoci", &["config", "--image", "layout:old", "--config.label", "io.openshift.metalayer=true"]);
    let blobs = scratch.dir.path().join("layout/blobs/sha256");
    let layer = fs::read_dir(blobs)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| fs::read(p).unwrap().starts_with(&[0x1f, 0x8b]));
    let layer = layer.unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&layer, bytes).unwrap();
    let error = scratch.failure(&["diff", "oci:layout:old", "oci:layout:old"]);
    assert!(error.contains("the blob is damaged"), "{error}");
}

#[test]
fn what_is_nothing_is_refused() {
    let error = Scratch::new().failure(&["diff", "no such file", "demo/node"]);
    assert!(error.contains("there is no such file or directory, and it names no image"), "{error}");
    assert!(error.contains("hint: name a lockfile"), "{error}");
}
