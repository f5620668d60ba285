//! Worlds out of a number: tangled enough that every rule of the solver decides something.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use strata::package::Arch;

use crate::case::{Case, Question, RepoSketch, Sketch};

/// Questions about one world.
pub const QUESTIONS: u32 = 40;

const NAMES: usize = 40;
const CAPABILITIES: usize = 12;
/// Of every so many names one may be below.
const BELOW_EVERY: usize = 7;

/// The world of this number, and questions about it. A number always means the same.
pub fn case(number: u32) -> Case {
    let rng = &mut ChaCha8Rng::seed_from_u64(number.into());
    let arch = if rng.gen_ratio(1, 4) { Arch::Aarch64 } else { Arch::X86_64 };
    let mut sketch = Sketch { arch, ..Sketch::default() };
    for index in 0..*[1, 1, 2, 3].choose(rng).expect("not empty") {
        sketch.repos.push(repo(rng, index));
    }
    for index in 0..NAMES {
        for version in 1..=rng.gen_range(1..=3) {
            let package = package(rng, &arches(arch), index, version);
            let repo = rng.gen_range(0..sketch.repos.len());
            sketch.repos[repo].packages.push(package.clone());
            // the same package in another repository, too
            if rng.gen_ratio(1, 8) {
                let other = rng.gen_range(0..sketch.repos.len());
                if other != repo {
                    sketch.repos[other].packages.push(package);
                }
            }
        }
    }
    if rng.gen_ratio(1, 2) {
        groups(rng, &mut sketch);
    }
    if rng.gen_ratio(1, 4) {
        modules(rng, &mut sketch);
    }
    if rng.gen_ratio(1, 3) {
        sketch.below = (0..rng.gen_range(1..5)).map(|index| below(rng, arch, index)).collect();
    }
    let questions = (0..QUESTIONS).map(|_| (question(rng, &sketch), false)).collect();
    Case { name: format!("random-{number}"), sketch, questions }
}

fn repo(rng: &mut ChaCha8Rng, index: usize) -> RepoSketch {
    let mut options = Vec::new();
    let mut option = |rng: &mut ChaCha8Rng, key: &str, values: &[&str]| {
        if rng.gen_ratio(1, 3) {
            options.push((key.to_owned(), (*values.choose(rng).expect("not empty")).to_owned()));
        }
    };
    option(rng, "priority", &["10", "50", "98", "150"]);
    option(rng, "cost", &["500", "1500"]);
    if rng.gen_ratio(1, 10) {
        options.push(("excludepkgs".to_owned(), name(rng.gen_range(0..NAMES))));
    }
    RepoSketch { id: format!("r{index}"), options, ..RepoSketch::default() }
}

/// The architectures of packages in a world, the system's other one last.
fn arches(arch: Arch) -> [&'static str; 5] {
    let own = arch.rpm();
    // what is foreign is another matter (docs/parity-solve.md: arch-foreign)
    let other = if arch == Arch::X86_64 { "i686" } else { own };
    [own, own, own, "noarch", other]
}

fn package(rng: &mut ChaCha8Rng, arches: &[&str], index: usize, version: u32) -> String {
    let arch = *arches.choose(rng).expect("not empty");
    let epoch = if rng.gen_ratio(1, 20) { "1:" } else { "" };
    let mut text = format!("{} {epoch}{version}-1 {arch}; file /usr/share/f{index}", name(index));
    let mut add =
        |rng: &mut ChaCha8Rng, kind: &str, percent: u32, most: usize, item: fn(&mut ChaCha8Rng) -> String| {
            if rng.gen_ratio(percent, 100) {
                let items: Vec<String> = (0..rng.gen_range(1..=most)).map(|_| item(rng)).collect();
                text += &format!("; {kind} {}", items.join(", "));
            }
        };
    add(rng, "provides", 50, 2, |rng| format!("{} = {}", capability(rng), rng.gen_range(1..4)));
    add(rng, "needs", 70, 3, need);
    add(rng, "pre", 10, 2, need);
    add(rng, "conflicts", 8, 1, |rng| if rng.gen_ratio(1, 4) { rich(rng, 0) } else { ranged(rng) });
    add(rng, "obsoletes", 5, 1, |rng| format!("{} < 2", any_name(rng)));
    add(rng, "recommends", 20, 2, need);
    add(rng, "suggests", 10, 1, need);
    add(rng, "supplements", 8, 1, need);
    add(rng, "enhances", 4, 1, need);
    add(rng, "vendor", 10, 1, |_| "ACME".to_owned());
    text
}

/// A package below: what needs nothing, as layers below are complete.
fn below(rng: &mut ChaCha8Rng, arch: Arch, index: usize) -> String {
    let mut text = format!("{} {}-1 {}", name(index * BELOW_EVERY), rng.gen_range(1..4), arch.rpm());
    if rng.gen_ratio(1, 2) {
        text += &format!("; provides {} = {}", capability(rng), rng.gen_range(1..4));
    }
    if rng.gen_ratio(1, 2) {
        text += &format!("; recommends {}", need(rng));
    }
    text
}

fn groups(rng: &mut ChaCha8Rng, sketch: &mut Sketch) {
    for index in 0..4 {
        let names = |rng: &mut ChaCha8Rng| {
            (0..rng.gen_range(1..4)).map(|_| any_name(rng)).collect::<Vec<_>>().join(", ")
        };
        let (mandatory, default, optional) = (names(rng), names(rng), names(rng));
        let conditional = format!("{} if {}", any_name(rng), any_name(rng));
        let repo = rng.gen_range(0..sketch.repos.len());
        sketch.repos[repo].comps.push(format!(
            "group g{index}, Group {index}; mandatory {mandatory}; default {default}; optional {optional}; \
             conditional {conditional}"
        ));
    }
    sketch.repos[0].comps.push("environment e0, Environment 0; groups g0, g1; options g2".to_owned());
}

