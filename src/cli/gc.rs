//! `strata gc`

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::HumanBytes;

use super::screen::eprint_line;
use super::{Answer, Global, print, print_json};
use crate::gc::{self, Kind, Policy, Report};
use crate::sandbox::enter_namespace;

/// Delete what the store can do without
///
/// Goes without being asked for: images that have no name and on which none stands that has, extracted layers of no
/// image, and what runs that were killed left. Whatever runs meanwhile loses nothing that it uses.
#[derive(clap::Args)]
pub struct Args {
    /// Keep the names of so many versions of each layer of each stream, the newest [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,
    /// Delete also packages, metadata, extracted layers and other caches that were not used for so long, as `12h`, `30d`
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Delete of these what was used least recently, until the store takes so much, as `500M`, `20G` (powers of 1024)
    #[arg(long, value_name = "BUDGET", value_parser = bytes)]
    size: Option<u64>,
    /// Delete all images, extracted layers, decompressed packages (three times the size of the packages) and what
    /// commands did; a build makes them again
    #[arg(long)]
    all: bool,
    /// Only tell what would be deleted
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    let policy = Policy {
        keep: args.keep.map(usize::from),
        older_than: args.older_than,
        size: args.size,
        all: args.all,
        rehearsal: args.dry_run,
    };
    let report = gc::collect(&global.store()?, &policy)?;
    match global.json() {
        true => print_json(&report)?,
        false => print(&text(&report, args.dry_run))?,
    }
    if args.size.is_some_and(|budget| report.remaining > budget) && !global.quiet {
        eprint_line("the rest is in use, or of images that have a name: `--keep` lets old versions go");
    }
    Ok(Answer::Done)
}

/// A number and a unit.
fn quantity(text: &str, units: &[(char, u64)]) -> Result<u64> {
    let expected = || {
        let units: Vec<String> = units.iter().map(|(unit, _)| unit.to_string()).collect();
        format!("expected a number and one of {}", units.join(", "))
    };
    let unit = text.chars().last().with_context(expected)?;
    let (_, factor) = units.iter().find(|(known, _)| *known == unit).with_context(expected)?;
    let number = &text[..text.len() - unit.len_utf8()];
    ensure!(number.bytes().all(|byte| byte.is_ascii_digit()), expected());
    let number: u64 = number.parse().with_context(expected)?;
    number.checked_mul(*factor).context("that is too much")
}

fn age(text: &str) -> Result<Duration> {
    const HOUR: u64 = 60 * 60;
    quantity(text, &[('s', 1), ('m', 60), ('h', HOUR), ('d', 24 * HOUR), ('w', 7 * 24 * HOUR)])
        .map(Duration::from_secs)
}

fn bytes(text: &str) -> Result<u64> {
    quantity(text, &[('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)])
}

/// A line for each kind of thing, and the sum.
fn text(report: &Report, rehearsal: bool) -> String {
    let mut kinds: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for deleted in &report.deleted {
        let (count, size) = kinds.entry(deleted.kind).or_default();
        *count += 1;
        *size += deleted.size;
    }
    let mut text = String::new();
    for (kind, (count, size)) in kinds {
        let (what, size) = (words(kind), HumanBytes(size).to_string());
        text += &format!("{what:28}  {count:>6}  {size:>12}\n");
    }
    let freed = if rehearsal { "would be freed" } else { "freed" };
    text + &format!("{} {freed}, {} left\n", HumanBytes(report.freed), HumanBytes(report.remaining))
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "names of images",
        Kind::Blob => "blobs",
        Kind::Layer => "extracted layers",
        Kind::Package => "packages",
        Kind::Payload => "decompressed packages",
        Kind::Metadata => "files of metadata",
        Kind::Parsed => "parsed files of metadata",
        Kind::Step => "commands that ran",
        Kind::Key => "keys",
        Kind::Unfinished => "unfinished work",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_number_and_a_unit() {
        assert_eq!(age("90m").unwrap(), Duration::from_secs(5400));
        assert_eq!(bytes("20G").unwrap(), 20 << 30);
        for wrong in
            ["", "20", "G", "-1G", "1.5G", "+1G", "20g", "1 G", "99999999999999999999G", "99999999T", "1€"]
        {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
