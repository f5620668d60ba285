//! An image or a rootfs against the headers of its packages, without booting it and without root.
//!
//! ```text
//! rpmdb.sqlite ─▶ headers ──────────┐
//! layers or directory ─ tree ─▶ Tree┴─ file ─▶ differences, by package
//!                                   ├────────▶ unowned files, and who made each
//!                                   ├─ secret ▶ keys and credentials
//!                                   └────────▶ kernels
//! ```
//!
//! A finding is a *failure* or a *note*. Notes are what is there by intention: changed content of configuration
//! files, and files that no package owns. What was changed on purpose elsewhere is left out by [`Ignored`].

mod content;
mod file;
mod secret;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use rpm::FileFlags;
use serde::Serialize;

pub use self::file::{Attribute, Difference, Verdict};

use self::content::{GROUP, PASSWD, Reading};
use self::tree::{Kind, Tree};
use crate::diff::image::rpmdb_of;
use crate::image::opened::Opened;
use crate::install::{has, owner::Owners, payload};
use crate::origins::Origins;
use crate::pkglist::META_JSON;
use crate::plan::Origin;
use crate::rpmdb::{self, Installed, Rpmdb};

/// Where kernels are, relative to the root.
const MODULES: &str = "usr/lib/modules";
/// The label of images that boot.
const BOOTABLE: &str = "containers.bootc";

/// What is verified.
pub enum Subject {
    /// An image.
    Image(Box<Opened>),
    /// An unpacked one, whose files have the owners they have in the image.
    Rootfs(PathBuf),
}

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
    let packages = packages(subject)?;
    let algorithms = packages.iter().map(|package| package.header.file_digest_algorithm());
    let algorithms = algorithms.filter(|algorithm| payload::digest(*algorithm).is_ok()).collect();
    let tree = match subject {
        Subject::Image(opened) => Tree::of_image(opened.local()?, &opened.image, &Reading { algorithms })?,
        Subject::Rootfs(root) => Tree::of_directory(root, &Reading { algorithms })?,
    };
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
    let packaged = compare(&packages, &tree, &mut report)?;
    let remembered = match text(&tree, META_JSON) {
        [] => Origins::default(),
        json => Origins::from_json(json)?,
    };
    report.unowned = unowned(&tree, &packaged.owned, &remembered, &history(subject));
    report.secrets = secrets(&tree, &packaged.shipped);
    report.leave_out(ignored);
    Ok(report)
}

/// The packages in the rpmdb.
fn packages(subject: &Subject) -> Result<Vec<Installed>> {
    match subject {
        Subject::Image(opened) => {
            let context = || format!("reading the packages of image {}", opened.image.digest);
            let file = rpmdb_of(opened)?;
            Rpmdb::open_read_only(file.path())?.packages().with_context(context)
        }
        Subject::Rootfs(root) => {
            let context = || format!("reading the packages of the rootfs {}", root.display());
            Rpmdb::open_read_only(&rpmdb::below(root).with_context(context)?)?
                .packages()
                .with_context(context)
        }
    }
}

/// Paths of packages, without links on the way.
#[derive(Default)]
struct Packaged {
    /// All they list.
    owned: BTreeSet<PathBuf>,
    /// Those whose content is what a package ships.
    shipped: BTreeSet<PathBuf>,
}

/// Compares every file of every package.
fn compare(packages: &[Installed], tree: &Tree, report: &mut Report) -> Result<Packaged> {
    let owners = owners(tree);
    let mut packaged = Packaged::default();
    for Installed { header, file_states, .. } in packages {
        let files = header.files()?;
        let algorithm = header.file_digest_algorithm();
        report.files += files.len();
        for (position, file) in files.iter().enumerate() {
            if let Some(path) = tree.locate(Path::new(&file.path), false) {
                if tree.get(&path).is_some_and(|node| file::is_shipped(node, file, algorithm)) {
                    packaged.shipped.insert(path.clone());
                }
                packaged.owned.insert(path);
            }
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
    Ok(packaged)
}

/// The tree's own names of users and groups.
fn owners(tree: &Tree) -> Owners {
    Owners::of(text(tree, PASSWD), text(tree, GROUP))
}

/// The text of a file, if it is one of those whose text is kept.
fn text<'t>(tree: &'t Tree, path: &str) -> &'t [u8] {
    match tree.get(Path::new(path)).map(|node| &node.kind) {
        Some(Kind::File(content)) => content.text.as_deref().unwrap_or_default(),
        _ => &[],
    }
}

/// The history of an image's layers, bottom first; nothing for a rootfs.
fn history(subject: &Subject) -> Vec<&str> {
    match subject {
        Subject::Image(opened) => {
            let said = opened.image.layer_history().into_iter();
            said.map(|history| history.and_then(|h| h.created_by().as_deref()).unwrap_or_default()).collect()
        }
        Subject::Rootfs(_) => Vec::new(),
    }
}

/// Paths that no package owns; directories only if they are empty. What brought them is what the image remembers,
/// or the layer's history.
fn unowned(tree: &Tree, owned: &BTreeSet<PathBuf>, remembered: &Origins, history: &[&str]) -> Vec<Unowned> {
    let mut unowned = Vec::new();
    let mut paths = tree.iter().peekable();
    while let Some((path, node)) = paths.next() {
        let on_the_way = paths.peek().is_some_and(|(next, _)| next.starts_with(path));
        if !on_the_way && !owned.contains(path) {
            let path = absolute(path);
            let layer = || history.get(node.layer).copied().filter(|said| !said.is_empty());
            let origin = remembered.of(&path).or_else(layer).map(str::to_owned);
            unowned.push(Unowned { path, origin, place: None });
        }
    }
    unowned
}

/// Secrets in files whose content is not what a package ships: that is public.
fn secrets(tree: &Tree, shipped: &BTreeSet<PathBuf>) -> Vec<Secret> {
    let secret = |path: &Path, kind: &Kind| {
        let Kind::File(content) = kind else { return None };
        let what = content.secret.or_else(|| secret::by_place(path))?;
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
fn is_bootable(subject: &Subject, tree: &Tree) -> bool {
    let labelled = match subject {
        Subject::Image(opened) => opened.image.labels().get(BOOTABLE) == Some(&"1"),
        Subject::Rootfs(_) => false,
    };
    labelled || tree.iter().any(|(path, _)| path.parent() == Some(Path::new(MODULES)))
}

fn absolute(path: &Path) -> String {
    format!("/{}", path.display())
}
