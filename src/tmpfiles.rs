//! tmpfiles.d(5): what its files make at each boot (systemd: `src/tmpfiles/tmpfiles.c`).

use std::collections::{BTreeMap, BTreeSet};

use crate::sysusers::words;

/// Where the files are, relative to the root: one takes the place of those of the same name in a directory before.
pub const DIRECTORIES: [&str; 3] = ["usr/lib/tmpfiles.d", "usr/local/lib/tmpfiles.d", "etc/tmpfiles.d"];

/// Types of lines that make their path.
const MAKERS: &str = "dDvqQfFLCpcb";

/// The paths that tmpfiles.d files make.
#[derive(Debug, Default)]
pub struct Declared {
    paths: BTreeSet<String>,
    /// Trees that are copied: to, and from.
    copies: Vec<(String, String)>,
}

impl Declared {
    /// Reads files, each with its path, in the order of [`DIRECTORIES`]. A line that can't be read makes nothing.
    pub fn of<'t>(files: impl IntoIterator<Item = (&'t str, &'t [u8])>) -> Self {
        let name = |path: &'t str| path.rsplit('/').next().unwrap_or(path);
        let files: BTreeMap<&str, &[u8]> = files.into_iter().map(|(path, text)| (name(path), text)).collect();
        let mut declared = Self::default();
        for text in files.values() {
            String::from_utf8_lossy(text).lines().for_each(|line| declared.add(line));
        }
        declared
    }

    fn add(&mut self, line: &str) {
        let Ok(words) = words(line.trim()) else { return };
        let [kind, path, rest @ ..] = words.as_slice() else { return };
        let Some(path) = resolved(path).filter(|_| kind.starts_with(|c| MAKERS.contains(c))) else { return };
        if kind.starts_with('C') {
            let given = rest.get(4).filter(|source| *source != "-").and_then(|source| resolved(source));
            let source = given.unwrap_or_else(|| format!("/usr/share/factory{path}"));
            self.copies.push((path.clone(), source));
        }
        self.paths.insert(path);
    }

    /// Adds to each path the one it has without links on the way, as `real` tells: `/root/.ssh` is
    /// `/var/roothome/.ssh` where `/root` is a link to that.
    pub fn place<E>(&mut self, real: impl Fn(&str) -> Result<String, E>) -> Result<(), E> {
        let placed: Vec<String> = self.paths.iter().map(|path| real(path)).collect::<Result<_, E>>()?;
        self.paths.extend(placed);
        Ok(())
    }

    /// Whether they make `path`, by itself or with a tree that is copied, in which `exists` knows its way.
    pub fn makes<E>(&self, path: &str, exists: impl Fn(&str) -> Result<bool, E>) -> Result<bool, E> {
        if self.paths.contains(path) {
            return Ok(true);
        }
        for (to, from) in &self.copies {
            if let Some(rest) = path.strip_prefix(to.as_str()).filter(|rest| rest.starts_with('/'))
                && exists(&format!("{from}{rest}"))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The path that is meant: with the specifiers that are the same on every machine, and without `/var/run`, which
/// stands for `/run`. None if it depends on the machine.
fn resolved(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match if c == '%' { chars.next()? } else { '\0' } {
            '\0' => out.push(c),
            '%' => out.push('%'),
            'C' => out.push_str("/var/cache"),
            'L' => out.push_str("/var/log"),
            'S' => out.push_str("/var/lib"),
            'T' => out.push_str("/tmp"),
            'V' => out.push_str("/var/tmp"),
            't' => out.push_str("/run"),
            _ => return None,
        }
    }
    let path = out.trim_end_matches('/');
    let run = path.strip_prefix("/var/run/").map(|rest| format!("/run/{rest}"));
    let path = run.unwrap_or_else(|| path.to_owned());
    path.starts_with('/').then_some(path)
}

/// A path as tmpfiles.d takes it: no specifiers, in quotes if it needs any. Blanks could be written as escapes, but
/// systemd reads these only from version 253 on. (The target of a link is the rest of its line as it is.)
pub fn escaped(path: &str) -> String {
    let mut quoted = String::new();
    for c in path.chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '\\' | '"' => quoted.extend(['\\', c]),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    let plain = !path.contains(|c: char| c.is_whitespace() || c.is_control() || "\\\"'".contains(c));
    if plain { quoted } else { format!("\"{quoted}\"") }
}
