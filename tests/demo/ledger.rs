//! The id ledger: ids that a build gave accounts stay theirs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rpm::{Dependency, FileOptions, PackageBuilder};
use serde_json::Value;

use crate::world::{User, World, copy, run, unpack};

const ARCH: &str = std::env::consts::ARCH;

/// With a version: that of a second build in a store would be another.
const BUILD: [&str; 4] = ["build", "ids", "--version", "9.6.20250203-0"];

/// A stream of two layers, on which accounts are made with the demo's stand-ins of shadow-utils: both take the
/// highest free id.
struct Stream {
    world: World,
}

impl Stream {
    fn new(user: User) -> Self {
        let stream = Self { world: World::new(user) };
        fs::create_dir_all(stream.world.path("manifests/ids")).unwrap();
        stream.write(
            "stream",
            "arches = ['x86_64', 'aarch64']\nlayers = ['base', 'top']\n[os]\nid = 'demo'\nname = 'Demo'\nversion = '9.6'\n\
             [repos.baseos]\nbaseurl = '../../target/demo/2025-02-03/baseos'\ngpgcheck = false\n\
             [repos.extra]\nbaseurl = '../../target/extra'\ngpgcheck = false\n",
        );
        stream
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.world.path(&format!("manifests/ids/{name}.toml")), text).unwrap();
    }

    fn manifest(&self, name: &str) -> String {
        fs::read_to_string(self.world.path(&format!("manifests/ids/{name}.toml"))).unwrap()
    }

    /// Sets the packages of the layers, beyond what makes `useradd` run; locks them.
    fn lock(&self, base: &str, top: &str) {
        // they are not booted, and need no kernel
        let image = "[image]\nlabels = { 'containers.bootc' = '0' }\n";
        let packages = |list: &str| format!("{image}[packages]\ninstall = {:?}\n", words(list));
        self.write("base", &packages(&format!("demo-release busybox shadow-utils glibc {base}")));
        self.write("top", &packages(top));
        self.world.strata(&["lock", "ids"]);
    }

    /// Builds; gives the layers that were not there, with the ids that were added to their lockfiles.
    fn build(&self) -> BTreeMap<String, Vec<String>> {
        let built: Value =
            serde_json::from_str(&self.world.strata(&[&["--format", "json"], &BUILD[..]].concat())).unwrap();
        let id = |id: &Value| {
            assert_eq!(id["from"], Value::Null);
            let number = id["to"].get("uid").and_then(Value::as_u64).or(id["to"]["gid"].as_u64()).unwrap();
            format!("{} {} {number}", id["kind"].as_str().unwrap(), id["name"].as_str().unwrap())
        };
        let new = built.as_array().unwrap().iter().filter(|layer| layer["reused"] == false);
        new.map(|layer| {
            let ids = layer["ids"].as_array().unwrap().iter().map(id).collect();
            (layer["layer"].as_str().unwrap().to_owned(), ids)
        })
        .collect()
    }

    fn lockfile(&self, layer: &str) -> String {
        fs::read_to_string(self.world.path(&lock_path(layer))).unwrap()
    }

    fn edit_lockfile(&self, layer: &str, edit: impl Fn(&str) -> String) {
        let old = self.lockfile(layer);
        let new = edit(&old);
        assert_ne!(old, new);
        fs::write(self.world.path(&lock_path(layer)), new).unwrap();
    }

    /// The ids that the lockfile of a layer keeps: `user alpha 999 999`, `group alpha 999`.
    fn kept(&self, layer: &str) -> Vec<String> {
        let lock: toml::Table = self.lockfile(layer).parse().unwrap();
        let tables = |kind: &str, keys: &[&str]| -> Vec<String> {
            let tables = lock.get(kind).and_then(toml::Value::as_array).into_iter().flatten();
            let field = |table: &toml::Value, key: &str| table[key].to_string().replace('"', "");
            let line = |table| keys.iter().fold(kind.to_owned(), |line, key| line + " " + &field(table, key));
            tables.map(line).collect()
        };
        [tables("user", &["name", "uid", "gid"]), tables("group", &["name", "gid"])].concat()
    }

    /// `UID GID PATH` of what the topmost image has in `/srv` and `/usr/share/made`, by umoci and stat.
    fn owners(&self, name: &str) -> Vec<String> {
        let dir = self.world.path(name);
        let root = unpack(&format!("oci:{}:ids/top", self.world.path("store/images").display()), &dir);
        let listed = run(Command::new("sh")
            .args(["-ec", "stat -c '%u %g %a %n' srv/* usr/share/made/* | sort -k4"])
            .current_dir(&root));
        listed.lines().map(str::to_owned).collect()
    }

    fn accounts(&self, name: &str) -> BTreeMap<String, String> {
        let passwd = fs::read_to_string(self.world.path(name).join("bundle/rootfs/etc/passwd")).unwrap();
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        passwd.lines().map(fields).map(|f| (f[0].clone(), format!("{}:{}", f[2], f[3]))).collect()
    }

    /// Publishes packages in the repository `extra`.
    fn publish(&self, packages: Vec<PackageBuilder>) {
        let dir = self.world.path("target/extra");
        fs::create_dir_all(&dir).unwrap();
        for mut builder in packages {
            let package = builder.build().unwrap();
            package.write_file(dir.join(format!("{}.rpm", package.metadata.get_name().unwrap()))).unwrap();
        }
        run(Command::new("createrepo_c").arg("--quiet").arg(&dir));
    }
}

