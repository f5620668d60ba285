//! `strata push`

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::copy::{Images, report};
use super::{Answer, Global, export};
use crate::build::{cache, labels};
use crate::diff;
use crate::error::hinted;
use crate::image::attach::{Attachment, CYCLONEDX, PACKAGE_LIST, PROVENANCE, SPDX};
use crate::image::copy::{self, Load, Referrers};
use crate::image::opened::Opened;
use crate::image::reference::Reference;
use crate::progress::Progress;

/// Copy an image to a registry, with its package list, bills of materials and provenance attached
///
/// It is `strata copy` of an image together with what strata knows of it: attached to its digest, where `oras discover`,
/// `cosign` and scanners find it. Images of several architectures become one index.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    images: Images,
    /// What to attach [default: all, the provenance if the image was built from the manifests and lockfiles at hand]
    #[arg(long, value_delimiter = ',', value_name = "KIND,...")]
    attach: Option<Vec<Kind>>,
    /// Also give the image the tag by which `strata build --cache` finds it in this repository
    #[arg(long)]
    cache: bool,
}

const EXAMPLES: &str = "\
Examples:
  strata push demo/node docker://quay.io/ns/os:4.19
  strata push demo/node docker://quay.io/ns/os:4.19-amd64 --attach pkglist,sbom
  strata push demo/node docker://quay.io/ns/os:4.19 --attach none
  strata push demo/coreos docker://quay.io/ns/base:9.6 --cache            for other workers' builds to find";

/// What strata can say of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The package list, which `strata diff` reads first
    Pkglist,
    /// Bills of materials, SPDX and CycloneDX
    Sbom,
    /// What it was made of
    Provenance,
    /// Nothing
    None,
}

const ALL: &[Kind] = &[Kind::Pkglist, Kind::Sbom, Kind::Provenance];

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let (from, to) = args.images.split()?;
    let store = global.store()?;
    let access = global.access(&store, global.arch(None)?);
    let progress = global.progress();
    let mut loads = Vec::new();
    for image in from {
        let mut load = Load::of(image, access, None, Referrers::Ignored)?;
        if load.is_index() {
            return Err(hinted(
                format!("{image} is an index of images: what is attached is made for one at a time"),
                format!("push each image, and copy the index: strata copy {image} {to}"),
            ));
        }
        let opened = image.open(access)?;
        load.attach(&attachments(global, args, image, &opened, &*progress)?, &store)?;
        if args.cache {
            load.tag(cache_tag(image, &opened)?);
        }
        loads.push(load);
    }
    report(global, &copy::copy(&loads, to, access, &*progress)?)
}

fn attachments(
    global: &Global,
    args: &Args,
    image: &Reference,
    opened: &Opened,
    progress: &dyn Progress,
) -> Result<Vec<Attachment>> {
    let mut made = Vec::new();
    let mut add = |kind, file, content: Vec<u8>| made.push(Attachment { kind, file, content });
    let name = image.short_name();
    let kinds = args.attach.as_deref().unwrap_or(ALL);
    if kinds.contains(&Kind::Pkglist) {
        add(PACKAGE_LIST, "meta.json", package_list(opened)?);
    }
    if kinds.contains(&Kind::Sbom) {
        let bill = export::bill(global, opened, name)?;
        add(SPDX, "sbom.spdx.json", bill.to_spdx().into_bytes());
        add(CYCLONEDX, "sbom.cdx.json", bill.to_cyclonedx().into_bytes());
    }
    if kinds.contains(&Kind::Provenance) {
        match export::provenance(global, opened, name) {
            Ok(json) => add(PROVENANCE, "provenance.json", json.into_bytes()),
            Err(error) if args.attach.is_none() => {
                progress.warn(&format!("no provenance is attached to {image}: {:#}", error.root_cause()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

/// The tag by which builds find an image.
fn cache_tag(image: &Reference, opened: &Opened) -> Result<String> {
    let labels = opened.image.labels();
    let inputs = labels.get(labels::INPUTS).with_context(|| format!("{image} was not built by strata"))?;
    Ok(cache::tag(&inputs.parse().with_context(|| format!("reading the inputs digest of {image}"))?))
}

/// The package list as the image has it, or else as its rpmdb tells it.
fn package_list(image: &Opened) -> Result<Vec<u8>> {
    match diff::image::list(image)? {
        Some(list) => Ok(list),
        None => Ok(diff::image::packages(image)?.to_json(&Default::default())),
    }
}
