//! What becomes of each file of a transaction, decided before any is touched (rpm: `lib/transaction.c`,
//! `lib/rpmfi.c`).
//!
//! Paths are compared after symbolic links in their directories are resolved: with `/lib -> usr/lib`, the
//! files `/lib/x` and `/usr/lib/x` are one. Links count whether they are on disk already or come with the
//! transaction.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use rpm::FileFlags;
use rustix::fs::FileType;

use super::payload::digest_of;
use super::{Package, file_type, has};
use crate::package::header::FileEntry;
use crate::rootfs::{Rootfs, Stat, split};

/// What becomes of one file of a package that is installed or erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Put in its place.
    Create,
    /// There already, with the same content: gets its owner, mode and time only. Made anew if it has gone.
    Touch,
    /// Somebody else's business: shared, or kept as it is.
    Skip,
    /// Not installed, and recorded with this file state.
    Exclude(State),
    /// Put beside the configuration that stands there, as `.rpmnew`.
    AltName,
    /// What is there is renamed to `.rpmsave` first; on erase, instead of being removed.
    Save,
    /// What is there belongs to no package; it is renamed to `.rpmorig` first.
    Backup,
    /// Removed.
    Erase,
}

/// FILESTATES that strata writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Normal = 0,
    NotInstalled = 2,
    WrongColor = 4,
}

impl Fate {
    /// Whether the file neither comes nor goes.
    pub fn skips(self) -> bool {
        matches!(self, Fate::Skip | Fate::Exclude(_))
    }
}

/// ELF colours installed at all, and the one that wins where two want the same path: 64-bit.
pub(super) const TRANSACTION_COLOR: u32 = 3;
const PREFERRED_COLOR: u32 = 2;

/// Which files of a package are wanted.
pub(super) struct Wanted<'a> {
    /// Documentation too.
    pub docs: bool,
    /// Languages; all when absent.
    pub langs: Option<&'a [String]>,
}

/// What a transaction does to files.
pub(super) struct Fates {
    /// By package, then by file; empty for packages that are not part of the transaction.
    pub files: Vec<Vec<Fate>>,
    /// New states of files of installed packages: package, file, state.
    pub restated: Vec<(usize, usize, State)>,
}

/// A file: package, and index in its file list.
type Place = (usize, usize);

/// Decides for `installs` and `erases` (indices into `packages`, in transaction order), given all other
/// packages that are `present`. Conflicts are an error that names all of them.
pub(super) fn decide(
    rootfs: &Rootfs,
    packages: &[Package],
    present: &[bool],
    installs: &[usize],
    erases: &[usize],
    wanted: &Wanted,
) -> Result<Fates> {
    let mut decider = Decider {
        rootfs,
        packages,
        erasing: erases,
        resolver: Resolver::new(rootfs, installs.iter().map(|&p| &packages[p]))?,
        fates: vec![Vec::new(); packages.len()],
        owners: HashMap::new(),
        restated: Vec::new(),
        conflicts: Vec::new(),
    };
    for &package in installs {
        decider.fates[package] = wanted.apply(&packages[package].files);
        decider.register(package)?;
    }
    for &package in erases {
        decider.fates[package] = vec![None; packages[package].files.len()];
        decider.register(package)?;
    }
    for other in (0..packages.len()).filter(|&p| present[p]) {
        decider.against_installed(other)?;
    }
    for &package in installs {
        decider.install(package)?;
    }
    for &package in erases {
        decider.erase(package)?;
    }
    decider.finish()
}

