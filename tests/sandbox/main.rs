//! Foreign code in the sandbox, as root and as an ordinary user: the same view inside, nothing of the host.
//!
//! A test of its own kind: `main` enters the namespace before any thread exists, so there is no libtest.
//! Run by root, all checks run a second time as the user `stratatest` (who needs a subuid range).
#![expect(clippy::print_stdout, reason = "this is the test harness")]

mod bounds;
mod confinement;
mod fixture;
mod lua;
mod namespace;
mod overlay;

use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A check and its name; a check fails by panicking.
type Check = (&'static str, fn());

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if let (Some(namespace::CHILD), Some(code)) = (args.next().as_deref(), args.next()) {
        return namespace::child(&code);
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let as_user = if rustix::process::geteuid().is_root() { run_as_user(&filters) } else { true };
    match strata::sandbox::enter_namespace() {
        Ok(Some(0)) if as_user => ExitCode::SUCCESS,
        Ok(Some(_)) => ExitCode::FAILURE,
        Ok(None) => run(&filters),
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(filters: &[String]) -> ExitCode {
    let checks =
        [namespace::CHECKS, confinement::CHECKS, bounds::CHECKS, overlay::CHECKS, lua::CHECKS].concat();
    let mut failed = 0;
    for (name, check) in checks {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let ok = catch_unwind(check).is_ok();
        failed += i32::from(!ok);
        println!("sandbox {name} ... {}", if ok { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program as `stratatest`, from a directory that user can read.
fn run_as_user(filters: &[String]) -> bool {
    let dir = tempfile::Builder::new().prefix("strata-test-").tempdir().unwrap();
    fixture::chmod(dir.path(), 0o755);
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let test = copy(&std::env::current_exe().unwrap(), "test");
    let strata = copy(&fixture::strata(), "strata");
    println!("as stratatest:");
    let status = Command::new("runuser")
        .args(["-u", "stratatest", "--"])
        .arg(test)
        .args(filters)
        .env("STRATA_TEST_EXE", strata)
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .status();
    println!("as root:");
    status.expect("runuser, of util-linux").success()
}
