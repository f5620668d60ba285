//! `/var`: directories, links and packaged files are declared in tmpfiles.d(5), stray files go. `/run` and `/tmp`, which
//! begin empty at each boot: all is declared that can be, and goes.

use anyhow::Result;
use rustix::fs::FileType;

use super::{Action, Composed, Repair};
use crate::accounts::Accounts;
use crate::rootfs::{Rootfs, Stat};
use crate::tmpfiles::{self, Declared, escaped};

/// Directory whose files stay though no package ships them: scriptlets of the layers above build on them.
const KEPT: &str = "/var/lib/alternatives";

/// Where the copies are, by path, of which tmpfiles.d makes files that a machine does not have yet.
const COPIES: &str = "/usr/lib/strata";

/// The largest file, in bytes, of which there is a copy.
const MAX_COPY: u64 = 16 << 20;

/// Directories whose content a machine never sees, for other file systems are mounted there.
const VOLATILE: [&str; 2] = ["/run", "/tmp"];

/// Declares the directories and links of `/var`, `/run` and `/tmp` that no tmpfiles.d file makes. Removes files of
/// `/var` that no package ships, and everything in the others.
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
    forget(rootfs, "/var")?;
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
            if path == self.composed.rpmdb {
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
        if !self.makes(path)? {
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
        if !volatile && (files.is_packaged(&path) || path.starts_with(&format!("{KEPT}/"))) {
            return self.provide(&path);
        }
        if volatile && self.makes(&path)? {
            return Ok(());
        }
        let mut aliases = self.aliases.iter().filter_map(|(link, target)| {
            let rest = path.strip_prefix(target.as_str()).filter(|rest| rest.starts_with('/'))?;
            Some(format!("{link}{rest}"))
        });
        if let Some(alias) = aliases.find(|alias| files.is_packaged(alias)) {
            self.report(&alias, Action::Left);
            return Ok(());
        }
        self.report(&path, Action::Removed);
        self.composed.rootfs.remove_all(&path)?;
        Ok(())
    }

    /// Has tmpfiles.d make a file of a copy of it. A copy that a layer below made is brought up to date.
    fn provide(&mut self, path: &str) -> Result<()> {
        let rootfs = self.composed.rootfs;
        let copy = format!("{COPIES}{path}");
        let before = rootfs.lstat(&copy)?;
        if before.is_none() && self.makes(path)? {
            return Ok(());
        }
        let Some(stat) = rootfs.lstat(path)?.filter(|stat| stat.file_type() == FileType::RegularFile) else {
            return Ok(());
        };
        if stat.size > MAX_COPY {
            self.report(path, Action::Left);
            return Ok(());
        }
        let access = |stat: &Stat| (stat.uid, stat.gid, stat.mode);
        let bytes = rootfs.read(path)?;
        if before.as_ref().map(access) != Some(access(&stat)) || rootfs.read(&copy)? != bytes {
            rootfs.write(&copy, &bytes.unwrap_or_default(), 0o600)?;
            rootfs.set_owner_mode(&copy, stat.uid, stat.gid, stat.mode & 0o7777)?;
        }
        self.declare(path, &format!("C {} - - - - {}\n", escaped(path), copy.replace('%', "%%")))
    }

    /// Whether a tmpfiles.d file makes the path.
    fn makes(&self, path: &str) -> Result<bool> {
        self.declared.makes(path, |source| Ok(self.composed.rootfs.lstat(source)?.is_some()))
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

/// Removes the copies of files below `dir` that are gone: systemd-tmpfiles skips lines that name no source.
fn forget(rootfs: &Rootfs, dir: &str) -> Result<()> {
    for name in rootfs.list(&format!("{COPIES}{dir}"))?.unwrap_or_default() {
        let path = format!("{dir}/{name}");
        match rootfs.lstat(&path)?.map(|stat| stat.file_type()) {
            Some(FileType::Directory) => forget(rootfs, &path)?,
            Some(_) => {}
            None => _ = rootfs.remove_all(&format!("{COPIES}{path}"))?,
        }
    }
    Ok(())
}

/// What the rootfs's tmpfiles.d files make.
fn declared(rootfs: &Rootfs) -> Result<Declared> {
    let mut files = Vec::new();
    for dir in tmpfiles::DIRECTORIES {
        for path in rootfs.glob(&format!("/{dir}/*.conf"))? {
            // a link to /dev/null, which leads nowhere here, is as good as an empty file
            let text = rootfs.read(&path)?.unwrap_or_default();
            files.push((path, text));
        }
    }
    let mut declared = Declared::of(files.iter().map(|(path, text)| (path.as_str(), text.as_slice())));
    declared.place(|path| {
        let (parent, name) = path.rsplit_once('/').unwrap_or_default();
        let real = rootfs.real_dir(if parent.is_empty() { "/" } else { parent })?;
        anyhow::Ok(
            real.map_or_else(|| path.to_owned(), |real| format!("{}/{name}", real.trim_end_matches('/'))),
        )
    })?;
    Ok(declared)
}
