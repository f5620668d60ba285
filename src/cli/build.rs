//! `strata build`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Answer, Global, print, print_json};
use crate::build::{self, Built};
use crate::fetch::{Fetcher, Options};
use crate::image::oci::Layout;
use crate::image::reference::{Place, Reference};
use crate::sandbox::enter_namespace;
use crate::stamp::Version;
use crate::store::Store;

/// Build the images of a stream's layers, and of what they stand on
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers and those below [default: all]
    layers: Vec<String>,
    /// Open no socket: packages must be in the store (see `strata fetch`)
    #[arg(long)]
    offline: bool,
    /// Take packages from this folder of `strata fetch --vendor` first
    #[arg(long, value_name = "DIR")]
    vendor: Option<PathBuf>,
    /// Use this image for a layer instead of building it; may be repeated
    #[arg(long, value_name = "LAYER=IMAGE", value_parser = base)]
    base: Vec<(String, Reference)>,
    /// Version of the images [default: OS version, date of the newest repository revision, counter]
    #[arg(long, value_name = "X.Y.YYYYMMDD-N")]
    version: Option<Version>,
    /// Source revision of the manifests, recorded in a label
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Also copy the topmost image here
    #[arg(long, value_name = "oci:DIR[:NAME]")]
    output: Option<Reference>,
    /// Keep the rootfs of a layer that fails, and say where it is
    #[arg(long)]
    keep_failed: bool,
}

fn base(text: &str) -> Result<(String, Reference)> {
    let (layer, image) = text.split_once('=').context("expected LAYER=IMAGE")?;
    Ok((layer.to_owned(), image.parse()?))
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    let output = args.output.as_ref().map(output_layout).transpose()?;
    let plan = global.plan(&args.stream, global.arch(None)?)?;
    let store = global.store()?;
    let options = Options { offline: args.offline, vendor: args.vendor.clone(), ..Options::default() };
    let fetcher = Fetcher::new(&store, options);
    let progress = global.progress();
    let request = build::Request {
        plan: &plan,
        manifests: &global.manifests,
        lockfiles: &global.lockfiles,
        layers: &args.layers,
        bases: &args.base.iter().cloned().collect::<BTreeMap<_, _>>(),
        version: args.version,
        revision: args.revision.clone(),
        keep_failed: args.keep_failed,
        executable: std::env::current_exe().context("finding strata's own executable")?,
    };
    let built = build::build(&store, &fetcher, &request, progress.as_ref())?;
    if let (Some((dir, name)), Some(top)) = (output, built.last()) {
        copy_out(&store, top, &dir, name.as_deref())?;
    }
    if global.json() {
        print_json(&built)?
    } else {
        print(&text(&built))?
    }
    Ok(Answer::Done)
}

fn output_layout(reference: &Reference) -> Result<(PathBuf, Option<String>)> {
    match &reference.place {
        Place::Layout { dir, name } => Ok((dir.clone(), name.clone())),
        _ => anyhow::bail!("--output {reference}: expected oci:DIR[:NAME]"),
    }
}

fn copy_out(store: &Store, top: &Built, dir: &std::path::Path, name: Option<&str>) -> Result<()> {
    let context = || format!("copying {} to {}", top.reference, dir.display());
    let from = Layout::create(&store.images())?;
    let image = from.image(None, Some(&top.digest)).with_context(context)?;
    let to = Layout::create(dir).with_context(context)?;
    to.copy(&from, &image).with_context(context)?;
    to.tag(&image, name).with_context(context)
}

/// One line per image: reference and digest, as other tools take them.
fn text(built: &[Built]) -> String {
    let width = built.iter().map(|b| b.reference.len()).max().unwrap_or(0);
    built.iter().map(|b| format!("{:width$}  {}\n", b.reference, b.digest)).collect()
}
