//! Registries as build caches: workers that share nothing else find there what another has built.
//!
//! `strata push --cache` gives an image a tag made of its inputs digest; a build with `--cache` looks for the tag of each layer
//! before it makes it. What it finds is believed as far as the registry is: the label has to name the same inputs, and
//! the blobs of the image below have to be the ones that are here; but who may push to the cache decides what its own blobs
//! are.

use anyhow::{Result, ensure};
use oci_spec::image::Descriptor;

use super::{Build, Step, labels};
use crate::digest::Digest;
use crate::fetch::http::BadStatus;
use crate::image::opened::Opened;
use crate::image::reference::{Place, Reference};
use crate::plan::Layer;
use crate::progress::{Progress, Unit};

/// The tag of an image with these inputs.
pub fn tag(inputs: &Digest) -> String {
    format!("inputs-{}", inputs.hex())
}

impl Build<'_> {
    /// Brings the image with these inputs into the store, unless it is there, if a cache has it. A cache that fails costs a
    /// build, no more.
    pub(super) fn ask_caches(
        &self,
        layer: &Layer,
        below: Option<&Step>,
        inputs: &Digest,
        progress: &dyn Progress,
    ) -> Result<()> {
        if self.request.caches.is_empty() || self.image_of(layer, inputs)?.is_some() {
            return Ok(());
        }
        for cache in self.request.caches {
            match self.cached(cache, layer, below, inputs) {
                Ok(None) => {}
                Ok(Some(opened)) => {
                    progress.start("bringing the image from the cache", 0, Unit::Items);
                    opened.copy_to(&self.layout)?;
                    self.layout.tag(&opened.image, None)?;
                    progress.finish(&format!("taken from the cache {cache}"));
                    return Ok(());
                }
                Err(error) => progress.warn(&format!("the cache {cache} is not used: {error:#}")),
            }
        }
        Ok(())
    }

    /// The image in a cache.
    fn cached(
        &self,
        cache: &Reference,
        layer: &Layer,
        below: Option<&Step>,
        inputs: &Digest,
    ) -> Result<Option<Opened>> {
        let opened = match self.open(&tagged(cache, inputs)) {
            Err(error) if is_missing(&error) => return Ok(None),
            opened => opened?,
        };
        let image = &opened.image;
        let (labels, inputs) = (image.labels(), inputs.to_string());
        let is_same = |key: &str, expected: &str| labels.get(key) == Some(&expected);
        ensure!(
            is_same(labels::INPUTS, &inputs)
                && is_same(labels::LAYER, &layer.name)
                && is_same(labels::STREAM, &self.request.plan.stream.name),
            "the labels of {} are those of another image",
            image.digest
        );
        let expected = below.map(|step| step.image.manifest.layers().as_slice()).unwrap_or_default();
        let digests =
            |layers: &[Descriptor]| layers.iter().map(|layer| layer.digest().clone()).collect::<Vec<_>>();
        ensure!(
            image.base()? == below.map(|step| step.image.digest)
                && digests(image.manifest.layers()).starts_with(&digests(expected)),
            "{} does not stand on the image below",
            image.digest
        );
        Ok(Some(opened))
    }
}

/// The image of a repository that has these inputs.
fn tagged(cache: &Reference, inputs: &Digest) -> Reference {
    let mut reference = cache.clone();
    if let Place::Registry { tag: place, .. } = &mut reference.place {
        *place = Some(tag(inputs));
    }
    reference
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|BadStatus { status, .. }| status.as_u16() == 404)
}
