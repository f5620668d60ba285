//! SELinux labels of files, as an installed policy has them (libselinux: `selabel_file(5)`, `label_file.c`).
//!
//! The policy of `/etc/selinux/config` says in `file_contexts`, then `.homedirs`, then `.local`, which context the
//! paths have that a regular expression matches as a whole. The last that matches wins, but one without special
//! characters wins over all that have some. Before that `.subs` and `.subs_dist` put one path in the place of another.
//!
//! Expressions are those of PCRE. Of these the crate regex has all but look-around and back references, which policies
//! do without; one that has them is an error here.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use regex::bytes::Regex;

use crate::error::hinted;
use crate::image::delta::Kind;
use crate::rootfs::Rootfs;

/// The attribute of a file that holds its context, with a NUL at its end.
pub const XATTR: &str = "security.selinux";

const CONFIG: &str = "/etc/selinux/config";

/// The contexts of a policy.
#[derive(Debug, Default)]
pub struct Contexts {
    /// Those that win over others last: in the order of the files, those without special characters at the end.
    specs: Vec<Spec>,
    /// Of `.subs`, then of `.subs_dist`.
    substitutions: [Vec<(String, String)>; 2],
}

#[derive(Debug)]
struct Spec {
    /// What every path begins with that the expression matches.
    prefix: Vec<u8>,
    expression: Regex,
    /// None for files of all kinds.
    kind: Option<FileKind>,
    /// None for files that get no label.
    context: Option<String>,
    is_plain: bool,
}

/// The kinds of files that an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Directory,
    Regular,
    Symlink,
    /// A device, socket or pipe.
    Other,
}

impl Contexts {
    /// Reads the policy that is installed in `rootfs`. None if there is none.
    pub fn read(rootfs: &Rootfs) -> Result<Option<Self>> {
        let text = |path: &str| -> Result<Option<String>> {
            let text = rootfs.read(path)?.map(String::from_utf8).transpose();
            text.with_context(|| format!("reading {path}: it is not UTF-8"))
        };
        let config = text(CONFIG)?.unwrap_or_default();
        let Some(policy) = policy_name(&config) else { return Ok(None) };
        let path = |suffix: &str| format!("/etc/selinux/{policy}/contexts/files/file_contexts{suffix}");
        if text(&path(""))?.is_none() {
            return Ok(None);
        }
        let mut contexts = Self::default();
        for path in ["", ".homedirs", ".local"].map(path) {
            contexts.add(&text(&path)?.unwrap_or_default()).with_context(|| format!("reading {path}"))?;
        }
        contexts.specs.sort_by_key(|spec| spec.is_plain);
        for (list, suffix) in contexts.substitutions.iter_mut().zip([".subs", ".subs_dist"]) {
            *list = substitutions(&text(&path(suffix))?.unwrap_or_default());
        }
        Ok(Some(contexts))
    }

    fn add(&mut self, text: &str) -> Result<()> {
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_some_and(|word| !word.starts_with('#')) {
                self.specs.push(spec(&words).with_context(|| format!("line {}: `{line}`", number + 1))?);
            }
        }
        Ok(())
    }

    /// The context of the file at `path`, relative to the root. None if the policy gives it none.
    pub fn of(&self, path: &Path, kind: &Kind) -> Option<&str> {
        let kind = match kind {
            Kind::Directory => FileKind::Directory,
            Kind::File { .. } | Kind::HardLink { .. } | Kind::Whiteout => FileKind::Regular,
            Kind::Symlink { .. } => FileKind::Symlink,
        };
        let path = [b"/", path.as_os_str().as_bytes()].concat();
        let path = self.substitutions.iter().fold(path, |path, list| substitute(list, path));
        let matching = |spec: &&Spec| {
            spec.kind.is_none_or(|wanted| wanted == kind)
                && path.starts_with(&spec.prefix)
                && spec.expression.is_match(&path)
        };
        self.specs.iter().rev().find(matching)?.context.as_deref()
    }
}

/// `SELINUXTYPE` of a configuration.
fn policy_name(config: &str) -> Option<&str> {
    let mut named = config.lines().filter_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    named.next_back().map(str::trim).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// A line of a `file_contexts`: expression, perhaps kind, context.
fn spec(words: &[&str]) -> Result<Spec> {
    let (expression, kind, context) = match words {
        [expression, context] => (expression, None, context),
        [expression, kind, context] => (expression, Some(file_kind(kind)?), context),
        _ => bail!("it has {} words, expected 2 or 3", words.len()),
    };
    let compiled = Regex::new(&format!("(?s-u)^{expression}$"));
    let (mut prefix, special) = literal(expression);
    if special.starts_with(['?', '*', '{']) {
        // it says how often the character before it is there
        prefix.pop();
    }
    if special.contains('|') {
        // outside of brackets, which is not told apart here, it has another beginning
        prefix.clear();
    }
    Ok(Spec {
        prefix: prefix.into_bytes(),
        expression: compiled
            .map_err(|error| hinted(error.to_string(), "strata reads no look-around or back references"))?,
        kind,
        context: (*context != "<<none>>").then(|| (*context).to_owned()),
        is_plain: special.is_empty(),
    })
}

fn file_kind(word: &str) -> Result<FileKind> {
    Ok(match word {
        "--" => FileKind::Regular,
        "-d" => FileKind::Directory,
        "-l" => FileKind::Symlink,
        "-b" | "-c" | "-p" | "-s" => FileKind::Other,
        _ => bail!("`{word}` is no kind of files: expected one of -- -b -c -d -l -p -s"),
    })
}

/// What an expression begins with that stands for itself, and what follows from the first special character on.
fn literal(expression: &str) -> (String, &str) {
    let mut literal = String::new();
    let mut rest = expression.chars();
    loop {
        let special = rest.as_str();
        match rest.next() {
            None | Some('.' | '^' | '$' | '?' | '*' | '+' | '|' | '[' | '(' | '{') => {
                return (literal, special);
            }
            // it takes the meaning from a special character
            Some('\\') => literal.extend(rest.next()),
            Some(character) => literal.push(character),
        }
    }
}

/// Lines of a path and what stands for it.
fn substitutions(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = (words.next()?, words.next()?);
        (!from.starts_with('#')).then(|| (from.to_owned(), to.to_owned()))
    });
    pairs.collect()
}

/// Puts another path in the place of that at the beginning of `path`, if a pair has it; the last that has.
fn substitute(list: &[(String, String)], path: Vec<u8>) -> Vec<u8> {
    let rest = |from: &str| {
        path.strip_prefix(from.as_bytes()).filter(|rest| rest.first().is_none_or(|b| *b == b'/'))
    };
    match list.iter().rev().find_map(|(from, to)| rest(from).map(|rest| [to.as_bytes(), rest].concat())) {
        Some(other) => other,
        None => path,
    }
}
