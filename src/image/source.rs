//! Where images are read: layouts, archives of these, registries.

use std::fs::{self, File};
use std::io::{self, Seek};

use anyhow::{Context, Result, ensure};
use oci_spec::image::Descriptor;

use super::archive::Archive;
use super::document::{Document, MAX_DOCUMENT};
use super::oci::{Layout, check, digest_of, select};
use super::opened::Access;
use super::reference::{Place, Reference};
use super::registry::Registry;
use crate::digest::Digest;
use crate::error::hinted;
use crate::store::Store;

/// The manifests of all that an index lists have no more bytes.
const MOST_LISTED: u64 = 16 * MAX_DOCUMENT;

/// A place that has images.
pub enum Source {
    /// A layout, the store's or another.
    Layout(Layout),
    /// A tar of a layout.
    Archive(Archive),
    /// A repository of a registry.
    Registry(Box<Registry>),
}

impl Source {
    /// The place of an image. No registry is spoken to yet.
    pub fn of(image: &Reference, access: Access<'_>) -> Result<Self> {
        Ok(match &image.place {
            Place::Layout { dir, .. } => Self::Layout(Layout::open(dir)?),
            Place::Store { .. } => Self::Layout(Layout::create(&access.store.images())?),
            Place::Archive { file, .. } => Self::Archive(Archive::open(file)?),
            Place::Registry { host, repository, .. } => {
                Self::Registry(Box::new(Registry::new(host, repository, access.offline, access.authfile)))
            }
            Place::Storage { .. } => {
                return Err(hinted(
                    format!("opening {image}: strata does not read podman's storage"),
                    format!("copy it into a layout first: skopeo copy {image} oci:DIR"),
                ));
            }
        })
    }

    /// The manifest or index of an image that is there.
    pub fn root(&self, image: &Reference) -> Result<Document> {
        let digest = image.digest.as_ref();
        match (self, &image.place) {
            (Self::Registry(registry), Place::Registry { tag, .. }) => {
                let bytes = registry.manifest(digest, tag.as_deref().unwrap_or("latest"), MAX_DOCUMENT)?;
                match digest {
                    Some(digest) => checked(digest, bytes),
                    None => Document::parse(bytes),
                }
            }
            (Self::Archive(archive), Place::Archive { name, .. }) => {
                self.document(select(&archive.entries()?, name.as_deref(), digest, archive.path())?)
            }
            (Self::Layout(layout), Place::Layout { name, .. }) => {
                self.document(&layout.entry(name.as_deref(), digest)?)
            }
            // a build that has lost its name to a newer one is still there by digest
            (Self::Layout(layout), Place::Store { name }) => {
                self.document(&layout.entry(Some(name.as_str()).filter(|_| digest.is_none()), digest)?)
            }
            _ => unreachable!("a source is of the place of its image"),
        }
    }

    /// The manifests that entries of an index describe, which may be of so many bytes together.
    pub fn documents(&self, entries: &[Descriptor]) -> Result<Vec<Document>> {
        let total = entries.iter().map(Descriptor::size).fold(0, u64::saturating_add);
        ensure!(
            total <= MOST_LISTED,
            "{total} bytes of manifests are listed, at most {MOST_LISTED} are read"
        );
        entries.iter().map(|entry| self.document(entry)).collect()
    }

    /// The manifest or index that an entry of an index describes.
    pub fn document(&self, entry: &Descriptor) -> Result<Document> {
        ensure!(entry.size() <= MAX_DOCUMENT, "a manifest of {} bytes", entry.size());
        let digest = digest_of(entry)?;
        let mut bytes = Vec::new();
        match self {
            Self::Registry(registry) => bytes = registry.manifest(Some(&digest), "", entry.size())?,
            Self::Archive(archive) => archive.blob(entry, &mut bytes)?,
            Self::Layout(layout) => {
                let path = layout.blob(&digest);
                bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            }
        }
        checked(&digest, bytes)
    }

    /// Writes a blob into an empty file; the digest is not yet checked.
    pub fn write(&self, blob: &Descriptor, to: &mut File) -> Result<()> {
        match self {
            Self::Registry(registry) => registry.blob(blob, to),
            Self::Archive(archive) => archive.blob(blob, to),
            Self::Layout(layout) => {
                // from file to file the kernel copies, and shares the extents where the file system can
                let path = layout.blob(&digest_of(blob)?);
                let copied = File::open(&path).and_then(|mut from| io::copy(&mut from, to));
                copied.map(drop).with_context(|| format!("copying {}", path.display()))
            }
        }
    }

    /// A file with a blob, checked; one of the store's that has no name, unless it is in a layout.
    pub fn file(&self, blob: &Descriptor, store: &Store) -> Result<File> {
        let digest = digest_of(blob)?;
        let context = || format!("reading the blob {digest}");
        let mut file = match self {
            Self::Layout(layout) => File::open(layout.blob(&digest)).with_context(context)?,
            Self::Archive(_) | Self::Registry(_) => {
                let mut file = store.temp_file()?.into_file();
                self.write(blob, &mut file)?;
                file
            }
        };
        file.rewind().with_context(context)?;
        check(blob, &mut file).with_context(context)?;
        file.rewind().with_context(context)?;
        Ok(file)
    }

    /// What is said to refer to the manifest or index with this digest as its subject (image-spec `manifest.md`): whether a
    /// registry says the truth is for who reads it to see.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let entries = match self {
            Self::Registry(registry) => return registry.referrers(subject),
            Self::Archive(archive) => archive.entries()?,
            Self::Layout(layout) => layout.entries()?,
        };
        let mut found = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.artifact_type().is_some()) {
            if self.document(&entry)?.refers_to(subject) {
                found.push(entry);
            }
        }
        Ok(found)
    }
}

fn checked(digest: &Digest, bytes: Vec<u8>) -> Result<Document> {
    let found = Digest::of(&bytes);
    ensure!(found == *digest, "the manifest is damaged: it is {found}, expected {digest}");
    Document::parse(bytes)
}
