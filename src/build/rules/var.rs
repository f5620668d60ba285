//! `/var`: directories and links are declared in tmpfiles.d(5), stray files go. `/run` and `/tmp`, which begin empty
//! at each boot: all is declared that can be, and goes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use rustix::fs::FileType;

use super::{Action, Composed, Repair};
use crate::accounts::Accounts;
use crate::rootfs::{Rootfs, Stat};
use crate::sysusers::words;

/// Files that stay though no package ships them: scriptlets of the layers above build on them.
const KEPT: [&str; 1] = ["/var/lib/alternatives"];

/// Directories whose content a machine never sees, for other file systems are mounted there.
const VOLATILE: [&str; 2] = ["/run", "/tmp"];

/// Types of tmpfiles.d lines that make their path.
const MAKERS: &str = "dDvqQfFLCpcb";

/// Declares the directories and links of `/var`, `/run` and `/tmp` that no tmpfiles.d file makes. Removes files of
/// `/var` that no package ships, and everything in the others.
pub fn apply(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    let rootfs = composed.rootfs;
    let mut walk = Walk {
        composed,
        aliases: aliases(rootfs)?,
        declared: Declared::read(rootfs)?,
        accounts: Accounts::read(rootfs)?,
        lines: String::new(),
        repairs: Vec::new(),
    };
    walk.directory("/var")?;
    for dir in VOLATILE {
        // a link leads to another place, which is looked at there
        if rootfs.read_link(dir)?.is_none() {
            walk.directory(dir)?;
            for name in rootfs.list(dir)?.unwrap_or_default() {
                rootfs.remove_all(&format!("{dir}/{name}"))?;
            }
        }
    }
    let Walk { lines, repairs, .. } = walk;
    if !lines.is_empty() {
        let path = format!("/usr/lib/tmpfiles.d/strata-{}.conf", composed.layer);
        rootfs.write(&path, lines.as_bytes(), 0o644)?;
    }
    Ok(repairs)
}

/// A walk through `/var`.
struct Walk<'a> {
    composed: &'a Composed<'a>,
    /// Links into `/var` and where they lead: packages may know a file by such a path.
    aliases: Vec<(String, String)>,
    declared: Declared,
    accounts: Accounts,
    /// The tmpfiles.d lines to add.
    lines: String,
    repairs: Vec<Repair>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &str) -> Result<()> {
        let rootfs = self.composed.rootfs;
        for name in rootfs.list(dir)?.unwrap_or_default() {
            let path = format!("{dir}/{name}");
            if path == self.composed.rpmdb || KEPT.contains(&path.as_str()) {
                continue;
            }
            let Some(stat) = rootfs.lstat(&path)? else { continue };
            match stat.file_type() {
                FileType::Directory => {
                    self.declare(&path, &self.directory_line(&path, &stat))?;
                    self.directory(&path)?;
                }
                FileType::Symlink => {
                    let target = rootfs.read_link(&path)?.unwrap_or_default();
                    self.declare(
                        &path,
                        &format!("L {} - - - - {}\n", escaped(&path), target.replace('%', "%%")),
                    )?;
                }
                _ => self.file(path)?,
            }
        }
        Ok(())
    }

    fn directory_line(&self, path: &str, stat: &Stat) -> String {
        let user = self.accounts.user_of(stat.uid).map_or_else(|| stat.uid.to_string(), str::to_owned);
        let group = self.accounts.group_of(stat.gid).map_or_else(|| stat.gid.to_string(), str::to_owned);
        format!("d {} {:04o} {user} {group} - -\n", escaped(path), stat.mode & 0o7777)
    }

    fn declare(&mut self, path: &str, line: &str) -> Result<()> {
        if !self.declared.makes(self.composed.rootfs, path)? {
            self.lines.push_str(line);
            self.report(path, Action::DeclaredTmpfiles);
        }
        Ok(())
    }

    /// A file that a package knows as one in `/var` is there for the first boot; one that it knows by another
    /// path (`/opt` is often a link to `/var/opt`) was never meant to be a machine's own.
    fn file(&mut self, path: String) -> Result<()> {
        let files = self.composed.files;
        let volatile = VOLATILE.iter().any(|dir| path.starts_with(&format!("{dir}/")));
        if volatile && self.declared.makes(self.composed.rootfs, &path)? {
            return Ok(());
        }
        let mut aliases = self.aliases.iter().filter_map(|(link, target)| {
            let rest = path.strip_prefix(target.as_str()).filter(|rest| rest.starts_with('/'))?;
            Some(format!("{link}{rest}"))
        });
        if files.is_packaged(&path) && !volatile {
            return Ok(());
        }
        if let Some(alias) = aliases.find(|alias| files.is_packaged(alias)) {
            self.report(&alias, Action::Left);
            return Ok(());
        }
        self.report(&path, Action::Removed);
        self.composed.rootfs.remove_all(&path)?;
        Ok(())
    }

    fn report(&mut self, path: &str, action: Action) {
        self.repairs.push(Repair::of(self.composed, path.to_owned(), action));
    }
}

