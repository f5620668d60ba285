//! OCI image layouts (image-spec `image-layout.md`) and the images in them.
//!
//! ```text
//! LAYOUT/
//!   oci-layout            {"imageLayoutVersion":"1.0.0"}
//!   index.json            one entry per name (annotation org.opencontainers.image.ref.name)
//!   blobs/sha256/HEX      layers, configs, manifests
//!   packed/HEX.gzip       ours: what an archive became whose identity (`super::tar`) is HEX; after a line with the
//!   packed/HEX.zstd       digest of the rest
//! ```
//!
//! Blobs are written before what refers to them, `index.json` last and under a lock (flock(2) on the layout),
//! each aside and renamed, so that readers never see an incomplete image. JSON is written with sorted keys and
//! no white space: the same image is the same bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{
    Config, Descriptor, History, HistoryBuilder, ImageConfiguration, ImageIndex, ImageIndexBuilder,
    ImageManifest, ImageManifestBuilder, MediaType, Os, Platform, PlatformBuilder, Sha256Digest,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::document::Document;
use super::pack::Layer;
use crate::digest::Digest;
use crate::error::hinted;
use crate::package::Arch;
use crate::store;

/// The directory of what is known of archives that were packed.
const PACKED: &str = "packed";
/// The annotation that names an entry of `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Media types of an image's manifest: OCI's, and Docker's, which has the same fields.
pub const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Annotation of a layer: the chunk's name.
pub const CHUNK: &str = "io.strata.chunk";
/// Annotation of a layer: what is in it, separated by commas. rpm-ostree and bootc write and read it (ostree-ext:
/// `src/container/mod.rs`).
const COMPONENTS: &str = "ostree.components";
/// Digest of the image a derived one stands on.
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// An OCI image layout.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// An image of a layout.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Digest,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The config.
    pub config: ImageConfiguration,
}

/// What an archive became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Digest of the archive.
    pub diff_id: Digest,
    /// The archive, compressed.
    pub blob: Descriptor,
}

/// What [`Layout::sweep`] deleted.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Entries of the index.
    pub images: Vec<(Option<String>, Digest)>,
    /// Names of blobs and their sizes in bytes.
    pub blobs: Vec<(String, u64)>,
    /// Size of all other blobs in bytes.
    pub remaining: u64,
}

/// What an image says about itself; fields of its parent hold where these say nothing.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the layer, for the history.
    pub layer: String,
    /// Architecture of the files.
    pub arch: Arch,
    /// Time of creation, UTC seconds.
    pub created: u64,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest; those of the parent are not inherited.
    pub annotations: BTreeMap<String, String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Command.
    pub cmd: Option<Vec<String>>,
}

impl Layout {
    /// Opens the layout at `root`.
    pub fn open(root: &Path) -> Result<Self> {
        let marker = root.join("oci-layout");
        let context = || format!("opening the OCI layout {}", root.display());
        let value: serde_json::Value =
            serde_json::from_slice(&fs::read(&marker).with_context(context)?).with_context(context)?;
        let version = &value["imageLayoutVersion"];
        ensure!(version == "1.0.0", "{}: its version is {version}, expected \"1.0.0\"", context());
        Ok(Self { root: root.to_owned() })
    }

