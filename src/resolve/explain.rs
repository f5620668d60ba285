//! Why a request has no solution, told from the manifest's entry down to what stands against it.

use std::collections::BTreeSet;
use std::fmt;

use super::Ask;
use super::groups::NoGroup;
use super::pool::{Job, PackageId, Rule};
use super::spec::{self, Form};
use super::universe::{Hidden, Source, Universe};
use crate::error::similar;
use crate::package::Nevra;
use crate::plan::{Override, OverrideTo, Sourced};
use crate::repo::RepoPackage;
use crate::repo::comps::Comps;

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
    Problem {
        trees: vec![Tree::leaf(format!("{} has `{}`: {reason}", entry.origin, entry.value))],
        advice: vec![],
    }
}

/// An `install` entry that names nothing.
pub fn no_such_package(universe: &Universe, entry: &Sourced<String>) -> Problem {
    let text = format!("{} installs `{}`, but no repository has it", entry.origin, entry.value);
    let forms = Form::all(&entry.value).unwrap_or_default();
    let wanted = spec::capability(&entry.value).map(|capability| capability.name).unwrap_or_default();
    let meant = |nevra: &Nevra| nevra.name == wanted || forms.iter().any(|form| form.matches(nevra));
    let branches = hidden_notes(universe, meant);
    let mut advice = Vec::new();
    let versions = versions(universe, &wanted);
    if branches.is_empty() {
        let bare = forms.iter().rev().find_map(Form::plain_name).unwrap_or(&wanted);
        match (versions.is_empty(), similar_name(universe, bare)) {
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

/// An `install` entry that names no group, or none of its packages.
pub fn no_such_group(entry: &Sourced<String>, comps: &[&Comps], error: &NoGroup) -> Problem {
    let text = format!("{} installs `{}`, but {error}", entry.origin, entry.value);
    let ids = comps.iter().flat_map(|comps| comps.ids());
    let advice = similar(entry.value.trim_start_matches('@'), ids).map(|id| format!("did you mean `@{id}`?"));
    Problem { trees: vec![Tree::leaf(text)], advice: advice.into_iter().collect() }
}

/// An entry that enables a stream there is not, or leaves open which one.
pub fn no_such_stream(entry: &Sourced<String>, streams: &BTreeSet<&str>) -> Problem {
    let module = entry.value.trim_start_matches('@').split([':', '/']).next().unwrap_or_default();
    let (what, advice) = match streams.is_empty() {
        true => ("no repository has such a stream".to_owned(), None),
        false => {
            let known = streams.iter().map(|stream| format!("`{module}:{stream}`")).collect::<Vec<_>>();
            let what = "the module has several streams and no default".to_owned();
            (what, Some(format!("write one of {}", known.join(", "))))
        }
    };
    let text = format!("{} enables module `{}`, but {what}", entry.origin, entry.value);
    Problem { trees: vec![Tree::leaf(text)], advice: advice.into_iter().collect() }
}

/// Two entries that enable different streams of one module.
pub fn two_streams(entry: &Sourced<String>, other: &Sourced<String>) -> Problem {
    let text = format!(
        "{} enables module `{}`, and {} enables `{}`: one stream of a module excludes the others",
        other.origin, other.value, entry.origin, entry.value
    );
    Problem { trees: vec![Tree::leaf(text)], advice: vec!["keep one of the entries".to_owned()] }
}

/// Enabled streams that need or exclude streams of other modules.
pub fn streams_exclude_each_other(entries: &[&Sourced<String>]) -> Problem {
    let enabled =
        |entry: &&Sourced<String>| Tree::leaf(format!("{} enables `{}`", entry.origin, entry.value));
    let text = "the streams of modules that are enabled cannot be active together".to_owned();
    let branches = entries.iter().map(enabled).collect();
    Problem { trees: vec![Tree { text, branches }], advice: vec![] }
}

/// A `remove` entry that names nothing.
pub fn nothing_to_remove(universe: &Universe, entry: &Sourced<String>) -> Problem {
    let text = format!("{} removes `{}`, but no layer below has it", entry.origin, entry.value);
    let names = universe.all_parents().map(|id| universe.name(id));
    let advice = similar(&entry.value, names).map(|name| format!("did you mean `{name}`?"));
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
    let near = || similar_name(universe, name).filter(|near| near != name);
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
        let mut trees = story.trees();
        if trees.is_empty() {
            trees.push(Tree::leaf("the packages asked for cannot all be installed".to_owned()));
        }
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
    /// Indexes of rules: each is told once.
    told: BTreeSet<usize>,
    advice: Vec<String>,
}

impl Story<'_, '_> {
    fn trees(&mut self) -> Vec<Tree> {
        let mut trees = Vec::new();
        let mut staying = Vec::new();
        let mut jobs = BTreeSet::new();
        for rule in self.rules {
            match *rule {
                Rule::Job(job) if !jobs.insert(job) => {}
                Rule::Job(job) => match self.asked(job) {
                    Some(text) if self.jobs[job].packages.is_empty() => {
                        trees.push(Tree::leaf(format!("{text}, which nothing provides")));
                    }
                    Some(text) => {
                        let branches = self.packages(&self.jobs[job].packages);
                        trees.push(Tree { text, branches });
                    }
                    None => staying.extend(&self.jobs[job].packages),
                },
                Rule::Stays(id) => staying.push(id),
                _ => {}
            }
        }
        for id in staying {
            trees.extend(self.packages(&[id]));
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

    /// What stands against each of the packages.
    fn packages(&mut self, packages: &[PackageId]) -> Vec<Tree> {
        let mut branches = Vec::new();
        for &id in packages {
            for index in 0..self.rules.len() {
                if !self.told.contains(&index) && concerns(&self.rules[index], id) {
                    self.told.insert(index);
                    branches.extend(self.against(id, &self.rules[index]));
                }
            }
        }
        let more = branches.len().saturating_sub(MAX_BRANCHES);
        if more > 1 {
            branches.truncate(MAX_BRANCHES);
            branches.push(Tree::leaf(format!("and {more} more of the kind")));
        }
        branches
    }

    /// What `rule`, which concerns `id`, has against it.
    fn against(&mut self, id: PackageId, rule: &Rule) -> Option<Tree> {
        let pool = &self.universe.pool;
        match *rule {
            Rule::NothingProvides(_, dependency) => Some(self.nothing_provides(id, &pool.text(dependency))),
            Rule::Requires(_, dependency) => {
                let text = format!("{} requires {}", self.named(id), pool.text(dependency));
                let branches = self.packages(&pool.providers(dependency));
                Some(Tree { text, branches })
            }
            Rule::SameName(a, b) => self.beside(id, if a == id { b } else { a }),
            Rule::Conflicts(a, b, dependency) => {
                self.advise_removal(if a == id { b } else { a });
                let (first, second) = (self.named(a), self.named(b));
                Some(Tree::leaf(format!("{first} conflicts with {}: {second}", pool.text(dependency))))
            }
            Rule::Obsoletes(a, b, dependency) => {
                self.advise_removal(if a == id { b } else { a });
                let (first, second) = (self.named(a), self.named(b));
                Some(Tree::leaf(format!("{first} obsoletes {}: {second}", pool.text(dependency))))
            }
            Rule::NotInstallable(_) => {
                Some(Tree::leaf(format!("{} cannot be installed on this architecture", self.named(id))))
            }
            Rule::Job(_) | Rule::Stays(_) => None,
        }
    }

    fn nothing_provides(&self, id: PackageId, dependency: &str) -> Tree {
        let text = format!("{} requires {dependency}, which nothing provides", self.named(id));
        let name =
            spec::capability(dependency).map_or_else(|| dependency.to_owned(), |capability| capability.name);
        let mut branches = hidden_providers(self.universe, &name);
        let others = versions(self.universe, &name);
        branches.extend(others.into_iter().map(|nevra| Tree::leaf(format!("{nevra} does not fit"))));
        Tree { text, branches }
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

/// Whether a rule is about a package, as the one that requires or one of two that exclude each other.
fn concerns(rule: &Rule, id: PackageId) -> bool {
    match *rule {
        Rule::Job(_) | Rule::Stays(_) => false,
        Rule::NothingProvides(a, _) | Rule::Requires(a, _) | Rule::NotInstallable(a) => a == id,
        Rule::SameName(a, b) | Rule::Conflicts(a, b, _) | Rule::Obsoletes(a, b, _) => a == id || b == id,
    }
}

/// "PACKAGE is excluded at ..." for hidden packages whose identity is meant.
fn hidden_notes(universe: &Universe, meant: impl Fn(&Nevra) -> bool) -> Vec<Tree> {
    notes(universe, |package| meant(&package.nevra))
}

/// The same for hidden packages that provide a capability or own a path.
fn hidden_providers(universe: &Universe, name: &str) -> Vec<Tree> {
    let provides = |package: &RepoPackage| {
        package.nevra.name == name
            || package.provides.iter().any(|d| d.name == name)
            || name.starts_with('/') && package.files.iter().any(|file| file == name)
    };
    notes(universe, provides)
}

/// What hides the packages that are meant. Repositories may list all architectures: others than the layer's
/// are told of only if there is nothing else that is meant.
fn notes(universe: &Universe, meant: impl Fn(&RepoPackage) -> bool) -> Vec<Tree> {
    let mut visible = universe.all_parents().chain(universe.all_available());
    let mut hidden: Vec<_> = universe.hidden.iter().filter(|(package, ..)| meant(package)).collect();
    let is_native = |reason: &Hidden| !matches!(reason, Hidden::Arch);
    if visible.any(|id| meant(universe.package(id))) || hidden.iter().any(|(.., why)| is_native(why)) {
        hidden.retain(|(.., why)| is_native(why));
    }
    let told: BTreeSet<String> =
        hidden.iter().map(|(package, _, why)| format!("{} {why}", package.nevra)).collect();
    told.into_iter().take(MAX_BRANCHES).map(Tree::leaf).collect()
}

/// The visible packages called `name`, each once however many repositories have it.
fn versions(universe: &Universe, name: &str) -> Vec<String> {
    let all = universe.parents(name).into_iter().chain(universe.available(name));
    let nevras: BTreeSet<&Nevra> = all.map(|id| &universe.package(id).nevra).collect();
    nevras.into_iter().take(MAX_BRANCHES).map(ToString::to_string).collect()
}

/// The available package whose name is most like `name`.
fn similar_name<'a>(universe: &Universe<'a>, name: &str) -> Option<&'a str> {
    similar(name, universe.all_available().map(|id| universe.name(id)))
}
