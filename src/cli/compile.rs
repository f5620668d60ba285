//! `strata compile`

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Answer, Global, print, print_json};
use crate::package::Arch;
use crate::plan::{Base, FileContent, Layer, Origin, OverrideTo, Plan, Repo, Sourced};

/// Print what the layers of a stream would contain, and the file and line that says so
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only this layer
    layer: Option<String>,
    /// Architecture to compile for [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let mut plan = global.plan(&args.stream, global.arch(args.arch)?)?;
    if let Some(name) = &args.layer {
        plan.layers = vec![plan.known_layer(name)?.clone()];
    }
    if global.json() {
        print_json(&plan)?;
    } else {
        print(
            &Page::of(&plan).draw(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()),
        )?;
    }
    Ok(Answer::Done)
}

/// A line of the page: what kind of entry, the entry, where it was written.
struct Row {
    kind: &'static str,
    entry: String,
    origin: Option<Origin>,
}

/// Headings and the rows below them.
struct Page(Vec<(String, Vec<Row>)>);

impl Page {
    fn of(plan: &Plan) -> Self {
        let stream = &plan.stream;
        let openshift = stream.openshift.as_ref().map(|v| format!(", OpenShift {v}")).unwrap_or_default();
        let heading = format!(
            "stream {} for {}: {} {}{openshift}",
            stream.name, stream.arch, stream.os.name, stream.os.version
        );
        let mut rows = Rows::default();
        for repo in stream.repos.values() {
            rows.add("repo", repo_entry(repo), Some(&repo.origin));
        }
        let mut sections = vec![(heading, rows.0)];
        sections.extend(plan.layers.iter().map(|layer| (layer_heading(layer), layer_rows(layer))));
        Self(sections)
    }