    /// Opens the layout at `root`, making an empty one if there is none.
    pub fn create(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_owned() };
        fs::create_dir_all(root.join("blobs/sha256"))
            .with_context(|| format!("making the OCI layout {}", root.display()))?;
        let _lock = layout.lock()?;
        if !root.join("index.json").exists() {
            layout.write_index(Vec::new())?;
        }
        if !root.join("oci-layout").exists() {
            store::write_atomically(&root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Self::open(root)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob with this digest is, or would be.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// A new file in the layout, deleted when dropped.
    pub fn temp_file(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.root).with_context(|| format!("making a file in {}", self.root.display()))
    }

    /// The image called `name`, or with this digest, or both; or the only one, if neither is given.
    pub fn image(&self, name: Option<&str>, digest: Option<&Digest>) -> Result<Image> {
        self.read_image(&self.entry(name, digest)?)
    }

    /// The entry of the index of that image.
    pub fn entry(&self, name: Option<&str>, digest: Option<&Digest>) -> Result<Descriptor> {
        Ok(select(&self.entries()?, name, digest, &self.root)?.clone())
    }

    /// All entries of the index, by name. Their layers may have been lost: see [`Layout::take`].
    pub fn list(&self) -> Result<Vec<(Option<String>, Image)>> {
        let entries = self.entries()?;
        entries.iter().map(|e| Ok((ref_name(e).map(str::to_owned), self.read_manifest(e)?))).collect()
    }

    /// Entries of the index that lack a part: name or digest, what is wrong, and whether manifest and config can be read.
    pub fn damages(&self) -> Result<Vec<(String, String, bool)>> {
        let mut damages = Vec::new();
        for entry in self.entries()? {
            if let Err(error) = self.read_image(&entry) {
                let name = ref_name(&entry).map_or_else(|| entry.digest().to_string(), str::to_owned);
                damages.push((name, format!("{error:#}"), self.read_manifest(&entry).is_ok()));
            }
        }
        Ok(damages)
    }

    /// Takes the entries out of the index whose manifest or config cannot be read.
    pub fn forget_unreadable(&self) -> Result<()> {
        let _lock = self.lock()?;
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.entries()?.into_iter().partition(|entry| self.read_manifest(entry).is_ok());
        if gone.is_empty() { Ok(()) } else { self.write_index(kept) }
    }

    /// Digests of the layers that images of the list have lost.
    pub fn missing(&self) -> Result<BTreeSet<Digest>> {
        let images = self.readable()?;
        let layers = images.iter().flat_map(|image| image.manifest.layers());
        layers.filter(|layer| self.check_blob(layer).is_err()).map(digest_of).collect()
    }

    /// The images whose manifest and config can be read.
    pub fn readable(&self) -> Result<Vec<Image>> {
        Ok(self.entries()?.iter().filter_map(|entry| self.read_manifest(entry).ok()).collect())
    }

    /// Gives `image`, which is in this layout, a name; or puts it into the index without one, unless it is there.
    /// The name moves if another image has it.
    pub fn tag(&self, image: &Image, name: Option<&str>) -> Result<()> {
        let mut entry = image.descriptor();
        entry.set_platform(Some(platform(&image.config)?));
        self.enter(entry, name)
    }

    /// Puts an entry for what is in this layout into the index, as [`Layout::tag`] does.
    pub(super) fn enter(&self, mut entry: Descriptor, name: Option<&str>) -> Result<()> {
        let _lock = self.lock()?;
        let mut entries = self.entries()?;
        let is_same = |other: &Descriptor| other.digest() == entry.digest();
        if name.is_none() && entries.iter().any(is_same) {
            return Ok(());
        }
        entries.retain(|other| match ref_name(other) {
            None => !is_same(other),
            other => other != name,
        });
        let mut annotations = entry.annotations().clone().unwrap_or_default();
        // somebody else's name for it is none here
        annotations.remove(REF_NAME);
        annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
        entry.set_annotations((!annotations.is_empty()).then_some(annotations));
        entries.push(entry);
        self.write_index(entries)
    }

    /// Says that an image of the list is used from now on (see [`store::take`]); false if not all of it is here.
    pub fn take(&self, image: &Image) -> Result<bool> {
        let is_whole = image.manifest.layers().iter().all(|layer| self.check_blob(layer).is_ok());
        Ok(is_whole && store::take(&self.root, &self.blob(&image.digest))?)
    }

    /// Keeps a manifest or an index, without an entry for it.
    pub(super) fn keep(&self, document: &Document) -> Result<()> {
        let path = self.blob(&document.digest);
        let is_here =
            store::take(&self.root, &path)? && fs::read(&path).is_ok_and(|bytes| bytes == document.bytes);
        if is_here { Ok(()) } else { store::write_atomically(&path, &document.bytes) }
    }

    /// Keeps a small blob.
    pub(super) fn keep_bytes(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        store::write_atomically(&self.blob(&digest), bytes)?;
        Ok(descriptor(media_type, bytes.len() as u64, &digest))
    }

    /// When an image of the list was last used: built, found again, or stood on.
    pub fn last_use(&self, image: &Image) -> Result<SystemTime> {
        let path = self.blob(&image.digest);
        fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .with_context(|| format!("reading {}", path.display()))
    }

    /// Takes images out of the index by their names, or all without a name, and deletes blobs that the others do not
    /// need, unless they were used since `horizon`. A `rehearsal` only tells what would go.
    pub fn sweep(
        &self,
        goes: &dyn Fn(Option<&str>, &Image) -> bool,
        horizon: SystemTime,
        rehearsal: bool,
    ) -> Result<Swept> {
        let _lock = self.lock()?;
        let (mut kept, mut swept, mut needed) = (Vec::new(), Swept::default(), BTreeSet::new());
        for entry in self.entries()? {
            let image = self.read_manifest(&entry)?;
            let name = ref_name(&entry).map(str::to_owned);
            let is_unused = stat(&self.blob(&image.digest))?.is_none_or(|(used, _)| used < horizon);
            if goes(name.as_deref(), &image) && is_unused {
                swept.images.push((name, image.digest));
                continue;
            }
            let blobs = image.manifest.layers().iter().chain([image.manifest.config(), &entry]);
            needed.extend(blobs.map(|blob| blob.digest().digest().to_owned()));
            kept.push(entry);
        }
        if !swept.images.is_empty() && !rehearsal {
            self.write_index(kept)?;
        }
        for path in files(&self.root.join("blobs/sha256"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((used, size)) = stat(&path)? else { continue };
            if needed.contains(&name) || used >= horizon {
                swept.remaining += size;
            } else {
                remove(&path, rehearsal)?;
                swept.blobs.push((name, size));
            }
        }
        for path in files(&self.root.join(PACKED))? {
            let packed = fs::read(&path).ok().and_then(|bytes| read_packed(&bytes));
            let is_here = packed.is_some_and(|packed| self.check_blob(&packed.blob).is_ok());
            if !is_here && stat(&path)?.is_some_and(|(used, _)| used < horizon) {
                remove(&path, rehearsal)?;
            }
        }
        Ok(swept)
    }

    /// Writes config and manifest of an image whose blobs are here: `parent`'s layers, then `layers`.
    pub fn write_image(
        &self,
        parent: Option<&Image>,
        layers: &[Layer],
        settings: &Settings,
    ) -> Result<Image> {
        let config = configuration(parent, layers, settings)?;
        let config_blob = self.write_blob(MediaType::ImageConfig, &config)?;
        let below: Vec<Descriptor> =
            parent.into_iter().flat_map(|parent| parent.manifest.layers()).map(oci_layer).collect();
        let mut manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(config_blob)
            .layers(below)
            .build()?;
        manifest.layers_mut().extend(layers.iter().map(annotated));
        let base = parent.map(|p| (BASE_DIGEST.to_owned(), p.digest.to_string()));
        let annotations: HashMap<_, _> = base.into_iter().chain(settings.annotations.clone()).collect();
        manifest.set_annotations((!annotations.is_empty()).then_some(annotations));
        let written = self.write_blob(MediaType::ImageManifest, &manifest)?;
        self.read_image(&written)
    }

    /// Brings `image` of the layout `from` here, only the blobs that are missing, without a name.
    pub fn copy(&self, from: &Layout, image: &Image) -> Result<()> {
        let manifest = image.descriptor();
        for blob in image.manifest.layers().iter().chain([image.manifest.config(), &manifest]) {
            self.copy_blob(from, blob)?;
        }
        Ok(())
    }

    /// The blob of the archive with this [identity](super::tar::identity) under this compression, and the archive's diff
    /// id, if it is here.
    pub fn packed(&self, identity: &Digest, compression: &str) -> Result<Option<Packed>> {
        let path = self.packed_file(identity, compression);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("reading {}", path.display()))?,
        };
        let Some(packed) = read_packed(&bytes) else {
            tracing::warn!("{} is damaged", path.display());
            return Ok(None);
        };
        Ok(self.has(&packed.blob)?.then_some(packed))
    }

