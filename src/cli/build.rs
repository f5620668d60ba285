//! `strata build`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::screen::eprint_line;
use super::{Answer, Global, print, print_json, shell_word};
use crate::build::{self, Built, Difference, ScriptRun};
use crate::fetch::{Fetcher, Options};
use crate::image::chunk;
use crate::image::oci::Layout;
use crate::image::pack::Compression;
use crate::image::reference::{Place, Reference};
use crate::plan::Plan;
use crate::sandbox::{enter_namespace, last_lines};
use crate::stamp::Version;
use crate::store::Store;

/// Build the images of a stream's layers, and of what they stand on
///
/// The ids of users and groups that a layer makes are added to its lockfile: commit them. Later builds, of this
/// layer and of those above, give the same accounts the same ids, and no other account any of them. The first build
/// of a locked layer also adds the digest of the image below.
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers and those below [default: all]
    layers: Vec<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Also copy the images into an OCI layout: with a NAME the topmost, else each layer asked for, as
    /// STREAM/LAYER
    #[arg(long, value_name = "oci:DIR[:NAME]", value_parser = output)]
    output: Option<Output>,
    /// Write no lockfile: a layer that makes new users or groups fails, for their ids have to be added, and so does
    /// one without a chunk plan
    #[arg(long)]
    locked: bool,
    /// Make the chunk plans of these layers anew: which packages share a blob
    #[arg(long, conflicts_with = "locked")]
    rechunk: bool,
    /// Most blobs that a layer may have of its own, instead of `max-layers` in the manifests
    #[arg(long, value_name = "N", value_parser = max_layers)]
    max_layers: Option<usize>,
    /// How blobs are compressed, instead of `compression` in the stream
    #[arg(long, value_name = "gzip|zstd|zstd:chunked", value_parser = compression)]
    compression: Option<Compression>,
    /// Build the layers again from nothing but packages, and tell where they came out differently, and which script did
    /// that; exit status 3 if they did
    #[arg(long)]
    twice: bool,
    /// Keep the rootfs of a layer that fails, and say where it is
    #[arg(long)]
    keep_failed: bool,
}

/// What goes into images beside manifests and lockfiles, and where packages come from.
#[derive(clap::Args)]
pub struct Inputs {
    /// Open no socket: packages must be in the store (see `strata fetch`)
    #[arg(long)]
    offline: bool,
    /// Take packages from this folder first: one of `strata fetch --vendor`, or one that another tool (hermeto)
    /// prefetched, in which they are found by file name and digest
    #[arg(long, value_name = "DIR")]
    vendor: Option<PathBuf>,
    /// Use this image for a layer instead of building it; may be repeated
    #[arg(long, value_name = "LAYER=IMAGE", value_parser = base)]
    base: Vec<(String, Reference)>,
    /// Look for images in this repository before making them: one that `strata push --cache` pushed to; may be repeated
    #[arg(long, value_name = "docker://HOST/REPOSITORY", value_parser = cache, conflicts_with = "offline")]
    cache: Vec<Reference>,
    /// Version of the images [default: OS version, date of the newest repository revision, counter]
    #[arg(long, value_name = "X.Y.YYYYMMDD-N")]
    version: Option<Version>,
    /// Source revision of the manifests, recorded in a label
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

impl Inputs {
    /// Where packages come from.
    pub fn options(&self) -> Options {
        Options { offline: self.offline, vendor: self.vendor.clone(), ..Options::default() }
    }

    /// The images that stand for layers.
    pub fn bases(&self) -> BTreeMap<String, Reference> {
        self.base.iter().cloned().collect()
    }

    /// A request for `layers` with these inputs.
    pub fn request<'a>(
        &'a self,
        global: &'a Global,
        plan: &'a Plan,
        layers: &'a [String],
        bases: &'a BTreeMap<String, Reference>,
    ) -> Result<build::Request<'a>> {
        Ok(build::Request {
            plan,
            manifests: &global.manifests,
            lockfiles: &global.lockfiles,
            layers,
            bases,
            version: self.version,
            repeated: BTreeMap::new(),
            revision: self.revision.clone(),
            authfile: global.authfile.as_deref(),
            caches: &self.cache,
            locked: false,
            rechunk: false,
            keep_failed: false,
            debug: self.debug_command(global, &plan.stream.name),
            executable: std::env::current_exe().context("finding strata's own executable")?,
        })
    }

    /// The command that debugs a layer of such a request, up to the stream.
    fn debug_command(&self, global: &Global, stream: &str) -> String {
        let mut words = vec!["strata".to_owned()];
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), shell_word(&value)]);
        for (name, dir) in [("manifests", &global.manifests), ("lockfiles", &global.lockfiles)] {
            // their names are their defaults
            if dir != Path::new(name) {
                option(&format!("--{name}"), dir.display().to_string());
            }
        }
        if let Some(store) = &global.store {
            option("--store", store.display().to_string());
        }
        if let Some(authfile) = &global.authfile {
            option("--authfile", authfile.display().to_string());
        }
        for (name, value) in &global.set {
            option("--set", format!("{name}={value}"));
        }
        for (layer, image) in &self.base {
            option("--base", format!("{layer}={image}"));
        }
        for cache in &self.cache {
            option("--cache", cache.to_string());
        }
        if let Some(version) = &self.version {
            option("--version", version.to_string());
        }
        if let Some(revision) = &self.revision {
            option("--revision", revision.clone());
        }
        if let Some(vendor) = &self.vendor {
            option("--vendor", vendor.display().to_string());
        }
        words.extend(self.offline.then(|| "--offline".to_owned()));
        words.extend(["debug".to_owned(), shell_word(stream)]);
        words.join(" ")
    }
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