/// Links below the root, in `/usr/local` and `/var` that lead to directories in `/var`.
fn aliases(rootfs: &Rootfs) -> Result<Vec<(String, String)>> {
    let mut aliases = Vec::new();
    for pattern in ["/*", "/usr/local", "/usr/local/*", "/var/*"] {
        for link in rootfs.glob(pattern)? {
            if rootfs.read_link(&link)?.is_some()
                && let Some(target) = rootfs.real_dir(&link)?.filter(|target| target.starts_with("/var/"))
            {
                aliases.push((link, target));
            }
        }
    }
    Ok(aliases)
}

/// What the rootfs's tmpfiles.d files make.
#[derive(Default)]
struct Declared {
    paths: BTreeSet<String>,
    /// Trees that are copied: to, and from.
    copies: Vec<(String, String)>,
}

impl Declared {
    /// A file takes the place of one of the same name in a directory before its own. A line that can't be read makes nothing.
    fn read(rootfs: &Rootfs) -> Result<Self> {
        let mut files = BTreeMap::new();
        for dir in ["/usr/lib/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/etc/tmpfiles.d"] {
            for file in rootfs.glob(&format!("{dir}/*.conf"))? {
                files.insert(file[dir.len()..].to_owned(), file);
            }
        }
        let mut declared = Self::default();
        for file in files.values() {
            // a link to /dev/null, which leads nowhere here, is as good as an empty file
            let text = rootfs.read(file)?.unwrap_or_default();
            String::from_utf8_lossy(&text).lines().for_each(|line| declared.add(line));
        }
        Ok(declared)
    }

    fn add(&mut self, line: &str) {
        let Ok(words) = words(line.trim()) else { return };
        let [kind, path, rest @ ..] = words.as_slice() else { return };
        let Some(path) = resolved(path).filter(|_| kind.starts_with(|c| MAKERS.contains(c))) else { return };
        if kind.starts_with('C') {
            let given = rest.get(3).filter(|source| *source != "-").and_then(|source| resolved(source));
            let source = given.unwrap_or_else(|| format!("/usr/share/factory{path}"));
            self.copies.push((path.clone(), source));
        }
        self.paths.insert(path);
    }

    /// Whether they make `path`, by itself or with a tree that is copied.
    fn makes(&self, rootfs: &Rootfs, path: &str) -> Result<bool> {
        if self.paths.contains(path) {
            return Ok(true);
        }
        for (to, from) in &self.copies {
            if let Some(rest) = path.strip_prefix(to.as_str()).filter(|rest| rest.starts_with('/'))
                && rootfs.lstat(&format!("{from}{rest}"))?.is_some()
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
fn escaped(path: &str) -> String {
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
