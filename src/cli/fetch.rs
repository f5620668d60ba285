//! `strata fetch`

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::fetch::{Fetcher, Options, wanted};
use crate::image::reference::Reference;
use crate::lock::{self, Lockfile};
use crate::package::Arch;
use crate::store::Store;

/// Bring the locked packages of layers and of those below them, and the images these stand on, into the store,
/// verified
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers and those below [default: all]
    layers: Vec<String>,
    /// Architectures to fetch [default: this machine's]
    #[arg(long)]
    arch: Vec<Arch>,
    /// Also copy the packages to DIR/REPO/LOCATION, for `strata build --vendor DIR`; what is in DIR already, also where
    /// another tool put it, is not fetched
    #[arg(long, value_name = "DIR")]
    vendor: Option<PathBuf>,
}

/// What `--format json` prints for a layer.
#[derive(Serialize)]
struct Report {
    stream: String,
    layer: String,
    arch: Arch,
    packages: usize,
    /// In bytes.
    size: u64,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let arches: BTreeSet<Arch> = match args.arch.is_empty() {
        true => BTreeSet::from([global.arch(None)?]),
        false => args.arch.iter().copied().collect(),
    };
    let store = global.store()?;
    let options = Options { vendor: args.vendor.clone(), ..Options::default() };
    let fetcher = Fetcher::new(&store, options);
    let mut reports = Vec::new();
    for arch in arches {
        reports.extend(fetch(global, args, arch, &store, &fetcher)?);
    }
    match global.json() {
        true => print_json(&reports)?,
        false => print(&reports.iter().map(text).collect::<String>())?,
    }
    Ok(Answer::Done)
}

fn fetch(global: &Global, args: &Args, arch: Arch, store: &Store, fetcher: &Fetcher) -> Result<Vec<Report>> {
    let plan = global.plan(&args.stream, arch)?;
    let asked = plan.select(&args.layers)?;
    let below = asked.iter().flat_map(|layer| plan.stack(&layer.name));
    let needed: BTreeSet<&str> = below.map(|layer| layer.name.as_str()).collect();
    let layers = plan.layers.iter().filter(|layer| needed.contains(layer.name.as_str()));
    let locks: Vec<Lockfile> =
        layers.map(|layer| lock::required(&plan, layer, &global.lockfiles)).collect::<Result<_>>()?;
    let (mut all, mut reports) = (Vec::new(), Vec::new());
    for lockfile in &locks {
        let packages = wanted(&plan, &global.manifests, lockfile)?;
        reports.push(Report {
            stream: lockfile.stream.clone(),
            layer: lockfile.layer.clone(),
            arch,
            packages: packages.len(),
            size: packages.iter().fold(0, |sum: u64, wanted| sum.saturating_add(wanted.package.size)),
        });
        all.extend(packages);
    }
    fetcher.packages(&all, &*global.progress())?;
    let pinned: BTreeSet<String> =
        needed.iter().filter_map(|layer| plan.pinned(layer)).map(ToString::to_string).collect();
    for image in pinned {
        let opened = image.parse::<Reference>()?.open_for(global.access(store, arch))?;
        opened.local().with_context(|| format!("bringing {image} into the store"))?;
    }
    if let Some(dir) = &args.vendor {
        fetcher.vendor(&all, dir)?;
    }
    Ok(reports)
}

/// `node.x86_64: 13 packages, 5.31 MiB`
fn text(report: &Report) -> String {
    let Report { layer, arch, packages, size, .. } = report;
    format!("{layer}.{arch}: {packages} packages, {}\n", indicatif::HumanBytes(*size))
}
