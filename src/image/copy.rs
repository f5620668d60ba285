//! Copies images from place to place: manifests as they are, and the blobs that are missing.
//!
//! Blobs go first, a few at a time, then manifests, then what refers to these, then the name. A copy that is interrupted
//! leaves blobs that nobody sees; the next one finds them there.
//!
//! Several images become one under one name: an index of them (image-spec `image-index.md`), which has the same bytes in
//! whatever order they are given.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageIndexBuilder, MediaType};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use serde::Serialize;
use tempfile::TempDir;

use super::attach::Attachment;
use super::destination::{Arrival, Destination};
use super::document::{Document, MAX_DOCUMENT};
use super::oci::{Layout, canonical, digest_of, platform};
use super::opened::Access;
use super::places;
use super::reference::{Place, Reference};
use super::source::Source;
use crate::digest::Digest;
use crate::package::Arch;
use crate::progress::{Progress, Unit};
use crate::store::{self, Store};

/// How many blobs are on their way at a time.
const AT_A_TIME: usize = 4;

/// An image that is to be copied, or an index of several, and what refers to them.
pub struct Load {
    source: Source,
    root: Document,
    /// The root, or the images that it lists.
    manifests: Vec<Document>,
    referrers: Referrers,
    /// Tags that it gets beside the name of the destination.
    tags: Vec<String>,
}

/// Where to look for what refers to an image.
pub enum Referrers {
    /// Where the image is.
    Beside,
    /// In a layout of its own: they were made for this.
    Made(Source, TempDir),
    /// Nowhere: the image is copied alone.
    Ignored,
}

/// What a copy did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the image is now.
    pub reference: String,
    /// Digest of its manifest, or of the index.
    pub digest: Digest,
    /// Digests of the manifests of images.
    pub images: Vec<Digest>,
    /// Blobs that were sent.
    pub sent: Amount,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: Amount,
    /// Blobs that were there before.
    pub there: Amount,
    /// What refers to the images.
    pub attached: Vec<Attached>,
}

/// A number of blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub blobs: usize,
    /// Their size as stored.
    pub bytes: u64,
}

/// A manifest that refers to an image.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// What it is, if its entry tells.
    pub kind: Option<String>,
    /// Digest of the manifest that refers.
    pub digest: Digest,
}

/// What refers to one image.
struct Attachments<'a> {
    subject: Digest,
    source: &'a Source,
    documents: Vec<Document>,
}

impl Load {
    /// The image that a reference names: all of it, or the one for `arch` if it is an index.
    pub fn of(
        image: &Reference,
        access: Access<'_>,
        arch: Option<Arch>,
        referrers: Referrers,
    ) -> Result<Self> {
        let load = || {
            let source = Source::of(image, access)?;
            let mut root = source.root(image)?;
            if let (Source::Layout(layout), Place::Store { .. }) = (&source, &image.place) {
                store::take(layout.root(), &layout.blob(&root.digest))?;
            }
            if let Some(arch) = arch.filter(|_| root.manifest().is_none()) {
                root = source.document(root.entry_for(arch)?)?;
            }
            let mut manifests = source.documents(root.entries())?;
            if root.manifest().is_some() {
                manifests.push(root.clone());
            }
            ensure!(manifests.iter().all(|image| image.manifest().is_some()), "an index lists another");
            anyhow::Ok(Self { source, root, manifests, referrers, tags: Vec::new() })
        };
        load().with_context(|| format!("reading {image}"))
    }

    /// Whether it is an index.
    pub fn is_index(&self) -> bool {
        self.root.manifest().is_none()
    }

    /// Gives the image another tag too, at a registry.
    pub fn tag(&mut self, tag: String) {
        self.tags.push(tag);
    }

    /// Attaches documents to the image, which must be one, in the place of what refers to it where it is.
    pub fn attach(&mut self, attachments: &[Attachment], store: &Store) -> Result<()> {
        let dir = store.temp_dir("attached-")?;
        let layout = Layout::create(dir.path())?;
        attachments.iter().try_for_each(|attachment| attachment.write(&layout, &self.root))?;
        self.referrers = Referrers::Made(Source::Layout(layout), dir);
        Ok(())
    }

    /// What refers to a manifest of this, or to its index.
    fn attachments(&self, subject: &Digest) -> Result<Option<Attachments<'_>>> {
        let source = match &self.referrers {
            Referrers::Ignored => return Ok(None),
            Referrers::Beside => &self.source,
            Referrers::Made(source, _) => source,
        };
        let mut documents = source.documents(&source.referrers(subject)?)?;
        documents.retain(|document| document.refers_to(subject));
        Ok((!documents.is_empty()).then_some(Attachments { subject: *subject, source, documents }))
    }

    /// The entry of a manifest in an index: for what machines it is.
    fn entry(&self, document: &Document, store: &Store) -> Result<Descriptor> {
        let mut entry = document.descriptor();
        let Some(manifest) = document.manifest() else { return Ok(entry) };
        let config = manifest.config();
        ensure!(config.size() <= MAX_DOCUMENT, "a config of {} bytes", config.size());
        let config = ImageConfiguration::from_reader(self.source.file(config, store)?)
            .with_context(|| format!("reading the config of {}", document.digest))?;
        entry.set_platform(Some(platform(&config)?));
        Ok(entry)
    }
}

