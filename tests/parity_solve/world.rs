//! Repositories on disk, and what strata and dnf make of a request for their packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;
use strata::fetch::{Fetcher, Options};
use strata::package::Arch;
use strata::package::header::Header;
use strata::plan::{self, Origin, Packages, Sourced};
use strata::progress::Silent;
use strata::repo::{Paths, RepoMetadata};
use strata::resolve::{self, Effect, Parent, Request};
use strata::store::Store;
use tempfile::TempDir;

use crate::case::{Question, RepoSketch, Sketch};
use crate::{metadata, package};

/// Repositories on disk and what strata reads of them.
pub struct World {
    dir: TempDir,
    arch: Arch,
    repos: Vec<plan::Repo>,
    metadata: Vec<RepoMetadata>,
    parents: Vec<Parent>,
    installed: Vec<PathBuf>,
}

/// NEVRAs; none if there is no solution.
pub type Answer = Option<BTreeSet<String>>;

#[derive(Deserialize)]
struct DnfAnswer {
    install: BTreeSet<String>,
    remove: BTreeSet<String>,
}

impl World {
    fn empty(arch: Arch) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, arch, repos: vec![], metadata: vec![], parents: vec![], installed: vec![] }
    }

    /// Builds what a sketch says.
    pub fn build(sketch: &Sketch) -> Self {
        let mut world = Self::empty(sketch.arch);
        for repo in &sketch.repos {
            let path = world.dir.path().join(&repo.id);
            fs::create_dir(&path).unwrap();
            repo.packages.iter().for_each(|text| drop(package::build(&path, text)));
            metadata::write(&path, repo, sketch.arch);
            world.read(plan_repo(repo, &path));
        }
        let path = world.dir.path().join("below");
        fs::create_dir(&path).unwrap();
        for text in &sketch.below {
            let file = package::build(&path, text);
            world.put_below(&file);
        }
        world
    }

    /// Repositories that are there, by id, and RPM files of the layers below.
    pub fn of(repos: &[(&str, PathBuf)], below: &[PathBuf]) -> Self {
        let mut world = Self::empty(Arch::X86_64);
        for (id, path) in repos {
            let sketch = RepoSketch { id: (*id).to_owned(), ..RepoSketch::default() };
            world.read(plan_repo(&sketch, path));
        }
        below.iter().for_each(|file| world.put_below(file));
        world
    }

    fn read(&mut self, repo: plan::Repo) {
        let fetcher = self.fetcher();
        let mut metadata = fetcher.metadata(&repo, &Silent).unwrap();
        fetcher.comps(&repo, &mut metadata).unwrap();
        fetcher.modules(&repo, &mut metadata).unwrap();
        self.repos.push(repo);
        self.metadata.push(metadata);
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(&Store::open(&self.dir.path().join("store")).unwrap(), Options::default())
    }

    fn put_below(&mut self, file: &Path) {
        let package = Header::open(file).unwrap().to_repo_package().unwrap();
        self.parents.push(Parent { layer: "below".into(), package });
        self.installed.push(file.to_owned());
    }

    /// What repositories offer.
    pub fn metadata(&self) -> &[RepoMetadata] {
        &self.metadata
    }

    /// strata's answers.
    pub fn strata(&self, questions: &[&Question]) -> Vec<Answer> {
        let requests: Vec<Packages> = questions.iter().map(|question| request(question)).collect();
        let mut paths = Paths::default();
        for packages in &requests {
            let offered = self.metadata.iter().map(|repo| &repo.packages);
            let below = self.parents.iter().map(|parent| &parent.package);
            paths.extend(resolve::paths_beyond_primary(packages, offered, below));
        }
        let mut metadata = self.metadata.clone();
        let fetcher = self.fetcher();
        for (repo, metadata) in self.repos.iter().zip(&mut metadata) {
            fetcher.filelists(repo, metadata, &paths).unwrap();
        }
        let repos: Vec<&RepoMetadata> = metadata.iter().collect();
        requests.iter().map(|packages| self.solve(packages, &repos)).collect()
    }

    fn solve(&self, packages: &Packages, repos: &[&RepoMetadata]) -> Answer {
        let (local, names, nevras) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (builds, held) = (BTreeMap::new(), resolve::Held::new());
        let solution = resolve::solve(&Request {
            arch: self.arch,
            platform: "el9",
            repos,
            parents: &self.parents,
            packages,
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

    /// dnf's answers.
    pub fn dnf(&self, questions: &[&Question]) -> Vec<Answer> {
        let root = tempfile::tempdir_in(self.dir.path()).unwrap();
        fs::write(root.path().join(".rpmmacros"), "%_dbpath /db\n").unwrap();
        let repos: Vec<_> = self.repos.iter().map(dnf_repo).collect();
        let task = serde_json::json!({
            "root": root.path(), "arch": self.arch.rpm(), "repos": repos, "installed": self.installed,
            "requests": questions, "modular": self.metadata.iter().any(|repo| !repo.modules.streams.is_empty()),
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ask-dnf.py");
        // the system's python has dnf's modules, another one on PATH may not
        let mut dnf = Command::new("/usr/bin/python3")
            .arg(script)
            .env("HOME", root.path())
            .env("LD_LIBRARY_PATH", libsolv())
            .env("LD_PRELOAD", libsolv().join("preload.so"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with dnf's modules is needed (package python3-dnf)");
        dnf.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
        let output = dnf.wait_with_output().unwrap();
        assert!(output.status.success(), "asking dnf failed: is python3-dnf installed?");
        let answers: Vec<Option<DnfAnswer>> = serde_json::from_slice(&output.stdout).unwrap();
        let untouched = |answer: DnfAnswer| {
            assert!(answer.remove.is_empty(), "what is below was asked for by name: {:?}", answer.remove);
            answer.install
        };
        answers.into_iter().map(|answer| answer.map(untouched)).collect()
    }
}

/// A directory with the libsolv that dnf is to run with, made once: strata's own, as other versions choose otherwise,
/// and what is loaded in front of it.
fn libsolv() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let dir = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let built = built_libsolv();
        let source = cmake_value(&built.join("build/CMakeCache.txt"), "libsolv_SOURCE_DIR:STATIC");
        let versions = Path::new(&source).join("src/libsolv.ver");
        cc(Command::new("cc")
            .args(["-shared", "-Wl,-soname,libsolv.so.1", "-Wl,--whole-archive"])
            .arg(built.join("lib/libsolv.a"))
            .args(["-Wl,--no-whole-archive", "-o"])
            .arg(dir.path().join("libsolv.so.1"))
            .arg(format!("-Wl,--version-script={}", versions.display())));
        cc(Command::new("cc")
            .args(["-shared", "-fPIC"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity_solve/preload.c"))
            .arg("-I")
            .arg(built.join("include"))
            .arg("-L")
            .arg(dir.path())
            .arg("-o")
            .arg(dir.path().join("preload.so"))
            .arg("-l:libsolv.so.1"));
        dir
    });
    dir.path()
}

/// Where cargo has built libsolv for strata last.
fn built_libsolv() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("tests are in PROFILE/deps");
    let builds = fs::read_dir(profile.join("build")).unwrap().map(|entry| entry.unwrap().path().join("out"));
    let built = |out: &PathBuf| fs::metadata(out.join("lib/libsolv.a")).and_then(|file| file.modified());
    builds.max_by_key(|out| built(out).ok()).expect("strata is built")
}

fn cmake_value(cache: &Path, key: &str) -> String {
    let text = fs::read_to_string(cache).unwrap();
    let values = text.lines().filter_map(|line| line.split_once('='));
    values.filter(|(own, _)| *own == key).map(|(_, value)| value.to_owned()).next().expect(key)
}

fn cc(command: &mut Command) {
    assert!(command.status().expect("a C compiler is needed").success(), "{command:?}");
}

fn request(question: &Question) -> Packages {
    Packages {
        install: sourced(&question.install),
        exclude: sourced(&question.exclude),
        weak_deps: question.weak,
        exclude_from_weak: sourced(&question.no_weak),
        modules: sourced(&question.modules),
        ..Packages::default()
    }
}

fn sourced(list: &[String]) -> Vec<Sourced<String>> {
    let origin = Origin { file: "test.toml".into(), line: 1 };
    list.iter().map(|value| Sourced { value: value.clone(), origin: origin.clone() }).collect()
}

fn dnf_repo(repo: &plan::Repo) -> serde_json::Value {
    serde_json::json!({
        "id": repo.id, "baseurl": repo.baseurl, "priority": repo.priority, "cost": repo.cost,
        "includepkgs": repo.includepkgs, "excludepkgs": repo.excludepkgs,
        "module_hotfixes": repo.module_hotfixes,
    })
}

/// A repository on disk whose packages are not signed.
fn plan_repo(sketch: &RepoSketch, path: &Path) -> plan::Repo {
    let number = |name, default| sketch.option(name).map_or(default, |text| text.parse().unwrap());
    plan::Repo {
        id: sketch.id.clone(),
        origin: Origin { file: "stream.toml".into(), line: 1 },
        baseurl: vec![format!("file://{}", path.display())],
        mirrorlist: None,
        metalink: None,
        gpgkey: vec![],
        gpgcheck: false,
        repo_gpgcheck: false,
        priority: number("priority", 99),
        cost: number("cost", 1000),
        includepkgs: sketch.list("includepkgs"),
        excludepkgs: sketch.list("excludepkgs"),
        module_hotfixes: sketch.option("module_hotfixes").is_some(),
        sslclientcert: None,
        sslclientkey: None,
        sslcacert: None,
        sslverify: true,
        proxy_auth: None,
        auth: None,
        headers: BTreeMap::new(),
        skip_if_unavailable: false,
        proxy: None,
    }
}
