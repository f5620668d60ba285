//! `strata export`

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::exchange::{self, Document, Export, Selection, konflux, libpkgmanifest, repodata, rpm_ostree};
use crate::fetch::{Fetcher, Options, wanted};
use crate::lock;
use crate::manifest;
use crate::package::Arch;

/// Write locked layers as other tools take them: their locks, or a repository
///
/// docs/exchange.md tells what each format cannot hold.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    format: Form,
}

#[derive(Subcommand)]
enum Form {
    /// Konflux's rpms.in.yaml and rpms.lock.yaml
    KonfluxLock(Files),
    /// rpm-ostree's manifest-lock.ARCH.json and manifest-lock.overrides.yaml
    RpmOstreeLock(Files),
    /// libpkgmanifest's packages.input.yaml and packages.manifest.yaml
    Libpkgmanifest(Files),
    /// The packages, with the repodata of a repository that dnf can use
    Repo(Repo),
}

#[derive(clap::Args)]
struct Files {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers [default: all]
    layers: Vec<String>,
    /// Only these architectures [default: all of the stream's]
    #[arg(long)]
    arch: Vec<Arch>,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
struct Repo {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers [default: all]; and the folder, which is also one for `strata build --vendor DIR`: packages
    /// that are in it are not fetched
    #[arg(required = true, value_name = "[LAYER]... DIR")]
    layers_and_dir: Vec<String>,
    /// Architectures [default: this machine's]
    #[arg(long)]
    arch: Vec<Arch>,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Report {
    files: Vec<PathBuf>,
    packages: usize,
    lost: Vec<String>,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let report = match &args.format {
        Form::KonfluxLock(files) => write(global, files, konflux::export)?,
        Form::RpmOstreeLock(files) => write(global, files, rpm_ostree::export)?,
        Form::Libpkgmanifest(files) => write(global, files, libpkgmanifest::export)?,
        Form::Repo(args) => repo(global, args)?,
    };
    let progress = global.progress();
    report.lost.iter().for_each(|lost| progress.warn(lost));
    match global.json() {
        true => print_json(&report)?,
        false => print(&report.files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())?,
    }
    Ok(Answer::Done)
}

fn write(global: &Global, args: &Files, export: fn(&[Selection]) -> Result<Export>) -> Result<Report> {
    let arches = match args.arch.is_empty() {
        true => manifest::arches(&global.manifests, &args.stream)?.into_iter().collect(),
        false => args.arch.iter().copied().collect(),
    };
    let selections = select(global, &args.stream, &args.layers, arches)?;
    let Export { documents, lost } = export(&selections)?;
    let place = |document: Document| Document { path: args.output.join(document.path), ..document };
    let documents: Vec<Document> = documents.into_iter().map(place).collect();
    exchange::write(&documents, args.force)?;
    Ok(Report {
        files: documents.into_iter().map(|document| document.path).collect(),
        packages: selections.iter().flat_map(|s| &s.locks).map(|lock| lock.packages.len()).sum(),
        lost,
    })
}

fn repo(global: &Global, args: &Repo) -> Result<Report> {
    let arches = match args.arch.is_empty() {
        true => BTreeSet::from([global.arch(None)?]),
        false => args.arch.iter().copied().collect(),
    };
    let (dir, layers) = args.layers_and_dir.split_last().context("no folder is named")?;
    let dir = PathBuf::from(dir);
    let selections = select(global, &args.stream, layers, arches)?;
    let mut packages = Vec::new();
    for Selection { plan, locks } in &selections {
        for lock in locks {
            packages.extend(wanted(plan, &global.manifests, lock)?);
        }
    }
    let options = Options { vendor: Some(dir.clone()), ..Options::default() };
    let fetcher = Fetcher::new(&global.store()?, options);
    fetcher.packages(&packages, &*global.progress())?;
    fetcher.vendor(&packages, &dir)?;
    repodata::write(&dir, packages.iter().map(|wanted| wanted.package))?;
    Ok(Report { files: vec![dir.join(repodata::REPOMD)], packages: packages.len(), lost: Vec::new() })
}

/// The layers on each architecture, as they are locked.
fn select(
    global: &Global,
    stream: &str,
    layers: &[String],
    arches: BTreeSet<Arch>,
) -> Result<Vec<Selection>> {
    let selection = |arch| {
        let plan = global.plan(stream, arch)?;
        let layers = plan.select(layers)?;
        let locks = layers
            .iter()
            .map(|layer| lock::required(&plan, layer, &global.lockfiles))
            .collect::<Result<_>>()?;
        Ok(Selection { plan, locks })
    };
    arches.into_iter().map(selection).collect()
}
