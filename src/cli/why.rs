//! `strata why`

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::error::hinted;
use crate::fetch::{Fetcher, Options};
use crate::lock::{self, LockedPackage, Lockfile, Metadata, Present, Sources};
use crate::package::{Arch, Nevra};
use crate::plan::{Layer, Origin, Packages, Plan, Sourced};
use crate::resolve::{By, Pull, names, pulls};

/// Show the chain of requirements that brings a package into a layer
///
/// The chain is the one that the lock has noted. `--all` finds all entries of the manifests that bring the package in, each
/// by its shortest chain; what packages require is read from the metadata of repositories, as for `strata lock`.
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// The layer; the layers below count as part of it
    layer: String,
    /// Name of the package
    package: String,
    /// Architecture [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Every entry that brings it in
    #[arg(long)]
    all: bool,
}

/// A package of the chain.
#[derive(Serialize)]
struct Link<'l> {
    layer: &'l str,
    package: Nevra,
    why: &'l str,
    origin: Option<&'l Origin>,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let plan = global.plan(&args.stream, global.arch(args.arch)?)?;
    plan.known_layer(&args.layer)?;
    let (store, progress) = (global.store()?, global.progress());
    let sources = Sources {
        store: &store,
        fetcher: &Fetcher::new(&store, Options::default()),
        authfile: global.authfile.as_deref(),
        manifests: &global.manifests,
        progress: &*progress,
    };
    match args.all {
        true => all(global, args, &plan, &sources)?,
        false => noted(global, args, &plan, &sources)?,
    }
    Ok(Answer::Done)
}

/// Prints what the locks have noted.
fn noted(global: &Global, args: &Args, plan: &Plan, sources: &Sources) -> Result<()> {
    let stack = plan.stack(&args.layer).into_iter();
    let locks: Vec<Lockfile> =
        stack.map(|layer| lock::required(plan, layer, &global.lockfiles)).collect::<Result<_>>()?;
    let found = locks.iter().rev().find_map(|lock| Some((lock, named(lock, &args.package)?)));
    // an image that is pinned is asked only for what the locks do not have
    let below = match (found, plan.pinned(&args.layer)) {
        (None, Some(image)) => lock::of_image(plan, image, &sources.image(plan, image)?),
        _ => Vec::new(),
    };
    let links = match found {
        Some((lock, package)) => chain(plan, lock, package),
        None => below.iter().find_map(|lock| in_image(lock, &args.package)).into_iter().collect(),
    };
    if links.is_empty() {
        return Err(absent(args));
    }
    match global.json() {
        true => print_json(&links),
        false => print(&text(&links)),
    }
}

/// Prints every entry that brings the package in.
fn all(global: &Global, args: &Args, plan: &Plan, sources: &Sources) -> Result<()> {
    let Present { packages, comps } =
        lock::present(plan, &args.layer, &global.lockfiles, sources, sources.progress)?;
    if !packages.iter().any(|parent| parent.package.nevra.name == args.package) {
        return Err(absent(args));
    }
    let stack = plan.stack(&args.layer);
    let strict = stack.iter().filter(|layer| !layer.packages.weak_deps).map(|layer| layer.name.as_str());
    let strict: BTreeSet<&str> = strict.collect();
    let entries = stack.iter().flat_map(|layer| &layer.packages.install);
    let pulls = pulls(plan.stream.arch, &packages, &comps, &args.package, entries, &strict)
        .with_context(|| format!("looking for what brings {} in", args.package))?;
    match global.json() {
        true => print_json(&pulls),
        false if pulls.is_empty() => {
            print(&format!("no entry of the manifests brings {} in\n", args.package))
        }
        false => print(&pulls.iter().map(line).collect::<String>()),
    }
}

fn absent(args: &Args) -> anyhow::Error {
    hinted(
        format!("no package `{}` is locked in the {} layer or below", args.package, args.layer),
        format!("`strata compile {} {}` shows what is asked for", args.stream, args.layer),
    )
}

/// `manifests/demo/node.toml:14 installs `cri-o`: cri-o (node) requires conmon (node) requires bash (bootc)`
fn line(pull: &Pull) -> String {
    let mut text = format!("{} installs `{}`:", pull.entry.origin, pull.entry.value);
    for link in &pull.chain {
        text += match link.by {
            None => "",
            Some(By::Requires) => " requires",
            Some(By::Recommends) => " recommends",
        };
        text += &format!(" {} ({})", link.package.name, link.layer);
    }
    text + "\n"
}

fn in_image<'l>(lock: &'l Lockfile, name: &str) -> Option<Link<'l>> {
    let package = named(lock, name)?.nevra();
    Some(Link { layer: &lock.layer, package, why: "part of the pinned image", origin: None })
}

fn named<'l>(lock: &'l Lockfile, name: &str) -> Option<&'l LockedPackage> {
    lock.packages.iter().find(|package| package.name == name)
}

/// The package and those that want it, in the words of the lock: `required by NAME`, `recommended by NAME`.
fn chain<'l>(plan: &'l Plan, lock: &'l Lockfile, package: &'l LockedPackage) -> Vec<Link<'l>> {
    let mut links: Vec<Link> = Vec::new();
    let mut next = Some(package);
    while let Some(package) = next {
        let (nevra, why) = (package.nevra(), package.why.as_str());
        let origin = plan.layer(&lock.layer).and_then(|layer| origin(layer, &nevra, why));
        links.push(Link { layer: &lock.layer, package: nevra, why, origin });
        next = why.split_once(" by ").and_then(|(_, name)| named(lock, name)).filter(|_| origin.is_none());
        // only a lock edited by hand goes round in circles
        next = next.filter(|next| links.iter().all(|link| link.package != next.nevra()));
    }
    links
}

/// The line that asked for a package, if it did so by name or glob: entries may also name what packages provide.
fn origin<'l>(layer: &'l Layer, package: &Nevra, why: &str) -> Option<&'l Origin> {
    let Packages { install, remove, overrides, .. } = &layer.packages;
    let entry = |entries: &'l [Sourced<String>]| {
        let exact = entries.iter().find(|entry| entry.value == package.name);
        exact.or_else(|| entries.iter().find(|entry| names(&entry.value, package))).map(|entry| &entry.origin)
    };
    match why {
        "requested" => entry(install),
        "removed by the manifest" => entry(remove),
        _ if why.starts_with("override: ") => {
            overrides.iter().find(|entry| entry.value.package == package.name).map(|entry| &entry.origin)
        }
        _ => None,
    }
}

fn text(links: &[Link]) -> String {
    let mut text = String::new();
    for (depth, Link { layer, package, why, origin }) in links.iter().enumerate() {
        let indent = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
        let origin = origin.map(|origin| format!(" at {origin}")).unwrap_or_default();
        text += &format!("{indent}{package} ({layer}): {why}{origin}\n");
    }
    text
}
