//! Imaginary packages, built for real: RPMs by the `rpm` crate, repositories by createrepo_c.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rpm::{BuildConfig, Dependency, FileOptions, PackageBuilder};
use serde::{Deserialize, Serialize};
use strata::fetch::{Fetcher, Options};
use strata::plan::{self, Origin, Packages, Sourced};
use strata::progress::Silent;
use strata::repo::{Paths, RepoMetadata};
use strata::resolve::{self, Effect, Parent, Request};
use strata::store::Store;
use tempfile::TempDir;

/// Repositories on disk and what strata reads of them.
pub struct Ecosystem {
    dir: TempDir,
    repos: Vec<plan::Repo>,
    metadata: Vec<RepoMetadata>,
    parents: Vec<Parent>,
    installed: Vec<PathBuf>,
}

/// What is asked of both solvers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Question {
    pub install: Vec<String>,
    pub exclude: Vec<String>,
    pub weak: bool,
}

/// NEVRAs; none if there is no solution.
pub type Answer = Option<BTreeSet<String>>;

#[derive(Deserialize)]
struct DnfAnswer {
    install: BTreeSet<String>,
    remove: BTreeSet<String>,
}

impl Question {
    pub fn install(entries: &[&str]) -> Self {
        Self { install: entries.iter().map(|entry| (*entry).to_owned()).collect(), ..Self::default() }
    }
}

