//! `strata lint` on small trees, each of which breaks one rule or is an exception to it. bootc is not packaged for
//! the machines that run these tests: what its rules mean was read from its source (`crates/lib/src/lints.rs`).
//!
//! Needs root, for owners and device nodes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A tree that keeps all rules.
const CLEAN: &str = "
base=usr/share/doc/bootc/baseimage/base
mkdir -p boot dev etc proc run sys sysroot tmp usr/lib/modules/6.1 usr/lib/ostree var
mkdir -p usr/lib/sysusers.d usr/lib/tmpfiles.d usr/lib/bootc/kargs.d
chmod 1777 tmp
ln -s sysroot/ostree ostree
touch usr/lib/modules/6.1/vmlinuz usr/lib/modules/6.1/initramfs.img etc/machine-id
printf '[composefs]\\nenabled = true\\n' > usr/lib/ostree/prepare-root.conf
echo 'kargs = [\"quiet\"]' > usr/lib/bootc/kargs.d/a.toml
echo 'root:x:0:0::/root:/bin/sh' > etc/passwd
echo 'root:x:0:' > etc/group
echo 'u root 0 - /root' > usr/lib/sysusers.d/basic.conf
";

/// What is done to the clean tree, the rule it breaks, and the paths that are named.
const BROKEN: &[(&str, &str, &[&str])] = &[
    ("rmdir sys", "api-base-directories", &["/sys"]),
    ("rmdir proc; ln -s run proc", "api-base-directories", &["/proc"]),
    ("rm usr/lib/ostree/*", "baseimage-composefs", &["/usr/lib/ostree/prepare-root.conf"]),
    ("sed -i s/true/no/ usr/lib/ostree/*", "baseimage-composefs", &["/usr/lib/ostree/prepare-root.conf"]),
    (
        "sed -i s/composefs/root/ usr/lib/ostree/*",
        "baseimage-composefs",
        &["/usr/lib/ostree/prepare-root.conf"],
    ),
    (
        "echo broken > usr/lib/ostree/prepare-root.conf",
        "baseimage-composefs",
        &["/usr/lib/ostree/prepare-root.conf"],
    ),
    // the administrator's file counts alone
    (
        "mkdir etc/ostree; echo '[root]' > etc/ostree/prepare-root.conf",
        "baseimage-composefs",
        &["/etc/ostree/prepare-root.conf"],
    ),
    ("rmdir sysroot", "baseimage-root", &["/sysroot"]),
    ("rmdir sysroot; ln -s run sysroot", "baseimage-root", &["/sysroot"]),
    ("rm ostree", "baseimage-root", &["/ostree"]),
    ("rm ostree; mkdir ostree", "baseimage-root", &["/ostree"]),
    ("rm ostree; ln -s /sysroot/ostree ostree", "baseimage-root", &["/ostree"]),
    (
        "mkdir -p $base/usr/lib; cp -r usr/lib/ostree $base/usr/lib",
        "baseimage-root",
        &["/usr/share/doc/bootc/baseimage/base/ostree", "/usr/share/doc/bootc/baseimage/base/sysroot"],
    ),
    (
        "mkdir -p $base/sysroot; cp -P ostree $base",
        "baseimage-composefs",
        &["/usr/share/doc/bootc/baseimage/base/usr/lib/ostree/prepare-root.conf"],
    ),
    (
        "echo 'kargs = \"quiet\"' > usr/lib/bootc/kargs.d/b.toml",
        "bootc-kargs",
        &["/usr/lib/bootc/kargs.d/b.toml"],
    ),
    ("echo 'args = []' >> usr/lib/bootc/kargs.d/a.toml", "bootc-kargs", &["/usr/lib/bootc/kargs.d/a.toml"]),
    ("touch usr/lib/bootc/kargs.d/b.toml", "bootc-kargs", &["/usr/lib/bootc/kargs.d/b.toml"]),
    ("touch etc/hostname etc/resolv.conf", "buildah-injected", &["/etc/hostname", "/etc/resolv.conf"]),
    ("mkdir usr/etc", "etc-usretc", &["/usr/etc"]),
    (
        "cp -r usr/lib/modules/6.1 usr/lib/modules/6.2",
        "kernel",
        &["/usr/lib/modules/6.1/vmlinuz", "/usr/lib/modules/6.2/vmlinuz"],
    ),
    (
        "mkdir usr/lib/modules/6.2; touch usr/lib/modules/6.2/initramfs.img
         ln -s ../6.1/vmlinuz usr/lib/modules/6.2/vmlinuz",
        "kernel",
        &["/usr/lib/modules/6.1/vmlinuz", "/usr/lib/modules/6.2/vmlinuz"],
    ),
    ("rmdir boot", "nonempty-boot", &["/boot"]),
    ("mkdir boot/grub2; touch boot/grub2/grub.cfg", "nonempty-boot", &["/boot/grub2"]),
    ("mkdir run/a; touch run/a/b tmp/c", "nonempty-run-tmp", &["/run/a", "/run/a/b", "/tmp/c"]),
    (
        "mkdir -p run/systemd/resolve; touch run/systemd/resolve/stub-resolv.conf run/systemd/x",
        "nonempty-run-tmp",
        &["/run/systemd", "/run/systemd/x"],
    ),
    ("echo ann:x:5:0::/:/bin/sh >> etc/passwd", "sysusers", &["/etc/passwd"]),
    ("echo crew:x:6: >> etc/group", "sysusers", &["/etc/group"]),
    (
        "mkdir etc/sysusers.d; mv usr/lib/sysusers.d/* etc/sysusers.d",
        "sysusers",
        &["/etc/group", "/etc/passwd"],
    ),
    ("touch \"$(printf 'usr/a\\377')\"", "utf8", &["/usr/a\\xff"]),
    ("ln -s \"$(printf '\\377')\" usr/a", "utf8", &["/usr/a"]),
    (
        "mkdir -p var/log/a; echo x > var/log/a/b; touch var/log/c
         printf 'd /var/log\\nd /var/log/a\\nf /var/log/a/b\\nf /var/log/c\\n' > usr/lib/tmpfiles.d/log.conf",
        "var-log",
        &["/var/log/a/b"],
    ),
    ("mkdir var/run; echo 'd /var/run' > usr/lib/tmpfiles.d/run.conf", "var-run", &["/var/run"]),
    ("mkdir var/a; touch var/a/b; ln -s a var/c", "var-tmpfiles", &["/var/a", "/var/a/b", "/var/c"]),
    // lines that make nothing
    (
        "mkdir var/a; printf 'z /var/a\\n#d /var/a\\nd /var/%%m\\n' > usr/lib/tmpfiles.d/a.conf",
        "var-tmpfiles",
        &["/var/a"],
    ),
    ("mkdir var/a; echo 'd /var/a' > usr/lib/tmpfiles.d/a.txt", "var-tmpfiles", &["/var/a"]),
    (
        "mkdir var/a etc/tmpfiles.d; echo 'd /var/a' > usr/lib/tmpfiles.d/a.conf
         ln -s /dev/null etc/tmpfiles.d/a.conf",
        "var-tmpfiles",
        &["/var/a"],
    ),
    ("rm usr/lib/modules/6.1/initramfs.img", "initramfs", &["/usr/lib/modules/6.1/initramfs.img"]),
    ("rm usr/lib/modules/6.1/vmlinuz", "initramfs", &["/usr/lib/modules"]),
    ("touch etc/passwd- etc/a.rpmnew", "leftovers", &["/etc/a.rpmnew", "/etc/passwd-"]),
    ("echo 5ba4c9c2 > etc/machine-id", "machine-id", &["/etc/machine-id"]),
    ("mkdir dev/pts sysroot/ostree", "nonempty-mountpoints", &["/dev/pts", "/sysroot/ostree"]),
    ("mkdir etc/ssh; touch etc/ssh/ssh_host_rsa_key", "secrets", &["/etc/ssh/ssh_host_rsa_key"]),
    ("mkfifo usr/a; mknod usr/b c 1 3", "special-files", &["/usr/a", "/usr/b"]),
    ("touch usr/a usr/b; chown 4242 usr/a; chgrp 4242 usr/b", "unknown-owners", &["/usr/a", "/usr/b"]),
    ("mkdir -m 777 usr/a; touch usr/b; chmod 666 usr/b", "world-writable", &["/usr/a", "/usr/b"]),
];

