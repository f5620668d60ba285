//! The inputs digest: everything that decides the bytes of a layer's image, in one value.
//!
//! It is a label of the image, so a store or a registry is a build cache: equal inputs, nothing to do.
//! What does not reach the image stays out: where manifests, repositories and caches are, comments,
//! the reasons written into a lockfile, who builds and when.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::configure::{OverlayKind, overlay_entries};
use crate::digest::Digest;
use crate::image::packing::Packing;
use crate::lock::{LockedPackage, Lockfile};
use crate::origins;
use crate::plan::{Base, Configuration, FileContent, Layer, Packages, Plan};

/// Raised when the same inputs come to give other bytes: a change of the installer, the tar writer, the
/// compressor, the chunk plan or the labels.
const OUTPUT_VERSION: u32 = 8;

/// Inputs of a build that are neither in the manifests nor in the lockfiles.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Given {
    /// Manifest digest of the parent image.
    pub parent: Option<Digest>,
    /// Version asked for on the command line.
    pub version: Option<String>,
    /// Source revision asked for on the command line, for a label.
    pub revision: Option<String>,
}

/// What goes into a layer.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Of all of it.
    pub digest: Digest,
    /// Of each kind of thing, by its name.
    pub parts: Parts,
}

/// Digests by what they are of.
pub type Parts = BTreeMap<String, Digest>;

impl Inputs {
    fn of(inputs: &Value) -> Result<Self> {
        let digest = |value: &Value| anyhow::Ok(Digest::of(serde_json::to_vec(value)?));
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let (mut all, given) = (fields(inputs), fields(&inputs["given"]));
        all.remove("given");
        let parts = all.iter().chain(&given).map(|(name, value)| Ok((name.clone(), digest(value)?)));
        Ok(Self { digest: digest(inputs)?, parts: parts.collect::<Result<_>>()? })
    }

    /// What others than `before` there are, in words.
    pub fn changes(&self, before: &Parts) -> Vec<&'static str> {
        let is_changed = |name: &str| self.parts.get(name) != before.get(name);
        WORDS.iter().filter(|(name, _)| is_changed(name)).map(|(_, words)| *words).collect()
    }
}

/// Names of the parts, and what people call them.
const WORDS: [(&str, &str); 12] = [
    ("output-version", "the version of strata"),
    ("stream", "the stream"),
    ("layer", "the manifest"),
    ("overlays", "files of overlays"),
    ("packages", "locked packages"),
    ("newest-revision", "the date of the repositories"),
    ("users", "ids of users"),
    ("groups", "ids of groups"),
    ("chunks", "the chunk plan"),
    ("parent", "the image below"),
    ("version", "the version asked for"),
    ("revision", "the source revision"),
];

/// Digests the inputs of `layer`, which is locked by `lock` and has the chunk plan `packing`. Reads the files its
/// manifest names.
///
/// `manifests` is their directory: the images remember files below it, but no lines of them.
pub fn digest(
    plan: &Plan,
    layer: &Layer,
    lock: &Lockfile,
    packing: Option<&Packing>,
    given: &Given,
    manifests: &Path,
) -> Result<Inputs> {
    let stream = &plan.stream;
    let packages: Vec<Value> = lock.packages.iter().map(locked).collect();
    let newest = lock.repos.iter().map(|r| r.revision).max();
    let inputs = json!({
        "output-version": OUTPUT_VERSION,
        "stream": [
            stream.name, stream.arch, stream.os, stream.openshift,
            stream.rpmdb, stream.version, stream.image_format, stream.opt_usrlocal,
            stream.compression,
        ],
        "layer": without_lines(serde_json::to_value(by_content(layer)?)?, manifests),
        "overlays": overlay_digests(&layer.config)?,
        "packages": packages,
        "newest-revision": newest,
        "users": lock.users,
        "groups": lock.groups,
        "chunks": packing,
        "given": given,
    });
    Inputs::of(&inputs)
}

/// The layer without its package request, which the lockfile answers, without its number of chunks, which the chunk
/// plan answers, and without paths on the build machine:
/// a file counts by its content.
fn by_content(layer: &Layer) -> Result<Layer> {
    let mut layer = layer.clone();
    layer.packages = Packages::default();
    layer.image.max_layers = None;
    if let Base::Image(_) = layer.from {
        // the parent, which is given by its digest, wherever it is
        layer.from = Base::Scratch;
    }
    layer.config.overlays.clear();
    for file in &mut layer.config.files {
        if let FileContent::Source(source) = &file.value.content {
            file.value.content = FileContent::Text(digest_file(source)?.to_string());
        }
    }
    Ok(layer)
}

fn locked(package: &LockedPackage) -> Value {
    json!([package.nevra(), package.sha256, package.action, package.replaces])
}

/// Digests of the files in the overlay trees, by tree and path.
fn overlay_digests(config: &Configuration) -> Result<Vec<BTreeMap<String, Value>>> {
    let tree = |tree: &Path| {
        let entries = overlay_entries(tree)?.into_iter().map(|entry| {
            let value = match entry.kind {
                OverlayKind::Directory => json!("directory"),
                OverlayKind::Symlink(target) => json!(["link", target]),
                OverlayKind::File { source, executable } => json!([digest_file(&source)?, executable]),
            };
            Ok((entry.path, value))
        });
        entries.collect()
    };
    config.overlays.iter().map(|overlay| tree(&overlay.value)).collect()
}

fn digest_file(path: &Path) -> Result<Digest> {
    let context = || format!("reading {}", path.display());
    let mut file = fs::File::open(path).with_context(context)?;
    Ok(Digest::of_reader(&mut file).with_context(context)?.0)
}

/// Puts the value and the manifest's file in the place of every [`crate::plan::Sourced`].
fn without_lines(value: Value, manifests: &Path) -> Value {
    match value {
        Value::Object(mut fields) if is_sourced(&fields) => {
            let file = fields["origin"]["file"].as_str().unwrap_or_default();
            let file = json!(origins::file_below(Path::new(file), manifests));
            json!([file, without_lines(fields.remove("value").unwrap_or_default(), manifests)])
        }
        Value::Object(fields) => {
            let without_lines = |(key, value)| (key, without_lines(value, manifests));
            Value::Object(fields.into_iter().map(without_lines).collect())
        }
        Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| without_lines(value, manifests)).collect())
        }
        scalar => scalar,
    }
}

/// An origin has a file and a line: two labels called `value` and `origin` are no such thing.
fn is_sourced(fields: &Map<String, Value>) -> bool {
    let origin = fields.get("origin").and_then(Value::as_object);
    fields.len() == 2
        && fields.contains_key("value")
        && origin.is_some_and(|o| o.len() == 2 && o.contains_key("file") && o.contains_key("line"))
}
