//! `[packages]` and `[[override]]`.

use globset::GlobBuilder;

use super::diagnostic::Objection;
use super::layer::Draft;
use super::reader::{Table, Text};
use super::rules;
use super::stream::StreamFile;
use crate::plan::{Override, OverrideKind, OverrideTo, Packages, Sourced};

const KEYS: &[&str] = &[
    "install",
    "remove",
    "exclude",
    "exclude-from-weak",
    "modules",
    "repos",
    "aarch64",
    "ppc64le",
    "riscv64",
    "s390x",
    "x86_64",
];
const ARCH_KEYS: &[&str] = &["install", "remove", "exclude", "exclude-from-weak", "modules"];
const OVERRIDE_KEYS: &[&str] = &["package", "version", "file", "kind", "reason", "update", "until"];

impl Draft {
    pub fn add_packages(&mut self, table: &Table, stream: &StreamFile) {
        if let Some(table) = table.table("packages", KEYS) {
            self.add_repos(&table, stream);
            self.layer.packages.add(&table);
            for arch in crate::package::Arch::ALL {
                let Some(table) = table.table(arch.rpm(), ARCH_KEYS) else { continue };
                // what is for another architecture is read all the same, for its mistakes
                match arch == stream.stream.arch {
                    true => self.layer.packages.add(&table),
                    false => self.layer.packages.clone().add(&table),
                }
            }
        }
        for table in table.tables("override", OVERRIDE_KEYS) {
            if let Some(new) = read_override(&table) {
                push_new(&mut self.layer.packages.overrides, &table, new, "overridden", |o| &o.package);
            }
        }
    }

    fn add_repos(&mut self, table: &Table, stream: &StreamFile) {
        let Some(item) = table.get("repos") else { return };
        let wanted = self.repos.get_or_insert_default();
        for text in item.texts() {
            let known = || stream.repos.iter().map(|(id, _)| id.as_str());
            match known().any(|id| id == text.value) {
                true => _ = wanted.insert(text.value),
                false => {
                    let unknown = Objection::new(format!("unknown repository `{}`", text.value));
                    text.report(unknown.suggest(&text.value, known()));
                }
            }
        }
    }
}

impl Packages {
    fn add(&mut self, table: &Table) {
        for text in specs(table, "install", rules::package_spec) {
            conflict(&text, "installed", "excluded", &self.exclude, |glob| matches(glob, &text.value));
            conflict(&text, "installed", "removed", &self.remove, |removed| removed == text.value);
            push_once(&mut self.install, &text);
        }
        for text in specs(table, "remove", rules::removed_spec) {
            conflict(&text, "removed", "installed", &self.install, |installed| installed == text.value);
            push_once(&mut self.remove, &text);
        }
        for text in specs(table, "exclude", rules::glob) {
            conflict(&text, "excluded", "installed", &self.install, |spec| matches(&text.value, spec));
            push_once(&mut self.exclude, &text);
        }
        for text in specs(table, "modules", rules::module_stream) {
            let module = |stream: &str| stream.split(':').next().map(str::to_owned);
            let other = |enabled: &str| enabled != text.value && module(enabled) == module(&text.value);
            conflict(&text, "enabled", "enabled already", &self.modules, other);
            push_once(&mut self.modules, &text);
        }
        for text in specs(table, "exclude-from-weak", rules::glob) {
            push_once(&mut self.exclude_from_weak, &text);
        }
    }
}

fn specs<'a>(
    table: &Table<'a>,
    key: &'static str,
    rule: fn(&str) -> Result<(), Objection>,
) -> impl Iterator<Item = Text<'a>> {
    table.texts(key).into_iter().filter_map(move |text| text.checked(rule))
}

/// Whether a glob hides the package a spec begins with.
fn matches(glob: &str, spec: &str) -> bool {
    let name = spec.split_whitespace().next().unwrap_or_default();
    GlobBuilder::new(glob).build().is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

/// Reports `text` if `others` say the opposite.
pub fn conflict(
    text: &Text,
    done: &str,
    also: &str,
    others: &[Sourced<String>],
    same: impl Fn(&str) -> bool,
) {
    if let Some(other) = others.iter().find(|other| same(&other.value)) {
        let message = match other.value == text.value {
            true => format!("`{}` is both {done} and {also}", text.value),
            false => format!("`{}` is {done}, but `{}` is {also}", text.value, other.value),
        };
        text.report(Objection::new(message).hint(format!("{also} at {}", other.origin)));
    }
}

/// Adds a text unless the list has it already.
pub fn push_once(list: &mut Vec<Sourced<String>>, text: &Text) {
    if !list.iter().any(|have| have.value == text.value) {
        list.push(text.sourced());
    }
}

/// Adds what a table says, unless another table spoke about the same thing.
pub fn push_new<T>(list: &mut Vec<Sourced<T>>, table: &Table, new: T, done: &str, key: impl Fn(&T) -> &str) {
    match list.iter().find(|have| key(&have.value) == key(&new)) {
        Some(earlier) => {
            let message = format!("`{}` is {done} twice", key(&new));
            table.report(Objection::new(message).hint(format!("the other one is at {}", earlier.origin)));
        }
        None => list.push(table.sourced(new)),
    }
}

fn read_override(table: &Table) -> Option<Override> {
    let package = table.require("package").and_then(|item| item.text());
    let package = package.and_then(|text| text.checked(rules::package_name));
    let to = override_to(table);
    let kind = table.require("kind").and_then(|item| item.text()).and_then(|text| text.check(kind));
    let reason = table.require("reason").and_then(|item| item.text());
    let update = table.text("update");
    let until = table.get("until").and_then(|item| item.date()).and_then(|text| text.checked(rules::date));
    Some(Override {
        package: package?.value,
        to: to?,
        kind: kind?,
        reason: reason?.value,
        update: update.map(|text| text.value),
        until: until.map(|text| text.value),
    })
}

fn override_to(table: &Table) -> Option<OverrideTo> {
    match (table.get("version"), table.get("file")) {
        (Some(version), None) => Some(OverrideTo::Version(version.text()?.check(rules::evr)?)),
        (None, Some(file)) => Some(OverrideTo::File(file.text()?.existing_file()?)),
        (None, None) => {
            table.report("the override has neither `version` nor `file`");
            None
        }
        (Some(_), Some(_)) => {
            table.report(
                Objection::new("the override has both `version` and `file`").hint("keep one of them"),
            );
            None
        }
    }
}

fn kind(text: &str) -> Result<OverrideKind, Objection> {
    match text {
        "fast-track" => Ok(OverrideKind::FastTrack),
        "pin" => Ok(OverrideKind::Pin),
        "hotfix" => Ok(OverrideKind::Hotfix),
        _ => Err(Objection::new(format!("unknown kind of override `{text}`"))
            .suggest(text, ["fast-track", "pin", "hotfix"])),
    }
}
