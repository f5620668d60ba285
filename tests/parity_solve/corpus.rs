//! Requests over a snapshot of real packages, with nothing below and on top of an installed layer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use strata::repo::RepoPackage;

use crate::case::Question;
use crate::world::World;

const REPOS: [&str; 3] = ["baseos", "appstream", "ose"];
const LAYERS: [&str; 3] = ["bootc", "coreos", "node"];

/// Each world of a corpus, by name: both snapshots with nothing below, and each with the older bootc layer below.
pub fn worlds(root: &Path) -> Vec<(String, World)> {
    let (old, new) = (root.join("full/2025-02-03"), root.join("full/2025-02-10"));
    let bootc = bootc_files(&old);
    let mut worlds = Vec::new();
    for snapshot in [&old, &new] {
        for (below, files) in [("nothing", &[][..]), ("bootc", &bootc)] {
            let name = format!("{} on {below}", snapshot.file_name().expect("has a name").display());
            worlds.push((name, World::of(&repos(snapshot), files)));
        }
    }
    worlds
}

fn repos(snapshot: &Path) -> Vec<(&'static str, PathBuf)> {
    REPOS.iter().map(|id| (*id, snapshot.join(id))).collect()
}

fn layer(snapshot: &Path, name: &str) -> Question {
    let list = fs::read_to_string(snapshot.join(format!("layers/{name}.packages"))).unwrap();
    let mut install: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
    install.sort();
    Question { install, ..Question::default() }
}

/// The RPMs of the bootc layer, as dnf picks them.
fn bootc_files(snapshot: &Path) -> Vec<PathBuf> {
    let world = World::of(&repos(snapshot), &[]);
    let answers = world.dnf(&[&layer(snapshot, "bootc")]);
    let wanted = answers[0].as_ref().expect("the layer has a solution");
    let mut files = BTreeMap::new();
    for repo in world.metadata() {
        for package in repo.packages.iter().filter(|p| wanted.contains(&p.nevra.to_string())) {
            files.insert(package.nevra.to_string(), snapshot.join(&repo.id).join(&package.location));
        }
    }
    files.into_values().collect()
}

/// The layers' own lists, then requests at random.
pub fn questions(root: &Path, world: &World, seed: u64, count: u32) -> Vec<Question> {
    let mut questions = Vec::new();
    for layers in [&LAYERS[..1], &LAYERS[1..2], &LAYERS] {
        for weak in [false, true] {
            let lists = layers.iter().flat_map(|name| layer(&root.join("full/2025-02-10"), name).install);
            let mut install: Vec<String> = lists.collect();
            install.sort();
            install.dedup();
            questions.push(Question { install, weak, ..Question::default() });
        }
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let packages: Vec<&RepoPackage> = world.metadata().iter().flat_map(|repo| repo.packages.iter()).collect();
    questions.extend((0..count).map(|_| question(rng, &packages)));
    questions
}

fn question(rng: &mut ChaCha8Rng, packages: &[&RepoPackage]) -> Question {
    let any = |rng: &mut ChaCha8Rng| *packages.choose(rng).expect("a corpus has packages");
    let count = *[1, 1, 1, 2, 3, 8].choose(rng).expect("not empty");
    let mut install: Vec<String> = (0..count).map(|_| entry(rng, any)).collect();
    install.sort();
    install.dedup();
    let names = |rng: &mut ChaCha8Rng, odds| match rng.gen_ratio(1, odds) {
        true => vec![any(rng).nevra.name.clone()],
        false => Vec::new(),
    };
    Question {
        install,
        weak: rng.gen_ratio(1, 2),
        exclude: names(rng, 5),
        no_weak: names(rng, 10),
        modules: Vec::new(),
    }
}

fn entry<'p>(rng: &mut ChaCha8Rng, any: impl Fn(&mut ChaCha8Rng) -> &'p RepoPackage) -> String {
    let package = any(rng);
    let nevra = &package.nevra;
    let plain = || nevra.name.clone();
    match rng.gen_range(0..12) {
        0 => nevra.to_string(),
        1 => format!("{}-{}", nevra.name, nevra.evr.version),
        2 => format!("{}.{}", nevra.name, nevra.arch),
        3 => {
            let end = nevra.name.char_indices().map(|(at, _)| at).nth(4).unwrap_or(nevra.name.len());
            format!("{}*", &nevra.name[..end])
        }
        4 => package.provides.choose(rng).map_or_else(plain, |provided| provided.name.clone()),
        5 => package.files.choose(rng).cloned().unwrap_or_else(plain),
        6 => format!("{} >= {}", nevra.name, nevra.evr.version),
        7 => package.requires.choose(rng).map_or_else(plain, |required| match required.is_rich() {
            true => nevra.name.clone(),
            false => required.to_string(),
        }),
        8 if rng.gen_ratio(1, 8) => "@core".to_owned(),
        _ => plain(),
    }
}
