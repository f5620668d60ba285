//! Requests without a solution: what is said of them, and that what is proposed works.

use super::*;
use crate::resolve::tests::World;

/// One request that has no solution: what must be told, and the first way out.
struct Case {
    world: World,
    told: &'static [&'static str],
    way: &'static str,
}

fn case(world: World, told: &'static [&'static str], way: &'static str) -> Case {
    Case { world, told, way }
}

fn version(text: &str) -> OverrideTo {
    OverrideTo::Version(text.parse().unwrap())
}

fn single_edits() -> Vec<Case> {
    vec![
        case(
            World::new(&["chrony 1-1"]).install(&["chronny"]),
            &["node.toml:10 installs `chronny`, but no repository has it"],
            "write `chrony` for `chronny` at node.toml:10",
        ),
        case(
            World::new(&["foo 1-1"]).exclude(&["f*"]).install(&["foo"]),
            &["node.toml:10 installs `foo`", "foo-1-1.x86_64 is excluded at node.toml:30"],
            "drop `f*` at node.toml:30",
        ),
        case(
            World::new(&["app 1-1; needs lib", "lib 1-1"]).exclude(&["lib"]).install(&["app"]),
            &[
                "app-1-1.x86_64 requires lib, which nothing provides",
                "lib-1-1.x86_64 is excluded at node.toml:30",
            ],
            "drop `lib` at node.toml:30",
        ),
        case(
            World::new(&["a 2-1; needs gone", "a 1-1"]).install(&["a"]),
            &["node.toml:10 installs `a`", "a-2-1.x86_64 requires gone, which nothing provides"],
            "write `a-1-1` for `a` at node.toml:10",
        ),
        case(
            World::new(&["a 2-1"]).install(&["a-1"]),
            &["node.toml:10 installs `a-1`, but no repository has it"],
            "write `a` for `a-1` at node.toml:10",
        ),
        case(
            World::new(&["a 1-1; conflicts b", "b 1-1"]).install(&["a", "b"]),
            &["node.toml:10 installs `a`", "a-1-1.x86_64 conflicts with b: b-1-1.x86_64"],
            "drop `a` at node.toml:10",
        ),
        case(
            World::new(&["app 1-1; needs lib >= 2", "lib 2-1"]).below(&["lib 1-1"]).install(&["app"]),
            &[
                "app-1-1.x86_64 requires lib >= 2",
                "lib-2-1.x86_64 would replace 1-1, which the base layer has",
            ],
            "add an [[override]] for `lib` with `version = \"2-1\"`",
        ),
        case(
            World::new(&["new 1-1; obsoletes old"]).below(&["old 1-1"]).install(&["new"]),
            &[
                "node.toml:10 installs `new`",
                "new-1-1.x86_64 obsoletes old: old-1-1.x86_64 of the base layer",
            ],
            "add `old` to `remove`, if this layer is to go without it",
        ),
        case(
            World::new(&["new 1-1; conflicts old"]).below(&["old 1-1"]).install(&["new"]),
            &["new-1-1.x86_64 conflicts with old: old-1-1.x86_64 of the base layer"],
            "add `old` to `remove`, if this layer is to go without it",
        ),
        case(
            World::new(&["lib 2-1"]).below(&["lib 1-1", "tool 1-1; needs lib"]).remove(&["lib"]),
            &["node.toml:20 removes `lib`", "tool-1-1.x86_64 of the base layer requires lib"],
            "add `tool` to `remove`, if this layer is to go without it",
        ),
        case(
            World::new(&[]).below(&["lib 1-1"]).remove(&["libb"]),
            &["node.toml:20 removes `libb`, but no layer below has it"],
            "write `lib` for `libb` at node.toml:20",
        ),
        case(
            World::new(&["lib 3-1", "lib 2-1", "app 1-1; needs lib"])
                .overriding("lib", version("9"))
                .install(&["app"]),
            &["node.toml:40 overrides `lib` with lib-9, but no repository has it"],
            "write `version = \"3-1\"` at node.toml:40",
        ),
        case(
            World::new(&["lib 2-1", "lib 1-1", "app 1-1; needs lib >= 2"])
                .below(&["lib 2-1"])
                .overriding("lib", version("1"))
                .install(&["app"]),
            &["node.toml:10 installs `app`", "app-1-1.x86_64 requires lib >= 2"],
            "write `version = \"2-1\"` at node.toml:40",
        ),
        case(
            World::new(&["app 1-1; needs old", "old 1-1"])
                .below(&["old 1-1"])
                .remove(&["old"])
                .install(&["app"]),
            &["app-1-1.x86_64 requires old", "node.toml:20 removes `old`"],
            "drop `old` at node.toml:20",
        ),
        case(
            World::new(&["app 1-1; needs conmon"]).other("ose", &["conmon 1-1"]).install(&["app"]),
            &["app-1-1.x86_64 requires conmon, which nothing provides"],
            "add `ose` to the `repos` of the layer",
        ),
        case(
            World::new(&[]).other("ose", &[]).other_group("core").install(&["@core"]),
            &["node.toml:10 installs `@core`, but no repository has a group or environment `core`"],
            "add `ose` to the `repos` of the layer",
        ),
        case(
            World::new(&[]).stream("nodejs", "18").stream("nodejs", "20").enable(&["nodejs"]),
            &["node.toml:50 enables module `nodejs`, but the module has several streams and no default"],
            "write `nodejs:20` for `nodejs` at node.toml:50",
        ),
        case(
            World::new(&[]).stream("perl", "5").stream("perl", "6").enable(&["perl:5", "perl:6"]),
            &["one stream of a module excludes the others"],
            "drop `perl:6` at node.toml:50",
        ),
        case(
            World::new(&["app 1-1; needs lib >= 2", "lib 2-1"])
                .repo("fast", 99, &["lib 3-1; needs gone"])
                .below(&["lib 1-1"])
                .install(&["app"]),
            &[
                "app-1-1.x86_64 (r) requires lib >= 2",
                "lib-2-1.x86_64 (r) would replace 1-1, which the base layer has",
                "lib-3-1.x86_64 (fast) requires gone, which nothing provides",
            ],
            "add an [[override]] for `lib` with `version = \"2-1\"`",
        ),
        case(
            World::new(&["a 1-1"]).other("ose", &["cri-o 1-1"]).install(&["cri-o"]),
            &["node.toml:10 installs `cri-o`, but no repository has it"],
            "add `ose` to the `repos` of the layer",
        ),
        case(
            World::new(&["a 1-1; needs (b and c)", "b 1-1"]).install(&["a"]),
            &["node.toml:10 installs `a`", "c"],
            "drop `a` at node.toml:10",
        ),
        case(
            World::new(&["a 1-1"]).install(&["a", "(a or"]),
            &["node.toml:10 has `(a or`: "],
            "drop `(a or` at node.toml:10",
        ),
    ]
}

