//! The demo stream's repositories, judged by rpm, createrepo_c and dnf, and its manifests by all of them.

#[path = "../examples/demo-repos/repos/mod.rs"]
mod repos;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use strata::package::Arch;
use strata::plan::{Layer, OverrideTo, Plan};

const SNAPSHOTS: [&str; 2] = ["2025-02-03", "2025-02-10"];
const REPOS: [&str; 3] = ["baseos", "appstream", "ose"];

#[test]
fn the_same_busybox_gives_the_same_bytes() {
    let (one, two) = (generate(), generate());
    let (one, two) = (tree(one.path()), tree(two.path()));
    assert!(one.len() > 100, "{} files", one.len());
    let differing: Vec<_> =
        one.iter().filter(|(path, bytes)| two.get(*path) != Some(bytes)).map(|(p, _)| p).collect();
    assert_eq!((differing, one.len()), (Vec::new(), two.len()));
}

#[test]
fn running_again_leaves_nothing_of_the_run_before() {
    let demo = generate();
    let before = tree(demo.path());
    fs::write(demo.path().join("2025-02-03/ose/Packages/stale.rpm"), "stale").unwrap();
    repos::generate(demo.path()).unwrap();
    assert!(tree(demo.path()) == before);
}

#[test]
fn rpm_accepts_every_signature() {
    let demo = generate();
    let db = tempfile::tempdir().unwrap();
    let rpm = |args: &[&str]| run(Command::new("rpm").arg("--dbpath").arg(db.path()).args(args));
    rpm(&["--import", demo.path().join("RPM-GPG-KEY-demo").to_str().unwrap()]);
    let packages: Vec<_> = tree(demo.path()).into_keys().filter(|path| path.ends_with(".rpm")).collect();
    let paths: Vec<_> = packages.iter().map(|path| demo.path().join(path)).collect();
    let mut args = vec!["-K"];
    args.extend(paths.iter().map(|path| path.to_str().unwrap()));
    let report = rpm(&args);
    assert_eq!(
        report.lines().filter(|line| line.ends_with(": digests signatures OK")).count(),
        packages.len(),
        "{report}"
    );
}

#[test]
fn repodata_is_what_createrepo_c_writes() {
    let demo = generate();
    for (snapshot, repo) in SNAPSHOTS.iter().flat_map(|snapshot| REPOS.map(|repo| (snapshot, repo))) {
        let ours = demo.path().join(snapshot).join(repo);
        let theirs = tempfile::tempdir().unwrap();
        run(Command::new("cp").arg("-r").arg(ours.join("Packages")).arg(theirs.path()));
        run(Command::new("createrepo_c").arg("--quiet").arg(theirs.path()));
        for kind in ["primary", "filelists", "other"] {
            let (ours, theirs) = (packages(&ours, kind), packages(theirs.path(), kind));
            assert!(ours.len() > 20, "{repo} {kind}: {} packages", ours.len());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours, theirs, "{snapshot}/{repo} {kind}: ours, createrepo_c's");
            }
            assert_eq!(ours.len(), theirs.len());
        }
    }
}

#[test]
fn one_week_changes_three_packages_of_the_node_layer() {
    let demo = generate();
    let suffix = format!(".{}.rpm", Arch::host().unwrap());
    let packages = |snapshot: &str| -> Vec<String> {
        let all = tree(&demo.path().join(snapshot).join("ose/Packages"));
        all.into_keys().filter(|path| path.ends_with(&suffix)).collect()
    };
    let (before, after) = (packages("2025-02-03"), packages("2025-02-10"));
    assert!(before.iter().all(|path| after.contains(path)), "a lockfile may go on naming the older packages");
    let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new.len(), 3, "{new:?}");
    for (path, name) in new.iter().zip(["c/cri-o-1", "o/openshift-clients-4", "o/openvswitch3.4-3"]) {
        assert!(path.starts_with(name), "{path}");
    }
}

/// The oracle of everything that strata does with the demo: what its manifests ask for, dnf installs layer by
/// layer, scriptlets run with nothing but the rootfs's own commands, and rpm finds nothing amiss.
#[test]
fn dnf_installs_the_layers_and_rpm_finds_nothing_amiss() {
    let demo = generate();
    let dnf = Dnf::new(demo.path(), "2025-02-03");
    let plan = plan("demo", Arch::host().unwrap());
    for layer in &plan.layers {
        dnf.install(layer);
        assert_eq!(dnf.verify(), "", "after the layer {}", layer.name);
    }
    let root = dnf.root();
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    for user in ["sshd:x:74:74", "chrony:x:996:996", "systemd-coredump:x:982:982", "openvswitch:x:800:800"] {
        assert!(passwd.contains(user), "{user} in {passwd}");
    }
    assert!(fs::read_to_string(root.join("etc/group")).unwrap().contains("hugetlbfs:x:801:openvswitch"));
    let modules = fs::read_to_string(root.join("etc/selinux/targeted/modules.list")).unwrap();
    assert!(
        modules.contains("container.pp.bz2"),
        "the trigger of the base fires in a later layer: {modules}"
    );
    assert!(root.join("etc/systemd/system/multi-user.target.wants/sshd.service").is_symlink());
    assert!(
        fs::read_to_string(root.join("etc/ld.so.cache")).unwrap().contains("/usr/lib64/libostree-1.so.1.0.0")
    );
    assert!(dnf.rpm(&["-q", "conmon"]).contains("2.1.13"), "the fast-track");
}

