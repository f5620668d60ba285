//! What tests of exchange share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use strata::lock::{Action, LockedPackage, Lockfile};
use tempfile::TempDir;

use crate::world::run;

/// A file beside these tests.
pub fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchange").join(name)
}

/// A real file.
pub fn real(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/exchange").join(name)
}

/// Fails unless the reader of such files takes it.
pub fn accept(kind: &str, file: &Path) {
    run(Command::new("/usr/bin/python3").arg(beside("accept.py")).arg(kind).arg(file));
}

/// A YAML or JSON file, read by PyYAML.
pub fn yaml(file: &Path) -> Value {
    // YAML's dates are no JSON
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout, default=lambda t: t.strftime('%Y-%m-%dT%H:%M:%SZ'))";
    let text = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(file));
    serde_json::from_str(&text).unwrap()
}

/// A directory to import into and export from.
pub struct Desk(TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
        command.args(args).current_dir(self.0.path()).env("STRATA_STORE", self.path("store"));
        command
    }

    /// Runs strata, which must succeed; gives its standard output.
    pub fn strata(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    /// Runs strata, which must fail and write nothing; gives its standard error.
    pub fn refused(&self, args: &[&str]) -> String {
        let before = self.tree();
        let output = self.command(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert_eq!(self.tree(), before, "{args:?} left something behind");
        stderr
    }

    /// Every file, and what it holds.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut left = vec![self.0.path().to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => left.push(entry.path()),
                    false => _ = files.insert(entry.path(), fs::read(entry.path()).unwrap()),
                }
            }
        }
        files
    }
}

/// What is compared of a lock that went through another format. Removals no other format has.
pub fn packages(lock: &Path) -> Vec<Value> {
    let text = fs::read_to_string(lock).unwrap();
    let lock = Lockfile::parse(&text, lock).unwrap();
    lock.packages.iter().filter(|package| package.action != Action::Remove).map(package).collect()
}

fn package(package: &LockedPackage) -> Value {
    let LockedPackage { name, evr, arch, repo, location, sha256, size, source, .. } = package;
    json!([name, evr.to_string(), arch, repo, location, sha256.map(|digest| digest.hex()), size, source])
}
