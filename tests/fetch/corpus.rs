//! A large corpus of RPM repositories (`STRATA_CORPUS=DIR cargo test --test fetch -- --ignored corpus`):
//! `DIR/SIZE/SNAPSHOT/REPO`, `DIR/SIZE/broken` with EXPECT.json, `DIR/SIZE/broken-metadata/FAULT`, `DIR/keys`.

#![expect(clippy::print_stdout, reason = "figures for whoever runs it")]

use std::path::{Path, PathBuf};

use strata::fetch::{Fetcher, Options};
use strata::plan;
use strata::progress::Silent;
use strata::repo::Paths;
use strata::store::Store;

use crate::fixture::{lock, repo_at, wanted};
use crate::metadata::{dnf_facts, facts};

fn corpus() -> PathBuf {
    std::env::var_os("STRATA_CORPUS").expect("STRATA_CORPUS names the corpus").into()
}

fn repo(dir: &Path) -> plan::Repo {
    let key = corpus().join("keys/RPM-GPG-KEY-strata-test");
    repo_at(&format!("file://{}", dir.display()), &format!("file://{}", key.display()))
}

fn repos() -> Vec<PathBuf> {
    let mut repos = Vec::new();
    for size in ["small", "full"] {
        for snapshot in ["2025-02-03", "2025-02-10"] {
            repos
                .extend(["baseos", "appstream", "ose"].map(|id| corpus().join(size).join(snapshot).join(id)));
        }
    }
    repos
}

#[test]
#[ignore = "needs the corpus"]
fn corpus_is_read_as_dnf_reads_it() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store")).unwrap();
    let fetcher = Fetcher::new(&store, Options::default());
    for (id, dir) in repos().iter().enumerate() {
        let repo = repo(dir);
        let mut metadata = fetcher.metadata(&repo, &Silent).unwrap();
        fetcher.filelists(&repo, &mut metadata, &Paths::all()).unwrap();
        let ours = facts(&metadata);
        let theirs = dnf_facts(dir, &temp.path().join(id.to_string()));
        let only_ours: Vec<_> = ours.difference(&theirs).take(10).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).take(10).collect();
        assert!(only_ours.is_empty() && only_theirs.is_empty(), "{dir:?}\n{only_ours:#?}\n{only_theirs:#?}");
        println!("{}: {} packages, {} facts", dir.display(), metadata.packages.len(), ours.len());
    }
}

#[test]
#[ignore = "needs the corpus"]
fn corpus_packages_are_all_accepted() {
    for size in ["small", "full"] {
        let temp = tempfile::tempdir_in(corpus().join("cache")).unwrap();
        let store = Store::open(&temp.path().join("store")).unwrap();
        let fetcher = Fetcher::new(&store, Options::default());
        for dir in repos().iter().filter(|dir| dir.starts_with(corpus().join(size))) {
            let repo = repo(dir);
            let metadata = fetcher.metadata(&repo, &Silent).unwrap();
            let locked: Vec<_> = metadata.packages.iter().map(|p| lock(p, "repo")).collect();
            let started = std::time::Instant::now();
            fetcher.packages(&wanted(&repo, &locked), &Silent).unwrap();
            let first = started.elapsed();
            fetcher.packages(&wanted(&repo, &locked), &Silent).unwrap();
            println!(
                "{}: {} in {first:?}, again in {:?}",
                dir.display(),
                locked.len(),
                started.elapsed() - first
            );
        }
    }
}

/// EXPECT.json says where each package must be stopped. What a valid signature covers is the installer's to
/// judge; damage and distrust end here.
#[test]
#[ignore = "needs the corpus"]
fn corpus_broken_packages_are_refused() {
    const SIGNED: [&str; 5] =
        ["path-traversal", "symlink-escape", "payload-bomb", "cpio-size-lie", "cpio-extra-file"];
    let dir = corpus().join("full/broken");
    let expect = std::fs::read(dir.join("EXPECT.json")).unwrap();
    let expect: serde_json::Value = serde_json::from_slice(&expect).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store")).unwrap();
    let fetcher = Fetcher::new(&store, Options::default());
    let repo = repo(&dir);
    for package in fetcher.metadata(&repo, &Silent).unwrap().packages.iter() {
        let name = package.nevra.name.as_str();
        let stage = expect[name]["caught_at"].as_str().unwrap();
        let here =
            matches!(stage, "download" | "signature" | "header" | "payload") && !SIGNED.contains(&name);
        let result = fetcher.packages(&wanted(&repo, &[lock(package, "repo")]), &Silent);
        assert_eq!(here, result.is_err(), "{name}: {result:?}");
        assert_eq!(here, !store.rpm(&package.sha256.unwrap()).exists(), "{name}");
        if let Err(error) = result {
            println!("{name}: {error:#}");
        }
    }
}

#[test]
#[ignore = "needs the corpus"]
fn corpus_broken_metadata_are_refused() {
    for entry in std::fs::read_dir(corpus().join("full/broken-metadata")).unwrap() {
        let dir = entry.unwrap().path();
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("store")).unwrap();
        let mut repo = repo(&dir);
        repo.repo_gpgcheck = true;
        let error = Fetcher::new(&store, Options::default()).metadata(&repo, &Silent).unwrap_err();
        println!("{:28} {error:#}", dir.file_name().unwrap().display());
    }
}