    /// Records what [`Layout::packed`] gives.
    pub fn remember(&self, identity: &Digest, compression: &str, packed: &Packed) -> Result<()> {
        let path = self.packed_file(identity, compression);
        fs::create_dir_all(self.root.join(PACKED)).with_context(|| format!("writing {}", path.display()))?;
        let json = canonical(packed)?;
        store::write_atomically(&path, &[Digest::of(&json).hex().as_bytes(), b"\n", &json].concat())
    }

    fn packed_file(&self, identity: &Digest, compression: &str) -> PathBuf {
        self.root.join(PACKED).join(format!("{}.{compression}", identity.hex()))
    }

    /// Brings a blob of the layout `from` here, unless it is.
    pub(super) fn copy_blob(&self, from: &Layout, blob: &Descriptor) -> Result<()> {
        let path = from.blob(&digest_of(blob)?);
        let copied = self.keep_blob(blob, |file| {
            // from file to file the kernel copies, and shares the extents where the file system can
            io::copy(&mut File::open(&path)?, file)?;
            Ok(())
        });
        copied.map(drop).with_context(|| format!("copying from {}", from.root.display()))
    }

    /// The path of a blob, which `bring` writes into a file unless it is here; checked before it gets its name.
    pub(super) fn keep_blob(
        &self,
        blob: &Descriptor,
        bring: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<PathBuf> {
        let digest = digest_of(blob)?;
        let path = self.blob(&digest);
        if self.has(blob)? {
            return Ok(path);
        }
        let context = || format!("bringing the blob {digest} to {}", self.root.display());
        let mut file = self.temp_file()?;
        bring(file.as_file_mut()).with_context(context)?;
        check(blob, &mut file.reopen()?).with_context(context)?;
        store::persist(file, &path)?;
        Ok(path)
    }

    fn write_blob(&self, media_type: MediaType, value: &impl Serialize) -> Result<Descriptor> {
        self.keep_bytes(media_type, &canonical(value)?)
    }

    /// A small blob, verified.
    fn read_blob<T: DeserializeOwned>(&self, blob: &Descriptor) -> Result<T> {
        let digest = digest_of(blob)?;
        self.check_blob(blob)?;
        let bytes = fs::read(self.blob(&digest)).with_context(|| format!("reading the blob {digest}"))?;
        let found = Digest::of(&bytes);
        ensure!(found == digest, "reading the blob {digest} of {}: it is {found}", self.root.display());
        serde_json::from_slice(&bytes)
            .with_context(|| format!("reading the blob {digest} as {}", blob.media_type()))
    }

    /// The image of an entry: manifest and config verified by digest, layers by presence and size.
    pub(super) fn read_image(&self, entry: &Descriptor) -> Result<Image> {
        let image = self.read_manifest(entry)?;
        for layer in image.manifest.layers() {
            self.check_blob(layer)
                .with_context(|| format!("reading the image {} of {}", image.digest, self.root.display()))?;
        }
        Ok(image)
    }

    /// The image of an entry, whose layers may be elsewhere: manifest and config verified by digest.
    pub(super) fn read_manifest(&self, entry: &Descriptor) -> Result<Image> {
        let digest = digest_of(entry)?;
        let context = || format!("reading the image {digest} of {}", self.root.display());
        if !MANIFESTS[..2].contains(&entry.media_type().as_ref()) {
            return Err(hinted(
                format!("{}: it is a {}, expected an OCI manifest", context(), entry.media_type()),
                "copy one architecture of it with `skopeo copy --format oci`",
            ));
        }
        let manifest: ImageManifest = self.read_blob(entry).with_context(context)?;
        let config: ImageConfiguration = self.read_blob(manifest.config()).with_context(context)?;
        let (layers, diffs) = (manifest.layers().len(), config.rootfs().diff_ids().len());
        ensure!(layers == diffs, "{}: it has {layers} layers but {diffs} diff ids", context());
        Ok(Image { digest, size: entry.size(), manifest, config })
    }

    /// Whether a blob is here; then it is used from now on.
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.check_blob(blob).is_ok() && store::take(&self.root, &self.blob(&digest_of(blob)?))?)
    }

    /// Checks that a blob is here in full length.
    fn check_blob(&self, blob: &Descriptor) -> Result<()> {
        let path = self.blob(&digest_of(blob)?);
        let found =
            fs::metadata(&path).with_context(|| format!("reading the blob {}", path.display()))?.len();
        ensure!(
            found == blob.size(),
            "the blob {} is damaged: {found} bytes, expected {}",
            path.display(),
            blob.size()
        );
        Ok(())
    }

    /// What the index lists.
    pub(super) fn entries(&self) -> Result<Vec<Descriptor>> {
        let path = self.root.join("index.json");
        let context = || format!("reading {}", path.display());
        let index: ImageIndex =
            serde_json::from_slice(&fs::read(&path).with_context(context)?).with_context(context)?;
        Ok(index.manifests().clone())
    }

    fn write_index(&self, mut entries: Vec<Descriptor>) -> Result<()> {
        entries.sort_by(|a, b| ref_name(a).cmp(&ref_name(b)));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(entries)
            .build()?;
        store::write_atomically(&self.root.join("index.json"), &canonical(&index)?)
    }

    /// Keeps other writers of the index out, and who takes blobs, until dropped.
    fn lock(&self) -> Result<File> {
        store::lock(&self.root)
    }
}

