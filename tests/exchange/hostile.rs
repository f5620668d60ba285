//! Files that somebody else wrote badly, or meanly: told with file and line or field, and nothing written.

use std::fs;

use crate::tools::Desk;

/// A Konflux lock of one package, some of whose lines are others.
fn lock(from: &str, to: &str) -> String {
    const LOCK: &str = "\
lockfileVersion: 1
lockfileVendor: redhat
arches:
- arch: x86_64
  packages:
  - url: https://h/r/os/Packages/a/a-1-1.x86_64.rpm
    repoid: r
    size: 5
    checksum: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    name: a
    evr: 1-1
";
    assert!(LOCK.contains(from), "{from}");
    LOCK.replace(from, to)
}

#[test]
fn bad_konflux_locks_are_refused_with_the_reason() {
    for (from, to, told) in [
        ("lockfileVersion: 1", "lockfileVersion: 2", "lockfileVersion is 2"),
        ("redhat", "debian", "lockfileVendor `debian`"),
        ("size: 5", "size: -5", "rpms.lock.yaml:8: "),
        ("size: 5", "size: 18446744073709551615", "a size of 18446744073709551615 bytes"),
        ("  packages:", " packages:\n -", "rpms.lock.yaml:"),
        ("arch: x86_64", "arch: m68k", "unknown architecture `m68k`"),
        ("sha256:e3", "md5:e3", "its checksum is md5"),
        ("sha256:e3", "sha256:zz", "not a digest"),
        ("evr: 1-1", "evr: 'x:1'", "is not an EVR"),
        ("a-1-1.x86_64.rpm", "a.rpm", "the file is not called NAME-VERSION-RELEASE.ARCH.rpm"),
        ("os/Packages/a/a-1", "os/Packages/../../a-1", "leaves the repository"),
        ("name: a", "name: ''", "no name"),
        ("name: a", "name: \"a\\nb\"", "cannot be said in manifests"),
        ("repoid: r", "repoid: '../r'", "cannot be said in manifests"),
        ("https://h", "gopher://h", "cannot be said in manifests"),
        ("https://h/r/os/Packages/a/", "", "share no base URL"),
    ] {
        let desk = Desk::new();
        fs::write(desk.path("rpms.lock.yaml"), lock(from, to)).unwrap();
        let error = desk.refused(&["import", "konflux-lock", "rpms.lock.yaml"]);
        assert!(error.contains(told), "{to}: {error}");
    }
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let desk = Desk::new();
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        text += &format!("a{n}: &a{n} [{aliases}]\n");
    }
    fs::write(
        desk.path("rpms.lock.yaml"),
        text + "arches: *a11\nlockfileVersion: 1\nlockfileVendor: redhat\n",
    )
    .unwrap();
    desk.refused(&["import", "konflux-lock", "rpms.lock.yaml"]);
}

#[test]
fn bad_rpm_ostree_locks_are_refused_with_the_reason() {
    for (text, told) in [
        ("{", "manifest-lock.x86_64.json:1: EOF"),
        (r#"{"packages": {}, "more": 1}"#, "manifest-lock.x86_64.json:1: unknown field `more`"),
        (r#"{"packages": {"a": {"evr": "1-1"}}}"#, "it has no `evra`"),
        (r#"{"packages": {"a": {"evra": "x86_64"}}}"#, "is no EVR with architecture"),
        (r#"{"packages": {"a": {"evra": "1-1.x86_64", "digest": "md5:0"}}}"#, "its checksum is md5"),
        (r#"{"packages": {"a b": {"evra": "1-1.x86_64"}}}"#, "cannot be said in manifests"),
        (
            r#"{"packages": {}, "metadata": {"rpmmd_repos": {"r": {"generated": "1950-01-01T00:00:00Z"}}}}"#,
            "repository r is dated 1950",
        ),
    ] {
        let desk = Desk::new();
        fs::write(desk.path("manifest-lock.x86_64.json"), text).unwrap();
        let error = desk.refused(&["import", "rpm-ostree-lock", "manifest-lock.x86_64.json"]);
        assert!(error.contains(told), "{text}: {error}");
    }
    let desk = Desk::new();
    fs::write(desk.path("lock.json"), r#"{"packages": {}}"#).unwrap();
    let error = desk.refused(&["import", "rpm-ostree-lock", "lock.json"]);
    assert!(error.contains("does not say its architecture"), "{error}");
}

#[test]
fn a_stream_cannot_be_called_out_of_the_manifests() {
    let desk = Desk::new();
    fs::write(desk.path("rpms.lock.yaml"), lock("size: 5", "size: 6")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_strata"));
    let args = ["import", "konflux-lock", "rpms.lock.yaml", "--stream", "../up"];
    let output = command.args(args).current_dir(desk.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
