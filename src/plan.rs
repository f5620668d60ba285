//! What a build means to do: the manifests of a stream, flattened for one architecture.
//!
//! [`crate::manifest`] makes these from TOML: includes merged, conditions decided, variables substituted,
//! references checked. After that nobody re-validates. Every entry keeps the file and line it came from,
//! because `compile` prints it and errors of later stages are told in terms of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::hinted;
use crate::image::pack::Compression;
use crate::image::reference::Reference;
use crate::package::{Arch, Evr};

/// Where an entry was written. Printed `manifests/demo/node.toml:14`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    /// The manifest, as the user would name it.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Its place in the manifests.
    pub origin: Origin,
}

/// A stream for one architecture: its layers in stack order, bottom first.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What holds for the whole stream.
    pub stream: Stream,
    /// Layers in stack order: a layer comes after the layer it is built from.
    pub layers: Vec<Layer>,
}

impl Plan {
    /// The layer called `name`.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|l| l.name == name)
    }

    /// The layer called `name`; that there is none is an error which names those that are.
    pub fn known_layer(&self, name: &str) -> Result<&Layer> {
        self.layer(name).ok_or_else(|| {
            let names: Vec<&str> = self.layers.iter().map(|layer| layer.name.as_str()).collect();
            hinted(
                format!("the stream {} has no layer `{name}`", self.stream.name),
                format!("its layers are {}", names.join(", ")),
            )
        })
    }

    /// The layers of these names, in stack order; all of them if none is named.
    pub fn select(&self, names: &[String]) -> Result<Vec<&Layer>> {
        names.iter().try_for_each(|name| self.known_layer(name).map(drop))?;
        Ok(self.layers.iter().filter(|layer| names.is_empty() || names.contains(&layer.name)).collect())
    }

    /// The layer and all below it, bottom first.
    pub fn stack(&self, name: &str) -> Vec<&Layer> {
        let mut stack = Vec::new();
        let mut next = self.layer(name);
        while let Some(layer) = next {
            stack.push(layer);
            next = match &layer.from {
                Base::Layer(below) => self.layer(below),
                Base::Scratch | Base::Image(_) => None,
            };
        }
        stack.reverse();
        stack
    }

    /// The image that a layer, or the bottom of those below it, stands on.
    pub fn pinned(&self, name: &str) -> Option<&Reference> {
        match &self.stack(name).first()?.from {
            Base::Image(image) => Some(image),
            Base::Scratch | Base::Layer(_) => None,
        }
    }
}

/// `stream.toml` as meant.
#[derive(Clone, Debug, Serialize)]
pub struct Stream {
    /// `demo`, `rhel-9.6`.
    pub name: String,
    /// The architecture this plan is for.
    pub arch: Arch,
    /// The operating system.
    pub os: Os,
    /// OpenShift's version, `4.19`.
    pub openshift: Option<String>,
    /// Variables after substitution, `arch` and `basearch` included.
    pub variables: BTreeMap<String, String>,
    /// Repositories by id.
    pub repos: BTreeMap<String, Repo>,
    /// Directory of the rpmdb inside the rootfs, absolute: `/usr/lib/sysimage/rpm`.
    pub rpmdb: String,
    /// How versions are made.
    pub version: VersionScheme,
    /// The base image's form.
    pub image_format: ImageFormat,
    /// What `/opt` and `/usr/local` are.
    pub opt_usrlocal: OptUsrlocal,
    /// How blobs are compressed.
    pub compression: Compression,
    /// That every source package has the same EVR on every architecture, if the stream asks for it.
    pub same_evr: Option<SameEvr>,
    /// Sets of globs, by name: packages of a stack that match any glob of a set must have one EVR.
    pub match_evr: BTreeMap<String, Vec<String>>,
}

/// `same-evr`: packages of all architectures are built from the same source packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SameEvr {
    /// Globs of source package names which may differ.
    pub except: Vec<String>,
}

/// The distribution a stream is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Os {
    /// os-release `ID`: `rhel`.
    pub id: String,
    /// os-release `NAME` before strata appends to it: `Red Hat Enterprise Linux`.
    pub name: String,
    /// `9.6`
    pub version: String,
}

impl Os {
    /// The platform that streams of modules are built for, `el9` (os-release `PLATFORM_ID` after `platform:`).
    pub fn module_platform(&self) -> String {
        let major = self.version.split('.').next().unwrap_or(&self.version);
        match self.id.as_str() {
            "fedora" => format!("f{major}"),
            _ => format!("el{major}"),
        }
    }
}

/// How image versions are made (`<prefix>.<YYYYMMDD>-<N>`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionScheme {
    /// Leading part, by default the OS version: `9.6`.
    pub prefix: String,
    /// Layers whose repo revisions date the version; layers above inherit it. By default all but the top one.
    pub dated_by: Vec<String>,
}

/// The base image's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// A plain bootc image.
    Bootc,
    /// A commit of ostree in a container, for clients that don't take plain images.
    Ostree,
}