impl Image {
    /// What refers to its manifest.
    pub(super) fn descriptor(&self) -> Descriptor {
        let media_type = self.manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
        descriptor(media_type, self.size, &self.digest)
    }

    /// Labels of the config.
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        let labels = self.config.labels_of_config().into_iter().flatten();
        labels.map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    /// Digest of the image it stands on, if it says so.
    pub fn base(&self) -> Result<Option<Digest>> {
        let annotations = self.manifest.annotations().as_ref();
        let base = annotations.and_then(|annotations| annotations.get(BASE_DIGEST));
        Ok(base.map(|digest| digest.parse()).transpose()?)
    }

    /// What the history says of each layer, bottom first; it may say less than there are layers.
    pub fn layer_history(&self) -> Vec<Option<&History>> {
        let said = self.config.history().iter().flatten().filter(|h| h.empty_layer() != Some(true));
        said.map(Some).chain(std::iter::repeat(None)).take(self.manifest.layers().len()).collect()
    }

    /// Size of all layers as stored, in bytes.
    pub fn layers_size(&self) -> u64 {
        self.manifest.layers().iter().map(Descriptor::size).fold(0, u64::saturating_add)
    }
}

/// The entry of the index of `layout` called `name`, or with this digest, or both; or the only one, if neither is
/// given. What refers to an image, and has no name, is none.
pub(super) fn select<'e>(
    entries: &'e [Descriptor],
    name: Option<&str>,
    digest: Option<&Digest>,
    layout: &Path,
) -> Result<&'e Descriptor> {
    let mut matching: Vec<_> = entries
        .iter()
        .filter(|e| name.is_none_or(|n| ref_name(e) == Some(n)))
        .filter(|e| name.is_some() || digest.is_some() || e.artifact_type().is_none())
        .filter(|e| digest.is_none_or(|d| e.digest().to_string() == d.to_string()))
        .collect();
    matching.sort_by_key(|e| e.digest().to_string());
    matching.dedup_by_key(|e| e.digest());
    if let [entry] = matching.as_slice() {
        return Ok(entry);
    }
    let names: Vec<_> = entries.iter().filter_map(ref_name).collect();
    let asked = [name.map(str::to_owned), digest.map(Digest::to_string)];
    let asked: String = asked.iter().flatten().map(|text| format!(" {text}")).collect();
    Err(hinted(
        format!("finding the image{asked} in {}: {} images match", layout.display(), matching.len()),
        match names.as_slice() {
            [] => "it has no named images".to_owned(),
            names => format!("it has {}", names.join(", ")),
        },
    ))
}

