//! What is done to the rootfs after the packages: files, users, units, scripts.

use super::diagnostic::Objection;
use super::packages::{conflict, push_new, push_once};
use super::reader::{Item, Table, Text};
use super::rules;
use crate::plan::{Configuration, File, FileContent, Group, Kernel, Script, Sourced, Symlink, User};

const GROUP_KEYS: &[&str] = &["name", "gid", "members"];
const USER_KEYS: &[&str] = &["name", "uid", "group", "comment", "home", "shell"];
const FILE_KEYS: &[&str] = &["path", "content", "source", "append", "expand", "mode", "user", "group"];
const SCRIPT_KEYS: &[&str] = &["name", "reason", "body", "source", "expand", "interpreter"];
const UNITS_KEYS: &[&str] = &["enable", "disable", "mask", "default-target"];

impl Configuration {
    /// Adds what a manifest's table says.
    pub(super) fn add(&mut self, table: &Table) {
        for table in table.tables("group", GROUP_KEYS) {
            if let Some(group) = group(&table) {
                push_new(&mut self.groups, &table, group, "described", |group| &group.name);
            }
        }
        for table in table.tables("user", USER_KEYS) {
            if let Some(user) = user(&table) {
                push_new(&mut self.users, &table, user, "described", |user| &user.name);
            }
        }
        self.add_files(table);
        self.add_units(table);
        add_texts(&mut self.sysusers, table, "sysusers", rules::one_line);
        add_texts(&mut self.tmpfiles, table, "tmpfiles", rules::one_line);
        add_texts(&mut self.kargs, table, "kargs", rules::kernel_argument);
        if let Some(item) = table.get("kernel") {
            self.add_kernel(&item);
        }
        for table in table.tables("script", SCRIPT_KEYS) {
            self.scripts.extend(script(&table).map(|script| table.sourced(script)));
        }
    }

    fn add_files(&mut self, table: &Table) {
        for text in table.one_or_more("overlay") {
            self.overlays
                .extend(text.existing_folder().map(|value| Sourced { value, origin: text.origin() }));
        }
        for table in table.tables("file", FILE_KEYS) {
            match file(&table) {
                // one may append to the same file again and again
                Some(file @ File { content: FileContent::Append(_), .. }) => {
                    self.files.push(table.sourced(file))
                }
                Some(file) => push_new(&mut self.files, &table, file, "written", |file| &file.path),
                None => {}
            }
        }
        for table in table.tables("symlink", &["path", "target"]) {
            let path = required(&table, "path", rules::rootfs_path);
            let target = required(&table, "target", rules::link_target);
            if let Some((path, target)) = path.zip(target) {
                push_new(&mut self.symlinks, &table, Symlink { path, target }, "linked", |link| &link.path);
            }
        }
        for table in table.tables("remove", &["path", "reason"]) {
            // for the reader of the manifest only
            table.text("reason");
            self.removals
                .extend(required(&table, "path", rules::rootfs_glob).map(|path| table.sourced(path)));
        }
    }

    fn add_units(&mut self, table: &Table) {
        let Some(table) = table.table("units", UNITS_KEYS) else { return };
        for text in units(&table, "enable") {
            conflict(&text, "enabled", "disabled", &self.disable, |unit| unit == text.value);
            conflict(&text, "enabled", "masked", &self.mask, |unit| unit == text.value);
            push_once(&mut self.enable, &text);
        }
        for text in units(&table, "disable") {
            conflict(&text, "disabled", "enabled", &self.enable, |unit| unit == text.value);
            push_once(&mut self.disable, &text);
        }
        for text in units(&table, "mask") {
            conflict(&text, "masked", "enabled", &self.enable, |unit| unit == text.value);
            push_once(&mut self.mask, &text);
        }
        if let Some(text) = table.text("default-target").and_then(|text| text.checked(rules::target)) {
            self.default_target = Some(text.sourced());
        }
    }

    fn add_kernel(&mut self, item: &Item) {
        let Some(table) = item.table(&["initramfs", "initramfs-args"]) else { return };
        let new = Kernel { initramfs: true, initramfs_args: Vec::new() };
        let kernel = self.kernel.get_or_insert(Sourced { value: new, origin: item.origin() });
        kernel.origin = item.origin();
        kernel.value.initramfs = table.boolean("initramfs").unwrap_or(kernel.value.initramfs);
        kernel.value.initramfs_args.extend(table.texts("initramfs-args").into_iter().map(|text| text.value));
    }
}

type Rule = fn(&str) -> Result<(), Objection>;

fn required(table: &Table, key: &'static str, rule: Rule) -> Option<String> {
    Some(table.require(key)?.text()?.checked(rule)?.value)
}

/// A key's text, or the default; nothing if the text is refused.
fn optional(table: &Table, key: &'static str, default: &str, rule: Rule) -> Option<String> {
    match table.get(key) {
        Some(item) => Some(item.text()?.checked(rule)?.value),
        None => Some(default.to_owned()),
    }
}

