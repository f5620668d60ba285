//! Why a request has no solution, told from the manifest's entry down to what stands against it.

use std::collections::BTreeSet;
use std::fmt;

use super::pool::{Job, PackageId, Rule};
use super::spec::{self, Form};
use super::universe::{Hidden, Source, Universe};
use super::Ask;
use crate::package::Nevra;
use crate::plan::{Override, OverrideTo, Sourced};
use crate::repo::RepoPackage;

/// More alternatives than this at one place are counted, not told.
const MAX_BRANCHES: usize = 6;

/// A request that cannot be fulfilled: one tree per contradiction.
///
/// ```text
/// manifests/node.toml:14 installs `cri-o`
/// └─ cri-o-1.33.2-1.el9.x86_64 requires container-selinux >= 2:2.235
///    └─ container-selinux-2:2.235.0-1.el9.noarch would replace 2:2.232.1-1.el9, which the coreos layer has
/// ```
#[derive(Debug)]
pub struct Unsatisfiable {
    problems: Vec<Problem>,
}

/// One contradiction.
#[derive(Debug, Default)]
pub struct Problem {
    trees: Vec<Tree>,
    advice: Vec<String>,
}

#[derive(Debug)]
struct Tree {
    text: String,
    branches: Vec<Tree>,
}

impl Unsatisfiable {
    /// An explanation of at least one problem.
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// What the user can do, one line per idea; empty if there is none.
    pub fn advice(&self) -> String {
        let mut lines: Vec<&str> = Vec::new();
        for line in self.problems.iter().flat_map(|problem| &problem.advice) {
            if !lines.contains(&line.as_str()) {
                lines.push(line);
            }
        }
        lines.join("\n")
    }
}

impl std::error::Error for Unsatisfiable {}

impl fmt::Display for Unsatisfiable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for tree in self.problems.iter().flat_map(|problem| &problem.trees) {
            lines.push(tree.text.clone());
            tree.render("", &mut lines);
        }
        f.write_str(&lines.join("\n"))
    }
}

impl Tree {
    fn leaf(text: String) -> Self {
        Self { text, branches: Vec::new() }
    }

    fn render(&self, indent: &str, lines: &mut Vec<String>) {
        for (index, branch) in self.branches.iter().enumerate() {
            let last = index + 1 == self.branches.len();
            let (joint, deeper) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            lines.push(format!("{indent}{joint}{}", branch.text));
            branch.render(&format!("{indent}{deeper}"), lines);
        }
    }
}

/// An entry that dnf's rules cannot read.
pub fn bad_entry(entry: &Sourced<String>, reason: &str) -> Problem {
    Problem { trees: vec![Tree::leaf(format!("{} has `{}`: {reason}", entry.origin, entry.value))], advice: vec![] }
}

/// An `install` entry that names nothing.
pub fn no_such_package(universe: &Universe, entry: &Sourced<String>) -> Problem {
    let text = format!("{} installs `{}`, but no repository has it", entry.origin, entry.value);
    if entry.value.starts_with('@') {
        let advice = "groups are not supported: list the packages that are wanted of it".to_owned();
        return Problem { trees: vec![Tree::leaf(text)], advice: vec![advice] };
    }
    let forms = Form::all(&entry.value).unwrap_or_default();
    let wanted = spec::capability(&entry.value).map(|capability| capability.name).unwrap_or_default();
    let meant = |nevra: &Nevra| nevra.name == wanted || forms.iter().any(|form| form.matches(nevra));
    let branches = hidden_notes(universe, meant);
    let mut advice = Vec::new();
    let versions = versions(universe, &wanted);
    if branches.is_empty() {
        let bare = forms.iter().rev().find_map(Form::plain_name).unwrap_or(&wanted);
        match (versions.is_empty(), similar(universe, bare)) {
            (false, _) => advice.push(format!("there is {}", versions.join(", "))),
            (true, Some(name)) if name == bare => {
                advice.push(format!("there is {}", self::versions(universe, name).join(", ")));
            }
            (true, Some(name)) => advice.push(format!("did you mean `{name}`?")),
            (true, None) => {}
        }
    }
    Problem { trees: vec![Tree { text, branches }], advice }
}

/// A `remove` entry that names nothing.
pub fn nothing_to_remove(universe: &Universe, entry: &Sourced<String>) -> Problem {
    let text = format!("{} removes `{}`, but no layer below has it", entry.origin, entry.value);
    let names = universe.all_parents().map(|id| universe.name(id));
    let advice = nearest(names, &entry.value).map(|name| format!("did you mean `{name}`?"));
    let advice = advice.unwrap_or_else(|| "to keep a package of this layer out, use `exclude`".to_owned());
    Problem { trees: vec![Tree::leaf(text)], advice: vec![advice] }
}