/// Compares what was read of a blob with what it should be.
pub(super) fn check(blob: &Descriptor, content: &mut impl Read) -> Result<()> {
    let (digest, size) = (digest_of(blob)?, blob.size());
    let (found, length) = Digest::of_reader(content)?;
    ensure!(
        (found, length) == (digest, size),
        "the source is damaged: it is {found} of {length} bytes, expected {size} bytes of {digest}"
    );
    Ok(())
}

/// The files of a directory that may not exist.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("listing {}", dir.display());
    match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.with_context(context)?.map(|e| Ok(e.with_context(context)?.path())).collect(),
    }
}

/// A file of `packed/`; none if it is damaged, and would give an image another diff id than its blob has.
fn read_packed(bytes: &[u8]) -> Option<Packed> {
    let (digest, json) = bytes.split_at_checked(64)?;
    let json = json.strip_prefix(b"\n")?;
    (digest == Digest::of(json).hex().as_bytes()).then(|| serde_json::from_slice(json).ok())?
}

/// When a file was last used, and its size in bytes; none if it is gone, as one that was renamed when it was complete.
fn stat(path: &Path) -> Result<Option<(SystemTime, u64)>> {
    let meta = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        meta => meta.with_context(|| format!("reading {}", path.display()))?,
    };
    let used = meta.modified().with_context(|| format!("reading {}", path.display()))?;
    Ok(Some((used, meta.len())))
}

/// Deletes a file, unless this is a rehearsal.
fn remove(path: &Path, rehearsal: bool) -> Result<()> {
    match rehearsal {
        true => Ok(()),
        false => fs::remove_file(path).with_context(|| format!("deleting {}", path.display())),
    }
}

