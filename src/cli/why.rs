//! `strata why`

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::error::hinted;
use crate::lock::{self, LockedPackage, Lockfile};
use crate::package::{Arch, Nevra};
use crate::plan::{Layer, Origin, Packages, Plan, Sourced};
use crate::resolve::names;

/// Show the chain of requirements that brings a package into a layer
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
    let stack = plan.stack(&plan.known_layer(&args.layer)?.name).into_iter();
    let locks: Vec<Lockfile> =
        stack.map(|layer| lock::required(&plan, layer, &global.lockfiles)).collect::<Result<_>>()?;
    let Some((lock, package)) = locks.iter().rev().find_map(|lock| Some((lock, named(lock, &args.package)?)))
    else {
        return Err(hinted(
            format!("no package `{}` is locked in the {} layer or below", args.package, args.layer),
            format!("`strata compile {} {}` shows what is asked for", args.stream, args.layer),
        ));
    };
    let links = chain(&plan, lock, package);
    match global.json() {
        true => print_json(&links)?,
        false => print(&text(&links))?,
    }
    Ok(Answer::Done)
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
