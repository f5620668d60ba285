//! `/var`: directories and links are declared in tmpfiles.d(5), stray files go.

use std::collections::BTreeSet;

use anyhow::Result;
use rustix::fs::FileType;

use super::{Action, Composed, Repair};
use crate::accounts::Accounts;
use crate::rootfs::{Rootfs, Stat};
use crate::sysusers::words;

/// Files that stay though no package ships them: scriptlets of the layers above build on them.
const KEPT: [&str; 1] = ["/var/lib/alternatives"];

/// Types of tmpfiles.d lines that make their path.
const MAKERS: &str = "dDvqQfFLCpcb";

/// Declares the directories and links of `/var` that no tmpfiles.d file makes, and removes files that no
/// package ships.
pub fn apply(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    let rootfs = composed.rootfs;
    let mut walk = Walk {
        composed,
        aliases: aliases(rootfs)?,
        declared: declared(rootfs)?,
        accounts: Accounts::read(rootfs)?,
        lines: String::new(),
        repairs: Vec::new(),
    };
    walk.directory("/var")?;
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
    /// Paths that tmpfiles.d makes.
    declared: BTreeSet<String>,
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
                    self.declare(&path, &self.directory_line(&path, &stat));
                    self.directory(&path)?;
                }
                FileType::Symlink => {
                    let target = rootfs.read_link(&path)?.unwrap_or_default();
                    self.declare(&path, &format!("L {} - - - - {}\n", escaped(&path), escaped(&target)));
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

    fn declare(&mut self, path: &str, line: &str) {
        if !self.declared.contains(path) {
            self.lines.push_str(line);
            self.report(path, Action::DeclaredTmpfiles);
        }
    }

    /// A file that a package knows as one in `/var` is there for the first boot; one that it knows by another
    /// path (`/opt` is often a link to `/var/opt`) was never meant to be a machine's own.
    fn file(&mut self, path: String) -> Result<()> {
        let files = self.composed.files;
        let mut aliases = self.aliases.iter().filter_map(|(link, target)| {
            let rest = path.strip_prefix(target.as_str()).filter(|rest| rest.starts_with('/'))?;
            Some(format!("{link}{rest}"))
        });
        if files.is_packaged(&path) {
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
        let package = self.composed.files.near(path).map(str::to_owned);
        self.repairs.push(Repair { subject: path.to_owned(), package, action });
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

/// The paths that the rootfs's tmpfiles.d files make. A line that can't be read makes nothing.
fn declared(rootfs: &Rootfs) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for dir in ["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d"] {
        for file in rootfs.glob(&format!("{dir}/*.conf"))? {
            let text = rootfs.read(&file)?.unwrap_or_default();
            paths.extend(String::from_utf8_lossy(&text).lines().filter_map(made_by));
        }
    }
    Ok(paths)
}

/// The path that a tmpfiles.d line makes.
fn made_by(line: &str) -> Option<String> {
    let words = words(line.trim()).ok()?;
    let [kind, path, ..] = words.as_slice() else { return None };
    let makes = kind.starts_with(|c| MAKERS.contains(c)) && path.starts_with('/');
    makes.then(|| path.trim_end_matches('/').replace("%%", "%"))
}

/// A path as tmpfiles.d takes it: no specifiers, blanks and quotes escaped.
fn escaped(path: &str) -> String {
    let escape = |c: char| match c {
        '%' => "%%".to_owned(),
        '\\' | '"' | '\'' => format!("\\x{:02x}", u32::from(c)),
        c if c.is_ascii_whitespace() || c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
        c => c.to_string(),
    };
    path.chars().map(escape).collect()
}
