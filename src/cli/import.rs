//! `strata import`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::exchange::{self, Document, Foreign, Target, konflux, libpkgmanifest, rpm_ostree};
use crate::lock::{self, Lockfile};
use crate::manifest;
use crate::package::Arch;

/// Make lockfiles, and manifests of a new stream, of what other tools have locked
///
/// An imported lock does not say which request it answers: run `strata lock` next, which keeps the versions it names.
/// docs/exchange.md tells what strata cannot hold.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    format: Form,
}

#[derive(Subcommand)]
enum Form {
    /// Konflux's rpms.lock.yaml, with or without the rpms.in.yaml that it answers
    KonfluxLock {
        /// The lock
        file: PathBuf,
        /// The input that the lock answers
        #[arg(long, value_name = "FILE")]
        input: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// rpm-ostree's manifest-lock.ARCH.json, with or without the overrides of fedora-coreos-config
    RpmOstreeLock {
        /// The lock
        file: PathBuf,
        /// Overrides, in YAML or JSON; may be repeated, and the later wins
        #[arg(long, value_name = "FILE")]
        overrides: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// libpkgmanifest's packages.manifest.yaml, with or without the input that it answers
    Libpkgmanifest {
        /// The manifest
        file: PathBuf,
        /// The input that the manifest answers
        #[arg(long, value_name = "FILE")]
        input: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
}

/// Where it goes.
#[derive(clap::Args)]
struct Place {
    /// The stream; its manifests are made if there are none
    #[arg(long, default_value = "imported", value_parser = name)]
    stream: String,
    /// The layer
    #[arg(long, default_value = "base", value_parser = name)]
    layer: String,
    /// Only these architectures [default: all that the file has]
    #[arg(long)]
    arch: Vec<Arch>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Report {
    stream: String,
    layer: String,
    locks: Vec<Lock>,
    files: Vec<PathBuf>,
    lost: Vec<String>,
}

#[derive(Serialize)]
struct Lock {
    arch: Arch,
    packages: usize,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let (Form::KonfluxLock { place, .. }
    | Form::RpmOstreeLock { place, .. }
    | Form::Libpkgmanifest { place, .. }) = &args.format;
    let target = target(global, place)?;
    let mut foreign = foreign(&args.format, &target)?;
    foreign.locks.retain(|arch, _| place.arch.is_empty() || place.arch.contains(arch));
    let locks = locks(global, &foreign, &target)?;
    let files = documents(global, &foreign, &target, &locks)?;
    exchange::write(&files, place.force)?;
    let progress = global.progress();
    foreign.lost.iter().for_each(|lost| progress.warn(&format!("not kept: {lost}")));
    if !target.plans.is_empty() && !foreign.overrides.is_empty() {
        progress.warn("the stream was there: `include` the overrides in the layer's manifest");
    }
    let report = Report {
        stream: target.stream,
        layer: target.layer,
        locks: locks.iter().map(|lock| Lock { arch: lock.arch, packages: lock.packages.len() }).collect(),
        files: files.into_iter().map(|file| file.path).collect(),
        lost: foreign.lost,
    };
    match global.json() {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(Answer::Done)
}

fn foreign(form: &Form, target: &Target) -> Result<Foreign> {
    match form {
        Form::KonfluxLock { file, input, place: _ } => {
            let (lock, input_text) = (exchange::read(file)?, optional(input)?);
            konflux::import((&lock, file), pair(&input_text, input), target)
        }
        Form::RpmOstreeLock { file, overrides, place } => {
            let lock = exchange::read(file)?;
            let texts: Vec<(String, &Path)> = overrides
                .iter()
                .map(|path| Ok((exchange::read(path)?, path.as_path())))
                .collect::<Result<_>>()?;
            let arch = match place.arch.as_slice() {
                [arch] => Some(*arch),
                _ => None,
            };
            rpm_ostree::import((&lock, file), &texts, arch)
        }
        Form::Libpkgmanifest { file, input, place: _ } => {
            let (lock, input_text) = (exchange::read(file)?, optional(input)?);
            libpkgmanifest::import((&lock, file), pair(&input_text, input))
        }
    }
}

fn optional(path: &Option<PathBuf>) -> Result<Option<String>> {
    path.as_deref().map(exchange::read).transpose()
}

fn pair<'p>(text: &'p Option<String>, path: &'p Option<PathBuf>) -> Option<(&'p str, &'p Path)> {
    text.as_deref().zip(path.as_deref())
}

/// The stream and layer, with the plans of a stream that is there.
fn target(global: &Global, place: &Place) -> Result<Target> {
    let mut plans = BTreeMap::new();
    if global.manifests.join(&place.stream).join("stream.toml").exists() {
        for arch in manifest::arches(&global.manifests, &place.stream)? {
            let plan = global.plan(&place.stream, arch)?;
            plan.known_layer(&place.layer)?;
            plans.insert(arch, plan);
        }
    }
    Ok(Target { stream: place.stream.clone(), layer: place.layer.clone(), plans })
}

/// The locks, with the ids of accounts that those in their places keep.
fn locks(global: &Global, foreign: &Foreign, target: &Target) -> Result<Vec<Lockfile>> {
    let mut locks = foreign.locks(target)?;
    for lock in &mut locks {
        if let Some(there) = lock::read(&global.lockfiles, &lock.stream, &lock.layer, lock.arch)? {
            lock.set_ledger(&there.ledger());
        }
    }
    Ok(locks)
}

fn documents(
    global: &Global,
    foreign: &Foreign,
    target: &Target,
    locks: &[Lockfile],
) -> Result<Vec<Document>> {
    let mut documents = foreign.manifests(target).context("importing the manifests")?;
    documents.iter_mut().for_each(|document| document.path = global.manifests.join(&document.path));
    documents.extend(locks.iter().map(|lock| Document {
        path: lock::path(&global.lockfiles, &lock.stream, &lock.layer, lock.arch),
        text: lock.to_toml(),
    }));
    Ok(documents)
}

fn text(report: &Report) -> String {
    let Report { stream, layer, locks, files, lost: _ } = report;
    let mut text: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    for Lock { arch, packages } in locks {
        text += &format!("{layer}.{arch}: {packages} packages\n");
    }
    text + &format!("now run `strata lock {stream}`\n")
}

fn name(text: &str) -> Result<String> {
    manifest::is_name(text)
        .then(|| text.to_owned())
        .context("names are made of letters, digits, `.`, `_` and `-`")
}
