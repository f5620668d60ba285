//! Metadata: read as dnf reads them, cached, and refused when they can't be trusted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use strata::digest::Digest;
use strata::gc::{self, Policy};
use strata::package::Dependency;
use strata::repo::{Paths, RepoMetadata};
use strata::store::Store;

use crate::fixture::{Fixture, Gpg, KEY, package, run, signed};
use crate::server::Server;

/// What strata knows of a repository's packages, one line per fact, as dnf-facts.py has it.
pub fn facts(metadata: &RepoMetadata) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for p in metadata.packages.iter() {
        let (n, evr) = (&p.nevra, &p.nevra.evr);
        let me = format!("{}-{}:{}-{}.{}", n.name, evr.epoch, evr.version, evr.release, n.arch);
        let vendor = p.vendor.as_deref().unwrap_or_default();
        let sha256 = p.sha256.unwrap().hex();
        let line = format!("{me} {} {} {} {}", p.location, p.size, p.installed_size, p.build_time);
        facts.insert(format!("{line} {} {vendor} {sha256}", p.source));
        let mut add = |kind: &str, list: &[Arc<Dependency>]| {
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
        fixture.fetcher().filelists(&fixture.repo, &mut metadata, &Paths::all()).unwrap();
        assert_eq!(facts(&metadata), dnf_facts(&fixture.path("repo"), &fixture.path("dnf")));
    }
}

#[test]
fn what_has_not_changed_is_not_downloaded_again() {
    let mut fixture = Fixture::with_thing();
    let server = Server::of(fixture.path("repo"));
    fixture.repo.baseurl = vec![server.url.clone() + "/"];
    let first = fixture.metadata().unwrap();
    assert_eq!(first.revision, 1_739_145_600);
    let again = fixture.metadata().unwrap();
    assert_eq!(facts(&first), facts(&again));
    assert_eq!((server.count("repomd.xml"), server.count("primary.xml.gz")), (2, 1));

    let asked = server.requests.lock().unwrap().len();
    let kept = fixture.fetcher().metadata_at(&fixture.repo, &first.repomd).unwrap().unwrap();
    assert_eq!((facts(&kept), kept.repomd), (facts(&first), first.repomd));
    assert!(fixture.fetcher().metadata_at(&fixture.repo, &Digest::of("never seen")).unwrap().is_none());
    assert_eq!(server.requests.lock().unwrap().len(), asked);
}