impl Wanted<'_> {
    /// Excludes what the policy does not want. A directory the package owns goes too if nothing of the
    /// package is left in it.
    fn apply(&self, files: &[FileEntry]) -> Vec<Option<Fate>> {
        let mut fates: Vec<Option<Fate>> =
            files.iter().map(|f| self.excludes(f).map(Fate::Exclude)).collect();
        let by_path: HashMap<&str, usize> =
            files.iter().enumerate().map(|(i, f)| (f.path.as_str(), i)).collect();
        // directory -> files left and files excluded
        let mut directories: HashMap<&str, (usize, usize)> = HashMap::new();
        for (file, fate) in files.iter().zip(&fates) {
            let count = directories.entry(parent(&file.path)).or_default();
            if fate.is_none() { count.0 += 1 } else { count.1 += 1 }
        }
        let mut paths: Vec<&str> = directories.keys().copied().collect();
        // children before their parents
        paths.sort_by(|a, b| b.cmp(a));
        for path in paths {
            let emptied = matches!(directories[path], (0, 1..));
            let Some(&index) = by_path.get(path).filter(|_| emptied) else { continue };
            if fates[index].is_none() && file_type(files[index].mode) == FileType::Directory {
                fates[index] = Some(Fate::Exclude(State::NotInstalled));
                let count = directories.entry(parent(path)).or_default();
                *count = (count.0.saturating_sub(1), count.1 + 1);
            }
        }
        fates
    }

    fn excludes(&self, file: &FileEntry) -> Option<State> {
        if file.color != 0 && file.color & TRANSACTION_COLOR == 0 {
            return Some(State::WrongColor);
        }
        let wanted_lang = |langs: &[String]| {
            let mut offered = file.langs.split('|').filter(|lang| !lang.is_empty());
            offered.any(|offer| langs.iter().any(|lang| lang.starts_with(offer)))
        };
        let foreign = !file.langs.is_empty() && self.langs.is_some_and(|langs| !wanted_lang(langs));
        let unwanted = foreign || !self.docs && has(file, FileFlags::DOC);
        (unwanted && !has(file, FileFlags::LICENSE)).then_some(State::NotInstalled)
    }
}

fn parent(path: &str) -> &str {
    split(path).map_or("/", |(parent, _)| parent)
}

struct Decider<'a> {
    rootfs: &'a Rootfs,
    packages: &'a [Package],
    erasing: &'a [usize],
    resolver: Resolver<'a>,
    /// None: not yet decided.
    fates: Vec<Vec<Option<Fate>>>,
    /// Files of the transaction by resolved path, in transaction order.
    owners: HashMap<String, Vec<Place>>,
    restated: Vec<(usize, usize, State)>,
    conflicts: Vec<String>,
}

