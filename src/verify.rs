//! An image or a rootfs against the headers of its packages, without booting it and without root.
//!
//! ```text
//! rpmdb.sqlite ─▶ headers ──────────┐
//! layers or directory ─ tree ─▶ Tree┴─ file ─▶ differences, by package
//!                                   ├────────▶ unowned files, and who made each
//!                                   ├────────▶ keys and credentials
//!                                   └────────▶ kernels
//! ```
//!
//! A finding is a *failure* or a *note*. Notes are what is there by intention: changed content of configuration
//! files, and files that no package owns. What was changed on purpose elsewhere is left out by [`Ignored`].

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use rpm::FileFlags;
use serde::Serialize;

pub use self::file::{Attribute, Difference, Verdict};

use crate::error::hinted;
use crate::install::{has, owner::Owners};
use crate::origins::Origins;
use crate::pkglist::META_JSON;
use crate::plan::Origin;
use crate::rpmdb::{self, Installed};
use crate::tree::{GROUP, Kind, PASSWD, Subject, Tree, by_place};

/// Where kernels are, relative to the root.
const MODULES: &str = "usr/lib/modules";

/// Paths that are left out of the report.
#[derive(Clone, Debug, Default)]
pub struct Ignored(GlobSet);

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many packages were compared.
    pub packages: usize,
    /// How many files their headers list.
    pub files: usize,
    /// Files that differ from their headers, in the order of the rpmdb.
    pub differences: Vec<Changed>,
    /// Paths that no package owns, directories only if they are empty; notes.
    pub unowned: Vec<Unowned>,
    /// Files that hold a secret; failures.
    pub secrets: Vec<Secret>,
    /// Versions of the kernels in it.
    pub kernels: Vec<String>,
    /// Whether it should boot, and therefore have exactly one kernel.
    pub bootable: bool,
    /// How many findings were left out by [`Ignored`].
    pub ignored: usize,
}

/// A file that differs from its header.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// The package, `NAME-EVR.ARCH`.
    pub package: String,
    /// Absolute path.
    pub path: String,
    /// As `rpm -V` prints it: `S.5....T.`, or `missing`.
    pub result: String,
    /// rpm's mark of the file: `c` configuration, `d` documentation, `g` ghost ...
    pub mark: Option<char>,
    /// Whether this is no failure: the content of a configuration file.
    pub note: bool,
    /// What differs.
    pub differences: Verdict,
}

/// A path that no package owns.
#[derive(Debug, Serialize)]
pub struct Unowned {
    /// Absolute path.
    pub path: String,
    /// What brought it, as the image remembers: `%post(NAME)`, or a manifest and its entry. Else the history of
    /// the image's layer.
    pub origin: Option<String>,
    /// Where that entry is in the manifests at hand, if whoever asks has them: an image remembers no lines.
    pub place: Option<Origin>,
}

/// A file that holds a secret.
#[derive(Debug, Serialize)]
pub struct Secret {
    /// Absolute path.
    pub path: String,
    /// Which, in words.
    pub what: &'static str,
}

impl Report {
    /// Whether anything failed: notes do not count.
    pub fn failed(&self) -> bool {
        self.failures().next().is_some() || !self.secrets.is_empty() || self.wrong_kernels()
    }

    /// The differences that are no notes.
    pub fn failures(&self) -> impl Iterator<Item = &Changed> {
        self.differences.iter().filter(|changed| !changed.note)
    }

    /// Whether it should boot, but has no kernel or several.
    pub fn wrong_kernels(&self) -> bool {
        self.bootable && self.kernels.len() != 1
    }

    /// Takes out what is to be ignored, and counts it.
    fn leave_out(&mut self, ignored: &Ignored) {
        let all = self.findings();
        self.differences.retain(|changed| !ignored.has(&changed.path));
        self.unowned.retain(|unowned| !ignored.has(&unowned.path));
        self.secrets.retain(|secret| !ignored.has(&secret.path));
        self.ignored = all - self.findings();
    }

    fn findings(&self) -> usize {
        self.differences.len() + self.unowned.len() + self.secrets.len()
    }
}

