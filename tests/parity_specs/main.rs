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
mod rig;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use rayon::prelude::*;

use crate::case::Case;
use crate::rig::Rig;

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
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = Case::all(&source.join("tests/parity_specs/cases"), wanted);
    let rig = Rig::new();
    let results: Vec<Vec<String>> = cases.par_iter().with_max_len(1).map(|case| judge(&rig, case)).collect();
    let explained = std::fs::read_to_string(source.join("docs/parity.md")).unwrap();
    let mut failed = 0;
    for (case, mut differences) in cases.iter().zip(results) {
        if !case.differs.is_empty() && !explained.contains(&format!("`{}`", case.name)) {
            differences.push("docs/parity.md does not say why it differs".to_owned());
        }
        failed += usize::from(!differences.is_empty());
        let verdict = match (differences.is_empty(), case.differs.is_empty()) {
            (true, true) => "ok",
            (true, false) => "ok, differs as described",
            (false, _) => "DIFFERS",
        };
        println!("parity {} ... {verdict}", case.name);
        for difference in differences {
            println!("    {}", difference.replace('\n', "\n    "));
        }
    }
    println!("parity: {} cases, {failed} differences", cases.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a case; the differences nobody expected, and the expected ones that are missing. A step that panics
/// is a difference too.
fn judge(rig: &Rig, case: &Case) -> Vec<String> {
    let found = catch_unwind(AssertUnwindSafe(|| rig.run(case)));
    let found = found.unwrap_or_else(|_| vec!["the case came to no end".to_owned()]);
    let unseen = case.differs.iter().filter(|expected| !found.iter().any(|f| f.contains(*expected)));
    let unseen: Vec<String> = unseen.map(|expected| format!("differs no more: {expected}")).collect();
    let is_expected = |f: &String| case.differs.iter().any(|expected| f.contains(expected));
    found.into_iter().filter(|f| !is_expected(f)).chain(unseen).collect()
}
