//! `repodata/` of a folder of packages, as createrepo_c writes it: repomd, primary, filelists, other.
//!
//! The same packages give the same bytes: where createrepo_c has the time of the day or of a file, this has the time
//! a package was built.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesStart, BytesText, Event};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rpm::IndexTag as Tag;

use crate::digest::Digest;
use crate::fetch::vendored;
use crate::lock::LockedPackage;
use crate::package::header::{Header, HeaderDependency};
use crate::package::{Comparison, Dependency, Evr, Nevra};
use crate::replace::replace;

/// The document that names the others, in the folder.
pub const REPOMD: &str = "repodata/repomd.xml";

/// createrepo_c's `--changelog-limit`.
const CHANGELOGS: usize = 10;

/// rpm: `RPMFILE_GHOST`
const GHOST: u32 = 1 << 6;

/// stat(2): the type bits, and those of a directory.
const TYPE: u32 = 0o170000;
const DIRECTORY: u32 = 0o040000;

type Xml = Writer<Vec<u8>>;

/// Writes the `repodata/` of packages that are in a folder, each at the place
/// [`Fetcher::vendor`](crate::fetch::Fetcher::vendor) gives it. What an earlier one left there goes away.
pub fn write<'p>(dir: &Path, packages: impl Iterator<Item = &'p LockedPackage>) -> Result<()> {
    // two layers may install the same file
    let unique: BTreeMap<Nevra, &LockedPackage> =
        packages.map(|package| (package.nevra(), package)).collect();
    let listed: Result<Vec<_>> =
        unique.into_par_iter().map(|(_, package)| Listed::read(dir, package)).collect();
    let listed = listed?;
    let documents =
        [("primary", primary(&listed)?), ("filelists", filelists(&listed)?), ("other", other(&listed)?)];
    let stored =
        documents.into_iter().map(|(kind, xml)| Stored::new(kind, &xml)).collect::<Result<Vec<_>>>()?;
    let revision = listed.iter().map(|package| package.built).max().unwrap_or_default();
    let context = || format!("writing the repodata of {}", dir.display());
    fs::create_dir_all(dir.join("repodata")).with_context(context)?;
    for file in &stored {
        replace(&dir.join("repodata").join(&file.name), &file.bytes)?;
    }
    replace(&dir.join(REPOMD), &repomd(&stored, revision)?)?;
    remove_others(&dir.join("repodata"), &stored).with_context(context)
}

