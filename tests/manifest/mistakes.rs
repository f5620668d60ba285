//! What people are told about the mistakes they make, as they see it.

use crate::{STREAM, Tree, with_stream};

impl Tree {
    /// What `strata compile` tells about the mistakes.
    fn refusal(&self, stream: &str, arch: &str) -> String {
        let output = self.compile(&[stream, "--arch", arch]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn unknown_keys() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"form = "base"
weak_deps = true

[packages]
instal = ["bash"]
repos = ["ose"]
kargs = ["quiet"]

[packages.x86-64]
install = ["microcode_ctl"]

[[when]]
if = "true"
from = "scratch"
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: unknown key `form`
 --> manifests/demo/top.toml:1:1
  |
1 | form = "base"
  | ^^^^
  hint: did you mean `from`?

error: unknown key `weak_deps`
 --> manifests/demo/top.toml:2:1
  |
2 | weak_deps = true
  | ^^^^^^^^^
  hint: did you mean `weak-deps`?

error: unknown key `instal` of `packages`
 --> manifests/demo/top.toml:5:1
  |
5 | instal = ["bash"]
  | ^^^^^^
  hint: did you mean `install`?

error: unknown key `kargs` of `packages`
 --> manifests/demo/top.toml:7:1
  |
7 | kargs = ["quiet"]
  | ^^^^^
  hint: it belongs to the file: write it above the first [table]

error: unknown key `x86-64` of `packages`
 --> manifests/demo/top.toml:9:11
  |
9 | [packages.x86-64]
  |           ^^^^^^
  hint: did you mean `x86_64`?

error: unknown key `from` of `when`
  --> manifests/demo/top.toml:14:1
   |
14 | from = "scratch"
   | ^^^^
  hint: it may stand only in the layer's own file
"#);
}

#[test]
fn wrong_types() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"docs = "yes"
kargs = "quiet"
packages = ["bash"]
unit = { enable = [] }

[file]
path = "/etc/motd"

[[units]]
enable = ["crio.service"]

[image]
cmd = ["/sbin/init", 3]
name = true

[[group]]
name = "users"
gid = -1
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `docs` is a string, expected true or false
 --> manifests/demo/top.toml:1:8
  |
1 | docs = "yes"
  |        ^^^^^

error: `kargs` is a string, expected a list of strings
 --> manifests/demo/top.toml:2:9
  |
2 | kargs = "quiet"
  |         ^^^^^^^
  hint: put it in brackets: ["quiet"]

error: `packages` is a list, expected a table
 --> manifests/demo/top.toml:3:12
  |
3 | packages = ["bash"]
  |            ^^^^^^^^
  hint: write `[packages]` with single brackets

error: unknown key `unit`
 --> manifests/demo/top.toml:4:1
  |
4 | unit = { enable = [] }
  | ^^^^
  hint: did you mean `units`?

error: `file` is a table, expected a list of tables
 --> manifests/demo/top.toml:6:1
  |
6 | [file]
  | ^^^^^^
  hint: write `[[file]]` with double brackets

error: `units` is a list, expected a table
 --> manifests/demo/top.toml:9:1
  |
9 | [[units]]
  | ^^^^^^^^^
  hint: write `[units]` with single brackets

error: `cmd` is an integer, expected a string
  --> manifests/demo/top.toml:13:22
   |
13 | cmd = ["/sbin/init", 3]
   |                      ^
  hint: put it in quotes: "3"

error: `name` is a boolean, expected a string
  --> manifests/demo/top.toml:14:8
   |
14 | name = true
   |        ^^^^
  hint: put it in quotes: "true"

error: `gid` is out of range
  --> manifests/demo/top.toml:18:7
   |
18 | gid = -1
   |       ^^
"#);
}

#[test]
fn syntax() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"[packages
install = ["bash"]
remove = ["nano" "vi"]
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: unclosed table, expected `]`
 --> manifests/demo/top.toml:1:10
  |
1 | [packages
  |          ^

error: missing comma between array elements, expected `,`
 --> manifests/demo/top.toml:3:18
  |
3 | remove = ["nano" "vi"]
  |                  ^
"#);
}

#[test]
fn missing_stream() {
    let tree = Tree::new(&[]);
    insta::assert_snapshot!(tree.refusal("dmeo", "x86_64"), @r"
error: there is no stream `dmeo` in manifests
  hint: did you mean `demo`?
");
}

#[test]
fn missing_layer_manifest() {
    let tree = Tree::new(&[("demo/stream.toml", &STREAM.replace("top", "tpo"))]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: layer `tpo` has no manifest: reading manifests/demo/tpo.toml: No such file or directory (os error 2)
 --> manifests/demo/stream.toml:2:19
  |
2 | layers = ["base", "tpo"]
  |                   ^^^^^
  hint: did you mean `top.toml`?
"#);
}

#[test]
fn missing_include() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"include = ["comon.toml", "x/other.toml"]
"#,
        ),
        ("demo/common.toml", r""),
    ]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: there is no file manifests/demo/comon.toml, nor manifests/shared/comon.toml
 --> manifests/demo/top.toml:1:12
  |
1 | include = ["comon.toml", "x/other.toml"]
  |            ^^^^^^^^^^^^
  hint: did you mean `common.toml`?

error: there is no file manifests/demo/x/other.toml, nor manifests/shared/x/other.toml
 --> manifests/demo/top.toml:1:26
  |
1 | include = ["comon.toml", "x/other.toml"]
  |                          ^^^^^^^^^^^^^^
"#);
}