/// What is done to the clean tree without breaking a rule.
const KEPT: &[&str] = &[
    "true",
    "for v in signed verity maybe yes 1; do sed -i \"s/= .*/= $v/\" usr/lib/ostree/*; done",
    "printf '# c\\n[root]\\ntransient=true\\n' > usr/lib/ostree/prepare-root.conf",
    "mkdir -p $base/sysroot $base/usr/lib; cp -P ostree $base; cp -r usr/lib/ostree $base/usr/lib",
    "echo 'match-architectures = [\"none\"]' >> usr/lib/bootc/kargs.d/a.toml; echo = > usr/lib/bootc/kargs.d/README",
    "rm -r usr/lib/bootc etc/passwd etc/group etc/machine-id usr/lib/tmpfiles.d",
    "echo localhost > etc/hostname; ln -s ../run/x etc/resolv.conf",
    "mv etc usr/etc",
    "mkdir usr/lib/modules/6.2; ln -s nowhere usr/lib/modules/6.2/vmlinuz; ln -s 6.1 usr/lib/modules/link",
    "rm -r usr/lib/modules",
    "mkdir -p boot/EFI/Linux; mkdir -p run/systemd/resolve; touch run/systemd/resolve/stub-resolv.conf",
    "echo 'ann:x:5:6::/:/bin/sh' >> etc/passwd; printf 'ann:x:6:\\ncrew:x:7:ann\\n' >> etc/group
     printf 'u ann 5\\nm ann crew\\ng crew 7\\n' > usr/lib/sysusers.d/a.conf",
    "ln -s ../run var/run; echo 'L /var/run - - - - ../run' > usr/lib/tmpfiles.d/run.conf",
    "mkdir -p var/roothome/.ssh; ln -s var/roothome root
     printf 'd /var/roothome\\nd /root/.ssh\\n' > usr/lib/tmpfiles.d/a.conf",
    "mkdir -p var/lib/a usr/share/a; touch var/lib/a/b usr/share/a/b
     printf 'd /var/lib\\nC %%S/a - - - - /usr/share/a\\n' > usr/lib/tmpfiles.d/a.conf",
    "mkdir -p var/a etc/tmpfiles.d; echo '#' > usr/lib/tmpfiles.d/a.conf; echo 'd /var/a' > etc/tmpfiles.d/a.conf",
    "mkdir -p var/log; : > var/log/a; printf 'd /var/log\\nf /var/log/a\\n' > usr/lib/tmpfiles.d/a.conf",
    "echo uninitialized > etc/machine-id",
    "mkdir -m 1777 usr/a; ln -s a usr/b",
    "echo ann:x:5:5::/: > usr/lib/passwd; echo crew:x:6: > usr/lib/group; touch usr/a; chown 5:6 usr/a",
];

