//! Why a request has no solution, told from the manifest's entry down to what stands against it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::Ask;
use super::edits::{Edit, List, provides};
use super::groups::NoGroup;
use super::pool::{Job, PackageId, Rule};
use super::spec::{self, Form};
use super::universe::{Hidden, Source, Universe};
use crate::error::similar;
use crate::package::{Evr, Nevra};
use crate::plan::{Override, OverrideTo, Sourced};
use crate::repo::RepoPackage;
use crate::repo::comps::Comps;

/// More alternatives than this at one place are counted, not told.
const MAX_BRANCHES: usize = 6;

/// So many other versions of a package are proposed.
const MAX_VERSIONS: usize = 2;

/// A request that cannot be fulfilled: one tree per contradiction.
///
/// ```text
/// manifests/node.toml:14 installs `cri-o`
/// └─ cri-o-1.33.2-1.el9.x86_64 requires container-selinux >= 2:2.235
///    └─ container-selinux-2:2.235.0-1.el9.noarch would replace 2:2.232.1-1.el9, which the coreos layer has
/// ```
#[derive(Debug, Serialize)]
pub struct Unsatisfiable {
    problems: Vec<Problem>,
}

/// One contradiction.
#[derive(Debug, Default, Serialize)]
pub struct Problem {
    #[serde(rename = "derivation")]
    trees: Vec<Tree>,
    advice: Vec<String>,
    /// What could help; nobody has tried.
    #[serde(skip)]
    edits: Vec<Edit>,
    /// Names that nothing in sight provides.
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Tree {
    text: String,
    #[serde(rename = "because")]
    branches: Vec<Tree>,
}

impl Unsatisfiable {
    /// An explanation of at least one problem.
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// How many contradictions there are.
    pub(super) fn problems(&self) -> usize {
        self.problems.len()
    }

    /// Edits that could help.
    pub(super) fn edits(&self) -> impl Iterator<Item = &Edit> {
        self.problems.iter().flat_map(|problem| &problem.edits)
    }

    /// Names that are missing.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().flat_map(|problem| &problem.missing).map(String::as_str)
    }

