//! The digest of what a lock answers.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::digest::Digest;
use crate::package::Arch;
use crate::plan::{Base, Layer, OverrideTo, Plan, Sourced};

/// What decides which packages are in a layer, but for the packages themselves. Written as JSON, fields in
/// this order; entries are sets, the order of repositories counts.
#[derive(Serialize)]
struct Request<'a> {
    arch: Arch,
    from: From<'a>,
    repos: Vec<Repo<'a>>,
    install: BTreeSet<&'a str>,
    remove: BTreeSet<&'a str>,
    exclude: BTreeSet<&'a str>,
    weak_deps: bool,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    modules: BTreeSet<&'a str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    exclude_from_weak: BTreeSet<&'a str>,
    overrides: BTreeSet<Override<'a>>,
    /// Exceptions to `same-evr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    same_evr: Option<BTreeSet<&'a str>>,
}

/// What the layer stands on: an image by its digest alone, wherever it is.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum From<'a> {
    Scratch,
    Layer(&'a str),
    Image(Option<Digest>),
}

impl<'a> From<'a> {
    fn of(base: &'a Base) -> Self {
        match base {
            Base::Scratch => Self::Scratch,
            Base::Layer(below) => Self::Layer(below),
            Base::Image(image) => Self::Image(image.digest),
        }
    }
}

#[derive(Serialize)]
struct Repo<'a> {
    id: &'a str,
    priority: i32,
    cost: i32,
    includepkgs: BTreeSet<&'a str>,
    excludepkgs: BTreeSet<&'a str>,
    module_hotfixes: bool,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Override<'a> {
    package: &'a str,
    to: String,
    reason: &'a str,
}

/// The digest of a layer's package request. Not in it: where entries are written, where repositories are,
/// and what of an override the solution does not show.
pub fn request_digest(plan: &Plan, layer: &Layer) -> Digest {
    let packages = &layer.packages;
    let request = Request {
        arch: plan.stream.arch,
        from: From::of(&layer.from),
        repos: packages.repos.iter().filter_map(|id| plan.stream.repos.get(id)).map(repo).collect(),
        install: values(&packages.install),
        remove: values(&packages.remove),
        exclude: values(&packages.exclude),
        weak_deps: packages.weak_deps,
        modules: values(&packages.modules),
        exclude_from_weak: values(&packages.exclude_from_weak),
        overrides: packages.overrides.iter().map(|entry| self::entry(&entry.value)).collect(),
        same_evr: plan.stream.same_evr.as_ref().map(|rule| rule.except.iter().map(String::as_str).collect()),
    };
    Digest::of(serde_json::to_vec(&request).expect("strings and numbers always make JSON"))
}

fn values(entries: &[Sourced<String>]) -> BTreeSet<&str> {
    entries.iter().map(|entry| entry.value.as_str()).collect()
}

fn repo(repo: &crate::plan::Repo) -> Repo<'_> {
    fn set(globs: &[String]) -> BTreeSet<&str> {
        globs.iter().map(String::as_str).collect()
    }
    Repo {
        id: &repo.id,
        priority: repo.priority,
        cost: repo.cost,
        includepkgs: set(&repo.includepkgs),
        excludepkgs: set(&repo.excludepkgs),
        module_hotfixes: repo.module_hotfixes,
    }
}

fn entry(wanted: &crate::plan::Override) -> Override<'_> {
    let to = match &wanted.to {
        OverrideTo::Version(evr) => evr.to_string(),
        // its content is what counts, and that is in the lock
        OverrideTo::File(_) => "file".to_owned(),
    };
    Override { package: &wanted.package, to, reason: &wanted.reason }
}