impl Decider<'_> {
    fn file(&self, (package, file): Place) -> &FileEntry {
        &self.packages[package].files[file]
    }

    fn fate(&self, (package, file): Place) -> Option<Fate> {
        self.fates[package][file]
    }

    fn set(&mut self, (package, file): Place, fate: Fate) {
        self.fates[package][file] = Some(fate);
    }

    fn is_skipped(&self, place: Place) -> bool {
        self.fate(place).is_some_and(Fate::skips)
    }

    fn resolve(&mut self, (package, file): Place) -> Result<String> {
        let package = &self.packages[package];
        let path = &package.files[file].path;
        self.resolver.path(path).with_context(|| format!("resolving {path} of {}", package.nevra()))
    }

    fn register(&mut self, package: usize) -> Result<()> {
        for file in 0..self.packages[package].files.len() {
            if !self.is_skipped((package, file)) {
                let path = self.resolve((package, file))?;
                self.owners.entry(path).or_default().push((package, file));
            }
        }
        Ok(())
    }

    /// Compares the files of an installed package with those of the transaction.
    fn against_installed(&mut self, other: usize) -> Result<()> {
        let leaving = self.erasing.contains(&other);
        for file in 0..self.packages[other].files.len() {
            let path = self.resolve((other, file))?;
            for place in self.owners.get(&path).cloned().unwrap_or_default() {
                if !self.erasing.contains(&place.0) {
                    self.over_installed(place, (other, file), leaving)?;
                } else if !leaving && self.packages[other].state(file) == State::Normal as u8 {
                    // still owned by somebody who stays
                    self.set(place, Fate::Skip);
                }
            }
        }
        Ok(())
    }

    /// A new file where an installed package has one.
    fn over_installed(&mut self, new: Place, old: Place, leaving: bool) -> Result<()> {
        if self.is_skipped(new) || self.packages[old.0].state(old.1) == State::NotInstalled as u8 {
            return Ok(());
        }
        let config = has(self.file(new), FileFlags::CONFIG) || has(self.file(old), FileFlags::CONFIG);
        if !self.same(old, new) && (!leaving || self.cannot_replace(old, new)?) {
            match self.by_color(new, old) {
                Some(true) => {
                    self.set(new, Fate::Create);
                    self.restated.push((old.0, old.1, State::WrongColor));
                }
                Some(false) => self.set(new, Fate::Exclude(State::WrongColor)),
                None => self.conflict(new, old),
            }
        }
        if config {
            let fate = self.config_fate(old, new)?;
            self.set(new, fate);
        }
        Ok(())
    }

    fn conflict(&mut self, a: Place, b: Place) {
        let [a_name, b_name] = [a, b].map(|p| self.packages[p.0].nevra().to_string());
        let path = &self.file(a).path;
        self.conflicts.push(format!("{path} of {a_name} conflicts with that of {b_name}"));
    }

    /// Of two different ELF files at one path, whether the first wins by colour; none if colour does not
    /// decide.
    fn by_color(&self, a: Place, b: Place) -> Option<bool> {
        let [a, b] = [a, b].map(|p| self.file(p).color & TRANSACTION_COLOR);
        match (a != 0 && b != 0 && a != b, a & PREFERRED_COLOR != 0, b & PREFERRED_COLOR != 0) {
            (true, true, _) => Some(true),
            (true, _, true) => Some(false),
            _ => None,
        }
    }

    /// Whether two packages may share a file (rpm: `rpmfilesCompare`). Times, capabilities and flags do not
    /// matter.
    fn same(&self, a: Place, b: Place) -> bool {
        let algorithm = |p: Place| self.packages[p.0].header.file_digest_algorithm();
        let (a_file, b_file) = (self.file(a), self.file(b));
        if has(a_file, FileFlags::GHOST) || has(b_file, FileFlags::GHOST) {
            return true;
        }
        let kind = file_type(a_file.mode);
        if (&a_file.user, &a_file.group) != (&b_file.user, &b_file.group) {
            return false;
        }
        if kind == FileType::Symlink && file_type(b_file.mode) == FileType::Symlink {
            return a_file.linkto == b_file.linkto;
        }
        a_file.mode == b_file.mode
            && match kind {
                FileType::RegularFile => {
                    a_file.size == b_file.size
                        && algorithm(a) == algorithm(b)
                        && a_file.digest == b_file.digest
                }
                FileType::CharacterDevice | FileType::BlockDevice => a_file.rdev == b_file.rdev,
                _ => true,
            }
    }

    /// Whether what a leaving package has can't make way: a directory for something else, or a link to a
    /// directory for a directory. A %pretrans may have changed it already.
    fn cannot_replace(&self, old: Place, new: Place) -> Result<bool> {
        let (old, new) = (self.file(old), self.file(new));
        let kind = file_type(new.mode);
        let blocked = match file_type(old.mode) {
            FileType::Directory => kind != FileType::Directory,
            FileType::Symlink => kind == FileType::Directory && self.rootfs.open_dir(&new.path)?.is_some(),
            _ => false,
        };
        Ok(blocked && self.rootfs.lstat(&new.path)?.is_some_and(|st| st.file_type() != kind))
    }

    /// A configuration file that an installed package has too (rpm: `rpmfilesDecideFate`).
    fn config_fate(&self, old: Place, new: Place) -> Result<Fate> {
        let (o, n) = (self.file(old), self.file(new));
        if has(n, FileFlags::GHOST) {
            return Ok(Fate::Skip);
        }
        let Some(on_disk) = self.rootfs.lstat(&n.path)? else {
            return Ok(if has(n, FileFlags::MISSINGOK) { Fate::Skip } else { Fate::Create });
        };
        let (kind, new_kind) = (file_type(o.mode), file_type(n.mode));
        if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
            return Ok(Fate::Create);
        }
        // where the type changes what is there counts as modified, even if it is as the new package has it
        if new_kind == kind && self.matches_disk(new, &on_disk)? {
            return Ok(Fate::Touch);
        }
        if self.matches_disk(old, &on_disk)? {
            return Ok(Fate::Create);
        }
        let unchanged = new_kind == kind && self.same_content(old, new);
        Ok(match has(n, FileFlags::CONFIG) {
            false => Fate::Save,
            true if unchanged => Fate::Skip,
            true if has(n, FileFlags::NOREPLACE) => Fate::AltName,
            true => Fate::Save,
        })
    }

    fn same_content(&self, a: Place, b: Place) -> bool {
        let algorithm = |p: Place| self.packages[p.0].header.file_digest_algorithm();
        let (a_file, b_file) = (self.file(a), self.file(b));
        match file_type(a_file.mode) {
            FileType::Symlink => a_file.linkto == b_file.linkto,
            _ => algorithm(a) == algorithm(b) && a_file.digest == b_file.digest,
        }
    }

    /// Whether the file on disk is of the package's type and has its content or target.
    fn matches_disk(&self, place: Place, on_disk: &Stat) -> Result<bool> {
        let file = self.file(place);
        let kind = file_type(file.mode);
        if on_disk.file_type() != kind {
            return Ok(false);
        }
        match kind {
            FileType::Symlink => Ok(self.rootfs.read_link(&file.path)?.as_ref() == Some(&file.linkto)),
            FileType::RegularFile if on_disk.size != file.size => Ok(false),
            FileType::RegularFile => {
                let Some(on_disk) = self.rootfs.open_file(&file.path)? else { return Ok(false) };
                let algorithm = self.packages[place.0].header.file_digest_algorithm();
                let found = digest_of(on_disk, algorithm)
                    .with_context(|| format!("comparing {} with the disk", file.path))?;
                Ok(found == file.digest)
            }
            _ => Ok(true),
        }
    }

    /// Whether a configuration file on disk is not what the package has (rpm: `rpmfilesConfigConflict`).
    fn is_modified_config(&self, place: Place) -> Result<bool> {
        let file = self.file(place);
        if !has(file, FileFlags::CONFIG) {
            return Ok(false);
        }
        let Some(on_disk) = self.rootfs.lstat(&file.path)? else { return Ok(false) };
        Ok(has(file, FileFlags::GHOST) || !self.matches_disk(place, &on_disk)?)
    }

    /// The latest owner of the same path before `place` in the transaction that already has a fate.
    fn earlier(&self, path: &str, place: Place) -> Option<Place> {
        let owners = self.owners.get(path)?;
        let at = owners.iter().position(|&p| p == place)?;
        owners[..at].iter().copied().rev().find(|&p| self.fate(p).is_some())
    }

    fn install(&mut self, package: usize) -> Result<()> {
        for file in 0..self.packages[package].files.len() {
            let place = (package, file);
            if self.is_skipped(place) {
                continue;
            }
            let path = self.resolve(place)?;
            let Some(other) = self.earlier(&path, place) else {
                if self.fate(place).is_none() {
                    let noreplace = has(self.file(place), FileFlags::NOREPLACE);
                    self.settle(place, if noreplace { Fate::AltName } else { Fate::Backup })?;
                }
                continue;
            };
            self.share(place, other);
            if !self.is_skipped(place) {
                let noreplace = has(self.file(place), FileFlags::NOREPLACE);
                self.settle(place, if noreplace { Fate::AltName } else { Fate::Skip })?;
            }
        }
        Ok(())
    }

    /// Gives the fate for a configuration file that differs on disk, or else creates what is undecided.
    fn settle(&mut self, place: Place, if_modified: Fate) -> Result<()> {
        if self.is_modified_config(place)? {
            self.set(place, if_modified);
        } else if self.fate(place).is_none() {
            self.set(place, Fate::Create);
        }
        Ok(())
    }

    /// A file another package of the transaction has too: the first one makes it.
    fn share(&mut self, place: Place, other: Place) {
        if self.same(other, place) {
            match self.fate(other) {
                Some(fate @ Fate::Exclude(State::WrongColor)) => self.set(place, fate),
                Some(fate) if !fate.skips() && !has(self.file(other), FileFlags::GHOST) => {
                    self.set(place, Fate::Skip);
                }
                _ => {}
            }
            return;
        }
        match self.by_color(place, other) {
            Some(true) => {
                self.set(other, Fate::Exclude(State::WrongColor));
                self.set(place, Fate::Create);
            }
            Some(false) => self.set(place, Fate::Exclude(State::WrongColor)),
            None => self.conflict(place, other),
        }
    }

    fn erase(&mut self, package: usize) -> Result<()> {
        for file in 0..self.packages[package].files.len() {
            let place = (package, file);
            let path = self.resolve(place)?;
            if let Some(other) = self.earlier(&path, place) {
                if self.fate(other) != Some(Fate::Erase) {
                    // installed anew, or saved
                    self.set(place, Fate::Skip);
                    continue;
                }
                // shared by two leaving packages: goes with the last
                self.set(other, Fate::Skip);
            }
            if self.is_skipped(place) {
                continue;
            }
            let fate = match self.packages[package].state(file) == State::Normal as u8 {
                false => Fate::Skip,
                true if self.is_modified_config(place)? => Fate::Save,
                true => Fate::Erase,
            };
            self.set(place, fate);
        }
        Ok(())
    }

    fn finish(self) -> Result<Fates> {
        ensure!(
            self.conflicts.is_empty(),
            "checking for file conflicts: {} found:\n  {}",
            self.conflicts.len(),
            self.conflicts.join("\n  ")
        );
        let decided = |fates: Vec<Option<Fate>>| fates.into_iter().map(|f| f.unwrap_or(Fate::Skip)).collect();
        Ok(Fates { files: self.fates.into_iter().map(decided).collect(), restated: self.restated })
    }
}