#[test]
fn include_cycle() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"include = "a.toml"
"#,
        ),
        (
            "demo/a.toml",
            r#"[[when]]
if = "arch == 's390x'"
include = ["../shared/b.toml"]
"#,
        ),
        (
            "shared/b.toml",
            r#"include = "../demo/a.toml"
"#,
        ),
    ]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `../demo/a.toml` includes itself
 --> manifests/shared/b.toml:1:11
  |
1 | include = "../demo/a.toml"
  |           ^^^^^^^^^^^^^^^^
  hint: manifests/demo/a.toml includes manifests/shared/b.toml includes manifests/demo/a.toml
"#);
}

#[test]
fn unknown_names() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"from = "bsae"
include = "packages-$flavour.toml"

[packages]
repos = ["base-os"]
install = ["kernel-$rach", "cost-5$"]

[image]
labels = { version = "${os.verson}" }
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: unknown layer `bsae`
 --> manifests/demo/top.toml:1:8
  |
1 | from = "bsae"
  |        ^^^^^^
  hint: did you mean `base`?

error: unknown variable `flavour`
 --> manifests/demo/top.toml:2:21
  |
2 | include = "packages-$flavour.toml"
  |                     ^^^^^^^^
  hint: expected one of `arch`, `basearch`, `os.id`, `os.major`, `os.name`, `os.version`, `releasever`, `releasever_major`, `releasever_minor`, `stream`

error: unknown repository `base-os`
 --> manifests/demo/top.toml:5:10
  |
5 | repos = ["base-os"]
  |          ^^^^^^^^^
  hint: did you mean `baseos`?

error: unknown variable `rach`
 --> manifests/demo/top.toml:6:20
  |
6 | install = ["kernel-$rach", "cost-5$"]
  |                    ^^^^^
  hint: did you mean `arch`?

error: `$` is not followed by a variable's name
 --> manifests/demo/top.toml:6:35
  |
6 | install = ["kernel-$rach", "cost-5$"]
  |                                   ^
  hint: write `$name`, `${name}`, or `$$` for a dollar sign

error: unknown variable `os.verson`
 --> manifests/demo/top.toml:9:23
  |
