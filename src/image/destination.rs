//! Where images are written: layouts, archives of these, registries.
//!
//! What refers to something is written after it, and the name last of all: who looks on sees the image that had the name
//! before, or all of the new one.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::image::Descriptor;
use tempfile::TempDir;

use super::delta::{Entry, Kind};
use super::document::Document;
use super::oci::Layout;
use super::opened::Access;
use super::places;
use super::reference::{Place, Reference};
use super::registry::{Begun, Registry, Upload};
use super::source::Source;
use super::tar;
use crate::digest::Digest;
use crate::error::hinted;
use crate::replace::beside;
use crate::store::{self, Store};

/// A place that takes images, and the name of the one that comes.
pub enum Destination {
    /// A layout.
    Layout {
        /// The layout.
        layout: Layout,
        /// Name in its index.
        name: Option<String>,
        /// What becomes of it at last.
        kind: LayoutKind,
    },
    /// A repository of a registry.
    Registry(Box<Repository>),
}

/// What a layout is for.
pub enum LayoutKind {
    /// Itself.
    Plain,
    /// The store's images, which lose their names only.
    Store,
    /// To be packed into a tar.
    Archive {
        /// The tar.
        file: PathBuf,
        /// The layout's directory.
        dir: TempDir,
    },
}

/// A repository that is written to.
pub struct Repository {
    registry: Registry,
    host: String,
    repository: String,
    tags: Vec<String>,
    /// Other repositories of the registry, by what blobs they have.
    elsewhere: HashMap<String, String>,
}

/// How a blob came to be at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was there before.
    There,
    /// The registry has taken it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

impl Destination {
    /// The place that a reference names. `elsewhere` says which repositories of a registry have blobs by digest.
    pub fn of(
        reference: &Reference,
        access: Access<'_>,
        elsewhere: impl FnOnce(&str) -> Result<HashMap<String, String>>,
    ) -> Result<Self> {
        let layout = |dir: &Path, name: &Option<String>, kind| {
            anyhow::Ok(Self::Layout { layout: Layout::create(dir)?, name: name.clone(), kind })
        };
        match &reference.place {
            Place::Layout { dir, name } => layout(dir, name, LayoutKind::Plain),
            Place::Store { name } => layout(&access.store.images(), &Some(name.clone()), LayoutKind::Store),
            Place::Archive { file, name } => {
                let dir = access.store.temp_dir("archive-")?;
                let path = dir.path().to_owned();
                layout(&path, name, LayoutKind::Archive { file: file.clone(), dir })
            }
            Place::Registry { host, repository, tag } => {
                let mut elsewhere = elsewhere(host)?;
                elsewhere.retain(|_, found| found != repository);
                let from: BTreeSet<&str> = elsewhere.values().map(String::as_str).collect();
                let registry = Registry::writable(host, repository, access.authfile, from.into_iter());
                let latest = reference.digest.is_none().then(|| "latest".to_owned());
                let tags = tag.clone().or(latest).into_iter().collect();
                let (host, repository) = (host.clone(), repository.clone());
                Ok(Self::Registry(Box::new(Repository { registry, host, repository, tags, elsewhere })))
            }
            Place::Storage { .. } => Err(hinted(
                format!("writing {reference}: strata does not write podman's storage"),
                "copy it to a layout, and take it from there: podman pull oci:DIR",
            )),
        }
    }

    /// Makes sure that a blob of `source` is there; `told` hears how many bytes of it are done.
    pub fn take(
        &self,
        blob: &Descriptor,
        source: &Source,
        store: &Store,
        told: &dyn Fn(u64),
    ) -> Result<Arrival> {
        let arrival = match self {
            Self::Layout { layout, .. } => {
                let mut arrival = Arrival::There;
                layout.keep_blob(blob, |to| {
                    arrival = Arrival::Sent;
                    source.write(blob, to)
                })?;
                arrival
            }
            Self::Registry(to) => match to.begin(blob)? {
                Ok(arrival) => arrival,
                Err(upload) => {
                    to.registry.upload(blob, &mut source.file(blob, store)?, upload, told)?;
                    return Ok(Arrival::Sent);
                }
            },
        };
        told(blob.size());
        Ok(arrival)
    }