/// Removes what an earlier repomd.xml named.
fn remove_others(repodata: &Path, stored: &[Stored]) -> Result<()> {
    let ours: BTreeSet<&str> = stored.iter().map(|file| file.name.as_str()).collect();
    for entry in fs::read_dir(repodata)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_data = name.split_once('-').is_some_and(|(digest, kind)| {
            Digest::from_hex(digest).is_ok()
                && ["primary", "filelists", "other"].iter().any(|k| kind.starts_with(k))
        });
        if is_data && !ours.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A package and its header.
struct Listed {
    header: Header,
    /// Path in the folder.
    href: String,
    /// Of the file, hex.
    sha256: String,
    /// Of the file, in bytes.
    size: u64,
    /// UTC seconds.
    built: u64,
}

impl Listed {
    fn read(dir: &Path, package: &LockedPackage) -> Result<Self> {
        let href = vendored(package)?;
        let header = Header::open(&dir.join(&href))?;
        let built = header.build_time()?;
        let sha256 =
            package.sha256.with_context(|| format!("{} is locked without a digest", package.nevra()))?;
        Ok(Self { header, href, sha256: sha256.hex(), size: package.size, built })
    }

    /// A text of the header; empty if there is none. Characters that XML has not are left out.
    fn text(&self, tag: Tag) -> Result<String> {
        let text = self.header.prose(tag)?.unwrap_or_default();
        Ok(plain(&text))
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).collect()
}

/// A compressed document.
struct Stored {
    kind: &'static str,
    name: String,
    bytes: Vec<u8>,
    digest: Digest,
    open_digest: Digest,
    open_size: usize,
}

impl Stored {
    fn new(kind: &'static str, xml: &[u8]) -> Result<Self> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(xml)?;
        let bytes = encoder.finish().with_context(|| format!("compressing {kind}.xml"))?;
        let digest = Digest::of(&bytes);
        let name = format!("{}-{kind}.xml.gz", digest.hex());
        Ok(Self { kind, name, digest, open_digest: Digest::of(xml), open_size: xml.len(), bytes })
    }
}

fn repomd(data: &[Stored], revision: u64) -> Result<Vec<u8>> {
    let namespaces = [
        ("xmlns", "http://linux.duke.edu/metadata/repo"),
        ("xmlns:rpm", "http://linux.duke.edu/metadata/rpm"),
    ];
    let revision = revision.to_string();
    document("repomd", &namespaces, |xml| {
        text(xml, "revision", &revision)?;
        for stored in data {
            element(xml, "data", &[("type", stored.kind)], |xml| {
                let sum = [("type", "sha256")];
                element(xml, "checksum", &sum, |xml| characters(xml, &stored.digest.hex()))?;
                element(xml, "open-checksum", &sum, |xml| characters(xml, &stored.open_digest.hex()))?;
                empty(xml, "location", &[("href", &format!("repodata/{}", stored.name))])?;
                text(xml, "timestamp", &revision)?;
                text(xml, "size", &stored.bytes.len().to_string())?;
                text(xml, "open-size", &stored.open_size.to_string())
            })?;
        }
        Ok(())
    })
}

fn primary(packages: &[Listed]) -> Result<Vec<u8>> {
    let count = packages.len().to_string();
    let attributes = [
        ("xmlns", "http://linux.duke.edu/metadata/common"),
        ("xmlns:rpm", "http://linux.duke.edu/metadata/rpm"),
        ("packages", &count),
    ];
    document("metadata", &attributes, |xml| {
        packages.iter().try_for_each(|package| {
            element(xml, "package", &[("type", "rpm")], |xml| entry(xml, package))
                .with_context(|| format!("describing {}", package.header.nevra()))
        })
    })
}

fn entry(xml: &mut Xml, package: &Listed) -> Result<()> {
    let header = &package.header;
    text(xml, "name", &header.nevra().name)?;
    text(xml, "arch", &header.nevra().arch)?;
    version(xml, &header.nevra().evr)?;
    let id = [("type", "sha256"), ("pkgid", "YES")];
    element(xml, "checksum", &id, |xml| characters(xml, &package.sha256))?;
    text(xml, "summary", &package.text(Tag::RPMTAG_SUMMARY)?)?;
    text(xml, "description", &package.text(Tag::RPMTAG_DESCRIPTION)?)?;
    text(xml, "packager", &package.text(Tag::RPMTAG_PACKAGER)?)?;
    text(xml, "url", &package.text(Tag::RPMTAG_URL)?)?;
    let built = package.built.to_string();
    empty(xml, "time", &[("file", &built), ("build", &built)])?;
    let sizes = [package.size, header.size()?, header.archive_size()?].map(|size| size.to_string());
    empty(xml, "size", &[("package", &sizes[0]), ("installed", &sizes[1]), ("archive", &sizes[2])])?;
    empty(xml, "location", &[("href", &package.href)])?;
    element(xml, "format", &[], |xml| format(xml, package))
}

fn format(xml: &mut Xml, package: &Listed) -> Result<()> {
    let header = &package.header;
    for (name, tag) in [
        ("rpm:license", Tag::RPMTAG_LICENSE),
        ("rpm:vendor", Tag::RPMTAG_VENDOR),
        ("rpm:group", Tag::RPMTAG_GROUP),
        ("rpm:buildhost", Tag::RPMTAG_BUILDHOST),
        ("rpm:sourcerpm", Tag::RPMTAG_SOURCERPM),
    ] {
        text(xml, name, &package.text(tag)?)?;
    }
    let range = header.range();
    empty(xml, "rpm:header-range", &[("start", &range.start.to_string()), ("end", &range.end.to_string())])?;
    let files = header.files()?;
    let listed: Vec<_> = files.iter().filter(|file| in_primary(&file.path)).collect();
    let provides = header.provides()?;
    let own = listed.iter().map(|file| file.path.as_str()).collect();
    let [recommends, suggests, supplements, enhances, _] = header.weak()?;
    dependencies(xml, "rpm:provides", &provides)?;
    dependencies(xml, "rpm:requires", &listed_requires(header.requires()?, &provides, &own))?;
    dependencies(xml, "rpm:conflicts", &header.conflicts()?)?;
    dependencies(xml, "rpm:obsoletes", &header.obsoletes()?)?;
    dependencies(xml, "rpm:suggests", &suggests)?;
    dependencies(xml, "rpm:enhances", &enhances)?;
    dependencies(xml, "rpm:recommends", &recommends)?;
    dependencies(xml, "rpm:supplements", &supplements)?;
    listed.into_iter().try_for_each(|file| file_element(xml, file.mode, file.flags, &file.path))
}

/// Whether primary.xml lists a path; filelists.xml has them all.
fn in_primary(path: &str) -> bool {
    path.starts_with("/etc/") || path.contains("bin/") || path == "/usr/lib/sendmail"
}

/// The requirements that createrepo_c lists (its `src/parsehdr.c`): not rpm's own features, nothing twice in a row of
/// its name, nothing that the package provides itself or that is one of its files in primary.xml, and of glibc's
/// symbol versions the highest, last.
fn listed_requires(
    requires: Vec<HeaderDependency>,
    provides: &[HeaderDependency],
    own: &HashSet<&str>,
) -> Vec<HeaderDependency> {
    let same = |a: &Dependency, b: &Dependency| (&a.name, &a.version) == (&b.name, &b.version);
    let (mut listed, mut libc): (Vec<HeaderDependency>, Option<HeaderDependency>) = (Vec::new(), None);
    for require in requires {
        let dependency = &require.dependency;
        let name = dependency.name.as_str();
        let is_provided = provides.iter().any(|provide| same(&provide.dependency, dependency));
        if name.starts_with("rpmlib(") || own.contains(name) || is_provided {
            continue;
        }
        if name.starts_with("libc.so.6") {
            let higher = libc
                .as_ref()
                .is_none_or(|libc| SymbolVersion::of(&libc.dependency.name) < SymbolVersion::of(name));
            if higher {
                libc = Some(require);
            }
            continue;
        }
        // only the last of that name counts, so that an entry can come back
        let last = listed.iter().rfind(|other| other.dependency.name == name);
        if last.is_none_or(|last| last.dependency != *dependency) {
            listed.push(require);
        }
    }
    listed.extend(libc);
    listed
}

/// The version in `libc.so.6(GLIBC_2.34)(64bit)`, in createrepo_c's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SymbolVersion {
    /// `libc.so.6`
    Unversioned,
    /// `libc.so.6()(64bit)`
    Empty,
    /// `libc.so.6(GLIBC_PRIVATE)(64bit)`
    Word,
    /// `2.34`
    Number(Evr),
}

