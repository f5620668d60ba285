//! Packages that others publish for their own tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Those of the rpm crate, which lie beside its source: formats 4 and 6, by every compressor, signed with keys of
/// every kind, with IMA signatures, hard links, translations, rich dependencies, every scriptlet; source packages.
pub fn of_the_rpm_crate() -> Vec<PathBuf> {
    // The build fetched the crates of this platform alone; asked of every platform, cargo would want the others'.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = stdout(
        Command::new(env!("CARGO"))
            .args(["metadata", "--offline", "--locked", "--format-version=1", "--filter-platform", &host])
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let is_rpm = |package: &&serde_json::Value| package["name"] == "rpm";
    let package = metadata["packages"].as_array().unwrap().iter().find(is_rpm).unwrap();
    let source = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
    let packages = below(&source.join("tests/assets"));
    assert!(packages.len() > 30, "{packages:?}");
    packages
}

/// The packages below a directory, sorted.
pub fn below(directory: &Path) -> Vec<PathBuf> {
    let found = stdout(Command::new("find").arg(directory).args(["-type", "f", "-name", "*.rpm"]));
    let mut packages: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
    packages.sort();
    packages
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
