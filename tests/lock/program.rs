//! `strata lock` as it is run, on repositories made by createrepo_c.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use strata::lock::Lockfile;
use tempfile::TempDir;

use crate::package::build;

/// A stream of one layer and a repository for each architecture.
struct Stream {
    dir: TempDir,
}

impl Stream {
    fn new(arches: &[&str], extra: &str, install: &[&str]) -> Self {
        let stream = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(stream.path("manifests/s")).unwrap();
        let text = format!(
            "arches = {arches:?}\nlayers = ['base']\n{extra}\n\
             [os]\nid = 'rhel'\nname = 'RHEL'\nversion = '9.6'\n\
             [repos.os]\nbaseurl = '../../os/$basearch'\ngpgcheck = false\n"
        );
        fs::write(stream.path("manifests/s/stream.toml"), text).unwrap();
        fs::write(stream.path("manifests/s/base.toml"), format!("[packages]\ninstall = {install:?}\n"))
            .unwrap();
        arches.iter().for_each(|arch| fs::create_dir_all(stream.repo(arch)).unwrap());
        stream
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn repo(&self, arch: &str) -> PathBuf {
        self.path("os").join(arch)
    }

    /// Adds packages, `NAME EVR; ...` of that architecture or `NAME EVR noarch; ...`, to a repository.
    fn offer(&self, arch: &str, packages: &[&str]) {
        let repo = self.repo(arch);
        for text in packages {
            let (identity, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
            let arch = if identity.ends_with(" noarch") { String::new() } else { format!(" {arch}") };
            build(&repo, &format!("{identity}{arch}{rest}"));
        }
        run(Command::new("createrepo_c").args(["-q", "--general-compress-type=gz"]).arg(&repo));
    }

    fn strata(&self, args: &[&str]) -> Output {
        self.run(&[&["lock", "s"], args].concat())
    }

    /// Runs any command of strata.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(args)
            .current_dir(self.dir.path())
            .env("STRATA_STORE", self.path("store"))
            .output()
            .unwrap()
    }

    fn lock(&self, args: &[&str]) -> String {
        let output = self.strata(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn lockfile(&self, arch: &str) -> PathBuf {
        self.path(&format!("lockfiles/s/base.{arch}.toml"))
    }

    /// The NEVRAs of a lock.
    fn locked(&self, arch: &str) -> BTreeSet<String> {
        let text = fs::read_to_string(self.lockfile(arch)).unwrap();
        let lock = Lockfile::parse(&text, Path::new("lock")).unwrap();
        lock.packages.iter().map(|package| package.nevra().to_string()).collect()
    }
}

fn set(nevras: &[&str]) -> BTreeSet<String> {
    nevras.iter().map(|nevra| (*nevra).to_owned()).collect()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}");
}

/// Builds version and release 1 of the source package `app`, which has `app` and `app-libs`, for an architecture.
fn rpmbuild(dir: &Path, arch: &str, version: u32, requires: &str) {
    let work = tempfile::tempdir().unwrap();
    let spec = work.path().join("app.spec");
    let text = format!(
        "Name: app\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: MIT\nRequires: app-libs = {version}{requires}\n\
         %description\nx\n%package libs\nSummary: x\n%description libs\nx\n%files\n%files libs\n"
    );
    fs::write(&spec, text).unwrap();
    let define = |name: &str, value: &Path| format!("{name} {}", value.display());
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--quiet", "--target", arch]).arg("-D").arg(define("_topdir", work.path()));
    rpmbuild
        .arg("-D")
        .arg(define("_rpmdir", dir))
        .args(["-D", "_rpmfilename %%{NAME}-%%{VERSION}.%%{ARCH}.rpm"]);
    run(rpmbuild.arg(&spec));
}

#[test]
fn four_architectures_wait_for_the_one_that_lags() {
    let arches = ["aarch64", "ppc64le", "s390x", "x86_64"];
    let stream = Stream::new(&arches, "same-evr = true", &["app"]);
    for arch in arches {
        rpmbuild(&stream.repo(arch), arch, 1, "");
        if arch != "s390x" {
            rpmbuild(&stream.repo(arch), arch, 2, ", data");
        }
        stream.offer(arch, &["data 7-1 noarch"]);
    }
    stream.lock(&[]);
    for arch in arches {
        assert_eq!(stream.locked(arch), set(&[&format!("app-1-1.{arch}"), &format!("app-libs-1-1.{arch}")]));
    }
    stream.lock(&["--check"]);
    // as a merge may mix them
    let old = fs::read(stream.lockfile("s390x")).unwrap();
    rpmbuild(&stream.repo("s390x"), "s390x", 2, ", data");
    stream.offer("s390x", &[]);
    let told = stream.lock(&["--update"]);
    let change = "  + data-7-1.noarch\n  ~ app.s390x 1-1 -> 2-1\n  ~ app-libs.s390x 1-1 -> 2-1\n";
    assert!(told.contains(change), "{told}");
    fs::write(stream.lockfile("s390x"), old).unwrap();
    let check = stream.strata(&["--check"]);
    assert_eq!(check.status.code(), Some(3));
    let told = String::from_utf8(check.stdout).unwrap();
    assert!(told.contains("the architectures have different builds of app"), "{told}");
    let refused = stream.strata(&["--arch", "s390x"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn a_lock_killed_while_it_writes_leaves_the_old_set() {
    let arches = ["aarch64", "x86_64"];
    let stream = Stream::new(&arches, "", &["app*"]);
    let names: Vec<String> = (0..60).map(|n| format!("app{n} 1-1")).collect();
    for arch in arches {
        stream.offer(arch, &names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    stream.lock(&[]);
    let all = || arches.map(|arch| fs::read(stream.lockfile(arch)).unwrap());
    let old = all();
    // what has to be fetched is there, and the lockfiles are the only large files that are written
    arches.iter().for_each(|arch| stream.offer(arch, &["app0 2-1"]));
    stream.strata(&["--update", "--check"]);
    assert!(old[0].len() > 12 << 10);
    let mut limited = Command::new("prlimit");
    limited.args(["--fsize=12288", env!("CARGO_BIN_EXE_strata"), "lock", "s", "--update"]);
    let killed =
        limited.current_dir(stream.dir.path()).env("STRATA_STORE", stream.path("store")).output().unwrap();
    assert!(!killed.status.success());
    assert!(old == all(), "an interrupted lock changed a lockfile");
    stream.lock(&["--update"]);
    assert!(arches.iter().all(|arch| stream.locked(arch).contains(&format!("app0-2-1.{arch}"))));
    assert_eq!(fs::read_dir(stream.path("lockfiles/s")).unwrap().count(), 2);
}

const UPDATEINFO: &str = "<updates>
<update from='x' status='final' type='security' version='1'><id>SA-1</id><title>lib</title>
<issued date='2025-02-10 00:00:00'/><severity>Important</severity>
<references><reference href='h' id='CVE-2025-1' type='cve'/></references>
<pkglist><collection short='c'><name>c</name><package name='lib' version='2' release='1' epoch='0' arch='x86_64'
src='lib-2-1.src.rpm'><filename>lib-2-1.x86_64.rpm</filename></package></collection></pkglist></update>
<update from='x' status='final' type='bugfix' version='1'><id>BA-1</id><title>tool</title>
<issued date='2025-02-10 00:00:00'/>
<pkglist><collection short='c'><name>c</name><package name='tool' version='2' release='1' epoch='0' arch='x86_64'
src='tool-2-1.src.rpm'><filename>tool-2-1.x86_64.rpm</filename></package></collection></pkglist></update>
</updates>";

/// NEVRAs that dnf would put in and take away.
#[derive(Deserialize)]
struct Change {
    install: BTreeSet<String>,
    remove: BTreeSet<String>,
}

/// dnf's answer to one request (`tests/ask-dnf.py`) over a repository, with the packages in these files installed.
fn dnf(repo: &Path, installed: &[PathBuf], request: &Value) -> Change {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".rpmmacros"), "%_dbpath /db\n").unwrap();
    let repo = json!({
        "id": "os", "baseurl": [format!("file://{}", repo.display())], "priority": 99, "cost": 1000,
        "includepkgs": [], "excludepkgs": [], "module_hotfixes": false,
    });
    let task = json!({
        "root": root.path(), "arch": "x86_64", "modular": request.get("modules").is_some(),
        "repos": [repo], "installed": installed, "requests": [request],
    });
    // the system's python has dnf's modules, another one on PATH may not
    let mut dnf = Command::new("/usr/bin/python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ask-dnf.py"))
        .env("HOME", root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 with dnf's modules is needed (package python3-dnf)");
    dnf.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = dnf.wait_with_output().unwrap();
    assert!(output.status.success(), "asking dnf failed: is python3-dnf installed?");
    let [answer]: [Option<Change>; 1] = serde_json::from_slice(&output.stdout).unwrap();
    answer.expect("dnf finds a solution")
}

#[test]
fn security_only_is_dnfs() {
    let stream = Stream::new(&["x86_64"], "", &["app"]);
    let repo = stream.repo("x86_64");
    stream.offer("x86_64", &["app 1-1; needs lib, tool", "lib 1-1; needs dep = 1-1", "dep 1-1", "tool 1-1"]);
    stream.lock(&[]);
    let before = stream.locked("x86_64");
    let installed: Vec<PathBuf> = fs::read_dir(&repo).unwrap().map(|entry| entry.unwrap().path()).collect();
    let installed: Vec<PathBuf> =
        installed.into_iter().filter(|p| p.extension().is_some_and(|e| e == "rpm")).collect();
    stream.offer("x86_64", &["app 2-1; needs lib, tool", "lib 2-1; needs dep = 2-1", "dep 2-1", "tool 2-1"]);
    let dnfs = |how: &str| {
        fs::write(stream.path("updateinfo.xml"), UPDATEINFO).unwrap();
        run(Command::new("modifyrepo_c").arg(stream.path("updateinfo.xml")).arg(repo.join("repodata")));
        let answer = dnf(&repo, &installed, &json!({ "security": how }));
        &(&before - &answer.remove) | &answer.install
    };
    let expected = dnfs("eq");
    assert_eq!(expected, dnfs("gte"));
    assert_eq!(expected.iter().filter(|nevra| !before.contains(*nevra)).count(), 2, "{expected:?}");
    stream.lock(&["--security-only"]);
    assert_eq!(stream.locked("x86_64"), expected);

    // a later build that no advisory names is another matter: there it is dnf's upgrade-minimal
    stream.offer("x86_64", &["lib 3-1; needs dep = 3-1", "dep 3-1"]);
    let (minimal, newest) = (dnfs("eq"), dnfs("gte"));
    assert_ne!(minimal, newest);
    assert_eq!(minimal, expected);
    stream.lock(&["--security-only"]);
    assert_eq!(stream.locked("x86_64"), minimal);
}

/// The document on standard output.
fn document(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_entry_that_brings_a_package_in_is_told() {
    let stream = Stream::new(&["x86_64"], "", &["tool", "soft", "app", "li*", "lone", "@stuff"]);
    let manifest = stream.path("manifests/s/base.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    stream.offer(
        "x86_64",
        &[
            "app 1-1; needs lib >= 1",
            "tool 1-1; needs mid",
            "mid 1-1; needs lib",
            "lib 1-1; provides own; needs own",
            "soft 1-1; recommends lib",
            "shy 1-1; supplements lone",
            "lone 1-1; needs own2; provides own2",
        ],
    );
    let comps = "<comps><group><id>stuff</id><name>Stuff</name><packagelist>\
                 <packagereq type='mandatory'>mid</packagereq></packagelist></group></comps>";
    fs::write(stream.path("comps.xml"), comps).unwrap();
    let repo = stream.repo("x86_64");
    run(Command::new("createrepo_c").args(["-q", "-g"]).arg(stream.path("comps.xml")).arg(&repo));
    let chains = |package: &str| {
        let output = stream.run(&["why", "s", "base", package, "--all", "--arch", "x86_64"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| line.split_once(" installs ").unwrap_or((line, line)).1.to_owned())
            .collect::<Vec<_>>()
    };
    fs::write(&manifest, format!("weak-deps = true\n{text}")).unwrap();
    stream.lock(&[]);
    let strong = [
        "`li*`: lib (base)",
        "`app`: app (base) requires lib (base)",
        "`@stuff`: mid (base) requires lib (base)",
        "`tool`: tool (base) requires mid (base) requires lib (base)",
    ];
    assert_eq!(chains("lib"), [&strong[..], &["`soft`: soft (base) recommends lib (base)"]].concat());
    assert_eq!(chains("shy"), ["`lone`: lone (base) recommends shy (base)"]);
    assert_eq!(chains("tool"), ["`tool`: tool (base)"]);
    // without weak dependencies, what recommends it does not bring it in
    fs::write(&manifest, &text).unwrap();
    stream.lock(&[]);
    assert_eq!(chains("lib"), strong);
    let json =
        document(&stream.run(&["--format", "json", "why", "s", "base", "lib", "--all", "--arch", "x86_64"]));
    assert_eq!(json[1]["entry"]["value"], "app");
    assert_eq!(json[1]["chain"][1]["package"]["name"], "lib");
    assert_eq!(
        json[1]["chain"].as_array().unwrap().iter().map(|link| &link["by"]).collect::<Vec<_>>(),
        [&Value::Null, &json!("requires")]
    );
    let absent = stream.run(&["why", "s", "base", "shy", "--all", "--arch", "x86_64"]);
    assert!(String::from_utf8_lossy(&absent.stderr).contains("no package `shy` is locked"));
}

#[test]
fn what_cannot_be_solved_is_a_document_too() {
    let stream = Stream::new(&["x86_64"], "", &["app"]);
    stream.offer("x86_64", &["app 1-1; needs missing"]);
    let output = stream.run(&["--format", "json", "lock", "s"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    let json = document(&output);
    let unsolvable = &json["unsolvable"];
    assert_eq!((&unsolvable["layer"], &unsolvable["arch"]), (&json!("base"), &json!("x86_64")));
    assert_eq!(json["locks"], json!([]));
    // every sentence is one of those for people
    let mut trees = unsolvable["problems"][0]["derivation"].as_array().unwrap().clone();
    let mut sentences = 0;
    while let Some(tree) = trees.pop() {
        assert!(told.contains(tree["text"].as_str().unwrap()), "{tree}: {told}");
        trees.extend(tree["because"].as_array().unwrap().clone());
        sentences += 1;
    }
    assert!(sentences > 1);
    assert_eq!(unsolvable["problems"][0]["missing"], json!(["missing"]));
    let edit = &unsolvable["ways_out"][0][0];
    assert!(told.contains(edit["text"].as_str().unwrap()), "{edit}: {told}");
    assert_eq!(
        [&edit["action"], &edit["list"], &edit["subject"]],
        [&json!("drop"), &json!("install"), &json!("app")]
    );
    assert_eq!(edit["origin"]["line"], 2);
    assert!(!stream.path("lockfiles/s").exists());
}

#[test]
fn warnings_are_in_the_document() {
    let stream = Stream::new(&["x86_64"], "", &["app"]);
    stream.offer("x86_64", &["app 1-1"]);
    let manifest = stream.path("manifests/s/base.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let pin = "[[override]]\npackage = 'app'\nversion = '1-1'\nkind = 'pin'\nreason = 'because'\nuntil = 2020-01-01\n";
    fs::write(&manifest, text + pin).unwrap();
    let output = stream.run(&["--format", "json", "lock", "s"]);
    let json = document(&output);
    let told = String::from_utf8_lossy(&output.stderr);
    let expected: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    assert!(expected.iter().any(|line| line.contains("was to end on 2020-01-01 (because)")), "{told}");
    assert_eq!(json["warnings"], json!(expected));
    assert_eq!(json["unsolvable"], Value::Null);
}

#[test]
fn packages_of_an_imported_lock_have_not_left() {
    let stream = Stream::new(&["x86_64"], "", &["app", "extra"]);
    stream.offer("x86_64", &["app 1-1; needs lib", "lib 1:1-1", "extra 1-1"]);
    stream.lock(&[]);
    let done = |args: &[&str]| {
        let output = stream.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let gone = || {
        let output = stream.run(&["--format", "json", "lock", "s", "--check"]);
        document(&output)["locks"][0]["gone"].clone()
    };
    assert_eq!(gone(), json!([]));
    // what nobody asks for any more, and the stream hides, is still there
    let manifest = stream.path("manifests/s/base.toml");
    let paths = [stream.path("manifests/s/stream.toml"), manifest.clone()];
    let texts = paths.clone().map(|path| fs::read_to_string(path).unwrap());
    fs::write(&paths[0], format!("{}excludepkgs = ['extra']\n", texts[0])).unwrap();
    fs::write(&manifest, texts[1].replace(", \"extra\"", "")).unwrap();
    assert_eq!(gone(), json!([]));
    paths.iter().zip(&texts).for_each(|(path, text)| fs::write(path, text).unwrap());

    // a lock of rpm-ostree does not say which repository a package is from; here with digests, then without
    done(&["export", "rpm-ostree-lock", "s"]);
    let exported = stream.path("manifest-lock.x86_64.json");
    let mut lock: Value = serde_json::from_slice(&fs::read(&exported).unwrap()).unwrap();
    for with_digests in [true, false] {
        if !with_digests {
            let packages = lock["packages"].as_object_mut().unwrap().values_mut();
            packages.for_each(|package| _ = package.as_object_mut().unwrap().remove("digest"));
        }
        fs::write(&exported, lock.to_string()).unwrap();
        let import =
            ["import", "rpm-ostree-lock", "manifest-lock.x86_64.json", "--stream", "s", "--layer", "base"];
        done(&[&import[..], &["--force"]].concat());
        assert_eq!(gone(), json!([]), "digests: {with_digests}");
        // that one has
        let repo = stream.repo("x86_64");
        let lib = repo.join("lib-1-1-1.x86_64.rpm");
        fs::rename(&lib, stream.path("lib.rpm")).unwrap();
        stream.offer("x86_64", &["lib 1:2-1"]);
        let left =
            json!([{"package": {"name": "lib", "evr": "1:1-1", "arch": "x86_64"}, "repo": null, "at": null}]);
        assert_eq!(gone(), left, "digests: {with_digests}");
        fs::rename(stream.path("lib.rpm"), &lib).unwrap();
        stream.offer("x86_64", &[]);
    }
}

const COMPS: &str = "<comps>
<group><id>web</id><name>Web</name><packagelist>
<packagereq type='mandatory'>httpd</packagereq><packagereq type='default'>mod_ssl</packagereq>
<packagereq type='optional'>manual</packagereq><packagereq type='conditional' requires='node'>node-web</packagereq>
</packagelist></group>
<group><id>tools</id><name>Tools</name><packagelist><packagereq type='default'>top</packagereq></packagelist></group>
<group><id>games</id><name>Games</name><packagelist><packagereq type='default'>chess</packagereq></packagelist></group>
<environment><id>server</id><name>Server</name><grouplist><groupid>tools</groupid></grouplist>
<optionlist><groupid>games</groupid></optionlist></environment>
</comps>";

/// Two streams of nodejs, of which 18 is the default, and two of db without a default.
fn modules() -> String {
    let stream = |name: &str, stream: u32, package: &str| {
        format!(
            "---\ndocument: modulemd\nversion: 2\ndata:\n  name: {name}\n  stream: '{stream}'\n  version: 1\n  \
             context: c\n  arch: x86_64\n  summary: x\n  description: x\n  license: {{module: [MIT]}}\n  \
             dependencies: [{{requires: {{platform: [el9]}}}}]\n  profiles: {{common: {{rpms: [{package}]}}}}\n  \
             artifacts: {{rpms: ['{package}-0:{stream}-1.x86_64']}}\n...\n"
        )
    };
    let default = "---\ndocument: modulemd-defaults\nversion: 1\ndata: {module: nodejs, stream: '18', \
                   profiles: {'18': [common]}}\n...\n";
    let streams = [("nodejs", 18, "node"), ("nodejs", 20, "node"), ("db", 10, "db"), ("db", 12, "db")];
    default.to_owned() + &streams.map(|(name, number, package)| stream(name, number, package)).concat()
}

#[test]
fn groups_environments_and_modules_are_dnfs() {
    let stream = Stream::new(&["x86_64"], "", &[]);
    let repo = stream.repo("x86_64");
    for text in [
        "httpd 1-1; needs lib",
        "lib 1-1",
        "mod_ssl 1-1",
        "manual 1-1",
        "node-web 1-1",
        "top 1-1; recommends chess",
        "chess 1-1",
        "node 18-1",
        "node 20-1",
        "db 10-1",
        "db 12-1",
        "app 1-1; needs db",
    ] {
        build(&repo, text);
    }
    fs::write(stream.path("comps.xml"), COMPS).unwrap();
    fs::write(stream.path("modules.yaml"), modules()).unwrap();
    run(Command::new("createrepo_c").arg("-q").arg("-g").arg(stream.path("comps.xml")).arg(&repo));
    run(Command::new("modifyrepo_c").arg(stream.path("modules.yaml")).arg(repo.join("repodata")));
    let manifest = stream.path("manifests/s/base.toml");
    for (install, modules, count) in [
        (&["@web"][..], &[][..], 3),
        (&["@Server", "@web/mandatory,optional"], &[], 4),
        (&["@web", "node"], &[], 5),
        (&["@web", "@nodejs"], &[], 5),
        (&["@nodejs:20/common"], &[], 1),
        (&["node"], &["nodejs:20"], 1),
        (&["@server", "app"], &["db:10"], 3),
        (&["@db:12/common", "app"], &[], 2),
    ] {
        fs::write(&manifest, format!("[packages]\ninstall = {install:?}\nmodules = {modules:?}\n")).unwrap();
        stream.lock(&["--update"]);
        let request = json!({
            "install": install, "modules": modules, "exclude": [], "weak": false, "no_weak": [],
        });
        let expected = dnf(&repo, &[], &request).install;
        assert_eq!(stream.locked("x86_64"), expected, "{install:?} {modules:?}");
        assert_eq!(expected.len(), count, "{expected:?}");
    }
    // what dnf sees no package of, strata neither
    fs::write(&manifest, "[packages]\ninstall = ['app']\n").unwrap();
    assert_eq!(stream.strata(&["--update"]).status.code(), Some(1));
}
