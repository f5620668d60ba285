//! `strata lock`

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::error::hinted;
use crate::fetch::{Fetcher, Options};
use crate::lock::{self, Advised, Difference, LayerLock, Sources, Stale, Update, difference};
use crate::manifest;
use crate::package::Arch;
use crate::plan::Plan;

/// Solve the packages of a stream's layers and write their lockfiles
///
/// A lock is kept as long as the manifest and the layers below ask for nothing else. An update rewrites it only
/// if a package changes, not because a repository was published again. The ids of users and groups that builds
/// wrote into it are kept, whatever else changes.
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers [default: all]
    layers: Vec<String>,
    /// Architectures to lock [default: all of the stream's]
    #[arg(long)]
    arch: Vec<Arch>,
    /// Take the newest of every package
    #[arg(long, conflicts_with = "update_package")]
    update: bool,
    /// Take the newest of these packages, keep the others
    #[arg(long, value_name = "NAME", num_args = 1..)]
    update_package: Vec<String>,
    /// Move these packages, which have left their repositories, to the nearest version on offer, keep the others
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with_all = ["update", "update_package"])]
    repair: Vec<String>,
    /// Take the fixed versions that security advisories (updateinfo) name, and what these need; keep the others
    #[arg(long, conflicts_with_all = ["update", "update_package", "repair"])]
    security_only: bool,
    /// Take the versions that this advisory names; may be repeated
    #[arg(long, value_name = "ID", conflicts_with_all = ["update", "update_package", "repair"])]
    advisory: Vec<String>,
    /// Take the versions that advisories about this CVE name; may be repeated
    #[arg(long, value_name = "ID", conflicts_with_all = ["update", "update_package", "repair"])]
    cve: Vec<String>,
    /// Take the versions that advisories of this severity name; may be repeated
    #[arg(long, value_name = "SEVERITY", conflicts_with_all = ["update", "update_package", "repair"])]
    severity: Vec<String>,
    /// Write nothing; exit with status 3 if a lockfile is missing or out of date, and say why
    #[arg(long)]
    check: bool,
}

impl Args {
    fn wanted(&self) -> Update {
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        let advised = Advised {
            security: self.security_only,
            ids: set(&self.advisory),
            cves: set(&self.cve),
            severities: set(&self.severity),
        };
        match self {
            Self { update: true, .. } => Update::Everything,
            _ if !self.update_package.is_empty() => Update::Packages(set(&self.update_package)),
            _ if !self.repair.is_empty() => Update::Repair(set(&self.repair)),
            _ if advised != Advised::default() => Update::Advised(advised),
            _ => Update::Nothing,
        }
    }
}

/// What `--format json` prints for a layer.
#[derive(Serialize)]
struct Report<'r> {
    stream: &'r str,
    layer: &'r str,
    arch: Arch,
    packages: usize,
    kept: bool,
    reason: &'r Option<Stale>,
    #[serde(flatten)]
    difference: Difference,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let update = args.wanted();
    let progress = global.progress();
    let arches = match args.arch.is_empty() {
        true => manifest::arches(&global.manifests, &args.stream)?,
        false => args.arch.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    if args.check && lock::is_interrupted(&global.lockfiles, &args.stream) {
        let (lockfiles, stream) = (global.lockfiles.display(), &args.stream);
        let told = format!(
            "writing {lockfiles}/{stream} was interrupted: run `strata lock {stream}`, which completes it"
        );
        progress.warn(&told);
        return Ok(Answer::No);
    }
    lock::finish(&global.lockfiles, &args.stream)?;
    let store = global.store()?;
    let fetcher = Fetcher::new(&store, Options::default());
    let sources =
        Sources { store: &store, fetcher: &fetcher, manifests: &global.manifests, progress: &*progress };
    let plans: Vec<Plan> =
        arches.into_iter().map(|arch| global.plan(&args.stream, arch)).collect::<Result<_>>()?;
    let together = |plan: &Plan| plan.stream.same_evr.is_some() && !args.arch.is_empty();
    if plans.iter().any(together) {
        return Err(hinted(
            format!("{} asks for the same builds on all architectures (`same-evr`)", args.stream),
            "leave out --arch: they are locked together",
        ));
    }
    let layers = match plans.first() {
        Some(plan) => plan.select(&args.layers)?.iter().map(|layer| layer.name.as_str()).collect(),
        None => Vec::new(),
    };
    let locks = lock::lock(&plans, &layers, &global.lockfiles, &update, &sources, &*progress)?;
    let changed = || locks.iter().filter(|result| result.previous.as_ref() != Some(&result.lock));
    if !args.check {
        lock::write(&global.lockfiles, &args.stream, changed().map(|result| &result.lock))?;
    }
    let reports: Vec<Report> = locks.iter().map(report).collect();
    match global.json() {
        true => print_json(&reports)?,
        false => print(&reports.iter().map(|report| text(report, args.check)).collect::<String>())?,
    }
    Ok(if args.check && changed().next().is_some() { Answer::No } else { Answer::Done })
}

fn report(result: &LayerLock) -> Report<'_> {
    Report {
        stream: &result.lock.stream,
        layer: &result.lock.layer,
        arch: result.lock.arch,
        packages: result.lock.packages.len(),
        kept: result.previous.as_ref() == Some(&result.lock),
        reason: &result.solved,
        difference: difference(result.previous.as_ref(), &result.lock),
    }
}

/// `node.x86_64: 13 packages (+1 ~2 -0), the manifest asks for something else`, and what changes. A first lock
/// has nothing to differ from.
fn text(report: &Report, check: bool) -> String {
    let Report { layer, arch, packages, difference: Difference { added, changed, removed }, .. } = report;
    let mut text = format!("{layer}.{arch}: {packages} packages");
    match report.reason {
        None => text += ", kept\n",
        Some(Stale::Together) if report.kept => text += ", kept\n",
        Some(Stale::Update) if report.kept => text += ", kept: an update changes nothing\n",
        Some(reason) => {
            text += &format!(" (+{} ~{} -{}), {reason}\n", added.len(), changed.len(), removed.len());
        }
    }
    if check || *report.reason != Some(Stale::Missing) {
        text.extend(added.iter().map(|nevra| format!("  + {nevra}\n")));
        text.extend(changed.iter().map(|c| format!("  ~ {}.{} {} -> {}\n", c.name, c.arch, c.from, c.to)));
        text.extend(removed.iter().map(|nevra| format!("  - {nevra}\n")));
    }
    text
}