/// What `/opt` and `/usr/local` are (rpm-ostree: treefile `opt-usrlocal`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OptUsrlocal {
    /// Directories of the image, updated with it.
    Root,
    /// Links to `/var/opt` and `/var/usrlocal`: each machine's own.
    Var,
}

/// A repository, in the terms of a dnf `.repo` file (dnf.conf(5)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repo {
    /// Section name of a `.repo` file.
    pub id: String,
    /// Where it was declared.
    pub origin: Origin,
    /// Base URLs, `file://` or `http(s)://`, variables substituted, no trailing slash.
    pub baseurl: Vec<String>,
    /// URL of a list of mirrors.
    pub mirrorlist: Option<String>,
    /// URL of a metalink.
    pub metalink: Option<String>,
    /// Public keys packages are signed with: `file://` or `http(s)://` URLs.
    pub gpgkey: Vec<String>,
    /// Packages must be signed by one of the keys. Off only by an explicit `gpgcheck = false`.
    pub gpgcheck: bool,
    /// repomd.xml must be signed.
    pub repo_gpgcheck: bool,
    /// Lower wins; 99 by default.
    pub priority: i32,
    /// Lower is preferred among equals; 1000 by default.
    pub cost: i32,
    /// Globs: if not empty, only these packages are seen.
    pub includepkgs: Vec<String>,
    /// Globs: these packages are not seen.
    pub excludepkgs: Vec<String>,
    /// Packages are visible although a module filters them.
    pub module_hotfixes: bool,
    /// PEM file of a client certificate; a directory or a glob for the newest `NAME.pem` that has a `NAME-key.pem`.
    pub sslclientcert: Option<PathBuf>,
    /// PEM file of its key.
    pub sslclientkey: Option<PathBuf>,
    /// PEM file of the CA the server is checked against.
    pub sslcacert: Option<PathBuf>,
    /// Check the server's certificate.
    pub sslverify: bool,
    /// URL of a proxy; `_none_` for none, whatever the environment says.
    pub proxy: Option<String>,
    /// Where `USER:PASSWORD` for the proxy is.
    pub proxy_auth: Option<Secret>,
    /// Where `USER:PASSWORD` is, for HTTP's basic authentication.
    pub auth: Option<Secret>,
    /// Headers of every request, and where their values are.
    pub headers: BTreeMap<String, Secret>,
    /// dnf would go on without it when it cannot be reached; strata does not.
    pub skip_if_unavailable: bool,
}

/// Where a secret is read when it is needed; itself it is in no plan, and so in no lockfile, log or image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
    /// `username` and `password` of a section of a `.repo` file.
    RepoFile {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// What the two keys begin with: nothing, or `proxy_`.
        prefix: &'static str,
    },
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => path.display().fmt(f),
            Self::RepoFile { file, section, .. } => write!(f, "[{section}] of {}", file.display()),
        }
    }
}

/// What a layer stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// Nothing: the bottom of the stack.
    Scratch,
    /// Another layer of the stream.
    Layer(String),
    /// Somebody's image, pinned by digest.
    Image(Reference),
}

/// A layer manifest as meant.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// `bootc`, `coreos`, `node`.
    pub name: String,
    /// What it stands on.
    pub from: Base,
    /// Everything that decides which packages are in it.
    pub packages: Packages,
    /// Install files marked as documentation.
    pub docs: bool,
    /// Languages kept, as rpm's `%_install_langs`; all when absent.
    pub langs: Option<Vec<String>>,
    /// Give files the IMA signatures of their packages.
    pub ima: bool,
    /// Everything that is done to the rootfs after the packages.
    pub config: Configuration,
    /// Fields set in os-release, in order.
    pub os_release: Vec<Sourced<(String, String)>>,
    /// Image configuration.
    pub image: ImageConfig,
}

/// The package request of a layer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Packages {
    /// Repositories it may take packages from, by id, in the order of `stream.toml`.
    pub repos: Vec<String>,
    /// Specs as dnf takes them: name, NEVRA form, glob, capability, path, `name >= 1`, `@group`.
    pub install: Vec<Sourced<String>>,
    /// Packages of the layers below that this layer removes.
    pub remove: Vec<Sourced<String>>,
    /// Globs of packages the solver must not see.
    pub exclude: Vec<Sourced<String>>,
    /// Install weak dependencies (Recommends, Supplements).
    pub weak_deps: bool,
    /// Streams of modules to enable, `nodejs:18`.
    pub modules: Vec<Sourced<String>>,
    /// Globs of packages that no weak dependency brings in.
    pub exclude_from_weak: Vec<Sourced<String>>,
    /// Exceptions with a reason.
    pub overrides: Vec<Sourced<Override>>,
}