/// An override of which no candidate is visible.
pub fn no_such_override(universe: &Universe, entry: &Sourced<Override>) -> Problem {
    let name = &entry.value.package;
    let wanted = match &entry.value.to {
        OverrideTo::Version(evr) => format!("{name}-{evr}"),
        OverrideTo::File(path) => path.display().to_string(),
    };
    let text = format!("{} overrides `{name}` with {wanted}, but no repository has it", entry.origin);
    let branches = hidden_notes(universe, |nevra| nevra.name == *name);
    let near = || similar(universe, name).filter(|near| near != name);
    let advice = match branches.is_empty() {
        true => near().map(|near| format!("did you mean `{near}`?")).into_iter().collect(),
        false => vec!["name a version that is there, or a local file".to_owned()],
    };
    Problem { trees: vec![Tree { text, branches }], advice }
}

/// The contradictions libsolv found.
pub fn explain(universe: &Universe, asks: &[Ask], jobs: &[Job], problems: &[Vec<Rule>]) -> Unsatisfiable {
    let problems = problems.iter().map(|rules| {
        let mut story = Story { universe, asks, jobs, rules, told: BTreeSet::new(), advice: Vec::new() };
        let trees = story.trees();
        Problem { trees, advice: story.advice }
    });
    Unsatisfiable::new(problems.collect())
}

/// One contradiction being told.
struct Story<'s, 'a> {
    universe: &'s Universe<'a>,
    asks: &'s [Ask<'a>],
    jobs: &'s [Job],
    rules: &'s [Rule],
    told: BTreeSet<PackageId>,
    advice: Vec<String>,
}

impl Story<'_, '_> {
    fn trees(&mut self) -> Vec<Tree> {
        let mut trees = Vec::new();
        let mut staying = Vec::new();
        let jobs: BTreeSet<usize> =
            self.rules.iter().filter_map(|rule| if let Rule::Job(job) = rule { Some(*job) } else { None }).collect();
        for job in jobs {
            match self.asked(job) {
                Some(text) => {
                    let branches = self.packages(&self.jobs[job].packages);
                    trees.push(Tree { text, branches });
                }
                None => staying.extend(&self.jobs[job].packages),
            }
        }
        for id in staying {
            let text = format!("{} stays", self.named(id));
            let branches = self.packages(&[id]);
            if !branches.is_empty() {
                trees.push(Tree { text, branches });
            }
        }
        trees
    }

    /// What an entry of the manifest asks for; nothing for the rule that the layers below stay.
    fn asked(&self, job: usize) -> Option<String> {
        Some(match self.asks[job] {
            Ask::Install(entry) => format!("{} installs `{}`", entry.origin, entry.value),
            Ask::Override(entry) => format!("{} overrides `{}`", entry.origin, entry.value.package),
            Ask::Remove(entry) => format!("{} removes `{}`", entry.origin, entry.value),
            Ask::Update(name) => format!("the newest `{name}` is to be taken"),
            Ask::Stay | Ask::Setting => return None,
        })
    }

    /// What stands against each of the packages. A package is told once.
    fn packages(&mut self, packages: &[PackageId]) -> Vec<Tree> {
        let mut branches = Vec::new();
        for &id in packages {
            if !self.told.insert(id) {
                continue;
            }
            for rule in self.rules {
                branches.extend(self.against(id, rule));
            }
        }
        let more = branches.len().saturating_sub(MAX_BRANCHES);
        if more > 1 {
            branches.truncate(MAX_BRANCHES);
            branches.push(Tree::leaf(format!("and {more} more of the kind")));
        }
        branches
    }