/// The clean tree after `script`.
fn tree(script: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("umask 022; {CLEAN}\n{script}");
    let output = Command::new("bash").args(["-ec", &script]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    dir
}

fn strata(args: &[&str], tree: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strata")).args(args).arg(tree).output().unwrap()
}

/// The report on a tree; its exit status tells whether it failed.
fn lint(tree: &Path, args: &[&str]) -> Value {
    let output = strata(&[&["--format", "json", "lint"], args].concat(), tree);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let expected = if report["failed"].as_bool().unwrap() { 3 } else { 0 };
    assert_eq!(output.status.code(), Some(expected));
    report
}

fn rules() -> Vec<Value> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_strata")).args(["--format", "json", "lint", "--list"]).output();
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

fn texts<'v>(values: &'v Value, key: &str) -> Vec<&'v str> {
    values.as_array().unwrap().iter().map(|value| value[key].as_str().unwrap()).collect()
}

#[test]
fn each_rule_is_broken_alone() {
    for (script, rule, paths) in BROKEN {
        let report = lint(tree(script).path(), &[]);
        let broken: BTreeSet<&str> = texts(&report["findings"], "rule").into_iter().collect();
        assert_eq!(broken, [*rule].into(), "{script}: {report:#}");
        assert_eq!(texts(&report["findings"], "path"), *paths, "{script}");
        let level = texts(&report["findings"], "level")[0];
        assert_eq!(report["failed"], level == "fatal", "{script}");
    }
    let tried: BTreeSet<&str> = BROKEN.iter().map(|(_, rule, _)| *rule).collect();
    assert_eq!(tried, texts(&Value::from(rules()), "name").into_iter().collect());
}