/// A package held at, or replaced by, another version than the solver would take; the only way a layer may
/// change a package of the layers below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Override {
    /// Package name.
    pub package: String,
    /// The version wanted (release may be left out), or a local RPM file.
    pub to: OverrideTo,
    /// Why such an exception exists at all.
    pub kind: OverrideKind,
    /// Why this one exists, for the reviewer.
    pub reason: String,
    /// URL of the update (Bodhi, errata) that brings the package to everybody.
    pub update: Option<String>,
    /// Last day it is meant to live, `YYYY-MM-DD` UTC.
    pub until: Option<String>,
}

/// What an override puts in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OverrideTo {
    /// A version in a repository.
    Version(Evr),
    /// A local file.
    File(PathBuf),
}

/// The kinds of override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverrideKind {
    /// Newer than the layer below ships.
    FastTrack,
    /// Held at a version.
    Pin,
    /// A one-off build for a customer or an incident.
    Hotfix,
}

impl fmt::Display for OverrideKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FastTrack => "fast-track",
            Self::Pin => "pin",
            Self::Hotfix => "hotfix",
        })
    }
}

/// What is done to the rootfs after the packages, in this order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Configuration {
    /// Groups, then users, made before files so that owners resolve.
    pub groups: Vec<Sourced<Group>>,
    /// See `groups`.
    pub users: Vec<Sourced<User>>,
    /// sysusers.d lines shipped as `/usr/lib/sysusers.d/<layer>.conf`.
    pub sysusers: Vec<Sourced<String>>,
    /// Directory trees copied over the rootfs.
    pub overlays: Vec<Sourced<PathBuf>>,
    /// Single files.
    pub files: Vec<Sourced<File>>,
    /// Symbolic links.
    pub symlinks: Vec<Sourced<Symlink>>,
    /// Absolute paths or globs removed.
    pub removals: Vec<Sourced<String>>,
    /// tmpfiles.d lines shipped as `/usr/lib/tmpfiles.d/<layer>.conf`.
    pub tmpfiles: Vec<Sourced<String>>,
    /// Systemd units enabled.
    pub enable: Vec<Sourced<String>>,
    /// Systemd units disabled.
    pub disable: Vec<Sourced<String>>,
    /// Systemd units masked.
    pub mask: Vec<Sourced<String>>,
    /// `default.target` links here.
    pub default_target: Option<Sourced<String>>,
    /// Kernel arguments, shipped as `/usr/lib/bootc/kargs.d/<layer>.toml`.
    pub kargs: Vec<Sourced<String>>,
    /// Initramfs options.
    pub kernel: Option<Sourced<Kernel>>,
    /// Scripts run in the sandbox, last.
    pub scripts: Vec<Sourced<Script>>,
}

/// `[[group]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Fixed id; the next free system id when absent.
    pub gid: Option<u32>,
    /// Users that belong to it.
    pub members: Vec<String>,
}

/// `[[user]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// User name.
    pub name: String,
    /// Fixed id; the next free system id when absent.
    pub uid: Option<u32>,
    /// Primary group by name or number; a group of the user's name when absent.
    pub group: Option<String>,
    /// GECOS field.
    pub comment: String,
    /// Home directory, `/` when absent.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// `[[file]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// Absolute path in the rootfs.
    pub path: String,
    /// Its bytes.
    pub content: FileContent,
    /// Permission bits; `0644` by default.
    pub mode: u32,
    /// Owner by name or number; `root` by default.
    pub user: String,
    /// Group by name or number; `root` by default.
    pub group: String,
}

/// Where the bytes of a `[[file]]` are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileContent {
    /// In the manifest.
    Text(String),
    /// In a file on the build machine.
    Source(PathBuf),
    /// Appended to the file of the rootfs, which must exist.
    Append(String),
}

/// `[[symlink]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Symlink {
    /// Absolute path in the rootfs.
    pub path: String,
    /// What it points to.
    pub target: String,
}

/// `[kernel]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Make `/usr/lib/modules/KVER/initramfs.img` with the rootfs's dracut.
    pub initramfs: bool,
    /// Arguments added to dracut's command line.
    pub initramfs_args: Vec<String>,
}

/// `[[script]]`: what can't be declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Script {
    /// Name in progress and errors.
    pub name: String,
    /// Why it can't be declared.
    pub reason: String,
    /// Interpreter with arguments, `["/bin/sh", "-eu"]` by default.
    pub interpreter: Vec<String>,
    /// The text.
    pub body: String,
}

/// `[image]`
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImageConfig {
    /// Repository name of the image: `rhel-coreos`.
    pub name: Option<String>,
    /// Most blobs that it may have over those of the image below.
    pub max_layers: Option<usize>,
    /// Labels of the OCI config.
    pub labels: BTreeMap<String, Sourced<String>>,
    /// Manifest annotations.
    pub annotations: BTreeMap<String, Sourced<String>>,
    /// Environment.
    pub env: BTreeMap<String, Sourced<String>>,
    /// Command.
    pub cmd: Option<Sourced<Vec<String>>>,
}