    /// What `rule` has against `id`, if anything.
    fn against(&mut self, id: PackageId, rule: &Rule) -> Option<Tree> {
        let pool = &self.universe.pool;
        match *rule {
            Rule::NothingProvides(package, dependency) if package == id => {
                let wanted = pool.text(dependency);
                let text = format!("{} requires {wanted}, which nothing provides", self.named(id));
                let name = spec::capability(&wanted).map_or(wanted, |capability| capability.name);
                let hidden = hidden_providers(self.universe, &name);
                let there = versions(self.universe, &name);
                let there = there.into_iter().map(|nevra| Tree::leaf(format!("{nevra} does not fit")));
                Some(Tree { text, branches: hidden.into_iter().chain(there).collect() })
            }
            Rule::Requires(package, dependency) if package == id => {
                let text = format!("{} requires {}", self.named(id), pool.text(dependency));
                let providers = pool.providers(dependency);
                Some(Tree { text, branches: self.packages(&providers) })
            }
            Rule::SameName(a, b) if a == id || b == id => self.beside(id, if a == id { b } else { a }),
            Rule::Conflicts(a, b, dependency) if a == id || b == id => {
                let other = if a == id { b } else { a };
                let text = match a == id {
                    true => format!("{} conflicts with {}: {}", self.named(a), pool.text(dependency), self.named(b)),
                    false => format!("{} is in conflict with {}", self.named(b), self.named(a)),
                };
                self.advise_removal(other);
                Some(Tree::leaf(text))
            }
            Rule::Obsoletes(a, b, dependency) if a == id => {
                self.advise_removal(b);
                Some(Tree::leaf(format!("{} obsoletes {}: {}", self.named(a), pool.text(dependency), self.named(b))))
            }
            Rule::Obsoletes(a, b, _) if b == id => {
                Some(Tree::leaf(format!("{} is obsoleted by {}", self.named(b), self.named(a))))
            }
            Rule::NotInstallable(package) if package == id => {
                Some(Tree::leaf(format!("{} cannot be installed on this architecture", self.named(id))))
            }
            _ => None,
        }
    }

    fn beside(&mut self, id: PackageId, other: PackageId) -> Option<Tree> {
        let (nevra, other_nevra) = (&self.universe.package(id).nevra, &self.universe.package(other).nevra);
        Some(Tree::leaf(match (self.universe.source(id), self.universe.source(other)) {
            (Source::Layer(_), _) => return None,
            (_, Source::Layer(layer)) => {
                self.advice.push(format!(
                    "add an [[override]] for `{}` to change it in this layer, or update the {layer} layer first",
                    nevra.name
                ));
                format!("{nevra} would replace {}, which the {layer} layer has", other_nevra.evr)
            }
            _ => format!("{nevra} and {other_nevra} cannot be installed together"),
        }))
    }

    fn advise_removal(&mut self, id: PackageId) {
        if self.universe.is_parent(id) {
            let name = self.universe.name(id);
            self.advice.push(format!("add `{name}` to `remove` if this layer is to go without it"));
        }
    }

    fn named(&self, id: PackageId) -> String {
        let nevra = &self.universe.package(id).nevra;
        match self.universe.source(id) {
            Source::Layer(layer) => format!("{nevra} of the {layer} layer"),
            Source::File(path) => format!("{nevra} ({})", path.display()),
            Source::Repo(_) => nevra.to_string(),
        }
    }
}

/// "PACKAGE is excluded at ..." for hidden packages whose identity is meant.
fn hidden_notes(universe: &Universe, meant: impl Fn(&Nevra) -> bool) -> Vec<Tree> {
    let hidden = universe.hidden.iter().filter(|(package, ..)| meant(&package.nevra));
    notes(hidden.map(|(package, _, reason)| (package.nevra.to_string(), reason)))
}

/// The same for hidden packages that provide a capability or own a path.
fn hidden_providers(universe: &Universe, name: &str) -> Vec<Tree> {
    let provides = |package: &RepoPackage| {
        package.nevra.name == name
            || package.provides.iter().any(|d| d.name == name)
            || name.starts_with('/') && package.files.iter().any(|file| file == name)
    };
    let hidden = universe.hidden.iter().filter(|(package, ..)| provides(package));
    notes(hidden.map(|(package, _, reason)| (package.nevra.to_string(), reason)))
}

fn notes<'h>(hidden: impl Iterator<Item = (String, &'h Hidden<'h>)>) -> Vec<Tree> {
    hidden.take(MAX_BRANCHES).map(|(nevra, reason)| Tree::leaf(format!("{nevra} {reason}"))).collect()
}

/// The visible packages called `name`.
fn versions(universe: &Universe, name: &str) -> Vec<String> {
    let all = universe.parents(name).into_iter().chain(universe.available(name));
    all.take(MAX_BRANCHES).map(|id| universe.package(id).nevra.to_string()).collect()
}

/// The visible package name most like `name`.
fn similar<'a>(universe: &Universe<'a>, name: &str) -> Option<&'a str> {
    nearest(universe.all_available().map(|id| universe.name(id)), name)
}

fn nearest<'n>(names: impl Iterator<Item = &'n str>, wanted: &str) -> Option<&'n str> {
    let scored = names.map(|name| (strsim::jaro_winkler(name, wanted), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)));
    best.filter(|(score, _)| *score > 0.88).map(|(_, name)| name)
}