/// Ways out that take several edits at once.
fn several_edits() -> Vec<Case> {
    vec![
        case(
            World::new(&["chrony 1-1", "podman 1-1"]).install(&["chronny", "podmann"]),
            &["installs `chronny`", "installs `podmann`"],
            "write `chrony` for `chronny` at node.toml:10, and write `podman` for `podmann` at node.toml:10",
        ),
        case(
            World::new(&["new 1-1; obsoletes old"])
                .below(&["old 1-1", "tool 1-1; needs old"])
                .install(&["new"]),
            &["new-1-1.x86_64 obsoletes old"],
            "drop `new` at node.toml:10",
        ),
        case(
            World::new(&["app 1-1; needs lib = 2, dep = 2", "lib 2", "dep 2"])
                .below(&["lib 1", "dep 1"])
                .install(&["app"]),
            &["node.toml:10 installs `app`", "which the base layer has"],
            "drop `app` at node.toml:10",
        ),
    ]
}

#[test]
fn what_is_proposed_works() {
    for (number, Case { world, told, way }) in single_edits().into_iter().chain(several_edits()).enumerate() {
        let repos = world.repos();
        let request = world.request(&repos);
        let Err(Error::Unsatisfiable(error)) = solve(&request) else {
            panic!("case {number} has a solution")
        };
        let text = error.to_string();
        for part in told {
            assert!(text.contains(part), "case {number}: `{part}` is not in\n{text}");
        }
        let others = world.others();
        let ways = ways_out(&request, &others, &error);
        assert!((1..=3).contains(&ways.len()), "case {number}: {ways:?}");
        let show = |edits: &Vec<Edit>| edits.iter().map(Edit::to_string).collect::<Vec<_>>().join(", and ");
        let shown: Vec<String> = ways.iter().map(show).collect();
        assert!(shown.iter().any(|shown| shown == way), "case {number}: {shown:#?}");
        for edits in &ways {
            let packages = edits.iter().fold(world.packages.clone(), |packages, edit| edit.apply(&packages));
            let used = |repo: &&&RepoMetadata| packages.repos.contains(&repo.id);
            let repos: Vec<&RepoMetadata> = repos.iter().chain(others.iter().filter(used)).copied().collect();
            let solved = solve(&Request { packages: &packages, repos: &repos, ..request });
            assert!(solved.is_ok(), "case {number}: {edits:?}: {}", solved.unwrap_err());
        }
    }
}
