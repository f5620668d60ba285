//! Repository metadata: what packages a repository offers (createrepo_c's repomd, primary, filelists,
//! updateinfo).
//!
//! Pure parsers: [`crate::fetch`] brings the documents, checks them and puts the parts together.

pub mod filelists;
pub mod filter;
pub mod mirrors;
pub mod primary;
pub mod repomd;
pub mod updateinfo;
mod xml;

use anyhow::{Result, bail};

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
    /// Packages as listed, minus those the repository's include and exclude globs hide.
    pub packages: Vec<RepoPackage>,
    /// Advisories (updateinfo), in document order, once [`crate::fetch::Fetcher::advisories`] has read them.
    pub advisories: Vec<Advisory>,
}

/// A package as the solver sees it.
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
    pub provides: Vec<Dependency>,
    /// What it requires.
    pub requires: Vec<Dependency>,
    /// What it conflicts with.
    pub conflicts: Vec<Dependency>,
    /// What it obsoletes.
    pub obsoletes: Vec<Dependency>,
    /// Weak: should be there.
    pub recommends: Vec<Dependency>,
    /// Weaker: breaks ties only.
    pub suggests: Vec<Dependency>,
    /// Reverse of recommends.
    pub supplements: Vec<Dependency>,
    /// Reverse of suggests.
    pub enhances: Vec<Dependency>,
    /// Absolute paths of files, directories and ghosts: primary's, or all when filelists are loaded.
    pub files: Vec<String>,
}

/// An updateinfo entry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
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
