//! The rules of `bootc container lint`.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Level::{Fatal, Warning};
use super::{Breach, Linted, Rule, Source::Bootc};
use crate::accounts::Accounts;
use crate::sysusers;
use crate::tmpfiles;
use crate::tree::{GROUP, Kind, Node, PASSWD, Tree};

/// Directories that systemd mounts file systems on or fills (systemd: API File Systems), and `/var`.
const API_DIRECTORIES: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var"];
/// Where images document what a base image has.
const BASE_COPY: &str = "usr/share/doc/bootc/baseimage/base";
/// Where kernels are.
pub const MODULES: &str = "usr/lib/modules";
const KARGS: &str = "usr/lib/bootc/kargs.d";
const PREPARE_ROOT: &str = "ostree/prepare-root.conf";
/// What container runtimes leave in `/run`.
const INJECTED: &str = "run/systemd/resolve/stub-resolv.conf";

pub const RULES: [Rule; 14] = [
    Rule {
        name: "api-base-directories",
        level: Fatal,
        source: Bootc,
        description: "/dev, /proc, /run, /sys, /tmp and /var are directories",
        advice: "install the package that owns them, which is `filesystem`, in the bottom layer",
        check: api_directories,
    },
    Rule {
        name: "baseimage-composefs",
        level: Warning,
        source: Bootc,
        description: "/usr/lib/ostree/prepare-root.conf mounts the root by composefs",
        advice: "write `enabled = true` below `[composefs]` in /usr/lib/ostree/prepare-root.conf",
        check: composefs,
    },
    Rule {
        name: "baseimage-root",
        level: Fatal,
        source: Bootc,
        description: "/sysroot is a directory, and /ostree a link to sysroot/ostree",
        advice: "make both in the bottom layer",
        check: base_root,
    },
    Rule {
        name: "bootc-kargs",
        level: Fatal,
        source: Bootc,
        description: "the files /usr/lib/bootc/kargs.d/*.toml are TOML with `kargs` and perhaps `match-architectures`",
        advice: "write kernel arguments in a manifest, as `kargs`",
        check: kargs,
    },
    Rule {
        name: "buildah-injected",
        level: Warning,
        source: Bootc,
        description: "/etc/hostname and /etc/resolv.conf are no empty files, which container builds leave",
        advice: "remove the file in the layer that has it",
        check: injected,
    },
    Rule {
        name: "etc-usretc",
        level: Fatal,
        source: Bootc,
        description: "there is no /usr/etc beside /etc",
        advice: "move its content to /etc: /usr/etc is what ostree makes of that on a machine",
        check: usr_etc,
    },
    Rule {
        name: "kernel",
        level: Fatal,
        source: Bootc,
        description: "at most one directory /usr/lib/modules/VERSION has a vmlinuz",
        advice: "remove all kernels but one",
        check: kernels,
    },
    Rule {
        name: "nonempty-boot",
        level: Warning,
        source: Bootc,
        description: "/boot is there, and empty but for EFI",
        advice: "keep kernel and initramfs in /usr/lib/modules/VERSION: machines mount another /boot",
        check: boot,
    },
    Rule {
        name: "nonempty-run-tmp",
        level: Warning,
        source: Bootc,
        description: "/run and /tmp are empty",
        advice: "have tmpfiles.d make it: machines mount empty file systems there",
        check: run_and_tmp,
    },
    Rule {
        name: "sysusers",
        level: Warning,
        source: Bootc,
        description: "a file in /usr/lib/sysusers.d makes every user of /etc/passwd and group of /etc/group",
        advice: "declare it in a manifest, as [[user]], [[group]] or `sysusers`: machines keep their own /etc",
        check: accounts,
    },
    Rule {
        name: "utf8",
        level: Fatal,
        source: Bootc,
        description: "names of files and targets of links are UTF-8",
        advice: "rename it: ostree takes no other names",
        check: utf8,
    },
    Rule {
        name: "var-log",
        level: Warning,
        source: Bootc,
        description: "no file in /var/log has any content",
        advice: "remove it: logs are a machine's own, and no two builds write the same",
        check: logs,
    },
    Rule {
        name: "var-run",
        level: Fatal,
        source: Bootc,
        description: "/var/run, if it is there, is a link",
        advice: "make it a link to ../run",
        check: var_run,
    },
    Rule {
        name: "var-tmpfiles",
        level: Warning,
        source: Bootc,
        description: "tmpfiles.d makes all that is in /var",
        advice: "declare it in a manifest, as `tmpfiles`: machines keep the /var of the first image they were installed with",
        check: var,
    },
];

