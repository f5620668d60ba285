//! `strata show`

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::HumanBytes;
use oci_spec::image::{Descriptor, History};
use serde::Serialize;

use super::{Answer, Global};
use crate::diff::image::{listed, packages};
use crate::digest::Digest;
use crate::image::oci::{Image, digest_of};
use crate::image::reference::Reference;
use crate::pkglist::{Origin, PackageSet};

/// Show an image's labels and layers, and its packages
#[derive(clap::Args)]
pub struct Args {
    /// `STREAM/LAYER[:VERSION|@DIGEST]` in the store, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, or
    /// `docker://HOST/REPOSITORY[:TAG|@DIGEST]`
    image: Reference,
    /// List the packages; those of an image without a list are looked up in its rpmdb
    #[arg(long)]
    packages: bool,
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
    /// Null if the image has no list and none was asked for.
    packages: Option<Vec<Package>>,
}

#[derive(Serialize)]
struct Layer {
    /// How it came to be.
    origin: String,
    /// The source packages in it, if strata made it.
    sources: String,
    digest: Digest,
    diff_id: String,
    media_type: String,
    size: u64,
}

#[derive(Serialize)]
struct Package {
    nevra: String,
    #[serde(flatten)]
    origin: Origin,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let opened = global.open(&args.image)?;
    let packages = match args.packages {
        true => Some(packages(&opened)?),
        false => listed(&opened)?,
    };
    let description = describe(&opened.image, packages)?;
    if global.json() {
        super::print_json(&description)?;
    } else {
        super::print(&text(args, &description))?;
    }
    Ok(Answer::Done)
}

fn describe(image: &Image, packages: Option<PackageSet>) -> Result<Description> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let package =
        |(nevra, origin): (&_, &Origin)| Package { nevra: format!("{nevra}"), origin: origin.clone() };
    Ok(Description {
        digest: image.digest,
        architecture: image.config.architecture().to_string(),
        created: image.config.created().clone(),
        size: image.layers_size(),
        labels: image.labels().into_iter().map(owned).collect(),
        annotations: image.manifest.annotations().clone().unwrap_or_default().into_iter().collect(),
        layers: layers(image)?,
        packages: packages.map(|set| set.iter().map(package).collect()),
    })
}

fn layers(image: &Image) -> Result<Vec<Layer>> {
    let blobs = image.manifest.layers().iter().zip(image.config.rootfs().diff_ids());
    let said = |text: Option<&Option<String>>| text.cloned().flatten().unwrap_or_default();
    let layer = |(history, (blob, diff_id)): (Option<&History>, (&Descriptor, &String))| {
        let origin = said(history.map(History::created_by));
        let ours = origin.starts_with("strata: ");
        Ok(Layer {
            sources: said(history.filter(|_| ours).map(History::comment)),
            origin,
            digest: digest_of(blob)?,
            diff_id: diff_id.clone(),
            media_type: blob.media_type().to_string(),
            size: blob.size(),
        })
    };
    image.layer_history().into_iter().zip(blobs).map(layer).collect()
}

fn text(args: &Args, image: &Description) -> String {
    let mut text = format!("{}\n", args.image);
    let mut field = |name: &str, value: &str| text += &format!("  {name:14}{value}\n");
    field("digest", &image.digest.to_string());
    field("architecture", &image.architecture);
    field("created", image.created.as_deref().unwrap_or("-"));
    field("size", &format!("{} in {} layers", HumanBytes(image.size), image.layers.len()));
    if let Some(packages) = &image.packages {
        field("packages", &counts(packages));
    }
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
        text += &row(layer);
    }
    if args.packages {
        text += "packages\n";
        text.extend(image.packages.iter().flatten().map(package_row));
    }
    text
}

/// `74: bootc 51, coreos 12, node 11`
fn counts(packages: &[Package]) -> String {
    let mut by_layer: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in packages.iter().filter_map(|package| package.origin.layer.as_deref()) {
        *by_layer.entry(layer).or_default() += 1;
    }
    let parts: Vec<String> = by_layer.iter().map(|(layer, n)| format!("{layer} {n}")).collect();
    let colon = if parts.is_empty() { "" } else { ": " };
    format!("{}{colon}{}", packages.len(), parts.join(", "))
}

/// Digest as far as people compare it, size, origin, and the first of its source packages.
fn row(layer: &Layer) -> String {
    const SHOWN: usize = 5;
    let short: String = layer.digest.hex().chars().take(12).collect();
    let sources: Vec<&str> = layer.sources.split(' ').filter(|source| !source.is_empty()).collect();
    let mut inside = sources[..sources.len().min(SHOWN)].join(", ");
    if sources.len() > SHOWN {
        inside += &format!(" and {} more", sources.len() - SHOWN);
    }
    let row = format!("  {short}  {:>12}  {:28}  {inside}", HumanBytes(layer.size).to_string(), layer.origin);
    row.trim_end().to_owned() + "\n"
}

fn package_row(Package { nevra, origin }: &Package) -> String {
    let layer = origin.layer.as_deref().unwrap_or_default();
    let replaces = origin.replaces.as_ref().map(|evr| format!(" instead of {evr}")).unwrap_or_default();
    format!("  {nevra:56}  {layer}{replaces}").trim_end().to_owned() + "\n"
}