impl SymbolVersion {
    fn of(name: &str) -> Self {
        let Some((word, _)) = name.split_once('(').and_then(|(_, rest)| rest.split_once(')')) else {
            return Self::Unversioned;
        };
        match word.find(|c: char| c.is_ascii_digit()) {
            _ if word.is_empty() => Self::Empty,
            None => Self::Word,
            Some(at) => Self::Number(Evr::new(0, &word[at..], "")),
        }
    }
}

fn dependencies(xml: &mut Xml, name: &str, list: &[HeaderDependency]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    element(xml, name, &[], |xml| {
        for HeaderDependency { dependency, .. } in list {
            let mut attributes = vec![("name", dependency.name.clone())];
            if let Some((comparison, evr)) = &dependency.version {
                attributes.push(("flags", flags(*comparison).to_owned()));
                attributes.push(("epoch", evr.epoch.to_string()));
                attributes.push(("ver", evr.version.clone()));
                attributes
                    .extend(Some(("rel", evr.release.clone())).filter(|(_, release)| !release.is_empty()));
            }
            if name == "rpm:requires" && dependency.pre {
                attributes.push(("pre", "1".to_owned()));
            }
            let attributes: Vec<(&str, &str)> =
                attributes.iter().map(|(key, value)| (*key, value.as_str())).collect();
            empty(xml, "rpm:entry", &attributes)?;
        }
        Ok(())
    })
}