/// A descriptor without annotations.
pub fn descriptor(media_type: MediaType, size: u64, digest: &Digest) -> Descriptor {
    let hex = Sha256Digest::from_str(&digest.hex()).unwrap_or_else(|_| unreachable!("64 hex digits"));
    Descriptor::new(media_type, size, hex)
}

/// A chunk's descriptor that says what is in it.
fn annotated(layer: &Layer) -> Descriptor {
    let components = match layer.sources.is_empty() {
        true => layer.name.clone(),
        false => layer.sources.join(","),
    };
    let mut descriptor = layer.descriptor.clone();
    let mut annotations = descriptor.annotations().clone().unwrap_or_default();
    annotations.extend([(CHUNK.to_owned(), layer.name.clone()), (COMPONENTS.to_owned(), components)]);
    descriptor.set_annotations(Some(annotations));
    descriptor
}

/// A layer's descriptor as an OCI manifest has it: Docker's media types are of the same bytes.
fn oci_layer(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type().as_ref() {
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaType::ImageLayerZstd,
        _ => return layer.clone(),
    };
    let mut layer = layer.clone();
    layer.set_media_type(media_type);
    layer
}

/// The digest in a descriptor; only SHA-256 is taken.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

fn ref_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}

/// For what machines an image with this config is.
pub(super) fn platform(config: &ImageConfiguration) -> Result<Platform> {
    let platform =
        PlatformBuilder::default().architecture(config.architecture().clone()).os(config.os().clone());
    let platform = match config.variant() {
        Some(variant) => platform.variant(variant.clone()),
        None => platform,
    };
    Ok(platform.build()?)
}

/// JSON with sorted keys and no white space.
pub(super) fn canonical(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(value)?;
    value.sort_all_objects();
    Ok(serde_json::to_vec(&value)?)
}

fn configuration(
    parent: Option<&Image>,
    layers: &[Layer],
    settings: &Settings,
) -> Result<ImageConfiguration> {
    let arch = oci_spec::image::Arch::from(settings.arch.oci());
    let mut config = match parent {
        None => ImageConfiguration::default(),
        Some(parent) if *parent.config.architecture() == arch => parent.config.clone(),
        Some(parent) => bail!(
            "writing the image of layer {}: its base {} is for {}, expected {arch}",
            settings.layer,
            parent.digest,
            parent.config.architecture()
        ),
    };
    let created = jiff::Timestamp::from_second(i64::try_from(settings.created)?)?.to_string();
    config.set_architecture(arch);
    config.set_os(Os::Linux);
    let below = config.rootfs().diff_ids().len();
    config.rootfs_mut().diff_ids_mut().extend(layers.iter().map(|l| l.diff_id.to_string()));
    let history = config.history_mut().get_or_insert_default();
    if history.iter().filter(|h| h.empty_layer() != Some(true)).count() != below {
        // readers pair history and layers; a base without a history, or with a wrong one, gets a blank one
        *history = vec![HistoryBuilder::default().created_by("base image").build()?; below];
    }
    for layer in layers {
        let mut entry = HistoryBuilder::default()
            .created(created.clone())
            .created_by(format!("strata: {}: {}", settings.layer, layer.name));
        if !layer.sources.is_empty() {
            entry = entry.comment(layer.sources.join(" "));
        }
        history.push(entry.build()?);
    }
    config.set_created(Some(created));
    config.set_config(Some(execution(config.config().clone().unwrap_or_default(), settings)));
    Ok(config)
}

