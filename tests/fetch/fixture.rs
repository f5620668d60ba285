//! Small signed repositories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rpm::signature::pgp::Signer;
use rpm::{BuildConfig, Dependency, FileOptions, PackageBuilder};
use strata::digest::Digest;
use strata::fetch::{Fetcher, Options, Place, Wanted};
use strata::lock::{Action, LockedPackage};
use strata::plan::{self, Origin};
use strata::progress::Silent;
use strata::repo::{RepoMetadata, RepoPackage};
use strata::store::Store;
use tempfile::TempDir;

/// Runs a program that must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("running {program}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A key pair, armored.
pub struct Key {
    pub secret: String,
    pub public: String,
}

/// gpg with a key ring of its own.
pub struct Gpg(TempDir);

impl Gpg {
    pub fn new() -> Self {
        Self(TempDir::with_prefix("gpg").unwrap())
    }

    pub fn run(&self, args: &[&str]) -> String {
        let home = self.0.path().to_str().unwrap();
        run("gpg", &[&["--homedir", home, "--batch", "--quiet", "--passphrase", "", "--yes"], args].concat())
    }

    pub fn home(&self) -> &Path {
        self.0.path()
    }

    pub fn export(&self) -> Key {
        Key {
            secret: self.run(&["--armor", "--export-secret-keys"]),
            public: self.run(&["--armor", "--export"]),
        }
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let home = self.0.path();
        let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).output();
    }
}

fn key(user: &str) -> Key {
    let gpg = Gpg::new();
    gpg.run(&[
        "--faked-system-time",
        "20200101T000000",
        "--quick-generate-key",
        user,
        "ed25519",
        "sign",
        "never",
    ]);
    gpg.export()
}

/// The key repositories here are signed with, and another.
pub static KEY: LazyLock<Key> = LazyLock::new(|| key("publisher"));
pub static OTHER_KEY: LazyLock<Key> = LazyLock::new(|| key("somebody else"));

/// A package of the given name with something of every kind of dependency.
pub fn package(name: &str) -> PackageBuilder {
    let mut builder = PackageBuilder::new(name, "1.0~rc1", "MIT", "noarch", "A test & its <package>");
    builder
        .using_config(BuildConfig::v4().source_date(1_700_000_000_u32))
        .release("2.el9")
        .epoch(1)
        .vendor("ACME & Sons")
        .requires(Dependency::any("(bash if systemd)"))
        .requires(Dependency::greater_eq("glibc", "2:2.17-3"))
        .requires(Dependency::any("/usr/bin/sh"))
        .provides(Dependency::eq(name, "1:1.0~rc1-2.el9"))
        .provides(Dependency::any("virtual(thing)"))
        .conflicts(Dependency::less("enemy", "2.0"))
        .obsoletes(Dependency::less_eq("ancestor", "0.9-1"))
        .recommends(Dependency::any("friend"))
        .suggests(Dependency::any("acquaintance"))
        .supplements(Dependency::any("host"))
        .enhances(Dependency::greater("parent", "3"));
    for path in ["/etc/thing.conf", "/usr/bin/thing", "/usr/share/thing/data"] {
        builder.with_file_contents(format!("{name} {path}\n"), FileOptions::new(path)).unwrap();
    }
    builder
}

/// A package as a signed file.
pub fn signed(builder: &mut PackageBuilder, key: &Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    builder.build_and_sign(Signer::from_asc(&key.secret).unwrap()).unwrap().write(&mut bytes).unwrap();
    bytes
}

/// A repository in a directory, a store, and what joins them.
pub struct Fixture {
    dir: TempDir,
    pub repo: plan::Repo,
    pub options: Options,
}