    fn draw(&self, color: bool) -> String {
        let (bold, dim, off) = if color { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let rows = || self.0.iter().flat_map(|(_, rows)| rows);
        let kind_width = rows().map(|row| row.kind.len()).max().unwrap_or_default();
        // a few long entries do not push the origins out of sight
        let entry_width =
            rows().map(|row| row.entry.chars().count()).filter(|w| *w <= 64).max().unwrap_or_default();
        let mut text = String::new();
        for (i, (heading, rows)) in self.0.iter().enumerate() {
            let gap = if i > 0 { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{bold}{heading}{off}");
            let mut last = "";
            for Row { kind, entry, origin } in rows {
                let shown = if *kind == last { "" } else { kind };
                last = kind;
                let _ = match origin {
                    Some(origin) => {
                        writeln!(text, "  {shown:kind_width$}  {entry:entry_width$}  {dim}{origin}{off}")
                    }
                    None => writeln!(text, "  {shown:kind_width$}  {entry}"),
                };
            }
        }
        text
    }
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, kind: &'static str, entry: impl Into<String>, origin: Option<&Origin>) {
        self.0.push(Row { kind, entry: entry.into(), origin: origin.cloned() });
    }

    fn list<T>(&mut self, kind: &'static str, entries: &[Sourced<T>], show: impl Fn(&T) -> String) {
        for entry in entries {
            self.add(kind, show(&entry.value), Some(&entry.origin));
        }
    }
}

fn repo_entry(repo: &Repo) -> String {
    let urls = repo.baseurl.iter().chain(&repo.mirrorlist).chain(&repo.metalink);
    let urls: Vec<_> = urls.map(|url| as_named(url)).collect();
    let unsigned = if repo.gpgcheck { "" } else { ", packages not checked" };
    format!("{}: {}{unsigned}", repo.id, urls.join(" "))
}

/// A `file://` URL below the working directory as the path a user would type.
fn as_named(url: &str) -> String {
    let below = || {
        let path = Path::new(url.strip_prefix("file://")?);
        Some(path.strip_prefix(std::env::current_dir().ok()?).ok()?.display().to_string())
    };
    below().unwrap_or_else(|| url.to_owned())
}

fn layer_heading(layer: &Layer) -> String {
    match &layer.from {
        Base::Scratch => format!("layer {} from scratch", layer.name),
        Base::Layer(below) => format!("layer {} on layer {below}", layer.name),
        Base::Image(image) => format!("layer {} on {image}", layer.name),
    }
}

fn layer_rows(layer: &Layer) -> Vec<Row> {
    let mut rows = Rows::default();
    package_rows(layer, &mut rows);
    configuration_rows(layer, &mut rows);
    rows.list("os-release", &layer.os_release, |(field, value)| format!("{field}={value}"));
    let image = &layer.image;
    if let Some(name) = &image.name {
        rows.add("image", name, None);
    }
    for (kind, values) in [("label", &image.labels), ("annotation", &image.annotations), ("env", &image.env)]
    {
        for (key, value) in values {
            rows.add(kind, format!("{key}={}", value.value), Some(&value.origin));
        }
    }
    if let Some(cmd) = &image.cmd {
        rows.add("cmd", cmd.value.join(" "), Some(&cmd.origin));
    }
    rows.0
}

fn package_rows(layer: &Layer, rows: &mut Rows) {
    let packages = &layer.packages;
    rows.add("repos", packages.repos.join(" "), None);
    let switches = [
        (packages.weak_deps, "weak dependencies"),
        (layer.docs, "documentation"),
        (layer.ima, "IMA signatures"),
    ];
    let with: Vec<_> = switches.iter().filter(|(on, _)| *on).map(|(_, what)| *what).collect();
    if !with.is_empty() {
        rows.add("with", with.join(", "), None);
    }
    if let Some(langs) = &layer.langs {
        rows.add("langs", langs.join(" "), None);
    }
    rows.list("install", &packages.install, String::clone);
    rows.list("remove", &packages.remove, String::clone);
    rows.list("exclude", &packages.exclude, String::clone);
    rows.list("not weak", &packages.exclude_from_weak, String::clone);
    rows.list("module", &packages.modules, String::clone);
    rows.list("override", &packages.overrides, |o| {
        let to = match &o.to {
            OverrideTo::Version(evr) => evr.to_string(),
            OverrideTo::File(path) => path.display().to_string(),
        };
        let until = o.until.as_ref().map(|day| format!(", until {day}")).unwrap_or_default();
        format!("{} {to} ({}: {}{until})", o.package, o.kind, o.reason)
    });
}

fn configuration_rows(layer: &Layer, rows: &mut Rows) {
    let config = &layer.config;
    let id = |id: Option<u32>| id.map(|id| format!(" {id}")).unwrap_or_default();
    rows.list("group", &config.groups, |group| format!("{}{}", group.name, id(group.gid)));
    rows.list("user", &config.users, |user| format!("{}{}", user.name, id(user.uid)));
    rows.list("sysusers", &config.sysusers, String::clone);
    rows.list("overlay", &config.overlays, |path: &PathBuf| path.display().to_string());
    rows.list("file", &config.files, |file| {
        let from = match &file.content {
            FileContent::Text(text) => format!("{} bytes", text.len()),
            FileContent::Source(path) => path.display().to_string(),
            FileContent::Append(text) => format!("{} bytes appended", text.len()),
        };
        format!("{} ({:04o} {}:{}, {from})", file.path, file.mode, file.user, file.group)
    });
    rows.list("symlink", &config.symlinks, |link| format!("{} -> {}", link.path, link.target));
    rows.list("remove path", &config.removals, String::clone);
    rows.list("tmpfiles", &config.tmpfiles, String::clone);
    rows.list("enable", &config.enable, String::clone);
    rows.list("disable", &config.disable, String::clone);
    rows.list("mask", &config.mask, String::clone);
    rows.list("default", config.default_target.as_slice(), String::clone);
    rows.list("karg", &config.kargs, String::clone);
    rows.list("kernel", config.kernel.as_slice(), |kernel| {
        let initramfs = if kernel.initramfs { "initramfs" } else { "no initramfs" };
        [&[initramfs.to_owned()], &kernel.initramfs_args[..]].concat().join(" ")
    });
    rows.list("script", &config.scripts, |script| format!("{} ({})", script.name, script.reason));
}
