//! `strata compile`.

use crate::Tree;

fn printed(tree: &Tree, arguments: &[&str]) -> String {
    let output = tree.compile(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const TOP: &str = r#"docs = true
langs = ["en", "de"]
overlay = "overlay"
tmpfiles = ["d /var/lib/cni 0755 root root - -"]
kargs = ["quiet"]

[packages]
install = ["cri-o", "podman >= 5"]
remove = ["nano"]

[[override]]
package = "openssl-libs"
version = "1:3.2.2-7.el9"
kind = "fast-track"
reason = "CVE-2025-0001"
until = 2025-03-31

[[file]]
path = "/etc/motd"
content = "Welcome\n"

[[symlink]]
path = "/usr/bin/vi"
target = "vim"

[units]
enable = ["crio.service"]

[kernel]
initramfs-args = ["--no-hostonly"]

[[script]]
name = "booleans"
reason = "semanage has no drop-in directory"
body = "true"

[os-release]
VARIANT = "CoreOS"

[image]
name = "rhel-coreos"
cmd = ["/sbin/init"]
labels = { "io.openshift.os" = "$arch" }
"#;

#[test]
fn text_names_the_line_of_each_entry() {
    let tree = Tree::new(&[("demo/top.toml", TOP), ("demo/overlay/usr/x", "")]);
    insta::assert_snapshot!(printed(&tree, &["demo", "--arch", "x86_64"]), @r"
stream demo for x86_64: Demo 9.6
  repo        baseos: http://example.com/baseos                     manifests/demo/stream.toml:9
              ose: manifests/demo/ose/x86_64, packages not checked  manifests/demo/stream.toml:13

layer base from scratch
  repos       baseos ose

layer top on layer base
  repos       baseos ose
  with        documentation
  langs       en de
  install     cri-o                                                 manifests/demo/top.toml:8
              podman >= 5                                           manifests/demo/top.toml:8
  remove      nano                                                  manifests/demo/top.toml:9
  override    openssl-libs 1:3.2.2-7.el9 (fast-track: CVE-2025-0001, until 2025-03-31)  manifests/demo/top.toml:11
  overlay     manifests/demo/overlay                                manifests/demo/top.toml:3
  file        /etc/motd (0644 root:root, 8 bytes)                   manifests/demo/top.toml:18
  symlink     /usr/bin/vi -> vim                                    manifests/demo/top.toml:22
  tmpfiles    d /var/lib/cni 0755 root root - -                     manifests/demo/top.toml:4
  enable      crio.service                                          manifests/demo/top.toml:27
  karg        quiet                                                 manifests/demo/top.toml:5
  kernel      initramfs --no-hostonly                               manifests/demo/top.toml:29
  script      booleans (semanage has no drop-in directory)          manifests/demo/top.toml:32
  os-release  VARIANT=CoreOS                                        manifests/demo/top.toml:38
  image       rhel-coreos
  label       io.openshift.os=x86_64                                manifests/demo/top.toml:43
  cmd         /sbin/init                                            manifests/demo/top.toml:42
");
}

#[test]
fn json_is_the_plan() {
    let tree = Tree::new(&[("demo/top.toml", TOP), ("demo/overlay/usr/x", "")]);
    let text = printed(&tree, &["demo", "top", "--arch", "aarch64", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["stream"]["arch"], "aarch64");
    assert_eq!(plan["layers"].as_array().unwrap().len(), 1);
    let top = &plan["layers"][0];
    assert_eq!(top["from"]["layer"], "base");
    assert_eq!(top["packages"]["install"][1]["value"], "podman >= 5");
    assert_eq!(top["packages"]["install"][1]["origin"]["file"], "manifests/demo/top.toml");
    assert_eq!(top["packages"]["install"][1]["origin"]["line"], 8);
    assert_eq!(top["packages"]["overrides"][0]["value"]["to"]["version"], "1:3.2.2-7.el9");
    assert_eq!(top["image"]["labels"]["io.openshift.os"]["value"], "aarch64");
}

#[test]
fn a_layer_must_exist() {
    let output = Tree::new(&[]).compile(&["demo", "tpo", "--arch", "x86_64"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "error: the stream demo has no layer `tpo`\n  hint: its layers are base, top\n");
}