    /// What the user could do, one line per idea, untried; empty if there is none.
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
pub fn bad_entry(list: List, entry: &Sourced<String>, reason: &str) -> Problem {
    Problem {
        trees: vec![Tree::leaf(format!("{} has `{}`: {reason}", entry.origin, entry.value))],
        edits: vec![Edit::Drop(list, entry.clone())],
        ..Problem::default()
    }
}

/// An `install` entry that names nothing.
pub fn no_such_package(universe: &Universe, entry: &Sourced<String>) -> Problem {
    let text = format!("{} installs `{}`, but no repository has it", entry.origin, entry.value);
    let forms = Form::all(&entry.value).unwrap_or_default();
    let wanted = spec::capability(&entry.value).map(|capability| capability.name).unwrap_or_default();
    let meant = |nevra: &Nevra| nevra.name == wanted || forms.iter().any(|form| form.matches(nevra));
    let mut branches = hidden_notes(universe, meant);
    let mut edits = reveal(universe, |package| meant(&package.nevra));
    let mut advice = Vec::new();
    let bare = forms.iter().rev().find_map(Form::plain_name).unwrap_or(&wanted);
    let other = [&wanted, bare].into_iter().find(|name| !versions(universe, name).is_empty());
    if let Some(name) = other.or_else(|| similar_name(universe, bare)).filter(|_| branches.is_empty()) {
        match other {
            Some(name) => {
                branches.push(Tree::leaf(format!("there is {}", versions(universe, name).join(", "))))
            }
            None => advice.push(format!("did you mean `{name}`?")),
        }
        edits.push(Edit::Write(List::Install, entry.clone(), name.to_owned()));
    }
    edits.push(Edit::Drop(List::Install, entry.clone()));
    Problem { trees: vec![Tree { text, branches }], advice, edits, missing: vec![wanted] }
}

/// An `install` entry that names no group, or none of its packages.
pub fn no_such_group(entry: &Sourced<String>, comps: &[&Comps], error: &NoGroup) -> Problem {
    let text = format!("{} installs `{}`, but {error}", entry.origin, entry.value);
    let ids = comps.iter().flat_map(|comps| comps.ids());
    let near = similar(entry.value.trim_start_matches('@'), ids);
    let advice = near.map(|id| format!("did you mean `@{id}`?"));
    let write = near.map(|id| Edit::Write(List::Install, entry.clone(), format!("@{id}")));
    let missing = match error {
        NoGroup::Unknown(id) => vec![format!("@{id}")],
        NoGroup::BadKind(_) => vec![],
    };
    Problem {
        trees: vec![Tree::leaf(text)],
        advice: advice.into_iter().collect(),
        edits: write.into_iter().chain([Edit::Drop(List::Install, entry.clone())]).collect(),
        missing,
    }
}

/// An entry that enables a stream there is not, or leaves open which one.
pub fn no_such_stream((list, entry): (List, &Sourced<String>), streams: &BTreeSet<&str>) -> Problem {
    let text = entry.value.trim_start_matches('@');
    let at = &entry.value[..entry.value.len() - text.len()];
    let module = text.split([':', '/']).next().unwrap_or_default();
    let profile = text.find('/').map_or("", |start| &text[start..]);
    let (what, advice) = match streams.is_empty() {
        true => ("no repository has such a stream".to_owned(), None),
        false => {
            let known = streams.iter().map(|stream| format!("`{module}:{stream}`")).collect::<Vec<_>>();
            let what = "the module has several streams and no default".to_owned();
            (what, Some(format!("write one of {}", known.join(", "))))
        }
    };
    let text = format!("{} enables module `{}`, but {what}", entry.origin, entry.value);
    let write = |stream: &&str| Edit::Write(list, entry.clone(), format!("{at}{module}:{stream}{profile}"));
    Problem {
        trees: vec![Tree::leaf(text)],
        advice: advice.into_iter().collect(),
        edits: streams.iter().map(write).chain([Edit::Drop(list, entry.clone())]).collect(),
        missing: vec![format!("@{module}")],
    }
}

/// Two entries that enable different streams of one module.
pub fn two_streams(one: (List, &Sourced<String>), two: (List, &Sourced<String>)) -> Problem {
    let ((_, entry), (_, other)) = (one, two);
    let text = format!(
        "{} enables module `{}`, and {} enables `{}`: one stream of a module excludes the others",
        other.origin, other.value, entry.origin, entry.value
    );
    Problem {
        trees: vec![Tree::leaf(text)],
        advice: vec!["keep one of the entries".to_owned()],
        edits: [one, two].map(|(list, entry)| Edit::Drop(list, entry.clone())).into(),
        missing: vec![],
    }
}

/// Enabled streams that need or exclude streams of other modules.
pub fn streams_exclude_each_other(entries: &[(List, &Sourced<String>)]) -> Problem {
    let enabled = |(_, entry): &(List, &Sourced<String>)| {
        Tree::leaf(format!("{} enables `{}`", entry.origin, entry.value))
    };
    let text = "the streams of modules that are enabled cannot be active together".to_owned();
    let branches = entries.iter().map(enabled).collect();
    let edits = entries.iter().map(|(list, entry)| Edit::Drop(*list, (*entry).clone())).collect();
    Problem { trees: vec![Tree { text, branches }], edits, ..Problem::default() }
}

/// A `remove` entry that names nothing.
pub fn nothing_to_remove(universe: &Universe, entry: &Sourced<String>) -> Problem {
    let text = format!("{} removes `{}`, but no layer below has it", entry.origin, entry.value);
    let near = similar(&entry.value, universe.all_parents().map(|id| universe.name(id)));
    let advice = match near {
        Some(name) => format!("did you mean `{name}`?"),
        None => "to keep a package of this layer out, use `exclude`".to_owned(),
    };
    let near = near.map(|name| Edit::Write(List::Remove, entry.clone(), name.to_owned()));
    let edits = near.into_iter().chain([Edit::Drop(List::Remove, entry.clone())]).collect();
    Problem { trees: vec![Tree::leaf(text)], advice: vec![advice], edits, missing: vec![] }
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
    let others = other_versions(universe, entry);
    let edits = others.into_iter().chain([Edit::Unoverride(entry.clone())]).collect();
    Problem { trees: vec![Tree { text, branches }], advice, edits, missing: vec![name.clone()] }
}

/// An override with each of the versions it hides, newest first.
fn other_versions(universe: &Universe, entry: &Sourced<Override>) -> Vec<Edit> {
    let hides = |hidden: &Hidden| matches!(hidden, Hidden::Overridden(other) if *other == entry);
    let hidden = universe.hidden.iter().filter(|(.., hidden)| hides(hidden));
    let versions: BTreeSet<&Evr> = hidden.map(|(package, ..)| &package.nevra.evr).collect();
    let newest = versions.into_iter().rev().take(MAX_VERSIONS);
    newest.map(|evr| Edit::Reversion(entry.clone(), evr.clone())).collect()
}

/// Edits that bring hidden packages to light.
fn reveal(universe: &Universe, meant: impl Fn(&RepoPackage) -> bool) -> Vec<Edit> {
    let hidden = universe.hidden.iter().filter(|(package, ..)| meant(package));
    let edit = |hidden: &Hidden| match hidden {
        Hidden::Excluded(entry) => Some(Edit::Drop(List::Exclude, (*entry).clone())),
        Hidden::Removed(entry) => Some(Edit::Drop(List::Remove, (*entry).clone())),
        Hidden::Overridden(entry) => Some(Edit::Unoverride((*entry).clone())),
        Hidden::Arch | Hidden::OtherBuild(_) | Hidden::Held(_) | Hidden::Module => None,
    };
    hidden.filter_map(|(.., hidden)| edit(hidden)).collect()
}

/// The contradictions libsolv found.
pub fn explain(universe: &Universe, asks: &[Ask], jobs: &[Job], problems: &[Vec<Rule>]) -> Unsatisfiable {
    let problems = problems.iter().map(|rules| {
        let mut story =
            Story { universe, asks, jobs, rules, told: BTreeSet::new(), problem: Problem::default() };
        let mut trees = story.trees();
        if trees.is_empty() {
            trees.push(Tree::leaf("the packages asked for cannot all be installed".to_owned()));
        }
        Problem { trees, ..story.problem }
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
    /// All but its trees.
    problem: Problem,
}

impl Story<'_, '_> {
    fn trees(&mut self) -> Vec<Tree> {
        let mut trees = Vec::new();
        let mut staying = Vec::new();
        let mut jobs = BTreeSet::new();
        for rule in self.rules {
            if let Rule::Job(job) = *rule {
                self.propose(job);
            }
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
            let branches = self.packages(&[id]);
            if !branches.is_empty() && self.universe.is_parent(id) {
                self.problem.edits.push(Edit::Remove(self.universe.name(id).to_owned()));
            }
            trees.extend(branches);
        }
        trees
    }

    /// Edits of what a job asks for.
    fn propose(&mut self, job: usize) {
        let edits = &mut self.problem.edits;
        match self.asks[job] {
            Ask::Install(entry) => {
                let packages = self.jobs[job].packages.iter().map(|&id| &self.universe.package(id).nevra);
                let versions: BTreeSet<&Evr> =
                    packages.filter(|nevra| nevra.name == entry.value).map(|nevra| &nevra.evr).collect();
                for evr in versions.into_iter().rev().skip(1).take(MAX_VERSIONS) {
                    let text = format!("{}-{evr}", entry.value);
                    edits.push(Edit::Write(List::Install, entry.clone(), text));
                }
                edits.push(Edit::Drop(List::Install, entry.clone()));
            }
            Ask::Override(entry) => {
                edits.extend(other_versions(self.universe, entry));
                edits.push(Edit::Unoverride(entry.clone()));
            }
            Ask::Remove(entry) => edits.push(Edit::Drop(List::Remove, entry.clone())),
            Ask::Update(_) | Ask::Stay | Ask::Setting => {}
        }
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
            Rule::Inferior(_) => Some(self.inferior(id)),
            Rule::Job(_) | Rule::Stays(_) => None,
        }
    }

    fn inferior(&mut self, id: PackageId) -> Tree {
        let Nevra { name, arch, .. } = &self.universe.package(id).nevra;
        self.problem.edits.extend(reveal(self.universe, |package| package.nevra.name == *name));
        self.problem
            .advice
            .push(format!("add `{name}.{arch}` to `install` if it is to be of that architecture"));
        let text = format!("{} is for a lesser architecture than others of its name", self.named(id));
        Tree { text, branches: hidden_notes(self.universe, |nevra| nevra.name == *name) }
    }

    fn nothing_provides(&mut self, id: PackageId, dependency: &str) -> Tree {
        let text = format!("{} requires {dependency}, which nothing provides", self.named(id));
        let name =
            spec::capability(dependency).map_or_else(|| dependency.to_owned(), |capability| capability.name);
        self.problem.edits.extend(reveal(self.universe, |package| provides(package, &name)));
        self.problem.missing.push(name.clone());
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
                self.problem.advice.push(format!(
                    "add an [[override]] for `{}` to change it in this layer, or update the {layer} layer first",
                    nevra.name
                ));
                self.problem.edits.push(Edit::Override(nevra.name.clone(), nevra.evr.clone()));
                format!("{} would replace {}, which the {layer} layer has", self.named(id), other_nevra.evr)
            }
            _ => format!("{} and {} cannot be installed together", self.named(id), self.named(other)),
        }))
    }

    fn advise_removal(&mut self, id: PackageId) {
        if self.universe.is_parent(id) {
            let name = self.universe.name(id);
            self.problem.edits.push(Edit::Remove(name.to_owned()));
            self.problem.advice.push(format!("add `{name}` to `remove` if this layer is to go without it"));
        }
    }

    fn named(&self, id: PackageId) -> String {
        let nevra = &self.universe.package(id).nevra;
        match self.universe.source(id) {
            Source::Layer(layer) => format!("{nevra} of the {layer} layer"),
            Source::File(path) => format!("{nevra} ({})", path.display()),
            Source::Repo(id) if self.universe.repos > 1 => format!("{nevra} ({id})"),
            Source::Repo(_) => nevra.to_string(),
        }
    }
}

/// Whether a rule is about a package, as the one that requires or one of two that exclude each other.
fn concerns(rule: &Rule, id: PackageId) -> bool {
    match *rule {
        Rule::Job(_) | Rule::Stays(_) => false,
        Rule::NothingProvides(a, _) | Rule::Requires(a, _) | Rule::NotInstallable(a) | Rule::Inferior(a) => {
            a == id
        }
        Rule::SameName(a, b) | Rule::Conflicts(a, b, _) | Rule::Obsoletes(a, b, _) => a == id || b == id,
    }
}

/// "PACKAGE is excluded at ..." for hidden packages whose identity is meant.
fn hidden_notes(universe: &Universe, meant: impl Fn(&Nevra) -> bool) -> Vec<Tree> {
    notes(universe, |package| meant(&package.nevra))
}

/// The same for hidden packages that provide a capability or own a path.
fn hidden_providers(universe: &Universe, name: &str) -> Vec<Tree> {
    notes(universe, |package| provides(package, name))
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
