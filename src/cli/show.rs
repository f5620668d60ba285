//! `strata show`

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Global};
use crate::digest::Digest;
use crate::image::oci::{Image, digest_of};
use crate::image::reference::Reference;

/// Show an image's labels and layers
#[derive(clap::Args)]
pub struct Args {
    /// `STREAM/LAYER[:VERSION]` in the store, or `oci:DIR[:NAME]`
    image: Reference,
}

#[derive(Serialize)]
struct Description {
    digest: Digest,
    architecture: String,
    created: Option<String>,
    size: u64,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    /// How it came to be.
    origin: String,
    digest: Digest,
    diff_id: String,
    media_type: String,
    size: u64,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let (_, image) = args.image.open(&global.store()?)?;
    let description = describe(&image)?;
    if global.json() {
        super::print_json(&description)?;
    } else {
        super::print(&text(&args.image, &description))?;
    }
    Ok(Answer::Done)
}

fn describe(image: &Image) -> Result<Description> {
    let blobs = image.manifest.layers().iter().zip(image.config.rootfs().diff_ids());
    let layer = |(origin, (blob, diff_id)): (&str, (&oci_spec::image::Descriptor, &String))| {
        Ok(Layer {
            origin: origin.to_owned(),
            digest: digest_of(blob)?,
            diff_id: diff_id.clone(),
            media_type: blob.media_type().to_string(),
            size: blob.size(),
        })
    };
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Ok(Description {
        digest: image.digest,
        architecture: image.config.architecture().to_string(),
        created: image.config.created().clone(),
        size: image.layers_size(),
        labels: image.labels().into_iter().map(owned).collect(),
        annotations: image.manifest.annotations().clone().unwrap_or_default().into_iter().collect(),
        layers: image.origins().into_iter().zip(blobs).map(layer).collect::<Result<_>>()?,
    })
}

fn text(reference: &Reference, image: &Description) -> String {
    let mut text = format!("{reference}\n");
    let mut field = |name: &str, value: &str| text += &format!("  {name:14}{value}\n");
    field("digest", &image.digest.to_string());
    field("architecture", &image.architecture);
    field("created", image.created.as_deref().unwrap_or("-"));
    field("size", &format!("{} in {} layers", indicatif::HumanBytes(image.size), image.layers.len()));
    for (title, map) in [("labels", &image.labels), ("annotations", &image.annotations)] {
        if !map.is_empty() {
            text += &format!("{title}\n");
        }
        for (key, value) in map {
            text += &format!("  {key} = {value}\n");
        }
    }
    text += "layers, bottom first\n";
    for layer in &image.layers {
        let size = indicatif::HumanBytes(layer.size).to_string();
        let short: String = layer.digest.hex().chars().take(12).collect();
        text += &format!("  {short}  {size:>12}  {}\n", layer.origin);
    }
    text
}