    /// Puts a manifest or an index there, under no other name than its digest.
    pub fn put(&self, document: &Document) -> Result<()> {
        match self {
            Self::Layout { layout, .. } => layout.keep(document),
            Self::Registry(to) => to.registry.put(None, document).map(drop),
        }
    }

    /// Gives what is there by digest a tag.
    pub fn tag(&self, document: &Document, tag: &str) -> Result<()> {
        match self {
            Self::Layout { .. } => bail!("tags are given at registries"),
            Self::Registry(to) => to.registry.put(Some(tag), document).map(drop),
        }
    }

    /// Puts manifests there that refer to `subject`.
    pub fn refer(&self, subject: &Digest, documents: &[Document]) -> Result<()> {
        let mut is_tracked = true;
        for document in documents {
            match self {
                Self::Layout { layout, .. } => {
                    layout.keep(document)?;
                    layout.enter(document.referrer(), None)?;
                }
                Self::Registry(to) => is_tracked &= to.registry.put(None, document)?,
            }
        }
        match self {
            Self::Registry(to) if !is_tracked => to.registry.refer(subject, documents),
            _ => Ok(()),
        }
    }

    /// Gives what is there by digest its name, which `entry` describes, and ends the work.
    pub fn finish(self, document: &Document, entry: Descriptor, store: &Store) -> Result<()> {
        match self {
            Self::Layout { layout, name, kind } => {
                let before = match (&kind, &name) {
                    (LayoutKind::Store, Some(name)) => layout.entry(Some(name), None).ok(),
                    _ => None,
                };
                layout.enter(entry, name.as_deref())?;
                match (kind, before) {
                    (LayoutKind::Archive { file, dir }, _) => archive(dir.path(), &file),
                    (LayoutKind::Store, Some(mut before)) => {
                        before.set_annotations(None);
                        layout.enter(before, None)
                    }
                    _ => Ok(()),
                }
            }
            Self::Registry(to) => {
                to.tags.iter().try_for_each(|tag| to.registry.put(Some(tag), document).map(drop))?;
                let is_kept = Layout::create(&store.images())?.blob(&document.digest).exists();
                if is_kept {
                    places::note(store, &to.host, &to.repository, &document.digest)?;
                }
                Ok(())
            }
        }
    }
}

impl Repository {
    /// How a blob came to be there, or else an upload for it.
    fn begin(&self, blob: &Descriptor) -> Result<Result<Arrival, Upload>> {
        if self.registry.has(blob)? {
            return Ok(Ok(Arrival::There));
        }
        let from = self.elsewhere.get(&blob.digest().to_string());
        Ok(match self.registry.begin(blob, from.map(String::as_str))? {
            Begun::Mounted => Ok(Arrival::Mounted),
            Begun::Upload(upload) => Err(upload),
        })
    }
}

/// Packs a layout into a tar: its index first, so that readers find it without reading all.
fn archive(dir: &Path, file: &Path) -> Result<()> {
    let context = || format!("writing {}", file.display());
    let blobs = fs::read_dir(dir.join("blobs/sha256")).with_context(context)?;
    let mut names: Vec<PathBuf> = Vec::new();
    for blob in blobs {
        names.push(Path::new("blobs/sha256").join(blob.with_context(context)?.file_name()));
    }
    names.sort();
    let first = ["oci-layout", "index.json"].map(PathBuf::from);
    let entry = |path: PathBuf| {
        let size = fs::metadata(dir.join(&path)).with_context(context)?.len();
        let kind = Kind::File { size };
        Ok(Entry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: Default::default() })
    };
    let entries: Vec<Entry> = first.into_iter().chain(names).map(entry).collect::<Result<_>>()?;
    let mut out = BufWriter::new(beside(file)?);
    tar::write(&tar::Tree(dir), &entries, &mut out).with_context(context)?;
    out.flush().with_context(context)?;
    match out.into_inner() {
        Ok(out) => store::persist(out, file),
        Err(_) => bail!("{}: it cannot be completed", context()),
    }
}
