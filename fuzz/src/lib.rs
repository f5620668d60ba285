//! Where bytes nobody vouches for enter strata. Each function takes some, as a fuzz target of its name gives
//! them, and comes to an end without a panic, whether strata reads them or refuses them.
//!
//! `tests/fuzz_corpus.rs` replays the corpora through the same functions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use strata::exchange::{self, Foreign, Target as Place};
use strata::image::reference::Reference;
use strata::image::untar;
use strata::install::macros::Macros;
use strata::install::payload;
use strata::lock::Lockfile;
use strata::origins::Origins;
use strata::package::Evr;
use strata::package::header::{Header, InstallTags, Phase};
use strata::pkglist::PackageSet;
use strata::repo::comps::Comps;
use strata::repo::modules::Modules;
use strata::repo::{Packages, Paths, RepoPackage, filelists, mirrors, primary, repomd, updateinfo};
use strata::rpmdb::Rpmdb;
use strata::stamp::{OsRelease, Version};
use strata::sysusers;

/// What is done with the bytes of an input.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("exchange", exchange),
    ("header", header),
    ("image", image),
    ("package", package),
    ("repodata", repodata),
    ("rpmdb", rpmdb),
    ("text", text),
];

/// The front of a package with files of every kind, hard links and ghosts: `head.spec`, without its payload.
const HEAD: &[u8] = include_bytes!("../head.rpm");

/// Most bytes that metadata may have decompressed.
const LIMIT: u64 = 16 << 20;

/// The front of a package file: lead, signature and header.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = Header::read(&mut &bytes[..], bytes.len() as u64) {
        ask(&header);
    }
}

/// A payload that follows [`HEAD`], or a whole package.
pub fn package(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let (rpm, staging) = (directory.path().join("rpm"), directory.path().join("staging"));
    let is_whole = bytes.starts_with(&HEAD[..4]);
    let whole = if is_whole { bytes.to_vec() } else { [HEAD, bytes].concat() };
    std::fs::write(&rpm, whole).expect("there is room for a package");
    std::fs::create_dir(&staging).expect("there is room for a directory");
    let Ok(header) = Header::open(&rpm) else { return };
    let Ok(files) = header.files() else { return };
    let _ = payload::unpack(&rpm, &header, &files, &staging, None);
    let made = std::fs::read_dir(directory.path()).expect("it can be listed").count();
    assert_eq!(made, 2, "nothing is made beside the staging directory");
}

/// A header as an rpmdb has it, or a whole rpmdb of any format.
pub fn rpmdb(bytes: &[u8]) {
    if let Ok(header) = Header::from_rpmdb_blob(bytes) {
        ask(&header);
        index(bytes);
    } else {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let path = directory.path().join("Packages");
        std::fs::write(&path, bytes).expect("there is room for an rpmdb");
        let _ = Rpmdb::open_read_only(&path).and_then(|rpmdb| rpmdb.packages());
    }
}

/// Makes index rows of a header.
fn index(blob: &[u8]) {
    thread_local! {
        static RPMDB: RefCell<Rpmdb> = RefCell::new({
            let directory = tempfile::tempdir().expect("there is room for a directory");
            Rpmdb::open(&directory.path().join("rpmdb.sqlite"), directory.path()).expect("an rpmdb can be made")
        });
    }
    RPMDB.with_borrow_mut(|rpmdb| {
        if let Ok(number) = rpmdb.add(blob) {
            rpmdb.remove(number).expect("what was added can be removed");
        }
    });
}

/// Asks a header for everything.
fn ask(header: &Header) {
    const PHASES: [Phase; 8] = [
        Phase::Pretrans,
        Phase::Pre,
        Phase::Post,
        Phase::Preun,
        Phase::Postun,
        Phase::Posttrans,
        Phase::Preuntrans,
        Phase::Postuntrans,
    ];
    let _ = header.to_repo_package();
    let _ = header.triggers();
    let _ = header.changelog();
    let _ = (header.summary(), header.license(), header.vendor(), header.payload_compressor());
    let _ = (header.sigmd5(), header.sha1(), header.sha256(), header.size(), header.build_time());
    let _ = (header.file_states(), header.requires(), header.weak());
    for phase in PHASES {
        let _ = header.scriptlet(phase);
    }
    let count = header.files().map_or(0, |files| files.len());
    let tags = InstallTags { time: 1, tid: 1, color: 3, file_states: vec![0; count] };
    if let Ok(blob) = header.to_rpmdb_blob(&tags) {
        let again = Header::from_rpmdb_blob(&blob).expect("what strata writes it reads");
        assert_eq!(again.nevra(), header.nevra());
    }
}

