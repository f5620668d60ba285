//! strata against dnf on a snapshot of real packages: same packages, same tree.
//!
//! Not part of `just test`, for its size: `just test-corpus CORPUS SIZE` runs it.

#[path = "parity/mod.rs"]
mod parity;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// What rpm finds changed, but for times and for the directory that is a mount while dnf runs.
fn verify(root: &Path) -> Vec<String> {
    let report = parity::rpm(root, &["-Va", "--nomtime"]);
    report.lines().filter(|line| !line.ends_with(" /proc")).map(str::to_owned).collect()
}

#[test]
fn dnf_makes_the_same_tree() {
    let corpus = PathBuf::from(env::var_os("STRATA_CORPUS").expect("STRATA_CORPUS names the corpus"));
    let size = env::var("STRATA_CORPUS_SIZE").expect("STRATA_CORPUS_SIZE names one of its sizes");
    let (snapshot, key) = (corpus.join(size).join("2025-02-03"), corpus.join("keys/RPM-GPG-KEY-strata-test"));
    let work = tempfile::Builder::new().prefix("strata-corpus-").tempdir_in("/var/tmp").unwrap();
    let work = work.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(Command::new(source.join("benches/snapshot-stream.sh"))
        .arg(&snapshot)
        .arg(&key)
        .arg(work.join("manifests")));
    for command in ["lock", "build"] {
        run(Command::new(env!("CARGO_BIN_EXE_strata"))
            .args([command, "corpus"])
            .current_dir(work)
            .env("STRATA_STORE", work.join("store")));
    }
    let node = format!("oci:{}:corpus/node", work.join("store/images").display());
    let layout = format!("oci:{}:node", work.join("layout").display());
    run(Command::new("skopeo").args(["copy", "--quiet", &node, &layout]));
    let image = format!("{}:node", work.join("layout").display());
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(work.join("bundle")));
    let ours = work.join("bundle/rootfs");
    let theirs = parity::dnf_root(&snapshot, &key, work);
    assert_eq!(parity::packages(&ours), parity::packages(&theirs));
    let differences = parity::differences(&parity::tree(&ours), &parity::tree(&theirs));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(verify(&ours), verify(&theirs));
    let report = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["--format", "json", "verify", "corpus/node"])
        .env("STRATA_STORE", work.join("store"))
        .output()
        .unwrap();
    let report = serde_json::from_slice(&report.stdout).unwrap();
    let findings = parity::rpm_findings(&ours);
    assert!(!findings.is_empty(), "one scriptlet of the corpus edits a configuration file");
    assert_eq!(parity::findings(&report), findings);
}
