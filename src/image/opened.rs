//! Images wherever they are, read blob by blob.
//!
//! Blobs of an image that is in no layout come into the store's, one by one, as they are asked for: what is there by
//! its digest is not brought again, and needs no network.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::oci::{Image, Layout, MANIFESTS, descriptor, digest_of, select};
use super::reference::{Place, Reference};
use super::registry::Registry;
use super::untar::Reader;
use crate::digest::Digest;
use crate::error::hinted;
use crate::package::Arch;
use crate::store::{Store, take, write_atomically};

/// A manifest is at most so large: what registries take (distribution-spec).
const MAX_MANIFEST: u64 = 4 << 20;

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
    remote: Option<Remote>,
}

/// Where blobs are that are in no layout.
enum Remote {
    Archive(PathBuf),
    Registry(Box<Registry>),
}

impl Reference {
    /// Opens the image.
    pub fn open(&self, access: Access<'_>) -> Result<Opened> {
        let own = || Layout::create(&access.store.images());
        let (layout, name) = match &self.place {
            Place::Layout { dir, name } => (Layout::open(dir)?, name.as_deref()),
            // a build that has lost its name to a newer one is still there by digest
            Place::Store { name } => (own()?, Some(name.as_str()).filter(|_| self.digest.is_none())),
            Place::Archive { file, name } => {
                let opened = archive(own()?, file, name.as_deref(), self.digest.as_ref());
                return opened.with_context(|| format!("opening {self}"));
            }
            Place::Registry { host, repository, tag } => {
                let registry = Registry::new(host, repository, access.offline, access.authfile);
                let tag = tag.as_deref().unwrap_or("latest");
                let opened = pulled(own()?, registry, tag, self.digest, access.arch);
                return opened.with_context(|| format!("opening {self}"));
            }
            Place::Storage { .. } => {
                return Err(hinted(
                    format!("opening {self}: strata does not read podman's storage"),
                    format!("copy it into a layout first: skopeo copy {self} oci:DIR"),
                ));
            }
        };
        let image = layout.image(name, self.digest.as_ref())?;
        Ok(Opened { image, layout, remote: None })
    }
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
        bring(&self.layout, self.remote.as_ref(), blob)
    }

    /// Brings the whole image into a layout, without a name.
    pub fn copy_to(&self, layout: &Layout) -> Result<()> {
        self.local()?;
        layout.copy(&self.layout, &self.image)
    }

    /// A layout that has all of it, for whom single blobs do not do.
    pub fn local(&self) -> Result<&Layout> {
        self.image.manifest.layers().iter().try_for_each(|layer| self.blob(layer).map(drop))?;
        Ok(&self.layout)
    }
}

/// An image of a layout in a tar.
fn archive(layout: Layout, file: &Path, name: Option<&str>, digest: Option<&Digest>) -> Result<Opened> {
    let mut index = Vec::new();
    member(file, "index.json", |content| {
        Ok(content.take(MAX_MANIFEST).read_to_end(&mut index).map(drop)?)
    })?;
    let index: ImageIndex = serde_json::from_slice(&index).context("reading its index.json")?;
    let entry = select(index.manifests(), name, digest, file)?;
    let remote = Remote::Archive(file.to_owned());
    Ok(Opened { image: described(&layout, &remote, entry)?, layout, remote: Some(remote) })
}

/// An image of a registry; of an index that for `arch`.
fn pulled(
    layout: Layout,
    registry: Registry,
    tag: &str,
    digest: Option<Digest>,
    arch: Arch,
) -> Result<Opened> {
    let (mut entry, mut bytes) = manifest(&layout, &registry, digest.as_ref(), tag)?;
    if let Ok(index) = serde_json::from_slice::<ImageIndex>(&bytes) {
        let is_for = |entry: &&Descriptor| {
            let platform = entry.platform().as_ref();
            platform
                .is_some_and(|p| p.architecture().to_string() == arch.oci() && p.os().to_string() == "linux")
        };
        let Some(chosen) = index.manifests().iter().find(is_for) else {
            bail!("the image is for several architectures, but not for {}", arch.oci());
        };
        (entry, bytes) = manifest(&layout, &registry, Some(&digest_of(chosen)?), tag)?;
    }
    let media_type = serde_json::from_slice::<serde_json::Value>(&bytes)?["mediaType"].clone();
    if let Some(docker) = media_type.as_str().filter(|media_type| MANIFESTS.contains(media_type)) {
        entry.set_media_type(docker.into());
    }
    let remote = Remote::Registry(Box::new(registry));
    Ok(Opened { image: described(&layout, &remote, &entry)?, layout, remote: Some(remote) })
}

/// A manifest or index of a registry, kept in `layout` under its digest.
fn manifest(
    layout: &Layout,
    registry: &Registry,
    digest: Option<&Digest>,
    tag: &str,
) -> Result<(Descriptor, Vec<u8>)> {
    let kept = digest.map(|digest| layout.blob(digest));
    let kept =
        kept.map(|path| anyhow::Ok(take(layout.root(), &path)?.then_some(path))).transpose()?.flatten();
    let bytes = match &kept {
        Some(path) => fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => registry.manifest(digest, tag, MAX_MANIFEST)?,
    };
    let found = Digest::of(&bytes);
    ensure!(
        digest.is_none_or(|digest| *digest == found),
        "the manifest is damaged: it is {found}, expected {}",
        digest.unwrap_or(&found)
    );
    if kept.is_none() {
        write_atomically(&layout.blob(&found), &bytes)?;
    }
    Ok((descriptor(MediaType::ImageManifest, bytes.len() as u64, &found), bytes))
}

/// The image with this manifest: brings that and the config.
fn described(layout: &Layout, remote: &Remote, entry: &Descriptor) -> Result<Image> {
    ensure!(entry.size() <= MAX_MANIFEST, "a manifest of {} bytes", entry.size());
    let manifest = bring(layout, Some(remote), entry)?;
    let manifest = fs::read(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let manifest: oci_spec::image::ImageManifest =
        serde_json::from_slice(&manifest).context("reading its manifest")?;
    ensure!(manifest.config().size() <= MAX_MANIFEST, "a config of {} bytes", manifest.config().size());
    bring(layout, Some(remote), manifest.config())?;
    layout.read_manifest(entry)
}

/// The file of a blob in `layout`, brought there from `remote` unless it is.
fn bring(layout: &Layout, remote: Option<&Remote>, blob: &Descriptor) -> Result<PathBuf> {
    let Some(remote) = remote else { return Ok(layout.blob(&digest_of(blob)?)) };
    layout.keep_blob(blob, |to| match remote {
        Remote::Registry(registry) => registry.blob(blob, to),
        Remote::Archive(file) => {
            let path = format!("blobs/sha256/{}", blob.digest().digest());
            member(file, &path, |content| Ok(io::copy(content, to).map(drop)?))
        }
    })
}

/// Gives the content of a member of a tar to `receive`.
fn member(file: &Path, path: &str, receive: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<()> {
    let context = || format!("reading {}", file.display());
    let mut tar = Reader::new(BufReader::new(File::open(file).with_context(context)?));
    while let Some(member) = tar.next_member().with_context(context)? {
        let name = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        if member.is_file() && name == path.as_bytes() {
            return receive(&mut tar.content()).with_context(context);
        }
    }
    bail!("{}: it has no {path}, which archives of OCI layouts have", context())
}