fn flags(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Lt => "LT",
        Comparison::Le => "LE",
        Comparison::Eq => "EQ",
        Comparison::Ge => "GE",
        Comparison::Gt => "GT",
    }
}

fn filelists(packages: &[Listed]) -> Result<Vec<u8>> {
    listing("filelists", "filelists", packages, |xml, package| {
        package
            .header
            .files()?
            .iter()
            .try_for_each(|file| file_element(xml, file.mode, file.flags, &file.path))
    })
}

fn other(packages: &[Listed]) -> Result<Vec<u8>> {
    listing("other", "otherdata", packages, |xml, package| {
        for change in package.header.changelog()?.iter().take(CHANGELOGS).rev() {
            let attributes = [("author", &*plain(&change.author)), ("date", &*change.time.to_string())];
            element(xml, "changelog", &attributes, |xml| characters(xml, &plain(&change.text)))?;
        }
        Ok(())
    })
}

/// filelists.xml and other.xml: an element for each package, told apart by its checksum.
fn listing(
    name: &str,
    root: &str,
    packages: &[Listed],
    body: impl Fn(&mut Xml, &Listed) -> Result<()>,
) -> Result<Vec<u8>> {
    let (namespace, count) = (format!("http://linux.duke.edu/metadata/{name}"), packages.len().to_string());
    document(root, &[("xmlns", &namespace), ("packages", &count)], |xml| {
        for package in packages {
            let Nevra { name, evr, arch } = package.header.nevra();
            let attributes = [("pkgid", package.sha256.as_str()), ("name", name), ("arch", arch)];
            element(xml, "package", &attributes, |xml| {
                version(xml, evr)?;
                body(xml, package)
            })?;
        }
        Ok(())
    })
}

fn version(xml: &mut Xml, evr: &Evr) -> Result<()> {
    empty(xml, "version", &[("epoch", &evr.epoch.to_string()), ("ver", &evr.version), ("rel", &evr.release)])
}

fn file_element(xml: &mut Xml, mode: u32, flags: u32, path: &str) -> Result<()> {
    let kind = match mode & TYPE {
        DIRECTORY => &[("type", "dir")][..],
        _ if flags & GHOST != 0 => &[("type", "ghost")],
        _ => &[],
    };
    element(xml, "file", kind, |xml| characters(xml, path))
}

/// An XML document with one root element.
fn document(
    root: &str,
    attributes: &[(&str, &str)],
    body: impl FnOnce(&mut Xml) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut xml = Writer::new(Vec::new());
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    xml.get_mut().push(b'\n');
    element(&mut xml, root, attributes, body)?;
    Ok(xml.into_inner())
}

fn element(
    xml: &mut Xml,
    name: &str,
    attributes: &[(&str, &str)],
    body: impl FnOnce(&mut Xml) -> Result<()>,
) -> Result<()> {
    let mut start = BytesStart::new(name);
    start.extend_attributes(attributes.iter().copied());
    let end = start.to_end().into_owned();
    xml.write_event(Event::Start(start.clone()))?;
    body(xml)?;
    xml.write_event(Event::End(end))?;
    xml.get_mut().push(b'\n');
    Ok(())
}

fn empty(xml: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> Result<()> {
    element(xml, name, attributes, |_| Ok(()))
}

fn text(xml: &mut Xml, name: &str, value: &str) -> Result<()> {
    element(xml, name, &[], |xml| characters(xml, value))
}

fn characters(xml: &mut Xml, value: &str) -> Result<()> {
    Ok(xml.write_event(Event::Text(BytesText::new(value)))?)
}