fn api_directories(linted: &Linted) -> Vec<Breach> {
    let wrong = |dir: &&str| expect_directory(&linted.tree, dir);
    API_DIRECTORIES.iter().filter_map(wrong).collect()
}

/// The breach of a path that is no directory.
fn expect_directory(tree: &Tree, path: &str) -> Option<Breach> {
    match tree.at(path).map(|node| &node.kind) {
        Some(Kind::Directory) => None,
        Some(other) => Some(Breach::new(path, format!("is {}, expected a directory", words(other)))),
        None => Some(Breach::new(path, "is not there, expected a directory")),
    }
}

/// What something is, in words.
pub fn words(kind: &Kind) -> String {
    match kind {
        Kind::Directory => "a directory".to_owned(),
        Kind::File(_) => "a file".to_owned(),
        Kind::Symlink(target) => format!("a link to {}", target.display()),
        Kind::Device { .. } => "a device node".to_owned(),
        Kind::Fifo => "a named pipe".to_owned(),
        Kind::Socket => "a socket".to_owned(),
    }
}

/// The root and, where an image documents what a base has, the copy of that.
fn bases(tree: &Tree) -> impl Iterator<Item = String> {
    let copy = tree.locate(Path::new(BASE_COPY), true).filter(|path| is_directory(tree.get(path)));
    [Some(String::new()), copy.map(|_| format!("{BASE_COPY}/"))].into_iter().flatten()
}

fn is_directory(node: Option<&Node>) -> bool {
    node.is_some_and(|node| node.kind == Kind::Directory)
}

fn base_root(linted: &Linted) -> Vec<Breach> {
    let tree = &linted.tree;
    let of_base = |base: String| {
        let sysroot = expect_directory(tree, &format!("{base}sysroot"));
        let link = format!("{base}ostree");
        let found = match tree.at(&link).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) if target == "sysroot/ostree" => None,
            Some(other) => Some(format!("is {}, expected a link to sysroot/ostree", words(other))),
            None => Some("is not there, expected a link to sysroot/ostree".to_owned()),
        };
        [sysroot, found.map(|found| Breach::new(link, found))]
    };
    bases(tree).flat_map(of_base).flatten().collect()
}

fn composefs(linted: &Linted) -> Vec<Breach> {
    let of_base = |base: String| {
        // the administrator's comes first
        let paths = ["etc", "usr/lib"].map(|dir| format!("{base}{dir}/{PREPARE_ROOT}"));
        let Some(path) = paths.iter().find(|path| linted.tree.at(path).is_some()) else {
            return Some(Breach::new(&paths[1], "is not there, expected it to enable composefs"));
        };
        match is_overlay(linted.tree.text(path).unwrap_or_default()) {
            Ok(true) => None,
            Ok(false) => Some(Breach::new(path, "does not enable composefs")),
            Err(error) => Some(Breach::new(path, format!("cannot be read: {error:#}"))),
        }
    };
    bases(&linted.tree).filter_map(of_base).collect()
}

/// Whether a prepare-root.conf has the root mounted as an overlay: by composefs, or as a transient one (ostree:
/// ostree-prepare-root(1)).
fn is_overlay(text: &[u8]) -> Result<bool> {
    let (mut composefs, mut transient) = (false, false);
    let mut group = "";
    for line in str::from_utf8(text)?.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[') {
            group = name.strip_suffix(']').with_context(|| format!("`{line}` is no group"))?;
            continue;
        }
        let (key, value) = line.split_once('=').with_context(|| format!("`{line}` is no KEY=VALUE"))?;
        match (group, key.trim(), value.trim()) {
            ("", ..) => bail!("`{line}` is in no group"),
            ("composefs", "enabled", value) => {
                composefs = ["signed", "verity", "yes", "true", "1", "maybe"].contains(&value);
            }
            ("root", "transient", value) => match value {
                "true" | "1" => transient = true,
                "false" | "0" => transient = false,
                other => bail!("root.transient is `{other}`, expected true or false"),
            },
            _ => {}
        }
    }
    Ok(composefs || transient)
}

