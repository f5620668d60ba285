//! `strata lock`

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Answer, Global, print, print_json};
use crate::error::hinted;
use crate::fetch::{Fetcher, Options};
use crate::lock::{
    self, Advised, Difference, Gone, LayerLock, Listed, Notice, Sources, Stale, State, Update, difference,
    droppable, expired,
};
use crate::manifest;
use crate::package::Arch;
use crate::plan::{Origin, Plan};
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
    gone: Vec<Gone>,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let update = args.wanted();
    let progress = global.progress();
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
    let fetcher = Fetcher::new(&store, Options { vendor: args.vendor.clone(), ..Options::default() });
    let sources = Sources {
        store: &store,
        fetcher: &fetcher,
        authfile: global.authfile.as_deref(),
        manifests: &global.manifests,
        progress: &*progress,
    };
    let mut plans = plans(global, args)?;
    let solve = |plans: &[Plan]| {
        let layers = match plans.first() {
            Some(plan) => plan.select(&args.layers)?.iter().map(|layer| layer.name.as_str()).collect(),
            None => Vec::new(),
        };
        lock::lock(plans, &layers, &global.lockfiles, &update, &sources, &*progress)
    };
    // on one architecture nothing is known of the others
    let drops = update == Update::Everything && args.arch.is_empty();
    let Outcome { locks, notices, dropped } = outcome(solve, &mut plans, drops)?;
    for notice in &notices {
        let fate = match dropped.contains(&notice.entry.origin) {
            true if args.check => ": an update drops it",
            true => ": dropped",
            false => "",
        };
        progress.warn(&format!("{notice}{fate}"));
    }
    let changed = || locks.iter().filter(|result| result.previous.as_ref() != Some(&result.lock));
    if !args.check {
        // from the last line to the first, so that those to come stay where they are
        dropped.iter().rev().try_for_each(manifest::remove_override)?;
        lock::write(&global.lockfiles, &args.stream, changed().map(|result| &result.lock))?;
    }
    let mut reports: Vec<Report> = locks.iter().map(report).collect();
    if args.check {
        find_gone(&mut reports, &locks, &plans, &sources, &*progress);
    }
    match global.json() {
        true => print_json(&reports)?,
        false => print(&reports.iter().map(|report| text(report, args.check)).collect::<String>())?,
    }
    let is_expired = notices.iter().any(|notice| notice.state == State::Expired);
    let lost = reports.iter().flat_map(|report| &report.gone).any(|gone| gone.at.is_none());
    let is_no = is_expired || lost || changed().next().is_some();
    Ok(if args.check && is_no { Answer::No } else { Answer::Done })
}

/// What locking came to.
struct Outcome {
    locks: Vec<LayerLock>,
    /// What there is to tell of overrides.
    notices: Vec<Notice>,
    /// Where the overrides stand without which it was solved, sorted.
    dropped: Vec<Origin>,
}

/// Solves `plans`; if it `drops`, without the overrides that this finds to be of no use any more.
fn outcome(
    solve: impl Fn(&[Plan]) -> Result<Vec<LayerLock>>,
    plans: &mut [Plan],
    drops: bool,
) -> Result<Outcome> {
    let locks = solve(plans)?;
    let notices = notices(plans, &locks)?;
    let layers = plans.iter().flat_map(|plan| &plan.layers);
    let dropped = droppable(layers, locks.iter().flat_map(|result| &result.caught_up));
    if !drops || dropped.is_empty() {
        return Ok(Outcome { locks, notices, dropped: Vec::new() });
    }
    for layer in plans.iter_mut().flat_map(|plan| &mut plan.layers) {
        layer.packages.overrides.retain(|entry| !dropped.contains(&entry.origin));
    }
    Ok(Outcome { locks: solve(plans)?, notices, dropped })
}

/// What there is to tell of the overrides of the layers that were locked, once of each.
fn notices(plans: &[Plan], locks: &[LayerLock]) -> Result<Vec<Notice>> {
    let today = today()?;
    let layers = plans.iter().flat_map(|plan| &plan.layers);
    let locked = layers.filter(|layer| locks.iter().any(|result| result.lock.layer == layer.name));
    let expired = locked.flat_map(|layer| expired(layer, &today));
    let mut notices: Vec<Notice> = Vec::new();
    for notice in expired.chain(locks.iter().flat_map(|result| result.caught_up.iter().cloned())) {
        let told = notices.iter().any(|told| {
            told.entry.origin == notice.entry.origin
                && discriminant(&told.state) == discriminant(&notice.state)
        });
        if !told {
            notices.push(notice);
        }
    }
    Ok(notices)
}

/// The date, UTC: that of `SOURCE_DATE_EPOCH` if it is set.
fn today() -> Result<String> {
    let now = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            seconds.parse().map_err(anyhow::Error::from).and_then(|s| Ok(Timestamp::from_second(s)?))
        }
        Err(_) => Ok(Timestamp::now()),
    };
    let now = now.context("reading SOURCE_DATE_EPOCH: expected UTC seconds")?;
    Ok(now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string())
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
    locks: &[LayerLock],
    plans: &[Plan],
    sources: &Sources,
    progress: &dyn Progress,
) {
    for plan in plans {
        let mut listed = Listed::new(plan, sources, progress);
        for (report, result) in reports.iter_mut().zip(locks).filter(|(r, _)| r.arch == plan.stream.arch) {
            report.gone = result.previous.as_ref().map(|lock| listed.gone(lock)).unwrap_or_default();
        }
    }
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
        gone: Vec::new(),
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
    for Gone { package, repo, at } in &report.gone {
        let left = match repo {
            Some(repo) => format!("has left {repo}"),
            None => "is in no repository of the stream".to_owned(),
        };
        text += &match at {
            Some(place) => format!("  ! {package} {left}; it is still in {place}\n"),
            None => format!(
                "  ! {package} {left} and is nowhere else: `strata lock --repair {}`\n",
                package.name
            ),
        };
    }
    text
}
