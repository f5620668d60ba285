//! What manifests mean.

use std::collections::BTreeMap;

use strata::manifest::{arches, load_with};
use strata::package::Arch;
use strata::plan::{Base, FileContent, ImageFormat, Override, OverrideKind, OverrideTo};

use crate::{STREAM, Tree, documented, values, with_stream};

#[test]
fn later_wins() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"
include = "common.toml"
docs = false
kargs = ["own"]

[os-release]
B = "own"

[units]
default-target = "graphical.target"

[[when]]
if = "arch == 'x86_64'"
weak-deps = true
kargs = ["when", "common"]
[when.os-release]
C = "when"
"#,
        ),
        (
            "shared/common.toml",
            r#"
docs = true
ima = true
weak-deps = false
kargs = ["common"]

[os-release]
A = "common"
B = "common"
C = "common"

[units]
default-target = "multi-user.target"
"#,
        ),
    ]);
    let top = tree.top();
    assert!(!top.docs);
    assert!(top.ima);
    assert!(top.packages.weak_deps);
    assert_eq!(values(&top.config.kargs), ["common", "own", "when"]);
    assert_eq!(top.config.default_target.unwrap().value, "graphical.target");
    let fields: Vec<_> = top.os_release.iter().map(|f| (f.value.0.as_str(), f.value.1.as_str())).collect();
    assert_eq!(fields, [("A", "common"), ("B", "own"), ("C", "when")]);
    let other = tree.plan(Arch::Aarch64).layer("top").unwrap().clone();
    assert!(!other.packages.weak_deps);
    assert_eq!(values(&other.config.kargs), ["common", "own"]);
}

#[test]
fn packages_add_up_once_each_where_first_listed() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"
include = ["a.toml", "sub/b.toml"]
[packages]
install = ["bash", "zsh"]
[packages.aarch64]
install = ["edk2-aarch64"]
[packages.x86_64]
install = ["microcode_ctl"]
exclude = ["*-i686"]
exclude-from-weak = ["nano"]
modules = ["nodejs:18", "perl:5.36"]
"#,
        ),
        ("demo/a.toml", "include = \"sub/b.toml\"\npackages.install = [\"bash\", \"attr\"]\n"),
        ("demo/sub/b.toml", "packages.install = [\"acl\"]\noverlay = \"tree\"\n"),
        ("demo/sub/tree/usr/x", ""),
    ]);
    let top = tree.top();
    assert_eq!(values(&top.packages.install), ["acl", "bash", "attr", "zsh", "microcode_ctl"]);
    assert_eq!(values(&top.packages.exclude), ["*-i686"]);
    assert_eq!(values(&top.packages.exclude_from_weak), ["nano"]);
    assert_eq!(values(&top.packages.modules), ["nodejs:18", "perl:5.36"]);
    let [acl, bash, .., microcode] = &top.packages.install[..] else { panic!() };
    assert_eq!((acl.origin.file.file_name().unwrap().to_str(), acl.origin.line), (Some("b.toml"), 1));
    assert_eq!((bash.origin.file.file_name().unwrap().to_str(), bash.origin.line), (Some("a.toml"), 2));
    assert_eq!(microcode.origin.line, 8);
    let overlays: Vec<_> = top.config.overlays.iter().map(|o| o.value.clone()).collect();
    assert_eq!(
        overlays,
        [tree.manifests().join("demo/sub/tree")],
        "b.toml is read once, paths are beside it"
    );
    assert_eq!(values(&tree.plan(Arch::Aarch64).layer("top").unwrap().packages.install)[4], "edk2-aarch64");
}

#[test]
fn blocks_nest_and_include() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"
[[when]]
if = "os.id == 'rhel'"
include = "rhel.toml"

  [[when.when]]
  if = "os.version < 9.10"
  kargs = ["nested"]

  [[when.when]]
  if = "os.version < 9.6"
  include = "rhel.toml"
  kargs = ["never"]
  file = [{ path = "/x", content = "" }]

