//! What an image was built from, if it was the manifests and lockfiles at hand.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::inputs::{self, Given};
use super::{chunks, labels};
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::image::oci::Image;
use crate::image::pack::Compression;
use crate::lock::{self, Lockfile};
use crate::pkglist::PackageSet;
use crate::plan::{Layer, Plan};
use crate::provenance::Provenance;

const ADVICE: &str = "go to the manifests and lockfiles that it was built from, with the same --set";

/// Traces an image that has `packages` to the inputs of its layer of `plan`; an error if these would give another. `name` is
/// what it is called if it has no title.
pub fn trace(
    image: &Image,
    packages: &PackageSet,
    name: &str,
    mut plan: Plan,
    manifests: &Path,
    lockfiles: &Path,
) -> Result<Provenance> {
    let labels = image.labels();
    let label = |key: &str| labels.get(key).map(|value| (*value).to_owned());
    let required = |key: &str| {
        label(key).with_context(|| format!("the image has no label {key}: strata did not build it"))
    };
    let (layer, inputs) = (required(labels::LAYER)?, required(labels::INPUTS)?);
    let (version, revision) = (required(labels::VERSION)?, label(labels::REVISION));
    let parent = image.base().context("reading the digest of its base")?;
    let locks = locks(&plan, &layer, lockfiles)?;
    plan.known_layer(&layer).hint("finding its layer", ADVICE)?;
    let (_, _, lock) = locks.last().context("it has no lockfile")?;
    let path = lock::path(lockfiles, &plan.stream.name, &layer, plan.stream.arch);
    let packing = chunks::read(&chunks::file(&path))?;
    // whether they were asked for on the command line, the image does not say
    let compressions =
        [plan.stream.compression, Compression::Gzip, Compression::Zstd, Compression::ZstdChunked];
    for (compression, asked) in compressions.into_iter().flat_map(|c| [(c, None), (c, Some(version.clone()))])
    {
        plan.stream.compression = compression;
        let given = Given { parent, version: asked, revision: revision.clone() };
        let own = plan.known_layer(&layer)?;
        let found = inputs::digest(&plan, own, lock, packing.as_ref(), &given, manifests)?.digest;
        if found.to_string() == inputs {
            check_below(&plan, &layer, &locks, packages)?;
            let name = label("org.opencontainers.image.title").unwrap_or_else(|| name.to_owned());
            return Ok(Provenance {
                name,
                image: image.digest,
                version,
                inputs: found,
                parent,
                revision,
                locks,
            });
        }
    }
    Err(hinted(
        "the image was not built from the manifests and lockfiles at hand: their inputs digest is another",
        ADVICE,
    ))
}

/// The lockfiles of a layer and those below, with their names and digests.
fn locks(plan: &Plan, layer: &str, lockfiles: &Path) -> Result<Vec<(String, Digest, Lockfile)>> {
    let read = |layer: &Layer| {
        let lock = lock::required(plan, layer, lockfiles)?;
        let path = lock::path(lockfiles, &plan.stream.name, &layer.name, plan.stream.arch);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // below their directory, wherever that is
        let name = path.strip_prefix(lockfiles).unwrap_or(&path).display().to_string();
        Ok((name, Digest::of(bytes), lock))
    };
    plan.stack(layer).into_iter().map(read).collect()
}

/// The locks of the layers below are no inputs of the image, but the image below is: they must have its packages.
fn check_below(
    plan: &Plan,
    layer: &str,
    locks: &[(String, Digest, Lockfile)],
    packages: &PackageSet,
) -> Result<()> {
    if plan.pinned(layer).is_some() {
        return Ok(());
    }
    let locks: Vec<Lockfile> = locks.iter().map(|(_, _, lock)| lock.clone()).collect();
    match PackageSet::of_lockfiles(&locks)?.nevras().eq(packages.nevras()) {
        true => Ok(()),
        false => Err(hinted(
            "the lockfiles at hand of the layers below have other packages than the image",
            ADVICE,
        )),
    }
}
