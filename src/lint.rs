//! An image or a rootfs against the rules that images of machines must follow: those of `bootc container lint`, and
//! ours. Nothing is booted, unpacked or run, and nobody needs to be root.
//!
//! ```text
//! layers or directory ─▶ Tree ─▶ rules ─▶ breaches ─┬─▶ findings
//! rpmdb, meta.json, history ─▶ who brought a path ──┘
//! ```
//!
//! bootc's rules have its names and mean what it means by them (bootc: `crates/lib/src/lints.rs`). Where bootc cannot
//! look because it reads a mounted image from inside, such as at the coverage of `/var`, strata does.

mod bootc;
mod ours;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::origins::Origins;
use crate::package::header::Phase;
use crate::pkglist::META_JSON;
use crate::rpmdb::Installed;
use crate::tree::{Subject, Tree};
use crate::verify::{self, Packaged, Secret};

/// A rule.
#[derive(Serialize)]
pub struct Rule {
    /// Its name, as `--skip` takes it.
    pub name: &'static str,
    /// What breaking it means.
    pub level: Level,
    /// Whose rule it is.
    pub source: Source,
    /// What it asks for.
    pub description: &'static str,
    /// What to do where it is broken.
    pub advice: &'static str,
    #[serde(skip)]
    check: fn(&Linted) -> Vec<Breach>,
}

/// What breaking a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The image can't be installed, or is bound to fail.
    Fatal,
    /// Something that ought to be put right.
    Warning,
}

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `bootc container lint` has it.
    Bootc,
    /// Only strata has it.
    Strata,
}

/// What the rules look at.
struct Linted {
    tree: Tree,
    /// Names of packages by their paths, without links on the way.
    owners: BTreeMap<PathBuf, String>,
    /// The names of packages, and what scriptlets of theirs run as they are installed.
    scriptlets: Vec<(String, String)>,
    secrets: Vec<Secret>,
    /// Whether machines boot it.
    bootable: bool,
}

/// A place where a rule is broken.
struct Breach {
    /// Relative to the root.
    path: PathBuf,
    /// What was found, and what is expected.
    message: String,
    /// Name of the package to blame, if that is not the owner of the path.
    package: Option<String>,
}

impl Breach {
    fn new(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), package: None }
    }
}

/// A place where a rule is broken, and by whom.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// What that means.
    pub level: Level,
    /// Absolute path; bytes that are no UTF-8 are escaped.
    pub path: String,
    /// What was found, and what is expected.
    pub message: String,
    /// Name of the package that has the path, or the nearest directory above it.
    pub package: Option<String>,
    /// What brought the path, as the image remembers it: `%post(NAME)`, or a manifest and its entry.
    pub origin: Option<String>,
    /// The history of the image's layer that has the path: `strata: node: oc`.
    pub layer: Option<String>,
    /// What to do.
    pub advice: &'static str,
}

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By rule, in the order of their names, then by path.
    pub findings: Vec<Finding>,
    /// Names of the rules that hold.
    pub passed: Vec<&'static str>,
    /// Names of the rules that were left out.
    pub skipped: Vec<&'static str>,
}

impl Report {
    /// How many rules of a level are broken.
    pub fn broken(&self, level: Level) -> usize {
        let rules = self.findings.chunk_by(|a, b| a.rule == b.rule);
        rules.filter(|findings| findings[0].level == level).count()
    }
}

/// All rules, by name.
pub fn rules() -> Vec<&'static Rule> {
    let mut rules: Vec<&Rule> = bootc::RULES.iter().chain(&ours::RULES).collect();
    rules.sort_by_key(|rule| rule.name);
    rules
}

/// Applies all rules but those named in `skip`.
pub fn lint(subject: &Subject, skip: &[String]) -> Result<Report> {
    let packages = subject.packages()?.unwrap_or_default();
    let tree = subject.tree(&packages)?;
    let origins = tree.text(META_JSON).map(Origins::from_json).transpose()?.unwrap_or_default();
    let Packaged { owners, shipped } = Packaged::new(&packages, &tree)?;
    let linted = Linted {
        owners,
        scriptlets: scriptlets(&packages)?,
        secrets: verify::secrets(&tree, &shipped),
        bootable: verify::is_bootable(subject, &tree),
        tree,
    };
    let blame = Blame { linted: &linted, origins, history: subject.history() };
    let mut report = Report { findings: Vec::new(), passed: Vec::new(), skipped: Vec::new() };
    for rule in rules() {
        if skip.iter().any(|name| name == rule.name) {
            report.skipped.push(rule.name);
            continue;
        }
        let mut breaches = (rule.check)(&linted);
        breaches.sort_by(|a, b| a.path.cmp(&b.path));
        if breaches.is_empty() {
            report.passed.push(rule.name);
        }
        report.findings.extend(breaches.into_iter().map(|breach| blame.finding(rule, breach)));
    }
    Ok(report)
}

/// The scriptlets that run as packages are installed.
fn scriptlets(packages: &[Installed]) -> Result<Vec<(String, String)>> {
    let mut scriptlets = Vec::new();
    for Installed { header, .. } in packages {
        for phase in [Phase::Pretrans, Phase::Pre, Phase::Post, Phase::Posttrans] {
            let body = header.scriptlet(phase)?.and_then(|scriptlet| scriptlet.body);
            scriptlets.extend(body.map(|body| (header.nevra().name.clone(), body)));
        }
    }
    Ok(scriptlets)
}

/// Who brought what.
struct Blame<'a> {
    linted: &'a Linted,
    origins: Origins,
    history: Vec<&'a str>,
}

impl Blame<'_> {
    fn finding(&self, rule: &Rule, breach: Breach) -> Finding {
        let Breach { path, message, package } = breach;
        let text = path
            .to_str()
            .map_or_else(|| path.as_os_str().as_bytes().escape_ascii().to_string(), str::to_owned);
        let absolute = format!("/{text}");
        let layer = self.linted.tree.get(&path).and_then(|node| self.history.get(node.layer));
        Finding {
            rule: rule.name,
            level: rule.level,
            message,
            package: package.or_else(|| self.linted.owner(&path).map(str::to_owned)),
            origin: self.origins.of(&absolute).map(str::to_owned),
            layer: layer.filter(|said| !said.is_empty()).map(|said| (*said).to_owned()),
            path: absolute,
            advice: rule.advice,
        }
    }
}

impl Linted {
    /// Name of the package that has the path, or the nearest directory above. The package of the top level, which
    /// everybody uses, says nothing of what is in it.
    fn owner(&self, path: &Path) -> Option<&str> {
        let owner = |path: &Path| self.owners.get(path).map(String::as_str);
        let top = owner(Path::new("var"));
        owner(path).or_else(|| path.ancestors().find_map(owner).filter(|name| Some(*name) != top))
    }
}
