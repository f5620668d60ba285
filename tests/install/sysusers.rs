//! Accounts that packages ask for in their provides: what systemd-sysusers makes of the same lines.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::common::{Recorder, Rig, as_root, assert_lines, build, checked};

const PASSWD: &str = "root:x:0:0:Super User:/root:/bin/bash\nbin:x:1:1:bin:/bin:/usr/sbin/nologin\n\
    games:x:12:100:games:/usr/games:/usr/sbin/nologin\ntaken:x:81:81::/:/usr/sbin/nologin\n\
    high:x:999:998::/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nbin:x:1:\nusers:x:100:\nwheel:x:10:zoe\ntaken:x:81:\nhigh:x:998:\n\
    onlygroup:x:997:\nodd:x:77:\n";

/// Packages in the order they are installed, with their lines.
const PACKAGES: [(&str, &[&str]); 4] = [
    (
        "p1",
        &[
            "u simple - \"A user\" /var/lib/simple /bin/sh",
            "u bare",
            "u fixed 55",
            "u clash 81 'taken id'",
            "g alone -",
            "g fixedgroup 56",
            "g clashgroup 81",
        ],
    ),
    (
        "p2",
        &["u both 60:100 \"with; marks\"", "u named 61:wheel", "u free -:wheel", "u games 12", "g wheel 10"],
    ),
    ("p3", &["m simple wheel", "m newuser newgroup", "m alpha wheel", "u alpha - -", "u onlygroup -"]),
    ("p4", &["u byfile /etc/owned", "g groupbyfile /etc/owned", "u odd 77", "u late 300 - - /bin/false"]),
];

/// A spec of the packages with the provides that rpm 4.19 makes of sysusers.d files.
fn spec() -> String {
    let mut spec =
        "Name: top\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%description\nx\n"
            .to_owned();
    let mut before = String::new();
    for (name, lines) in PACKAGES {
        spec += &format!("%package -n {name}\nSummary: x\n{before}");
        for (n, line) in lines.iter().enumerate() {
            let kind = ["user", "group"][usize::from(line.starts_with('g'))];
            // in a spec a version has no padding, though a generator of provides may write it
            let padded = format!("{line}{}", &"  "[..(3 - line.len() % 3) % 3]);
            spec += &format!("Provides: {kind}({n}) = {}\n", STANDARD.encode(padded));
        }
        spec += &format!("%description -n {name}\nx\n%files -n {name}\n");
        before = format!("Requires(pre): {name}\n");
    }
    spec
}

fn accounts(root: &Path) -> Vec<String> {
    let lines = |file| fs::read_to_string(root.join("etc").join(file)).unwrap();
    [lines("passwd"), lines("group")].concat().lines().map(str::to_owned).collect()
}

fn sysusers(root: &Path, lines: &[&str]) {
    let mut child = Command::new("systemd-sysusers")
        .arg("--root")
        .arg(root)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn systemd_sysusers_makes_the_same_accounts() {
    as_root("sysusers::systemd_sysusers_makes_the_same_accounts", || {
        let rig = Rig::new();
        rig.both(|root| {
            fs::create_dir(root.join("etc")).unwrap();
            for (file, text) in [("passwd", PASSWD), ("group", GROUP), ("owned", "")] {
                fs::write(root.join("etc").join(file), text).unwrap();
            }
            std::os::unix::fs::chown(root.join("etc/owned"), Some(333), Some(444)).unwrap();
        });
        let rpm = build(rig.dir.path(), &spec());
        let rpms: Vec<PathBuf> = PACKAGES.iter().map(|(name, _)| rpm(name)).collect();
        rig.install(&rpms, &Recorder::default()).unwrap();
        for (_, lines) in PACKAGES {
            sysusers(&rig.theirs, lines);
        }
        assert_lines(&accounts(&rig.ours), &accounts(&rig.theirs));
        assert_eq!(accounts(&rig.ours), accounts(&rig.theirs));
        checked(Command::new("pwck").args(["-r", "-q", "-R"]).arg(&rig.ours));
    });
}
