//! Repository metadata: what packages a repository offers (createrepo_c's repomd, primary, filelists,
//! updateinfo, comps, modules).
//!
//! Pure parsers: [`crate::fetch`] brings the documents, checks them and puts the parts together.

pub mod compact;
pub mod comps;
pub mod filelists;
pub mod filter;
pub mod mirrors;
pub mod modules;
mod packages;
pub mod primary;
pub mod repomd;
pub mod updateinfo;
mod xml;

use std::sync::Arc;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

pub use filelists::Paths;
pub use packages::Packages;

use crate::digest::Digest;
use crate::package::{Dependency, Nevra};

/// A repository's metadata, parsed and verified.
#[derive(Clone, Debug)]
pub struct RepoMetadata {
    /// Repository id in the stream.
    pub id: String,
    /// repomd's `revision`, UTC seconds.
    pub revision: u64,
    /// Digest of repomd.xml as fetched.
    pub repomd: Digest,
    /// Lower wins.
    pub priority: i32,
    /// Lower is preferred among equals.
    pub cost: i32,
    /// Its packages are visible although a module filters them.
    pub module_hotfixes: bool,
    /// Packages as listed, minus those the repository's include and exclude globs hide.
    pub packages: Packages,
    /// Advisories (updateinfo), in document order, once [`crate::fetch::Fetcher::advisories`] has read them.
    pub advisories: Vec<Advisory>,
    /// Groups and environments, once [`crate::fetch::Fetcher::comps`] has read them.
    pub comps: comps::Comps,
    /// Streams of modules.
    pub modules: modules::Modules,
}

impl RepoMetadata {
    /// The same repository with other packages, and nothing else.
    pub fn with(&self, packages: Vec<RepoPackage>) -> Self {
        Self {
            id: self.id.clone(),
            revision: self.revision,
            repomd: self.repomd,
            priority: self.priority,
            cost: self.cost,
            module_hotfixes: self.module_hotfixes,
            packages: packages.into(),
            advisories: Vec::new(),
            comps: comps::Comps::default(),
            modules: modules::Modules::default(),
        }
    }
}

/// A package as the solver sees it. Dependencies are shared: of the hundred thousands of a repository most say the same.
#[derive(Clone, Debug, Default)]
pub struct RepoPackage {
    /// Identity.
    pub nevra: Nevra,
    /// Digest of the .rpm file.
    pub sha256: Option<Digest>,
    /// Size of the .rpm file in bytes.
    pub size: u64,
    /// Installed size in bytes.
    pub installed_size: u64,
    /// Path below the repository's base URL.
    pub location: String,
    /// `cri-o-1.32.1-3.el9.src.rpm`
    pub source: String,
    /// Vendor, if any.
    pub vendor: Option<String>,
    /// Build time, UTC seconds.
    pub build_time: u64,
    /// What it provides, its own name included.
    pub provides: Vec<Arc<Dependency>>,
    /// What it requires.
    pub requires: Vec<Arc<Dependency>>,
    /// What it conflicts with.
    pub conflicts: Vec<Arc<Dependency>>,
    /// What it obsoletes.
    pub obsoletes: Vec<Arc<Dependency>>,
    /// Weak: should be there.
    pub recommends: Vec<Arc<Dependency>>,
    /// Weaker: breaks ties only.
    pub suggests: Vec<Arc<Dependency>>,
    /// Reverse of recommends.
    pub supplements: Vec<Arc<Dependency>>,
    /// Reverse of suggests.
    pub enhances: Vec<Arc<Dependency>>,
    /// Absolute paths of files, directories and ghosts: primary's, and those of filelists that were asked for.
    pub files: Vec<String>,
}

/// An updateinfo entry.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Advisory {
    /// `RHSA-2025:1234`
    pub id: String,
    /// `security`, `bugfix`, `enhancement`.
    pub kind: String,
    /// `Important`; empty when not stated.
    pub severity: String,
    /// One line.
    pub title: String,
    /// CVE ids referenced, sorted.
    pub cves: Vec<String>,
    /// Packages that carry the fix.
    pub packages: Vec<Nevra>,
}

/// Checks a path that metadata or a lockfile give as relative to a base URL: it may not leave it.
pub fn location(href: &str) -> Result<String> {
    let normal = |part: &str| !matches!(part, "" | "." | "..");
    if href.chars().any(char::is_control) {
        bail!("the location {href:?} has a control character");
    }
    if !href.split('/').all(normal) {
        bail!("the location `{href}` leaves the repository: expected a plain relative path");
    }
    Ok(href.to_owned())
}