#[test]
fn dnf_knows_the_advisories_and_updates_to_the_second_snapshot() {
    let demo = generate();
    let mut dnf = Dnf::new(demo.path(), "2025-02-03");
    for layer in &plan("demo", Arch::host().unwrap()).layers {
        dnf.install(layer);
    }
    dnf.snapshot = "2025-02-10";
    let advisories = dnf.run(&REPOS, &["updateinfo", "list"]);
    let cves = dnf.run(&REPOS, &["updateinfo", "list", "--with-cve"]);
    for (package, advisory, cve) in [
        ("kernel-core-5.14.0-570.16.1.el9_6", "DEMO-2025:0101", "CVE-2025-21756"),
        ("ignition-2.21.0-1.el9", "DEMO-2025:0201", "CVE-2025-0426"),
        ("cri-o-1.32.1-4.rhaos4.19", "DEMO-2025:0301", "CVE-2025-0750"),
    ] {
        let listed = |list: &str, id| list.lines().any(|line| line.contains(id) && line.contains(package));
        assert!(listed(&advisories, advisory), "{package} {advisory}: {advisories}");
        assert!(listed(&cves, cve), "{package} {cve}: {cves}");
    }

    dnf.run(&REPOS, &["upgrade"]);
    assert_eq!(dnf.verify(), "");
    assert!(dnf.rpm(&["-q", "openvswitch3.4"]).contains("3.4.2-24"), "the release replaces its candidate");
    assert_eq!(dnf.rpm(&["-q", "kernel-core"]).lines().count(), 2, "kernels are kept side by side");
}

#[test]
fn dnf_finds_everything_for_the_other_architecture_too() {
    let demo = generate();
    let dnf = Dnf::new(demo.path(), "2025-02-10");
    let host = Arch::host().unwrap();
    let other = strata::manifest::arches(&manifests(), "demo")
        .unwrap()
        .into_iter()
        .find(|arch| *arch != host)
        .unwrap();
    let plan = plan("demo", other);
    let forced = format!("--forcearch={other}");
    let mut args = vec![forced.as_str(), "install", "--downloadonly"];
    args.extend(plan.layers.iter().flat_map(|layer| &layer.packages.install).map(|spec| spec.value.as_str()));
    let report = dnf.run(&REPOS, &args);
    assert!(report.lines().any(|line| line.contains("cri-o") && line.contains(other.rpm())), "{report}");
}

#[test]
fn every_stream_compiles_for_every_architecture() {
    for stream in ["demo", "c10s", "rhel-9.6"] {
        for arch in strata::manifest::arches(&manifests(), stream).unwrap() {
            let plan = plan(stream, arch);
            let top = plan.layers.last().unwrap();
            assert!(top.packages.install.iter().any(|spec| spec.value == "cri-o"), "{stream} {arch}");
        }
    }
}

fn generate() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    repos::generate(dir.path()).unwrap();
    dir
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

fn plan(stream: &str, arch: Arch) -> Plan {
    strata::manifest::load(&manifests(), stream, arch)
        .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

/// Every file below `dir`, by its path there.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Runs a command that must succeed; what it printed to standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// What a metadata file says of each package: a line per element and text, sorted, its checksum first.
/// Left out is what may differ: the .rpm file's time, and the size of a payload whose header doesn't say it.
fn packages(repo: &Path, kind: &str) -> Vec<Vec<String>> {
    let repodata = tree(&repo.join("repodata"));
    let (name, bytes) = repodata.iter().find(|(name, _)| name.contains(&format!("-{kind}.xml."))).unwrap();
    let mut xml = String::new();
    match name.rsplit('.').next().unwrap() {
        "gz" => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut xml),
        "xz" => liblzma::read::XzDecoder::new(&bytes[..]).read_to_string(&mut xml),
        "zst" => zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut xml),
        other => panic!("{other}"),
    }
    .unwrap();

    // Escaping these is optional.
    let xml = xml.replace("&apos;", "'").replace("&quot;", "\"");
    let mut reader = Reader::from_str(&xml);
    let (mut path, mut lines, mut packages) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => {
                path.push(local_name(&start));
                lines.push(format!("{} {}", path.join("/"), attributes(&start)));
            }
            Event::Empty(start) => {
                lines.push(format!("{}/{} {}", path.join("/"), local_name(&start), attributes(&start)));
            }
            Event::Text(text) if !text.trim().is_empty() => {
                lines.push(format!("{} {:?}", path.join("/"), text.trim()));
            }
            Event::GeneralRef(name) => lines.push(format!("{} {name:?}", path.join("/"))),
            Event::End(_) => {
                let ended = path.pop().unwrap();
                if ended == "package" {
                    let mut package = std::mem::take(&mut lines);
                    package.retain(|line| line.starts_with(&format!("{}/package", path[0])));
                    package.sort_by_key(|line| (!line.contains("/checksum \""), line.clone()));
                    packages.push(package);
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    packages.sort();
    packages
}

fn local_name(start: &BytesStart<'_>) -> String {
    start.local_name().as_ref().to_string()
}

fn attributes(start: &BytesStart<'_>) -> String {
    let mut pairs: Vec<_> = start
        .attributes()
        .map(|attribute| attribute.unwrap())
        .map(|a| (a.key.as_ref().to_string(), a.value.into_owned()))
        .filter(|(key, _)| {
            !matches!((local_name(start).as_str(), key.as_str()), ("time", "file") | ("size", "archive"))
        })
        .collect();
    pairs.sort();
    format!("{pairs:?}")
}

/// dnf and rpm on a root of their own, with nothing of the host's configuration.
struct Dnf<'a> {
    demo: &'a Path,
    snapshot: &'a str,
    work: tempfile::TempDir,
}

