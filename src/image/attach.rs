//! What is attached to images: documents in manifests that refer to an image by its digest (image-spec `manifest.md`,
//! "subject"; "Guidelines for Artifact Usage").
//!
//! ```text
//! image manifest ◀─ subject ─ manifest      artifactType: what the document is
//!                              ├ config      {}
//!                              └ layer       the document, by its media type
//! ```

use anyhow::Result;
use oci_spec::image::{ImageManifest, ImageManifestBuilder, MediaType};

use super::document::Document;
use super::oci::{Layout, canonical};

/// The package list: what is in the image's own `meta.json`.
pub const PACKAGE_LIST: &str = "application/vnd.strata.pkglist.v1+json";
/// A bill of materials.
pub const SPDX: &str = "application/spdx+json";
/// The same in the other form.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
/// A statement of what an image was made of.
pub const PROVENANCE: &str = "application/vnd.in-toto+json";

/// The annotation by which oras names the file.
const TITLE: &str = "org.opencontainers.image.title";

/// A document that is to be attached to an image.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is: its media type.
    pub kind: &'static str,
    /// A name for its file.
    pub file: &'static str,
    /// The document.
    pub content: Vec<u8>,
}

impl Attachment {
    /// Puts it into a layout, which need not have the image.
    pub(super) fn write(&self, layout: &Layout, image: &Document) -> Result<()> {
        let config = layout.keep_bytes(MediaType::EmptyJSON, b"{}")?;
        let mut blob = layout.keep_bytes(self.kind.into(), &self.content)?;
        blob.set_annotations(Some([(TITLE.to_owned(), self.file.to_owned())].into()));
        let manifest: ImageManifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .artifact_type(self.kind)
            .config(config)
            .layers(vec![blob])
            .subject(image.descriptor())
            .build()?;
        let document = Document::parse(canonical(&manifest)?)?;
        layout.keep(&document)?;
        layout.enter(document.referrer(), None)
    }
}