/// Resolves symbolic links in directories, those on disk and those the transaction brings.
struct Resolver<'a> {
    rootfs: &'a Rootfs,
    /// Links of packages to be installed, by path as packaged and as resolved.
    links: HashMap<String, String>,
    directories: HashMap<String, String>,
}

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl<'a> Resolver<'a> {
    fn new<'p>(rootfs: &'a Rootfs, installs: impl Iterator<Item = &'p Package>) -> Result<Self> {
        let is_link = |f: &&FileEntry| file_type(f.mode) == FileType::Symlink && !has(f, FileFlags::GHOST);
        let links: Vec<(String, String)> = installs
            .flat_map(|p| p.files.iter().filter(is_link))
            .map(|f| (f.path.clone(), f.linkto.clone()))
            .collect();
        let mut resolver =
            Self { rootfs, links: links.iter().cloned().collect(), directories: HashMap::new() };
        for (path, target) in links {
            // a link that can't be resolved harms nobody until a file is below it
            if let Ok(path) = resolver.path(&path) {
                resolver.links.insert(path, target);
            }
        }
        resolver.directories.clear();
        Ok(resolver)
    }

    /// `path` with its directory resolved; the last component is not followed.
    fn path(&mut self, path: &str) -> Result<String> {
        let (parent, name) = match split(path) {
            Ok(parts) => parts,
            Err(_) if path == "/" => return Ok("/".to_owned()),
            Err(e) => return Err(e),
        };
        Ok(join(&self.directory(parent, 0)?, name))
    }

    fn directory(&mut self, path: &str, links: usize) -> Result<String> {
        if path == "/" {
            return Ok("/".to_owned());
        }
        if let Some(known) = self.directories.get(path) {
            return Ok(known.clone());
        }
        let (parent, name) = split(path)?;
        let parent = self.directory(parent, links)?;
        let resolved = self.step(&parent, name, links)?;
        self.directories.insert(path.to_owned(), resolved.clone());
        Ok(resolved)
    }

    /// The directory `name` in the resolved directory `parent`.
    fn step(&mut self, parent: &str, name: &str, links: usize) -> Result<String> {
        let here = join(parent, name);
        let (target, packaged) = match self.links.get(&here) {
            Some(target) => (target.clone(), true),
            None => match self.rootfs.read_link(&here)? {
                Some(target) => (target, false),
                None => return Ok(here),
            },
        };
        ensure!(links < MAX_LINKS, "too many levels of symbolic links at {here}");
        let mut at = if target.starts_with('/') { "/".to_owned() } else { parent.to_owned() };
        for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
            at = match part {
                ".." if at == "/" && packaged => bail!("the link {here} -> {target} leads out of the rootfs"),
                ".." => split(&at).map_or("/", |(parent, _)| parent).to_owned(),
                _ => self.step(&at, part, links + 1)?,
            };
        }
        Ok(at)
    }
}

fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// Refuses paths that are not what rpmbuild makes of them, as the same file could have several then, or none;
/// and line feeds, as file triggers get paths a line each; and what the kernel has no room for (path_resolution(7)).
pub(super) fn check_paths(files: &[FileEntry]) -> Result<()> {
    const PATH_MAX: usize = 4096;
    let is_plain = |path: &str| !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    for file in files {
        let (path, shown) = (&file.path, file.path.escape_debug());
        ensure!(path.len() < PATH_MAX, "a path has {} bytes, expected fewer than {PATH_MAX}", path.len());
        if path == "/" {
            ensure!(file_type(file.mode) == FileType::Directory, "`/` is not a directory");
            continue;
        }
        let below = path.strip_prefix('/').with_context(|| format!("`{shown}` is not absolute"))?;
        ensure!(is_plain(below), "`{shown}` has parts that are empty, `.` or `..`");
        ensure!(!path.contains('\n'), "`{shown}` has a line feed");
    }
    Ok(())
}
