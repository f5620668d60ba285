//! What an overlay leaves in its upper directory is what an image layer can say.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use strata::sandbox::{mount_overlay, unmount};

use crate::Check;
use crate::fixture::Fixture;

pub const CHECKS: &[Check] =
    &[("layers_stack", layers_stack), ("deltas_are_plain", deltas_are_plain), ("odd_names", odd_names)];

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn layers_stack() {
    let fixture = Fixture::new();
    let dirs: Vec<_> = (0..40).map(|n| fixture.scratch(&format!("a-layer-with-a-long-name-{n}"))).collect();
    for (n, dir) in dirs.iter().enumerate() {
        write(&dir.join("same"), &n.to_string());
        write(&dir.join(format!("own/{n}")), "");
    }
    let [upper, work, target] = ["upper", "work", "target"].map(|name| fixture.scratch(name));
    let lower: Vec<_> = dirs.iter().map(|dir| dir.as_path()).collect();
    mount_overlay(&lower, &upper, &work, &target).unwrap();
    assert_eq!(fs::read_to_string(target.join("same")).unwrap(), "0", "the first is on top");
    assert_eq!(fs::read_dir(target.join("own")).unwrap().count(), 40);
    unmount(&target).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    // the same directories again, as after an interruption
    mount_overlay(&lower, &upper, &work, &target).unwrap();
    unmount(&target).unwrap();
}

fn deltas_are_plain() {
    let fixture = Fixture::new();
    let [lower, upper, work, target] = ["lower", "upper", "work", "target"].map(|name| fixture.scratch(name));
    for file in ["gone", "mode", "dir/a", "again/old", "moved/x"] {
        write(&lower.join(file), "lower");
    }
    mount_overlay(&[&lower], &upper, &work, &target).unwrap();
    fs::remove_file(target.join("gone")).unwrap();
    fs::remove_dir_all(target.join("dir")).unwrap();
    fs::remove_dir_all(target.join("again")).unwrap();
    write(&target.join("again/new"), "upper");
    std::os::unix::fs::chown(target.join("mode"), Some(7), Some(8)).unwrap();
    let moved = Command::new("mv").args(["moved", "to"]).current_dir(&target).status().unwrap();
    assert!(moved.success());
    unmount(&target).unwrap();

    let whiteout = |name: &str| {
        let meta = fs::symlink_metadata(upper.join(name)).unwrap();
        meta.file_type().is_char_device() && meta.rdev() == 0
    };
    assert!(whiteout("gone") && whiteout("dir") && whiteout("moved"));
    assert_eq!(fs::read_to_string(upper.join("mode")).unwrap(), "lower", "content comes along");
    assert_eq!(fs::metadata(upper.join("mode")).unwrap().uid(), 7);
    assert_eq!(fs::read_to_string(upper.join("to/x")).unwrap(), "lower");
    assert_eq!(fs::read_dir(upper.join("again")).unwrap().count(), 1, "opaque, not a whiteout per file");
    assert_eq!(xattrs(&upper), ["again: user.overlay.opaque=\"y\""]);
}

/// The `user.overlay` attributes below `dir`, by the real tool, but those with which the kernel helps itself.
fn xattrs(dir: &Path) -> Vec<String> {
    let output =
        Command::new("getfattr").args(["-R", "-d", "-m", "user.overlay", "."]).current_dir(dir).output();
    let text = String::from_utf8(output.expect("getfattr, of attr").stdout).unwrap();
    let mut found = Vec::new();
    for block in text.split("\n\n") {
        let mut lines = block.lines();
        let name = lines.next().unwrap_or_default().trim_start_matches("# file: ");
        let helpers = ["user.overlay.impure", "user.overlay.origin", "user.overlay.uuid"];
        let lines = lines.filter(|line| !helpers.iter().any(|helper| line.starts_with(helper)));
        found.extend(lines.map(|line| format!("{name}: {line}")));
    }
    found.sort();
    found
}

fn odd_names() {
    let fixture = Fixture::new();
    let dir = fixture.scratch("a:b,c\\d e");
    let [lower, upper, work, target] = ["l:1", "u,2", "w\\3", "t 4"].map(|name| dir.join(name));
    for dir in [&lower, &upper, &work, &target] {
        fs::create_dir(dir).unwrap();
    }
    write(&lower.join("file"), "here");
    mount_overlay(&[&lower], &upper, &work, &target).unwrap();
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "here");
    unmount(&target).unwrap();
    let error = mount_overlay(&[&dir.join("missing")], &upper, &work, &target).unwrap_err();
    assert!(format!("{error:#}").contains("missing"));
}