impl Ignored {
    /// Globs over absolute paths: `*` stays within a name, `**` does not.
    pub fn new(globs: &[String]) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let parsed: Result<Glob, _> = GlobBuilder::new(glob).literal_separator(true).build();
            set.add(parsed.with_context(|| format!("reading the glob `{glob}`"))?);
        }
        Ok(Self(set.build().context("reading the globs of paths to ignore")?))
    }

    fn has(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// Compares all of `subject` with its packages.
pub fn verify(subject: &Subject, ignored: &Ignored) -> Result<Report> {
    let Some(packages) = subject.packages()? else {
        return Err(hinted(
            format!("there is no rpmdb in {subject}"),
            format!(
                "name an image, or the root directory of an unpacked one, that has {}",
                rpmdb::places_in_words()
            ),
        ));
    };
    let tree = subject.tree(&packages)?;
    let mut report = Report {
        packages: packages.len(),
        files: 0,
        differences: Vec::new(),
        unowned: Vec::new(),
        secrets: Vec::new(),
        kernels: kernels(&tree),
        bootable: is_bootable(subject, &tree),
        ignored: 0,
    };
    compare(&packages, &tree, &mut report)?;
    let packaged = Packaged::new(&packages, &tree)?;
    let remembered = tree.text(META_JSON).map(Origins::from_json).transpose()?.unwrap_or_default();
    report.unowned = unowned(&tree, &packaged.owners, &remembered, &subject.history());
    report.secrets = secrets(&tree, &packaged.shipped);
    report.leave_out(ignored);
    Ok(report)
}

/// Paths of packages, without links on the way.
pub(crate) struct Packaged {
    /// All they list, with the name of the package.
    pub(crate) owners: BTreeMap<PathBuf, String>,
    /// Those whose content is what a package ships.
    pub(crate) shipped: BTreeSet<PathBuf>,
}

impl Packaged {
    /// Looks all files of `packages` up.
    pub(crate) fn new(packages: &[Installed], tree: &Tree) -> Result<Self> {
        let mut packaged = Self { owners: BTreeMap::new(), shipped: BTreeSet::new() };
        for Installed { header, .. } in packages {
            let algorithm = header.file_digest_algorithm();
            for file in header.files()? {
                let Some(path) = tree.locate(Path::new(&file.path), false) else { continue };
                if tree.get(&path).is_some_and(|node| file::is_shipped(node, &file, algorithm)) {
                    packaged.shipped.insert(path.clone());
                }
                packaged.owners.insert(path, header.nevra().name.clone());
            }
        }
        Ok(packaged)
    }
}

/// Compares every file of every package.
fn compare(packages: &[Installed], tree: &Tree, report: &mut Report) -> Result<()> {
    let owners = owners(tree);
    for Installed { header, file_states, .. } in packages {
        let files = header.files()?;
        let algorithm = header.file_digest_algorithm();
        report.files += files.len();
        for (position, file) in files.iter().enumerate() {
            let state = file_states.get(position).copied().unwrap_or(0);
            let verdict = file::verify(tree, &owners, file, state, algorithm)
                .with_context(|| format!("verifying {}", header.nevra()))?;
            report.differences.extend(verdict.map(|verdict| Changed {
                package: header.nevra().to_string(),
                path: file.path.clone(),
                result: verdict.columns(),
                mark: file::mark(file),
                note: has(file, FileFlags::CONFIG) && verdict.is_content_only(),
                differences: verdict,
            }));
        }
    }
    Ok(())
}

/// The tree's own names of users and groups.
fn owners(tree: &Tree) -> Owners {
    Owners::of(tree.text(PASSWD).unwrap_or_default(), tree.text(GROUP).unwrap_or_default())
}

/// Paths that no package owns; directories only if they are empty. What brought them is what the image remembers,
/// or the layer's history.
fn unowned(
    tree: &Tree,
    owners: &BTreeMap<PathBuf, String>,
    remembered: &Origins,
    history: &[&str],
) -> Vec<Unowned> {
    let mut unowned = Vec::new();
    let mut paths = tree.iter().peekable();
    while let Some((path, node)) = paths.next() {
        let on_the_way = paths.peek().is_some_and(|(next, _)| next.starts_with(path));
        if !on_the_way && !owners.contains_key(path) {
            let path = absolute(path);
            let layer = || history.get(node.layer).copied().filter(|said| !said.is_empty());
            let origin = remembered.of(&path).or_else(layer).map(str::to_owned);
            unowned.push(Unowned { path, origin, place: None });
        }
    }
    unowned
}

/// Secrets in files whose content is not what a package ships: that is public.
pub(crate) fn secrets(tree: &Tree, shipped: &BTreeSet<PathBuf>) -> Vec<Secret> {
    let secret = |path: &Path, kind: &Kind| {
        let Kind::File(content) = kind else { return None };
        let what = content.secret.or_else(|| by_place(path))?;
        Some(Secret { path: absolute(path), what })
    };
    let files = tree.iter().filter(|(path, _)| !shipped.contains(*path));
    files.filter_map(|(path, node)| secret(path, &node.kind)).collect()
}

/// The versions that have a kernel image.
fn kernels(tree: &Tree) -> Vec<String> {
    let version = |path: &Path| {
        let dir = path.strip_prefix(MODULES).ok()?.parent()?;
        (path.file_name()? == "vmlinuz" && dir.components().count() == 1).then(|| dir.display().to_string())
    };
    tree.iter().filter_map(|(path, _)| version(path)).collect()
}

/// Whether it says so, or has modules of any kernel.
pub(crate) fn is_bootable(subject: &Subject, tree: &Tree) -> bool {
    subject.is_labelled_bootable() || !tree.children(MODULES).is_empty()
}

fn absolute(path: &Path) -> String {
    format!("/{}", path.display())
}