impl Ecosystem {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, repos: vec![], metadata: vec![], parents: vec![], installed: vec![] }
    }

    /// Adds a repository of packages in the notation of [`build`].
    pub fn repo(mut self, id: &str, priority: i32, packages: &[String]) -> Self {
        let path = self.dir.path().join(id);
        fs::create_dir(&path).unwrap();
        packages.iter().for_each(|text| drop(build(&path, text)));
        run(Command::new("createrepo_c").args(["-q", "--general-compress-type=gz"]).arg(&path));
        let repo = plan_repo(id, priority, &path);
        let store = Store::open(&self.dir.path().join("store")).unwrap();
        let fetcher = Fetcher::new(&store, Options::default());
        let mut metadata = fetcher.metadata(&repo, &Silent).unwrap();
        fetcher.filelists(&repo, &mut metadata, &Paths::all()).unwrap();
        self.repos.push(repo);
        self.metadata.push(metadata);
        self
    }

    /// Packages that are there before.
    pub fn below(mut self, packages: &[String]) -> Self {
        let path = self.dir.path().join("below");
        fs::create_dir(&path).unwrap();
        for text in packages {
            let file = build(&path, text);
            let header = strata::package::header::Header::open(&file).unwrap();
            self.parents.push(Parent { layer: "below".into(), package: header.to_repo_package().unwrap() });
            self.installed.push(file);
        }
        self
    }

    /// strata's answers.
    pub fn strata(&self, question: &Question) -> Answer {
        let sourced = |list: &[String]| -> Vec<Sourced<String>> {
            let origin = Origin { file: "test.toml".into(), line: 1 };
            list.iter().map(|value| Sourced { value: value.clone(), origin: origin.clone() }).collect()
        };
        let packages = Packages {
            install: sourced(&question.install),
            exclude: sourced(&question.exclude),
            weak_deps: question.weak,
            ..Packages::default()
        };
        let repos: Vec<&RepoMetadata> = self.metadata.iter().collect();
        let (local, builds, held) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (names, nevras) = (BTreeSet::new(), BTreeSet::new());
        let solution = resolve::solve(&Request {
            arch: strata::package::Arch::X86_64,
            repos: &repos,
            parents: &self.parents,
            packages: &packages,
            local: &local,
            favored: &nevras,
            update: &names,
            builds: &builds,
            held: &held,
        });
        match solution {
            Ok(solution) => {
                assert!(solution.changes.iter().all(|change| change.effect == Effect::Install));
                Some(solution.changes.iter().map(|change| change.package.nevra.to_string()).collect())
            }
            Err(resolve::Error::Unsatisfiable(error)) => {
                assert!(!error.to_string().is_empty());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// dnf's answers. Where dnf would change a package that is there, it is none: layers below stay.
    pub fn dnf(&self, questions: &[Question]) -> Vec<Answer> {
        let root = tempfile::tempdir_in(self.dir.path()).unwrap();
        fs::write(root.path().join(".rpmmacros"), "%_dbpath /db\n").unwrap();
        let repos: Vec<_> = self
            .repos
            .iter()
            .map(|repo| serde_json::json!({"id": repo.id, "url": repo.baseurl[0], "priority": repo.priority}))
            .collect();
        let task = serde_json::json!({
            "root": root.path(), "arch": "x86_64", "repos": repos, "installed": self.installed,
            "requests": questions,
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lock/ask-dnf.py");
        // the system's python has dnf's modules, another one on PATH may not
        let mut dnf = Command::new("/usr/bin/python3")
            .arg(script)
            .env("HOME", root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with dnf's modules is needed (package python3-dnf)");
        dnf.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
        let output = dnf.wait_with_output().unwrap();
        assert!(output.status.success(), "asking dnf failed: is python3-dnf installed?");
        let answers: Vec<Option<DnfAnswer>> = serde_json::from_slice(&output.stdout).unwrap();
        let answers = answers
            .into_iter()
            .map(|answer| answer.filter(|answer| answer.remove.is_empty()).map(|answer| answer.install));
        answers.collect()
    }
}

/// Builds `NAME EVR [ARCH]; needs A >= 1, /b; provides C = 2; conflicts D; obsoletes E < 3; recommends F;
/// suggests G; supplements H; file /path` in `dir`.
fn build(dir: &Path, text: &str) -> PathBuf {
    let mut parts = text.split(';').map(str::trim);
    let words: Vec<&str> = parts.next().unwrap().split(' ').collect();
    let (name, evr, arch) = (words[0], words[1], *words.get(2).unwrap_or(&"x86_64"));
    let (epoch, vr) = evr.split_once(':').unwrap_or(("0", evr));
    let (version, release) = vr.split_once('-').unwrap();
    let mut builder = PackageBuilder::new(name, version, "MIT", arch, "imaginary");
    builder.using_config(BuildConfig::v4().compression(rpm::CompressionType::None)).release(release);
    if epoch != "0" {
        builder.epoch(epoch.parse().unwrap());
    }
    for part in parts {
        let (kind, list) = part.split_once(' ').unwrap();
        for item in list.split(", ") {
            match kind {
                "file" => builder.with_file_contents("", FileOptions::new(item)).unwrap(),
                "needs" => builder.requires(dependency(item)),
                "provides" => builder.provides(dependency(item)),
                "conflicts" => builder.conflicts(dependency(item)),
                "obsoletes" => builder.obsoletes(dependency(item)),
                "recommends" => builder.recommends(dependency(item)),
                "suggests" => builder.suggests(dependency(item)),
                "supplements" => builder.supplements(dependency(item)),
                other => panic!("{other}"),
            };
        }
    }
    let file = dir.join(format!("{name}-{epoch}-{vr}.{arch}.rpm"));
    builder.build().unwrap().write_file(&file).unwrap();
    file
}

fn dependency(text: &str) -> Dependency {
    let words: Vec<&str> = if text.starts_with('(') { vec![text] } else { text.split(' ').collect() };
    match words[..] {
        [name] => Dependency::any(name),
        [name, "<", version] => Dependency::less(name, version),
        [name, "<=", version] => Dependency::less_eq(name, version),
        [name, "=", version] => Dependency::eq(name, version),
        [name, ">=", version] => Dependency::greater_eq(name, version),
        [name, ">", version] => Dependency::greater(name, version),
        _ => panic!("{text}"),
    }
}

/// A repository on disk whose packages are not signed.
pub fn plan_repo(id: &str, priority: i32, path: &Path) -> plan::Repo {
    plan::Repo {
        id: id.into(),
        origin: Origin { file: "stream.toml".into(), line: 1 },
        baseurl: vec![format!("file://{}", path.display())],
        mirrorlist: None,
        metalink: None,
        gpgkey: vec![],
        gpgcheck: false,
        repo_gpgcheck: false,
        priority,
        cost: 1000,
        includepkgs: vec![],
        excludepkgs: vec![],
        module_hotfixes: false,
        sslclientcert: None,
        sslclientkey: None,
        sslcacert: None,
        sslverify: true,
        proxy: None,
        auth: None,
        headers: BTreeMap::new(),
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}");
}