9 | labels = { version = "${os.verson}" }
  |                       ^^^^^^^^^^^^
  hint: did you mean `os.version`?
"#);
}

#[test]
fn layer_cycle() {
    let tree = Tree::new(&[
        (
            "demo/base.toml",
            r#"from = "top"
"#,
        ),
        (
            "demo/top.toml",
            r#"from = "base"
"#,
        ),
    ]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: layer `base` is built from itself
 --> manifests/demo/base.toml:1:8
  |
1 | from = "top"
  |        ^^^^^
  hint: base is built from top is built from base
"#);
}

#[test]
fn unpinned_image() {
    let tree = Tree::new(&[
        (
            "demo/base.toml",
            r#"from = "quay.io/centos-bootc/centos-bootc:stream10"
"#,
        ),
        (
            "demo/top.toml",
            r#"from = "docker://quay.io/centos-bootc/centos-bootc:stream10"
"#,
        ),
    ]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `quay.io/centos-bootc/centos-bootc:stream10` names no transport
 --> manifests/demo/base.toml:1:8
  |
1 | from = "quay.io/centos-bootc/centos-bootc:stream10"
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  hint: write `docker://quay.io/centos-bootc/centos-bootc:stream10`

error: `docker://quay.io/centos-bootc/centos-bootc:stream10` is not pinned by digest
 --> manifests/demo/top.toml:1:8
  |
1 | from = "docker://quay.io/centos-bootc/centos-bootc:stream10"
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  hint: `skopeo inspect --format '{{.Digest}}' IMAGE` prints it; append `@sha256:...`
"#);
}

#[test]
fn groups_and_modules() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"[packages]
install = ["@core", "@Minimal Install/mandatory", "@nodejs:18/common", "@", "@ core"]
remove = ["@core"]
modules = ["nodejs:18", "nodejs", "nodejs:20", "perl:5:x"]
exclude-from-weak = ["a["]
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `@` names no group or module
 --> manifests/demo/top.toml:2:72
  |
2 | install = ["@core", "@Minimal Install/mandatory", "@nodejs:18/common", "@", "@ core"]
  |                                                                        ^^^
  hint: write `@core`, `@Minimal Install`, `@core/mandatory` or `@nodejs:18/minimal`

error: `@ core` names no group or module
 --> manifests/demo/top.toml:2:77
  |
2 | install = ["@core", "@Minimal Install/mandatory", "@nodejs:18/common", "@", "@ core"]
  |                                                                             ^^^^^^^^
  hint: write `@core`, `@Minimal Install`, `@core/mandatory` or `@nodejs:18/minimal`

error: `@core` is a group, which cannot be removed
 --> manifests/demo/top.toml:3:11
  |
3 | remove = ["@core"]
  |           ^^^^^^^
  hint: list the packages that are not wanted

error: `nodejs` is not a stream of a module
 --> manifests/demo/top.toml:4:25
  |
4 | modules = ["nodejs:18", "nodejs", "nodejs:20", "perl:5:x"]
  |                         ^^^^^^^^
  hint: write `NAME:STREAM`, as in `nodejs:18`

error: `nodejs:20` is enabled, but `nodejs:18` is enabled already
 --> manifests/demo/top.toml:4:35
  |
4 | modules = ["nodejs:18", "nodejs", "nodejs:20", "perl:5:x"]
  |                                   ^^^^^^^^^^^
  hint: enabled already at manifests/demo/top.toml:4

error: `perl:5:x` is not a stream of a module
 --> manifests/demo/top.toml:4:48
  |
4 | modules = ["nodejs:18", "nodejs", "nodejs:20", "perl:5:x"]
  |                                                ^^^^^^^^^^
  hint: write `NAME:STREAM`, as in `nodejs:18`

error: `a[` is not a glob: unclosed character class; missing ']'
 --> manifests/demo/top.toml:5:22
  |
5 | exclude-from-weak = ["a["]
  |                      ^^^^
"#);
}

#[test]
fn contradictions() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"include = "common.toml"

[packages]
exclude = ["nano*"]
install = ["vim", "a b"]

[units]
enable = ["crio.service"]
"#,
        ),
        (
            "demo/common.toml",
            r#"[packages]
install = ["nano"]
remove = ["vim"]

[units]
mask = ["crio.service"]
"#,
        ),
    ]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `nano*` is excluded, but `nano` is installed
 --> manifests/demo/top.toml:4:12
  |