/// Copies images to where a reference names: one as it is, several as an index.
pub fn copy(loads: &[Load], to: &Reference, access: Access<'_>, progress: &dyn Progress) -> Result<Report> {
    let root = root(loads, access.store)?;
    ensure!(
        to.digest.is_none_or(|digest| digest == root.digest),
        "the image is {}, expected is what {to} says",
        root.digest
    );
    let destination = Destination::of(to, access, |host| elsewhere(loads, access.store, host))?;
    let images: Vec<&Document> = loads.iter().flat_map(|load| &load.manifests).collect();
    let mut attached = Vec::new();
    // the store has images alone
    let takes_others = !matches!(to.place, Place::Store { .. });
    for load in loads.iter().filter(|_| takes_others) {
        let documents =
            load.manifests.iter().chain([&load.root].into_iter().filter(|r| r.manifest().is_none()));
        for document in documents {
            attached.extend(load.attachments(&document.digest)?);
        }
    }
    let [sent, mounted, there] = send(loads, &attached, &destination, access.store, progress)?;
    images.iter().try_for_each(|image| destination.put(image))?;
    if root.manifest().is_none() {
        destination.put(&root)?;
    }
    for Attachments { subject, documents, .. } in &attached {
        destination.refer(subject, documents)?;
    }
    for load in loads {
        load.tags.iter().try_for_each(|tag| destination.tag(&load.root, tag))?;
    }
    let entry = match (&destination, loads) {
        (Destination::Layout { .. }, [load]) => load.entry(&root, access.store)?,
        _ => root.descriptor(),
    };
    destination.finish(&root, entry, access.store)?;
    Ok(Report {
        reference: to.to_string(),
        digest: root.digest,
        images: images.iter().map(|image| image.digest).collect(),
        sent,
        mounted,
        there,
        attached: attached.iter().flat_map(Attachments::report).collect(),
    })
}

/// What is to get the name: the only root, or an index of all images, by platform.
fn root(loads: &[Load], store: &Store) -> Result<Document> {
    if let [load] = loads {
        return Ok(load.root.clone());
    }
    let mut entries = BTreeMap::new();
    for load in loads {
        for document in &load.manifests {
            let entry = load.entry(document, store)?;
            let platform = entry.platform().as_ref().map(|p| {
                [p.os().to_string(), p.architecture().to_string(), p.variant().clone().unwrap_or_default()]
            });
            if let Some(other) = entries.insert(platform.clone(), entry) {
                let name = platform.map(|p| p.join("/")).unwrap_or_default();
                bail!(
                    "two images are for {}: {} and {}",
                    name.trim_end_matches('/'),
                    other.digest(),
                    document.digest
                );
            }
        }
    }
    let index: ImageIndex = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(entries.into_values().collect::<Vec<_>>())
        .build()?;
    Document::parse(canonical(&index)?)
}

/// In which repositories at `host` blobs are known to be: those that they come from, and those that the store knows.
fn elsewhere(loads: &[Load], store: &Store, host: &str) -> Result<HashMap<String, String>> {
    let mut known = places::blobs(store, host)?;
    for load in loads {
        if let Source::Registry(registry) = &load.source
            && registry.host() == host
        {
            let blobs = load.manifests.iter().flat_map(Document::blobs);
            known.extend(blobs.map(|blob| (blob.digest().to_string(), registry.repository().to_owned())));
        }
    }
    Ok(known)
}

/// Sends the blobs that are missing; gives how much was sent, mounted, and there.
fn send(
    loads: &[Load],
    attached: &[Attachments<'_>],
    to: &Destination,
    store: &Store,
    progress: &dyn Progress,
) -> Result<[Amount; 3]> {
    let images = loads.iter().flat_map(|load| load.manifests.iter().map(move |image| (&load.source, image)));
    let others =
        attached.iter().flat_map(|of| of.documents.iter().map(move |document| (of.source, document)));
    let mut blobs: BTreeMap<Digest, (&Source, &Descriptor)> = BTreeMap::new();
    for (source, document) in images.chain(others) {
        for blob in document.blobs() {
            blobs.entry(digest_of(blob)?).or_insert((source, blob));
        }
    }
    let total = blobs.values().fold(0, |sum: u64, (_, blob)| sum.saturating_add(blob.size()));
    progress.start("copying", total, Unit::Bytes);
    let blobs: Vec<_> = blobs.into_iter().collect();
    let arrivals = some_at_a_time(&blobs, |(digest, (source, blob))| {
        let arrival = to.take(blob, source, store, &|bytes| progress.advance(bytes));
        Ok((arrival.with_context(|| format!("copying the blob {digest}"))?, blob.size()))
    })?;
    let amount = |kind: Arrival| {
        let sizes: Vec<u64> =
            arrivals.iter().filter(|(arrival, _)| *arrival == kind).map(|(_, n)| *n).collect();
        Amount { blobs: sizes.len(), bytes: sizes.iter().sum() }
    };
    let amounts = [Arrival::Sent, Arrival::Mounted, Arrival::There].map(amount);
    progress.finish(&format!("{} of {} blobs copied", amounts[0].blobs, blobs.len()));
    Ok(amounts)
}

/// Does what takes a connection for each of `items`, a few at a time.
pub(super) fn some_at_a_time<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    let pool = ThreadPoolBuilder::new().num_threads(AT_A_TIME).build().context("starting threads")?;
    pool.install(|| items.par_iter().map(work).collect())
}

impl Attachments<'_> {
    fn report(&self) -> Vec<Attached> {
        let attached = |document: &Document| Attached {
            image: self.subject,
            kind: document.referrer().artifact_type().as_ref().map(ToString::to_string),
            digest: document.digest,
        };
        self.documents.iter().map(attached).collect()
    }
}

/// The architecture whose image is copied, of those of an index: the one asked for, and for the store, whose images are
/// for one each, this machine's.
pub fn chosen_arch(to: &Reference, asked: Option<Arch>, host: Arch) -> Option<Arch> {
    asked.or(matches!(to.place, Place::Store { .. }).then_some(host))
}
