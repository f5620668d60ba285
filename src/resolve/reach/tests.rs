//! What is in reach, rule by rule; and that the rest makes no difference.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::resolve::tests::World;
use crate::resolve::{Error, solve_within};

/// The packages of a world that are in reach.
fn reached(world: &World) -> Vec<String> {
    let repos = world.repos();
    let request = world.request(&repos);
    let reach = reach(&request, &Modularity::new(&request).unwrap());
    let named = |(repo, numbers): (&&crate::repo::RepoMetadata, Vec<usize>)| {
        numbers.into_iter().map(|number| repo.packages.get(number).nevra.name.clone()).collect::<Vec<_>>()
    };
    repos.iter().zip(reach).flat_map(named).collect()
}

#[test]
fn what_can_matter_is_in_reach() {
    let app = |more: &[&str]| World::new(&[&["app 1-1", "other 1-1"], more].concat()).install(&["app"]);
    let cases = [
        ("every version", app(&["app 2-1; needs b", "b 1-1"]), "app app b"),
        ("every repository", app(&[]).repo("s", 99, &["app 3-1; needs c", "c 1-1"]), "app app c"),
        (
            "requires",
            app(&["app 2-1; needs cap, /bin/b", "a 1-1; provides cap", "b 1-1; file /bin/b"]),
            "app app a b",
        ),
        ("recommends", app(&["app 2-1; recommends a", "a 1-1; needs b", "b 1-1"]), "app app a b"),
        ("suggests", app(&["app 2-1; suggests a", "a 1-1"]), "app app a"),
        (
            "all of a rich dependency",
            app(&["app 2-1; needs (a if b else c)", "a 1-1", "b 1-1", "c 1-1"]),
            "app app a b c",
        ),
        ("what obsoletes a name", app(&["a 1-1; obsoletes app < 2; needs b", "b 1-1"]), "app a b"),
        (
            "what supplements",
            app(&["a 1-1; supplements b", "app 2-1; needs c", "c 1-1; provides b"]),
            "app a app c",
        ),
        ("what supplements by a rich dependency", app(&["a 1-1; supplements (x if y)"]), "app a"),
        ("what supplements a path", app(&["a 1-1; supplements /x"]), "app a"),
        ("nothing else", app(&["a 1-1; supplements other; obsoletes x; conflicts app"]), "app"),
        ("a glob", World::new(&["a1 1-1", "a2 1-1; needs b", "b 1-1", "c 1-1"]).install(&["a*"]), "a1 a2 b"),
        ("a glob of NEVRAs", World::new(&["a 1-1", "b 1-1", "c 2-1"]).install(&["*-1-1.x86_64"]), "a b"),
        ("a glob of capabilities", World::new(&["a 1-1; provides x(1)", "b 1-1"]).install(&["x(*)"]), "a"),
        ("a glob of paths", World::new(&["a 1-1; file /opt/a", "b 1-1"]).install(&["/opt/*"]), "a"),
        ("any reading", World::new(&["a 1-1", "a-1 2-1", "b 1-1"]).install(&["a-1"]), "a a-1"),
        ("a capability", World::new(&["a 1-1; provides x = 2", "b 1-1"]).install(&["x >= 1"]), "a"),
        ("a rich entry", World::new(&["a 1-1", "b 1-1", "c 1-1"]).install(&["(a if b)"]), "a b"),
        ("what is excluded", World::new(&["a 1-1", "b 1-1", "c 1-1"]).exclude(&["a"]).install(&["b"]), "a b"),
        (
            "what is below, and needed, supplemented, or obsoleted there",
            World::new(&["a 1-1", "b 1-1", "c 1-1; supplements x", "d 1-1; obsoletes a", "e 1-1"])
                .below(&["a 0-1; needs b; provides x"]),
            "a b c d",
        ),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .filter(|(_, world, names)| reached(world).join(" ") != *names)
        .map(|(what, ..)| what)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A package with dependencies of every kind on names of `a` to `h`.
fn random_package(rng: &mut ChaCha8Rng) -> String {
    let name = |rng: &mut ChaCha8Rng| char::from(b'a' + rng.gen_range(0..8)).to_string();
    let mut text = format!("{} {}-1", name(rng), rng.gen_range(1..4));
    for kind in ["needs", "recommends", "suggests", "supplements", "conflicts", "obsoletes", "provides"] {
        if rng.gen_range(0..4) > 0 {
            continue;
        }
        let [a, b, c] = [name(rng), name(rng), name(rng)];
        let is_plain = matches!(kind, "obsoletes" | "provides");
        let what = match rng.gen_range(0..if is_plain { 2 } else { 6 }) {
            0 => a,
            1 => format!("{a} = {}", rng.gen_range(1..4)),
            2 => format!("({a} if {b} else {c})"),
            3 => format!("({a} or {b})"),
            4 => format!("({a} unless {b})"),
            _ => format!("({a} and {b})"),
        };
        text += &format!("; {kind} {what}");
    }
    text
}

#[test]
fn what_is_out_of_reach_makes_no_difference() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut solved, mut fewer) = (0, 0);
    for case in 0..1500 {
        let mut packages =
            |most| (0..rng.gen_range(1..most)).map(|_| random_package(&mut rng)).collect::<Vec<_>>();
        let (offered, below) = (packages(14), packages(3));
        let text = |list: &[String]| list.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let (offered, below) = (text(&offered), text(&below));
        let entry = char::from(b'a' + rng.gen_range(0..8)).to_string();
        let mut world = World::new(&offered.lines().collect::<Vec<_>>()).install(&[entry.as_str()]);
        if case % 2 == 0 {
            world = world.below(&below.lines().collect::<Vec<_>>());
        }
        if case % 3 > 0 {
            world = world.weak();
        }
        let repos = world.repos();
        let request = world.request(&repos);
        let modularity = Modularity::new(&request).unwrap();
        let answer = |reach: &Reach| match solve_within(reach, &request, &modularity) {
            Ok(solution) => Some(format!("{:?}", solution.changes)),
            Err(Error::Unsatisfiable(_)) => None,
            Err(error) => panic!("{error}"),
        };
        let (near, all) = (reach(&request, &modularity), everything(&request));
        assert_eq!(answer(&near), answer(&all), "{entry} of\n{offered}\nbelow\n{below}");
        solved += usize::from(answer(&near).is_some());
        fewer += usize::from(near[0].len() < all[0].len());
    }
    assert!(solved > 300 && fewer > 300, "{solved} {fewer}");
}
