//! `strata fsck`

use anyhow::Result;

use super::{Answer, Global, print, print_json};
use crate::fsck::{self, Finding, Report};
use crate::sandbox::enter_namespace;

/// Check that everything in the store is what it should be
///
/// Packages, metadata, blobs and images are compared with their digests, extracted layers with their images. Exit status
/// 3 if something is damaged that was not taken away.
#[derive(clap::Args)]
pub struct Args {
    /// Take away what is damaged: whatever needs it fetches or makes it again
    #[arg(long)]
    repair: bool,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    let report = fsck::check(&global.store()?, args.repair, global.progress().as_ref())?;
    match global.json() {
        true => print_json(&report)?,
        false => print(&text(&report, args.repair))?,
    }
    let is_well = report.findings.iter().all(|finding| finding.healed);
    Ok(if is_well { Answer::Done } else { Answer::No })
}

fn text(report: &Report, repair: bool) -> String {
    let line = |Finding { name, problem, healed, .. }: &Finding| {
        let fate = match (healed, repair) {
            (true, _) => " (taken away)",
            (false, true) => " (left: it is in use, or to be built again)",
            (false, false) => "",
        };
        format!("{name}: {problem}{fate}\n")
    };
    let lines: String = report.findings.iter().map(line).collect();
    let advice = if repair || report.findings.is_empty() { "" } else { "; `--repair` takes it away" };
    lines + &format!("{} objects checked, {} damaged{advice}\n", report.checked, report.findings.len())
}
