//! Images wherever they are, read blob by blob.
//!
//! Blobs of an image that is in no layout come into the store's, one by one, as they are asked for: what is there by
//! its digest is not brought again, and needs no network.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::image::Descriptor;

use super::copy::some_at_a_time;
use super::document::{Document, MAX_DOCUMENT};
use super::oci::{Image, Layout, digest_of};
use super::reference::Reference;
use super::source::Source;
use crate::digest::Digest;
use crate::error::hinted;
use crate::package::Arch;
use crate::store::{self, Store};

/// What opening images needs.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Has images of its own, and keeps the blobs of those that are in no layout.
    pub store: &'a Store,
    /// Of an image for several architectures the one for this is opened.
    pub arch: Arch,
    /// Ask no registry.
    pub offline: bool,
    /// Where credentials for registries are, if not in the usual places (containers-auth.json(5)).
    pub authfile: Option<&'a Path>,
}

/// An image, and where its blobs come from.
pub struct Opened {
    /// Its manifest and config.
    pub image: Image,
    /// Where its blobs are, or come to.
    layout: Layout,
    source: Source,
}

impl Reference {
    /// Opens the image.
    pub fn open(&self, access: Access<'_>) -> Result<Opened> {
        let source = Source::of(self, access)?;
        let layout = match &source {
            Source::Layout(layout) => layout.clone(),
            Source::Archive(_) | Source::Registry(_) => Layout::create(&access.store.images())?,
        };
        let image = choose(self, &source, &layout, access.arch);
        let image = match &source {
            Source::Layout(_) => image?,
            Source::Archive(_) | Source::Registry(_) => image.with_context(|| format!("opening {self}"))?,
        };
        Ok(Opened { image, layout, source })
    }
}

/// The image that is meant; of an index that for `arch`. Manifest and config are in `layout` then.
fn choose(reference: &Reference, source: &Source, layout: &Layout, arch: Arch) -> Result<Image> {
    if let Source::Layout(_) = source {
        let document = source.root(reference)?;
        return layout.read_image(&match document.manifest() {
            Some(_) => document.descriptor(),
            None => source.document(document.entry_for(arch)?)?.descriptor(),
        });
    }
    // what is here by digest needs no network
    let here = |digest: &Digest| kept(layout, digest);
    let mut document = match reference.digest.as_ref().map(here).transpose()?.flatten() {
        Some(document) => document,
        None => source.root(reference)?,
    };
    if document.manifest().is_none() {
        layout.keep(&document)?;
        let entry = document.entry_for(arch)?;
        document = match here(&digest_of(entry)?)? {
            Some(document) => document,
            None => source.document(entry)?,
        };
    }
    layout.keep(&document)?;
    let manifest = document.manifest().context("an index lists another")?;
    ensure!(manifest.config().size() <= MAX_DOCUMENT, "a config of {} bytes", manifest.config().size());
    bring(layout, source, manifest.config())?;
    layout.read_manifest(&document.descriptor())
}

impl Reference {
    /// Opens the image, which must be for the architecture that is asked for.
    pub fn open_for(&self, access: Access<'_>) -> Result<Opened> {
        let opened = self.open(access)?;
        let (found, expected) = (opened.image.config.architecture().to_string(), access.arch.oci());
        if found == expected {
            return Ok(opened);
        }
        Err(hinted(
            format!("{self} is for {found}, expected {expected}"),
            "pin an index of images, or name the image of each architecture by a variable",
        ))
    }
}

impl Opened {
    /// The file of one of its blobs.
    pub fn blob(&self, blob: &Descriptor) -> Result<PathBuf> {
        bring(&self.layout, &self.source, blob)
    }

    /// A document of this kind that is attached to the image, of at most `limit` bytes; of several the first by digest.
    pub fn attached(&self, kind: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let mut entries = self.source.referrers(&self.image.digest)?;
        entries.retain(|entry| entry.artifact_type().as_ref().is_some_and(|found| found.as_ref() == kind));
        entries.sort_by_key(|entry| entry.digest().to_string());
        let Some(entry) = entries.first() else { return Ok(None) };
        let document = self.source.document(entry)?;
        ensure!(
            document.refers_to(&self.image.digest),
            "the manifest {} is listed, but refers to something else",
            document.digest
        );
        let blob = document.manifest().and_then(|manifest| manifest.layers().first());
        let blob = blob.with_context(|| format!("the manifest {} has no document", document.digest))?;
        ensure!(blob.size() <= limit, "it has {} bytes, at most {limit} are read", blob.size());
        let bytes = fs::read(self.blob(blob)?)?;
        let (found, expected) = (Digest::of(&bytes), digest_of(blob)?);
        ensure!(found == expected, "it is damaged: it is {found}, expected {expected}");
        Ok(Some(bytes))
    }

    /// Brings the whole image into a layout, without a name: only the blobs that are missing there.
    pub fn copy_to(&self, layout: &Layout) -> Result<()> {
        self.copy_some(layout, |_| true)
    }

    /// Brings those of its blobs into a layout that are wanted, manifest and config among them.
    pub fn copy_some(&self, layout: &Layout, is_wanted: impl Fn(&Descriptor) -> bool) -> Result<()> {
        let layers: Vec<_> = self.image.manifest.layers().iter().filter(|blob| is_wanted(blob)).collect();
        some_at_a_time(&layers, |blob| layout.keep_blob(blob, |to| self.source.write(blob, to)))?;
        // these are at hand since it was opened
        let (config, manifest) = (self.image.manifest.config(), self.image.descriptor());
        let mut documents = [config, &manifest].into_iter().filter(|blob| is_wanted(blob));
        documents.try_for_each(|blob| layout.copy_blob(&self.layout, blob))
    }

    /// A layout that has all of it, for whom single blobs do not do.
    pub fn local(&self) -> Result<&Layout> {
        if !matches!(self.source, Source::Layout(_)) {
            self.copy_to(&self.layout)?;
        }
        Ok(&self.layout)
    }
}

/// A document that `layout` has, whole.
fn kept(layout: &Layout, digest: &Digest) -> Result<Option<Document>> {
    let path = layout.blob(digest);
    if !store::take(layout.root(), &path)? {
        return Ok(None);
    }
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Document::parse(bytes).ok().filter(|document| document.digest == *digest))
}

/// The file of a blob in `layout`, brought there from `source` unless it is.
fn bring(layout: &Layout, source: &Source, blob: &Descriptor) -> Result<PathBuf> {
    match source {
        Source::Layout(_) => Ok(layout.blob(&digest_of(blob)?)),
        _ => layout.keep_blob(blob, |to| source.write(blob, to)),
    }
}
