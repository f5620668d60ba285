//! The manifest language, from the files people write to the plan or to the mistakes they are told.

mod compile;
mod language;
mod mistakes;
mod mutations;
mod repo_files;

use std::path::PathBuf;
use std::process::{Command, Output};

use strata::manifest::load;
use strata::package::Arch;
use strata::plan::{Layer, Plan, Sourced};
use tempfile::TempDir;

/// The smallest stream with two layers, `top` on `base`.
const STREAM: &str = r#"arches = ["x86_64", "aarch64"]
layers = ["base", "top"]

[os]
id = "rhel"
name = "Demo"
version = "9.6"

[repos.baseos]
baseurl = "http://example.com/baseos"
gpgkey = "key.asc"

[repos.ose]
baseurl = ["ose/$basearch/"]
gpgcheck = false
"#;

fn with_stream(more: &str) -> String {
    STREAM.to_owned() + more
}

/// A folder with manifests of the stream `demo`.
struct Tree(TempDir);

impl Tree {
    /// [`STREAM`] and two empty layers, replaced or added to by `files`.
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(TempDir::new().unwrap());
        for (name, text) in [("demo/stream.toml", STREAM), ("demo/base.toml", ""), ("demo/top.toml", "")] {
            tree.write(name, text);
        }
        for (name, text) in files {
            tree.write(name, text);
        }
        tree
    }

    fn manifests(&self) -> PathBuf {
        self.0.path().join("manifests")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.manifests().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn plan(&self, arch: Arch) -> Plan {
        load(&self.manifests(), "demo", arch).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
    }

    /// The layer `top` for x86_64.
    fn top(&self) -> Layer {
        self.plan(Arch::X86_64).layer("top").unwrap().clone()
    }

    fn compile(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
        command.arg("compile").args(arguments).current_dir(self.0.path()).env_remove("STRATA_MANIFESTS");
        command.output().unwrap()
    }
}

fn values(list: &[Sourced<String>]) -> Vec<&str> {
    list.iter().map(|entry| entry.value.as_str()).collect()
}

/// The manifests of `docs/manifests.md`, its blocks put together.
fn documented() -> Tree {
    let text = include_str!("../../docs/manifests.md");
    let blocks: Vec<_> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let (stream, layer): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|block| ["[os]", "[match-evr]"].iter().any(|table| block.contains(table)));
    Tree::new(&[
        ("demo/stream.toml", &(stream.concat() + "[repos.ose]\nbaseurl = \"ose\"\ngpgcheck = false\n")),
        ("demo/bootc.toml", ""),
        ("demo/coreos.toml", &layer.concat()),
        ("demo/node.toml", "packages.repos = [\"ose\"]"),
        ("demo/common.toml", ""),
        ("demo/packages-x86_64.toml", ""),
        ("shared/packages-x86-new.toml", "docs = true"),
        ("demo/overlay/usr/x", ""),
    ])
}
