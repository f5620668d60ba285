//! `strata export`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::build::{self, labels};
use crate::diff;
use crate::digest::Digest;
use crate::exchange::{self, Document, Export, Selection, konflux, libpkgmanifest, repodata, rpm_ostree};
use crate::fetch::{Fetcher, Options, wanted};
use crate::image::opened::Opened;
use crate::image::reference::Reference;
use crate::lock;
use crate::manifest;
use crate::package::{Arch, Nevra};
use crate::pkglist::PackageSet;
use crate::sbom::Bom;

/// Write locked layers, or an image's packages, as other tools take them
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
    /// A bill of materials of an image, on standard output
    ///
    /// Of its rpmdb; the digests of the packages' files are in it where a lockfile of the image's stream has them.
    Sbom(Sbom),
    /// What an image was made of: an in-toto statement with SLSA's provenance, on standard output
    ///
    /// It names the lockfiles, every package file, the image below and the source revision, each by digest. An image that
    /// was not built from the manifests and lockfiles at hand is refused.
    Provenance(Provenance),
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

#[derive(clap::Args)]
struct Sbom {
    /// `STREAM/LAYER[:VERSION]` in the store, `oci:DIR[:NAME]`, `docker://...`
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// The form it is written in
    #[arg(long, value_name = "FORM", default_value = "spdx")]
    sbom: BillForm,
}

#[derive(clap::Args)]
struct Provenance {
    /// `STREAM/LAYER[:VERSION]` in the store, `oci:DIR[:NAME]`, `docker://...`
    #[arg(value_name = "IMAGE")]
    image: Reference,
}

#[derive(Clone, Copy, ValueEnum)]
enum BillForm {
    /// SPDX 2.3, JSON
    Spdx,
    /// CycloneDX 1.6, JSON
    Cyclonedx,
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
        Form::Sbom(args) => return sbom(global, args),
        Form::Provenance(Provenance { image }) => {
            print(&provenance(global, &global.open(image)?, image.short_name())?)?;
            return Ok(Answer::Done);
        }
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

fn sbom(global: &Global, args: &Sbom) -> Result<Answer> {
    let bom = bill(global, &global.open(&args.image)?, args.image.short_name())?;
    print(&match args.sbom {
        BillForm::Spdx => bom.to_spdx(),
        BillForm::Cyclonedx => bom.to_cyclonedx(),
    })?;
    Ok(Answer::Done)
}

/// The bill of materials of an image, called `name` if it has no title.
pub fn bill(global: &Global, image: &Opened, name: &str) -> Result<Bom> {
    let origins = diff::image::packages(image)?;
    let files = package_files(global, image, &origins)?;
    let installed = diff::image::installed(image)?.unwrap_or_default();
    Bom::new(image, name, &installed, &origins, &files)
}

/// What an image was made of, as JSON.
pub fn provenance(global: &Global, image: &Opened, name: &str) -> Result<String> {
    let trace = || {
        let (stream, arch) = stream_of(image).context("its labels name no stream of strata's")?;
        let plan = global.plan(stream, arch)?;
        let packages = diff::image::packages(image)?;
        build::trace(&image.image, &packages, name, plan, &global.manifests, &global.lockfiles)?.to_json()
    };
    trace().with_context(|| format!("tracing the image {} to what it was built from", image.image.digest))
}

/// The stream and architecture that an image says it is of.
fn stream_of(image: &Opened) -> Option<(&str, Arch)> {
    let stream = image.image.labels().get(labels::STREAM).copied().filter(|name| is_name(name))?;
    let arch = image.image.config.architecture().to_string();
    Some((stream, Arch::ALL.into_iter().find(|known| known.oci() == arch)?))
}

/// An image says what it likes.
fn is_name(name: &str) -> bool {
    !name.contains('/') && !name.starts_with('.')
}

/// The digests of package files, of the lockfiles at hand for the layers that brought the packages.
fn package_files(global: &Global, image: &Opened, packages: &PackageSet) -> Result<BTreeMap<Nevra, Digest>> {
    let mut files = BTreeMap::new();
    let Some((stream, arch)) = stream_of(image) else { return Ok(files) };
    let layers = packages.iter().filter_map(|(_, origin)| origin.layer.as_deref());
    for layer in layers.filter(|layer| is_name(layer)).collect::<BTreeSet<&str>>() {
        let lock = lock::read(&global.lockfiles, stream, layer, arch)?;
        let locked = lock.into_iter().flat_map(|lock| lock.packages);
        files.extend(locked.filter_map(|package| Some((package.nevra(), package.sha256?))));
    }
    Ok(files)
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