/// A file of kernel arguments (bootc: `docs/src/building/kernel-arguments.md`).
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kargs {
    #[serde(rename = "kargs")]
    _kargs: Vec<String>,
    #[serde(rename = "match-architectures")]
    _match_architectures: Option<Vec<String>>,
}

fn kargs(linted: &Linted) -> Vec<Breach> {
    let files = linted.tree.children(KARGS).into_iter();
    let files = files.filter(|(path, _)| path.extension() == Some(OsStr::new("toml")));
    let breach = |(path, node): (&Path, &Node)| {
        let Kind::File(content) = &node.kind else { return None };
        let text = str::from_utf8(content.text.as_deref().unwrap_or_default()).context("it is no UTF-8");
        let parsed = text.and_then(|text| Ok(toml::from_str::<Kargs>(text)?));
        parsed.err().map(|error| Breach::new(path, format!("{error:#}").trim().replace('\n', "; ")))
    };
    files.filter_map(breach).collect()
}

fn injected(linted: &Linted) -> Vec<Breach> {
    let is_empty = |path: &&str| match linted.tree.at(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => content.size == 0,
        _ => false,
    };
    let files = ["etc/hostname", "etc/resolv.conf"].into_iter().filter(is_empty);
    files.map(|path| Breach::new(path, "is an empty file")).collect()
}

fn usr_etc(linted: &Linted) -> Vec<Breach> {
    let both = linted.tree.at("etc").is_some() && linted.tree.at("usr/etc").is_some();
    both.then(|| Breach::new("usr/etc", "is beside /etc")).into_iter().collect()
}

/// The directories of modules that have a kernel.
pub fn kernel_directories(tree: &Tree) -> Vec<PathBuf> {
    let has_kernel = |dir: &&Path| {
        let kernel = tree.locate(&dir.join("vmlinuz"), true);
        kernel.is_some_and(|kernel| tree.get(&kernel).is_some())
    };
    let directories = tree.children(MODULES).into_iter();
    let directories = directories.filter(|(_, node)| node.kind == Kind::Directory).map(|(path, _)| path);
    directories.filter(has_kernel).map(Path::to_owned).collect()
}

fn kernels(linted: &Linted) -> Vec<Breach> {
    let found = kernel_directories(&linted.tree);
    let several = |dir: &PathBuf| Breach::new(dir.join("vmlinuz"), format!("is one of {}", found.len()));
    if found.len() > 1 { found.iter().map(several).collect() } else { Vec::new() }
}

fn boot(linted: &Linted) -> Vec<Breach> {
    let missing = expect_directory(&linted.tree, "boot");
    let content = linted.tree.children("boot").into_iter();
    let content = content.filter(|(path, _)| path.file_name() != Some(OsStr::new("EFI")));
    missing
        .into_iter()
        .chain(content.map(|(path, node)| Breach::new(path, format!("is {}", words(&node.kind)))))
        .collect()
}

fn run_and_tmp(linted: &Linted) -> Vec<Breach> {
    let is_injected = |path: &Path| {
        // with the directories above it, if nothing else is in them
        Path::new(INJECTED).starts_with(path)
            && linted.tree.below(path).all(|(found, _)| Path::new(INJECTED).starts_with(found))
    };
    let below = ["run", "tmp"].into_iter().flat_map(|dir| linted.tree.below(Path::new(dir)).skip(1));
    let content = below.filter(|(path, _)| !is_injected(path));
    content.map(|(path, node)| Breach::new(path, format!("is {}", words(&node.kind)))).collect()
}

/// Users and groups that no file of sysusers.d makes.
fn accounts(linted: &Linted) -> Vec<Breach> {
    let text = |path| String::from_utf8_lossy(linted.tree.text(path).unwrap_or_default()).into_owned();
    let accounts = Accounts::parse(&text(PASSWD), &text(GROUP));
    let mut declared = sysusers::Declared::default();
    for (_, text) in configuration(&linted.tree, sysusers::DIRECTORY) {
        declared.read(text);
    }
    let users = accounts.users.keys().filter(|name| !declared.users.contains(*name));
    let groups = accounts.groups.keys().filter(|name| !declared.groups.contains(*name));
    let breach = |path: &str, kind: &str, name: &str| Breach {
        package: linted.maker(name).map(str::to_owned),
        ..Breach::new(path, format!("no file in /{} makes the {kind} {name}", sysusers::DIRECTORY))
    };
    let users = users.map(|name| breach(PASSWD, "user", name));
    users.chain(groups.map(|name| breach(GROUP, "group", name))).collect()
}

