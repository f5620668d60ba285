//! `strata why`

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::error::hinted;
use crate::lock::{self, LockedPackage, Lockfile};
use crate::package::{Arch, Nevra};
use crate::plan::Plan;

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
    let links = chain(lock, package);
    match global.json() {
        true => print_json(&links)?,
        false => print(&text(&plan, &links))?,
    }
    Ok(Answer::Done)
}

fn named<'l>(lock: &'l Lockfile, name: &str) -> Option<&'l LockedPackage> {
    lock.packages.iter().find(|package| package.name == name)
}

/// The package and those that want it, in the words of the lock: `required by NAME`, `recommended by NAME`.
fn chain<'l>(lock: &'l Lockfile, package: &'l LockedPackage) -> Vec<Link<'l>> {
    let mut links: Vec<Link> = Vec::new();
    let mut next = Some(package);
    while let Some(package) = next {
        links.push(Link { layer: &lock.layer, package: package.nevra(), why: &package.why });
        next = package.why.split_once(" by ").and_then(|(_, name)| named(lock, name));
        // only a lock edited by hand goes round in circles
        next = next.filter(|next| links.iter().all(|link| link.package != next.nevra()));
    }
    links
}

fn text(plan: &Plan, links: &[Link]) -> String {
    let mut text = String::new();
    for (depth, Link { layer, package, why }) in links.iter().enumerate() {
        let indent = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
        text += &format!("{indent}{package} ({layer}): {why}{}\n", origin(plan, layer, package, why));
    }
    text
}

/// The line that requested a package, if it did so by name.
fn origin(plan: &Plan, layer: &str, package: &Nevra, why: &str) -> String {
    let entries = plan.layer(layer).map(|layer| layer.packages.install.as_slice()).unwrap_or_default();
    let entry = entries.iter().find(|entry| why == "requested" && entry.value == package.name);
    entry.map(|entry| format!(" at {}", entry.origin)).unwrap_or_default()
}