4 | exclude = ["nano*"]
  |            ^^^^^^^
  hint: installed at manifests/demo/common.toml:2

error: `vim` is both installed and removed
 --> manifests/demo/top.toml:5:12
  |
5 | install = ["vim", "a b"]
  |            ^^^^^
  hint: removed at manifests/demo/common.toml:3

error: `a b` is not one package
 --> manifests/demo/top.toml:5:19
  |
5 | install = ["vim", "a b"]
  |                   ^^^^^
  hint: put each package in a string of its own

error: `crio.service` is both enabled and masked
 --> manifests/demo/top.toml:8:11
  |
8 | enable = ["crio.service"]
  |           ^^^^^^^^^^^^^^
  hint: masked at manifests/demo/common.toml:6
"#);
}

#[test]
fn overrides() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"[[override]]
package = "openssl"
version = "x:3.2-1"
kind = "fasttrack"
until = "next week"

[[override]]
package = "bash"
version = "5.2-1.el9"
kind = "pin"
reason = "a test"

[[override]]
package = "bash"
file = "bash.rpm"
version = "5"
kind = "pin"
reason = " "

[[override]]
package = "bash"
version = "5.3"
kind = "hotfix"
reason = "another"
until = 2025-03-31
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `override` lacks the key `reason`
 --> manifests/demo/top.toml:1:1
  |
1 | [[override]]
  | ^^^^^^^^^^^^

error: `x:3.2-1` is not an EVR ([epoch:]version-release): the epoch is not a number
 --> manifests/demo/top.toml:3:11
  |
3 | version = "x:3.2-1"
  |           ^^^^^^^^^

error: unknown kind of override `fasttrack`
 --> manifests/demo/top.toml:4:8
  |
4 | kind = "fasttrack"
  |        ^^^^^^^^^^^
  hint: did you mean `fast-track`?

error: `next week` is not a date
 --> manifests/demo/top.toml:5:9
  |
5 | until = "next week"
  |         ^^^^^^^^^^^
  hint: write year, month and day: 2025-03-31

error: the override has both `version` and `file`
  --> manifests/demo/top.toml:13:1
   |
13 | [[override]]
   | ^^^^^^^^^^^^
  hint: keep one of them

error: `reason` is empty
  --> manifests/demo/top.toml:18:10
   |
18 | reason = " "
   |          ^^^

error: `bash` is overridden twice
  --> manifests/demo/top.toml:20:1
   |
20 | [[override]]
   | ^^^^^^^^^^^^
  hint: the other one is at manifests/demo/top.toml:7
"#);
}