impl Linted {
    /// The package whose scriptlets name an account after `useradd`, `groupadd` or the like.
    fn maker(&self, account: &str) -> Option<&str> {
        let names = |line: &str| {
            line.contains("add")
                && line.split(|c: char| c.is_whitespace() || "'\";".contains(c)).any(|w| w == account)
        };
        let maker = self.scriptlets.iter().find(|(_, body)| body.replace("\\\n", " ").lines().any(names));
        maker.map(|(package, _)| package.as_str())
    }
}

/// The files `*.conf` of a directory with their text, by path.
fn configuration<'t>(tree: &'t Tree, dir: &str) -> Vec<(&'t str, &'t [u8])> {
    let file = |(path, node): (&'t Path, &'t Node)| {
        let path = path.to_str().filter(|path| path.ends_with(".conf"))?;
        match &node.kind {
            Kind::File(content) => Some((path, content.text.as_deref()?)),
            // to /dev/null: the file of this name in another directory makes nothing
            Kind::Symlink(_) => Some((path, &[][..])),
            _ => None,
        }
    };
    tree.children(dir).into_iter().filter_map(file).collect()
}

fn utf8(linted: &Linted) -> Vec<Breach> {
    let breach = |(path, node): (&Path, &Node)| {
        let is_utf8 = |name: &OsStr| name.to_str().is_some();
        match &node.kind {
            _ if !path.file_name().is_none_or(is_utf8) => Some(Breach::new(path, "its name is no UTF-8")),
            Kind::Symlink(target) if !is_utf8(target) => {
                let target = target.as_bytes().escape_ascii();
                Some(Breach::new(path, format!("is a link to `{target}`, which is no UTF-8")))
            }
            _ => None,
        }
    };
    linted.tree.iter().filter_map(breach).collect()
}

fn logs(linted: &Linted) -> Vec<Breach> {
    let Some(dir) = linted.tree.locate(Path::new("var/log"), true) else { return Vec::new() };
    let breach = |(path, node): (&Path, &Node)| match &node.kind {
        Kind::File(content) if content.size > 0 => {
            Some(Breach::new(path, format!("has {} bytes", content.size)))
        }
        _ => None,
    };
    linted.tree.below(&dir).filter_map(breach).collect()
}

fn var_run(linted: &Linted) -> Vec<Breach> {
    let kind = linted.tree.at("var/run").map(|node| &node.kind);
    let wrong = kind.filter(|kind| !matches!(kind, Kind::Symlink(_)));
    wrong
        .map(|kind| Breach::new("var/run", format!("is {}, expected a link to ../run", words(kind))))
        .into_iter()
        .collect()
}

/// What is in `/var` and no tmpfiles.d file makes.
fn var(linted: &Linted) -> Vec<Breach> {
    let tree = &linted.tree;
    let declared = declared(tree);
    let is_made = |path: &Path| {
        let Some(path) = path.to_str() else { return false };
        let Ok::<_, Infallible>(made) =
            declared.makes(&format!("/{path}"), |path| Ok(tree.at(path).is_some()));
        made
    };
    let content = tree.below(Path::new("var")).skip(1).filter(|(path, _)| !is_made(path));
    content
        .map(|(path, node)| {
            Breach::new(path, format!("is {} that tmpfiles.d does not make", words(&node.kind)))
        })
        .collect()
}

/// What tmpfiles.d makes.
fn declared(tree: &Tree) -> tmpfiles::Declared {
    let files = tmpfiles::DIRECTORIES.iter().flat_map(|dir| configuration(tree, dir));
    let mut declared = tmpfiles::Declared::of(files);
    let Ok::<_, Infallible>(()) = declared.place(|path| {
        let real = tree.locate(Path::new(path), false);
        let real = real.and_then(|path| path.to_str().map(|path| format!("/{path}")));
        Ok(real.unwrap_or_else(|| path.to_owned()))
    });
    declared
}
