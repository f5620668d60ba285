//! Deletes what a store can do without, while others work with it ([`crate::store`] says how that goes together).
//!
//! Roots are the images that have a name, of which a policy may let old versions go. They keep their blobs, the images
//! that they stand on, and the extracted trees of both; other images and trees, what runs that were killed left, and
//! parsed metadata without their document go. All else is a cache, of which a policy takes what was not used for a
//! time, or what was used least recently until the store fits into a size. What tells old from new stays, and keys:
//! `seen/` and `keys/` are small, and a build without network could not do without them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::build::{labels, tree};
use crate::digest::Digest;
use crate::error::HintExt;
use crate::image::oci::{Image, Layout};
use crate::stamp::Version;
use crate::store::{self, Store};

/// What goes, besides garbage.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Versions of each layer of each stream that keep their names, the newest; all if not given.
    pub keep: Option<usize>,
    /// Caches that were not used for so long.
    pub older_than: Option<Duration>,
    /// Caches beyond what fits with all else into so many bytes, those used least recently.
    pub size: Option<u64>,
    /// All images, extracted trees, decompressed payloads and kept runs.
    pub all: bool,
    /// Tell what would go, and delete nothing.
    pub rehearsal: bool,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An entry of the index of images, without its blobs.
    Image,
    /// A blob of images.
    Blob,
    /// An extracted layer.
    Layer,
    /// A package.
    Package,
    /// A decompressed payload.
    Payload,
    /// A file of repository metadata.
    Metadata,
    /// The parsed form of one.
    Parsed,
    /// The runs kept of a command.
    Step,
    /// A key.
    Key,
    /// What a run that was killed left.
    Unfinished,
}

/// A thing that went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Deleted {
    /// What it was.
    pub kind: Kind,
    /// Name of an image, or name of the file or directory.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

/// What was deleted, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// By kind and name.
    pub deleted: Vec<Deleted>,
    /// Size of all that was deleted, in bytes.
    pub freed: u64,
    /// Size of what is left, in bytes.
    pub remaining: u64,
}

/// Deletes what `policy` says.
pub fn collect(store: &Store, policy: &Policy) -> Result<Report> {
    let mut collector = Collector { store, policy, trash: Trash::new(store)?, deleted: Vec::new() };
    let (images, blobs) = collector.images()?;
    let needed = trees(store, &images)?;
    let mut items = items(store)?;
    items.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    collector.delete_if(&mut items, |item| item.is_garbage(store, policy.all, &needed))?;
    if let Some(since) = policy.older_than.and_then(|age| SystemTime::now().checked_sub(age)) {
        collector.delete_if(&mut items, |item| item.used < since)?;
    }
    let mut remaining = blobs + items.iter().map(|item| item.size).sum::<u64>();
    if let Some(budget) = policy.size {
        collector.delete_if(&mut items, |item| {
            let is_excess = remaining > budget;
            remaining -= if is_excess { item.size } else { 0 };
            is_excess
        })?;
        remaining = blobs + items.iter().map(|item| item.size).sum::<u64>();
    }
    Ok(collector.end(remaining))
}

/// A file or directory that may go.
struct Item {
    kind: Kind,
    path: PathBuf,
    /// In bytes.
    size: u64,
    /// When it was last used.
    used: SystemTime,
}

impl Item {
    fn new(kind: Kind, path: PathBuf) -> Result<Option<Self>> {
        let Some(used) = last_use(kind, &path)? else { return Ok(None) };
        let size = size(&path)?;
        Ok(Some(Self { kind, path, size, used }))
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether nobody will ever use it, or with `all`, whether a build makes it again.
    fn is_garbage(&self, store: &Store, all: bool, needed: &BTreeSet<Digest>) -> bool {
        match self.kind {
            Kind::Unfinished => true,
            Kind::Layer => all || !Digest::from_hex(&self.name()).is_ok_and(|key| needed.contains(&key)),
            Kind::Parsed => all || !store.has_document_of(&self.name()),
            Kind::Payload | Kind::Step => all,
            Kind::Image | Kind::Blob | Kind::Package | Kind::Metadata | Kind::Key => false,
        }
    }
}

/// Where things go before they are gone.
pub(crate) struct Trash<'a> {
    store: &'a Store,
    /// What was used since is left alone.
    horizon: SystemTime,
    dir: TempDir,
}