impl Fixture {
    /// A repository with these files below `Packages/`; `args` are createrepo_c's.
    pub fn new(files: &[(&str, Vec<u8>)], args: &[&str]) -> Self {
        let dir = TempDir::with_prefix("strata-fetch").unwrap();
        let packages = dir.path().join("repo/Packages");
        fs::create_dir_all(&packages).unwrap();
        for (name, bytes) in files {
            fs::write(packages.join(format!("{name}.rpm")), bytes).unwrap();
        }
        let repo = dir.path().join("repo");
        run(
            "createrepo_c",
            &[&["--quiet", "--revision", "1739145600"], args, &[repo.to_str().unwrap()]].concat(),
        );
        let key = dir.path().join("KEY");
        fs::write(&key, &KEY.public).unwrap();
        let repo = repo_at(&format!("file://{}", repo.display()), &format!("file://{}", key.display()));
        Self { dir, repo, options: Options::default() }
    }

    /// A repository with one signed package, `thing`.
    pub fn with_thing() -> Self {
        Self::new(&[("thing", signed(&mut package("thing"), &KEY))], &[])
    }

    /// A path beside the repository's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path("store")).unwrap()
    }

    pub fn fetcher(&self) -> Fetcher {
        Fetcher::new(&self.store(), self.options.clone())
    }

    pub fn metadata(&self) -> anyhow::Result<RepoMetadata> {
        self.fetcher().metadata(&self.repo, &Silent)
    }

    /// The lock entries of all packages of the repository.
    pub fn locked(&self) -> Vec<LockedPackage> {
        self.metadata().unwrap().packages.iter().map(|package| lock(package, &self.repo.id)).collect()
    }

    pub fn fetch(&self, locked: &[LockedPackage]) -> anyhow::Result<()> {
        self.fetcher().packages(&wanted(&self.repo, locked), &Silent)
    }

    /// Fetches the repository's packages, which must be refused; nothing of them may be left in the store.
    pub fn refusal(&self, locked: &[LockedPackage]) -> String {
        let before = self.tree();
        let error = self.fetch(locked).expect_err("the package must be refused");
        assert_eq!(self.tree(), before, "something was left behind");
        format!("{error:#}")
    }

    /// All files of the store with their digests.
    pub fn tree(&self) -> BTreeMap<PathBuf, Digest> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.path("store")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => dirs.push(entry.path()),
                    false => drop(files.insert(entry.path(), Digest::of(fs::read(entry.path()).unwrap()))),
                }
            }
        }
        files
    }
}

pub fn wanted<'a>(repo: &'a plan::Repo, locked: &'a [LockedPackage]) -> Vec<Wanted<'a>> {
    let wanted = |package| Wanted { package, place: Place::Repo(repo), further: vec![] };
    locked.iter().map(wanted).collect()
}

pub fn lock(package: &RepoPackage, repo: &str) -> LockedPackage {
    LockedPackage {
        name: package.nevra.name.clone(),
        evr: package.nevra.evr.clone(),
        arch: package.nevra.arch.clone(),
        repo: repo.to_owned(),
        location: package.location.clone(),
        sha256: package.sha256,
        size: package.size,
        also: vec![],
        source: package.source.clone(),
        why: "requested".to_owned(),
        action: Action::Install,
        replaces: None,
    }
}

pub fn repo_at(url: &str, key: &str) -> plan::Repo {
    plan::Repo {
        id: "repo".to_owned(),
        origin: Origin { file: Path::new("stream.toml").to_owned(), line: 1 },
        baseurl: vec![url.to_owned()],
        mirrorlist: None,
        metalink: None,
        gpgkey: vec![key.to_owned()],
        gpgcheck: true,
        repo_gpgcheck: false,
        priority: 99,
        cost: 1000,
        includepkgs: Vec::new(),
        excludepkgs: Vec::new(),
        module_hotfixes: false,
        sslclientcert: None,
        sslclientkey: None,
        sslcacert: None,
        sslverify: true,
        proxy: None,
        proxy_auth: None,
        auth: None,
        headers: BTreeMap::new(),
        skip_if_unavailable: false,
    }
}
