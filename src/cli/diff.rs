//! `strata diff`

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Format, Global};
use crate::diff::source::{Source, pair};
use crate::diff::{self, Change, Diff, FastTrack, Package};
use crate::ledger;

/// Show which packages differ between two images, rpmdbs or lockfiles; of lockfiles also the ids of accounts
#[derive(clap::Args)]
pub struct Args {
    /// The old side: a lockfile (*.toml), an rpmdb, a meta.json, the directory of an unpacked image, or
    /// an image
    from: String,
    /// The new side
    to: String,
}

/// The JSON form; see [`crate::diff`].
#[derive(Serialize)]
struct Report<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(flatten)]
    diff: &'a Diff,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let (from, to) = (Source::find(&args.from)?, Source::find(&args.to)?);
    let sets = pair(&from, &to, |image| global.open(image))?;
    if sets.own_layers_only {
        global
            .progress()
            .warn("only the lockfiles' own layers are compared: the layers below are not beside them");
    }
    let diff = Diff { ids: sets.ids, ..diff::diff(&sets.from, &sets.to) };
    match global.format {
        Format::Text => super::print(&text(&diff))?,
        Format::Json => super::print_json(&Report { from: &args.from, to: &args.to, diff: &diff })?,
        Format::Markdown => super::print(&markdown(&diff))?,
        Format::Html => super::print(&html(args, &diff))?,
    }
    Ok(Answer::Done)
}

/// A group of the report: its title, and rows of package or account, versions or ids, and layer.
struct Group {
    title: &'static str,
    rows: Vec<[String; 3]>,
}

fn groups(diff: &Diff) -> Vec<Group> {
    let row = |name: &str, arch: &str, versions: String, layer: &Option<String>| {
        [format!("{name}.{arch}"), versions, layer.clone().unwrap_or_default()]
    };
    let package = |p: &Package| row(&p.name, &p.arch, p.evr.to_string(), &p.layer);
    let change = |c: &Change| row(&c.name, &c.arch, format!("{} → {}", c.from, c.to), &c.layer);
    let fast_track =
        |f: &FastTrack| row(&f.name, &f.arch, format!("{} instead of {}", f.evr, f.replaces), &f.layer);
    let id = |change: &ledger::Change| {
        let ids = match (change.from, change.to) {
            (Some(from), Some(to)) => format!("{from} → {to}"),
            (None, Some(ids)) => format!("{ids}, new"),
            (ids, None) => format!("{}, gone", ids.map(|ids| ids.to_string()).unwrap_or_default()),
        };
        [change.account.to_string(), ids, String::new()]
    };
    let groups = [
        Group { title: "Upgraded", rows: diff.upgraded.iter().map(change).collect() },
        Group { title: "Downgraded", rows: diff.downgraded.iter().map(change).collect() },
        Group { title: "Added", rows: diff.added.iter().map(package).collect() },
        Group { title: "Removed", rows: diff.removed.iter().map(package).collect() },
        Group { title: "Fast-tracked", rows: diff.fast_tracks.iter().map(fast_track).collect() },
        Group { title: "Ids", rows: diff.ids.iter().map(id).collect() },
    ];
    groups.into_iter().filter(|group| !group.rows.is_empty()).collect()
}

fn summary(diff: &Diff) -> String {
    if diff.is_empty() {
        return "no package differs".to_owned();
    }
    let counts = [
        (diff.upgraded.len(), "upgraded"),
        (diff.downgraded.len(), "downgraded"),
        (diff.added.len(), "added"),
        (diff.removed.len(), "removed"),
        (diff.ids.len(), "ids changed"),
    ];
    let parts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn text(diff: &Diff) -> String {
    let mut text = String::new();
    for Group { title, rows } in groups(diff) {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (names, versions) = (width(0), width(1));
        text += &format!("{title}:\n");
        for [name, version, layer] in &rows {
            text += format!("  {name:names$}  {version:versions$}  {layer}").trim_end();
            text += "\n";
        }
        text += "\n";
    }
    text + &summary(diff) + "\n"
}

fn markdown(diff: &Diff) -> String {
    let mut text = String::new();
    for Group { title, rows } in groups(diff) {
        text += &format!("### {title}\n\n| package | version | layer |\n|---|---|---|\n");
        for [name, version, layer] in rows {
            text += &format!("| {name} | {version} | {layer} |\n");
        }
        text += "\n";
    }
    text + &summary(diff) + "\n"
}

/// A page that needs nothing else.
fn html(Args { from, to }: &Args, diff: &Diff) -> String {
    let title = format!("{} → {}", escape(from), escape(to));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>\nbody {{ font-family: sans-serif; margin: 2em; }}\nth, td {{ padding: 0 2em 0 0; text-align: left; }}\n\
         </style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}</p>\n",
        summary(diff)
    );
    for Group { title, rows } in groups(diff) {
        page += &format!("<h2>{title}</h2>\n<table>\n<tr><th>package<th>version<th>layer</tr>\n");
        for row in rows {
            let cells: String = row.iter().map(|cell| format!("<td>{}", escape(cell))).collect();
            page += &format!("<tr>{cells}</tr>\n");
        }
        page += "</table>\n";
    }
    page + "</body>\n</html>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