impl<'a> Trash<'a> {
    pub fn new(store: &'a Store) -> Result<Self> {
        Ok(Self { store, horizon: store.horizon()?, dir: store.temp_dir("gc-")? })
    }

    /// Deletes a thing; false if it is in use.
    pub fn take(&self, kind: Kind, path: &Path) -> Result<bool> {
        let context = || format!("deleting {}", path.display());
        let (gone, images) = (self.dir.path().join("it"), self.store.images());
        let lock = store::lock(if path.starts_with(&images) { &images } else { self.store.root() })?;
        match last_use(kind, path)? {
            Some(used) if used >= self.horizon => return Ok(false),
            None => return Ok(true),
            Some(_) => fs::rename(path, &gone).with_context(context)?,
        }
        drop(lock);
        match gone.is_dir() && !gone.is_symlink() {
            true => fs::remove_dir_all(&gone),
            false => fs::remove_file(&gone),
        }
        .with_context(context)?;
        Ok(true)
    }
}

struct Collector<'a> {
    store: &'a Store,
    policy: &'a Policy,
    trash: Trash<'a>,
    deleted: Vec<Deleted>,
}

impl Collector<'_> {
    /// Deletes images and blobs; gives the images that are left, and the size of all their blobs.
    fn images(&mut self) -> Result<(Vec<Image>, u64)> {
        let layout = Layout::create(&self.store.images())?;
        let listed = layout
            .list()
            .hint("looking for images", "`strata fsck --repair` forgets those that are damaged")?;
        let goes = unwanted(&listed, self.policy);
        let is_unwanted = |name: Option<&str>, image: &Image| goes.contains(&(name, image.digest));
        let swept = layout.sweep(&is_unwanted, self.trash.horizon, self.policy.rehearsal)?;
        for (name, digest) in &swept.images {
            let name = name.clone().unwrap_or_else(|| digest.to_string());
            self.deleted.push(Deleted { kind: Kind::Image, name, size: 0 });
        }
        let blobs = swept.blobs.iter();
        self.deleted.extend(blobs.map(|(name, size)| Deleted {
            kind: Kind::Blob,
            name: name.clone(),
            size: *size,
        }));
        let is_left =
            |name: &Option<String>, image: &Image| !swept.images.contains(&(name.clone(), image.digest));
        let left = listed.into_iter().filter(|(name, image)| is_left(name, image));
        Ok((left.map(|(_, image)| image).collect(), swept.remaining))
    }

    /// Deletes those of `items` that `goes` picks, in their order, unless they are in use.
    fn delete_if(&mut self, items: &mut Vec<Item>, mut goes: impl FnMut(&Item) -> bool) -> Result<()> {
        let mut left = Vec::new();
        for item in items.drain(..) {
            match item.used < self.trash.horizon && goes(&item) && self.delete(&item)? {
                true => self.deleted.push(Deleted { kind: item.kind, name: item.name(), size: item.size }),
                false => left.push(item),
            }
        }
        *items = left;
        Ok(())
    }

    fn delete(&self, item: &Item) -> Result<bool> {
        Ok(self.policy.rehearsal || self.trash.take(item.kind, &item.path)?)
    }

    fn end(mut self, remaining: u64) -> Report {
        self.deleted.sort();
        let freed = self.deleted.iter().map(|deleted| deleted.size).sum();
        Report { deleted: self.deleted, freed, remaining }
    }
}