#[test]
fn what_was_parsed_is_kept_and_made_again_when_damaged() {
    let fixture = Fixture::with_thing();
    let repodata = fixture.path("repo/repodata");
    for (name, text) in [
        ("updateinfo.xml", "<updates><update><id>RHBA-2025:1</id></update></updates>"),
        ("comps.xml", "<comps><group><id>core</id><name>Core</name></group></comps>"),
        (
            "modules.yaml",
            "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: m\n  stream: s\n...\n",
        ),
    ] {
        fs::write(fixture.path(name), text).unwrap();
        let kind = name.split_once('.').unwrap().0.replace("comps", "group");
        let file = fixture.path(name);
        run("modifyrepo_c", &["--mdtype", &kind, file.to_str().unwrap(), repodata.to_str().unwrap()]);
    }
    let read = || {
        let mut metadata = fixture.metadata().unwrap();
        let fetcher = fixture.fetcher();
        fetcher.filelists(&fixture.repo, &mut metadata, &Paths::all()).unwrap();
        fetcher.advisories(&fixture.repo, &mut metadata).unwrap();
        fetcher.comps(&fixture.repo, &mut metadata).unwrap();
        fetcher.modules(&fixture.repo, &mut metadata).unwrap();
        let RepoMetadata { advisories, comps, modules, .. } = &metadata;
        (facts(&metadata), format!("{advisories:?} {comps:?} {modules:?}"))
    };
    let first = read();
    assert!(
        ["RHBA-2025:1", "Core", "module: \"m\""].iter().all(|told| first.1.contains(told)),
        "{}",
        first.1
    );
    let below = |name: &str| -> Vec<_> {
        let entries = fs::read_dir(fixture.path("store").join(name)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let parsed: Vec<_> = below("parsed").into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    assert_eq!(parsed.len(), 5);
    for (bytes, path) in &parsed {
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(read(), first);
    assert!(parsed.iter().all(|(bytes, path)| fs::read(path).unwrap() == *bytes));
    // the documents are not looked at any more
    let documents = below("repodata");
    for path in documents.iter().filter(|path| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b])) {
        fs::write(path, "damaged").unwrap();
    }
    assert_eq!(read(), first);

    let store = Store::open(&fixture.path("store")).unwrap();
    let name = parsed[0].1.file_name().unwrap().to_str().unwrap().to_owned();
    let (document, version) = name.split_once('.').unwrap();
    let former = fixture.path("store/parsed").join(format!("{document}.0"));
    fs::write(former, "of a former version").unwrap();
    let lonely = fixture.path("store/parsed").join(format!("{}.{version}", Digest::of("x").hex()));
    fs::write(lonely, "without document").unwrap();
    gc::collect(&store, &Policy::default()).unwrap();
    assert_eq!(below("parsed").len(), 5);
    gc::collect(&store, &Policy { all: true, ..Policy::default() }).unwrap();
    assert_eq!(below("parsed").len(), 0);
}

#[test]
fn all_paths_are_known_once_filelists_are_read() {
    let fixture = Fixture::with_thing();
    let mut metadata = fixture.metadata().unwrap();
    assert_eq!(metadata.packages.get(0).files, ["/etc/thing.conf", "/usr/bin/thing"]);
    fixture.fetcher().filelists(&fixture.repo, &mut metadata, &Paths::all()).unwrap();
    assert_eq!(
        metadata.packages.get(0).files,
        ["/etc/thing.conf", "/usr/bin/thing", "/usr/share/thing/data"]
    );
}

#[test]
fn advisories_are_read_on_request() {
    let fixture = Fixture::with_thing();
    let mut metadata = fixture.metadata().unwrap();
    fixture.fetcher().advisories(&fixture.repo, &mut metadata).unwrap();
    assert!(metadata.advisories.is_empty());

    let updateinfo = fixture.path("updateinfo.xml");
    let text = "<updates><update type='security'><id>RHSA-2025:1</id><references>
        <reference type='cve' id='CVE-2025-1'/></references><pkglist><collection>
        <package name='thing' epoch='1' version='1.0~rc1' release='2.el9' arch='noarch'/></collection></pkglist>
        </update></updates>";
    fs::write(&updateinfo, text).unwrap();
    let repodata = fixture.path("repo/repodata");
    run("modifyrepo_c", &[updateinfo.to_str().unwrap(), repodata.to_str().unwrap()]);
    let mut metadata = fixture.metadata().unwrap();
    fixture.fetcher().advisories(&fixture.repo, &mut metadata).unwrap();
    let [advisory] = metadata.advisories.as_slice() else { panic!("{:?}", metadata.advisories) };
    assert_eq!(
        (advisory.id.as_str(), advisory.cves.as_slice()),
        ("RHSA-2025:1", &["CVE-2025-1".to_owned()][..])
    );
    assert_eq!(advisory.packages, [metadata.packages.get(0).nevra.clone()]);
}

/// Asserts that the metadata are refused, in a sentence that names the repository and its line.
fn refused(fixture: &Fixture, message: &str) {
    let error = format!("{:#}", fixture.metadata().unwrap_err());
    assert!(error.starts_with("fetching the metadata of repository repo (stream.toml:1): "), "{error}");
    assert!(error.contains(message), "{error}");
}

#[test]
fn weak_checksums_are_refused_and_strong_ones_taken() {
    let files = [("thing", signed(&mut package("thing"), &KEY))];
    refused(&Fixture::new(&files, &["--checksum", "sha1"]), "checksum proves nothing");
    let fixture = Fixture::new(&files, &["--checksum", "sha512"]);
    let metadata = fixture.metadata().unwrap();
    assert_eq!(metadata.packages.len(), 1);
    assert!(fixture.fetcher().metadata_at(&fixture.repo, &metadata.repomd).unwrap().is_some());
}

#[test]
fn changed_metadata_are_refused() {
    let fixture = Fixture::with_thing();
    let repodata = fixture.path("repo/repodata");
    let primary = fs::read_dir(&repodata).unwrap().map(|e| e.unwrap().path());
    let primary = primary.into_iter().find(|p| p.to_str().unwrap().ends_with("primary.xml.gz")).unwrap();
    let mut bytes = fs::read(&primary).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&primary, &bytes).unwrap();
    refused(&fixture, "expected sha256:");
    bytes.push(0);
    fs::write(&primary, &bytes).unwrap();
    refused(&fixture, "more than the");
    fs::remove_file(&primary).unwrap();
    refused(&fixture, "No such file");
    fs::write(repodata.join("repomd.xml"), "<repomd><data").unwrap();
    refused(&fixture, "parsing");
    assert!(fixture.tree().keys().all(|path| path.ends_with("CACHEDIR.TAG")), "{:?}", fixture.tree());
}