fn lock_path(layer: &str) -> String {
    format!("lockfiles/ids/{layer}.{ARCH}.toml")
}

fn words(list: &str) -> Vec<&str> {
    list.split_whitespace().collect()
}

fn package(name: &str) -> PackageBuilder {
    let mut builder = PackageBuilder::new(name, "1", "MIT", "noarch", "makes accounts");
    builder.release("1").requires(Dependency::script_pre("shadow-utils"));
    builder
}

/// A package whose %pre makes a user of its name as `useradd` does with these options, and a file of the user's; it
/// ships another, set-uid.
fn with_user(name: &str, options: &str) -> PackageBuilder {
    let mut builder = package(name);
    builder.pre_install_script(format!(
        "useradd -r {options} -d / {name}\nmkdir -p /usr/share/made\necho x > /usr/share/made/{name}\n\
         chown {name}:{name} /usr/share/made/{name}\nchmod 4750 /usr/share/made/{name}\n"
    ));
    let file = FileOptions::new(format!("/srv/{name}")).user(name).group(name).permissions(0o4755);
    builder.with_file_contents("x", file).unwrap();
    builder
}

/// A package that declares accounts, as rpm 4.20 has them in its provides.
fn with_sysusers(name: &str, line: &str) -> PackageBuilder {
    let mut builder = package(name);
    builder.provides(Dependency::eq(format!("user({name})"), STANDARD.encode(line)));
    let file = FileOptions::new(format!("/srv/{name}")).user(name).group(name).permissions(0o4755);
    builder.with_file_contents("x", file).unwrap();
    builder
}

