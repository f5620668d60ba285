//! Manifests and indexes as they are written: whatever passes them on keeps every byte, for their digest is of these.

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde_json::Value;

use super::oci::{MANIFESTS, descriptor};
use crate::digest::Digest;
use crate::package::Arch;

/// A document is at most so large: what registries take (distribution-spec).
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// A manifest or an index.
#[derive(Clone, Debug)]
pub struct Document {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// What it says it is.
    pub media_type: MediaType,
    manifest: Option<ImageManifest>,
    entries: Vec<Descriptor>,
}

/// What tells manifests and indexes apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<Value>,
    layers: Option<Value>,
}

impl Document {
    /// Reads a manifest or an index, of OCI or of Docker. One that could be taken for either is refused, as image-spec
    /// `manifest.md` has it.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let digest = Digest::of(&bytes);
        let context = || format!("reading the manifest {digest}");
        let Kind { media_type, manifests, layers } = serde_json::from_slice(&bytes).with_context(context)?;
        let is_index = match (manifests.is_some(), layers.is_some()) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => bail!("{}: it is a manifest and an index at once", context()),
            (false, false) => bail!("{}: it is neither a manifest nor an index", context()),
        };
        let known = if is_index { &MANIFESTS[2..] } else { &MANIFESTS[..2] };
        let media_type = media_type.unwrap_or_else(|| known[0].to_owned());
        ensure!(
            known.contains(&media_type.as_str()),
            "{}: it is a {media_type}, expected {}",
            context(),
            known.join(" or ")
        );
        let (mut manifest, mut entries) = (None, Vec::new());
        match is_index {
            true => {
                entries =
                    serde_json::from_slice::<ImageIndex>(&bytes).with_context(context)?.manifests().clone()
            }
            false => manifest = Some(serde_json::from_slice(&bytes).with_context(context)?),
        }
        Ok(Self { bytes, digest, media_type: media_type.as_str().into(), manifest, entries })
    }

    /// What refers to it.
    pub fn descriptor(&self) -> Descriptor {
        descriptor(self.media_type.clone(), self.bytes.len() as u64, &self.digest)
    }

    /// The manifest, unless it is an index.
    pub fn manifest(&self) -> Option<&ImageManifest> {
        self.manifest.as_ref()
    }

    /// What an index lists.
    pub fn entries(&self) -> &[Descriptor] {
        &self.entries
    }

    /// Whether it is a manifest that refers to the manifest or index with this digest.
    pub fn refers_to(&self, subject: &Digest) -> bool {
        let found = self.manifest().and_then(|manifest| manifest.subject().as_ref());
        found.is_some_and(|found| found.digest().to_string() == subject.to_string())
    }

    /// Its entry in a list of what refers to an image, made of what it says itself (distribution-spec, "Listing Referrers").
    pub fn referrer(&self) -> Descriptor {
        let mut entry = self.descriptor();
        if let Some(manifest) = self.manifest() {
            let kind = manifest.artifact_type().clone();
            entry.set_artifact_type(kind.or_else(|| Some(manifest.config().media_type().clone())));
            entry.set_annotations(manifest.annotations().clone());
        }
        entry
    }

    /// The blobs of a manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifest()
            .into_iter()
            .flat_map(|manifest| [manifest.config()].into_iter().chain(manifest.layers()))
    }

    /// The entry of an index that is for `arch`.
    pub fn entry_for(&self, arch: Arch) -> Result<&Descriptor> {
        let is_for = |entry: &&Descriptor| {
            let platform = entry.platform().as_ref();
            platform
                .is_some_and(|p| p.architecture().to_string() == arch.oci() && p.os().to_string() == "linux")
        };
        let found = self.entries().iter().find(is_for);
        found.with_context(|| format!("the image is for several architectures, but not for {}", arch.oci()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_either_is_refused() {
        let config = r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":1,"digest":
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}"#;
        let manifest = format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#);
        let document = Document::parse(manifest.into_bytes()).unwrap();
        assert_eq!(document.blobs().count(), 1);
        assert_eq!(document.media_type, MediaType::ImageManifest);
        for (text, complaint) in [
            (format!(r#"{{"schemaVersion":2,{config},"layers":[],"manifests":[]}}"#), "at once"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "neither"),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{}",{config},"layers":[]}}"#, MANIFESTS[2]),
                "expected application/vnd.oci.image.manifest.v1+json",
            ),
        ] {
            let error = Document::parse(text.into_bytes()).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
