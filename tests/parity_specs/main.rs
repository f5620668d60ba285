//! strata's installer beside rpm: small packages, a rule to each case, the same steps with both, no difference.
//!
//! A case is a file in `cases/`, in the notation that [`case`] describes. Its packages are built by rpmbuild.
//! After every step the two roots are compared in all that [`compare`] looks at. Where strata differs on
//! purpose the case says in what, and `docs/parity.md` why.
//!
//! A test of its own kind, as `main` enters the sandbox's namespace before any thread exists. Arguments are
//! parts of the names of cases to run; the last line counts.
#![expect(clippy::print_stdout, reason = "this is the test harness")]

mod case;
#[expect(dead_code, reason = "the scriptlets here really run, so the half that records them is not needed")]
#[path = "../install/common.rs"]
mod common;
mod compare;
mod package;
mod random;
mod rig;
mod sketch;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use rayon::prelude::*;

use crate::case::Case;
use crate::rig::Rig;
use crate::sketch::Sketch;

/// How many random cases run when nothing else is asked for.
const RANDOM: u32 = 32;

fn main() -> ExitCode {
    match strata::sandbox::enter_namespace() {
        Ok(None) => run(),
        Ok(Some(0)) => ExitCode::SUCCESS,
        Ok(Some(_)) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> ExitCode {
    let wanted = Wanted::of(std::env::args().skip(1));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let explained = std::fs::read_to_string(source.join("docs/parity.md")).unwrap();
    let rig = Rig::new();
    let cases = Case::all(&source.join("tests/parity_specs/cases"), |name| wanted.case(name));
    let written = cases.par_iter().with_max_len(1).map(|case| judge(&rig, case, &explained));
    let drawn =
        wanted.random.clone().into_par_iter().with_max_len(1).map(|number| judge_random(&rig, number));
    let verdicts: Vec<bool> = written.chain(drawn).collect();
    let failed = verdicts.iter().filter(|same| !**same).count();
    println!("parity: {} cases, {failed} differences", verdicts.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the arguments ask for.
struct Wanted {
    /// Parts of the names of written cases; none are all.
    filters: Vec<String>,
    /// Numbers of random cases.
    random: Range<u32>,
    /// Whether written cases run at all.
    written: bool,
}

impl Wanted {
    fn of(mut args: impl Iterator<Item = String>) -> Self {
        let (mut filters, mut count, mut seed) = (Vec::new(), None, 0);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|n| n.parse().ok()).expect("a number follows");
            match arg.as_str() {
                "--random" => count = Some(number()),
                "--seed" => seed = number(),
                // the test harness's own, such as --quiet
                _ if arg.starts_with('-') => {}
                _ => filters.push(arg),
            }
        }
        let written = count.is_none() || !filters.is_empty();
        let count = count.unwrap_or(if filters.is_empty() { RANDOM } else { 0 });
        Self { filters, random: seed..seed + count, written }
    }

    fn case(&self, name: &str) -> bool {
        self.written
            && (self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str())))
    }
}

/// Whether a case has no difference but those it expects; says so.
fn judge(rig: &Rig, case: &Case, explained: &str) -> bool {
    let found = run_case(rig, case).unwrap_or_else(|| vec!["the case came to no end".to_owned()]);
    let unseen = case.differs.iter().filter(|expected| !found.iter().any(|f| f.contains(*expected)));
    let unseen: Vec<String> = unseen.map(|expected| format!("differs no more: {expected}")).collect();
    let is_expected = |f: &String| case.differs.iter().any(|expected| f.contains(expected));
    let mut differences: Vec<String> = found.into_iter().filter(|f| !is_expected(f)).chain(unseen).collect();
    if !case.differs.is_empty() && !explained.contains(&format!("`{}`", case.name)) {
        differences.push("docs/parity.md does not say why it differs".to_owned());
    }
    let verdict = if case.differs.is_empty() { "ok" } else { "ok, differs as described" };
    say(&case.name, verdict, &differences);
    differences.is_empty()
}

/// Whether a random case has no difference. One that has is shown as small as it can be made.
fn judge_random(rig: &Rig, number: u32) -> bool {
    let run = |sketch: &Sketch| run_case(rig, &Case::parse("random".to_owned(), &sketch.to_string()));
    let sketch = random::sketch(number);
    let shown = match run(&sketch) {
        Some(found) if found.is_empty() => Vec::new(),
        Some(_) => {
            let smallest = sketch.shrunk(|sketch| run(sketch).is_some_and(|found| !found.is_empty()));
            let mut shown = run(&smallest).unwrap_or_default();
            shown.push(smallest.to_string());
            shown
        }
        None => vec!["the case came to no end".to_owned(), sketch.to_string()],
    };
    say(&format!("random-{number}"), "ok", &shown);
    shown.is_empty()
}

/// All that is different after any step; none if a step panics.
fn run_case(rig: &Rig, case: &Case) -> Option<Vec<String>> {
    catch_unwind(AssertUnwindSafe(|| rig.run(case))).ok()
}

/// Reports a case at once, as others do so at the same time.
fn say(name: &str, verdict: &str, differences: &[String]) {
    let verdict = if differences.is_empty() { verdict } else { "DIFFERS" };
    let lines: String = differences.iter().map(|d| format!("\n    {}", d.replace('\n', "\n    "))).collect();
    println!("parity {name} ... {verdict}{lines}");
}