#[test]
fn repomd_must_be_signed_if_the_repository_says_so() {
    let mut fixture = Fixture::with_thing();
    fixture.repo.repo_gpgcheck = true;
    refused(&fixture, "repomd.xml.asc");
    let gpg = Gpg::new();
    let secret = fixture.path("secret");
    fs::write(&secret, &KEY.secret).unwrap();
    gpg.run(&["--import", secret.to_str().unwrap()]);
    let repomd = fixture.path("repo/repodata/repomd.xml");
    gpg.run(&["--armor", "--detach-sign", repomd.to_str().unwrap()]);
    fixture.metadata().unwrap();
    let text = fs::read_to_string(&repomd).unwrap();
    fs::write(&repomd, text.replace("</repomd>", "<!-- --></repomd>")).unwrap();
    refused(&fixture, "is not of this content");
}

#[test]
fn mirrors_are_tried_in_turn() {
    let mut fixture = Fixture::with_thing();
    let good = std::mem::take(&mut fixture.repo.baseurl);
    let list = fixture.path("mirrorlist");
    fs::write(&list, format!("# mirrors\nfile:///nowhere\n{}\n", good[0])).unwrap();
    fixture.repo.mirrorlist = Some(format!("file://{}", list.display()));
    assert_eq!(fixture.metadata().unwrap().packages.len(), 1);
    fs::write(&list, "file:///nowhere\nfile:///nowhere/either\n").unwrap();
    refused(&fixture, "all 2 mirrors of repo failed");
}

#[test]
fn a_metalink_says_which_repomd_to_take() {
    let mut fixture = Fixture::with_thing();
    let good = std::mem::take(&mut fixture.repo.baseurl);
    let digest = Digest::of(fs::read(fixture.path("repo/repodata/repomd.xml")).unwrap());
    let metalink = |digest: Digest| {
        format!(
            "<metalink><files><file name='repomd.xml'><verification><hash type='sha256'>{}</hash></verification>
             <resources><url preference='1'>{}/repodata/repomd.xml</url></resources></file></files></metalink>",
            digest.hex(),
            good[0]
        )
    };
    let path = fixture.path("metalink");
    fixture.repo.metalink = Some(format!("file://{}", path.display()));
    fs::write(&path, metalink(digest)).unwrap();
    assert_eq!(fixture.metadata().unwrap().repomd, digest);
    fs::write(&path, metalink(Digest::of("another"))).unwrap();
    refused(&fixture, "is not the repomd.xml that the metalink describes");
}
