//! `strata fsck`

use anyhow::Result;

use super::{Answer, Global, print, print_json};
use crate::fetch::{Fetcher, Options};
use crate::fsck::refetch::Refetch;
use crate::fsck::{self, Fate, Finding, Report};
use crate::gc::Kind;
use crate::image::opened::Access;
use crate::sandbox::enter_namespace;

/// Check that everything in the store is what it should be
///
/// Packages, metadata, blobs and images are compared with their digests, extracted layers with their images. Exit status
/// 3 if something is damaged that was not taken away.
#[derive(clap::Args)]
pub struct Args {
    /// Take away what is damaged. Packages and keys are fetched again from where lockfiles and manifests say, blobs of images
    /// from registries that are known to have them; the rest is made or fetched by whatever needs it
    #[arg(long)]
    repair: bool,
    /// Open no socket: only take away
    #[arg(long, requires = "repair")]
    offline: bool,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    let store = global.store()?;
    let fetcher = Fetcher::new(&store, Options { offline: args.offline, ..Options::default() });
    let refetch = Refetch {
        access: Access { offline: args.offline, ..global.access(&store, global.arch(None)?) },
        fetcher: &fetcher,
        manifests: &global.manifests,
        lockfiles: &global.lockfiles,
        variables: &global.set.iter().cloned().collect(),
    };
    let report = fsck::check(&store, args.repair.then_some(&refetch), global.progress().as_ref())?;
    match global.json() {
        true => print_json(&report)?,
        false => print(&text(&report, args.repair))?,
    }
    let is_well = report.findings.iter().all(|finding| finding.fate != Fate::Left);
    Ok(if is_well { Answer::Done } else { Answer::No })
}

fn text(report: &Report, repair: bool) -> String {
    let line = |finding: &Finding| {
        let fate = if repair { format!(" ({})", fate(finding)) } else { String::new() };
        format!("{}: {}{fate}\n", finding.name, finding.problem)
    };
    let lines: String = report.findings.iter().map(line).collect();
    let advice = if repair || report.findings.is_empty() { "" } else { "; `--repair` heals it" };
    lines + &format!("{} objects checked, {} damaged{advice}\n", report.checked, report.findings.len())
}

/// What a repair did about an object, and what is left to do.
fn fate(finding: &Finding) -> &'static str {
    match (finding.fate, finding.kind) {
        (Fate::Fetched, _) => "fetched again",
        (Fate::Left, Kind::Image) => "left: the next build of it completes it",
        (Fate::Left, _) => "left: it is in use",
        (Fate::Removed, Kind::Image) => "forgotten: the next build makes it again",
        (Fate::Removed, _) => "taken away: what needs it makes or fetches it again",
    }
}
