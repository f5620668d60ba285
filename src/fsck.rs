//! Finds what rotted in a store, takes it away, and fetches again what lockfiles and manifests say where to get
//! ([`refetch`]); the rest is made again by whoever misses it.
//!
//! Every object is compared with what it should be:
//!
//! | object | is what it should be if |
//! |---|---|
//! | package, blob, repository metadata | its digest is in its name |
//! | payload | its digest is that in the header of its package; without that nobody uses it |
//! | run of a command | the record's digest is its name, the archive's is in the record |
//! | extracted layer | it has every path of its image's blobs, with type, mode, owner, size, time and content |
//! | image | its manifest and config can be read, its layers are there |
//! | key | it is an OpenPGP key: what it should be nobody knows |
//!
//! What is parsed has checksums of its own, looked at whenever it is read.

pub mod refetch;
mod trees;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, History};
use rayon::prelude::*;
use rpm::IndexTag as Tag;
use serde::Serialize;

use crate::build::{labels, reuse};
use crate::digest::Digest;
use crate::fetch::keyring::Keyring;
use crate::gc::{Kind, Trash, entries};
use crate::image::oci::{Image, Layout};
use crate::package::header::Header;
use crate::progress::{Progress, Unit};
use crate::repo::repomd::Checksum;
use crate::store::Store;

use refetch::Refetch;

/// An object that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The name of an image, or the path in the store.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a damaged object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is still there: nobody asked for a repair, it is in use, or it is an image to be built again.
    Left,
    /// It was taken away, to be made or fetched by whoever misses it.
    Removed,
    /// It was fetched again.
    Fetched,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of objects.
    pub checked: usize,
    /// By kind and name.
    pub findings: Vec<Finding>,
}

/// Checks all of a store; with `repair`, takes away what is damaged, unless it is in use, and fetches what can be.
///
/// Run it inside strata's user namespace, where ids are those of the images.
pub fn check(store: &Store, repair: Option<&Refetch<'_>>, progress: &dyn Progress) -> Result<Report> {
    let checker = Checker::new(store)?;
    let objects = objects(store)?;
    progress.start("checking the store", objects.len() as u64, Unit::Items);
    let problems: Vec<(Kind, &PathBuf, String)> = objects
        .par_iter()
        .filter_map(|(kind, path)| {
            let problem = checker.problem(*kind, path).unwrap_or_else(|error| Some(format!("{error:#}")));
            progress.advance(1);
            Some((*kind, path, problem?))
        })
        .collect();
    progress.finish(&format!("{} objects checked", objects.len()));
    let mut findings = Vec::new();
    for (kind, path, problem) in problems {
        let is_gone = repair.is_some() && checker.trash.take(kind, path)?;
        let fate = if is_gone { Fate::Removed } else { Fate::Left };
        let name = path.strip_prefix(store.root()).unwrap_or(path).display().to_string();
        findings.push(Finding { kind, name, problem, fate });
    }
    if let Some(refetch) = repair {
        refetch.heal(&mut findings, progress)?;
    }
    findings.extend(images(&checker.layout, repair.is_some())?);
    findings.sort();
    Ok(Report { checked: objects.len(), findings })
}

/// All objects but images.
fn objects(store: &Store) -> Result<Vec<(Kind, PathBuf)>> {
    let mut objects = Vec::new();
    for (kind, dir) in [
        // what takes longest first
        (Kind::Layer, "layers"),
        (Kind::Blob, "images/blobs/sha256"),
        (Kind::Package, "rpms"),
        (Kind::Payload, "payloads"),
        (Kind::Metadata, "repodata"),
        (Kind::Key, "keys"),
        (Kind::Step, "steps"),
    ] {
        // what is being written begins with a dot
        let is_whole =
            |path: &PathBuf| path.file_name().is_some_and(|n| !n.as_encoded_bytes().starts_with(b"."));
        let paths = entries(&store.root().join(dir))?.into_iter().filter(is_whole);
        objects.extend(paths.map(|path| (kind, path)));
    }
    Ok(objects)
}

struct Checker<'a> {
    layout: Layout,
    images: Vec<Image>,
    /// Digests of payloads: compressed, and not.
    payloads: BTreeMap<String, String>,
    trash: Trash<'a>,
}

