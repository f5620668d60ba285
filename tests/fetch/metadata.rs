//! Metadata: read as dnf reads them, cached, and refused when they can't be trusted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use strata::package::Dependency;
use strata::repo::RepoMetadata;

use crate::fixture::{Fixture, KEY, package, run, signed};

/// What strata knows of a repository's packages, one line per fact, as dnf-facts.py has it.
pub fn facts(metadata: &RepoMetadata) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for p in &metadata.packages {
        let (n, evr) = (&p.nevra, &p.nevra.evr);
        let me = format!("{}-{}:{}-{}.{}", n.name, evr.epoch, evr.version, evr.release, n.arch);
        let vendor = p.vendor.as_deref().unwrap_or_default();
        let sha256 = p.sha256.unwrap().hex();
        let line = format!("{me} {} {} {} {}", p.location, p.size, p.installed_size, p.build_time);
        facts.insert(format!("{line} {} {vendor} {sha256}", p.source));
        let mut add = |kind: &str, list: &[Dependency]| {
            facts.extend(list.iter().map(|dependency| format!("{me} {kind} {dependency}")));
        };
        add("provides", &p.provides);
        add("requires", &p.requires);
        add("conflicts", &p.conflicts);
        add("obsoletes", &p.obsoletes);
        add("recommends", &p.recommends);
        add("suggests", &p.suggests);
        add("supplements", &p.supplements);
        add("enhances", &p.enhances);
        add("pre", &p.requires.iter().filter(|d| d.pre).cloned().collect::<Vec<_>>());
        facts.extend(p.files.iter().map(|path| format!("{me} file {path}")));
    }
    facts
}

/// The same by dnf, through its Python interface.
pub fn dnf_facts(repo: &Path, work: &Path) -> BTreeSet<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fetch/dnf-facts.py");
    let dnf = fs::canonicalize("/usr/bin/dnf").expect("dnf is installed");
    let first = fs::read_to_string(dnf).unwrap().lines().next().unwrap().to_owned();
    let python = first.trim_start_matches("#!").split(' ').next().unwrap().to_owned();
    let url = format!("file://{}", repo.display());
    run(&python, &[script, &url, work.to_str().unwrap()]).lines().map(str::to_owned).collect()
}

#[test]
fn packages_are_read_as_dnf_reads_them() {
    for compression in ["gz", "xz", "bz2"] {
        let files = ["alpha", "beta"].map(|name| (name, signed(&mut package(name), &KEY)));
        let fixture = Fixture::new(&files, &["--no-database", "--general-compress-type", compression]);
        let mut metadata = fixture.metadata().unwrap();
        fixture.fetcher().filelists(&fixture.repo, &mut metadata).unwrap();
        assert_eq!(facts(&metadata), dnf_facts(&fixture.path("repo"), &fixture.path("dnf")));
    }
}
