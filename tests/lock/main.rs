//! Solving, judged by dnf: the same repositories and requests, the same packages.

mod ecosystem;
mod random;

use ecosystem::{Ecosystem, Question};

fn owned(packages: &[&str]) -> Vec<String> {
    packages.iter().map(|text| (*text).to_owned()).collect()
}

/// Asks both, and shows every question they disagree about.
fn agree(world: &Ecosystem, questions: &[Question]) -> usize {
    let answers = world.dnf(questions);
    let mut differing = Vec::new();
    for (question, dnf) in questions.iter().zip(&answers) {
        let strata = world.strata(question);
        if strata != *dnf {
            differing.push(format!("{question:?}\n  dnf:    {dnf:?}\n  strata: {strata:?}"));
        }
    }
    assert!(differing.is_empty(), "{} of {}:\n{}", differing.len(), questions.len(), differing.join("\n"));
    answers.iter().flatten().count()
}

#[test]
fn entries_and_preferences_are_dnfs() {
    let world = Ecosystem::new()
        .repo(
            "main",
            99,
            &owned(&[
                "foo 1-1; file /usr/bin/foo",
                "foo 2-1; file /usr/bin/foo, /usr/share/foo/data",
                "foo 3-1; needs missing",
                "foo-libs 2-1 noarch",
                "bar 1-1; provides cap = 3; file /usr/bin/bar",
                "baz 1:1-1; provides cap = 2; file /usr/libexec/baz",
                "old 2-1",
                "new 1-1; obsoletes old < 3",
                "order 1-1; needs cap2, zz",
                "zz 1-1; needs pc",
                "pa 1-1; provides cap2",
                "pb 1-1; provides cap2",
                "pc 1-1; provides cap2",
                "deep 1-1; needs /usr/share/foo/data, /usr/libexec/baz",
                "rich 1-1; needs (pb if pc else pa), (cap2 without pa)",
                "ranged 1-1; needs (cap >= 2 with cap < 3)",
                "weak 1-1; recommends bar, gone; suggests pc",
                "addon 1-1; supplements weak",
                "kernel 1-1",
                "kernel 2-1",
                "pinned 2-1",
                "tilde 1~rc1-1",
                "tilde 1-1",
                "tilde 1^git-1",
            ]),
        )
        .repo("first", 10, &owned(&["pinned 1-1", "pd 1-1; provides cap2"]));
    let entries = [
        "foo",
        "foo-1",
        "foo-2",
        "foo-2-1",
        "foo-0:2-1",
        "foo-2-1.x86_64",
        "foo.x86_64",
        "foo-libs.noarch",
        "foo*",
        "f?o",
        "foo < 3",
        "foo <= 2",
        "foo > 9",
        "foo-lib[rs]",
        "bar*",
        "cap",
        "cap < 3",
        "cap >= 3",
        "c?p",
        "cap* = 2",
        "/usr/bin/bar",
        "/usr/libexec/baz",
        "/usr/share/foo/data",
        "/usr/bin/*",
        "*/baz",
        "old",
        "old-2",
        "ol*",
        "order",
        "rich",
        "ranged",
        "deep",
        "weak",
        "kernel",
        "kernel-1",
        "pinned",
        "pinned-2",
        "tilde",
        "tilde-1",
        "tilde-1~rc1",
        "cap2",
        "baz-1",
        "baz-1:1",
        "baz-1:1-1",
        "nothing",
        "*.noarch",
        "foo-[12]-1",
        "pinned = 2",
    ];
    let mut questions: Vec<Question> = entries.iter().map(|entry| Question::install(&[entry])).collect();
    for pair in [
        ["foo-2", "deep"],
        ["pc", "rich"],
        ["pb", "cap2"],
        ["old", "new"],
        ["weak", "order"],
        ["foo-1", "foo-2"],
    ] {
        questions.push(Question::install(&pair));
    }
    let weak = questions.clone().into_iter().map(|question| Question { weak: true, ..question });
    let excluding = ["foo-3*", "pa", "*bar*", "foo-3-1.x86_64"].map(str::to_owned).to_vec();
    let excluding =
        questions.clone().into_iter().map(|question| Question { exclude: excluding.clone(), ..question });
    let all: Vec<Question> = weak.chain(excluding).chain(questions.clone()).collect();
    let solved = agree(&world, &all);
    assert!(solved > all.len() / 2, "only {solved} of {} had a solution", all.len());
}

#[test]
fn packages_below_serve_as_in_dnf() {
    let world = Ecosystem::new()
        .repo(
            "main",
            99,
            &owned(&[
                "lib 1-1",
                "lib 2-1",
                "app 1-1; needs lib",
                "new-app 1-1; needs lib >= 2",
                "cap-user 1-1; needs cap",
                "aaa 1-1; provides cap",
                "taker 1-1; obsoletes lib",
                "foe 1-1; conflicts lib",
                "fan 1-1; supplements lib",
                "tool 2-1",
            ]),
        )
        .below(&owned(&["lib 1-1", "zzz 1-1; provides cap; recommends aaa"]));
    let entries = ["app", "new-app", "cap-user", "cap", "taker", "foe", "fan", "tool", "zzz"];
    let mut questions: Vec<Question> = entries.iter().map(|entry| Question::install(&[entry])).collect();
    questions.extend(questions.clone().into_iter().map(|question| Question { weak: true, ..question }));
    assert!(agree(&world, &questions) > questions.len() / 2);
}

#[test]
fn random_ecosystems_are_solved_as_by_dnf() {
    for seed in 0..6 {
        let (packages, questions) = random::ecosystem(seed);
        let world = Ecosystem::new().repo("main", 99, &packages);
        let solved = agree(&world, &questions);
        assert!(solved > questions.len() / 4, "seed {seed}: only {solved} of {} solved", questions.len());
    }
}
