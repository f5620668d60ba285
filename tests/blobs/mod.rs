//! The blobs of an image by the names of their chunks, as skopeo reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Chunks that are no package's.
pub const NO_PACKAGES: [&str; 8] =
    ["removed", "generated", "initramfs", "module index", "selinux policy", "files", "rpmdb", "metadata"];

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub digest: String,
    /// As stored, in bytes.
    pub size: u64,
    /// The source packages in it; the chunk's name if there are none.
    pub components: BTreeSet<String>,
}

/// The blobs that `image` has over those of the image `below`, by the name of the chunk.
pub fn own(image: &str, below: Option<&str>) -> BTreeMap<String, Blob> {
    let below = below.map_or(0, |below| layers(below).len());
    let own: Vec<(String, Blob)> = layers(image).iter().skip(below).map(blob).collect();
    let count = own.len();
    let blobs: BTreeMap<_, _> = own.into_iter().collect();
    assert_eq!(blobs.len(), count, "two chunks of one name");
    blobs
}

/// Names of the chunks of `after` whose blobs `before` has not.
pub fn changed(before: &BTreeMap<String, Blob>, after: &BTreeMap<String, Blob>) -> Vec<String> {
    let known: BTreeSet<&str> = before.values().map(|blob| blob.digest.as_str()).collect();
    after
        .iter()
        .filter(|(_, blob)| !known.contains(blob.digest.as_str()))
        .map(|(name, _)| name.clone())
        .collect()
}

fn layers(image: &str) -> Vec<Value> {
    let output = Command::new("skopeo").args(["inspect", "--raw", image]).output().unwrap();
    assert!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stderr));
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    manifest["layers"].as_array().unwrap().clone()
}

fn blob(layer: &Value) -> (String, Blob) {
    let annotation = |key: &str| layer["annotations"][key].as_str().unwrap().to_owned();
    let blob = Blob {
        digest: layer["digest"].as_str().unwrap().to_owned(),
        size: layer["size"].as_u64().unwrap(),
        components: annotation("ostree.components").split(',').map(str::to_owned).collect(),
    };
    (annotation("io.strata.chunk"), blob)
}
