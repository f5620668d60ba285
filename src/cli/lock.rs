//! `strata lock`

mod outcome;
mod report;
mod told;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;

use self::outcome::Outcome;
use self::report::{Document, Report};
use self::told::Told;
use super::{Answer, Global, print, print_json};
use crate::error::hinted;
use crate::fetch::{Fetcher, Options};
use crate::lock::{self, Advised, Listed, Sources, Update};
use crate::manifest;
use crate::package::Arch;
use crate::plan::Plan;
use crate::progress::Progress;

/// Solve the packages of a stream's layers and write their lockfiles
///
/// A lock is kept as long as the manifest and the layers below ask for nothing else. An update rewrites it only
/// if a package changes, not because a repository was published again. The ids of users and groups that builds
/// wrote into it are kept, whatever else changes.
///
/// Overrides whose last day (`until`) is over, and those that the layers below or the repositories have caught up
/// with, are warned of. `--update` takes the latter out of the manifests; `--check` fails for the former.
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
    /// Write nothing; exit with status 3 if a lockfile is missing or out of date, or if a package of it can be had
    /// nowhere any more, and say why
    #[arg(long)]
    check: bool,
    /// With --check: a folder with fetched packages, besides the store
    #[arg(long, value_name = "DIR", requires = "check")]
    vendor: Option<PathBuf>,
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

/// What was decided of all layers.
struct Decided {
    reports: Vec<Report>,
    /// Whether all lockfiles are as they should be.
    holds: bool,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let told = Told::to(global.progress());
    let decided = decide(global, args, &told);
    if global.json() {
        let unsolvable =
            decided.as_ref().err().and_then(|e| e.chain().find_map(|cause| cause.downcast_ref()));
        let locks = decided.as_ref().map_or(&[][..], |decided| &decided.reports);
        if decided.is_ok() || unsolvable.is_some() {
            print_json(&Document { locks, warnings: told.warnings(), unsolvable })?;
        }
    }
    let Decided { reports, holds } = decided?;
    if !global.json() {
        print(&reports.iter().map(|report| report.text(args.check)).collect::<String>())?;
    }
    Ok(if args.check && !holds { Answer::No } else { Answer::Done })
}

fn decide(global: &Global, args: &Args, told: &Told) -> Result<Decided> {
    let (lockfiles, stream) = (&global.lockfiles, &args.stream);
    if args.check && lock::is_interrupted(lockfiles, stream) {
        let dir = lockfiles.join(stream);
        let dir = dir.display();
        told.warn(&format!("writing {dir} was interrupted: run `strata lock {stream}`, which completes it"));
        return Ok(Decided { reports: Vec::new(), holds: false });
    }
    lock::finish(lockfiles, stream)?;
    let store = global.store()?;
    let fetcher = Fetcher::new(&store, Options { vendor: args.vendor.clone(), ..Options::default() });
    let sources = Sources {
        store: &store,
        fetcher: &fetcher,
        authfile: global.authfile.as_deref(),
        manifests: &global.manifests,
        progress: told,
    };
    let (update, mut plans) = (args.wanted(), plans(global, args)?);
    let solve = |plans: &[Plan]| {
        let layers = match plans.first() {
            Some(plan) => plan.select(&args.layers)?.iter().map(|layer| layer.name.as_str()).collect(),
            None => Vec::new(),
        };
        lock::lock(plans, &layers, lockfiles, &update, &sources, told)
    };
    // on one architecture nothing is known of the others
    let drops = update == Update::Everything && args.arch.is_empty();
    let outcome = Outcome::of(solve, &mut plans, drops)?;
    outcome.tell(args.check, told);
    if !args.check {
        outcome.write(lockfiles, stream)?;
    }
    let mut reports: Vec<Report> = outcome.locks.iter().map(Report::of).collect();
    if args.check {
        find_gone(&mut reports, &outcome, &plans, &sources, told);
    }
    let is_lost = reports.iter().any(Report::has_lost);
    Ok(Decided { reports, holds: outcome.holds() && !is_lost })
}

/// The plans of the architectures asked for.
fn plans(global: &Global, args: &Args) -> Result<Vec<Plan>> {
    let arches = match args.arch.is_empty() {
        true => manifest::arches(&global.manifests, &args.stream)?,
        false => args.arch.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let plans: Vec<Plan> =
        arches.into_iter().map(|arch| global.plan(&args.stream, arch)).collect::<Result<_>>()?;
    if !args.arch.is_empty() && plans.iter().any(|plan| plan.stream.same_evr.is_some()) {
        return Err(hinted(
            format!("{} asks for the same builds on all architectures (`same-evr`)", args.stream),
            "leave out --arch: they are locked together",
        ));
    }
    Ok(plans)
}

/// Looks for what has left the repositories.
fn find_gone(
    reports: &mut [Report],
    outcome: &Outcome,
    plans: &[Plan],
    sources: &Sources,
    progress: &dyn Progress,
) {
    for plan in plans {
        let mut listed = Listed::new(plan, sources, progress);
        let locks = reports.iter_mut().zip(&outcome.locks);
        for (report, result) in locks.filter(|(_, result)| result.lock.arch == plan.stream.arch) {
            report.gone = result.previous.as_ref().map(|lock| listed.gone(lock)).unwrap_or_default();
        }
    }
}
