//! The lockfile's format, version 1.
//!
//! Made for review: one table per package, sorted by name, EVR and architecture, no noise; a one-package
//! update is a few changed lines.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::package::{Arch, Evr, Nevra};

/// The locked packages of one layer on one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lockfile {
    /// Format version, 1.
    pub version: u32,
    /// Stream name.
    pub stream: String,
    /// Layer name.
    pub layer: String,
    /// Architecture.
    pub arch: Arch,
    /// Digest of the compiled plan's package request.
    pub manifest: Digest,
    /// Digest of the parent layer's package list; absent for the bottom layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Repositories packages were taken from or could have been, sorted by id.
    #[serde(default, rename = "repo")]
    pub repos: Vec<LockedRepo>,
    /// Packages this layer adds, replaces or removes, sorted.
    #[serde(default, rename = "package")]
    pub packages: Vec<LockedPackage>,
}

/// A repository at the time of locking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRepo {
    /// Repository id.
    pub id: String,
    /// repomd revision, UTC seconds.
    pub revision: u64,
    /// Digest of repomd.xml.
    pub repomd: Digest,
}

/// One package of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// `[epoch:]version-release`
    pub evr: Evr,
    /// Package architecture.
    pub arch: String,
    /// Repository id, or `file` for a local RPM. Empty (left out) for a removal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repo: String,
    /// Path below the repository's base URL; for a local RPM its path below the manifests' directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Digest of the .rpm file, 64 hex digits. Left out for a removal.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bare_hex")]
    pub sha256: Option<Digest>,
    /// Size of the .rpm file in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Source package file name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// `requested`, `required by NAME`, `recommended by NAME`, `override: REASON`, `removed by the manifest`,
    /// `obsoleted by NAME`.
    pub why: String,
    /// What the build does with it.
    pub action: Action,
    /// EVR of the parent's package that an upgrade replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Evr>,
}

impl LockedPackage {
    /// Its identity.
    pub fn nevra(&self) -> Nevra {
        Nevra { name: self.name.clone(), evr: self.evr.clone(), arch: self.arch.clone() }
    }
}

/// What a build does with a locked package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Adds it.
    Install,
    /// Puts it in the place of the parent's, whichever is newer.
    Upgrade,
    /// Takes the parent's away.
    Remove,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Digests without the `sha256:` prefix, as the key already says it.
mod bare_hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::digest::Digest;

    pub fn serialize<S: Serializer>(digest: &Option<Digest>, s: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => s.serialize_str(&digest.hex()),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Digest>, D::Error> {
        let text = String::deserialize(d)?;
        Digest::from_hex(&text).map(Some).map_err(de::Error::custom)
    }
}
