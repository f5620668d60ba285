//! `strata verify`

use std::collections::BTreeMap;

use anyhow::Result;

use super::screen::eprint_line;
use super::{Answer, Answered, Global};
use crate::build::labels;
use crate::configure;
use crate::origins::remembered_entry;
use crate::plan::Origin;
use crate::tree::Subject;
use crate::verify::{Attribute, Changed, Difference, Ignored, Report, Verdict, verify};

/// Compare an image or an unpacked rootfs with the headers of its packages
///
/// Digests, sizes, modes, owners, capabilities, links and types of all files by the rules of `rpm -V`; files no
/// package owns; keys and credentials; exactly one kernel if it boots. Exit status 3 if anything fails. Changed
/// content of configuration files and unowned files are notes: they are listed, and fail nothing.
#[derive(clap::Args)]
pub struct Args {
    /// `STREAM/LAYER[:VERSION]` in the store, `oci:DIR[:NAME]`, or the directory of an unpacked image, whose
    /// files have the owners of the image (unpacked without root: `podman unshare strata verify DIR`)
    #[arg(value_name = "IMAGE|ROOTFS")]
    subject: String,
    /// Leave out what was changed on purpose: a glob over absolute paths, `**` crosses directories; may be
    /// repeated
    #[arg(long, value_name = "GLOB")]
    ignore: Vec<String>,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let ignored = Ignored::new(&args.ignore)?;
    let subject = global.subject(&args.subject)?;
    let mut report = verify(&subject, &ignored)?;
    let places = places(global, &subject);
    for unowned in &mut report.unowned {
        unowned.place = unowned.origin.as_ref().and_then(|origin| places.get(origin).cloned());
    }
    let failed = report.failed();
    if global.json() {
        super::print_json(&Answered { subject: &args.subject, failed, report: &report })?;
    } else {
        super::print(&text(&report))?;
    }
    Ok(if failed { Answer::No } else { Answer::Done })
}

/// Where the entries of the manifests at hand are, by what an image of their stream remembers of them.
fn places(global: &Global, subject: &Subject) -> BTreeMap<String, Origin> {
    let Subject::Image(opened) = subject else { return BTreeMap::new() };
    let labels = opened.image.labels();
    let stream = labels.get(labels::STREAM).filter(|stream| global.manifests.join(stream).is_dir());
    let Some(stream) = stream else { return BTreeMap::new() };
    let plan = match global.arch(None).and_then(|arch| global.plan(stream, arch)) {
        Ok(plan) => plan,
        Err(error) => {
            eprint_line(&format!(
                "warning: no lines of the manifests are named, for they are wrong: {error}"
            ));
            return BTreeMap::new();
        }
    };
    let entries = plan.layers.iter().flat_map(|layer| configure::entries(&layer.config));
    entries.map(|entry| (remembered_entry(&entry, &global.manifests), entry.origin)).collect()
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for group in report.differences.chunk_by(|a, b| a.package == b.package) {
        text += &format!("{}\n", group[0].package);
        for changed in group {
            text += &line(changed);
        }
    }
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("{title}\n  {}\n", lines.join("\n  "));
        }
    };
    let secrets = report.secrets.iter().map(|s| format!("{}: {}", s.path, s.what));
    section("secrets", secrets.collect());
    if report.wrong_kernels() {
        let found = if report.kernels.is_empty() { "none".to_owned() } else { report.kernels.join(", ") };
        section("kernels, expected exactly one", vec![found]);
    }
    let unowned = report.unowned.iter().map(|u| {
        let place = u.place.as_ref().map(|place| format!(", {place}")).unwrap_or_default();
        let origin = u.origin.as_ref().map(|origin| format!("  ({origin}{place})")).unwrap_or_default();
        format!("{}{origin}", u.path)
    });
    section("owned by no package (note)", unowned.collect());
    text + &summary(report)
}

/// `  S.5....T.  c /etc/motd: 24 bytes, expected 0; ...`
fn line(changed: &Changed) -> String {
    let words = match &changed.differences {
        Verdict::Missing => "is not there".to_owned(),
        Verdict::Differs(differences) => differences.iter().map(words).collect::<Vec<_>>().join("; "),
    };
    let note = if changed.note { " (note)" } else { "" };
    format!("  {:9}  {} {}: {words}{note}\n", changed.result, changed.mark.unwrap_or(' '), changed.path)
}

fn words(difference: &Difference) -> String {
    let Difference { attribute, expected, found, .. } = difference;
    let what = match attribute {
        Attribute::Digest if difference.unknown => return found.clone(),
        Attribute::Digest => return "other content".to_owned(),
        Attribute::Device => return format!("{found}, expected {expected}"),
        Attribute::Link => return format!("links to {found}, expected {expected}"),
        Attribute::Size => "size",
        Attribute::Mode => "mode",
        Attribute::User => "user",
        Attribute::Group => "group",
        Attribute::Time => "time",
        Attribute::Capabilities => "capabilities",
    };
    format!("{what} {found}, expected {expected}")
}

fn summary(report: &Report) -> String {
    let failures = report.failures().count();
    let counts = [
        (failures, "differ"),
        (report.differences.len() - failures, "configuration changed (note)"),
        (report.secrets.len(), "secrets"),
        (usize::from(report.wrong_kernels()), "wrong number of kernels"),
        (report.unowned.len(), "unowned (note)"),
        (report.ignored, "ignored"),
    ];
    let found: Vec<_> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let found = if found.is_empty() { "nothing differs".to_owned() } else { found.join(", ") };
    format!("{} files of {} packages: {found}\n", report.files, report.packages)
}