/// Modules of two streams, of packages anywhere.
fn modules(rng: &mut ChaCha8Rng, sketch: &mut Sketch) {
    let packages: Vec<String> = sketch.repos.iter().flat_map(|repo| repo.packages.clone()).collect();
    for module in 0..3 {
        let repo = rng.gen_range(0..sketch.repos.len());
        for stream in 1..=2 {
            let own: Vec<&String> = packages.choose_multiple(rng, 4).collect();
            let artifacts = own.iter().map(|text| artifact(text)).collect::<Vec<_>>().join(", ");
            let name = |text: &&String| text.split(' ').next().expect("not empty").to_owned();
            let (first, second) = (name(&own[0]), name(&own[1]));
            let mut text = format!(
                "stream m{module}:{stream}:1:c0; artifacts {artifacts}; profile common {first}; \
                 profile full {first}, {second}; needs platform:el9"
            );
            if rng.gen_ratio(1, 4) {
                text += &format!(", m{}:{}", (module + 1) % 3, rng.gen_range(1..3));
            }
            sketch.repos[repo].modules.push(text);
        }
        if rng.gen_ratio(1, 2) {
            let default = format!("default m{module}:{}; profiles common", rng.gen_range(1..3));
            sketch.repos[repo].modules.push(default);
        }
    }
}

/// A package as modules name it, with its epoch.
fn artifact(text: &str) -> String {
    let identity: Vec<&str> = text.split(';').next().expect("not empty").split(' ').collect();
    let epoch = if identity[1].contains(':') { "" } else { "0:" };
    format!("{}-{epoch}{}.{}", identity[0], identity[1], identity[2])
}

fn question(rng: &mut ChaCha8Rng, sketch: &Sketch) -> Question {
    let has_groups = sketch.repos.iter().any(|repo| !repo.comps.is_empty());
    let has_modules = sketch.repos.iter().any(|repo| !repo.modules.is_empty());
    let stream = |rng: &mut ChaCha8Rng| format!("m{}:{}", rng.gen_range(0..3), rng.gen_range(1..3));
    let install = (0..rng.gen_range(1..=4)).map(|_| match rng.gen_range(0..12) {
        0 | 1 => capability(rng),
        2 => format!("{} >= 2", any_name(rng)),
        3 => format!("/usr/share/f{}", rng.gen_range(0..NAMES)),
        4 => format!("{}-{}", any_name(rng), rng.gen_range(1..4)),
        5 if rng.gen_ratio(1, 4) => format!("{}.*", any_name(rng)),
        5 => format!("{}.{}", any_name(rng), arches(sketch.arch).choose(rng).expect("not empty")),
        6 => format!("{}*", &any_name(rng)[..5]),
        7 if has_groups => match rng.gen_range(0..5) {
            4 => "@e0".to_owned(),
            group => format!("@g{group}{}", ["", "", "/optional"].choose(rng).expect("not empty")),
        },
        8 if has_modules => {
            format!("@{}{}", stream(rng), ["", "/common", "/full"].choose(rng).expect("not empty"))
        }
        _ => any_name(rng),
    });
    let install: std::collections::BTreeSet<String> = install.collect();
    let mut modules = if has_modules && rng.gen_ratio(1, 3) { vec![stream(rng)] } else { Vec::new() };
    // what the stream of an entry needs is seen by others if it is enabled (docs/parity-solve.md: modules-needed)
    let wanted = install.iter().filter_map(|entry| entry.strip_prefix('@')).filter(|name| name.contains(':'));
    modules.extend(wanted.map(|name| name.split('/').next().expect("not empty").to_owned()));
    Question {
        // strata sorts entries, so that their order never decides
        install: install.into_iter().collect(),
        exclude: if rng.gen_ratio(1, 4) { vec![any_name(rng)] } else { Vec::new() },
        weak: rng.gen_ratio(1, 2),
        no_weak: if rng.gen_ratio(1, 6) { vec![any_name(rng)] } else { Vec::new() },
        modules,
    }
}

fn need(rng: &mut ChaCha8Rng) -> String {
    match rng.gen_range(0..8) {
        0 | 1 => rich(rng, 0),
        2 => format!("/usr/share/f{}", rng.gen_range(0..NAMES)),
        3 => ranged(rng),
        4 | 5 => any_name(rng),
        _ => capability(rng),
    }
}

/// A rich dependency, nested a little.
fn rich(rng: &mut ChaCha8Rng, depth: u32) -> String {
    let operand = |rng: &mut ChaCha8Rng| match rng.gen_range(0..6) {
        0 if depth < 2 => rich(rng, depth + 1),
        1 => ranged(rng),
        2 => capability(rng),
        _ => any_name(rng),
    };
    let (a, b) = (operand(rng), operand(rng));
    match rng.gen_range(0..8) {
        0 => format!("({a} and {b})"),
        1 => format!("({a} or {b})"),
        2 => format!("({a} if {b})"),
        3 => format!("({a} if {b} else {})", operand(rng)),
        4 => format!("({a} unless {b})"),
        5 => format!("({a} unless {b} else {})", operand(rng)),
        // only of what one package can be at once (rpm refuses other operators in them)
        6 => format!("({} with {} < 3)", ranged(rng), capability(rng)),
        _ => format!("({} without {})", capability(rng), any_name(rng)),
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
