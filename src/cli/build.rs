//! `strata build`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::screen::eprint_line;
use super::{Answer, Global, print, print_json};
use crate::build::{self, Built, ScriptRun};
use crate::fetch::{Fetcher, Options};
use crate::image::oci::Layout;
use crate::image::reference::{Place, Reference};
use crate::sandbox::enter_namespace;
use crate::sandbox::last_lines;
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
    /// Also copy the images into an OCI layout: with a NAME the topmost, else each layer asked for, as
    /// STREAM/LAYER
    #[arg(long, value_name = "oci:DIR[:NAME]", value_parser = output)]
    output: Option<Output>,
    /// Keep the rootfs of a layer that fails, and say where it is
    #[arg(long)]
    keep_failed: bool,
}

/// Where images are copied to.
#[derive(Clone)]
struct Output {
    dir: PathBuf,
    name: Option<String>,
}

fn output(text: &str) -> Result<Output> {
    match text.parse::<Reference>()? {
        Reference { place: Place::Layout { dir, name }, digest: None } => Ok(Output { dir, name }),
        _ => bail!("expected oci:DIR[:NAME]"),
    }
}

fn base(text: &str) -> Result<(String, Reference)> {
    let (layer, image) = text.split_once('=').context("expected LAYER=IMAGE")?;
    Ok((layer.to_owned(), image.parse()?))
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
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
    if let Some(output) = &args.output {
        copy_out(&store, args, &built, output)?;
    }
    if global.json() {
        print_json(&built)?
    } else {
        print(&text(&built))?;
        if !global.quiet {
            let lines = built.iter().flat_map(|built| scripts(built, global.verbose > 0));
            lines.for_each(|line| eprint_line(&line));
        }
    }
    Ok(Answer::Done)
}

fn copy_out(store: &Store, args: &Args, built: &[Built], Output { dir, name }: &Output) -> Result<()> {
    let mut asked = built.iter().filter(|b| args.layers.is_empty() || args.layers.contains(&b.layer));
    let named: Vec<(&Built, String)> = match name {
        Some(name) => asked.next_back().map(|top| (top, name.clone())).into_iter().collect(),
        None => asked.map(|built| (built, format!("{}/{}", args.stream, built.layer))).collect(),
    };
    let from = Layout::create(&store.images())?;
    let to = Layout::create(dir)?;
    for (built, name) in named {
        let context = || format!("copying {} to {}", built.reference, dir.display());
        let image = from.image(None, Some(&built.digest)).with_context(context)?;
        to.copy(&from, &image).with_context(context)?;
        to.tag(&image, Some(&name)).with_context(context)?;
    }
    Ok(())
}

/// One line per image: reference and digest, as other tools take them.
fn text(built: &[Built]) -> String {
    let width = built.iter().map(|b| b.reference.len()).max().unwrap_or(0);
    built.iter().map(|b| format!("{:width$}  {}\n", b.reference, b.digest)).collect()
}

/// What the scripts of a layer did: how many there were, which took longest, and those that wrote something; with
/// `all` every one of them, and how many files it changed.
fn scripts(Built { layer, scripts, .. }: &Built, all: bool) -> Vec<String> {
    const LONGEST: usize = 3;
    if scripts.is_empty() {
        return Vec::new();
    }
    let seconds: f64 = scripts.iter().map(|script| script.duration).sum();
    let mut longest: Vec<&ScriptRun> = scripts.iter().collect();
    longest.sort_by(|a, b| b.duration.total_cmp(&a.duration));
    let longest = longest.iter().take(LONGEST).map(|s| format!("{} {:.2} s", s.name, s.duration));
    let longest = longest.collect::<Vec<_>>().join(", ");
    let mut lines =
        vec![format!("{layer}: {} scripts took {seconds:.1} s, the longest {longest}", scripts.len())];
    for ScriptRun { number, name, duration, output, changes, .. } in scripts {
        let said = last_lines(output);
        if all || !said.trim().is_empty() {
            let cost =
                if all { format!(": {duration:.2} s, {} files", changes.len()) } else { String::new() };
            lines.push(format!("  {number:4} {name}{cost}"));
            lines.extend(said.lines().map(|line| format!("       | {line}")));
        }
    }
    lines
}