impl<'a> Dnf<'a> {
    fn new(demo: &'a Path, snapshot: &'a str) -> Self {
        let work = tempfile::tempdir().unwrap();
        // Debian's rpm keeps the database in the home directory.
        let macros = "%_dbpath /usr/lib/sysimage/rpm\n%_db_backend sqlite\n";
        fs::write(work.path().join(".rpmmacros"), macros).unwrap();
        fs::create_dir(work.path().join("root")).unwrap();
        Self { demo, snapshot, work }
    }

    fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }

    /// Installs what a layer's manifest asks for, as dnf would be told to.
    fn install(&self, layer: &Layer) {
        let packages = &layer.packages;
        let repos: Vec<&str> = packages.repos.iter().map(String::as_str).collect();
        let mut args = vec!["install".to_owned()];
        args.extend(packages.exclude.iter().map(|glob| format!("--exclude={}", glob.value)));
        args.extend(packages.install.iter().map(|spec| spec.value.clone()));
        for entry in &packages.overrides {
            let OverrideTo::Version(evr) = &entry.value.to else { panic!("the demo has no local files") };
            args.push(format!("{}-{evr}", entry.value.package));
        }
        self.run(&repos, &args.iter().map(String::as_str).collect::<Vec<_>>());
        if !packages.remove.is_empty() {
            let names = packages.remove.iter().map(|spec| spec.value.as_str());
            self.run(&repos, &["remove"].into_iter().chain(names).collect::<Vec<_>>());
        }
    }

    fn run(&self, repos: &[&str], args: &[&str]) -> String {
        let mut config = "[main]\ngpgcheck=1\nbest=1\ninstall_weak_deps=0\nplugins=0\nreposdir=/nonexistent\n\
                          varsdir=/nonexistent\npluginconfpath=/nonexistent\nzchunk=0\nclean_requirements_on_remove=0\n"
            .to_owned();
        let demo = self.demo.display();
        for repo in repos {
            let url = format!("file://{demo}/{}/{repo}", self.snapshot);
            config += &format!(
                "[{repo}]\nname={repo}\nbaseurl={url}\ngpgkey=file://{demo}/RPM-GPG-KEY-demo\nmetadata_expire=1\n"
            );
        }
        let path = self.work.path().join("dnf.conf");
        fs::write(&path, config).unwrap();
        let mut command = self.command("dnf");
        command.arg("-c").arg(path).arg("--installroot").arg(self.root());
        run(command.args(["--releasever=9", "--noplugins", "-y"]).args(args))
    }

    fn rpm(&self, args: &[&str]) -> String {
        run(self.command("rpm").arg("--root").arg(self.root()).args(args))
    }

    /// What `rpm -Va` complains about.
    fn verify(&self) -> String {
        let output = self.command("rpm").arg("--root").arg(self.root()).arg("-Va").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command that may chroot and chown: as it is for root, else in a user namespace with the user's own ids.
    fn command(&self, program: &str) -> Command {
        let root = rustix::process::geteuid().is_root();
        let mut command = Command::new(if root { program } else { "unshare" });
        if !root {
            command.args(["--map-root-user", "--map-auto", "--", program]);
        }
        command.env("HOME", self.work.path()).env("LANG", "C.UTF-8");
        command
    }
}

impl Drop for Dnf<'_> {
    /// The root has directories of users that only the namespace may enter.
    fn drop(&mut self) {
        let removed = self.command("rm").arg("-rf").arg(self.root()).status();
        assert!(std::thread::panicking() || removed.unwrap().success());
    }
}