impl<'a> Checker<'a> {
    fn new(store: &'a Store) -> Result<Self> {
        let layout = Layout::create(&store.images())?;
        let images = layout.readable()?;
        let payloads =
            entries(&store.root().join("rpms"))?.par_iter().filter_map(|rpm| payload(rpm)).collect();
        Ok(Self { layout, images, payloads, trash: Trash::new(store)? })
    }

    /// What is wrong with an object.
    fn problem(&self, kind: Kind, path: &Path) -> Result<Option<String>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default();
        match kind {
            Kind::Package | Kind::Blob | Kind::Metadata => digested(path, name),
            Kind::Payload => self.payloads.get(name).map_or(Ok(None), |digest| digested(path, digest)),
            Kind::Step => reuse::damage(path),
            Kind::Key => {
                let key = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                Ok(Keyring::default().add(&key).err().map(|error| format!("{error:#}")))
            }
            Kind::Layer => self.tree(path, name),
            Kind::Image | Kind::Parsed | Kind::Unfinished => Ok(None),
        }
    }

    /// What is wrong with an extracted layer; nothing, if there is no image to compare it with: nobody uses it.
    fn tree(&self, path: &Path, name: &str) -> Result<Option<String>> {
        let Some(key) = Digest::from_hex(name).ok() else {
            return Ok(Some("its name is no digest".to_owned()));
        };
        let inputs = key.to_string();
        let is_own = |image: &&Image| image.labels().get(labels::INPUTS) == Some(&inputs.as_str());
        let blobs = match self.images.iter().find(|image| image.digest == key) {
            Some(image) => layers_of(image).collect::<Vec<_>>(),
            None => match self.images.iter().find(is_own) {
                Some(image) => layers_of(image).skip(below(image)).collect(),
                None => return Ok(None),
            },
        };
        trees::differs(&self.layout, &blobs, &path.join("tree/root"))
    }
}

/// Blobs and diff ids of an image, bottom first.
fn layers_of(image: &Image) -> impl Iterator<Item = (&Descriptor, &str)> {
    let diffs = image.config.rootfs().diff_ids().iter().map(String::as_str);
    image.manifest.layers().iter().zip(diffs)
}

/// How many layers of an image are those of the images below.
fn below(image: &Image) -> usize {
    let own = format!("strata: {}: ", image.labels().get(labels::LAYER).unwrap_or(&""));
    let is_own = |said: &&Option<&History>| {
        said.and_then(|said| said.created_by().as_ref()).is_some_and(|by| by.starts_with(&own))
    };
    let history = image.layer_history();
    history.len() - history.iter().rev().take_while(is_own).count()
}

/// PAYLOADDIGEST and PAYLOADDIGESTALT of a package that can be read.
fn payload(rpm: &Path) -> Option<(String, String)> {
    let header = Header::open(rpm).ok()?;
    let digest = |tag| Some(str::from_utf8(header.strings(tag).ok()?.first()?).ok()?.to_owned());
    Some((digest(Tag::RPMTAG_PAYLOADSHA256)?, digest(Tag::RPMTAG_PAYLOADSHA256ALT)?))
}

/// What is wrong with a file that should have this SHA-256, or SHA-512 if it is so long.
fn digested(path: &Path, hex: &str) -> Result<Option<String>> {
    let context = || format!("reading {}", path.display());
    let kind = if hex.len() == 128 { "sha512" } else { "sha256" };
    let expected = Checksum::parse(kind, hex)?;
    let (mut hasher, mut buffer) = (expected.hasher(), vec![0; 128 << 10]);
    let mut file = match File::open(path) {
        // deleted meanwhile
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(context)?,
    };
    loop {
        match file.read(&mut buffer).with_context(context)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let found = hasher.finish();
    Ok((found != expected).then(|| format!("its {kind} is {}, expected {hex}", found.hex())))
}

/// Images that lack a part. What is without manifest or config is forgotten, with `repair`; one without layers keeps its
/// name and with that its version, which the next build of it fills again.
fn images(layout: &Layout, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, problem, is_readable) in layout.damages()? {
        let fate = if repair && !is_readable { Fate::Removed } else { Fate::Left };
        findings.push(Finding { kind: Kind::Image, name, problem, fate });
    }
    if repair {
        layout.forget_unreadable()?;
    }
    Ok(findings)
}
