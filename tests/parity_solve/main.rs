//! Solving, judged by dnf: the same repositories and requests, the same packages.
//!
//! Three kinds of requests: (a) over a corpus of real packages, (b) over worlds made at random, (c) over the cases
//! in `cases/`, in the notation that [`case`] describes. A case whose answers differ on purpose says so, and
//! `docs/parity-solve.md` why.
//!
//! A test of its own kind, for its arguments and its last line, which counts; `just parity-solve --help` names them.
#![expect(clippy::print_stdout, reason = "this is the test harness")]

mod case;
mod corpus;
mod metadata;
mod package;
mod random;
mod shrink;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::case::{Case, Question};
use crate::world::{Answer, World};

/// Random requests when nothing else is asked for, and the number of the first world they are about.
const RANDOM: u32 = 800;
const SEED: u32 = 0;

const USAGE: &str = "just parity-solve [--only a|b|c] [--random REQUESTS] [--seed N] [CORPUS] [CASE...]
  a: a corpus (the directory given, or $STRATA_CORPUS); b: random repositories; c: the cases in
  tests/parity_solve/cases, or those whose names have one of the CASEs in them";

fn main() -> ExitCode {
    let wanted = Wanted::of(std::env::args().skip(1));
    let mut outcomes = Vec::new();
    if wanted.has('c') {
        outcomes.extend(written(&wanted));
    }
    if wanted.has('b') {
        let first = wanted.seed;
        let numbers = first..first + wanted.random.div_ceil(random::QUESTIONS);
        outcomes.extend(numbers.into_par_iter().with_max_len(1).map(drawn).collect::<Vec<_>>());
    }
    if let Some(root) = wanted.corpus.as_ref().filter(|_| wanted.has('a')) {
        outcomes.extend(real(root, &wanted));
    }
    let (requests, differences) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("parity-solve: {requests} requests, {differences} differences");
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the arguments ask for.
struct Wanted {
    only: Option<char>,
    random: u32,
    seed: u32,
    corpus: Option<PathBuf>,
    /// Parts of the names of cases; none are all.
    filters: Vec<String>,
}

impl Wanted {
    fn of(mut args: impl Iterator<Item = String>) -> Self {
        let corpus = std::env::var_os("STRATA_CORPUS").map(PathBuf::from);
        let mut wanted = Self { only: None, random: RANDOM, seed: SEED, corpus, filters: Vec::new() };
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect(USAGE);
            match arg.as_str() {
                "--help" => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                "--only" => wanted.only = value().chars().next(),
                "--random" => wanted.random = value().parse().expect(USAGE),
                "--seed" => wanted.seed = value().parse().expect(USAGE),
                // the test harness's own, such as --quiet
                _ if arg.starts_with('-') => {}
                _ if Path::new(&arg).is_dir() => wanted.corpus = Some(arg.into()),
                _ => wanted.filters.push(arg),
            }
        }
        wanted
    }

    /// Whether requests of a kind are wanted; names of cases ask for cases alone.
    fn has(&self, kind: char) -> bool {
        self.only.map_or(self.filters.is_empty() || kind == 'c', |only| only == kind)
    }
}

/// Requests and differences among them.
type Outcome = (usize, usize);

fn written(wanted: &Wanted) -> Vec<Outcome> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let explained = std::fs::read_to_string(source.join("docs/parity-solve.md")).unwrap();
    let named = |name: &str| {
        wanted.filters.is_empty() || wanted.filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let cases = Case::all(&source.join("tests/parity_solve/cases"), named);
    cases.par_iter().with_max_len(1).map(|case| judge(case, &explained)).collect()
}

/// Asks both about a written case.
fn judge(case: &Case, explained: &str) -> Outcome {
    let world = World::build(&case.sketch);
    let questions: Vec<&Question> = case.questions.iter().map(|(question, _)| question).collect();
    let mut told = Vec::new();
    for ((question, differs), (strata, dnf)) in case.questions.iter().zip(both(&world, &questions)) {
        match (differs, strata == dnf) {
            (false, false) => told.push(show(question, &strata, &dnf)),
            (true, true) => told.push(format!("differs no more: {question}")),
            _ => {}
        }
    }
    if case.questions.iter().any(|(_, differs)| *differs) && !explained.contains(&format!("`{}`", case.name))
    {
        told.push("docs/parity-solve.md does not say why it differs".to_owned());
    }
    say(&case.name, &told);
    (questions.len(), told.len())
}

/// Asks both about a random world; the first difference of all worlds is shown as small as it can be made.
fn drawn(number: u32) -> Outcome {
    static SHOWN: AtomicBool = AtomicBool::new(false);
    let case = random::case(number);
    let questions: Vec<&Question> = case.questions.iter().map(|(question, _)| question).collect();
    let answers = both(&World::build(&case.sketch), &questions);
    let differing: Vec<_> =
        questions.iter().zip(&answers).filter(|(_, (strata, dnf))| strata != dnf).collect();
    let told: Vec<String> =
        differing.iter().map(|(question, (strata, dnf))| show(question, strata, dnf)).collect();
    say(&case.name, &told);
    if let Some((question, _)) = differing.first()
        && !SHOWN.swap(true, Ordering::Relaxed)
    {
        let (sketch, question) = shrink::smallest(case.sketch, (**question).clone());
        let (strata, dnf) = both(&World::build(&sketch), &[&question]).remove(0);
        say(&format!("{}, smallest", case.name), &[format!("{}\n{sketch}", show(&question, &strata, &dnf))]);
    }
    (questions.len(), told.len())
}

fn real(root: &Path, wanted: &Wanted) -> Vec<Outcome> {
    let worlds = corpus::worlds(root);
    let share = wanted.random.div_ceil(u32::try_from(worlds.len()).expect("four"));
    let judge = |(index, (name, world)): (usize, &(String, World))| {
        let questions = corpus::questions(root, world, u64::from(wanted.seed) + index as u64, share);
        let questions: Vec<&Question> = questions.iter().collect();
        let answers = both(world, &questions);
        let differing = questions.iter().zip(&answers).filter(|(_, (strata, dnf))| strata != dnf);
        let told: Vec<String> =
            differing.map(|(question, (strata, dnf))| show(question, strata, dnf)).collect();
        say(name, &told);
        (questions.len(), told.len())
    };
    worlds.par_iter().enumerate().with_max_len(1).map(judge).collect()
}

/// The answers of strata and of dnf.
pub fn both(world: &World, questions: &[&Question]) -> Vec<(Answer, Answer)> {
    let (strata, dnf) = rayon::join(|| world.strata(questions), || world.dnf(questions));
    strata.into_iter().zip(dnf).collect()
}

/// What only one of both has.
fn show(question: &Question, strata: &Answer, dnf: &Answer) -> String {
    let only = |one: &Answer, other: &Answer| match (one, other) {
        (None, _) => "no solution".to_owned(),
        (Some(one), None) => format!("{one:?}"),
        (Some(one), Some(other)) => format!("{:?}", one.difference(other).collect::<Vec<_>>()),
    };
    format!("ask {question}\n  strata: {}\n  dnf:    {}", only(strata, dnf), only(dnf, strata))
}

/// Reports at once, as others do so at the same time.
fn say(name: &str, differences: &[String]) {
    let verdict = if differences.is_empty() { "ok" } else { "DIFFERS" };
    let lines: String = differences.iter().map(|d| format!("\n    {}", d.replace('\n', "\n    "))).collect();
    println!("parity-solve {name} ... {verdict}{lines}");
}
