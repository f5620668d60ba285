//! `strata lint`

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use super::{Answer, Answered, Global, print, print_json};
use crate::lint::{Finding, Level, Report, Rule, Source, lint, rules};

/// How many findings of a rule are shown, as bootc does.
const SHOWN: usize = 5;

/// Check an image or an unpacked rootfs by the rules of `bootc container lint`, and ours
///
/// Needs neither root nor bootc, and runs nothing of the image. Each finding names the path, the package and layer that
/// brought it, and what to do. Exit status 3 if a fatal rule is broken.
#[derive(clap::Args)]
pub struct Args {
    /// `STREAM/LAYER[:VERSION]` in the store, `oci:DIR[:NAME]`, `docker://...`, or the directory of an unpacked image
    #[arg(value_name = "IMAGE|ROOTFS", required_unless_present = "list")]
    subject: Option<String>,
    /// List the rules instead
    #[arg(long, conflicts_with_all = ["subject", "skip", "fatal_warnings", "no_truncate"])]
    list: bool,
    /// Leave a rule out; may be repeated
    #[arg(long, value_name = "NAME", hide_possible_values = true, value_parser = PossibleValuesParser::new(names()))]
    skip: Vec<String>,
    /// Warnings fail, too
    #[arg(long)]
    fatal_warnings: bool,
    /// Show all findings of a rule, not the first 5
    #[arg(long)]
    no_truncate: bool,
}

fn names() -> Vec<&'static str> {
    rules().iter().map(|rule| rule.name).collect()
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let Some(name) = &args.subject else {
        list(global)?;
        return Ok(Answer::Done);
    };
    let report = lint(&global.subject(name)?, &args.skip)?;
    let fatal = report.broken(Level::Fatal);
    let failed = fatal > 0 || args.fatal_warnings && report.broken(Level::Warning) > 0;
    if global.json() {
        print_json(&Answered { subject: name, failed, report: &report })?;
    } else {
        print(&text(&report, if args.no_truncate { usize::MAX } else { SHOWN }))?;
    }
    Ok(if failed { Answer::No } else { Answer::Done })
}

fn list(global: &Global) -> Result<()> {
    if global.json() {
        return print_json(&rules());
    }
    let line = |rule: &&Rule| {
        let source = match rule.source {
            Source::Bootc => "bootc",
            Source::Strata => "strata",
        };
        format!("{:22} {:8} {source:7} {}\n", rule.name, word(rule.level), rule.description)
    };
    print(&rules().iter().map(line).collect::<String>())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Fatal => "fatal",
        Level::Warning => "warning",
    }
}

fn text(report: &Report, shown: usize) -> String {
    let mut text = String::new();
    for findings in report.findings.chunk_by(|a, b| a.rule == b.rule) {
        let Finding { rule, level, advice, .. } = &findings[0];
        text += &format!("{}: {rule}\n", word(*level));
        text += &findings.iter().take(shown).map(line).collect::<String>();
        if findings.len() > shown {
            text += &format!("  ...and {} more: --no-truncate shows them\n", findings.len() - shown);
        }
        text += &format!("  hint: {advice}\n");
    }
    text + &summary(report)
}

/// `  /var/lib/x is a directory that tmpfiles.d does not make (sssd-common; %post(sssd-common))`
fn line(Finding { path, message, package, origin, layer, .. }: &Finding) -> String {
    let blamed: Vec<&str> = [package, origin.as_ref().map_or(layer, |_| origin)]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let blamed = if blamed.is_empty() { String::new() } else { format!(" ({})", blamed.join("; ")) };
    format!("  {path} {message}{blamed}\n")
}

fn summary(report: &Report) -> String {
    let counts = [
        (report.broken(Level::Fatal), "fatally broken"),
        (report.broken(Level::Warning), "with warnings"),
        (report.skipped.len(), "skipped"),
    ];
    let found = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
    format!("{} rules hold{}\n", report.passed.len(), found.collect::<String>())
}
