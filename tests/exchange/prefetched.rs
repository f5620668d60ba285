//! A folder as hermeto leaves it, `deps/rpm/ARCH/REPO/FILE` with repodata by createrepo_c, is a source of packages for
//! a build without network.

use std::fs;
use std::process::Command;

use crate::tools::yaml;
use crate::world::{User, World, run};

#[test]
fn what_hermeto_prefetched_needs_no_repository() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let arch = std::env::consts::ARCH;
    world.strata(&["export", "konflux-lock", "demo", "--arch", arch]);
    let lock = yaml(&world.path("rpms.lock.yaml"));
    for package in lock["arches"][0]["packages"].as_array().unwrap() {
        let [url, repo] = ["url", "repoid"].map(|key| package[key].as_str().unwrap());
        let dir = world.path(&format!("deps/rpm/{arch}/{repo}"));
        fs::create_dir_all(&dir).unwrap();
        let file = url.strip_prefix("file://").unwrap();
        fs::copy(file, dir.join(file.rsplit('/').next().unwrap())).unwrap();
    }
    for repo in fs::read_dir(world.path(&format!("deps/rpm/{arch}"))).unwrap() {
        run(Command::new("createrepo_c")
            .args(["-q", "--general-compress-type", "gz"])
            .arg(repo.unwrap().path()));
    }
    fs::remove_dir_all(world.path("store")).unwrap();
    for snapshot in ["2025-02-03", "2025-02-10"] {
        fs::remove_dir_all(world.path(&format!("target/demo/{snapshot}"))).unwrap();
    }
    assert!(world.refused(&["build", "demo", "--offline"], 1).contains("not in the store"));
    let built = world.build(&["--offline", "--vendor", "deps"]);
    assert_eq!(
        built.iter().map(|image| image.layer.as_str()).collect::<Vec<_>>(),
        ["bootc", "coreos", "node"]
    );
    assert!(built.iter().all(|image| !image.reused));
}