[[when]]
if = "!(os.id == 'rhel')"
file = [{ path = "/x", content = "" }]
"#,
        ),
        ("demo/rhel.toml", "kargs = [\"rhel\"]"),
    ]);
    let top = tree.top();
    assert_eq!(values(&top.config.kargs), ["rhel", "nested"]);
    assert!(top.config.files.is_empty());
}

#[test]
fn repositories() {
    let tree = Tree::new(&[
        (
            "demo/stream.toml",
            &with_stream(
                r#"
[repos.again]
metalink = "https://mirrors.example.com/metalink?repo=baseos-$releasever&arch=$basearch"
gpgkey = ["https://example.com/a", "/etc/pki/b"]
priority = 1
sslcacert = "../ca.pem"
excludepkgs = ["kernel*"]

[repos.off]
baseurl = "file:///srv/x/"
enabled = false
gpgcheck = false
"#,
            ),
        ),
        ("demo/top.toml", "packages.repos = [\"off\", \"baseos\"]"),
    ]);
    let plan = tree.plan(Arch::X86_64);
    let repo = |id: &str| plan.stream.repos[id].clone();
    assert_eq!(
        plan.layer("base").unwrap().packages.repos,
        ["baseos", "ose", "again"],
        "as the file orders them"
    );
    assert_eq!(plan.layer("top").unwrap().packages.repos, ["baseos", "off"]);
    let root = tree.manifests().display().to_string();
    assert_eq!(repo("ose").baseurl, [format!("file://{root}/demo/ose/x86_64")]);
    assert_eq!(repo("baseos").gpgkey, [format!("file://{root}/demo/key.asc")]);
    assert_eq!(repo("off").baseurl, ["file:///srv/x"]);
    let again = repo("again");
    assert_eq!(again.metalink.unwrap(), "https://mirrors.example.com/metalink?repo=baseos-9.6&arch=x86_64");
    assert_eq!(again.gpgkey, ["https://example.com/a", "file:///etc/pki/b"]);
    assert_eq!(again.sslcacert, Some(tree.manifests().join("ca.pem")));
    assert_eq!((again.priority, again.cost, again.gpgcheck, again.sslverify), (1, 1000, true, true));
    assert_eq!(again.excludepkgs, ["kernel*"]);
    assert_eq!(again.origin.line, 17);
}

