//! Labels that say what an image is, for people, `oc`, the machine-config operator and strata itself
//! (`org.opencontainers.image.*`: image-spec `annotations.md`; `io.openshift.*`: openshift/oc
//! `pkg/cli/admin/release`, machine-config-operator `pkg/osimagestream`).

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::plan::{Layer, Stream};
use crate::stamp::Version;

/// The inputs digest of the image; an image with the label of a planned build *is* that build.
pub const INPUTS: &str = "io.strata.inputs";
/// The layer's name.
pub const LAYER: &str = "io.strata.layer";
/// The stream's name.
pub const STREAM: &str = "io.strata.stream";
/// Digest of the package list (`meta.json`).
pub const PKGLIST: &str = "io.strata.pkglist";
/// Source revision of the manifests.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// The version, `9.6.20250203-0`.
pub const VERSION: &str = "org.opencontainers.image.version";

/// `1` on images that machines boot (bootc: `docs/src/bootc-images.md`).
pub const BOOTABLE: &str = "containers.bootc";

/// Whether machines boot the image of `layer`: yes, unless its manifest sets the label otherwise.
pub fn is_bootable(layer: &Layer) -> bool {
    layer.image.labels.get(BOOTABLE).is_none_or(|label| label.value == "1")
}

/// What the labels of an image are made of.
pub struct Identity<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// The layer.
    pub layer: &'a Layer,
    /// The image's version.
    pub version: Version,
    /// Its inputs digest.
    pub inputs: Digest,
    /// Digest of its package list.
    pub pkglist: Digest,
    /// Source revision of the manifests, when the builder names one.
    pub revision: Option<&'a str>,
    /// os-release `NAME` of the finished rootfs.
    pub os_name: &'a str,
}

/// All labels of an image; those of the manifest come last and win.
pub fn labels(identity: &Identity<'_>) -> BTreeMap<String, String> {
    let Identity { stream, layer, version, .. } = identity;
    let major = stream.os.version.split('.').next().unwrap_or_default();
    let name = layer.image.name.as_deref().unwrap_or(&layer.name);
    let mut labels: BTreeMap<String, String> = [
        (BOOTABLE, "1".to_owned()),
        ("io.openshift.metalayer", "true".to_owned()),
        ("io.openshift.build.versions", format!("machine-os={version}")),
        ("io.openshift.build.version-display-names", format!("machine-os={}", display_name(identity))),
        ("io.openshift.os.streamclass", format!("{}-{major}", stream.os.id)),
        ("org.opencontainers.image.title", name.to_owned()),
        (VERSION, version.to_string()),
        (STREAM, stream.name.clone()),
        (LAYER, layer.name.clone()),
        (INPUTS, identity.inputs.to_string()),
        (PKGLIST, identity.pkglist.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if let Some(revision) = identity.revision {
        labels.insert(REVISION.to_owned(), revision.to_owned());
    }
    labels.extend(layer.image.labels.iter().map(|(key, value)| (key.clone(), value.value.clone())));
    labels
}

/// `oc` takes letters, digits, blanks and `[().:-]` in a display name, and refuses the image otherwise.
fn display_name(identity: &Identity<'_>) -> String {
    let name = format!("{} {}", identity.os_name, identity.stream.os.version);
    name.chars().filter(|c| c.is_ascii_alphanumeric() || " ().:-".contains(*c)).collect()
}
