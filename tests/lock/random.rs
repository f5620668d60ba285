//! Ecosystems out of a seed: tangled enough that every rule of the solver decides something.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ecosystem::Question;

const NAMES: usize = 40;
const CAPABILITIES: usize = 12;

/// Packages in the notation of [`crate::ecosystem`], and questions about them.
pub fn ecosystem(seed: u64) -> (Vec<String>, Vec<Question>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut packages = Vec::new();
    for index in 0..NAMES {
        for version in 1..=rng.gen_range(1..=3) {
            packages.push(package(&mut rng, index, version));
        }
    }
    let questions = (0..40).map(|_| question(&mut rng)).collect();
    (packages, questions)
}

fn package(rng: &mut ChaCha8Rng, index: usize, version: u32) -> String {
    let mut text = format!("{} {version}-1; file /usr/share/f{index}", name(index));
    let mut add =
        |rng: &mut ChaCha8Rng, kind: &str, percent: u32, most: usize, item: fn(&mut ChaCha8Rng) -> String| {
            if rng.gen_ratio(percent, 100) {
                let items: Vec<String> = (0..rng.gen_range(1..=most)).map(|_| item(rng)).collect();
                text += &format!("; {kind} {}", items.join(", "));
            }
        };
    add(rng, "provides", 50, 2, |rng| format!("{} = {}", capability(rng), rng.gen_range(1..4)));
    add(rng, "needs", 70, 3, need);
    add(rng, "conflicts", 8, 1, ranged);
    add(rng, "obsoletes", 5, 1, |rng| format!("{} < 2", any_name(rng)));
    add(rng, "recommends", 20, 2, need);
    add(rng, "suggests", 10, 1, any_name);
    add(rng, "supplements", 8, 1, any_name);
    text
}

fn question(rng: &mut ChaCha8Rng) -> Question {
    let install = (0..rng.gen_range(1..=4)).map(|_| match rng.gen_range(0..6) {
        0 => capability(rng),
        1 => format!("{} >= 2", any_name(rng)),
        2 => format!("/usr/share/f{}", rng.gen_range(0..NAMES)),
        _ => any_name(rng),
    });
    let mut install: Vec<String> = install.collect();
    // strata sorts entries, so that their order never decides
    install.sort();
    let exclude = if rng.gen_ratio(1, 4) { vec![any_name(rng)] } else { Vec::new() };
    Question { install, exclude, weak: rng.gen_ratio(1, 2) }
}

fn need(rng: &mut ChaCha8Rng) -> String {
    match rng.gen_range(0..8) {
        0 => format!("({} or {})", any_name(rng), capability(rng)),
        1 => format!("({} if {})", any_name(rng), any_name(rng)),
        2 => format!("/usr/share/f{}", rng.gen_range(0..NAMES)),
        3 => ranged(rng),
        4 | 5 => any_name(rng),
        _ => capability(rng),
    }
}

fn ranged(rng: &mut ChaCha8Rng) -> String {
    let operator = ["<", "<=", "=", ">=", ">"].choose(rng).expect("not empty");
    format!("{} {operator} {}", any_name(rng), rng.gen_range(1..4))
}

fn name(index: usize) -> String {
    // so that the order of names is not that of numbers
    format!("{}{index}", ["kilo", "alfa", "zulu", "mike"][index % 4])
}

fn any_name(rng: &mut ChaCha8Rng) -> String {
    name(rng.gen_range(0..NAMES))
}

fn capability(rng: &mut ChaCha8Rng) -> String {
    format!("cap{}", rng.gen_range(0..CAPABILITIES))
}