#[test]
fn variables() {
    let tree = Tree::new(&[
        (
            "demo/stream.toml",
            &("openshift = \"4.20\"\n".to_owned()
                + STREAM
                + r#"
[variables]
url = "$mirror/$snapshot"
mirror = 'http://m'
snapshot = 2025
n = 4.20
fips = true
"#),
        ),
        (
            "demo/top.toml",
            r#"
packages.install = ["a-$url", "b-${n}$$", "c-${os.major}-$openshift"]
file = [
  { path = "/literal", content = "$HOME $nope" },
  { path = "/expanded-$arch", append = "$arch $$HOME", expand = true },
]
[[when]]
if = "fips && n == 4.20 && openshift > 4.3"
kargs = ["fips=1"]
"#,
        ),
    ]);
    let top = tree.top();
    assert_eq!(values(&top.packages.install), ["a-http://m/2025", "b-4.20$", "c-9-4.20"]);
    assert_eq!(values(&top.config.kargs), ["fips=1"]);
    let [literal, expanded] = &top.config.files[..] else { panic!() };
    assert_eq!(literal.value.content, FileContent::Text("$HOME $nope".to_owned()));
    assert_eq!(expanded.value.path, "/expanded-x86_64");
    assert_eq!(expanded.value.content, FileContent::Append("x86_64 $HOME".to_owned()));

    let set = |name: &str, value: &str| {
        load_with(&tree.manifests(), "demo", Arch::X86_64, &BTreeMap::from([(name.into(), value.into())]))
    };
    let plan = set("snapshot", "2026").unwrap();
    assert_eq!(values(&plan.layer("top").unwrap().packages.install)[0], "a-http://m/2026");
    let refusal = set("snapshto", "2026").unwrap_err().render(false);
    assert!(
        refusal.contains("declares no variable `snapshto`\n  hint: did you mean `snapshot`?"),
        "{refusal}"
    );
}

#[test]
fn layers_come_after_what_they_are_built_from() {
    let image = format!("docker://quay.io/centos-bootc/centos-bootc@sha256:{}", "0".repeat(64));
    let tree = Tree::new(&[
        ("demo/stream.toml", &STREAM.replace("\"top\"]", "\"top\", \"side\"]")),
        ("demo/base.toml", "from = \"side\""),
        ("demo/side.toml", &format!("from = \"{image}\"")),
    ]);
    let plan = tree.plan(Arch::X86_64);
    let stack: Vec<_> = plan.layers.iter().map(|l| (l.name.as_str(), l.from.clone())).collect();
    let on = |below: &str| Base::Layer(below.to_owned());
    assert_eq!(
        stack,
        [("side", Base::Image(image.parse().unwrap())), ("base", on("side")), ("top", on("base"))]
    );
    assert_eq!(Tree::new(&[]).plan(Arch::X86_64).layers[0].from, Base::Scratch);
}

#[test]
fn defaults_of_a_stream() {
    let plan = Tree::new(&[]).plan(Arch::X86_64);
    assert_eq!(plan.stream.rpmdb, "/usr/lib/sysimage/rpm");
    assert_eq!(plan.stream.image_format, ImageFormat::Bootc);
    assert_eq!(
        (plan.stream.version.prefix.as_str(), &plan.stream.version.dated_by[..]),
        ("9.6", &["base".to_owned()][..])
    );
    let centos = Tree::new(&[("demo/stream.toml", &STREAM.replace("\"9.6\"", "\"10\""))]);
    assert_eq!(centos.plan(Arch::X86_64).stream.version.prefix, "10.0");
    assert_eq!(arches(&centos.manifests(), "demo").unwrap(), [Arch::X86_64, Arch::Aarch64]);
}

#[test]
fn overrides_are_read() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"
[[override]]
package = "openssl-libs"
version = "1:3.2.2-7.el9"
kind = "fast-track"
reason = "CVE-2025-0001"
until = 2025-03-31

[[override]]
package = "cri-o"
file = "cri-o.rpm"
kind = "hotfix"
reason = "a case"
until = "2025-04-01"
"#,
        ),
        ("demo/cri-o.rpm", ""),
    ]);
    let overrides: Vec<Override> = tree.top().packages.overrides.into_iter().map(|o| o.value).collect();
    let expected = [
        Override {
            package: "openssl-libs".to_owned(),
            to: OverrideTo::Version("1:3.2.2-7.el9".parse().unwrap()),
            kind: OverrideKind::FastTrack,
            reason: "CVE-2025-0001".to_owned(),
            update: None,
            until: Some("2025-03-31".to_owned()),
        },
        Override {
            package: "cri-o".to_owned(),
            to: OverrideTo::File(tree.manifests().join("demo/cri-o.rpm")),
            kind: OverrideKind::Hotfix,
            reason: "a case".to_owned(),
            update: None,
            until: Some("2025-04-01".to_owned()),
        },
    ];
    assert_eq!(overrides, expected);
}

#[test]
fn the_documentation_is_valid() {
    let tree = documented();
    let plan = tree.plan(Arch::X86_64);
    let coreos = plan.layer("coreos").unwrap();
    assert!(coreos.docs, "the block includes a file");
    assert_eq!(values(&coreos.packages.install).last(), Some(&"mcelog"));
    assert_eq!(coreos.config.files.len(), 1);
    assert_eq!(coreos.config.scripts[0].value.interpreter, ["/bin/bash", "-eu"]);
    assert_eq!(
        plan.stream.repos["baseos"].baseurl,
        ["https://mirror.example.com/2025-02-03/baseos/x86_64/os"]
    );
}
