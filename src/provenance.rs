//! Provenance: what an image was made of, for who has to trace or to repeat its build.
//!
//! An in-toto statement (in-toto/attestation `spec/v1/statement.md`) with SLSA's predicate (slsa.dev/spec/v1.0/provenance).
//! It names no time and no machine: a build of the same inputs is the same image, whoever does it, and so is this.
//!
//! It is made of the manifests and lockfiles at hand, if these give the image's inputs digest: then they are what the
//! image was built from, and nothing else can be.

use anyhow::Result;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::lock::Lockfile;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters below mean: docs/registries.md says it.
const BUILD_TYPE: &str = "strata:build:v1";
const BUILDER: &str = "strata:builder:v1";

/// All that went into an image.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The image's title, or what it was called.
    pub name: String,
    /// Digest of its manifest.
    pub image: Digest,
    /// Its version.
    pub version: String,
    /// Its inputs digest.
    pub inputs: Digest,
    /// Digest of the image below.
    pub parent: Option<Digest>,
    /// Source revision of the manifests, if the builder named one.
    pub revision: Option<String>,
    /// The lockfiles of the layer and those below it, bottom first, with their names and digests.
    pub locks: Vec<(String, Digest, Lockfile)>,
}

impl Provenance {
    /// As JSON: indented, ended by a newline.
    pub fn to_json(&self) -> Result<String> {
        let own = self.locks.last().map(|(_, _, lock)| lock);
        let statement = json!({
            "_type": STATEMENT,
            "subject": [{"name": self.name, "digest": sha256(&self.image)}],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "stream": own.map(|lock| &lock.stream),
                        "layer": own.map(|lock| &lock.layer),
                        "architecture": own.map(|lock| lock.arch),
                        "version": self.version,
                        "revision": self.revision,
                    },
                    "internalParameters": {"inputs": self.inputs},
                    "resolvedDependencies": self.dependencies(),
                },
                "runDetails": {
                    "builder": {"id": BUILDER, "version": {"strata": env!("CARGO_PKG_VERSION")}},
                },
            },
        });
        Ok(format!("{statement:#}\n"))
    }

    fn dependencies(&self) -> Vec<Value> {
        let commit = self.revision.as_deref().filter(|revision| is_commit(revision));
        let source = commit.map(|commit| json!({"name": "manifests", "digest": {"gitCommit": commit}}));
        let parent = self.parent.map(|parent| json!({"name": "parent image", "digest": sha256(&parent)}));
        let locks =
            self.locks.iter().map(|(name, digest, _)| json!({"name": name, "digest": sha256(digest)}));
        let packages = self.locks.iter().flat_map(|(_, _, lock)| packages(lock));
        source.into_iter().chain(parent).chain(locks).chain(packages).collect()
    }
}

/// The files of a lock's packages.
fn packages(lock: &Lockfile) -> impl Iterator<Item = Value> {
    lock.packages.iter().filter_map(|package| {
        let digest = sha256(package.sha256.as_ref()?);
        Some(json!({
            "name": format!("{}.rpm", package.nevra()),
            "digest": digest,
            "annotations": {"layer": lock.layer, "repository": package.repo, "location": package.location},
        }))
    })
}

fn sha256(digest: &Digest) -> Value {
    json!({"sha256": digest.hex()})
}

/// Whether a revision is a git commit, of SHA-1 or SHA-256.
fn is_commit(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64) && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