#[test]
fn exceptions_break_no_rule() {
    for script in KEPT {
        let report = lint(tree(script).path(), &[]);
        assert_eq!(report["findings"], Value::Array(Vec::new()), "{script}");
        assert_eq!(report["passed"].as_array().unwrap().len(), rules().len());
    }
}

#[test]
fn warnings_fail_if_told_to_and_rules_are_left_out_by_name() {
    let tree = tree("mkdir var/a; echo 5ba4c9c2 > etc/machine-id");
    let report = lint(tree.path(), &["--skip", "machine-id"]);
    assert_eq!(
        (&report["failed"], &report["skipped"]),
        (&Value::Bool(false), &serde_json::json!(["machine-id"]))
    );
    let report = lint(tree.path(), &["--skip", "machine-id", "--fatal-warnings"]);
    assert_eq!(report["failed"], true);
    let output = strata(&["lint", "--skip", "machineid"], tree.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("'machine-id'"), "{said}");
}

#[test]
fn people_see_the_first_five_findings_of_a_rule() {
    let tree = tree("mkdir var/{a,b,c,d,e,f,g}");
    let said = |args: &[&str]| String::from_utf8(strata(args, tree.path()).stdout).unwrap();
    let text = said(&["lint"]);
    assert!(
        text.starts_with("warning: var-tmpfiles\n  /var/a is a directory that tmpfiles.d does not make\n"),
        "{text}"
    );
    assert!(text.contains("  /var/e ") && !text.contains("  /var/f "), "{text}");
    assert!(text.contains("\n  ...and 2 more: --no-truncate shows them\n  hint: "), "{text}");
    assert!(text.ends_with("\n21 rules hold, 1 with warnings\n"), "{text}");
    let all = said(&["lint", "--no-truncate"]);
    assert!(all.contains("  /var/g ") && !all.contains("more"), "{all}");
}

/// Names and levels are those of bootc's source.
#[test]
fn all_rules_of_bootc_are_there() {
    let expected = [
        ("api-base-directories", "fatal"),
        ("baseimage-composefs", "warning"),
        ("baseimage-root", "fatal"),
        ("bootc-kargs", "fatal"),
        ("buildah-injected", "warning"),
        ("etc-usretc", "fatal"),
        ("kernel", "fatal"),
        ("nonempty-boot", "warning"),
        ("nonempty-run-tmp", "warning"),
        ("sysusers", "warning"),
        ("utf8", "fatal"),
        ("var-log", "warning"),
        ("var-run", "fatal"),
        ("var-tmpfiles", "warning"),
    ];
    let rules = rules();
    let bootc = rules.iter().filter(|rule| rule["source"] == "bootc");
    let found: Vec<_> =
        bootc.map(|rule| (rule["name"].as_str().unwrap(), rule["level"].as_str().unwrap())).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_documentation_lists_all_rules() {
    let row = |rule: &Value| {
        let text = |key: &str| rule[key].as_str().unwrap();
        format!("| `{}` | {} | {} | {} |", text("name"), text("level"), text("source"), text("description"))
    };
    let expected: Vec<String> = rules().iter().map(row).collect();
    let found: Vec<&str> =
        include_str!("../docs/lint.md").lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(found, expected);
}