#[test]
fn unknown_arch() {
    let tree = Tree::new(&[("demo/stream.toml", &STREAM.replace("aarch64", "amd64"))]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: unknown architecture `amd64`
 --> manifests/demo/stream.toml:1:21
  |
1 | arches = ["x86_64", "amd64"]
  |                     ^^^^^^^
  hint: did you mean `x86_64`?
"#);
}

#[test]
fn arch_of_another_stream() {
    let tree = Tree::new(&[]);
    insta::assert_snapshot!(tree.refusal("demo", "s390x"), @r#"
error: the stream is not composed for s390x
 --> manifests/demo/stream.toml:1:10
  |
1 | arches = ["x86_64", "aarch64"]
  |          ^^^^^^^^^^^^^^^^^^^^^
  hint: add "s390x", or ask for another architecture with --arch
"#);
}

#[test]
fn files() {
    let tree = Tree::new(&[
        (
            "demo/top.toml",
            r#"overlay = "overlays"

[[file]]
path = "etc/motd"
content = ""

[[file]]
path = "/etc/../root/x"
source = "nothing.conf"

[[file]]
path = "/etc/motd"
content = ""
append = ""
mode = 644

[[file]]
path = "/etc/motd"
content = "a"
mode = "0999"
user = "a:b"

[[file]]
path = "/etc/issue"
content = "a"

[[file]]
path = "/etc/issue"
content = "b"

[[symlink]]
path = "/a/./b"

[[remove]]
path = "/etc/[x"
"#,
        ),
        ("demo/overlay/x", r""),
    ]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: there is no directory manifests/demo/overlays
 --> manifests/demo/top.toml:1:11
  |
1 | overlay = "overlays"
  |           ^^^^^^^^^^
  hint: did you mean `overlay`?

error: `etc/motd` is not an absolute path
 --> manifests/demo/top.toml:4:8
  |
4 | path = "etc/motd"
  |        ^^^^^^^^^^
  hint: write `/etc/motd`

error: `/etc/../root/x` has `..`
 --> manifests/demo/top.toml:8:8
  |
8 | path = "/etc/../root/x"
  |        ^^^^^^^^^^^^^^^^
  hint: write the path straight

error: there is no file manifests/demo/nothing.conf
 --> manifests/demo/top.toml:9:10
  |
9 | source = "nothing.conf"
  |          ^^^^^^^^^^^^^^

error: the file's content is given more than once
  --> manifests/demo/top.toml:11:1
   |
11 | [[file]]
   | ^^^^^^^^
  hint: keep one of `content`, `source` and `append`

error: `mode` is an integer, expected a string
  --> manifests/demo/top.toml:15:8
   |
15 | mode = 644
   |        ^^^
  hint: put it in quotes: "644"

error: `0999` is not a file mode
  --> manifests/demo/top.toml:20:8
   |
20 | mode = "0999"
   |        ^^^^^^
  hint: write three or four octal digits, such as "0644"

error: `a:b` cannot be the name of a user or group
  --> manifests/demo/top.toml:21:8
   |
21 | user = "a:b"
   |        ^^^^^
  hint: at most 32 letters, digits, `_`, `-` and `.`, beginning with a letter or `_`

error: `/etc/issue` is written twice
  --> manifests/demo/top.toml:27:1
   |
27 | [[file]]
   | ^^^^^^^^
  hint: the other one is at manifests/demo/top.toml:23

error: `symlink` lacks the key `target`
  --> manifests/demo/top.toml:31:1
   |
31 | [[symlink]]
   | ^^^^^^^^^^^

error: `/a/./b` has `.`
  --> manifests/demo/top.toml:32:8
   |
32 | path = "/a/./b"
   |        ^^^^^^^^
  hint: write the path straight

error: `/etc/[x` is not a glob: unclosed character class; missing ']'
  --> manifests/demo/top.toml:35:8
   |
35 | path = "/etc/[x"
   |        ^^^^^^^^^
"#);
}

#[test]
fn units() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"[units]
enable = ["crio", "a b.service", ""]
default-target = "multi-user.service"
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `crio` is not the full name of a unit
 --> manifests/demo/top.toml:2:11
  |
2 | enable = ["crio", "a b.service", ""]
  |           ^^^^^^
  hint: did you mean `crio.service`?

error: `a b.service` has a character that unit names cannot have
 --> manifests/demo/top.toml:2:19
  |
2 | enable = ["crio", "a b.service", ""]
  |                   ^^^^^^^^^^^^^

error: `enable` is empty
 --> manifests/demo/top.toml:2:34
  |
2 | enable = ["crio", "a b.service", ""]
  |                                  ^^

error: `multi-user.service` is not a target
 --> manifests/demo/top.toml:3:18
  |
3 | default-target = "multi-user.service"
  |                  ^^^^^^^^^^^^^^^^^^^^
"#);
}

#[test]
fn users_and_scripts() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"kargs = ["quiet splash"]

[[user]]
name = "open vswitch"
uid = 4294967296

[[user]]
name = "core"
shell = "bash"
comment = "a:b"

[[script]]
name = "x"
body = "true"
source = "x.sh"

[os-release]
variant = "coreos"
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `quiet splash` is more than one kernel argument
 --> manifests/demo/top.toml:1:10
  |
1 | kargs = ["quiet splash"]
  |          ^^^^^^^^^^^^^^
  hint: put each argument in a string of its own

error: `open vswitch` cannot be the name of a user or group
 --> manifests/demo/top.toml:4:8
  |
4 | name = "open vswitch"
  |        ^^^^^^^^^^^^^^
  hint: at most 32 letters, digits, `_`, `-` and `.`, beginning with a letter or `_`

error: `uid` is out of range
 --> manifests/demo/top.toml:5:7
  |
5 | uid = 4294967296
  |       ^^^^^^^^^^

error: `bash` is not an absolute path
 --> manifests/demo/top.toml:9:9
  |
9 | shell = "bash"
  |         ^^^^^^
  hint: write `/bash`

error: a colon or control character would break /etc/passwd
  --> manifests/demo/top.toml:10:11
   |
10 | comment = "a:b"
   |           ^^^^^

error: `script` lacks the key `reason`
  --> manifests/demo/top.toml:12:1
   |
12 | [[script]]
   | ^^^^^^^^^^

error: the script has both `body` and `source`
  --> manifests/demo/top.toml:12:1
   |
12 | [[script]]
   | ^^^^^^^^^^
  hint: keep one of them

error: `variant` cannot be a field of os-release
  --> manifests/demo/top.toml:18:1
   |
18 | variant = "coreos"
   | ^^^^^^^
  hint: fields are made of upper-case letters, digits and `_`
"#);
}

#[test]
fn conditions() {
    let tree = Tree::new(&[(
        "demo/top.toml",
        r#"[[when]]
if = "arch = 'x86_64'"

[[when]]
if = "arch == x86_64"

[[when]]
if = "fips and arch == 's390x'"

[[when]]
kargs = ["quiet"]

[[when]]
if = "arch == 's390x'"
[when.packages]
instal = ["s390utils"]
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `=` is not part of a condition
 --> manifests/demo/top.toml:2:12
  |
2 | if = "arch = 'x86_64'"
  |            ^
  hint: write `==` to compare

error: unknown variable `x86_64`
 --> manifests/demo/top.toml:5:15
  |
5 | if = "arch == x86_64"
  |               ^^^^^^
  hint: a text is put in quotes: 'x86_64'

error: unknown variable `fips`
 --> manifests/demo/top.toml:8:7
  |
8 | if = "fips and arch == 's390x'"
  |       ^^^^
  hint: a text is put in quotes: 'fips'

error: `when` lacks the key `if`
  --> manifests/demo/top.toml:10:1
   |
10 | [[when]]
   | ^^^^^^^^

error: unknown key `instal` of `packages`
  --> manifests/demo/top.toml:16:1
   |
16 | instal = ["s390utils"]
   | ^^^^^^
  hint: did you mean `install`?
"#);
}

#[test]
fn stream_head() {
    let tree = Tree::new(&[(
        "demo/stream.toml",
        r#"name = "dem0"
openshift = 4.20
arches = []
layers = ["base", "top", "base", "Top"]
rpmdb = "usr/lib"

[os]
id = "rhel"
name = "Demo"
versoin = "9.6"

[version]
prefix = "9"
dated-by = ["bas"]

[image]
format = "bootca"
"#,
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: the stream is called `dem0`, its folder `demo`
 --> manifests/demo/stream.toml:1:8
  |
1 | name = "dem0"
  |        ^^^^^^
  hint: give both the same name, or leave `name` out

error: `openshift` is a float, expected a string
 --> manifests/demo/stream.toml:2:13
  |
2 | openshift = 4.20
  |             ^^^^
  hint: put it in quotes: "4.20"

error: `arches` is empty
 --> manifests/demo/stream.toml:3:10
  |
3 | arches = []
  |          ^^

error: layer `base` is listed twice
 --> manifests/demo/stream.toml:4:26
  |
4 | layers = ["base", "top", "base", "Top"]
  |                          ^^^^^^

error: `Top` cannot name an image
 --> manifests/demo/stream.toml:4:34
  |
4 | layers = ["base", "top", "base", "Top"]
  |                                  ^^^^^
  hint: write `top`

error: `usr/lib` is not an absolute path
 --> manifests/demo/stream.toml:5:9
  |
5 | rpmdb = "usr/lib"
  |         ^^^^^^^^^
  hint: write `/usr/lib`

error: `os` lacks the key `version`
 --> manifests/demo/stream.toml:7:1
  |
7 | [os]
  | ^^^^

error: unknown key `versoin` of `os`
  --> manifests/demo/stream.toml:10:1
   |
10 | versoin = "9.6"
   | ^^^^^^^
  hint: did you mean `version`?

error: `9` is not of the form X.Y
  --> manifests/demo/stream.toml:13:10
   |
13 | prefix = "9"
   |          ^^^
  hint: versions are X.Y.YYYYMMDD-N, such as 9.6.20250203-0

error: unknown layer `bas`
  --> manifests/demo/stream.toml:14:13
   |
14 | dated-by = ["bas"]
   |             ^^^^^
  hint: did you mean `base`?

error: unknown image format `bootca`
  --> manifests/demo/stream.toml:17:10
   |
17 | format = "bootca"
   |          ^^^^^^^^
  hint: did you mean `bootc`?
"#);
}

#[test]
fn stream_variables() {
    let tree = Tree::new(&[(
        "demo/stream.toml",
        &with_stream(
            r#"
[variables]
arch = "mips"
a-b = 1
list = []
"#,
        ),
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: `arch` is always there and cannot be set
  --> manifests/demo/stream.toml:18:1
   |
18 | arch = "mips"
   | ^^^^

error: `a-b` cannot be the name of a variable
  --> manifests/demo/stream.toml:19:1
   |
19 | a-b = 1
   | ^^^
  hint: names are made of letters, digits and `_`, and begin with no digit

error: `list` is a list, expected a string, a number, true or false
  --> manifests/demo/stream.toml:20:8
   |
20 | list = []
   |        ^^
"#);
}

#[test]
fn variables_in_a_circle() {
    let tree = Tree::new(&[(
        "demo/stream.toml",
        &with_stream(
            r#"
[variables]
a = "$b"
b = "${c}/x"
c = "$a"
d = "$a"
"#,
        ),
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: variable `a` runs in a circle
  --> manifests/demo/stream.toml:18:5
   |
18 | a = "$b"
   |     ^^^^

error: variable `b` runs in a circle
  --> manifests/demo/stream.toml:19:5
   |
19 | b = "${c}/x"
   |     ^^^^^^^^

error: variable `c` runs in a circle
  --> manifests/demo/stream.toml:20:5
   |
20 | c = "$a"
   |     ^^^^

error: variable `d` runs in a circle
  --> manifests/demo/stream.toml:21:5
   |
21 | d = "$a"
   |     ^^^^
"#);
}

#[test]
fn repositories() {
    let tree = Tree::new(&[(
        "demo/stream.toml",
        &with_stream(
            r#"
[repos.empty]

[repos.unsigned]
baseurl = "ftp://example.com/$snapshot"
mirrorlist = "http://"
gpg_check = false
priority = "low"
includepkgs = ["[a"]
sslclientcert = "cert.pem"
"#,
        ),
    )]);
    insta::assert_snapshot!(tree.refusal("demo", "x86_64"), @r#"
error: repository `empty` has no `gpgkey` to check signatures with
  --> manifests/demo/stream.toml:17:8
   |
17 | [repos.empty]
   |        ^^^^^
  hint: name the key, or take unsigned packages with `gpgcheck = false`

error: repository `empty` has no place to fetch from
  --> manifests/demo/stream.toml:17:8
   |
17 | [repos.empty]
   |        ^^^^^
  hint: give it a `baseurl`, `mirrorlist` or `metalink`

error: repository `unsigned` has no `gpgkey` to check signatures with
  --> manifests/demo/stream.toml:19:8
   |
19 | [repos.unsigned]
   |        ^^^^^^^^
  hint: name the key, or take unsigned packages with `gpgcheck = false`

error: repository `unsigned` has only one of `sslclientcert` and `sslclientkey`
  --> manifests/demo/stream.toml:19:8
   |
19 | [repos.unsigned]
   |        ^^^^^^^^

error: unknown variable `snapshot`
  --> manifests/demo/stream.toml:20:30
   |
20 | baseurl = "ftp://example.com/$snapshot"
   |                              ^^^^^^^^^
  hint: expected one of `arch`, `basearch`, `os.id`, `os.major`, `os.name`, `os.version`, `releasever`, `releasever_major`, `releasever_minor`, `stream`

error: `http://` is no URL packages can be fetched from
  --> manifests/demo/stream.toml:21:14
   |
21 | mirrorlist = "http://"
   |              ^^^^^^^^^
  hint: write an http://, https:// or file:// URL, or a path

error: unknown key `gpg_check` of `unsigned`
  --> manifests/demo/stream.toml:22:1
   |
22 | gpg_check = false
   | ^^^^^^^^^
  hint: did you mean `gpgcheck`?

error: `priority` is a string, expected an integer
  --> manifests/demo/stream.toml:23:12
   |
23 | priority = "low"
   |            ^^^^^

error: `[a` is not a glob: unclosed character class; missing ']'
  --> manifests/demo/stream.toml:24:16
   |
24 | includepkgs = ["[a"]
   |                ^^^^
"#);
}

#[test]
fn long_lines_and_odd_characters_are_drawn() {
    let text = format!("kargs = '{}'\n\tdoc\t=  'é\t'\n\"\\u001b[31m\" = 1", "é".repeat(100_000));
    let told = Tree::new(&[("demo/top.toml", &text)]).refusal("demo", "x86_64");
    let (long, odd) = told.split_once("\n\n").unwrap();
    assert!(long.lines().take(5).all(|line| line.chars().count() < 350), "{long}");
    insta::assert_snapshot!(odd, @r#"
error: unknown key `doc`
 --> manifests/demo/top.toml:2:2
  |
2 |     doc    =  'é    '
  |     ^^^
  hint: did you mean `docs`?

error: unknown key `\u{1b}[31m`
 --> manifests/demo/top.toml:3:1
  |
3 | "\u001b[31m" = 1
  | ^^^^^^^^^^^^
  hint: expected one of `include`, `weak-deps`, `docs`, `langs`, `ima`, `overlay`, `sysusers`, `tmpfiles`, `kargs`, `packages`, `override`, `group`, `user`, `file`, `symlink`, `remove`, `units`, `kernel`, `script`, `os-release`, `image`, `when`, `from`
"#);
}

#[test]
fn nesting_is_limited() {
    for deep in ["[".repeat(100_000), "a={".repeat(100_000), ["a"].repeat(100_000).join(".") + "=1"] {
        let tree = Tree::new(&[("demo/top.toml", &deep)]);
        assert!(tree.refusal("demo", "x86_64").starts_with("error: "));
    }
}