/// The parent's labels, environment and command with those of `settings` over them.
fn execution(mut config: Config, settings: &Settings) -> Config {
    let labels = config.labels_mut().get_or_insert_default();
    labels.extend(settings.labels.clone());
    let mut env = config.env().clone().unwrap_or_default();
    for (key, value) in &settings.env {
        let line = format!("{key}={value}");
        match env.iter_mut().find(|l| l.split('=').next() == Some(key)) {
            Some(old) => *old = line,
            None => env.push(line),
        }
    }
    config.set_env(Some(env).filter(|e| !e.is_empty()));
    if let Some(cmd) = &settings.cmd {
        config.set_cmd(Some(cmd.clone()));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            layer: "node".to_owned(),
            arch: Arch::X86_64,
            created: 1_738_540_800,
            labels: [("version".to_owned(), "2".to_owned())].into(),
            annotations: BTreeMap::new(),
            env: [("PATH".to_owned(), "/new".to_owned()), ("ADDED".to_owned(), "1".to_owned())].into(),
            cmd: None,
        }
    }

    fn layer(name: &str) -> Layer {
        let diff_id = Digest::of(name);
        let descriptor = descriptor(MediaType::ImageLayerGzip, 1, &diff_id);
        Layer { name: name.to_owned(), sources: vec!["a".to_owned(), "b".to_owned()], descriptor, diff_id }
    }

    /// An image of one layer, with a config as other tools write it.
    fn foreign(config: &str) -> Image {
        let config: ImageConfiguration = serde_json::from_str(config).unwrap();
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .config(descriptor(MediaType::ImageConfig, 1, &Digest::of("config")))
            .layers(vec![layer("below").descriptor])
            .build()
            .unwrap();
        Image { digest: Digest::of("manifest"), size: 1, manifest, config }
    }

    #[test]
    fn fields_of_the_base_hold_where_the_layer_says_nothing() {
        let base = foreign(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:00"]},
                "config":{"Env":["LANG=C","PATH=/old"],"Cmd":["/sbin/init"],"StopSignal":"SIGRTMIN+3",
                          "Labels":{"version":"1","kept":"yes"}},
                "history":[{"created_by":"below"},{"created_by":"nothing","empty_layer":true}]}"#,
        );
        let config = configuration(Some(&base), &[layer("kubelet")], &settings()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&canonical(&config).unwrap()).unwrap();
        assert_eq!(json["created"], "2025-02-03T00:00:00Z");
        assert_eq!(json["config"]["Env"], serde_json::json!(["LANG=C", "PATH=/new", "ADDED=1"]));
        assert_eq!(json["config"]["Cmd"], serde_json::json!(["/sbin/init"]));
        assert_eq!(json["config"]["StopSignal"], "SIGRTMIN+3");
        assert_eq!(json["config"]["Labels"], serde_json::json!({"kept": "yes", "version": "2"}));
        let diff_ids = serde_json::json!(["sha256:00", Digest::of("kubelet").to_string()]);
        assert_eq!(json["rootfs"]["diff_ids"], diff_ids);
        let history: Vec<_> = json["history"].as_array().unwrap().iter().map(|h| &h["created_by"]).collect();
        assert_eq!(history, ["below", "nothing", "strata: node: kubelet"]);
        assert_eq!(json["history"][2]["comment"], "a b");
    }

    #[test]
    fn a_base_without_history_gets_one_entry_per_layer() {
        let base = foreign(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#,
        );
        let config = configuration(Some(&base), &[layer("x")], &settings()).unwrap();
        assert_eq!(config.history().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn a_base_for_another_architecture_is_refused() {
        let base =
            foreign(r#"{"architecture":"s390x","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
        let error = configuration(Some(&base), &[], &settings()).unwrap_err().to_string();
        assert!(error.contains("is for s390x, expected amd64"), "{error}");
    }

    #[test]
    fn names_given_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let image = layout.write_image(None, &[], &settings()).unwrap();
        let names: Vec<_> = (0..16).map(|n| format!("demo/layer-{n:02}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| layout.tag(&image, Some(name)).unwrap());
            }
        });
        let found: Vec<_> = layout.list().unwrap().into_iter().filter_map(|(name, _)| name).collect();
        assert_eq!(found, names);
        // sixteen names of one image are one image
        assert_eq!(layout.image(None, None).unwrap().digest, image.digest);
    }

    #[test]
    fn a_name_moves_to_the_image_that_got_it_last() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let old = layout.write_image(None, &[], &settings()).unwrap();
        let new = layout.write_image(None, &[], &Settings { created: 1, ..settings() }).unwrap();
        layout.tag(&old, Some("demo/node")).unwrap();
        layout.tag(&old, Some("demo/node:1")).unwrap();
        layout.tag(&new, Some("demo/node")).unwrap();
        assert_eq!(layout.image(Some("demo/node"), None).unwrap().digest, new.digest);
        assert_eq!(layout.image(Some("demo/node:1"), None).unwrap().digest, old.digest);
        assert_eq!(layout.image(None, Some(&new.digest)).unwrap().digest, new.digest);
        let error = layout.image(None, None).unwrap_err().to_string();
        assert!(error.contains("2 images match"), "{error}");
    }
}
