//! `.repo` files: understood as dnf understands them, and no password comes out of one.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use strata::package::Arch;
use strata::plan::{Plan, Secret};

use crate::{STREAM, Tree};

const FILE: &str = "# what subscription-manager writes
; and what people add

[rhel-9-baseos]
name = Red Hat Enterprise Linux 9 - BaseOS
baseurl = https://cdn.example.com/$releasever/$basearch/os/
enabled = 1
gpgcheck=1
gpgkey = file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release,
   file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-beta
sslverify = True
sslcacert = /etc/rhsm/ca/redhat-uep.pem
sslclientkey = /etc/pki/entitlement/12-key.pem
sslclientcert = /etc/pki/entitlement/12.pem
metadata_expire = 86400
ui_repoid_vars = releasever

[several]
name=several
baseurl=http://a.example.com/${snapshot}/x
        http://b.example.com/$snapshot/x
# between two lines of a value
enabled=no
gpgcheck=off
repo_gpgcheck=0
priority=10
cost = 500
exclude=kernel*, *-debuginfo  *.i686
includepkgs=a b
module_hotfixes=on
proxy=http://proxy.example.com:3128

[lists]
name=lists
mirrorlist=https://mirrors.example.com/list?arch=$basearch
gpgcheck=0
[meta]
name=meta
metalink=https://mirrors.example.com/metalink?arch=$basearch
gpgcheck=0
proxy=_none_
";

fn tree(file: &str) -> Tree {
    let stream = format!("repo-files = [\"x.repo\"]\nvariables = {{ snapshot = \"today\" }}\n{STREAM}");
    Tree::new(&[("demo/stream.toml", &stream), ("demo/x.repo", file)])
}

/// The repositories of the file, as dnf-repos.py has them.
fn ours(plan: &Plan) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for repo in plan.stream.repos.values().filter(|repo| !["baseos", "ose"].contains(&repo.id.as_str())) {
        let mut add = |key: &str, value: &str| drop(lines.replace(format!("{} {key} {value}", repo.id)));
        let enabled = plan.layers[0].packages.repos.contains(&repo.id);
        for (key, value) in [
            ("enabled", enabled),
            ("gpgcheck", repo.gpgcheck),
            ("repo_gpgcheck", repo.repo_gpgcheck),
            ("module_hotfixes", repo.module_hotfixes),
            ("sslverify", repo.sslverify),
        ] {
            add(key, &value.to_string());
        }
        for (key, values) in [
            ("baseurl", &repo.baseurl),
            ("gpgkey", &repo.gpgkey),
            ("includepkgs", &repo.includepkgs),
            ("excludepkgs", &repo.excludepkgs),
        ] {
            for value in values {
                add(key, value);
            }
        }
        for (key, value) in
            [("mirrorlist", &repo.mirrorlist), ("metalink", &repo.metalink), ("proxy", &repo.proxy)]
        {
            for value in value.iter().filter(|value| *value != "_none_") {
                add(key, value);
            }
        }
        for (key, value) in [("priority", repo.priority), ("cost", repo.cost)] {
            add(key, &value.to_string());
        }
        for (key, value) in [
            ("sslclientcert", &repo.sslclientcert),
            ("sslclientkey", &repo.sslclientkey),
            ("sslcacert", &repo.sslcacert),
        ] {
            if let Some(path) = value {
                add(key, &path.display().to_string());
            }
        }
    }
    lines
}

#[test]
fn are_understood_as_dnf_understands_them() {
    let tree = tree(FILE);
    let dnf = fs::canonicalize("/usr/bin/dnf").expect("dnf is installed");
    let first = fs::read_to_string(dnf).unwrap().lines().next().unwrap().to_owned();
    let python = first.trim_start_matches("#!").split(' ').next().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifest/dnf-repos.py");
    let output = Command::new(python).arg(script).arg(tree.manifests().join("demo")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: BTreeSet<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let ours = ours(&tree.plan(Arch::X86_64));
    assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), Vec::<&String>::new(), "only ours");
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new(), "only dnf's");
}

#[test]
fn passwords_stay_where_they_are() {
    let tree = tree(
        "[x]\nbaseurl=http://x\ngpgcheck=0\nusername=user\npassword=swordfish\nproxy=http://p:1\n\
         proxy_username=us\nproxy_password=swordfish2\n",
    );
    let repo = &tree.plan(Arch::X86_64).stream.repos["x"];
    let file = tree.manifests().join("demo/x.repo");
    for (secret, prefix, text) in
        [(&repo.auth, "", "user:swordfish"), (&repo.proxy_auth, "proxy_", "us:swordfish2")]
    {
        let expected = Secret::RepoFile { file: file.clone(), section: "x".into(), prefix };
        assert_eq!(secret.as_ref(), Some(&expected));
        assert_eq!(strata::manifest::repo_file::password(&file, "x", prefix).unwrap(), text);
    }
    for args in [&["demo"][..], &["--format", "json", "demo"]] {
        let output = tree.compile(args);
        assert!(output.status.success());
        assert!(!String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("swordfish"));
    }
}

/// What is said of a file with mistakes.
fn refusal(file: &str) -> String {
    let output = tree(file).compile(&["demo"]);
    assert_eq!(output.status.code(), Some(1), "{file}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn mistakes_are_told_by_line() {
    for (line, message) in [
        ("enabled=perhaps", "`perhaps` is neither yes nor no"),
        ("priority=high", "`high` is no number"),
        ("mirrorlist=$relasever", "did you mean `releasever`?"),
        ("exclude=a[", "is not a glob"),
        ("proxy=proxy:3128", "is no URL of a proxy"),
        ("oops", "expected `[section]` or `key = value`"),
    ] {
        let error = refusal(&format!("[x]\nbaseurl=http://x\n{line}\n"));
        assert!(error.contains(message) && error.contains("x.repo:3:1"), "{error}");
    }
    assert!(refusal("[x]\ngpgcheck=0\n").contains("no place to fetch from"));
    assert!(
        refusal("[ose]\nbaseurl=http://x\n").contains("declares repository `ose`, which is there already")
    );
}

#[test]
fn a_password_in_a_url_is_refused_and_not_shown() {
    for line in ["baseurl=https://user:swordfish@x/", "baseurl=http://x\nproxy=http://user:swordfish@x:1"] {
        let error = refusal(&format!("[x]\n{line}\n"));
        assert!(error.contains("has a user or a password in it") && error.contains("auth = {"), "{error}");
        assert!(error.contains("x.repo:") && !error.contains("swordfish"), "{error}");
    }
}