/// The entries of the index that go: those without a name, and old versions of what has several; what others stand on
/// stays while they do.
fn unwanted<'i>(
    listed: &'i [(Option<String>, Image)],
    policy: &Policy,
) -> BTreeSet<(Option<&'i str>, Digest)> {
    let mut versions: BTreeMap<(&str, String), Vec<(Version, &str)>> = BTreeMap::new();
    for (name, image) in listed {
        let Some((name, (layer, version))) = name.as_deref().and_then(|n| Some((n, n.rsplit_once(':')?)))
        else {
            continue;
        };
        if let Ok(version) = version.parse() {
            let arch = image.config.architecture().to_string();
            versions.entry((layer, arch)).or_default().push((version, name));
        }
    }
    let mut old = BTreeSet::new();
    for versions in versions.values_mut() {
        versions.sort_by(|a, b| b.cmp(a));
        old.extend(versions.iter().skip(policy.keep.unwrap_or(usize::MAX)).map(|(_, name)| *name));
    }
    let is_root = |name: Option<&str>| !policy.all && name.is_some_and(|name| !old.contains(name));
    let roots = listed.iter().filter(|(name, _)| is_root(name.as_deref())).map(|(_, image)| image);
    let below = |image: &Image| image.base().ok().flatten();
    let mut stays: BTreeSet<Digest> = BTreeSet::new();
    let mut todo: Vec<Digest> = roots.filter_map(below).collect();
    while let Some(digest) = todo.pop() {
        if stays.insert(digest) {
            todo.extend(
                listed
                    .iter()
                    .filter(|(_, image)| image.digest == digest)
                    .filter_map(|(_, image)| below(image)),
            );
        }
    }
    let entries = listed.iter().map(|(name, image)| (name.as_deref(), image.digest));
    entries.filter(|(name, digest)| !is_root(*name) && !stays.contains(digest)).collect()
}

/// Keys of the extracted trees of these images, and of those they are mounted on.
fn trees(store: &Store, images: &[Image]) -> Result<BTreeSet<Digest>> {
    let mut needed = BTreeSet::new();
    for image in images {
        let inputs = image.labels().get(labels::INPUTS).and_then(|digest| digest.parse::<Digest>().ok());
        for key in [Some(image.digest), inputs].into_iter().flatten() {
            needed.insert(key);
            needed.extend(tree::below(store, &key)?);
        }
    }
    Ok(needed)
}

/// All that may go, but for images.
fn items(store: &Store) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (kind, dir) in [
        (Kind::Layer, "layers"),
        (Kind::Package, "rpms"),
        (Kind::Payload, "payloads"),
        (Kind::Metadata, "repodata"),
        (Kind::Parsed, "parsed"),
        (Kind::Step, "steps"),
        (Kind::Unfinished, "tmp"),
        (Kind::Unfinished, "images"),
        (Kind::Unfinished, "images/packed"),
        (Kind::Unfinished, "seen"),
        (Kind::Unfinished, "keys"),
    ] {
        for path in entries(&store.root().join(dir))? {
            let is_temporary =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp"));
            if kind != Kind::Unfinished || dir == "tmp" || is_temporary {
                items.extend(Item::new(kind, path)?);
            }
        }
    }
    Ok(items)
}

/// The paths in a directory; none if there is no such directory (any more).
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("listing {}", dir.display());
    match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            entries.with_context(context)?.map(|entry| Ok(entry.with_context(context)?.path())).collect()
        }
    }
}

/// When a thing was last used; none if it is gone.
fn last_use(kind: Kind, path: &Path) -> Result<Option<SystemTime>> {
    let time = |path: &Path| match fs::symlink_metadata(path).and_then(|meta| meta.modified()) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        time => time.map(Some).with_context(|| format!("reading {}", path.display())),
    };
    match kind {
        // the tree's own times are those of the image
        Kind::Layer => Ok(time(&path.join("layer.json"))?.or(time(path)?)),
        Kind::Step => {
            let runs = entries(path)?.iter().map(|run| time(run)).collect::<Result<Vec<_>>>()?;
            Ok(runs.into_iter().flatten().max().max(time(path)?))
        }
        _ => time(path),
    }
}

/// Size of a file, or of all in a directory, in bytes.
fn size(path: &Path) -> Result<u64> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        meta => meta.with_context(|| format!("reading {}", path.display()))?,
    };
    match meta.is_dir() {
        true => entries(path)?.iter().map(|path| size(path)).sum(),
        false => Ok(meta.len()),
    }
}
