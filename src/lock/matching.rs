//! Packages that must have one EVR: a kernel and the modules, headers and real-time variants that go with it.
//!
//! rpm does not say so where they are in different layers, or are different packages of one source: an image with
//! kernel-rt modules of another build boots, and then does not. rpm-ostree's extensions have `match-base-evr` for it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::Installed;
use crate::error::hinted;
use crate::package::Evr;
use crate::repo::RepoMetadata;

/// Checks that the packages `installed` with a layer, which match any of a set's globs, have one EVR. If they have
/// not, says what the newest EVR is that all of them have, in the layers or in `offered`.
pub(super) fn check(
    layer: &str,
    sets: &BTreeMap<String, Vec<String>>,
    installed: &[Installed],
    offered: &[&RepoMetadata],
) -> Result<()> {
    for (name, globs) in sets {
        let set = compiled(globs).with_context(|| format!("reading `match-evr.{name}` of the stream"))?;
        let members: Vec<&Installed> = installed.iter().filter(|i| set.is_match(&i.package.name)).collect();
        let Some(first) = members.first() else { continue };
        if members.iter().all(|i| i.package.evr == first.package.evr) {
            continue;
        }
        let named = |i: &&Installed| format!("{} of the {} layer", i.package.nevra(), i.layer);
        let list: Vec<String> = members.iter().map(named).collect();
        return Err(hinted(
            format!(
                "with the {layer} layer there are several versions of what must have one (`match-evr.{name}` of \
                 the stream): {}",
                list.join(", ")
            ),
            advice(&members, offered),
        ));
    }
    Ok(())
}

fn compiled(globs: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob)?);
    }
    Ok(set.build()?)
}

fn advice(members: &[&Installed], offered: &[&RepoMetadata]) -> String {
    let names: BTreeSet<&str> = members.iter().map(|i| i.package.name.as_str()).collect();
    let mut found: BTreeMap<&Evr, BTreeSet<&str>> = BTreeMap::new();
    let there = members.iter().map(|i| (&i.package.evr, i.package.name.as_str()));
    let called = |name| offered.iter().flat_map(move |repo| repo.packages.called(name));
    let packages = names.iter().flat_map(|name| called(name));
    for (evr, name) in there.chain(packages.map(|p| (&p.nevra.evr, p.nevra.name.as_str()))) {
        found.entry(evr).or_default().insert(name);
    }
    let consistent = found.iter().filter(|(_, have)| have.len() == names.len()).map(|(evr, _)| *evr);
    let named = names.iter().copied().collect::<Vec<_>>().join(", ");
    match consistent.max_by(|a, b| a.rpm_cmp(b)) {
        Some(evr) => format!(
            "{evr} is the newest that the repositories have of {named}: lock the layers below to it, or override \
             what is there"
        ),
        None if offered.is_empty() => "`strata lock --update` tells what the repositories have".to_owned(),
        None => format!("the repositories have no version of all of {named}: add one that has"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::lock::LockedPackage;
    use crate::package::Nevra;
    use crate::repo::RepoPackage;

    fn nevra(text: &str) -> Nevra {
        let (name, evr) = text.split_once(' ').unwrap();
        Nevra { name: name.into(), evr: evr.parse().unwrap(), arch: "x86_64".into() }
    }

    fn installed(texts: &[&str]) -> Vec<Installed> {
        let one =
            |text: &&str| Installed { layer: "bootc".into(), package: LockedPackage::in_image(&nevra(text)) };
        texts.iter().map(one).collect()
    }

    fn verdict(there: &[&str], offered: &[&str]) -> Result<(), String> {
        let package = |text: &&str| RepoPackage { nevra: nevra(text), ..RepoPackage::default() };
        let repo = RepoMetadata {
            id: "r".into(),
            revision: 0,
            repomd: Digest::of(""),
            priority: 99,
            cost: 1000,
            packages: offered.iter().map(package).collect(),
            advisories: Vec::new(),
            comps: Default::default(),
            modules: Default::default(),
            module_hotfixes: false,
        };
        let sets = [("kernel".to_owned(), vec!["kernel".to_owned(), "kernel-rt*".to_owned()])].into();
        check("node", &sets, &installed(there), &[&repo]).map_err(|error| {
            let hints = error.chain().filter_map(|cause| cause.downcast_ref::<crate::error::Hint>());
            format!("{error}; {}", hints.map(|hint| hint.advice()).collect::<String>())
        })
    }

    #[test]
    fn one_version_is_fine() {
        assert_eq!(verdict(&[], &[]), Ok(()));
        assert_eq!(verdict(&["kernel 5-1", "kernel-rt 5-1", "bash 1-1", "kernel-tools 4-1"], &[]), Ok(()));
    }

    #[test]
    fn the_newest_that_all_have_is_named() {
        let there = ["kernel 5-1", "kernel-rt 5-3"];
        let error = verdict(&there, &["kernel 5-2", "kernel 5-10", "kernel-rt 5-2", "kernel-rt 5-10"]);
        let error = error.unwrap_err();
        assert!(error.contains("kernel-5-1.x86_64 of the bootc layer, kernel-rt-5-3.x86_64"), "{error}");
        assert!(error.contains("5-10 is the newest"), "{error}");
        let error = verdict(&there, &["kernel 5-3", "kernel-rt 5-9"]).unwrap_err();
        assert!(error.contains("5-3 is the newest"), "{error}");
        let error = verdict(&there, &["kernel 5-2", "kernel-rt 5-4"]).unwrap_err();
        assert!(error.contains("no version of all of kernel, kernel-rt"), "{error}");
    }
}