fn add_texts(list: &mut Vec<Sourced<String>>, table: &Table, key: &'static str, rule: Rule) {
    for text in table.texts(key).into_iter().filter_map(|text| text.checked(rule)) {
        push_once(list, &text);
    }
}

fn units<'a>(table: &Table<'a>, key: &'static str) -> impl Iterator<Item = Text<'a>> {
    table.texts(key).into_iter().filter_map(|text| text.checked(rules::unit))
}

fn group(table: &Table) -> Option<Group> {
    let name = required(table, "name", rules::account_name);
    let gid = table.get("gid").and_then(|item| item.integer());
    let members = table.texts("members").into_iter().filter_map(|text| text.checked(rules::account_name));
    let members = members.map(|text| text.value).collect();
    Some(Group { name: name?, gid, members })
}

fn user(table: &Table) -> Option<User> {
    let name = required(table, "name", rules::account_name);
    let uid = table.get("uid").and_then(|item| item.integer());
    let group = table.text("group").and_then(|text| text.checked(rules::account));
    let comment = optional(table, "comment", "", rules::passwd_field);
    let home = optional(table, "home", "/", rules::home);
    let shell = optional(table, "shell", "/sbin/nologin", rules::home);
    Some(User {
        name: name?,
        uid,
        group: group.map(|text| text.value),
        comment: comment?,
        home: home?,
        shell: shell?,
    })
}

fn file(table: &Table) -> Option<File> {
    let path = required(table, "path", rules::rootfs_path);
    let content = file_content(table);
    let mode = match table.get("mode") {
        Some(item) => item.text().and_then(|text| text.check(rules::mode)),
        None => Some(0o644),
    };
    let user = optional(table, "user", "root", rules::account);
    let group = optional(table, "group", "root", rules::account);
    Some(File { path: path?, content: content?, mode: mode?, user: user?, group: group? })
}

fn file_content(table: &Table) -> Option<FileContent> {
    let kinds = ["content", "source", "append"].map(|key| table.get(key));
    let expand = table.boolean("expand").unwrap_or(false);
    match kinds {
        [Some(content), None, None] => Some(FileContent::Text(body(&content, expand)?)),
        [None, None, Some(append)] => Some(FileContent::Append(body(&append, expand)?)),
        [None, Some(source), None] => {
            if let Some(item) = table.get("expand").filter(|_| expand) {
                item.report("variables are not expanded in a `source` file");
            }
            Some(FileContent::Source(source.text()?.existing_file()?))
        }
        [None, None, None] => {
            table.report("the file has no `content`, `source` or `append`");
            None
        }
        _ => {
            let objection = Objection::new("the file's content is given more than once");
            table.report(objection.hint("keep one of `content`, `source` and `append`"));
            None
        }
    }
}

/// A text whose dollar signs are its own unless the manifest says otherwise.
fn body(item: &Item, expand: bool) -> Option<String> {
    let text = if expand { item.text_or_empty() } else { item.verbatim() };
    text.map(|text| text.value)
}

fn script(table: &Table) -> Option<Script> {
    let name = required(table, "name", rules::one_line);
    let reason = table.require("reason").and_then(|item| item.text());
    let body = script_body(table);
    let interpreter = match table.get("interpreter") {
        Some(item) => item.some_texts().into_iter().map(|text| text.value).collect(),
        None => body.as_deref().map(default_interpreter).unwrap_or_default(),
    };
    Some(Script { name: name?, reason: reason?.value, interpreter, body: body? })
}

fn script_body(table: &Table) -> Option<String> {
    let expand = table.boolean("expand").unwrap_or(false);
    match (table.get("body"), table.get("source")) {
        (Some(item), None) => body(&item, expand),
        (None, Some(source)) => {
            let source = source.text()?;
            let path = source.existing_file()?;
            let text = std::fs::read_to_string(&path);
            text.map_err(|e| source.report(format!("reading {}: {e}", path.display()))).ok()
        }
        (None, None) => {
            table.report("the script has neither `body` nor `source`");
            None
        }
        (Some(_), Some(_)) => {
            table.report(Objection::new("the script has both `body` and `source`").hint("keep one of them"));
            None
        }
    }
}

/// What the `#!` line says, as the kernel reads it: a program and at most one argument (execve(2)).
fn default_interpreter(body: &str) -> Vec<String> {
    let line =
        body.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim).unwrap_or_default();
    match line.split_once(char::is_whitespace) {
        _ if line.is_empty() => vec!["/bin/sh".to_owned(), "-eu".to_owned()],
        Some((program, argument)) => vec![program.to_owned(), argument.trim().to_owned()],
        None => vec![line.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters() {
        for (body, words) in [
            ("true\n", vec!["/bin/sh", "-eu"]),
            ("#!/bin/bash\ntrue", vec!["/bin/bash"]),
            ("#! /usr/bin/env  bash -e\n", vec!["/usr/bin/env", "bash -e"]),
            ("#!\n", vec!["/bin/sh", "-eu"]),
            ("", vec!["/bin/sh", "-eu"]),
        ] {
            assert_eq!(default_interpreter(body), words, "{body}");
        }
    }
}