/// Metadata of a repository, of any kind, compressed or not.
pub fn repodata(bytes: &[u8]) {
    let _ = repomd::Repomd::parse(bytes);
    let _ = mirrors::metalink(bytes);
    let input = || io::Cursor::new(bytes.to_vec());
    let _ = updateinfo::parse(input(), LIMIT);
    let _ = Comps::parse(input(), LIMIT);
    let _ = Modules::parse(input(), LIMIT);
    if let Ok(compact) = primary::parse(input(), LIMIT) {
        let packages: Vec<RepoPackage> = Packages::read(compact).unwrap().iter().cloned().collect();
        let again = Packages::from(packages.clone());
        assert_eq!(format!("{:?}", again.iter().collect::<Vec<_>>()), format!("{packages:?}"));
    }
    if let Ok(index) = filelists::index(input(), LIMIT) {
        filelists::find(&mut io::Cursor::new(index), &Paths::all()).unwrap();
    }
    if let Ok(packages) = Packages::read(bytes.to_vec()) {
        packages.iter().for_each(|package| _ = packages.called(&package.nevra.name).count());
    }
    let _ = filelists::find(&mut input(), &Paths::all());
}

/// What other people's images have: a layer's tar, a list of packages.
pub fn image(bytes: &[u8]) {
    let mut reader = untar::Reader::new(bytes);
    while let Ok(Some(_)) = reader.next_member() {
        if io::copy(&mut reader.content(), &mut io::sink()).is_err() {
            break;
        }
    }
    if let Ok(set) = PackageSet::from_json(bytes) {
        PackageSet::from_json(&set.to_json(&Origins::default())).expect("what strata writes it reads");
    }
}

/// A lock of another tool and, after a NUL, what it answers: its input, or its overrides.
pub fn exchange(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (lock, input) = text.split_once('\0').map_or((text, None), |(lock, input)| (lock, Some(input)));
    let (lock, path) = ((lock, Path::new("lock.x86_64")), Path::new("input"));
    let overrides: Vec<_> = input.map(|input| (input.to_owned(), path)).into_iter().collect();
    let input = input.map(|input| (input, path));
    let place = Place { stream: "demo".to_owned(), layer: "node".to_owned(), plans: BTreeMap::new() };
    take(exchange::konflux::import(lock, input, &place), &place);
    take(exchange::libpkgmanifest::import(lock, input), &place);
    take(exchange::rpm_ostree::import(lock, &overrides, None), &place);
}

/// Makes locks and manifests of what was imported. Those that are made are read.
fn take<E>(imported: Result<Foreign, E>, place: &Place) {
    let Ok(foreign) = imported else { return };
    let _ = foreign.manifests(place);
    for lockfile in foreign.locks(place).unwrap_or_default() {
        let written = lockfile.to_toml();
        Lockfile::parse(&written, Path::new("fuzz.toml")).expect("what strata writes it reads");
    }
}

/// Small formats of text.
pub fn text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(lockfile) = Lockfile::parse(text, Path::new("fuzz.toml")) {
        let written = lockfile.to_toml();
        let again = Lockfile::parse(&written, Path::new("fuzz.toml")).expect("what strata writes it reads");
        assert_eq!(again.to_toml(), written);
    }
    let _ = OsRelease::parse(text);
    let _ = mirrors::mirrorlist(text);
    let _ = Macros::default().expand(text);
    for line in text.lines() {
        let _ = sysusers::Entry::parse(line);
        let _ = line.parse::<Reference>().map(|reference| reference.to_string());
        if let Ok(version) = line.parse::<Version>() {
            assert_eq!(version.to_string().parse().ok(), Some(version));
        }
        if let Ok(evr) = line.parse::<Evr>() {
            assert_eq!(evr.to_string().parse().ok(), Some(evr));
        }
    }
}
