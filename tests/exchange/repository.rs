//! The exported repository, judged by createrepo_c and dnf.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tools::beside;
use crate::world::{User, World, copy, run};

fn exported() -> World {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    world.strata(&["export", "repo", "demo", "repo"]);
    world
}

/// What differs between two repodata directories.
fn differences(ours: &Path, theirs: &Path) -> String {
    run(Command::new("/usr/bin/python3").arg(beside("same-repodata.py")).arg(ours).arg(theirs))
}

#[test]
fn repodata_says_what_createrepo_c_says() {
    let world = exported();
    copy(&world.path("repo"), &world.path("theirs"));
    fs::remove_dir_all(world.path("theirs/repodata")).unwrap();
    run(Command::new("createrepo_c").arg("--quiet").arg(world.path("theirs")));
    let told = differences(&world.path("repo/repodata"), &world.path("theirs/repodata"));
    let packages: usize = told.trim().strip_suffix(" packages compared").expect(&told).parse().unwrap();
    assert!(packages > 30, "{told}");
}

#[test]
fn the_same_packages_are_the_same_repository() {
    let world = exported();
    let repodata = |repo: &str| -> Vec<_> {
        let mut files: Vec<_> = fs::read_dir(world.path(repo).join("repodata"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap()))
            .collect()
    };
    world.strata(&["export", "repo", "demo", "again"]);
    assert_eq!(repodata("repo"), repodata("again"));
    // fewer packages: nothing of the earlier repodata is left
    world.strata(&["export", "repo", "demo", "node", "again"]);
    assert_eq!(repodata("again").len(), 4);
    assert_ne!(repodata("repo"), repodata("again"));
}

#[test]
fn dnf_uses_the_repository() {
    let world = exported();
    let dnf = |args: &[&str]| {
        let path = format!("--repofrompath=exported,{}", world.path("repo").display());
        let root = format!("--installroot={}", world.path("root").display());
        let mut command = Command::new("dnf");
        command.args([
            "--quiet",
            "--assumeyes",
            "--nogpgcheck",
            "--releasever=9",
            "--repo=exported",
            &path,
            &root,
        ]);
        run(command.args(args))
    };
    let names = dnf(&["repoquery", "--available", "--qf", "%{name}"]);
    assert!(names.lines().any(|name| name == "cri-o"), "{names}");
    assert!(dnf(&["repoquery", "--available", "--list", "bash"]).lines().any(|file| file == "/usr/bin/bash"));
    assert!(!dnf(&["repoquery", "--available", "--changelogs", "cri-o"]).trim().is_empty());
    dnf(&["install", "--downloadonly", "cri-o", "kernel-core"]);
}