#[test]
fn a_build_writes_the_ids_it_gives_away_and_later_ones_keep_them() {
    let stream = Stream::new(User::Root);
    stream.publish(vec![with_user("mike", ""), with_user("anna", ""), with_sysusers("ben", "u ben -")]);
    stream.lock("mike", "");
    let before = stream.lockfile("base");
    let new = stream.build();
    assert_eq!(new["base"], ["user mike 999", "group mike 999"]);
    assert_eq!(new["top"], Vec::<String>::new());
    // nothing of the lockfile is other than it was, and what is new is at its end
    let after = stream.lockfile("base");
    let ledger =
        "\n[[user]]\nname = \"mike\"\nuid = 999\ngid = 999\n\n[[group]]\nname = \"mike\"\ngid = 999\n";
    assert_eq!(after, before + ledger);
    assert_eq!(stream.build(), BTreeMap::new());
    stream.world.strata(&[&BUILD[..], &["--locked"]].concat());

    // what comes first now gets the next ids
    stream.lock("mike anna ben", "");
    assert_eq!(stream.kept("base"), ["user mike 999 999", "group mike 999"]);
    let new = stream.build();
    assert_eq!(new["base"], ["user anna 998", "user ben 997", "group anna 998", "group ben 997"]);
    let mike = ["999 999 4750 usr/share/made/mike", "999 999 4755 srv/mike"];
    let owners = stream.owners("kept");
    assert!(mike.iter().all(|line| owners.contains(&(*line).to_owned())), "{owners:#?}");
    assert_eq!(stream.accounts("kept")["mike"], "999:999");

    // the same lockfiles give anybody the same image
    let other = Stream::new(User::Ordinary);
    fs::remove_dir_all(other.world.path("manifests/ids")).unwrap();
    for path in ["manifests/ids", "lockfiles", "target/extra"] {
        copy(&stream.world.path(path), &other.world.path(path));
    }
    run(Command::new("chown").args(["-R", "stratatest:"]).arg(other.world.path("lockfiles")));
    assert_eq!(other.build().len(), 2);
    let digests = |world: &World| {
        let shown: Value = serde_json::from_str(&world.strata(&["--format", "json", "images"])).unwrap();
        let named = shown.as_array().unwrap().iter().filter(|image| !image["name"].is_null());
        named
            .map(|image| (image["name"].to_string(), image["digest"].to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(digests(&stream.world), digests(&other.world));
    assert_eq!(stream.lockfile("base"), other.lockfile("base"));

    // without the ledger another would have had mike's
    stream.edit_lockfile("base", without_ledger);
    stream.build();
    assert_eq!(stream.kept("base")[2], "user mike 997 997");
}

fn without_ledger(lock: &str) -> String {
    lock[..lock.find("\n[[user]]").unwrap()].to_owned()
}

#[test]
fn a_lockfile_that_lost_its_ids_gives_the_image_it_gave() {
    let stream = Stream::new(User::Root);
    stream.publish(vec![with_user("mike", "")]);
    stream.lock("mike", "");
    stream.build();
    let complete = stream.lockfile("base");
    stream.edit_lockfile("base", without_ledger);
    assert_eq!(stream.build(), BTreeMap::new());
    assert_eq!(stream.lockfile("base"), complete);
}

#[test]
fn layers_take_no_ids_from_each_other() {
    let stream = Stream::new(User::Root);
    stream.publish(vec![with_user("mike", ""), with_user("anna", ""), with_sysusers("ben", "u ben -")]);
    stream.lock("", "anna");
    assert_eq!(stream.build()["top"], ["user anna 999", "group anna 999"]);
    stream.lock("mike ben", "anna");
    let declared = "[[user]]\nname = 'svc'\n[[group]]\nname = 'crew'\n";
    let top = stream.manifest("top");
    stream.write("top", &format!("{top}{declared}"));
    let new = stream.build();
    assert_eq!(new["base"], ["user ben 998", "user mike 997", "group ben 998", "group mike 997"]);
    assert_eq!(new["top"], ["user svc 995", "group crew 996", "group svc 995"]);
    assert_eq!(stream.kept("top")[0], "user anna 999 999");

    // one that moves to another layer takes its id with it
    stream.write("top", &top);
    let base = stream.manifest("base");
    stream.write("base", &format!("{base}{declared}"));
    let new = stream.build();
    assert_eq!(new["base"], ["user svc 995", "group crew 996", "group svc 995"]);
    let owners = stream.owners("moved");
    assert!(owners.contains(&"999 999 4755 srv/anna".to_owned()), "{owners:#?}");
}

#[test]
fn the_id_of_a_package_that_left_stays_reserved() {
    let stream = Stream::new(User::Root);
    stream.publish(vec![with_user("mike", ""), with_user("anna", ""), with_sysusers("ben", "u ben 999")]);
    stream.lock("mike", "");
    stream.build();
    stream.lock("", "");
    let check = stream.world.strata(&["lock", "ids", "--check"]);
    assert!(check.contains("kept"), "{check}");
    assert_eq!(stream.build()["base"], Vec::<String>::new());
    stream.world.strata(&["lock", "ids", "--update"]);
    stream.lock("anna ben", "");
    let new = stream.build();
    assert_eq!(new["base"], ["user anna 998", "user ben 997", "group anna 998", "group ben 997"]);
    assert_eq!(stream.kept("base").len(), 6);
    stream.lock("mike anna ben", "");
    assert_eq!(stream.build()["base"], Vec::<String>::new());
    assert!(stream.owners("back").contains(&"999 999 4750 usr/share/made/mike".to_owned()));
}

#[test]
fn a_locked_build_adds_no_ids() {
    let stream = Stream::new(User::Root);
    stream.publish(vec![with_user("mike", "")]);
    stream.lock("mike", "");
    let before = stream.lockfile("base");
    let error = stream.world.refused(&["build", "ids", "--locked"], 1);
    for part in [&lock_path("base"), "user mike 999:999, group mike 999", "build without --locked"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(stream.lockfile("base"), before);
    for dir in ["store/layers", "store/tmp", "store/images/blobs/sha256"] {
        let left = fs::read_dir(stream.world.path(dir)).into_iter().flatten().count();
        assert_eq!(left, 0, "{dir}");
    }
}

#[test]
fn an_id_that_moved_is_refused() {
    let stream = Stream::new(User::Root);
    let mut other = with_user("mike", "-u 701");
    other.release("2");
    stream.publish(vec![with_user("mike", "-u 700"), with_user("zoe", "-u 700")]);
    stream.lock("mike", "");
    assert_eq!(stream.build()["base"], ["user mike 700", "group mike 700"]);
    let mine = stream.lockfile("base");
    let refused = |parts: &[&str]| {
        let before = stream.lockfile("base");
        let error = stream.world.refused(&["build", "ids"], 1);
        parts.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
        assert_eq!(stream.lockfile("base"), before);
    };

    stream.lock("zoe", "");
    refused(&[
        "the user zoe of zoe has 700:700",
        &lock_path("base"),
        "keeps that for mike",
        "delete its entry",
    ]);
    let user = ("[[user]]\nname = \"mike\"\nuid = 700\ngid = 700\n\n", "");
    stream.edit_lockfile("base", |text| text.replace(user.0, user.1).replace("gid = 700", "gid = 702"));
    stream.build();

    stream.edit_lockfile("base", |_| mine.clone());
    stream.publish(vec![other]);
    stream.lock("mike", "");
    stream.world.strata(&["lock", "ids", "--update"]);
    refused(&["the user mike of mike has 701:701", "keeps 700:700 for it"]);
    stream.edit_lockfile("base", without_ledger);
    assert_eq!(stream.build()["base"], ["user mike 701", "group mike 701"]);

    // in a file of accounts
    stream.edit_lockfile("base", |text| {
        text.replace("name = \"mike\"\nuid = 701", "name = \"daemon\"\nuid = 701")
    });
    refused(&["the user daemon of setup has 2:2", "keeps 701:701 for it"]);
    // between the layers
    let lock = stream.lockfile("base");
    let ledger = lock[lock.find("\n[[user]]").unwrap()..].replace("701", "703");
    stream.edit_lockfile("top", |text| text.to_owned() + &ledger);
    refused(&["the lock of ids/top keeps 703:703 for the user daemon", "a layer below keeps 701:701 for it"]);
}

#[test]
fn a_manifest_may_not_move_an_id() {
    let stream = Stream::new(User::Root);
    stream.publish(Vec::new());
    stream.lock("", "");
    let base = stream.manifest("base");
    stream.write("base", &format!("{base}[[user]]\nname = 'svc'\nuid = 700\n"));
    stream.build();
    stream.write("base", &format!("{base}[[user]]\nname = 'svc'\nuid = 701\n"));
    let error = stream.world.refused(&["build", "ids"], 1);
    for part in ["`svc` of manifests/ids/base.toml:", "keeps the uid 700 for it, the manifest wants 701"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let script = "[[script]]\nname = 'x'\nreason = 'x'\nbody = 'useradd -r -d / svc'\n";
    stream.write("base", &format!("{base}{script}"));
    let error = stream.world.refused(&["build", "ids"], 1);
    assert!(error.contains("the user svc of the manifest has 999:999"), "{error}");
}

#[test]
fn a_diff_of_lockfiles_tells_of_ids() {
    let stream = Stream::new(User::Root);
    stream.publish(vec![with_user("mike", ""), with_user("anna", "")]);
    stream.lock("mike", "");
    stream.build();
    copy(&stream.world.path("lockfiles"), &stream.world.path("before"));
    stream.lock("anna", "");
    stream.edit_lockfile("base", |text| {
        text.replace("\n[[group]]\nname = \"mike\"\ngid = 999\n", "").replace("id = 999", "id = 990")
    });
    stream.build();
    let (from, to) = (format!("before/ids/top.{ARCH}.toml"), lock_path("top"));
    let text = stream.world.strata(&["diff", &from, &to]);
    for line in [
        "  user anna   999:999, new",
        "  user mike   999:999 → 990:990",
        "  group anna  999, new",
        "  group mike  999, gone",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.ends_with("1 added, 1 removed, 4 ids changed\n"), "{text}");
    let json: Value =
        serde_json::from_str(&stream.world.strata(&["--format", "json", "diff", &from, &to])).unwrap();
    let moved = serde_json::json!({
        "kind": "user", "name": "mike", "from": {"uid": 999, "gid": 999}, "to": {"uid": 990, "gid": 990}
    });
    assert_eq!(json["ids"][1], moved);
}
