//! Architectures that lag; and small random worlds, in which every combination is tried.

use std::fs;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::lock::Update;
use crate::lock::worlds::{NAMES, World, random_offer, text, valid, versions};

#[test]
fn a_lagging_architecture_holds_the_others_back() {
    let both = &["app 1-1; needs lib", "lib 1-1", "lib 2-1", "app 2-1; needs lib"];
    let lags = &["app 1-1; needs lib", "lib 1-1", "lib 2-1"];
    let world =
        World::new("true", &[("base", &["app"])], &[("aarch64", lags), ("s390x", both), ("x86_64", both)]);
    assert_eq!(
        world.lock(),
        ["base.aarch64: app-1-1 lib-2-1", "base.s390x: app-1-1 lib-2-1", "base.x86_64: app-1-1 lib-2-1"]
    );
    assert!(world.try_lock(&Update::Nothing).unwrap().iter().all(|result| result.solved.is_none()));
    let apart = World::new("false", &[("base", &["app"])], &[("aarch64", lags), ("x86_64", both)]);
    assert_eq!(apart.lock(), ["base.aarch64: app-1-1 lib-2-1", "base.x86_64: app-2-1 lib-2-1"]);
}

#[test]
fn sources_count_not_packages() {
    // what only one architecture has does not matter
    let arm = &["app 1-1", "app-doc 1-1; source app", "app-doc 2-1; source app", "app 2-1", "arm 9-1"];
    let intel = &["app 1-1", "app-doc 1-1; source app", "app 2-1", "intel 3-1"];
    let world =
        World::new("true", &[("base", &["app", "(arm or intel)"])], &[("aarch64", arm), ("x86_64", intel)]);
    assert_eq!(world.lock(), ["base.aarch64: app-2-1 arm-9-1", "base.x86_64: app-2-1 intel-3-1"]);
    let world = World::new("true", &[("base", &["app-doc"])], &[("aarch64", arm), ("x86_64", intel)]);
    assert_eq!(world.lock(), ["base.aarch64: app-doc-1-1", "base.x86_64: app-doc-1-1"]);
}

#[test]
fn exceptions_may_differ() {
    let offers: [(&str, &[&str]); 2] = [("aarch64", &["fw-arm 1-1"]), ("x86_64", &["fw-arm 2-1"])];
    let world = World::new("{ except = ['fw-*'] }", &[("base", &["fw-arm"])], &offers);
    assert_eq!(world.lock(), ["base.aarch64: fw-arm-1-1", "base.x86_64: fw-arm-2-1"]);
    let told = World::new("true", &[("base", &["fw-arm"])], &offers).refused();
    for part in [
        "the base layer cannot have the same builds on all architectures",
        "no build of the source package `fw-arm` is for every architecture",
        "aarch64: fw-arm-1-1.aarch64 (requested at ",
        "base.toml:2) is of fw-arm-1-1.src.rpm; on offer: fw-arm-1-1.src.rpm",
        "x86_64: fw-arm-2-1.x86_64 (requested at ",
        "not fw-arm-2-1.src.rpm: ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn layers_above_take_what_those_below_have() {
    let arm = &["arm 1-1; needs lib", "lib 1-1", "lib-devel 1-1; source lib", "lib-devel 2-1; source lib"];
    let intel = &["intel 1-1", "lib-devel 1-1; source lib", "lib-devel 2-1; source lib"];
    let world = World::new(
        "true",
        &[("base", &["(arm or intel)"]), ("top", &["lib-devel"])],
        &[("aarch64", arm), ("x86_64", intel)],
    );
    assert_eq!(
        world.lock(),
        [
            "base.aarch64: arm-1-1 lib-1-1",
            "top.aarch64: lib-devel-1-1",
            "base.x86_64: intel-1-1",
            "top.x86_64: lib-devel-1-1"
        ]
    );
}

#[test]
fn a_merge_that_mixed_two_sets_is_noticed() {
    let offer = &["app 1-1"];
    let mut world = World::new("true", &[("base", &["app"])], &[("aarch64", offer), ("x86_64", offer)]);
    world.lock();
    for list in world.packages.values_mut() {
        list.push("app 2-1".to_owned());
    }
    let lockfile = world.dir.path().join("lockfiles/s/base.aarch64.toml");
    let old = fs::read(&lockfile).unwrap();
    world.try_lock(&Update::Everything).unwrap();
    fs::write(&lockfile, old).unwrap();
    let again = world.try_lock(&Update::Nothing).unwrap();
    assert!(again.iter().all(|result| result.solved == Some(Stale::Builds("app".into()))));
    assert_eq!(world.lock(), ["base.aarch64: app-2-1", "base.x86_64: app-2-1"]);
}

fn agrees(a: &[usize; 4], b: &[usize; 4]) -> bool {
    (0..4).all(|name| a[name] == 0 || b[name] == 0 || a[name] == b[name])
}

/// A common solution is found whenever there is one, and none that could be newer as a whole.
#[test]
fn small_worlds_against_every_combination() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (mut common, mut apart, mut moved) = (0, 0, 0);
    for case in 0..250 {
        let offers = random_offer(&mut rng);
        let wanted: &[usize] = if rng.gen_bool(0.5) { &[0] } else { &[0, 1] };
        let install: Vec<&str> = wanted.iter().map(|name| NAMES[*name]).collect();
        let make = |same: &str| {
            let mut world = World::new(same, &[("base", &install)], &[("aarch64", &[]), ("x86_64", &[])]);
            world.packages.insert("aarch64", text(&offers[0]));
            world.packages.insert("x86_64", text(&offers[1]));
            world
        };
        // what one architecture cannot have at all is no matter of several
        let Ok(alone) = make("false").try_lock(&Update::Nothing) else { continue };
        let [arm, intel] = [&offers[0], &offers[1]].map(|offer| valid(offer, wanted));
        let pairs: Vec<_> = arm.iter().flat_map(|a| intel.iter().map(move |b| (a, b))).collect();
        let agreeing: Vec<_> = pairs.into_iter().filter(|(a, b)| agrees(a, b)).collect();
        match make("true").try_lock(&Update::Nothing) {
            Ok(locks) => {
                let found = (versions(&locks[0]), versions(&locks[1]));
                assert!(agreeing.contains(&(&found.0, &found.1)), "case {case}: {found:?}");
                let newer = |a: &[usize; 4], b: &[usize; 4]| {
                    let all = || a.iter().zip(b);
                    all().all(|(a, b)| (*a > 0) == (*b > 0) && a >= b)
                };
                let better = agreeing
                    .iter()
                    .find(|(a, b)| newer(a, &found.0) && newer(b, &found.1) && (**a, **b) != found);
                assert_eq!(better, None, "case {case}: {found:?} {offers:#?}");
                common += 1;
                moved += usize::from(found != (versions(&alone[0]), versions(&alone[1])));
            }
            Err(error) => {
                let told = format!("{error:#}");
                assert!(told.contains("cannot have the same builds on all architectures"), "{told}");
                assert!(agreeing.is_empty(), "case {case}: {:?} is a solution\n{told}", agreeing[0]);
                apart += 1;
            }
        }
    }
    assert!(common > 100 && moved > 20 && apart > 5, "{common} {moved} {apart}");
}