fn max_layers(text: &str) -> Result<usize> {
    let most = text.parse()?;
    ensure!(
        (chunk::LEAST..=chunk::MOST).contains(&most),
        "expected a number from {} to {}",
        chunk::LEAST,
        chunk::MOST
    );
    Ok(most)
}

fn compression(text: &str) -> Result<Compression> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "zstd:chunked" => Ok(Compression::ZstdChunked),
        _ => bail!("expected gzip, zstd or zstd:chunked"),
    }
}

fn base(text: &str) -> Result<(String, Reference)> {
    let (layer, image) = text.split_once('=').context("expected LAYER=IMAGE")?;
    Ok((layer.to_owned(), image.parse()?))
}

fn cache(text: &str) -> Result<Reference> {
    let reference: Reference = text.parse()?;
    match &reference {
        Reference { place: Place::Registry { tag: None, .. }, digest: None } => Ok(reference),
        _ => bail!("expected docker://HOST/REPOSITORY"),
    }
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    let plan = plan(global, args)?;
    let store = global.store()?;
    let fetcher = Fetcher::new(&store, args.inputs.options());
    let progress = global.progress();
    let bases = args.inputs.bases();
    let request = build::Request {
        locked: args.locked,
        keep_failed: args.keep_failed,
        rechunk: args.rechunk,
        ..args.inputs.request(global, &plan, &args.layers, &bases)?
    };
    let built = build::build(&store, &fetcher, &request, progress.as_ref())?;
    if let Some(output) = &args.output {
        copy_out(&store, args, &built, output)?;
    }
    if args.twice {
        return again(global, args, &store, &request, &built);
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

/// Builds everything once more, where nothing is known of it, and compares.
fn again(
    global: &Global,
    args: &Args,
    store: &Store,
    request: &build::Request,
    built: &[Built],
) -> Result<Answer> {
    let dir = store.temp_dir("twice-")?;
    let other = store.sharing_packages(dir.path())?;
    let versions = built.iter().map(|built| Ok((built.layer.clone(), built.version.parse()?)));
    // what is in the store by name is not in the other one
    let bases = request.bases.iter().map(|(layer, image)| match &image.place {
        Place::Store { name } => {
            let name = Some(name.clone()).filter(|_| image.digest.is_none());
            (layer.clone(), Reference { place: Place::Layout { dir: store.images(), name }, ..image.clone() })
        }
        _ => (layer.clone(), image.clone()),
    });
    let request = build::Request {
        repeated: versions.collect::<Result<_>>()?,
        bases: &bases.collect(),
        caches: &[],
        debug: request.debug.clone(),
        executable: request.executable.clone(),
        revision: request.revision.clone(),
        locked: true,
        rechunk: false,
        ..*request
    };
    let fetcher = Fetcher::new(&other, args.inputs.options());
    let again = build::build(&other, &fetcher, &request, global.progress().as_ref())?;
    let layouts = [Layout::create(&store.images())?, Layout::create(&other.images())?];
    let difference = build::difference(layouts.each_ref(), built, &again)?;
    match (global.json(), &difference) {
        (true, _) => print_json(&difference)?,
        (false, None) => print(&text(built))?,
        (false, Some(difference)) => print(&differing(difference))?,
    }
    Ok(if difference.is_none() { Answer::Done } else { Answer::No })
}

/// `node: /etc/stamp came out differently, made by [[script]] stamp`
fn differing(Difference { layer, path, script }: &Difference) -> String {
    let path = path.as_deref().unwrap_or("what the image says of itself");
    let script = script.as_ref().map(|script| format!(", made by {script}")).unwrap_or_default();
    format!("{layer}: {path} came out differently{script}\n")
}

/// The plan of the stream with what the arguments say otherwise.
fn plan(global: &Global, args: &Args) -> Result<Plan> {
    let mut plan = global.plan(&args.stream, global.arch(None)?)?;
    if args.max_layers.is_some() {
        plan.layers.iter_mut().for_each(|layer| layer.image.max_layers = args.max_layers);
    }
    plan.stream.compression = args.compression.unwrap_or(plan.stream.compression);
    Ok(plan)
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
    let spared = match scripts.iter().filter(|script| script.reused).count() {
        0 => String::new(),
        n => format!(" ({n} spared, for they did the same before)"),
    };
    let count = scripts.len();
    let mut lines =
        vec![format!("{layer}: {count} scripts{spared} took {seconds:.1} s, the longest {longest}")];
    for ScriptRun { number, name, duration, reused, output, changes, .. } in scripts {
        let said = last_lines(output);
        if all || !said.trim().is_empty() {
            let cost =
                if all { format!(": {duration:.2} s, {} files", changes.len()) } else { String::new() };
            let spared = if *reused { " (spared)" } else { "" };
            lines.push(format!("  {number:4} {name}{cost}{spared}"));
            lines.extend(said.lines().map(|line| format!("       | {line}")));
        }
    }
    lines
}
